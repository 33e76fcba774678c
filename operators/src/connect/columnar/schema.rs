//! Our types and Arrow's, in which both formats are read and written.

use crate::table::types::{DataType, Field, Schema};
use arrow_schema::{DataType as Arrow, Field as ArrowField, Fields, TimeUnit};
use std::sync::Arc;

/// The type that a column is written with; `None` if the formats have none for it.
pub fn to_arrow(data_type: &DataType) -> Option<Arrow> {
    let field = |name: &str, data_type: &DataType, nullable| {
        Some(Arc::new(ArrowField::new(name, to_arrow(data_type)?, nullable)))
    };
    Some(match data_type {
        DataType::Boolean => Arrow::Boolean,
        DataType::Byte => Arrow::Int8,
        DataType::Short => Arrow::Int16,
        DataType::Int | DataType::YearMonthInterval(..) => Arrow::Int32,
        DataType::Long | DataType::DayTimeInterval(..) => Arrow::Int64,
        DataType::Float => Arrow::Float32,
        DataType::Double => Arrow::Float64,
        DataType::Decimal(precision, scale) => Arrow::Decimal128(*precision, *scale as i8),
        DataType::String => Arrow::Utf8,
        DataType::Binary => Arrow::Binary,
        DataType::Date => Arrow::Date32,
        DataType::Timestamp => Arrow::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        DataType::TimestampNtz => Arrow::Timestamp(TimeUnit::Microsecond, None),
        DataType::Array(element) => Arrow::List(field("element", element, true)?),
        DataType::Map(key, value) => {
            let entry = Fields::from(vec![field("key", key, false)?, field("value", value, true)?]);
            let entries = ArrowField::new("key_value", Arrow::Struct(entry), false);
            Arrow::Map(Arc::new(entries), false)
        }
        DataType::Struct(fields) => {
            let fields = fields.iter().map(|f| field(&f.name, &f.data_type, true));
            Arrow::Struct(fields.collect::<Option<Vec<_>>>()?.into())
        }
        _ => return None,
    })
}

/// The type that a file's column is read as; `None` if we have none for it.
pub fn from_arrow(arrow: &Arrow) -> Option<DataType> {
    Some(match arrow {
        Arrow::Boolean => DataType::Boolean,
        Arrow::Int8 => DataType::Byte,
        Arrow::Int16 | Arrow::UInt8 => DataType::Short,
        Arrow::Int32 | Arrow::UInt16 => DataType::Int,
        Arrow::Int64 | Arrow::UInt32 => DataType::Long,
        Arrow::UInt64 => DataType::Decimal(20, 0),
        Arrow::Float16 | Arrow::Float32 => DataType::Float,
        Arrow::Float64 => DataType::Double,
        Arrow::Decimal32(p, s) | Arrow::Decimal64(p, s) | Arrow::Decimal128(p, s) => {
            DataType::Decimal(*p, u8::try_from(*s).ok()?)
        }
        Arrow::Utf8 | Arrow::LargeUtf8 | Arrow::Utf8View => DataType::String,
        Arrow::Binary | Arrow::LargeBinary | Arrow::BinaryView | Arrow::FixedSizeBinary(_) => {
            DataType::Binary
        }
        Arrow::Date32 | Arrow::Date64 => DataType::Date,
        Arrow::Timestamp(_, Some(_)) => DataType::Timestamp,
        Arrow::Timestamp(_, None) => DataType::TimestampNtz,
        Arrow::List(element) | Arrow::LargeList(element) => {
            DataType::Array(Box::new(from_arrow(element.data_type())?))
        }
        Arrow::Map(entries, _) => match entries.data_type() {
            Arrow::Struct(entry) if entry.len() == 2 => DataType::Map(
                Box::new(from_arrow(entry[0].data_type())?),
                Box::new(from_arrow(entry[1].data_type())?),
            ),
            _ => return None,
        },
        Arrow::Struct(fields) => DataType::Struct(fields_of(fields)?.fields),
        _ => return None,
    })
}

/// The columns of a file, all of which may be NULL.
pub fn fields_of(fields: &Fields) -> Option<Schema> {
    let field =
        |f: &Arc<ArrowField>| Some(Field::new(f.name().clone(), from_arrow(f.data_type())?, true));
    Some(Schema::new(fields.iter().map(field).collect::<Option<_>>()?))
}
