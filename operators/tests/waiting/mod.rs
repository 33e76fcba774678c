//! Waiting for a condition that another thread causes.

use std::time::{Duration, Instant};

/// Waits until a condition holds. Fails after a minute, with the state then.
pub fn until<S: std::fmt::Debug>(what: &str, state: impl Fn() -> S, holds: impl Fn(&S) -> bool) {
    let begun = Instant::now();
    loop {
        let now = state();
        if holds(&now) {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "never came: {what}; {now:?}");
        std::thread::yield_now();
    }
}
