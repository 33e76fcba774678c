//! The columns of a Parquet file.

use super::claims;
use crate::connect::columnar::read::{BATCH_ROWS, Batches, From, text};
use arrow_schema::SchemaRef;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder,
};

/// The file's columns, and its rows from an offset on, of the columns that `wants` says.
pub fn open(
    from: From,
    wants: &dyn Fn(&str) -> bool,
    offset: u64,
) -> Result<(SchemaRef, Batches), String> {
    // What another program noted of its own types says nothing here.
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    macro_rules! opened {
        ($from:expr) => {{
            let from = $from;
            claims::footer(&from)?;
            let metadata = ArrowReaderMetadata::load(&from, options).map_err(text)?;
            claims::pages(&from, metadata.metadata())?;
            let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(from, metadata);
            let schema = builder.schema().clone();
            let chosen = schema.fields().iter().enumerate().filter(|(_, f)| wants(f.name()));
            let chosen: Vec<usize> = chosen.map(|(i, _)| i).collect();
            let mask = ProjectionMask::roots(builder.parquet_schema(), chosen);
            let builder = builder.with_projection(mask).with_batch_size(BATCH_ROWS);
            let offset = usize::try_from(offset).map_err(text)?;
            let reader = builder.with_offset(offset).build().map_err(text)?;
            (schema, Box::new(reader.map(|batch| batch.map_err(text))) as Batches)
        }};
    }
    Ok(match from {
        From::File(file) => opened!(file),
        From::Bytes(bytes) => opened!(bytes),
    })
}
