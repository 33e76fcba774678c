//! Interprets the schema of a Parquet file: scalars, lists, maps and structs. Spark's rules apply
//! to all legacy layouts of lists and maps.
//!
//! The decoder is given the same schema without annotations ([`plain`]), so that it yields the
//! stored values: numbers, bytes, a struct per group and a list per repeated field. A column of an
//! unsupported type is an error only if it is read or if the schema is inferred.

use crate::table::types::DataType;
use parquet::basic::{ConvertedType, LogicalType, Repetition, TimeUnit, Type as Physical};
use parquet::errors::ParquetError;
use parquet::schema::types::{Type, TypePtr};
use std::ops::Range;
use std::sync::Arc;

/// A field of a file.
#[derive(Clone, Debug)]
pub struct Node {
    pub name: String,
    pub shape: Shape,
    /// The range of scalar columns below the field.
    pub leaves: Range<usize>,
}

/// The interpreted type of a field.
#[derive(Clone, Debug)]
pub enum Shape {
    Scalar(Scalar),
    Struct(Vec<Node>),
    List(Layout, Box<Node>),
    /// A struct that contains a list of structs of a key and a value.
    Map(Box<[Node; 2]>),
    /// An annotated group that fits no layout.
    Malformed(&'static str),
}

/// The layout of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// The field itself is repeated and has no enclosing group.
    Repeated,
    /// Two levels: a group with a repeated field, which is the element.
    Two,
    /// Three levels: a group with a repeated group, which contains the element.
    Three,
}

/// A stored scalar: its physical type and its annotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scalar {
    pub physical: Physical,
    pub meaning: Meaning,
}

/// The annotation of a scalar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// No annotation.
    Plain,
    /// An integer: its width in bits, and whether it is signed.
    Integer(u8, bool),
    /// A decimal: precision and scale.
    Decimal(u8, u8),
    Text,
    Date,
    Time(Unit),
    /// A timestamp: its unit, and whether it is an instant (adjusted to UTC) or a local time.
    Timestamp(Unit, bool),
    /// A column that is NULL in every row.
    Null,
    HalfFloat,
    /// The name of an annotation that has no SQL type.
    Other(&'static str),
}

/// The unit of a time or timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Millis,
    Micros,
    Nanos,
}

/// Rules for inferring types where Parquet's types are ambiguous.
#[derive(Clone, Copy, Debug)]
pub struct Inference {
    /// Whether BINARY without an annotation is read as STRING.
    pub binary_as_string: bool,
    /// Whether local timestamps are read as TIMESTAMP_NTZ instead of TIMESTAMP.
    pub wall_clocks: bool,
    /// Whether timestamps in nanoseconds are read as BIGINT.
    pub nanos_as_long: bool,
}

impl Node {
    /// The top-level fields of a file.
    pub fn fields_of(root: &Type) -> Vec<Self> {
        let mut next_leaf = 0;
        root.get_fields().iter().map(|field| Self::of(field, &mut next_leaf)).collect()
    }

    /// Interprets a field of a struct. A repeated field is a list.
    fn of(field: &Type, next_leaf: &mut usize) -> Self {
        let node = Self::once(field, next_leaf);
        if repetition(field) != Repetition::REPEATED {
            return node;
        }
        let (name, leaves) = (node.name.clone(), node.leaves.clone());
        Self { name, shape: Shape::List(Layout::Repeated, Box::new(node)), leaves }
    }

    /// Interprets a field without regard to its repetition.
    fn once(field: &Type, next_leaf: &mut usize) -> Self {
        let first = *next_leaf;
        let shape = if field.is_primitive() {
            *next_leaf += 1;
            Shape::Scalar(Scalar { physical: field.get_physical_type(), meaning: meaning(field) })
        } else {
            group(field, next_leaf)
        };
        Self { name: field.name().to_string(), shape, leaves: first..*next_leaf }
    }

