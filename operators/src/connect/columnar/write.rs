//! Writes rows to a columnar file: gathers values by column and encodes them in batches.

use super::ColumnFormat;
use super::schema::to_arrow;
use crate::connect::options::OptionReader;
use crate::table::error::{PlanError, PlanResult};
use crate::table::row::{Row, Slot};
use crate::table::types::{DataType, Field, Schema};
use crate::table::value::Value;
use arrow_array::builder::{
    BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, Float32Builder,
    Float64Builder, Int8Builder, Int16Builder, Int32Builder, Int64Builder, StringBuilder,
    TimestampMicrosecondBuilder,
};
use arrow_array::{ArrayRef, ListArray, MapArray, NullArray, RecordBatch, StructArray};
use arrow_buffer::{NullBuffer, OffsetBuffer};
use arrow_schema::{DataType as Arrow, Field as ArrowField, Schema as ArrowSchema, SchemaRef};
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

/// The number of rows per encoded batch.
const BATCH_ROWS: usize = 4096;
/// The buffered bytes at which a row group or stripe is written.
pub(super) const GROUP_BYTES: usize = 16 << 20;

#[derive(Clone, Copy, Debug)]
enum Codec {
    Parquet(super::parquet::write::Codec),
    Orc(super::orc::stream::Codec),
}

/// How the files of a sink are written.
#[derive(Clone, Debug)]
pub struct ColumnSink {
    format: ColumnFormat,
    codec: Codec,
    extension: String,
}

impl ColumnSink {
    /// Parses the write options of a format.
    pub fn read(format: ColumnFormat, reader: &mut OptionReader<'_>) -> PlanResult<Self> {
        let (codec, short) = match format {
            ColumnFormat::Parquet => {
                let (codec, short) = super::parquet::write::codec(reader)?;
                (Codec::Parquet(codec), short)
            }
            ColumnFormat::Orc => {
                let (codec, short) = super::orc::write::codec(reader)?;
                (Codec::Orc(codec), short)
            }
        };
        let dot = if short.is_empty() { "" } else { "." };
        let extension = format!("{short}{dot}{}", format.name());
        Ok(Self { format, codec, extension })
    }

    /// The format of the files: Parquet or ORC.
    pub fn format(&self) -> ColumnFormat {
        self.format
    }

    /// The file name extension, including the compression.
    pub fn extension(&self) -> &str {
        &self.extension
    }

    /// Fails for a column whose type the format cannot store.
    pub fn check(&self, fields: &[&Field]) -> PlanResult<()> {
        for field in fields {
            let fits = match self.format {
                _ if field.data_type.has_time() || field.data_type.has_variant() => false,
                _ if field.data_type.has_calendar_interval() => false,
                ColumnFormat::Parquet => true,
                ColumnFormat::Orc => !field.data_type.contains(&|part| *part == DataType::Null),
            };
            if fits {
                continue;
            }
            let name = self.format.name();
            return Err(PlanError::new(
                "UNSUPPORTED_DATA_TYPE_FOR_DATASOURCE",
                format!(
                    "format '{name}' cannot hold `{}`, which is {}",
                    field.name, field.data_type
                ),
                "Cast it",
            ));
        }
        Ok(())
    }
}

/// Encoder output that has not been written to the file yet.
#[derive(Clone, Default)]
pub(super) struct Written(Arc<Mutex<Vec<u8>>>);

impl Written {
    pub(super) fn take_into(&self, out: &mut Vec<u8>) {
        let mut written = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        out.append(&mut written);
    }
}

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut written = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        written.extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

enum Encoder {
    Parquet(super::parquet::write::Encoder),
    Orc(Box<super::orc::write::Encoder>),
}

enum Column {
    /// A column in which every row is NULL, with the number of its rows.
    Null(usize),
    Bool(BooleanBuilder),
    Byte(Int8Builder),
    Short(Int16Builder),
    Int(Int32Builder),
    Long(Int64Builder),
    Float(Float32Builder),
    Double(Float64Builder),
    Decimal(Decimal128Builder),
    Text(StringBuilder),
    Bytes(BinaryBuilder),
    Date(Date32Builder),
    Time(TimestampMicrosecondBuilder),
    Nested(Vec<Value>),
}

/// A columnar file under construction. The encoded bytes are taken with
/// [`take_into`](Self::take_into).
pub struct ColumnFile {
    schema: SchemaRef,
    /// Each column's index in the row, with its slot, its type and its values.
    columns: Vec<(usize, Slot, DataType, Column)>,
    width: usize,
    rows: usize,
    encoder: Option<Encoder>,
    written: Written,
}

pub(super) fn other(error: impl std::fmt::Display) -> io::Error {
    io::Error::other(error.to_string())
}

