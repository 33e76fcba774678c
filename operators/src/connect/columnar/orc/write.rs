//! Rows encoded as an ORC file.

use crate::connect::columnar::write::{GROUP_BYTES, Written, other};
use crate::connect::options::OptionReader;
use crate::table::error::PlanResult;
use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use orc_rust::arrow_writer::ArrowWriterBuilder;
use orc_rust::compression::CompressionType;
use std::io;

/// Bytes of rows that are held before a file is ended and another one begun.
const HELD_BYTES: usize = 64 << 20;

/// How streams are compressed.
pub type Codec = Option<CompressionType>;

/// Reads `compression`: the codec, and how the names of files call it.
pub fn codec(reader: &mut OptionReader<'_>) -> PlanResult<(Codec, &'static str)> {
    let words = ["zstd", "none", "uncompressed", "snappy", "zlib", "lz4"];
    Ok(match reader.choice("compression", &words)? {
        "zstd" => (Some(CompressionType::Zstd), "zstd"),
        "snappy" => (Some(CompressionType::Snappy), "snappy"),
        "zlib" => (Some(CompressionType::Zlib), "zlib"),
        "lz4" => (Some(CompressionType::Lz4), "lz4"),
        _ => (None, ""),
    })
}

/// Encodes batches of rows. The crate's writer cannot move to another thread: it is made when the
/// file ends, and the batches are held until then.
pub struct Encoder {
    batches: Vec<RecordBatch>,
    bytes: usize,
    codec: Codec,
    schema: SchemaRef,
    to: Written,
}

impl Encoder {
    /// Begins a file.
    pub fn new(codec: Codec, schema: SchemaRef, to: Written) -> Self {
        Self { batches: Vec::new(), bytes: 0, codec, schema, to }
    }

    /// Takes rows in.
    pub fn write(&mut self, batch: RecordBatch) -> io::Result<()> {
        self.bytes += batch.get_array_memory_size();
        self.batches.push(batch);
        Ok(())
    }

    /// Whether it holds so much that the file should end.
    pub fn is_full(&self) -> bool {
        self.bytes >= HELD_BYTES
    }

    /// Ends the file.
    pub fn finish(self) -> io::Result<()> {
        let mut builder =
            ArrowWriterBuilder::new(self.to, self.schema).with_stripe_byte_size(GROUP_BYTES);
        if let Some(codec) = self.codec {
            builder = builder.with_compression(codec);
        }
        let mut writer = builder.try_build().map_err(other)?;
        self.batches.iter().try_for_each(|batch| writer.write(batch)).map_err(other)?;
        writer.close().map_err(other)
    }
}
