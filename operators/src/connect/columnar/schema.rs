//! The mapping from SQL types to Arrow types, through which Parquet and ORC are read and written.

use crate::table::types::DataType;
use arrow_schema::{DataType as Arrow, Field as ArrowField, Fields, TimeUnit};
use std::sync::Arc;

/// The Arrow type for a SQL type.
pub fn to_arrow(data_type: &DataType) -> Arrow {
    let field = |name: &str, data_type: &DataType, nullable| {
        Arc::new(ArrowField::new(name, to_arrow(data_type), nullable))
    };
    match data_type {
        DataType::Boolean => Arrow::Boolean,
        DataType::Byte => Arrow::Int8,
        DataType::Short => Arrow::Int16,
        DataType::Int | DataType::YearMonthInterval(..) => Arrow::Int32,
        // The formats refuse a TIME, a VARIANT and an INTERVAL before this.
        DataType::Long | DataType::DayTimeInterval(..) | DataType::Time(_) => Arrow::Int64,
        DataType::Float => Arrow::Float32,
        DataType::Double => Arrow::Float64,
        DataType::Decimal(precision, scale) => Arrow::Decimal128(*precision, *scale as i8),
        DataType::String => Arrow::Utf8,
        DataType::Binary | DataType::Variant | DataType::CalendarInterval => Arrow::Binary,
        DataType::Date => Arrow::Date32,
        DataType::Timestamp => Arrow::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        DataType::TimestampNtz => Arrow::Timestamp(TimeUnit::Microsecond, None),
        DataType::Null => Arrow::Null,
        DataType::Array(element) => Arrow::List(field("element", element, true)),
        DataType::Map(key, value) => {
            let entry = Fields::from(vec![field("key", key, false), field("value", value, true)]);
            let entries = ArrowField::new("key_value", Arrow::Struct(entry), false);
            Arrow::Map(Arc::new(entries), false)
        }
        DataType::Struct(fields) => {
            let fields = fields.iter().map(|f| field(&f.name, &f.data_type, true));
            Arrow::Struct(fields.collect::<Vec<_>>().into())
        }
    }
}