impl ColumnFile {
    /// Starts a file for rows of `schema`. The columns at the indices in `left_out` are not
    /// written.
    pub fn new(sink: &ColumnSink, schema: &Schema, left_out: &[usize]) -> io::Result<Self> {
        let width = schema.fields.len();
        let (mut columns, mut fields, mut own) = (Vec::new(), Vec::new(), Vec::new());
        let kept = schema.fields.iter().enumerate().filter(|(i, _)| !left_out.contains(i));
        for (i, field) in kept {
            let arrow = to_arrow(&field.data_type);
            let column = column_of(&arrow);
            fields.push(ArrowField::new(&field.name, arrow, true));
            columns.push((i, Slot::new(i, width), field.data_type.clone(), column));
            own.push(field.clone());
        }
        let (schema, written) = (Arc::new(ArrowSchema::new(fields)), Written::default());
        let encoder = match sink.codec {
            Codec::Parquet(codec) => Encoder::Parquet(super::parquet::write::Encoder::new(
                codec,
                schema.clone(),
                &own,
                written.clone(),
            )?),
            Codec::Orc(codec) => Encoder::Orc(Box::new(super::orc::write::Encoder::new(
                codec,
                &own,
                written.clone(),
            )?)),
        };
        Ok(Self { schema, columns, width, rows: 0, encoder: Some(encoder), written })
    }

    /// Adds a row.
    pub fn write(&mut self, row: Row<'_>) -> io::Result<()> {
        for (index, slot, data_type, column) in &mut self.columns {
            macro_rules! append {
                ($builder:ident, $value:expr) => {
                    if row.is_null(*slot) {
                        $builder.append_null()
                    } else {
                        $builder.append_value($value)
                    }
                };
            }
            match column {
                Column::Null(rows) => *rows += 1,
                Column::Bool(b) => append!(b, row.long(*slot) != 0),
                Column::Byte(b) => append!(b, row.long(*slot) as i8),
                Column::Short(b) => append!(b, row.long(*slot) as i16),
                Column::Int(b) => append!(b, row.long(*slot) as i32),
                Column::Date(b) => append!(b, row.long(*slot) as i32),
                Column::Long(b) => append!(b, row.long(*slot)),
                Column::Time(b) => append!(b, row.long(*slot)),
                Column::Float(b) => append!(b, row.double(*slot) as f32),
                Column::Double(b) => append!(b, row.double(*slot)),
                Column::Decimal(b) => append!(b, row.decimal(*slot)),
                Column::Text(b) => append!(b, crate::table::expr::compile::text(row.bytes(*slot))),
                Column::Bytes(b) => append!(b, row.bytes(*slot)),
                Column::Nested(values) => values.push(row.value(*index, self.width, data_type)),
            }
        }
        self.rows += 1;
        if self.rows == BATCH_ROWS { self.encode() } else { Ok(()) }
    }

    fn encode(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.rows) == 0 {
            return Ok(());
        }
        let mut arrays = Vec::with_capacity(self.columns.len());
        for ((.., column), field) in self.columns.iter_mut().zip(self.schema.fields()) {
            arrays.push(finished(column, field.data_type())?);
        }
        let batch = RecordBatch::try_new(self.schema.clone(), arrays).map_err(other)?;
        match &mut self.encoder {
            Some(Encoder::Parquet(encoder)) => encoder.write(&batch),
            Some(Encoder::Orc(encoder)) => encoder.write(batch),
            None => Err(other("the file is finished")),
        }
    }

    /// Appends the encoded bytes to `out` and removes them from the encoder's output.
    pub fn take_into(&mut self, out: &mut Vec<u8>) {
        self.written.take_into(out);
    }

    /// Encodes the remaining rows and ends the file.
    pub fn finish(&mut self) -> io::Result<()> {
        self.encode()?;
        match self.encoder.take() {
            Some(Encoder::Parquet(encoder)) => encoder.finish(),
            Some(Encoder::Orc(encoder)) => encoder.finish(),
            None => Ok(()),
        }
    }
}

fn column_of(arrow: &Arrow) -> Column {
    match arrow {
        Arrow::Null => Column::Null(0),
        Arrow::Boolean => Column::Bool(BooleanBuilder::new()),
        Arrow::Int8 => Column::Byte(Int8Builder::new()),
        Arrow::Int16 => Column::Short(Int16Builder::new()),
        Arrow::Int32 => Column::Int(Int32Builder::new()),
        Arrow::Int64 => Column::Long(Int64Builder::new()),
        Arrow::Float32 => Column::Float(Float32Builder::new()),
        Arrow::Float64 => Column::Double(Float64Builder::new()),
        Arrow::Decimal128(..) => {
            Column::Decimal(Decimal128Builder::new().with_data_type(arrow.clone()))
        }
        Arrow::Utf8 => Column::Text(StringBuilder::new()),
        Arrow::Binary => Column::Bytes(BinaryBuilder::new()),
        Arrow::Date32 => Column::Date(Date32Builder::new()),
        Arrow::Timestamp(..) => {
            Column::Time(TimestampMicrosecondBuilder::new().with_data_type(arrow.clone()))
        }
        _ => Column::Nested(Vec::new()),
    }
}

