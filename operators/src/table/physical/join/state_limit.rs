//! Limits the size of the rows that a join of two streams buffers.
//!
//! While one side has no records, the watermark does not advance, and the rows of the other side
//! accumulate. When the buffered rows reach the limit, the query fails if the limit is set to fail
//! or if no rows ever expire. Otherwise the side whose watermark is ahead, if any, is paused: its
//! sources stop reading, but its markers still pass. The other side continues. When the watermark
//! of the other side advances, buffered rows expire, and the paused side resumes.
//!
//! *Threads.* Each instance of the join can pause a side, and the side's outboxes check whether any
//! instance pauses it. Instances and outboxes share only counters and watermarks, which do not
//! order any other memory access.

use super::side::JoinSide;
use crate::state::state_limit::share;
use millstream_engine::error::EngineError;
use millstream_engine::event::{IDLE, is_idle};
use millstream_engine::runtime::job::{AtStateLimit, StateLimit};
use millstream_engine::sync::waker::Waker;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

/// A side resumes at the latest once `1 / SLACK` of the limit is free.
const SLACK: u64 = 8;

/// The flow control of one side of a join, shared by the side's outboxes and the join's instances.
pub(in super::super) struct SideFlow {
    /// The number of instances that currently pause the side.
    holders: AtomicUsize,
    /// The watermark of each outbox.
    watermarks_us: Vec<AtomicI64>,
    /// The largest watermark of any outbox.
    furthest_us: AtomicI64,
    /// The wakers of the workers on which the outboxes run.
    wakers: Vec<Waker>,
}

impl SideFlow {
    /// Creates the flow control of a side. There is one outbox for each of `wakers`.
    pub fn new(wakers: Vec<Waker>) -> Arc<Self> {
        let watermarks_us = wakers.iter().map(|_| AtomicI64::new(i64::MIN)).collect();
        let furthest_us = AtomicI64::new(i64::MIN);
        Arc::new(Self { holders: AtomicUsize::new(0), watermarks_us, furthest_us, wakers })
    }

    /// Whether the side is paused, so that its outboxes accept no rows.
    #[inline]
    pub fn is_held(&self) -> bool {
        // ORDERING: relaxed, because an old value does no harm: the outbox sends a few more rows,
        // or waits until it is woken after the change.
        self.holders.load(Ordering::Relaxed) > 0
    }

    /// Records the watermark that an outbox has forwarded.
    pub fn set_watermark(&self, outbox: usize, us: i64) {
        // ORDERING: relaxed, because the watermark is only compared and orders no other memory
        // access.
        self.watermarks_us[outbox].store(us, Ordering::Relaxed);
        if !is_idle(us) {
            self.furthest_us.fetch_max(us, Ordering::Relaxed);
        }
    }

    /// The smallest watermark of the outboxes. Idle outboxes are ignored; if all are, the largest
    /// counts, unless the side is idle.
    fn watermark_us(&self) -> i64 {
        // ORDERING: relaxed, because the watermark is only compared and orders no other memory
        // access.
        let all = self.watermarks_us.iter().map(|us| us.load(Ordering::Relaxed));
        if all.clone().all(|us| us == IDLE) {
            return i64::MAX;
        }
        let furthest_us = || self.furthest_us.load(Ordering::Relaxed);
        all.filter(|us| !is_idle(*us)).min().unwrap_or_else(furthest_us)
    }

    fn hold(&self) {
        // ORDERING: relaxed, because an outbox that misses the change only sends a few more rows.
        self.holders.fetch_add(1, Ordering::Relaxed);
    }

    fn go_on(&self) {
        // ORDERING: relaxed, because the wake-up orders this change before the worker's next
        // `is_held`.
        if self.holders.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.wakers.iter().for_each(Waker::wake);
        }
    }
}

/// Pauses a side or fails when the buffered rows of an instance reach its share of the limit.
pub(in super::super) struct StateGuard {
    /// The instance's share of the limit, in bytes.
    bytes: u64,
    then: AtStateLimit,
    flows: [Arc<SideFlow>; 2],
    held: Option<JoinSide>,
    /// Whether the query runs in continuous mode, in which an idle side can be ignored.
    is_continuous: bool,
}

impl StateGuard {
    /// Creates the guard of one of `instances` instances, which share the limit equally.
    pub fn new(limit: StateLimit, instances: usize, flows: [Arc<SideFlow>; 2]) -> Self {
        let bytes = share(limit.bytes, instances);
        Self { bytes, then: limit.then, flows, held: None, is_continuous: true }
    }

    /// Sets whether the query runs in continuous mode, which decides how the error advises.
    pub fn continuous(mut self, is_continuous: bool) -> Self {
        self.is_continuous = is_continuous;
        self
    }

    /// Whether this instance pauses a side.
    pub fn is_held(&self, side: JoinSide) -> bool {
        self.held == Some(side)
    }