    /// The inferred SQL type. The error says why there is none.
    pub fn data_type(&self, inference: &Inference) -> Result<DataType, String> {
        match &self.shape {
            Shape::Scalar(scalar) => scalar.data_type(inference),
            Shape::Struct(fields) => {
                let field = |node: &Self| {
                    let data_type = node.data_type(inference)?;
                    Ok(crate::table::types::Field::new(node.name.clone(), data_type, true))
                };
                fields.iter().map(field).collect::<Result<_, String>>().map(DataType::Struct)
            }
            Shape::List(_, element) => Ok(DataType::Array(Box::new(element.data_type(inference)?))),
            Shape::Map(entry) => {
                let [key, value] = entry.as_ref();
                let key = Box::new(key.data_type(inference)?);
                Ok(DataType::Map(key, Box::new(value.data_type(inference)?)))
            }
            Shape::Malformed(reason) => Err((*reason).to_string()),
        }
    }

    /// The field's type in error messages.
    pub fn describe(&self) -> String {
        match &self.shape {
            Shape::Scalar(scalar) => scalar.describe(),
            Shape::Struct(_) => "a STRUCT".to_string(),
            Shape::List(..) => "an ARRAY".to_string(),
            Shape::Map(_) => "a MAP".to_string(),
            Shape::Malformed(reason) => (*reason).to_string(),
        }
    }
}

fn repetition(field: &Type) -> Repetition {
    let info = field.get_basic_info();
    if info.has_repetition() { info.repetition() } else { Repetition::REQUIRED }
}

fn group(field: &Type, next_leaf: &mut usize) -> Shape {
    let info = field.get_basic_info();
    let fields = field.get_fields();
    let of = |fields: &[TypePtr], next_leaf: &mut usize| {
        fields.iter().map(|f| Node::of(f, next_leaf)).collect::<Vec<_>>()
    };
    let malformed = |reason, next_leaf: &mut usize| {
        of(fields, next_leaf);
        Shape::Malformed(reason)
    };
    let is_list = matches!(info.logical_type_ref(), Some(LogicalType::List))
        || info.converted_type() == ConvertedType::LIST;
    let is_map = matches!(info.logical_type_ref(), Some(LogicalType::Map))
        || matches!(info.converted_type(), ConvertedType::MAP | ConvertedType::MAP_KEY_VALUE);
    if matches!(info.logical_type_ref(), Some(LogicalType::Variant(_))) {
        return malformed("VARIANT, which cannot be read", next_leaf);
    }
    let repeated = match fields {
        [one] if repetition(one) == Repetition::REPEATED => Some(one),
        _ => None,
    };
    match (is_list, is_map, repeated) {
        (true, _, Some(repeated)) if is_element(repeated, field.name()) => {
            Shape::List(Layout::Two, Box::new(Node::once(repeated, next_leaf)))
        }
        (true, _, Some(repeated)) => match repeated.get_fields() {
            [element] => Shape::List(Layout::Three, Box::new(Node::of(element, next_leaf))),
            _ => malformed("a list without elements", next_leaf),
        },
        (true, ..) => malformed("a list that is not a group of one repeated field", next_leaf),
        (_, true, Some(entry)) if entry.is_group() => match entry.get_fields() {
            [key, value] => {
                let key = Node::of(key, next_leaf);
                Shape::Map(Box::new([key, Node::of(value, next_leaf)]))
            }
            _ => malformed("a map whose entries are not a key and a value", next_leaf),
        },
        (_, true, _) => malformed("a map that is not a group of one repeated group", next_leaf),
        _ => Shape::Struct(of(fields, next_leaf)),
    }
}

/// Whether the repeated field of a list is the element itself (two levels). Otherwise the element
/// is inside it (three levels).
fn is_element(repeated: &Type, list: &str) -> bool {
    repeated.is_primitive()
        || repeated.get_fields().len() > 1
        || repeated.name() == "array"
        || repeated.name().strip_suffix("_tuple") == Some(list)
}

