//! Prepared patterns of a column: a pattern that comes again is not prepared again.

use std::cell::RefCell;
use std::collections::HashMap;

/// Patterns that are kept. When there are more, all are dropped: a column with so many patterns
/// gains little from a cache.
const KEPT: usize = 64;

/// What was made of the patterns seen last, at most `KEPT` of them.
#[derive(Debug)]
pub struct PatternCache<T>(RefCell<HashMap<String, T>>);

impl<T> Default for PatternCache<T> {
    fn default() -> Self {
        Self(RefCell::new(HashMap::new()))
    }
}

impl<T> PatternCache<T> {
    /// Calls a function with what is made of a pattern.
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
    fn a_pattern_is_made_once_while_it_is_kept() {
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
