//! The SQL type of a message type, and what decoding needs to know of its fields.

use super::any_json::AnyJson;
use super::descriptor::SchemaError;
use super::wire::{FIXED32, FIXED64, GROUP, LENGTH, VARINT, zigzag32, zigzag64};
use crate::table::types::{DataType, Field as SqlField};
use prost_reflect::{
    Cardinality, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor, Syntax,
    Value as ProtoValue,
};
use std::collections::HashMap;

/// The maximum number of fields of a type, where each message type counts at every use. Without a
/// limit, types that refer to each other could expand without bound.
const FIELDS_MAX: usize = 100_000;

/// The maximum nesting depth of a type.
const DEPTH_MAX: usize = 64;

/// The maximum of `recursive.fields.max.depth`, as in Spark.
const RECURSION_MAX: i32 = 10;

/// The field that Spark puts into a struct that would have none.
const DUMMY: &str = "__dummy_field_in_empty_struct";

/// The options of `from_protobuf` that change types or values.
#[derive(Clone, Copy, Debug, Default)]
pub struct ReadOptions {
    /// Fields without explicit presence have their default instead of NULL.
    pub emits_defaults: bool,
    /// Enums are INT instead of STRING.
    pub enums_as_ints: bool,
    /// `uint32` is BIGINT and `uint64` DECIMAL(20,0), instead of INT and BIGINT.
    pub upcasts_unsigned: bool,
    /// Messages such as `google.protobuf.Int32Value` are the value in them.
    pub unwraps: bool,
    /// A `google.protobuf.Any` is JSON.
    pub any_as_json: bool,
    /// Messages without fields are kept, with a field that is always NULL.
    pub retains_empty: bool,
    /// How often a message type may occur within itself; `None`: not at all, which is an error.
    pub recursion_max: Option<i32>,
}

/// A message type as a struct.
#[derive(Debug)]
pub struct Shape {
    pub(super) fields: Vec<Field>,
    pub(super) lookup: Lookup,
    /// The indices of the fields that a message must have.
    pub(super) required: Vec<usize>,
    /// The width of the rows: the fields, and further ones that are NULL.
    pub(super) width: usize,
}

/// A field of a message, and of the struct.
#[derive(Debug)]
pub(super) struct Field {
    pub name: String,
    pub data_type: DataType,
    pub is_nullable: bool,
    pub value: Value,
    pub is_repeated: bool,
    /// Whether a value that equals the type's default is NULL.
    pub hides_default: bool,
    /// The value of a field that is missing; `None` is NULL.
    pub absent: Option<Default>,
}

/// A default value.
#[derive(Debug)]
pub(super) enum Default {
    /// The default of the type: zero, empty, or the first symbol.
    OfType,
    /// The bits of a number, as they are on the wire.
    Bits(u64),
    /// A text or bytes.
    Bytes(Vec<u8>),
}

/// How a value is read.
#[derive(Debug)]
pub(super) enum Value {
    Bool,
    /// A variable-length integer, of which the low 32 bits are a signed number.
    Int32,
    Int64,
    /// An unsigned number that is BIGINT.
    UInt32,
    /// An unsigned number that is DECIMAL(20,0).
    UInt64,
    SInt32,
    SInt64,
    Fixed32,
    Fixed64,
    Float,
    Double,
    Text {
        /// Whether text that is not UTF-8 is an error, as in proto3.
        is_strict: bool,
    },
    Bytes,
    Enum(Enum),
    Message {
        shape: Box<Shape>,
        is_group: bool,
    },
    /// A field `value` of a wrapper message.
    Wrapper(Box<Shape>),
    /// Two fields, seconds and nanoseconds, as microseconds.
    Seconds(Box<Shape>),
    Any(Box<AnyJson>),
    /// Entries with the fields key and value.
    Map(Box<Shape>),
    /// Never present.
    Dummy,
}

