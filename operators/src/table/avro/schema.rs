//! An Avro schema, parsed from its JSON form.

use serde_json::{Map, Value as Json};
use std::collections::HashMap;
use std::f64::consts::LOG10_2;
use std::fmt;
use std::sync::Arc;

/// The maximum nesting depth of a schema.
const DEPTH_MAX: usize = 64;

/// The maximum number of types in a schema, where each named type counts at every use. Without a
/// limit, a short text whose types refer to each other could expand without bound.
const TYPES_MAX: usize = 100_000;

/// A schema. Named types that are used several times are shared.
#[derive(Debug, PartialEq)]
pub struct Schema {
    /// The Avro type of the values.
    pub kind: Kind,
    /// The logical type. `None` also stands for a logical type that Spark does not know, which Avro
    /// ignores.
    pub logical: Option<Logical>,
    /// The SQL type that Spark stores in the schema, as the property `spark.sql.catalyst.type`.
    pub catalyst_type: Option<String>,
    /// The number of types in the schema, where each named type counts at every use.
    expanded: usize,
}

/// The Avro type of a schema's values. Each variant states its binary form.
#[derive(Debug, PartialEq)]
pub enum Kind {
    /// The value null, in no bytes.
    Null,
    /// One byte, 0 or 1.
    Boolean,
    /// 32 bits, as a zigzag variable-length integer.
    Int,
    /// 64 bits, as a zigzag variable-length integer.
    Long,
    /// 4 bytes, little endian.
    Float,
    /// 8 bytes, little endian.
    Double,
    /// A length, then that number of bytes.
    Bytes,
    /// A length, then that number of bytes of UTF-8.
    String,
    /// A fixed number of bytes.
    Fixed {
        /// The full name of the type.
        name: Name,
        /// The number of bytes of a value.
        size: usize,
    },
    /// A symbol, as its index.
    Enum {
        /// The full name of the type.
        name: Name,
        /// The symbols, in the order of their indices.
        symbols: Vec<String>,
        /// The symbol that a reader uses for a symbol it does not know.
        default: Option<String>,
    },
    /// Blocks of elements.
    Array(Arc<Schema>),
    /// Blocks of entries; the keys are strings.
    Map(Arc<Schema>),
    /// The values of all fields, in order.
    Record {
        /// The full name of the type.
        name: Name,
        /// The fields, in the order in which they are written.
        fields: Vec<Field>,
    },
    /// The index of a branch, then a value of that branch.
    Union(Vec<Arc<Schema>>),
}

/// The full name of a named type, and its aliases.
#[derive(Debug, PartialEq, Clone)]
pub struct Name {
    /// The name with its namespace.
    pub full: String,
    /// Further full names.
    pub aliases: Vec<String>,
}

impl Name {
    /// The name without its namespace.
    pub fn short(&self) -> &str {
        self.full.rsplit('.').next().unwrap_or_default()
    }

    /// Whether a reader's type with this name reads a writer's type named `written`. Namespaces of
    /// names are not compared, because programs that generate schemas often lose them; aliases are
    /// compared with the full name.
    pub fn reads(&self, written: &Name) -> bool {
        self.short() == written.short() || self.aliases.contains(&written.full)
    }
}

/// A field of a record.
#[derive(Debug, PartialEq)]
pub struct Field {
    /// The name of the field.
    pub name: String,
    /// Further names of the field in a writer's schema.
    pub aliases: Vec<String>,
    /// The value for data that lacks the field, as JSON.
    pub default: Option<Json>,
    /// The schema of the field's values.
    pub schema: Arc<Schema>,
}

/// A logical type that Spark knows. Each variant states the Avro type that it refines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logical {
    /// Of `bytes` or `fixed`: the unscaled value, big endian, with precision and scale.
    Decimal(u8, u8),
    /// Of `int`: days since 1970-01-01.
    Date,
    /// Of `long`: milliseconds since 1970-01-01 UTC.
    TimestampMillis,
    /// Of `long`: microseconds since 1970-01-01 UTC.
    TimestampMicros,
    /// Of `long`: milliseconds of a time without a zone.
    LocalTimestampMillis,
    /// Of `long`: microseconds of a time without a zone.
    LocalTimestampMicros,
    /// Of `long`: microseconds since midnight.
    TimeMicros,
}

/// Why a text is not a usable schema, or why a schema does not match a SQL type or another schema.
#[derive(Debug, PartialEq, Eq)]
pub struct SchemaError(pub String);

impl fmt::Display for SchemaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn invalid<T>(reason: impl Into<String>) -> Result<T, SchemaError> {
    Err(SchemaError(reason.into()))
}