fn meaning(field: &Type) -> Meaning {
    let info = field.get_basic_info();
    let Type::PrimitiveType { precision, scale, .. } = field else { return Meaning::Plain };
    let decimal = |precision: i32, scale: i32| match (u8::try_from(precision), u8::try_from(scale))
    {
        (Ok(precision @ 1..=38), Ok(scale)) if scale <= precision => {
            Meaning::Decimal(precision, scale)
        }
        _ => Meaning::Other("a DECIMAL of more than 38 digits"),
    };
    let unit = |unit: &TimeUnit| match unit {
        TimeUnit::MILLIS => Unit::Millis,
        TimeUnit::MICROS => Unit::Micros,
        TimeUnit::NANOS => Unit::Nanos,
    };
    match info.logical_type_ref() {
        None => {}
        Some(LogicalType::String | LogicalType::Enum | LogicalType::Json) => return Meaning::Text,
        Some(LogicalType::Decimal(of)) => return decimal(of.precision, of.scale),
        Some(LogicalType::Date) => return Meaning::Date,
        Some(LogicalType::Time(of)) => return Meaning::Time(unit(&of.unit)),
        Some(LogicalType::Timestamp(of)) => {
            return Meaning::Timestamp(unit(&of.unit), of.is_adjusted_to_u_t_c);
        }
        Some(LogicalType::Integer(of)) => {
            return Meaning::Integer(of.bit_width.unsigned_abs(), of.is_signed);
        }
        Some(LogicalType::Unknown) => return Meaning::Null,
        Some(LogicalType::Uuid) => return Meaning::Other("UUID"),
        Some(LogicalType::Float16) => return Meaning::HalfFloat,
        // BSON and geometry values are read as plain bytes.
        Some(_) => return Meaning::Plain,
    }
    match info.converted_type() {
        ConvertedType::UTF8 | ConvertedType::ENUM | ConvertedType::JSON => Meaning::Text,
        ConvertedType::DECIMAL => decimal(*precision, *scale),
        ConvertedType::DATE => Meaning::Date,
        ConvertedType::TIME_MILLIS => Meaning::Time(Unit::Millis),
        ConvertedType::TIME_MICROS => Meaning::Time(Unit::Micros),
        ConvertedType::TIMESTAMP_MILLIS => Meaning::Timestamp(Unit::Millis, true),
        ConvertedType::TIMESTAMP_MICROS => Meaning::Timestamp(Unit::Micros, true),
        ConvertedType::INT_8 => Meaning::Integer(8, true),
        ConvertedType::INT_16 => Meaning::Integer(16, true),
        ConvertedType::INT_32 => Meaning::Integer(32, true),
        ConvertedType::INT_64 => Meaning::Integer(64, true),
        ConvertedType::UINT_8 => Meaning::Integer(8, false),
        ConvertedType::UINT_16 => Meaning::Integer(16, false),
        ConvertedType::UINT_32 => Meaning::Integer(32, false),
        ConvertedType::UINT_64 => Meaning::Integer(64, false),
        ConvertedType::INTERVAL => Meaning::Other("INTERVAL"),
        _ => Meaning::Plain,
    }
}

impl Scalar {
    fn data_type(self, inference: &Inference) -> Result<DataType, String> {
        let cannot = || Err(format!("{}, which cannot be read", self.describe()));
        Ok(match (self.physical, self.meaning) {
            (_, Meaning::Other(_) | Meaning::Time(_)) => return cannot(),
            (_, Meaning::HalfFloat) | (Physical::FLOAT, _) => DataType::Float,
            (Physical::BOOLEAN, _) => DataType::Boolean,
            (Physical::DOUBLE, _) => DataType::Double,
            (Physical::INT96, _) => DataType::Timestamp,
            (_, Meaning::Decimal(precision, scale)) => DataType::Decimal(precision, scale),
            (Physical::INT32, Meaning::Date) => DataType::Date,
            (Physical::INT32, Meaning::Integer(8, true)) => DataType::Byte,
            (Physical::INT32, Meaning::Integer(8, false) | Meaning::Integer(16, true)) => {
                DataType::Short
            }
            (Physical::INT32, Meaning::Integer(32, false)) => DataType::Long,
            (Physical::INT32, _) => DataType::Int,
            (Physical::INT64, Meaning::Integer(64, false)) => DataType::Decimal(20, 0),
            (Physical::INT64, Meaning::Timestamp(Unit::Nanos, _)) if inference.nanos_as_long => {
                DataType::Long
            }
            (Physical::INT64, Meaning::Timestamp(_, is_instant)) => {
                if is_instant || !inference.wall_clocks {
                    DataType::Timestamp
                } else {
                    DataType::TimestampNtz
                }
            }
            (Physical::INT64, _) => DataType::Long,
            (Physical::BYTE_ARRAY, Meaning::Text) => DataType::String,
            (Physical::BYTE_ARRAY, _) if inference.binary_as_string => DataType::String,
            (Physical::BYTE_ARRAY | Physical::FIXED_LEN_BYTE_ARRAY, _) => DataType::Binary,
        })
    }

