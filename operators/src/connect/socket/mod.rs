//! Sockets: reads lines over TCP, Unix sockets and UDP, and writes lines over TCP.
//!
//! | module | content |
//! |---|---|
//! | [`options`], [`open`] | the options of the source, and how they open it |
//! | [`source`] | the source: its read loop, and the emission of records |
//! | [`connection`] | a connection and its unfinished line |
//! | [`connection_set`] | all open connections of a source, and which of them are readable |
//! | [`listener`], [`transport`] | TCP and Unix listeners and their streams |
//! | [`connector`] | connects to a sender, with back-off |
//! | [`udp`] | datagrams |
//! | [`framing`] | the end of a record, and the buffer of complete records |
//! | [`durable_log`] | the capture log of a durable source |
//! | [`connection_counts`] | counters of accepted, refused and closed connections |
//! | [`sink`] | the sink |

pub mod connection;
pub mod connection_counts;
pub mod connection_set;
pub mod connector;
pub mod durable_log;
pub mod framing;
pub mod listener;
pub mod open;
pub mod options;
pub(in crate::connect::socket) mod recorder;
pub mod sink;
pub mod source;
pub mod transport;
pub mod udp;
