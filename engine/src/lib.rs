//! The Millstream runtime: pinned workers run tasklets that are joined by lock-free rings. Epoch
//! markers travel through the rings among the records.
//!
//! The runtime knows nothing of rows, SQL, files or the contents of sockets; those live in the
//! crate `millstream`. Start at [`job::Job`] (what is run), [`tasklet`] (what a worker steps),
//! [`stage`] (what a record is pushed through), [`driver`] (what decides the epochs) and
//! [`checkpoint`] (what a restart resumes from).

pub mod capture;
pub mod checkpoint;
pub mod collections;
pub mod cores;
pub mod env;
pub mod epoch;
pub mod error;
pub mod event;
pub mod high_water;
pub mod measure;
mod reclaim;
pub mod runtime;
pub mod sync;

pub use mio;
