//! Small programs, each of which shows one feature. Each checks its own result and fails if it is
//! wrong.
//!
//! | program | what it shows |
//! |---|---|
//! | `embed` | a query inside a service: requests in, answers out |
//! | `window` | counts in windows of event time, with a watermark |
//! | `join_with_table` | each row of a stream joined with a row of a table |
//! | `processor_timers` | a user-defined operator with state and timers for each key |
//! | `checkpoint_restart` | a query that continues where it ended |
//! | `data_frame` | a query built from methods instead of SQL |
//! | `foreach_batch_sqlite` | batches written to a database exactly once, also after a failure |
//! | `latency` | the latency of each record, and why the slowest were slow |
//!
//! Run one with `cargo run -p millstream-examples --example window`. `examples/tokio` is a separate
//! package: an async service around a query.

/// The pages of the book whose code must compile and run.
#[cfg(doctest)]
mod book {
    #[doc = include_str!("../docs/src/embedding.md")]
    struct Embedding;
}