impl Value {
    /// The wire type of a value that is not packed.
    pub fn wire(&self) -> u8 {
        match self {
            Self::Fixed32 | Self::Float => FIXED32,
            Self::Fixed64 | Self::Double => FIXED64,
            Self::Message { is_group: true, .. } => GROUP,
            Self::Text { .. }
            | Self::Bytes
            | Self::Message { .. }
            | Self::Wrapper(_)
            | Self::Seconds(_)
            | Self::Any(_)
            | Self::Map(_)
            | Self::Dummy => LENGTH,
            _ => VARINT,
        }
    }

    /// Whether parts of a message that are given several times are merged.
    pub fn is_message(&self) -> bool {
        matches!(self, Self::Message { .. } | Self::Wrapper(_) | Self::Seconds(_) | Self::Any(_))
    }
}

/// The symbols of an enum.
#[derive(Debug)]
pub(super) struct Enum {
    /// The text of a number without a symbol, before the number.
    pub unknown: Box<str>,
    /// The symbols by their numbers, in ascending order.
    symbols: Vec<(i32, Box<str>)>,
    /// The number of the first symbol.
    pub first: i32,
    /// Whether a number without a symbol is an unknown field, as in proto2.
    pub is_closed: bool,
    pub is_int: bool,
}

impl Enum {
    /// The symbol of a number.
    #[inline]
    pub fn symbol(&self, number: i32) -> Option<&str> {
        // The numbers of most enums are 0, 1, 2, …
        let at = match self.symbols.get(number as usize) {
            Some((found, _)) if *found == number => number as usize,
            _ => self.symbols.binary_search_by_key(&number, |(number, _)| *number).ok()?,
        };
        self.symbols.get(at).map(|(_, symbol)| &**symbol)
    }

    /// Whether a number can be a value: a closed enum allows only the numbers of its symbols.
    #[inline]
    pub fn allows(&self, number: i32) -> bool {
        !self.is_closed || self.symbol(number).is_some()
    }
}

/// What a field number means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// The index of the field; `None` for one that the struct lacks.
    pub index: Option<u32>,
    /// The index of the oneof that contains the field.
    pub oneof: Option<u32>,
}

/// Finds fields by their number.
#[derive(Debug, std::default::Default)]
pub(super) struct Lookup {
    by_number: HashMap<u32, Known>,
    /// The fields of small numbers.
    small: Vec<Option<Known>>,
    /// The indices of the fields of each oneof.
    pub oneofs: Vec<Vec<u32>>,
}

impl Lookup {
    /// Numbers below this are found without hashing.
    const SMALL: usize = 64;

    fn insert(&mut self, number: u32, known: Known) {
        if (number as usize) < Self::SMALL {
            self.small.resize(Self::SMALL, None);
            self.small[number as usize] = Some(known);
        }
        if let (Some(index), Some(oneof)) = (known.index, known.oneof) {
            self.oneofs.resize_with(self.oneofs.len().max(oneof as usize + 1), Vec::new);
            self.oneofs[oneof as usize].push(index);
        }
        self.by_number.insert(number, known);
    }

    #[inline]
    pub fn find(&self, number: u32) -> Option<Known> {
        match self.small.get(number as usize) {
            Some(known) => *known,
            None => self.by_number.get(&number).copied(),
        }
    }
}

impl Shape {
    /// The struct of a message type.
    pub fn of(message: &MessageDescriptor, options: &ReadOptions) -> Result<Self, SchemaError> {
        let mut builder = Builder { options, fields_left: FIELDS_MAX, path: Vec::new() };
        builder.path.push(message.full_name().to_string());
        let mut shape = builder.shape(message)?;
        if shape.fields.is_empty() && options.retains_empty {
            shape = dummy();
        }
        Ok(shape)
    }

    /// The SQL type.
    pub fn data_type(&self) -> DataType {
        let field =
            |field: &Field| SqlField::new(&field.name, field.data_type.clone(), field.is_nullable);
        DataType::Struct(self.fields.iter().map(field).collect())
    }