fn finished(column: &mut Column, arrow: &Arrow) -> io::Result<ArrayRef> {
    Ok(match column {
        Column::Null(rows) => Arc::new(NullArray::new(std::mem::take(rows))),
        Column::Bool(b) => Arc::new(b.finish()),
        Column::Byte(b) => Arc::new(b.finish()),
        Column::Short(b) => Arc::new(b.finish()),
        Column::Int(b) => Arc::new(b.finish()),
        Column::Long(b) => Arc::new(b.finish()),
        Column::Float(b) => Arc::new(b.finish()),
        Column::Double(b) => Arc::new(b.finish()),
        Column::Decimal(b) => Arc::new(b.finish()),
        Column::Text(b) => Arc::new(b.finish()),
        Column::Bytes(b) => Arc::new(b.finish()),
        Column::Date(b) => Arc::new(b.finish()),
        Column::Time(b) => Arc::new(b.finish()),
        Column::Nested(values) => {
            let values = std::mem::take(values);
            array_of(values.iter().collect(), arrow)?
        }
    })
}

/// Builds an Arrow array of nested values.
fn array_of(values: Vec<&Value>, arrow: &Arrow) -> io::Result<ArrayRef> {
    const NULL: Value = Value::Null;
    let nulls = || NullBuffer::from_iter(values.iter().map(|v| **v != Value::Null));
    Ok(match arrow {
        Arrow::List(element) => {
            let lists = values.iter().map(|v| match v {
                Value::Array(of) => of.as_slice(),
                _ => &[],
            });
            let offsets = OffsetBuffer::from_lengths(lists.clone().map(<[Value]>::len));
            let inner = array_of(lists.flatten().collect(), element.data_type())?;
            Arc::new(
                ListArray::try_new(element.clone(), offsets, inner, Some(nulls()))
                    .map_err(other)?,
            )
        }
        Arrow::Map(entries, _) => {
            let Arrow::Struct(fields) = entries.data_type() else {
                return Err(other("a map has entries"));
            };
            let maps = values.iter().map(|v| match v {
                Value::Map(of) => of.as_slice(),
                _ => &[],
            });
            let offsets = OffsetBuffer::from_lengths(maps.clone().map(<[(Value, Value)]>::len));
            let keys = maps.clone().flatten().map(|(k, _)| k).collect();
            let of_values = maps.flatten().map(|(_, v)| v).collect();
            let parts = vec![
                array_of(keys, fields[0].data_type())?,
                array_of(of_values, fields[1].data_type())?,
            ];
            let of = StructArray::try_new(fields.clone(), parts, None).map_err(other)?;
            let map = MapArray::try_new(entries.clone(), offsets, of, Some(nulls()), false);
            Arc::new(map.map_err(other)?)
        }
        Arrow::Struct(fields) => {
            let mut parts = Vec::new();
            for (i, field) in fields.iter().enumerate() {
                let of_field = values.iter().map(|v| match v {
                    Value::Struct(of) => of.get(i).unwrap_or(&NULL),
                    _ => &NULL,
                });
                parts.push(array_of(of_field.collect(), field.data_type())?);
            }
            let length = values.len();
            let made =
                StructArray::try_new_with_length(fields.clone(), parts, Some(nulls()), length);
            Arc::new(made.map_err(other)?)
        }
        flat => {
            let mut column = column_of(flat);
            for value in values {
                append(&mut column, value);
            }
            finished(&mut column, flat)?
        }
    })
}

fn append(column: &mut Column, value: &Value) {
    let long = match value {
        Value::Long(v) => Some(*v),
        _ => None,
    };
    let double = match value {
        Value::Double(v) => Some(*v),
        _ => None,
    };
    match column {
        Column::Null(rows) => *rows += 1,
        Column::Bool(b) => b.append_option(match value {
            Value::Boolean(v) => Some(*v),
            _ => None,
        }),
        Column::Byte(b) => b.append_option(long.map(|v| v as i8)),
        Column::Short(b) => b.append_option(long.map(|v| v as i16)),
        Column::Int(b) => b.append_option(long.map(|v| v as i32)),
        Column::Date(b) => b.append_option(long.map(|v| v as i32)),
        Column::Long(b) => b.append_option(long),
        Column::Time(b) => b.append_option(long),
        Column::Float(b) => b.append_option(double.map(|v| v as f32)),
        Column::Double(b) => b.append_option(double),
        Column::Decimal(b) => b.append_option(match value {
            Value::Decimal(v) => Some(*v),
            _ => None,
        }),
        Column::Text(b) => b.append_option(match value {
            Value::String(v) => Some(v.as_str()),
            _ => None,
        }),
        Column::Bytes(b) => b.append_option(match value {
            Value::Binary(v) => Some(v.as_slice()),
            _ => None,
        }),
        Column::Nested(values) => values.push(value.clone()),
    }
}
