//! The rows of a file. A file that is damaged is an error that names it, whatever the decoder does
//! about it; at most one batch of rows is held, and of each column one page.

use super::ColumnFormat;
use super::schema::{fields_of, from_arrow, to_arrow};
use crate::table::row::RowWriter;
use crate::table::types::{DataType, Schema};
use crate::table::value::Value;
use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, TimestampMicrosecondType,
};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::DataType as Arrow;
use bytes::Bytes;
use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// Rows that are decoded at once.
pub(super) const BATCH_ROWS: usize = 1024;

/// Batches of decoded rows.
pub(super) type Batches = Box<dyn Iterator<Item = Result<RecordBatch, String>> + Send>;

/// What decodes a file.
enum Source {
    Parquet(Batches),
    Orc(Box<super::orc::read::Reader>),
}

/// Reads a file row by row.
pub struct ColumnInput {
    source: Source,
    /// Each wanted column: its place in the row, its type, and its name in the file if it is there.
    wanted: Vec<(usize, DataType, Option<String>)>,
    /// The columns of the present batch, as wanted.
    batch: Vec<Option<ArrayRef>>,
    rows: usize,
    next: usize,
    /// Rows before the next one.
    offset: u64,
}

fn other(error: impl std::fmt::Display) -> io::Error {
    io::Error::other(error.to_string())
}

/// Runs a decoder. What makes it panic is a file that is damaged.
fn guarded<T>(decode: impl FnOnce() -> Result<T, String>) -> io::Result<T> {
    match catch_unwind(AssertUnwindSafe(decode)) {
        Ok(result) => result.map_err(other),
        Err(_) => Err(other("the file is damaged: its decoder gave up")),
    }
}

pub(super) fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Where the bytes are.
pub(super) enum From {
    File(File),
    Bytes(Bytes),
}

/// The columns of a file.
pub fn schema_of(format: ColumnFormat, path: &Path) -> io::Result<Schema> {
    let from = From::File(File::open(path)?);
    if format == ColumnFormat::Orc {
        return super::orc::read::schema(from).map_err(other);
    }
    let (schema, _) = guarded(|| super::parquet::read::open(from, &|_| true, 0))?;
    fields_of(schema.fields()).ok_or_else(|| other("it has a column of a type that is not read"))
}

impl ColumnInput {
    /// Opens a file at a row. `wanted` are places in the row with names and types; a column that
    /// the file has not is NULL.
    pub fn open(
        format: ColumnFormat,
        path: &Path,
        wanted: &[(usize, String, DataType)],
        offset: u64,
    ) -> io::Result<Self> {
        Self::new(format, From::File(File::open(path)?), wanted, offset)
    }

    /// The same over bytes.
    pub fn of_bytes(
        format: ColumnFormat,
        bytes: Vec<u8>,
        wanted: &[(usize, String, DataType)],
    ) -> io::Result<Self> {
        Self::new(format, From::Bytes(bytes.into()), wanted, 0)
    }

    fn new(
        format: ColumnFormat,
        from: From,
        wanted: &[(usize, String, DataType)],
        offset: u64,
    ) -> io::Result<Self> {
        let batch = Vec::new();
        if format == ColumnFormat::Orc {
            let reader = super::orc::read::Reader::open(from, wanted, offset).map_err(other)?;
            let source = Source::Orc(Box::new(reader));
            let found = wanted.iter().map(|(place, _, of)| (*place, of.clone(), None)).collect();
            return Ok(Self { source, wanted: found, batch, rows: 0, next: 0, offset });
        }
        let wants = |name: &str| wanted.iter().any(|(_, w, _)| w.eq_ignore_ascii_case(name));
        let (schema, batches) = guarded(|| super::parquet::read::open(from, &wants, offset))?;
        let mut found = Vec::new();
        for (place, name, data_type) in wanted {
            let field = schema.fields().iter().find(|f| f.name().eq_ignore_ascii_case(name));
            if let Some(field) = field
                && !is_readable(field.data_type(), data_type)
            {
                return Err(other(format!(
                    "column `{name}` is {} in the file and cannot be read as {data_type}",
                    from_arrow(field.data_type())
                        .map_or(field.data_type().to_string(), |t| t.to_string())
                )));
            }
            found.push((*place, data_type.clone(), field.map(|f| f.name().clone())));
        }
        let source = Source::Parquet(batches);
        Ok(Self { source, wanted: found, batch, rows: 0, next: 0, offset })
    }

    /// The number of the next row.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Writes the next row's columns; false at the end of the file. `writer` is made when there is
    /// one.
    pub fn row<'w>(&mut self, writer: impl FnOnce() -> RowWriter<'w, Vec<u8>>) -> io::Result<bool> {
        while self.next == self.rows {
            let wanted = &self.wanted;
            let next = match &mut self.source {
                Source::Parquet(batches) => guarded(|| {
                    let Some(batch) = batches.next().transpose()? else { return Ok(None) };
                    Ok(Some((batch.num_rows(), conformed(&batch, wanted)?)))
                })?,
                Source::Orc(reader) => reader.next().map_err(other)?,
            };
            let Some((rows, batch)) = next else { return Ok(false) };
            self.batch = batch;
            (self.rows, self.next) = (rows, 0);
        }
        let mut writer = writer();
        for ((place, data_type, _), array) in self.wanted.iter().zip(&self.batch) {
            if let Some(array) = array
                && !array.is_null(self.next)
            {
                put(array, data_type, self.next, &mut writer, *place);
            }
        }
        self.next += 1;
        self.offset += 1;
        Ok(true)
    }
}

