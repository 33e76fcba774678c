//! Text forms of values (CSV, JSON, XML and numbers), regular expressions, sentences, and text that is
//! not valid UTF-8.

pub mod csv;
pub mod java_double;
pub mod json;
pub mod notation;
pub mod number;
pub mod regexp;
pub mod sentences;
pub mod utf8;
pub mod xml;
