//! Encodes rows as a Parquet file with Spark's layout: DECIMAL as INT32, INT64 or fixed-length
//! bytes depending on its precision, three-level lists and maps, and Spark's schema in the footer.
//!
//! Timestamps are INT64 microseconds, those with time zone (TIMESTAMP) milliseconds if a setting
//! says so. INT96 is not written: the format deprecates it, and its nanoseconds overflow for dates
//! far from the present.

use super::rebase::{
    LEGACY_DATETIME, LEGACY_INT96, Mode, SAME_FROM_DAYS, SAME_FROM_US, VERSION, ZONE,
    micros_to_old, refusal,
};
use crate::connect::columnar::julian_calendar::days_to_hybrid;
use crate::connect::columnar::parquet::spark_schema::note;
use crate::connect::columnar::write::{GROUP_BYTES, Written, other};
use crate::connect::options::OptionReader;
use crate::table::datetime::Tz;
use crate::table::error::PlanResult;
use crate::table::types::Field;
use arrow_array::cast::AsArray;
use arrow_array::types::{Date32Type, TimestampMicrosecondType, TimestampMillisecondType};
use arrow_array::{Array, ArrayRef, ListArray, MapArray, RecordBatch, StructArray};
use arrow_schema::{
    DataType as Arrow, Field as ArrowField, FieldRef, Schema as ArrowSchema, SchemaRef, TimeUnit,
};
use parquet::arrow::ArrowWriter;
use parquet::basic::{BrotliLevel, Compression, GzipLevel, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use std::io;
use std::sync::Arc;

/// The Spark version to record in the footer. Readers derive the layout and the calendar from it.
const SPARK_VERSION: &str = "4.3.0";

/// How a file is encoded.
#[derive(Clone, Copy, Debug)]
pub struct Codec {
    compression: Compression,
    /// The calendar of dates and of TIMESTAMP values.
    calendar: Mode,
    zone: Tz,
    /// Whether TIMESTAMP values are stored as milliseconds.
    millis: bool,
}

/// Parses the options. Returns the codec and the part of the file name for the compression.
pub fn codec(reader: &mut OptionReader<'_>) -> PlanResult<(Codec, &'static str)> {
    let words = ["snappy", "none", "uncompressed", "gzip", "zstd", "lz4", "lz4_raw", "brotli"];
    let (compression, short) = match reader.choice("compression", &words)? {
        "gzip" => (Compression::GZIP(GzipLevel::default()), "gz"),
        "zstd" => (Compression::ZSTD(ZstdLevel::default()), "zstd"),
        "lz4" => (Compression::LZ4, "lz4hadoop"),
        "lz4_raw" => (Compression::LZ4_RAW, "lz4raw"),
        "brotli" => (Compression::BROTLI(BrotliLevel::default()), "br"),
        "snappy" => (Compression::SNAPPY, "snappy"),
        _ => (Compression::UNCOMPRESSED, ""),
    };
    let settings = reader.settings();
    let mode = settings.get("spark.sql.parquet.datetimeRebaseModeInWrite").unwrap_or("CORRECTED");
    let unit = settings.get("spark.sql.parquet.outputTimestampType").unwrap_or_default();
    let codec = Codec {
        compression,
        calendar: Mode::of(&mode.to_ascii_uppercase()),
        zone: settings.zone,
        millis: unit.eq_ignore_ascii_case("TIMESTAMP_MILLIS"),
    };
    Ok((codec, short))
}

/// Encodes batches of rows as a file.
pub struct Encoder {
    writer: Box<ArrowWriter<Written>>,
    codec: Codec,
    schema: SchemaRef,
}

impl Encoder {
    /// Starts a file. `schema` and `fields` describe the same columns, as Arrow and as SQL types.
    /// Fails if the writer refuses the schema.
    pub fn new(codec: Codec, schema: SchemaRef, fields: &[Field], to: Written) -> io::Result<Self> {
        let schema = match codec.millis {
            true => Arc::new(ArrowSchema::new(
                schema.fields().iter().map(field_in_millis).collect::<Vec<_>>(),
            )),
            false => schema,
        };
        let key = |name: &str, value: String| KeyValue::new(name.to_string(), value);
        let mut notes = vec![note(fields), key(VERSION, SPARK_VERSION.to_string())];
        if codec.calendar == Mode::Legacy {
            notes.push(key(LEGACY_DATETIME, String::new()));
            notes.push(key(LEGACY_INT96, String::new()));
            notes.push(key(ZONE, codec.zone.name().into_owned()));
        }
        let properties = WriterProperties::builder()
            .set_compression(codec.compression)
            .set_coerce_types(true)
            .set_created_by("millstream".to_string())
            .set_key_value_metadata(Some(notes))
            .build();
        let writer = ArrowWriter::try_new(to, schema.clone(), Some(properties)).map_err(other)?;
        Ok(Self { writer: Box::new(writer), codec, schema })
    }

    /// Adds a batch. Writes a row group once enough bytes are buffered.
    pub fn write(&mut self, batch: &RecordBatch) -> io::Result<()> {
        if self.codec.calendar == Mode::Corrected && !self.codec.millis {
            self.writer.write(batch).map_err(other)?;
        } else {
            let stored = |array: &ArrayRef| stored(array, &self.codec);
            let columns = batch.columns().iter().map(stored).collect::<io::Result<_>>()?;
            let batch = RecordBatch::try_new(self.schema.clone(), columns).map_err(other)?;
            self.writer.write(&batch).map_err(other)?;
        }
        if self.writer.in_progress_size() > GROUP_BYTES {
            self.writer.flush().map_err(other)?;
        }
        Ok(())
    }

    /// Writes the last row group and the footer.
    pub fn finish(self) -> io::Result<()> {
        self.writer.close().map(drop).map_err(other)
    }
}

fn is_instant(data_type: &Arrow) -> bool {
    matches!(data_type, Arrow::Timestamp(TimeUnit::Microsecond, Some(_)))
}

/// The field with TIMESTAMP in milliseconds, also inside nested types.
fn field_in_millis(field: &FieldRef) -> FieldRef {
    let data_type = match field.data_type() {
        Arrow::Timestamp(_, Some(zone)) => {
            Arrow::Timestamp(TimeUnit::Millisecond, Some(zone.clone()))
        }
        Arrow::List(element) => Arrow::List(field_in_millis(element)),
        Arrow::Struct(fields) => Arrow::Struct(fields.iter().map(field_in_millis).collect()),
        Arrow::Map(entries, sorted) => Arrow::Map(field_in_millis(entries), *sorted),
        _ => return field.clone(),
    };
    Arc::new(ArrowField::new(field.name(), data_type, field.is_nullable()))
}

/// Converts an array to the file's calendar and timestamp unit.
fn stored(array: &ArrayRef, codec: &Codec) -> io::Result<ArrayRef> {
    let renamed = |field: &FieldRef| match codec.millis {
        true => field_in_millis(field),
        false => field.clone(),
    };
    Ok(match array.data_type() {
        Arrow::Date32 if codec.calendar != Mode::Corrected => {
            let days = array.as_primitive::<Date32Type>();
            let is_old = |day: i32| i64::from(day) < SAME_FROM_DAYS;
            if codec.calendar == Mode::Exception && days.iter().flatten().any(is_old) {
                return Err(refused_in_write());
            }
            let old = |day: i32| days_to_hybrid(day.into()) as i32;
            Arc::new(days.unary::<_, Date32Type>(old))
        }
        instant if is_instant(instant) => {
            let mut micros = array.as_primitive::<TimestampMicrosecondType>().clone();
            let is_old = |micros: i64| micros < SAME_FROM_US;
            match codec.calendar {
                Mode::Corrected => {}
                Mode::Exception if micros.iter().flatten().any(is_old) => {
                    return Err(refused_in_write());
                }
                Mode::Exception => {}
                Mode::Legacy => micros = micros.unary(|at| micros_to_old(at, codec.zone)),
            }
            if codec.millis {
                let millis = micros.unary::<_, TimestampMillisecondType>(|at| at.div_euclid(1000));
                Arc::new(millis.with_timezone("UTC"))
            } else {
                Arc::new(micros.with_timezone("UTC"))
            }
        }
        Arrow::List(element) => {
            let list = array.as_list::<i32>();
            let values = stored(list.values(), codec)?;
            let (offsets, nulls) = (list.offsets().clone(), list.nulls().cloned());
            let made = ListArray::try_new(renamed(element), offsets, values, nulls);
            Arc::new(made.map_err(other)?)
        }
        Arrow::Map(entries, sorted) => {
            let map = array.as_map();
            let of: ArrayRef = Arc::new(map.entries().clone());
            let of = stored(&of, codec)?.as_struct().clone();
            let (offsets, nulls) = (map.offsets().clone(), map.nulls().cloned());
            let made = MapArray::try_new(renamed(entries), offsets, of, nulls, *sorted);
            Arc::new(made.map_err(other)?)
        }
        Arrow::Struct(fields) => {
            let group = array.as_struct();
            let columns = group.columns().iter().map(|column| stored(column, codec));
            let columns = columns.collect::<io::Result<_>>()?;
            let fields = fields.iter().map(renamed).collect();
            let nulls = group.nulls().cloned();
            let made = StructArray::try_new_with_length(fields, columns, nulls, group.len());
            Arc::new(made.map_err(other)?)
        }
        _ => array.clone(),
    })
}

fn refused_in_write() -> io::Error {
    let fix = "SET spark.sql.parquet.datetimeRebaseModeInWrite = 'CORRECTED', or 'LEGACY' for \
               readers of the old calendar";
    other(refusal("WRITE_ANCIENT_DATETIME", fix))
}