/// Whether a file's column can be read as a type without losing anything.
fn is_readable(from: &Arrow, to: &DataType) -> bool {
    let Some(from) = from_arrow(from) else { return false };
    let widens = |a: &DataType, b: &DataType| a.integral_range().1 <= b.integral_range().1;
    match (&from, to) {
        (a, b) if a == b => true,
        (a, b) if a.is_integral() && b.is_integral() => widens(a, b),
        (a, DataType::Double) => {
            matches!(a, DataType::Byte | DataType::Short | DataType::Int | DataType::Float)
        }
        (DataType::Decimal(p, s), DataType::Decimal(q, t)) => t >= s && q - t >= p - s,
        (a, DataType::Decimal(q, t)) if a.is_integral() => {
            a.as_decimal().is_some_and(|(p, _)| q - t >= p)
        }
        (DataType::Date, DataType::TimestampNtz) => true,
        (DataType::Binary, DataType::String) => true,
        // Part by part; a field that is missing there is NULL.
        (DataType::Array(_), DataType::Array(_))
        | (DataType::Map(..), DataType::Map(..))
        | (DataType::Struct(_), DataType::Struct(_)) => to_arrow(to).is_some(),
        _ => false,
    }
}

/// The wanted columns of a batch with the types that they are wanted in.
fn conformed(
    batch: &RecordBatch,
    wanted: &[(usize, DataType, Option<String>)],
) -> Result<Vec<Option<ArrayRef>>, String> {
    let column = |(_, data_type, name): &(usize, DataType, Option<String>)| {
        let Some(name) = name else { return Ok(None) };
        let Some(array) = batch.column_by_name(name) else { return Ok(None) };
        let Some(target) = to_arrow(data_type) else { return Ok(None) };
        if *array.data_type() == target {
            return Ok(Some(array.clone()));
        }
        let strict = arrow_cast::CastOptions { safe: false, ..Default::default() };
        let cast = arrow_cast::cast_with_options(array, &target, &strict);
        cast.map(Some).map_err(|error| format!("column `{name}`: {error}"))
    };
    wanted.iter().map(column).collect()
}

/// Writes a value that is not NULL.
#[inline]
fn put(
    array: &ArrayRef,
    data_type: &DataType,
    row: usize,
    writer: &mut RowWriter<'_, Vec<u8>>,
    place: usize,
) {
    match data_type {
        DataType::Boolean => writer.bool(place, array.as_boolean().value(row)),
        DataType::Byte => writer.long(place, array.as_primitive::<Int8Type>().value(row).into()),
        DataType::Short => writer.long(place, array.as_primitive::<Int16Type>().value(row).into()),
        DataType::Int | DataType::YearMonthInterval(..) => {
            writer.long(place, array.as_primitive::<Int32Type>().value(row).into());
        }
        DataType::Long | DataType::DayTimeInterval(..) => {
            writer.long(place, array.as_primitive::<Int64Type>().value(row))
        }
        DataType::Date => writer.long(place, array.as_primitive::<Date32Type>().value(row).into()),
        DataType::Timestamp | DataType::TimestampNtz => {
            writer.long(place, array.as_primitive::<TimestampMicrosecondType>().value(row));
        }
        DataType::Float => {
            writer.double(place, array.as_primitive::<Float32Type>().value(row).into());
        }
        DataType::Double => writer.double(place, array.as_primitive::<Float64Type>().value(row)),
        DataType::Decimal(..) => {
            writer.decimal(place, array.as_primitive::<Decimal128Type>().value(row));
        }
        DataType::String => writer.bytes(place, array.as_string::<i32>().value(row).as_bytes()),
        DataType::Binary => writer.bytes(place, array.as_binary::<i32>().value(row)),
        nested => writer.value(place, &value(array, nested, row)),
    }
}

/// A value, perhaps a nested one.
fn value(array: &ArrayRef, data_type: &DataType, row: usize) -> Value {
    if array.is_null(row) {
        return Value::Null;
    }
    let all = |of: &ArrayRef, data_type: &DataType| {
        (0..of.len()).map(|i| value(of, data_type, i)).collect::<Vec<_>>()
    };
    match data_type {
        DataType::Array(element) => Value::Array(all(&array.as_list::<i32>().value(row), element)),
        DataType::Map(key, of) => {
            let entries = array.as_map().value(row);
            let keys = all(entries.column(0), key);
            Value::Map(keys.into_iter().zip(all(entries.column(1), of)).collect())
        }
        DataType::Struct(fields) => {
            let of = array.as_struct();
            let field = |(i, f): (usize, &crate::table::types::Field)| {
                value(of.column(i), &f.data_type, row)
            };
            Value::Struct(fields.iter().enumerate().map(field).collect())
        }
        flat => {
            let mut bytes = Vec::new();
            put(array, flat, row, &mut RowWriter::new(&mut bytes, 1), 0);
            crate::table::row::Row(&bytes).value(0, 1, flat)
        }
    }
}