    /// Pauses or resumes a side, depending on the watermarks and on `all`, the memory of the buffered
    /// rows in bytes.
    /// `expires` tells for each side whether its rows ever expire. Reaching the limit is an error
    /// if the limit is set to fail, or if no rows expire.
    #[inline]
    pub fn check(&mut self, all: u64, expires: [bool; 2]) -> Result<(), EngineError> {
        if all < self.bytes && self.held.is_none() {
            return Ok(());
        }
        self.check_full(all, expires)
    }

    #[cold]
    fn check_full(&mut self, all: u64, expires: [bool; 2]) -> Result<(), EngineError> {
        let watermarks_us = [0, 1].map(|side: usize| self.flows[side].watermark_us());
        let ahead = match watermarks_us[0].cmp(&watermarks_us[1]) {
            std::cmp::Ordering::Less => Some(JoinSide::Right),
            std::cmp::Ordering::Greater => Some(JoinSide::Left),
            std::cmp::Ordering::Equal => None,
        };
        let is_full = all >= self.bytes;
        if is_full && (self.then == AtStateLimit::Fail || expires == [false; 2]) {
            return Err(self.full(all, ahead, expires));
        }
        // A paused side resumes when enough of the limit is free, or when it is not ahead of the
        // other side.
        let is_tight = all > self.bytes - self.bytes / SLACK;
        let wanted = ahead.filter(|side| is_full || is_tight && self.held == Some(*side));
        if wanted != self.held {
            if let Some(side) = wanted {
                self.flows[side.index()].hold();
            }
            if let Some(side) = std::mem::replace(&mut self.held, wanted) {
                self.flows[side.index()].go_on();
            }
        }
        Ok(())
    }

    fn full(&self, all: u64, ahead: Option<JoinSide>, expires: [bool; 2]) -> EngineError {
        let waits = match ahead {
            Some(side) => format!(", and waits for the {} side", side.other().name()),
            None => String::new(),
        };
        let fix = match (expires, self.is_continuous) {
            ([false, false], _) => {
                "Let rows expire: declare watermarks on both sides, and add a range between their \
                times to ON. Or raise millstream.join.maxStateBytes"
            }
            (_, true) => {
                "Raise millstream.join.maxStateBytes, or set millstream.idleTimeout to continue \
                without a silent side"
            }
            (_, false) => {
                "Raise millstream.join.maxStateBytes. If one side is silent, SET \
                spark.sql.streaming.multipleWatermarkPolicy = max, so that the other side alone \
                advances the watermark, or use continuous mode with millstream.idleTimeout, which \
                has no effect in micro-batch mode. Rows of the silent side may then be late"
            }
        };
        let limit = self.bytes;
        EngineError::operator(
            "JOIN_STATE_LIMIT_EXCEEDED",
            format!("a join buffers {all} bytes, and its share of the limit is {limit}{waits}"),
            fix,
        )
    }
}

impl Drop for StateGuard {
    fn drop(&mut self) {
        if let Some(side) = self.held {
            self.flows[side.index()].go_on();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(then: AtStateLimit) -> (StateGuard, [Arc<SideFlow>; 2]) {
        let flows = [0, 1].map(|_| SideFlow::new(vec![Waker::noop()]));
        (StateGuard::new(StateLimit { bytes: 1600, then }, 2, flows.clone()), flows)
    }

    #[test]
    fn the_side_that_is_ahead_waits_while_the_state_is_at_the_limit() {
        let (mut guard, flows) = guard(AtStateLimit::Hold);
        let mut at = |left_us, right_us, bytes| {
            flows[0].set_watermark(0, left_us);
            flows[1].set_watermark(0, right_us);
            guard.check(bytes, [true; 2]).unwrap();
            [flows[0].is_held(), flows[1].is_held()]
        };
        assert_eq!(at(100, i64::MIN, 799), [false, false]);
        assert_eq!(at(100, i64::MIN, 800), [true, false], "the right side has said nothing yet");
        assert_eq!(at(100, 50, 750), [true, false], "a little room is not enough");
        assert_eq!(at(100, 100, 900), [false, false], "neither is ahead");
        assert_eq!(at(100, 101, 900), [false, true], "the one that is behind always goes on");
        assert_eq!(at(101, 102, 600), [false, false]);
        assert_eq!(at(100, IDLE, 900), [false, true], "an idle side is not waited for");
        drop(guard);
        assert!(!flows[1].is_held());
    }

    #[test]
    fn a_limit_may_end_the_query() {
        let (mut fails, _) = guard(AtStateLimit::Fail);
        assert!(fails.check(799, [true; 2]).is_ok());
        let error = fails.check(800, [true; 2]).unwrap_err();
        assert_eq!(error.condition(), "JOIN_STATE_LIMIT_EXCEEDED");
        // If no row ever expires, pausing a side would never free memory.
        let (mut holds, _) = guard(AtStateLimit::Hold);
        assert!(holds.check(800, [false; 2]).is_err());
    }
}
