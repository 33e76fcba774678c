//! Micro-benchmarks of Millstream (see `benches/`), and the jobs that are measured in several places.

pub mod throughput;