impl Schema {
    /// A schema without a logical type.
    pub fn plain(kind: Kind) -> Self {
        Self::new(kind, None, None)
    }

    /// Creates a schema with an optional logical type and an optional SQL type of Spark.
    pub fn new(kind: Kind, logical: Option<Logical>, catalyst_type: Option<String>) -> Self {
        let of = |inner: &Arc<Self>| inner.expanded;
        let inner = match &kind {
            Kind::Array(inner) | Kind::Map(inner) => of(inner),
            Kind::Union(branches) => branches.iter().map(of).sum(),
            Kind::Record { fields, .. } => fields.iter().map(|field| of(&field.schema)).sum(),
            _ => 0,
        };
        Self { kind, logical, catalyst_type, expanded: inner + 1 }
    }

    /// Whether the binary form of every value is empty.
    pub fn is_empty_on_wire(&self) -> bool {
        match &self.kind {
            Kind::Null => true,
            Kind::Fixed { size, .. } => *size == 0,
            Kind::Record { fields, .. } => {
                fields.iter().all(|field| field.schema.is_empty_on_wire())
            }
            _ => false,
        }
    }

    /// Parses the JSON form. The error states the problem.
    pub fn parse(text: &str) -> Result<Arc<Self>, SchemaError> {
        Self::parse_referring(text, &[])
    }

    /// Like [`parse`](Self::parse), for a schema that uses the named types of other schemas, which
    /// are given in the order in which they refer to each other.
    pub fn parse_referring(text: &str, references: &[String]) -> Result<Arc<Self>, SchemaError> {
        let mut parser = Parser { named: HashMap::new(), open: Vec::new() };
        for reference in references {
            parser.text(reference)?;
        }
        parser.text(text)
    }

    /// The branches of a union that are not `null`; `None` for any other schema.
    pub fn value_branches(&self) -> Option<Vec<&Arc<Schema>>> {
        match &self.kind {
            Kind::Union(branches) => {
                Some(branches.iter().filter(|branch| branch.kind != Kind::Null).collect())
            }
            _ => None,
        }
    }

    /// The name of the type in error messages: the full name of a named type, otherwise Avro's word
    /// for the type.
    pub fn word(&self) -> &str {
        match &self.kind {
            Kind::Null => "null",
            Kind::Boolean => "boolean",
            Kind::Int => "int",
            Kind::Long => "long",
            Kind::Float => "float",
            Kind::Double => "double",
            Kind::Bytes => "bytes",
            Kind::String => "string",
            Kind::Array(_) => "array",
            Kind::Map(_) => "map",
            Kind::Union(_) => "union",
            Kind::Fixed { name, .. } | Kind::Enum { name, .. } | Kind::Record { name, .. } => {
                &name.full
            }
        }
    }
}

struct Parser {
    /// The named types that are complete, by full name.
    named: HashMap<String, Arc<Schema>>,
    /// The full names of the records that enclose the current position.
    open: Vec<String>,
}

impl Parser {
    fn text(&mut self, text: &str) -> Result<Arc<Schema>, SchemaError> {
        match serde_json::from_str::<Json>(text) {
            Ok(json) => self.schema(&json, "", 0),
            Err(error) => invalid(format!("the schema is not JSON: {error}")),
        }
    }

    fn schema(
        &mut self,
        json: &Json,
        namespace: &str,
        depth: usize,
    ) -> Result<Arc<Schema>, SchemaError> {
        if depth > DEPTH_MAX {
            return invalid(format!("the schema is nested more than {DEPTH_MAX} levels deep"));
        }
        let schema = match json {
            Json::String(word) => self.word(word, namespace)?,
            Json::Array(branches) => self.union(branches, namespace, depth)?,
            Json::Object(object) => self.object(object, namespace, depth)?,
            other => {
                return invalid(format!("`{other}` is no type: a name, an object or an array is"));
            }
        };
        if schema.expanded > TYPES_MAX {
            return invalid(format!("the schema has more than {TYPES_MAX} types"));
        }
        Ok(schema)
    }

    fn word(&self, word: &str, namespace: &str) -> Result<Arc<Schema>, SchemaError> {
        if let Some(kind) = primitive(word) {
            return Ok(Arc::new(Schema::plain(kind)));
        }
        let full = full_name(word, namespace);
        for name in [full.as_str(), word] {
            if let Some(schema) = self.named.get(name) {
                return Ok(schema.clone());
            }
            if self.open.iter().any(|open| open == name) {
                return invalid(format!(
                    "the record `{name}` contains itself, and no SQL type does"
                ));
            }
        }
        invalid(format!("there is no type `{word}`"))
    }

