//! Sockets: reads lines over TCP, Unix sockets and UDP, and writes lines over TCP.
//!
//! | module | what it has |
//! |---|---|
//! | [`options`], [`opening`] | the options of the source, and how they open it |
//! | [`source`] | the reader: what it has read, emitted |
//! | [`turns`] | its turns: one read at a time, from one connection at a time |
//! | [`connection`] | a connection and the line under way on it |
//! | [`connections`] | all open connections of a source, and which of them have bytes |
//! | [`listener`], [`transport`] | what waits for clients, and their streams: TCP, Unix |
//! | [`dialer`] | a connection of our own to a sender, with back-off |
//! | [`datagrams`] | UDP |
//! | [`framing`], [`line_ends`] | where a record ends, and whole records that wait for the chain |
//! | [`journal`] | the capture log of a durable source |
//! | [`counts`] | clients accepted, refused, gone |
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
pub mod sink;
pub mod source;
pub mod transport;
pub mod udp;
