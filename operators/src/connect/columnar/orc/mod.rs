//! Apache ORC: its reader and its writer.
//!
//! Both are our own. The crate `orc-rust` cannot be held to limits from outside: it decompresses
//! blocks of any size and reserves what lengths in a file ask for, so a small file ends the
//! process. It reads times as the writer's local time, which loses instants where a clock is
//! turned back, hides the attributes by which Spark marks types and the calendar of the file, and
//! panics on damage. Its writer has no decimals and no nested types.
//!
//! Limits: no brotli, no encrypted columns, no UNION. Written files have no row indexes; they have
//! statistics by stripe and by file.

mod column;
mod footer;
mod protobuf;
pub mod read;
mod rle_decode;
mod rle_encode;
mod schema_evolution;
mod statistics;
pub mod stream;
mod stripe;
pub mod write;

#[cfg(test)]
mod tests;
