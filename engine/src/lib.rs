//! The Millstream runtime: worker threads run tasklets that are joined by lock-free rings. Epoch
//! markers travel through the rings among the records.
//!
//! The runtime knows nothing of rows, SQL and connectors. The crate `millstream` implements them.
//! Start at [`Job`](runtime::job::Job), a query that is ready to run.
//!
//! | module | |
//! |---|---|
//! | [`runtime`] | jobs, workers, the [`tasklet`](runtime::tasklet) that a worker steps, the [`stage`](runtime::stage) that a record is pushed through, exchanges |
//! | [`epoch`] | the [`driver`](epoch::driver) that decides the epochs, and [`event_time`](epoch::event_time) over epochs |
//! | [`checkpoint`] | what a restart resumes from: logs of offsets and commits, state files, key groups |
//! | [`capture`] | recorded bytes of sockets: the file format, its reader and writer |
//! | [`measure`] | latency, why the slowest records were slow, metrics of operators |
//! | [`sync`] | the ring, the queue of many producers, wake-ups |
//! | [`collections`] | a hash table that grows in bounded steps, buffers that shrink after a burst |
//! | [`cores`] | the cores of the machine, and the assignment of workers to them |
//! | [`env`](mod@env) | the environment: threads, clock, storage, randomness; real and simulated |

pub mod capture;
pub mod checkpoint;
pub mod collections;
pub mod cores;
pub mod env;
pub mod epoch;
pub mod error;
pub mod event;
pub mod measure;
pub mod runtime;
pub mod sync;

pub use mio;
