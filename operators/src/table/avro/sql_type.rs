//! The SQL type of an Avro schema and the Avro schema of a SQL type, both as Spark maps them.

use super::schema::{Kind, Logical, Name, Schema, SchemaError};
use crate::table::types::{DataType, Field, Schema as SqlSchema};
use std::sync::Arc;

/// A SQL type, and whether its values can be NULL.
pub struct Nullable {
    /// The SQL type.
    pub data_type: DataType,
    /// Whether a value can be NULL.
    pub is_nullable: bool,
}

/// How a union appears in SQL, depending on its branches.
#[derive(Debug, PartialEq, Eq)]
pub enum UnionShape {
    /// All branches are `null`: the type NULL.
    Null,
    /// One type other than `null`, or two of which one is wider (`int` and `long`, `float` and
    /// `double`): a value of the only or the wider type.
    Plain,
    /// Any other types: a struct with a field per branch other than `null`. One field is not NULL.
    Members,
}

impl UnionShape {
    /// The shape of a union with these branches; `null` branches are not passed.
    pub fn of(branches: &[&Arc<Schema>]) -> Self {
        match branches {
            [] => Self::Null,
            [_] => Self::Plain,
            [a, b] => match (&a.kind, &b.kind) {
                (Kind::Int, Kind::Long) | (Kind::Long, Kind::Int) => Self::Plain,
                (Kind::Float, Kind::Double) | (Kind::Double, Kind::Float) => Self::Plain,
                _ => Self::Members,
            },
            _ => Self::Members,
        }
    }
}

/// The SQL type of the values of a schema. Fails if the schema contains a `time-micros`.
pub fn sql_type(schema: &Schema) -> Result<Nullable, SchemaError> {
    let plain = |data_type| Ok(Nullable { data_type, is_nullable: false });
    match &schema.kind {
        Kind::Null => Ok(Nullable { data_type: DataType::Null, is_nullable: true }),
        Kind::Boolean => plain(DataType::Boolean),
        Kind::Int if schema.logical == Some(Logical::Date) => plain(DataType::Date),
        Kind::Int => plain(interval(schema).unwrap_or(DataType::Int)),
        Kind::Long if schema.logical == Some(Logical::TimeMicros) => Err(SchemaError(
            "`time-micros` is TIME in SQL, which Avro does not hold yet; remove the logical type to \
             read it as BIGINT"
                .to_string(),
        )),
        Kind::Long => plain(match schema.logical {
            Some(Logical::TimestampMillis | Logical::TimestampMicros) => DataType::Timestamp,
            Some(Logical::LocalTimestampMillis | Logical::LocalTimestampMicros) => {
                DataType::TimestampNtz
            }
            _ => interval(schema).unwrap_or(DataType::Long),
        }),
        Kind::Float => plain(DataType::Float),
        Kind::Double => plain(DataType::Double),
        Kind::Bytes | Kind::Fixed { .. } => plain(match schema.logical {
            Some(Logical::Decimal(precision, scale)) => DataType::Decimal(precision, scale),
            _ => DataType::Binary,
        }),
        Kind::String | Kind::Enum { .. } => plain(DataType::String),
        Kind::Array(items) => plain(DataType::Array(Box::new(sql_type(items)?.data_type))),
        Kind::Map(values) => {
            let value = sql_type(values)?.data_type;
            plain(DataType::Map(Box::new(DataType::String), Box::new(value)))
        }
        Kind::Record { fields, .. } => {
            let field = |field: &super::schema::Field| {
                let Nullable { data_type, is_nullable } = sql_type(&field.schema)?;
                Ok(Field::new(&field.name, data_type, is_nullable))
            };
            plain(DataType::Struct(fields.iter().map(field).collect::<Result<_, _>>()?))
        }
        Kind::Union(branches) => union_type(schema, branches.len()),
    }
}

fn union_type(schema: &Schema, branches: usize) -> Result<Nullable, SchemaError> {
    let values = schema.value_branches().unwrap_or_default();
    let is_nullable = values.len() < branches;
    let data_type = match UnionShape::of(&values) {
        UnionShape::Null => DataType::Null,
        UnionShape::Plain => match (&values[0].kind, values.len()) {
            (Kind::Int | Kind::Long, 2) => DataType::Long,
            (Kind::Float | Kind::Double, 2) => DataType::Double,
            _ => {
                let inner = sql_type(values[0])?;
                let is_nullable = is_nullable || inner.is_nullable;
                return Ok(Nullable { data_type: inner.data_type, is_nullable });
            }
        },
        UnionShape::Members => {
            let member = |(index, branch): (usize, &&Arc<Schema>)| {
                Ok(Field::new(format!("member{index}"), sql_type(branch)?.data_type, true))
            };
            DataType::Struct(values.iter().enumerate().map(member).collect::<Result<_, _>>()?)
        }
    };
    Ok(Nullable { data_type, is_nullable })
}

