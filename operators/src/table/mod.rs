//! Tables: rows with a schema, expressions over them, and queries written as a DataFrame or in
//! Spark SQL. Both build one [logical plan](plan); it is lowered to stages by [`physical`].
//!
//! * [`types`]: data types and schemas. [`row`]: the binary layout. [`value`]: a value outside a
//!   row, at the edges.
//! * [`expr`]: unresolved expressions, their resolution by Spark's rules, and their compilation
//!   to typed closures.

pub mod analyze;
pub mod dataframe;
pub mod error;
pub mod expr;
pub mod physical;
pub mod plan;
pub mod row;
pub mod sql;
pub mod types;
pub mod value;
