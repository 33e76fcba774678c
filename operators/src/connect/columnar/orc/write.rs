//! Encodes rows as an ORC file.
//!
//! Batches are buffered until they fill a stripe, which is then encoded a column at a time. Types
//! that ORC lacks carry Spark's type attribute, as in files of Spark: intervals and TIMESTAMP_NTZ
//! are integers. Timestamps are counted from 2015-01-01 in the machine's time zone, which every
//! stripe with timestamps names. Dates use the proleptic Gregorian calendar, as the footer says.

use super::footer::Kind;
use super::statistics::Statistics;
use super::stream::Codec;
use super::stripe::{Node, Stripe};
use crate::connect::columnar::orc::protobuf::Message;
use crate::connect::columnar::write::{GROUP_BYTES, Written};
use crate::connect::options::OptionReader;
use crate::table::error::{PlanError, PlanResult};
use crate::table::types::{DataType, Field};
use arrow_array::RecordBatch;
use std::io::{self, Write};

/// The size of an uncompressed block, in bytes.
const BLOCK_BYTES: usize = 256 << 10;
/// The number of the proleptic Gregorian calendar in the footer.
const PROLEPTIC_GREGORIAN: u64 = 2;
/// The version of the file format: 0.12.
const VERSION: [u8; 2] = [0, 12];
/// The writer number in the footer. ORC assigns numbers to writers; this one is not assigned.
const WRITER: u64 = u32::MAX as u64;
const MAGIC: &[u8] = b"ORC";

/// Options of the Java writer that are not supported, with the reason.
const REFUSED: [(&str, &str); 8] = [
    ("orc.bloom.filter.columns", "files have no bloom filters"),
    ("orc.bloom.filter.fpp", "files have no bloom filters"),
    ("orc.dictionary.key.threshold", "texts are written without a dictionary"),
    ("orc.column.encoding.direct", "all columns are written without a dictionary"),
    ("orc.create.index", "files have statistics by stripe, and no indexes of rows"),
    ("orc.encrypt", "columns are not encrypted"),
    ("orc.mask", "columns are not encrypted"),
    ("orc.key.provider", "columns are not encrypted"),
];

/// Parses `compression` or the Java writer's `orc.compress`. Returns the codec and the part of the
/// file name for it.
pub fn codec(reader: &mut OptionReader<'_>) -> PlanResult<(Codec, &'static str)> {
    for (option, reason) in REFUSED {
        if reader.is_given(option) {
            return Err(PlanError::new(
                "UNSUPPORTED_OPTION",
                format!("sink orc has no option '{option}': {reason}"),
                "Leave it out",
            ));
        }
    }
    let java = reader.get("orc.compress").is_some() && !reader.is_given("compression");
    let name = if java { "orc.compress" } else { "compression" };
    let words = ["zstd", "none", "uncompressed", "snappy", "zlib", "lz4"];
    Ok(match reader.choice(name, &words)? {
        "zstd" => (Codec::Zstd, "zstd"),
        "snappy" => (Codec::Snappy, "snappy"),
        "zlib" => (Codec::Zlib, "zlib"),
        "lz4" => (Codec::Lz4, "lz4"),
        _ => (Codec::None, ""),
    })
}

/// Encodes batches of rows as a file.
pub struct Encoder {
    codec: Codec,
    to: Written,
    root: Node,
    /// Batches of the stripe that is not written yet.
    batches: Vec<RecordBatch>,
    bytes: usize,
    /// The file's length so far, in bytes.
    at: u64,
    rows: u64,
    stripes: Vec<Message>,
    /// The encoded statistics of each stripe.
    by_stripe: Vec<Message>,
    /// The statistics of the whole file, by type id.
    statistics: Vec<Statistics>,
}

impl Encoder {
    /// Writes the header of a file.
    pub fn new(codec: Codec, fields: &[Field], mut to: Written) -> io::Result<Self> {
        let (root, types) = Node::root(fields);
        to.write_all(MAGIC)?;
        Ok(Self {
            codec,
            to,
            root,
            batches: Vec::new(),
            bytes: 0,
            at: MAGIC.len() as u64,
            rows: 0,
            stripes: Vec::new(),
            by_stripe: Vec::new(),
            statistics: vec![Statistics::default(); types],
        })
    }

    /// Adds a batch. Writes a stripe once enough bytes are buffered.
    pub fn write(&mut self, batch: RecordBatch) -> io::Result<()> {
        self.bytes += batch.get_array_memory_size();
        self.batches.push(batch);
        if self.bytes >= GROUP_BYTES { self.flush() } else { Ok(()) }
    }