    fn union(
        &mut self,
        branches: &[Json],
        namespace: &str,
        depth: usize,
    ) -> Result<Arc<Schema>, SchemaError> {
        let branches = branches
            .iter()
            .map(|branch| self.schema(branch, namespace, depth + 1))
            .collect::<Result<Vec<_>, _>>()?;
        for (index, branch) in branches.iter().enumerate() {
            if matches!(branch.kind, Kind::Union(_)) {
                return invalid("a union must not contain a union");
            }
            if branches[..index].iter().any(|earlier| earlier.word() == branch.word()) {
                return invalid(format!("a union has the branch `{}` twice", branch.word()));
            }
        }
        Ok(Arc::new(Schema::plain(Kind::Union(branches))))
    }

    fn object(
        &mut self,
        object: &Map<String, Json>,
        namespace: &str,
        depth: usize,
    ) -> Result<Arc<Schema>, SchemaError> {
        let part = |name: &str| match object.get(name) {
            Some(part) => Ok(part),
            None => invalid(format!("a type has no `{name}`: {}", shortened(object))),
        };
        let kind = match part("type")? {
            Json::String(word) => match word.as_str() {
                "array" => Kind::Array(self.schema(part("items")?, namespace, depth + 1)?),
                "map" => Kind::Map(self.schema(part("values")?, namespace, depth + 1)?),
                "record" | "error" => return self.record(object, namespace, depth),
                "enum" => enum_kind(object, namespace)?,
                "fixed" => fixed_kind(object, namespace)?,
                word => match primitive(word) {
                    Some(kind) => kind,
                    None => return self.word(word, namespace),
                },
            },
            // An object around a type: `{"type": {"type": …}}`.
            nested => return self.schema(nested, namespace, depth + 1),
        };
        let catalyst_type = object.get("spark.sql.catalyst.type").and_then(Json::as_str);
        let logical = logical_type(object, &kind)?;
        let schema = Arc::new(Schema::new(kind, logical, catalyst_type.map(str::to_string)));
        if let Kind::Enum { name, .. } | Kind::Fixed { name, .. } = &schema.kind {
            self.define(&name.full, schema.clone())?;
        }
        Ok(schema)
    }

    fn define(&mut self, name: &str, schema: Arc<Schema>) -> Result<(), SchemaError> {
        match self.named.insert(name.to_string(), schema) {
            None => Ok(()),
            Some(_) => invalid(format!("the type `{name}` is defined twice")),
        }
    }

    fn record(
        &mut self,
        object: &Map<String, Json>,
        namespace: &str,
        depth: usize,
    ) -> Result<Arc<Schema>, SchemaError> {
        let name = name_of(object, namespace)?;
        let inner = name.full.rsplit_once('.').map_or("", |(namespace, _)| namespace).to_string();
        let Some(Json::Array(list)) = object.get("fields") else {
            return invalid(format!("the record `{}` has no list `fields`", name.full));
        };
        self.open.push(name.full.clone());
        let mut fields: Vec<Field> = Vec::with_capacity(list.len());
        for field in list {
            let Json::Object(field) = field else {
                return invalid(format!("a field of `{}` is no object: {field}", name.full));
            };
            let (Some(Json::String(field_name)), Some(field_type)) =
                (field.get("name"), field.get("type"))
            else {
                return invalid(format!("a field of `{}` has no name or no type", name.full));
            };
            check_name(field_name)?;
            if fields.iter().any(|earlier| earlier.name == *field_name) {
                return invalid(format!("`{}` has the field `{field_name}` twice", name.full));
            }
            fields.push(Field {
                name: field_name.clone(),
                aliases: texts(field.get("aliases")),
                default: field.get("default").cloned(),
                schema: self.schema(field_type, &inner, depth + 1)?,
            });
        }
        self.open.pop();
        let full = name.full.clone();
        let schema = Arc::new(Schema::plain(Kind::Record { name, fields }));
        self.define(&full, schema.clone())?;
        Ok(schema)
    }
}

fn primitive(word: &str) -> Option<Kind> {
    Some(match word {
        "null" => Kind::Null,
        "boolean" => Kind::Boolean,
        "int" => Kind::Int,
        "long" => Kind::Long,
        "float" => Kind::Float,
        "double" => Kind::Double,
        "bytes" => Kind::Bytes,
        "string" => Kind::String,
        _ => return None,
    })
}

fn full_name(name: &str, namespace: &str) -> String {
    if name.contains('.') || namespace.is_empty() {
        name.trim_start_matches('.').to_string()
    } else {
        format!("{namespace}.{name}")
    }
}

