//! CSV as Spark reads and writes it.
//!
//! [`Parser`] finds the record at the start of a text and its fields, by the rules of Spark's
//! parser. Files whose records span lines are framed by the same parser, so that framing and
//! reading cannot disagree about where a record ends. [`RecordReader`] makes rows of records,
//! [`Inference`] a schema, [`WriteOptions`] writes fields.

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
pub use write::WriteOptions;
