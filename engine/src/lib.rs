//! The Millstream runtime: pinned workers that run tasklets, joined by lock-free rings, with
//! epoch markers that travel among the records.
//!
//! It knows nothing of rows, SQL, files or what sockets carry; those live in `millstream`.
//! Start at [`job::Job`] (what is run), [`tasklet`] (what a worker steps), [`stage`] (what a
//! record is pushed through), [`driver`] (who decides the epochs) and [`checkpoint`] (what
//! survives).

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