/// Rejects a name that is empty or does not consist of letters, digits and `_`, with no digit
/// first. Letters and digits may be those of any script.
fn check_name(name: &str) -> Result<(), SchemaError> {
    let mut letters = name.chars();
    let is_valid = letters.next().is_some_and(|c| c.is_alphabetic() || c == '_')
        && letters.all(|c| c.is_alphanumeric() || c == '_');
    if is_valid {
        return Ok(());
    }
    invalid(format!("`{name}` is no name: letters, digits and `_` are, with no digit first"))
}

fn name_of(object: &Map<String, Json>, namespace: &str) -> Result<Name, SchemaError> {
    let Some(name) = object.get("name").and_then(Json::as_str) else {
        return invalid(format!("a type has no name: {}", shortened(object)));
    };
    for part in name.split('.') {
        check_name(part)?;
    }
    let namespace = object.get("namespace").and_then(Json::as_str).unwrap_or(namespace);
    let full = full_name(name, namespace);
    let inner = full.rsplit_once('.').map_or("", |(namespace, _)| namespace);
    let aliases = texts(object.get("aliases")).iter().map(|a| full_name(a, inner)).collect();
    Ok(Name { aliases, full })
}

fn enum_kind(object: &Map<String, Json>, namespace: &str) -> Result<Kind, SchemaError> {
    let name = name_of(object, namespace)?;
    let symbols = texts(object.get("symbols"));
    if symbols.is_empty() {
        return invalid(format!("the enum `{}` has no symbols", name.full));
    }
    let default = object.get("default").and_then(Json::as_str).map(str::to_string);
    if default.as_ref().is_some_and(|default| !symbols.contains(default)) {
        return invalid(format!("the default of the enum `{}` is none of its symbols", name.full));
    }
    Ok(Kind::Enum { name, symbols, default })
}

fn fixed_kind(object: &Map<String, Json>, namespace: &str) -> Result<Kind, SchemaError> {
    let name = name_of(object, namespace)?;
    match object.get("size").and_then(Json::as_u64).and_then(|size| u32::try_from(size).ok()) {
        Some(size) => Ok(Kind::Fixed { name, size: size as usize }),
        None => invalid(format!("the size of `{}` is no number of bytes", name.full)),
    }
}

/// The strings in a JSON array. Other elements are ignored, as Avro ignores unknown properties.
fn texts(json: Option<&Json>) -> Vec<String> {
    let elements = json.and_then(Json::as_array);
    elements
        .into_iter()
        .flatten()
        .filter_map(|element| element.as_str().map(str::to_string))
        .collect()
}

/// The largest precision of a decimal in Avro.
const JAVA_INT_MAX: u64 = i32::MAX as u64;

/// Reads the logical type of a schema's object. A logical type that does not fit the Avro type is
/// ignored, as the specification requires. A decimal of more than 38 digits is an error, because no
/// SQL type holds it.
fn logical_type(object: &Map<String, Json>, kind: &Kind) -> Result<Option<Logical>, SchemaError> {
    let Some(word) = object.get("logicalType").and_then(Json::as_str) else { return Ok(None) };
    Ok(match (word, kind) {
        ("date", Kind::Int) => Some(Logical::Date),
        ("timestamp-millis", Kind::Long) => Some(Logical::TimestampMillis),
        ("timestamp-micros", Kind::Long) => Some(Logical::TimestampMicros),
        ("time-micros", Kind::Long) => Some(Logical::TimeMicros),
        ("local-timestamp-millis", Kind::Long) => Some(Logical::LocalTimestampMillis),
        ("local-timestamp-micros", Kind::Long) => Some(Logical::LocalTimestampMicros),
        ("decimal", Kind::Bytes | Kind::Fixed { .. }) => {
            let number = |name| object.get(name).map(|json| json.as_u64().unwrap_or(u64::MAX));
            let scale = number("scale").unwrap_or(0);
            let most = match kind {
                // The digits that the bytes have room for in two's complement.
                Kind::Fixed { size, .. } => {
                    (LOG10_2 * (8 * *size as u64).saturating_sub(1) as f64) as u64
                }
                _ => JAVA_INT_MAX,
            };
            match number("precision").filter(|precision| scale <= *precision && *precision <= most)
            {
                Some(precision @ 1..=38) => Some(Logical::Decimal(precision as u8, scale as u8)),
                Some(39..) => {
                    return invalid("a decimal has more than 38 digits, which no SQL type has");
                }
                _ => None,
            }
        }
        _ => None,
    })
}

fn shortened(object: &Map<String, Json>) -> String {
    let text = Json::Object(object.clone()).to_string();
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
