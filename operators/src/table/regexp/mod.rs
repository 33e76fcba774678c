//! Patterns of text.

mod cache;

pub use cache::PatternCache;