    /// The width of the rows.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Adds fields to the end of the rows, which are NULL.
    pub fn with_extra_fields(mut self, count: usize) -> Self {
        self.width += count;
        self
    }
}

/// The struct of a message type without fields.
fn dummy() -> Shape {
    let field = Field {
        name: DUMMY.to_string(),
        data_type: DataType::String,
        is_nullable: true,
        value: Value::Dummy,
        is_repeated: false,
        hides_default: false,
        absent: None,
    };
    Shape { fields: vec![field], lookup: Lookup::default(), required: Vec::new(), width: 1 }
}

struct Builder<'o> {
    options: &'o ReadOptions,
    fields_left: usize,
    /// The full names of the message types from the outermost one to the current one.
    path: Vec<String>,
}

impl Builder<'_> {
    fn shape(&mut self, message: &MessageDescriptor) -> Result<Shape, SchemaError> {
        let (mut fields, mut lookup, mut required) = (Vec::new(), Lookup::default(), Vec::new());
        let oneofs: Vec<_> = message.oneofs().collect();
        // In the order of the declaration, as in Spark.
        for declared in &message.descriptor_proto().field {
            let number = declared.number() as u32;
            let Some(descriptor) = message.get_field(number) else { continue };
            let oneof = descriptor.containing_oneof().filter(|oneof| !oneof.is_synthetic());
            let oneof = oneof.and_then(|oneof| oneofs.iter().position(|other| *other == oneof));
            let field = self.field(&descriptor)?;
            let index = field.is_some().then_some(fields.len() as u32);
            lookup.insert(number, Known { index, oneof: oneof.map(|at| at as u32) });
            if let Some(field) = field {
                if descriptor.is_required() {
                    required.push(fields.len());
                }
                fields.push(field);
            }
        }
        let width = fields.len();
        Ok(Shape { fields, lookup, required, width })
    }

    /// The field of the struct; `None` if it is left out, because a message type is nested too
    /// often or has no fields.
    fn field(&mut self, field: &FieldDescriptor) -> Result<Option<Field>, SchemaError> {
        self.fields_left = match self.fields_left.checked_sub(1) {
            Some(left) if self.path.len() <= DEPTH_MAX => left,
            _ => {
                return Err(SchemaError::new(
                    "PROTOBUF_TYPE_NOT_SUPPORT",
                    format!("the message type `{}` is too large", self.path[0]),
                ));
            }
        };
        let Some((value, data_type)) = self.value(field)? else { return Ok(None) };
        let is_map = matches!(value, Value::Map(_));
        let is_repeated = field.cardinality() == Cardinality::Repeated;
        let data_type = match is_repeated && !is_map {
            true => DataType::Array(Box::new(data_type)),
            false => data_type,
        };
        let is_implicit = !field.supports_presence() && !is_repeated;
        Ok(Some(Field {
            name: field.name().to_string(),
            data_type,
            is_nullable: !field.is_required() || is_repeated,
            absent: self.absent(field, is_implicit),
            value,
            is_repeated,
            hides_default: is_implicit && !self.options.emits_defaults,
        }))
    }

    /// The value of a field that is missing.
    fn absent(&self, field: &FieldDescriptor, is_implicit: bool) -> Option<Default> {
        if field.field_descriptor_proto().default_value.is_some() {
            return Some(match field.default_value() {
                ProtoValue::Bool(value) => Default::Bits(u64::from(value)),
                ProtoValue::I32(value) => Default::Bits(bits32(field, value)),
                ProtoValue::I64(value) => Default::Bits(bits64(field, value)),
                ProtoValue::U32(value) => Default::Bits(u64::from(value)),
                ProtoValue::U64(value) => Default::Bits(value),
                ProtoValue::F32(value) => Default::Bits(u64::from(value.to_bits())),
                ProtoValue::F64(value) => Default::Bits(value.to_bits()),
                ProtoValue::EnumNumber(value) => Default::Bits(value as u64),
                ProtoValue::String(text) => Default::Bytes(text.into_bytes()),
                ProtoValue::Bytes(bytes) => Default::Bytes(bytes.to_vec()),
                _ => Default::OfType,
            });
        }
        (is_implicit && self.options.emits_defaults).then_some(Default::OfType)
    }

    fn value(&mut self, field: &FieldDescriptor) -> Result<Option<(Value, DataType)>, SchemaError> {
        let upcasts = self.options.upcasts_unsigned;
        Ok(Some(match field.kind() {
            Kind::Bool => (Value::Bool, DataType::Boolean),
            Kind::Int32 => (Value::Int32, DataType::Int),
            Kind::Uint32 if upcasts => (Value::UInt32, DataType::Long),
            Kind::Uint32 => (Value::Int32, DataType::Int),
            Kind::Sint32 => (Value::SInt32, DataType::Int),
            Kind::Fixed32 | Kind::Sfixed32 => (Value::Fixed32, DataType::Int),
            Kind::Int64 => (Value::Int64, DataType::Long),
            Kind::Uint64 if upcasts => (Value::UInt64, DataType::Decimal(20, 0)),
            Kind::Uint64 => (Value::Int64, DataType::Long),
            Kind::Sint64 => (Value::SInt64, DataType::Long),
            Kind::Fixed64 | Kind::Sfixed64 => (Value::Fixed64, DataType::Long),
            Kind::Float => (Value::Float, DataType::Float),
            Kind::Double => (Value::Double, DataType::Double),
            Kind::String => {
                let is_strict = field.parent_file().syntax() == Syntax::Proto3;
                (Value::Text { is_strict }, DataType::String)
            }
            Kind::Bytes => (Value::Bytes, DataType::Binary),
            Kind::Enum(symbols) => self.symbols(field, &symbols),
            Kind::Message(message) => return self.message(field, &message),
        }))
    }

    fn symbols(&self, field: &FieldDescriptor, symbols: &EnumDescriptor) -> (Value, DataType) {
        let mut by_number: Vec<(i32, Box<str>)> =
            symbols.values().map(|symbol| (symbol.number(), symbol.name().into())).collect();
        // Stable: of several symbols with one number, the first one is kept.
        by_number.sort_by_key(|(number, _)| *number);
        by_number.dedup_by_key(|(number, _)| *number);
        let is_int = self.options.enums_as_ints;
        let is_old = |syntax| syntax == Syntax::Proto2;
        let symbols = Enum {
            // As by Java's library.
            unknown: format!("UNKNOWN_ENUM_VALUE_{}_", symbols.name()).into(),
            symbols: by_number,
            first: symbols.default_value().number(),
            is_closed: is_old(field.parent_file().syntax())
                || is_old(symbols.parent_file().syntax()),
            is_int,
        };
        let data_type = if is_int { DataType::Int } else { DataType::String };
        (Value::Enum(symbols), data_type)
    }

    fn message(
        &mut self,
        field: &FieldDescriptor,
        message: &MessageDescriptor,
    ) -> Result<Option<(Value, DataType)>, SchemaError> {
        if field.is_map() {
            return self.map(message);
        }
        if let Some(data_type) = seconds_type(message) {
            return Ok(Some((Value::Seconds(Box::new(self.shape_of_plain(message)?)), data_type)));
        }
        if self.options.any_as_json && message.full_name() == "google.protobuf.Any" {
            let any = AnyJson::new(message.clone(), self.options.enums_as_ints);
            return Ok(Some((Value::Any(Box::new(any)), DataType::String)));
        }
        if self.options.unwraps && is_wrapper(message) {
            let shape = self.shape(message)?;
            if let [inner] = shape.fields.as_slice() {
                let data_type = inner.data_type.clone();
                return Ok(Some((Value::Wrapper(Box::new(shape)), data_type)));
            }
        }
        let depth = self.path.iter().filter(|name| *name == message.full_name()).count();
        if depth > 0 {
            match self.options.recursion_max {
                Some(max @ 1..=RECURSION_MAX) if depth as i32 >= max => return Ok(None),
                Some(1..=RECURSION_MAX) => {}
                _ => {
                    return Err(SchemaError::new(
                        "RECURSIVE_PROTOBUF_SCHEMA",
                        format!(
                            "the field `{}` makes the message type `{}` contain itself",
                            field.full_name(),
                            message.full_name()
                        ),
                    ));
                }
            }
        }
        self.path.push(message.full_name().to_string());
        let shape = self.shape(message)?;
        self.path.pop();
        let shape = match (shape.fields.is_empty(), self.options.retains_empty) {
            (true, false) => return Ok(None),
            (true, true) => dummy(),
            (false, _) => shape,
        };
        let data_type = shape.data_type();
        let is_group = field.is_group();
        Ok(Some((Value::Message { shape: Box::new(shape), is_group }, data_type)))
    }

    /// The shape of a message whose fields are numbers, which are read as they are.
    fn shape_of_plain(&mut self, message: &MessageDescriptor) -> Result<Shape, SchemaError> {
        let options = ReadOptions { emits_defaults: true, ..ReadOptions::default() };
        Builder { options: &options, fields_left: 2, path: self.path.clone() }.shape(message)
    }

    fn map(&mut self, entry: &MessageDescriptor) -> Result<Option<(Value, DataType)>, SchemaError> {
        let mut shape = self.shape(entry)?;
        // Without the value, which is nested too often.
        let [key, value] = shape.fields.as_mut_slice() else { return Ok(None) };
        for field in [&mut *key, &mut *value] {
            field.hides_default = false;
            field.absent = Some(Default::OfType);
        }
        let (key, value) = (key.data_type.clone(), value.data_type.clone());
        let data_type = DataType::Map(Box::new(key), Box::new(value));
        Ok(Some((Value::Map(Box::new(shape)), data_type)))
    }
}

