//! Values as text: CSV, JSON, numbers, regular expressions.

pub mod csv;
pub mod java_double;
pub mod json;
pub mod notation;
pub mod number;
pub mod regexp;
pub mod sentences;
pub mod utf8;
