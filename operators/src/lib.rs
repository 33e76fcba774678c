//! Millstream: queries over unbounded input, one record at a time, at latencies that a service
//! can afford.
//!
//! * [`stream`]: typed streams for services; nothing dynamic.
#![cfg_attr(feature = "sql", doc = "* [`table`]: rows, schemas, expressions and SQL.")]
#![cfg_attr(feature = "sql", doc = "* [`connect`]: sources and sinks.")]
#![cfg_attr(
    feature = "sql",
    doc = "* [`session`]: DataFrames, where tables are named and queries are started."
)]
//!
//! The runtime beneath is `millstream_engine`; [`Config`], [`Trigger`] and [`WaitProfile`] come
//! from there.

#[cfg(feature = "sql")]
pub mod connect;
mod due;
mod hold;
mod index;
mod keyed;
mod places;
#[cfg(feature = "sql")]
pub mod session;
pub mod stream;
#[cfg(feature = "sql")]
pub mod table;

pub use millstream_engine::driver::Trigger;
pub use millstream_engine::error::EngineError;
pub use millstream_engine::job::Config;
pub use millstream_engine::worker::WaitProfile;

/// The pages of the book whose code must compile.
#[cfg(doctest)]
mod book {
    #[doc = include_str!("../../docs/src/embedding.md")]
    struct Embedding;
}
