//! CSV as Spark reads and writes it.
//!
//! [`Parser`] finds the record at the start of a text and splits it into fields, by the rules of
//! Spark's parser. The same parser finds the records of files whose records span lines, so framing
//! and reading always agree on the end of a record. [`RecordReader`] turns records into rows,
//! [`Inference`] infers a schema, and [`WriteOptions`] writes fields.

mod dialect;
mod inference;
mod long_separator;
mod options;
mod parser;
mod plain;
mod quoted_field;
mod record;
mod values;
mod write;

#[cfg(test)]
mod tests;

pub use crate::table::text::csv::inference::Inference;
pub use dialect::{Dialect, LineEnd, UnescapedQuote};
pub use options::{Get, ReadOptions};
pub use parser::{FieldText, Parsed, Parser, Stop};
pub use record::{Column, Fault, RecordReader};
pub use values::Values;
pub(in crate::table::text) use values::{decimal, java_double, long};
pub use write::WriteOptions;
