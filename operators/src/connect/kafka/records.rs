//! Rows of Kafka records, with Spark's columns.

use crate::connect::kafka::consumer::{Message, TimestampKind};
use crate::table::row::RowWriter;
use crate::table::types::{DataType, Field, Schema};

/// The type of the column `headers`: `ARRAY<STRUCT<key: STRING, value: BINARY>>`.
pub fn headers_type() -> DataType {
    let field = |name, data_type| Field::new(name, data_type, true);
    let header = vec![field("key", DataType::String), field("value", DataType::Binary)];
    DataType::Array(Box::new(DataType::Struct(header)))
}

/// Whether a type is that of the column `headers`, regardless of nullability.
pub fn is_headers(data_type: &DataType) -> bool {
    let DataType::Array(header) = data_type else { return false };
    let DataType::Struct(fields) = &**header else { return false };
    let wanted = [("key", DataType::String), ("value", DataType::Binary)];
    let found = fields.iter().map(|field| (field.name.as_str(), field.data_type.clone()));
    found.eq(wanted)
}

/// The schema of a source, with or without the column `headers`.
pub fn schema(with_headers: bool) -> Schema {
    let mut fields = vec![
        Field::new("key", DataType::Binary, true),
        Field::new("value", DataType::Binary, true),
        Field::new("topic", DataType::String, true),
        Field::new("partition", DataType::Int, true),
        Field::new("offset", DataType::Long, true),
        Field::new("timestamp", DataType::Timestamp, true),
        Field::new("timestampType", DataType::Int, true),
    ];
    if with_headers {
        fields.push(Field::new("headers", headers_type(), true));
    }
    Schema::new(fields)
}

/// The columns of a source that a query reads.
#[derive(Clone, Copy, Debug)]
pub struct Columns {
    /// The number of columns of a row.
    width: usize,
    key: bool,
    value: bool,
    topic: bool,
    timestamp: bool,
    headers: bool,
}

impl Columns {
    /// `needed` tells for each column of the schema whether it is read.
    pub fn new(needed: &[bool], with_headers: bool) -> Self {
        let is_needed = |index: usize| needed.get(index).copied().unwrap_or(false);
        Self {
            width: 7 + usize::from(with_headers),
            key: is_needed(0),
            value: is_needed(1),
            topic: is_needed(2),
            timestamp: is_needed(5) || is_needed(6),
            headers: with_headers && is_needed(7),
        }
    }

    /// Encodes a record as a row; columns that are not read may be NULL. `row` is cleared first.
    #[inline]
    pub fn write(&self, message: &Message, topic: &str, row: &mut Vec<u8>) {
        row.clear();
        let mut writer = RowWriter::new(row, self.width);
        if let Some(key) = message.key().filter(|_| self.key) {
            writer.bytes(0, key);
        }
        if let Some(value) = message.value().filter(|_| self.value) {
            writer.bytes(1, value);
        }
        if self.topic {
            writer.bytes(2, topic.as_bytes());
        }
        writer.long(3, i64::from(message.partition_key().1));
        writer.long(4, message.offset());
        if self.timestamp {
            let (ms, kind) = message.timestamp();
            writer.long(5, ms.saturating_mul(1000));
            writer.long(
                6,
                match kind {
                    TimestampKind::None => -1,
                    TimestampKind::Create => 0,
                    TimestampKind::LogAppend => 1,
                },
            );
        }
        if self.headers {
            write_headers(message, &mut writer);
        }
    }
}

fn write_headers(message: &Message, writer: &mut RowWriter<'_, Vec<u8>>) {
    let count = message.headers(|_, _| {});
    if count == 0 {
        return;
    }
    writer.nested_array(7, count, |array| {
        let mut index = 0;
        message.headers(|name, value| {
            array.nested(index, 2, |header| {
                header.bytes(0, name.as_bytes());
                if let Some(value) = value {
                    header.bytes(1, value);
                }
            });
            index += 1;
        });
    });
}
