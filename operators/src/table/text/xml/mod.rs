//! XML as Spark reads and writes it in SQL functions.
//!
//! [`Events`] is the sequence of start tags, end tags and texts of a document. [`RecordReader`] turns
//! them into rows, [`Inference`] infers a schema, and [`Writer`] writes rows.

mod events;
mod inference;
mod options;
mod record;
mod values;
mod write;

#[cfg(test)]
mod tests;

pub use events::{DEPTH_MAX, Event, Events, Malformed, Tag};
pub use inference::Inference;
pub use options::{ReadOptions, WriteOptions};
pub use record::{RecordReader, Unread};
pub use write::{Unwritable, Writer};
