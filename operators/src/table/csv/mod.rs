//! CSV as Spark reads and writes it.
//!
//! [`Parser`] finds the record at the start of a text and its fields, by the rules of Spark's
//! parser. Files whose records span lines are framed by the same parser, so that framing and
//! reading cannot disagree about where a record ends.

mod dialect;
mod many;
mod parser;

pub use dialect::{Dialect, LineEnd, UnescapedQuote};
pub use parser::{FieldText, Parsed, Parser, Stop};
