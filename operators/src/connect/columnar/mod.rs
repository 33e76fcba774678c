//! Parquet and ORC: reads and writes rows of columnar files. Parquet is implemented by the crate
//! `parquet`.

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

/// How files of a format are read.
#[derive(Clone, Copy, Debug)]
pub enum ReadOptions {
    /// Apache Parquet.
    Parquet(parquet::options::ReadOptions),
    /// Apache ORC.
    Orc,
}

impl ReadOptions {
    /// The options of a format where none is given.
    pub fn of(format: ColumnFormat) -> Self {
        match format {
            ColumnFormat::Parquet => Self::Parquet(parquet::options::ReadOptions::default()),
            ColumnFormat::Orc => Self::Orc,
        }
    }

    /// Reads the options of a source.
    pub fn read(format: ColumnFormat, reader: &mut OptionReader<'_>) -> PlanResult<Self> {
        Ok(match format {
            ColumnFormat::Parquet => Self::Parquet(parquet::options::ReadOptions::read(reader)?),
            ColumnFormat::Orc => Self::Orc,
        })
    }
}

/// A format that keeps columns together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnFormat {
    /// Apache Parquet.
    Parquet,
    /// Apache ORC.
    Orc,
}

impl ColumnFormat {
    /// The format of a name.
    pub fn of(name: &str) -> Option<Self> {
        match name {
            "parquet" => Some(Self::Parquet),
            "orc" => Some(Self::Orc),
            _ => None,
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Parquet => "parquet",
            Self::Orc => "orc",
        }
    }
}