    /// Writes the buffered batches as a stripe. Does nothing if there are no rows.
    fn flush(&mut self) -> io::Result<()> {
        let batches = std::mem::take(&mut self.batches);
        self.bytes = 0;
        let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
        if rows == 0 {
            return Ok(());
        }
        let mut stripe = Stripe::new(self.codec, BLOCK_BYTES, self.statistics.len());
        stripe.encode(&self.root, &batches)?;
        drop(batches);
        let footer = stripe.footer(&self.root);
        let mut packed = Vec::new();
        self.codec.compress(&footer.0, BLOCK_BYTES, &mut packed)?;
        self.to.write_all(&stripe.bytes)?;
        self.to.write_all(&packed)?;
        let mut place = Message::default();
        let numbers = [self.at, 0, stripe.bytes.len() as u64, packed.len() as u64, rows as u64];
        for (field, number) in (1..).zip(numbers) {
            place.number(field, number);
        }
        self.stripes.push(place);
        self.at += (stripe.bytes.len() + packed.len()) as u64;
        self.rows += rows as u64;
        let mut columns = Message::default();
        for (all, own) in self.statistics.iter_mut().zip(&stripe.statistics) {
            all.add(own);
            columns.bytes(1, &own.message().0);
        }
        self.by_stripe.push(columns);
        Ok(())
    }

    /// Writes the last stripe and the footer.
    pub fn finish(mut self) -> io::Result<()> {
        self.flush()?;
        let mut metadata = Message::default();
        self.by_stripe.iter().for_each(|columns| metadata.bytes(1, &columns.0));
        let mut footer = Message::default();
        footer.number(1, MAGIC.len() as u64);
        footer.number(2, self.at - MAGIC.len() as u64);
        self.stripes.iter().for_each(|stripe| footer.bytes(3, &stripe.0));
        self.root.types(&mut |node| footer.bytes(4, &node.message().0));
        footer.number(6, self.rows);
        self.statistics.iter().for_each(|own| footer.bytes(7, &own.message().0));
        // A row index stride of 0: the file has no row indexes.
        footer.number(8, 0);
        footer.number(9, WRITER);
        footer.number(11, PROLEPTIC_GREGORIAN);
        let (mut packed, mut end) = (Vec::new(), Vec::new());
        self.codec.compress(&metadata.0, BLOCK_BYTES, &mut packed)?;
        self.codec.compress(&footer.0, BLOCK_BYTES, &mut end)?;
        let mut script = Message::default();
        script.number(1, end.len() as u64);
        script.number(2, self.codec.number());
        script.number(3, BLOCK_BYTES as u64);
        script.bytes(4, &VERSION);
        script.number(5, packed.len() as u64);
        script.number(6, WRITER);
        script.bytes(8000, MAGIC);
        let length = script.0.len() as u8;
        for bytes in [&packed, &end, &script.0, &vec![length]] {
            self.to.write_all(bytes)?;
        }
        Ok(())
    }
}

/// The ORC type for a SQL type, and the SQL type's name for Spark's attribute, which intervals,
/// TIMESTAMP and TIMESTAMP_NTZ have.
pub fn kind_of(data_type: &DataType) -> (Kind, Option<String>) {
    let spark = || Some(data_type.to_string().to_ascii_lowercase());
    match data_type {
        DataType::Null | DataType::Boolean => (Kind::Boolean, None),
        DataType::Byte => (Kind::Byte, None),
        DataType::Short => (Kind::Short, None),
        DataType::Int => (Kind::Int, None),
        DataType::Long => (Kind::Long, None),
        DataType::Float => (Kind::Float, None),
        DataType::Double => (Kind::Double, None),
        DataType::Decimal(..) => (Kind::Decimal, None),
        DataType::String => (Kind::String, None),
        DataType::Binary | DataType::Variant | DataType::CalendarInterval => (Kind::Binary, None),
        DataType::Date => (Kind::Date, None),
        DataType::Timestamp => (Kind::Timestamp, spark()),
        DataType::TimestampNtz | DataType::DayTimeInterval(..) | DataType::Time(_) => {
            (Kind::Long, spark())
        }
        DataType::YearMonthInterval(..) => (Kind::Int, spark()),
        DataType::Array(_) => (Kind::List, None),
        DataType::Map(..) => (Kind::Map, None),
        DataType::Struct(_) => (Kind::Struct, None),
    }
}
