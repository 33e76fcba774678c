//! Tables: rows with a schema, expressions over them, and queries in Spark SQL or as a DataFrame
//! ([`crate::session`]). Both build one [logical plan](plan), which [`physical`] lowers to stages.
//!
//! * [`types`]: data types and schemas. [`row`]: the binary layout. [`value`]: a value outside a
//!   row, at the edges. [`datetime`], [`text`], [`json`]: values as text and JSON.
//!   [`regexp`]: regular expressions. [`sentences`]: sentences and words. [`utf8`]: text that may
//!   be broken.
//! * [`expr`]: unresolved expressions, their resolution by Spark's rules, and their compilation
//!   to typed closures.

pub mod datetime;
pub mod error;
pub mod expr;
pub mod physical;
pub mod plan;
pub mod row;
pub mod sql;
pub mod text;
pub mod types;
pub mod value;
