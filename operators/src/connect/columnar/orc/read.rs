//! The columns of an ORC file.

use crate::connect::columnar::read::{BATCH_ROWS, Batches, From, text};
use arrow_schema::SchemaRef;
use orc_rust::arrow_reader::ArrowReaderBuilder;
use orc_rust::projection::ProjectionMask;
use orc_rust::schema::TimestampPrecision;

/// The file's columns, and its rows from an offset on, of the columns that `wants` says.
pub fn open(
    from: From,
    wants: &dyn Fn(&str) -> bool,
    offset: u64,
) -> Result<(SchemaRef, Batches), String> {
    macro_rules! opened {
        ($from:expr) => {{
            let builder = ArrowReaderBuilder::try_new($from).map_err(text)?;
            let builder = builder.with_timestamp_precision(TimestampPrecision::Microsecond);
            let schema = builder.schema();
            let chosen: Vec<String> =
                schema.fields().iter().map(|f| f.name().clone()).filter(|n| wants(n)).collect();
            let root = builder.file_metadata().root_data_type();
            let mask = ProjectionMask::named_roots(root, &chosen);
            let reader = builder.with_projection(mask).with_batch_size(BATCH_ROWS).build();
            let mut skip = offset;
            let rest = reader.filter_map(move |batch| match batch {
                Ok(batch) if skip >= batch.num_rows() as u64 => {
                    skip -= batch.num_rows() as u64;
                    None
                }
                Ok(batch) => {
                    let from = std::mem::take(&mut skip) as usize;
                    Some(Ok(batch.slice(from, batch.num_rows() - from)))
                }
                Err(error) => Some(Err(text(error))),
            });
            (schema, Box::new(rest) as Batches)
        }};
    }
    Ok(match from {
        From::File(file) => opened!(file),
        From::Bytes(bytes) => opened!(bytes),
    })
}
