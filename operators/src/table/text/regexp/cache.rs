//! A cache of compiled patterns, for patterns that are not constant.

use std::cell::RefCell;
use std::collections::HashMap;

/// The capacity of the cache. When the cache is full, all entries are dropped: a column with more
/// distinct patterns gains little from a cache.
const KEPT: usize = 64;

/// Compiled patterns by their text, at most `KEPT` of them.
#[derive(Debug)]
pub struct PatternCache<T>(RefCell<HashMap<String, T>>);

impl<T> Default for PatternCache<T> {
    fn default() -> Self {
        Self(RefCell::new(HashMap::new()))
    }
}

impl<T> PatternCache<T> {
    /// Calls `then` with the compiled form of a pattern. If the pattern is not cached, `make`
    /// compiles it.
    pub fn with<R>(
        &self,
        pattern: &str,
        make: impl FnOnce(&str) -> T,
        then: impl FnOnce(&T) -> R,
    ) -> R {
        let mut kept = self.0.borrow_mut();
        if let Some(made) = kept.get(pattern) {
            return then(made);
        }
        if kept.len() >= KEPT {
            kept.clear();
        }
        then(kept.entry(pattern.to_string()).or_insert(make(pattern)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cached_pattern_is_compiled_once() {
        let cache = PatternCache::default();
        let made = std::cell::Cell::new(0);
        let length = |pattern: &str| {
            made.set(made.get() + 1);
            pattern.len()
        };
        assert_eq!(cache.with("abc", length, |n| *n), 3);
        assert_eq!(cache.with("abc", length, |n| *n), 3);
        assert_eq!(made.get(), 1);
        for i in 0..KEPT {
            cache.with(&format!("p{i}"), length, |_| ());
        }
        assert!(cache.0.borrow().len() <= KEPT);
    }
}
