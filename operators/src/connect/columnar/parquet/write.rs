//! Rows encoded as a Parquet file.

use crate::connect::columnar::write::{GROUP_BYTES, Written, other};
use crate::connect::options::OptionReader;
use crate::table::error::PlanResult;
use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, GzipLevel, ZstdLevel};
use parquet::file::properties::WriterProperties;
use std::io;

/// How pages are compressed.
pub type Codec = Compression;

/// Reads `compression`: the codec, and how the names of files call it.
pub fn codec(reader: &mut OptionReader<'_>) -> PlanResult<(Codec, &'static str)> {
    let words = ["snappy", "none", "uncompressed", "gzip", "zstd", "lz4_raw"];
    Ok(match reader.choice("compression", &words)? {
        "gzip" => (Compression::GZIP(GzipLevel::default()), "gz"),
        "zstd" => (Compression::ZSTD(ZstdLevel::default()), "zstd"),
        "lz4_raw" => (Compression::LZ4_RAW, "lz4raw"),
        "snappy" => (Compression::SNAPPY, "snappy"),
        _ => (Compression::UNCOMPRESSED, ""),
    })
}

/// Encodes batches of rows.
pub struct Encoder {
    writer: Box<ArrowWriter<Written>>,
}

impl Encoder {
    /// Begins a file.
    pub fn new(codec: Codec, schema: SchemaRef, to: Written) -> io::Result<Self> {
        let properties = WriterProperties::builder()
            .set_compression(codec)
            .set_coerce_types(true)
            .set_created_by("millstream".to_string())
            .build();
        let writer = ArrowWriter::try_new(to, schema, Some(properties)).map_err(other)?;
        Ok(Self { writer: Box::new(writer) })
    }

    /// Takes rows in.
    pub fn write(&mut self, batch: &RecordBatch) -> io::Result<()> {
        self.writer.write(batch).map_err(other)?;
        if self.writer.in_progress_size() > GROUP_BYTES {
            self.writer.flush().map_err(other)?;
        }
        Ok(())
    }

    /// Ends the file.
    pub fn finish(self) -> io::Result<()> {
        self.writer.close().map(drop).map_err(other)
    }
}