/// The bits of a default as they are on the wire.
fn bits32(field: &FieldDescriptor, value: i32) -> u64 {
    match field.kind() {
        Kind::Sint32 => zigzag32(value),
        _ => value as u64,
    }
}

fn bits64(field: &FieldDescriptor, value: i64) -> u64 {
    match field.kind() {
        Kind::Sint64 => zigzag64(value),
        _ => value as u64,
    }
}

/// The SQL type of a message that is called `Timestamp` or `Duration` and has the fields of
/// Google's, in any package, as in Spark.
pub(super) fn seconds_type(message: &MessageDescriptor) -> Option<DataType> {
    let data_type = match message.name() {
        "Timestamp" => DataType::Timestamp,
        "Duration" => DataType::DayTimeInterval(0, 3),
        _ => return None,
    };
    let [seconds, nanos] = message.descriptor_proto().field.as_slice() else { return None };
    let kind = |number: i32| message.get_field(number as u32).map(|field| field.kind());
    let is_same = (seconds.name(), nanos.name()) == ("seconds", "nanos")
        && kind(seconds.number()) == Some(Kind::Int64)
        && kind(nanos.number()) == Some(Kind::Int32);
    is_same.then_some(data_type)
}

/// Whether a message is one of Google's wrappers of a single value.
pub(super) fn is_wrapper(message: &MessageDescriptor) -> bool {
    const WRAPPERS: [&str; 9] = [
        "BoolValue",
        "Int32Value",
        "UInt32Value",
        "Int64Value",
        "UInt64Value",
        "FloatValue",
        "DoubleValue",
        "StringValue",
        "BytesValue",
    ];
    message.package_name() == "google.protobuf" && WRAPPERS.contains(&message.name())
}
