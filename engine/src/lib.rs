//! The Millstream runtime: pinned workers run tasklets that are joined by lock-free rings. Epoch
//! markers travel through the rings among the records.
//!
//! The runtime knows nothing of rows, SQL, files or the contents of sockets; those live in the
//! crate `millstream`. Start at [`job::Job`] (what is run), [`tasklet`] (what a worker steps),
//! [`stage`] (what a record is pushed through), [`driver`] (what decides the epochs) and
//! [`checkpoint`] (what a restart resumes from).

pub mod capture;
pub mod checkpoint;
pub mod cores;
pub mod driver;
pub mod error;
pub mod event;
pub mod event_time;
pub mod exchange;
pub mod high_water;
pub mod job;
pub mod key_group;
pub mod latency;
pub mod mpsc;
pub mod random;
mod reclaim;
pub mod ring;
pub mod seam;
pub mod sim;
pub mod sim_storage;
pub mod split_table;
pub mod stage;
pub mod stall;
pub mod state;
pub mod storage;
mod sync;
pub mod tasklet;
pub mod wake;
pub mod worker;

pub use mio;
