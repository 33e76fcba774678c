//! Micro-benchmarks of Millstream (see `benches/`), and jobs that several measurements share.

pub mod throughput;
