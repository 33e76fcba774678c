//! Sockets: reads lines over TCP, Unix sockets and UDP, and writes lines over TCP.
//!
//! | module | what it has |
//! |---|---|
//! | [`options`], [`open`] | the options of the source, and how they open it |
//! | [`source`] | the source: a read loop that reads one connection at a time, and what it emits |
//! | [`connection`] | a connection and its unfinished line |
//! | [`connection_set`] | all open connections of a source, and which of them have bytes |
//! | [`listener`], [`transport`] | what waits for clients, and their streams: TCP, Unix |
//! | [`connector`] | a connection of our own to a sender, with back-off |
//! | [`udp`] | datagrams |
//! | [`framing`] | where a record ends, and whole records that wait for the chain |
//! | [`durable_log`] | the capture log of a durable source |
//! | [`connection_counts`] | clients accepted, refused, gone |
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
