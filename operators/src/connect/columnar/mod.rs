//! Readers and writers of the columnar file formats, Parquet and ORC. Parquet uses the crate
//! `parquet`; ORC has a reader and a writer of its own.

mod column;
mod julian_calendar;
mod orc;
mod parquet;
mod read;
mod schema;
mod schema_merge;
mod write;

pub use crate::connect::columnar::schema_merge::merged;
pub use parquet::{
    Inference as ParquetInference, Mode as RebaseMode, ReadOptions as ParquetReadOptions,
};
pub use read::{ColumnInput, NeededColumn, schema_of};
pub use write::{ColumnFile, ColumnSink};

use crate::connect::options::OptionReader;
use crate::table::error::PlanResult;

/// The read options of a columnar format.
#[derive(Clone, Copy, Debug)]
pub enum ReadOptions {
    /// Apache Parquet.
    Parquet(parquet::options::ReadOptions),
    /// Apache ORC.
    Orc,
}

impl ReadOptions {
    /// The default read options of a format.
    pub fn of(format: ColumnFormat) -> Self {
        match format {
            ColumnFormat::Parquet => Self::Parquet(parquet::options::ReadOptions::default()),
            ColumnFormat::Orc => Self::Orc,
        }
    }

    /// Parses the read options from a source's options.
    pub fn read(format: ColumnFormat, reader: &mut OptionReader<'_>) -> PlanResult<Self> {
        Ok(match format {
            ColumnFormat::Parquet => Self::Parquet(parquet::options::ReadOptions::read(reader)?),
            ColumnFormat::Orc => Self::Orc,
        })
    }
}

/// A columnar file format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnFormat {
    /// Apache Parquet.
    Parquet,
    /// Apache ORC.
    Orc,
}

impl ColumnFormat {
    /// Parses a format name. Returns `None` for a name that is not a columnar format.
    pub fn of(name: &str) -> Option<Self> {
        match name {
            "parquet" => Some(Self::Parquet),
            "orc" => Some(Self::Orc),
            _ => None,
        }
    }

    /// The name that SQL and `format(…)` use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Parquet => "parquet",
            Self::Orc => "orc",
        }
    }
}
