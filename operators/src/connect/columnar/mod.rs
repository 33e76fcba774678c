//! Parquet and ORC: columns of files into rows and back. Parquet itself is the work of the crate
//! `parquet`.

mod calendar;
mod orc;
mod parquet;
mod read;
mod schema;
mod write;

pub use read::{ColumnInput, schema_of};
pub use write::{ColumnFile, ColumnSink};

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
