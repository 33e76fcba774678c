//! Micro-benchmarks of Millstream; see `benches/`.
