//! Millstream: queries over unbounded input that process one record at a time, for programs that
//! need low latency.
//!
//! * [`stream`]: typed streams for services; all types are checked at compile time.
#![cfg_attr(feature = "sql", doc = "* [`table`]: rows, schemas, expressions and SQL.")]
#![cfg_attr(feature = "sql", doc = "* [`connect`]: sources and sinks.")]
#![cfg_attr(
    feature = "sql",
    doc = "* [`session`]: DataFrames, where tables are named and queries are started."
)]
//!
//! A service that pushes records in and reads results starts at [`stream`] and its
//! [`Flow`](stream::Flow): threads use [`Input`](stream::Input) and [`Output`](stream::Output);
//! async services use a `Sink` and a `Stream`, with the feature `futures`.
//!
//! | feature | what it adds |
//! |---|---|
//! | `sql` (default) | tables, expressions, SQL, the connectors and sessions |
//! | `compression` | compressed text, CSV and JSON files; implies `sql` |
//! | `columnar` | Parquet and ORC files; implies `sql` |
//! | `kafka` | the Kafka source and sink; implies `sql` |
//! | `kafka-tls` | TLS and SCRAM for Kafka, with the OpenSSL of the system; implies `kafka` |
//! | `protobuf` | the functions `from_protobuf` and `to_protobuf`; implies `sql` |
//! | `schema-registry` | `from_avro` and `to_avro` with a schema registry over HTTP; implies `sql` |
//! | `schema-registry-tls` | the same over https; implies `schema-registry` |
//! | `futures` | a channel's input as a `Sink` and an output as a `Stream` |
//!
//! The runtime is [`engine`], the crate `millstream_engine`. [`Config`], [`Trigger`] and
//! [`WaitProfile`] are re-exported from it, and so are the types of reports ([`CommittedEpoch`],
//! [`Percentiles`], [`Stall`]).

#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "sql")]
pub mod connect;
pub(crate) mod event_time;
// Public so that users can name the types that a query returns.
#[cfg(feature = "sql")]
#[warn(unnameable_types)]
pub mod session;
pub(crate) mod state;
#[warn(unnameable_types)]
pub mod stream;
#[cfg(feature = "sql")]
pub mod table;

pub use millstream_engine as engine;
pub use millstream_engine::checkpoint::offset::Offset;
pub use millstream_engine::epoch::committed_epoch::CommittedEpoch;
pub use millstream_engine::epoch::event_time::EventTimeStats;
pub use millstream_engine::epoch::trigger::Trigger;
pub use millstream_engine::error::EngineError;
pub use millstream_engine::measure::latency::Percentiles;
pub use millstream_engine::measure::operator_state::{
    JoinInput, JoinState, OperatorState, WaitedInput,
};
pub use millstream_engine::measure::stall::{Stall, StallCause};
pub use millstream_engine::runtime::job::Config;
pub use millstream_engine::runtime::worker::WaitProfile;

/// The example of the front page of the crate must compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