    fn describe(self) -> String {
        let unit = |unit| match unit {
            Unit::Millis => "MILLIS",
            Unit::Micros => "MICROS",
            Unit::Nanos => "NANOS",
        };
        match self.meaning {
            Meaning::Integer(8, true) => "TINYINT".to_string(),
            Meaning::Integer(16, true) => "SMALLINT".to_string(),
            Meaning::Integer(bits, false) => format!("UINT{bits}"),
            Meaning::Plain | Meaning::Integer(..) => match self.physical {
                Physical::INT32 => "INT".to_string(),
                Physical::INT64 => "BIGINT".to_string(),
                Physical::INT96 => "TIMESTAMP(INT96)".to_string(),
                Physical::BYTE_ARRAY => "BINARY".to_string(),
                other => other.to_string(),
            },
            Meaning::Decimal(precision, scale) => format!("DECIMAL({precision},{scale})"),
            Meaning::Text => "STRING".to_string(),
            Meaning::Date => "DATE".to_string(),
            Meaning::Time(of) => format!("TIME({})", unit(of)),
            Meaning::Timestamp(of, true) => format!("TIMESTAMP({})", unit(of)),
            Meaning::Timestamp(of, false) => format!("TIMESTAMP_NTZ({})", unit(of)),
            Meaning::Null => "VOID".to_string(),
            Meaning::HalfFloat => "FLOAT16".to_string(),
            Meaning::Other(name) => name.to_string(),
        }
    }
}