/// The interval type, if Spark stored one in the schema of an `int` or `long`.
fn interval(schema: &Schema) -> Option<DataType> {
    let written = schema.catalyst_type.as_ref()?;
    let parsed = SqlSchema::parse_ddl(&format!("value {written}")).ok()?;
    let found = parsed.fields.into_iter().next()?.data_type;
    match (&schema.kind, &found) {
        (Kind::Int, DataType::YearMonthInterval(..))
        | (Kind::Long, DataType::DayTimeInterval(..)) => Some(found),
        _ => None,
    }
}

/// The schema that Spark writes for a SQL type. Elements of arrays and values of maps are always
/// nullable, because a SQL type does not tell whether they are.
pub fn schema_of(data_type: &DataType, is_nullable: bool) -> Arc<Schema> {
    schema_of_named(data_type, is_nullable, "topLevelRecord")
}

fn schema_of_named(data_type: &DataType, is_nullable: bool, record: &str) -> Arc<Schema> {
    let with = |kind, logical| Schema::new(kind, logical, None);
    let name = |full: String| Name { full, aliases: Vec::new() };
    let schema = match data_type {
        // A VARIANT and an INTERVAL have no schema. The encoder refuses them for this one.
        DataType::Null | DataType::Variant | DataType::CalendarInterval => {
            return Arc::new(Schema::plain(Kind::Null));
        }
        DataType::Boolean => Schema::plain(Kind::Boolean),
        DataType::Byte | DataType::Short | DataType::Int => Schema::plain(Kind::Int),
        DataType::Long => Schema::plain(Kind::Long),
        DataType::Float => Schema::plain(Kind::Float),
        DataType::Double => Schema::plain(Kind::Double),
        DataType::String => Schema::plain(Kind::String),
        DataType::Binary => Schema::plain(Kind::Bytes),
        DataType::Date => with(Kind::Int, Some(Logical::Date)),
        DataType::Timestamp => with(Kind::Long, Some(Logical::TimestampMicros)),
        DataType::TimestampNtz => with(Kind::Long, Some(Logical::LocalTimestampMicros)),
        DataType::Time(_) => with(Kind::Long, Some(Logical::TimeMicros)),
        DataType::YearMonthInterval(..) => {
            Schema::new(Kind::Int, None, Some(data_type.to_string()))
        }
        DataType::DayTimeInterval(..) => Schema::new(Kind::Long, None, Some(data_type.to_string())),
        DataType::Decimal(precision, scale) => with(
            Kind::Fixed {
                name: name(format!("{record}.fixed")),
                size: bytes_of_precision(*precision),
            },
            Some(Logical::Decimal(*precision, *scale)),
        ),
        DataType::Array(element) => {
            Schema::plain(Kind::Array(schema_of_named(element, true, record)))
        }
        DataType::Map(_, value) => Schema::plain(Kind::Map(schema_of_named(value, true, record))),
        DataType::Struct(fields) => {
            let field = |field: &Field| super::schema::Field {
                name: field.name.clone(),
                aliases: Vec::new(),
                default: None,
                schema: schema_of_named(
                    &field.data_type,
                    field.nullable,
                    &format!("{record}.{}", field.name),
                ),
            };
            Schema::plain(Kind::Record {
                name: name(record.to_string()),
                fields: fields.iter().map(field).collect(),
            })
        }
    };
    if !is_nullable {
        return Arc::new(schema);
    }
    let null = Arc::new(Schema::plain(Kind::Null));
    Arc::new(Schema::plain(Kind::Union(vec![Arc::new(schema), null])))
}

/// The number of bytes for the largest unscaled value of a decimal, its sign included.
fn bytes_of_precision(precision: u8) -> usize {
    let largest = 10u128.saturating_pow(u32::from(precision)) - 1;
    (1..16).find(|bytes| largest < 1 << (8 * bytes - 1)).unwrap_or(16)
}
