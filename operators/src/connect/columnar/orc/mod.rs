//! Apache ORC: its reader and its writer.
//!
//! Both are implemented here. The crate `orc-rust` has no limits on memory: it decompresses blocks
//! of any size and allocates what lengths in a file declare, so a small file can exhaust memory. It
//! reads timestamps as the writer's local time, which loses instants where a clock is turned back.
//! It hides Spark's type attributes and the file's calendar, and panics on damaged files. Its
//! writer supports neither decimals nor nested types.
//!
//! Not supported: brotli, encrypted columns and UNION. Written files have statistics per stripe and
//! per file, but no row indexes.

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