/// The type without annotations: only names, repetition and physical types remain.
pub fn plain(of: &Type) -> Result<Type, ParquetError> {
    let info = of.get_basic_info();
    let below =
        || of.get_fields().iter().map(|field| plain(field).map(Arc::new)).collect::<Result<_, _>>();
    match of {
        Type::PrimitiveType { physical_type, type_length, .. } => {
            let builder = Type::primitive_type_builder(info.name(), *physical_type);
            builder.with_repetition(repetition(of)).with_length(*type_length).build()
        }
        Type::GroupType { .. } => {
            let builder = Type::group_type_builder(info.name()).with_fields(below()?);
            match info.has_repetition() {
                true => builder.with_repetition(info.repetition()).build(),
                false => builder.build(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parquet::schema::parser::parse_message_type;

    /// The inferred types of a schema's columns.
    fn inferred(fields: &str) -> Vec<String> {
        let root = parse_message_type(&format!("message m {{ {fields} }}")).unwrap();
        let inference =
            Inference { binary_as_string: false, wall_clocks: true, nanos_as_long: false };
        let name = |node: &Node| match node.data_type(&inference) {
            Ok(data_type) => data_type.to_string(),
            Err(reason) => format!("! {reason}"),
        };
        Node::fields_of(&root).iter().map(name).collect()
    }

    #[test]
    fn each_annotation_has_its_type() {
        for (field, expected) in [
            ("optional int32 a", "INT"),
            ("optional int32 a (INTEGER(8,true))", "TINYINT"),
            ("optional int32 a (UINT_8)", "SMALLINT"),
            ("optional int32 a (UINT_16)", "INT"),
            ("optional int32 a (UINT_32)", "BIGINT"),
            ("optional int64 a (UINT_64)", "DECIMAL(20,0)"),
            ("optional int32 a (DECIMAL(7,2))", "DECIMAL(7,2)"),
            ("optional int32 a (DATE)", "DATE"),
            ("optional int32 a (TIME_MILLIS)", "! TIME(MILLIS), which cannot be read"),
            ("optional int64 a (TIMESTAMP(MICROS,true))", "TIMESTAMP"),
            ("optional int64 a (TIMESTAMP(NANOS,false))", "TIMESTAMP_NTZ"),
            ("optional int64 a (TIMESTAMP_MILLIS)", "TIMESTAMP"),
            ("optional int96 a", "TIMESTAMP"),
            ("optional binary a", "BINARY"),
            ("optional binary a (ENUM)", "STRING"),
            ("optional binary a (DECIMAL(30,5))", "DECIMAL(30,5)"),
            ("optional fixed_len_byte_array(16) a (UUID)", "! UUID, which cannot be read"),
            ("optional fixed_len_byte_array(2) a (FLOAT16)", "FLOAT"),
            ("optional fixed_len_byte_array(4) a", "BINARY"),
        ] {
            assert_eq!(inferred(&format!("{field};")), [expected], "{field}");
        }
    }

    #[test]
    fn lists_and_maps_of_every_layout_are_recognised() {
        for (field, expected) in [
            ("repeated int32 a;", "ARRAY<INT>"),
            ("repeated group a { optional int32 b; }", "ARRAY<STRUCT<b: INT>>"),
            ("optional group a (LIST) { repeated int32 array; }", "ARRAY<INT>"),
            (
                "optional group a (LIST) { repeated group list { optional int32 element; } }",
                "ARRAY<INT>",
            ),
            (
                "optional group a (LIST) { repeated group bag { optional int32 array; } }",
                "ARRAY<INT>",
            ),
            (
                "optional group a (LIST) { repeated group array { optional int32 b; } }",
                "ARRAY<STRUCT<b: INT>>",
            ),
            (
                "optional group a (LIST) { repeated group a_tuple { optional int32 b; } }",
                "ARRAY<STRUCT<b: INT>>",
            ),
            (
                "optional group a (LIST) { repeated group e { optional int32 b; optional int32 c; } }",
                "ARRAY<STRUCT<b: INT, c: INT>>",
            ),
            (
                "optional group a (MAP) { repeated group map (MAP_KEY_VALUE) \
                 { required binary k (UTF8); optional int32 v; } }",
                "MAP<STRING, INT>",
            ),
            (
                "optional group a (MAP_KEY_VALUE) { repeated group map \
                 { required binary k (UTF8); optional int32 v; } }",
                "MAP<STRING, INT>",
            ),
            ("optional group a (LIST) { optional int32 b; }", {
                "! a list that is not a group of one repeated field"
            }),
        ] {
            assert_eq!(inferred(field), [expected], "{field}");
        }
    }

    #[test]
    fn a_variant_is_not_read_as_a_struct() {
        let part = |name| {
            let binary = Type::primitive_type_builder(name, Physical::BYTE_ARRAY);
            TypePtr::new(binary.with_repetition(Repetition::OPTIONAL).build().unwrap())
        };
        let variant = Type::group_type_builder("v")
            .with_repetition(Repetition::OPTIONAL)
            .with_logical_type(Some(LogicalType::variant(Some(1))))
            .with_fields(vec![part("metadata"), part("value")]);
        let after = part("after");
        let root = Type::group_type_builder("m")
            .with_fields(vec![TypePtr::new(variant.build().unwrap()), after])
            .build()
            .unwrap();
        let nodes = Node::fields_of(&root);
        assert_eq!(nodes[0].describe(), "VARIANT, which cannot be read");
        assert_eq!((nodes[0].leaves.clone(), nodes[1].leaves.clone()), (0..2, 2..3));
    }

    #[test]
    fn the_plain_schema_keeps_only_names_and_repetition() {
        let root = "message m { optional group a (LIST) { repeated group list \
                    { required binary element (UTF8); } } optional int32 b (DATE); }";
        let made = plain(&parse_message_type(root).unwrap()).unwrap();
        let expected = "message m { optional group a { repeated group list \
                        { required binary element; } } optional int32 b; }";
        assert_eq!(made, parse_message_type(expected).unwrap());
    }
}
