//! Fan-out: several branches of a query read the same source. Each row is passed to all branches.
//!
//! The branches run in the source's tasklet, and all borrow the same row. The slowest branch limits
//! the rate: a row is read only when all branches can accept it.

use crate::table::physical::stages::BoxChain;
use crate::table::row::Row;
use millstream_engine::error::EngineError;
use millstream_engine::event::Epoch;
use millstream_engine::runtime::stage::{FlushStatus, Io, LateEmission, Push, Stage};

/// Combines the chains of all branches into one chain. A single branch is returned unchanged.
pub(super) fn fan_out(mut branches: Vec<BoxChain>) -> BoxChain {
    match (branches.pop(), branches.is_empty()) {
        (Some(only), true) => only,
        (last, _) => {
            branches.extend(last);
            Box::new(FanOut { branches, late_emission: LateEmission::default() })
        }
    }
}

struct FanOut {
    branches: Vec<BoxChain>,
    /// Whether a branch has emitted rows of the next epoch, which is not reported yet because
    /// another branch was busy or blocked.
    late_emission: LateEmission,
}

impl FanOut {
    fn each(
        &mut self,
        mut call: impl FnMut(&mut BoxChain) -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        self.branches.iter_mut().try_for_each(&mut call)
    }
}

/// Combines the flush statuses of two branches. If one branch can continue while the other is
/// blocked, the result is `Pending`, so that the caller does not wait for a wake-up. The branch
/// may be blocked by a thread that waits for the other branch.
fn both(one: FlushStatus, other: FlushStatus) -> FlushStatus {
    let working = |status| matches!(status, FlushStatus::NextEpoch | FlushStatus::Pending);
    match (one, other) {
        (FlushStatus::Blocked, work) | (work, FlushStatus::Blocked) if working(work) => {
            FlushStatus::Pending
        }
        (one, other) => one.and(other),
    }
}

impl Stage for FanOut {
    fn attach(&mut self, io: &mut Io<'_>) -> Result<(), EngineError> {
        self.branches.iter_mut().try_for_each(|branch| branch.attach(io))
    }
    fn is_ready(&mut self) -> bool {
        self.branches.iter_mut().all(|branch| branch.is_ready())
    }
    fn watermark(&mut self, micros: i64) -> Result<(), EngineError> {
        self.each(|branch| branch.watermark(micros))
    }
    fn marker(&mut self, epoch: Epoch) -> Result<(), EngineError> {
        self.each(|branch| branch.marker(epoch))
    }
    fn end(&mut self) -> Result<(), EngineError> {
        self.each(|branch| branch.end())
    }
    fn flush(&mut self) -> Result<FlushStatus, EngineError> {
        let mut all = FlushStatus::Flushed;
        for branch in &mut self.branches {
            let status = branch.flush()?;
            if status == FlushStatus::NextEpoch {
                self.late_emission.note();
            }
            all = both(all, status);
        }
        Ok(self.late_emission.combine(all, false, false))
    }
    fn next_timer_ns(&self) -> Option<u64> {
        self.branches.iter().filter_map(|branch| branch.next_timer_ns()).min()
    }
}

impl<'a> Push<Row<'a>> for FanOut {
    #[inline]
    fn push(&mut self, row: Row<'a>, ingest_ns: u64) -> Result<(), EngineError> {
        self.each(|branch| branch.push(row, ingest_ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::physical::row_exchange::BorrowedRows;
    use std::collections::VecDeque;
    use std::sync::{Arc, Mutex};

    /// The calls that a test branch has received, in order.
    type Given = Arc<Mutex<Vec<String>>>;

    /// A branch for tests: `flush` returns the statuses of `says`, one per call.
    struct Branch {
        given: Given,
        ready: bool,
        says: VecDeque<FlushStatus>,
        due_ns: Option<u64>,
    }

    impl Branch {
        fn note(&self, what: &str) -> Result<(), EngineError> {
            self.given.lock().unwrap().push(what.to_string());
            Ok(())
        }
    }

    impl Stage for Branch {
        fn is_ready(&mut self) -> bool {
            self.ready
        }
        fn watermark(&mut self, micros: i64) -> Result<(), EngineError> {
            self.note(&format!("watermark {micros}"))
        }
        fn marker(&mut self, epoch: Epoch) -> Result<(), EngineError> {
            self.note(&format!("marker {epoch}"))
        }
        fn end(&mut self) -> Result<(), EngineError> {
            self.note("end")
        }
        fn flush(&mut self) -> Result<FlushStatus, EngineError> {
            Ok(self.says.pop_front().unwrap_or(FlushStatus::Flushed))
        }
        fn next_timer_ns(&self) -> Option<u64> {
            self.due_ns
        }
    }

    impl<'a> Push<Row<'a>> for Branch {
        fn push(&mut self, row: Row<'a>, ingest_ns: u64) -> Result<(), EngineError> {
            self.note(&format!("{:?} at {ingest_ns}", row.0))
        }
    }

    fn branch(ready: bool, due_ns: Option<u64>, says: &[FlushStatus]) -> (BoxChain, Given) {
        let given = Given::default();
        let says = says.iter().copied().collect();
        (Box::new(Branch { given: given.clone(), ready, says, due_ns }), given)
    }

    #[test]
    fn both_branches_get_all_rows_in_one_order() {
        let ((one, first), (other, second)) = (branch(true, None, &[]), branch(true, Some(7), &[]));
        let mut fork = fan_out(vec![one, other]);
        assert!(fork.is_ready());
        fork.push(Row(&[1, 2]), 5).unwrap();
        fork.watermark(3).unwrap();
        fork.marker(1).unwrap();
        fork.end().unwrap();
        assert_eq!(*first.lock().unwrap(), ["[1, 2] at 5", "watermark 3", "marker 1", "end"]);
        assert_eq!(*first.lock().unwrap(), *second.lock().unwrap());
        assert_eq!(fork.next_timer_ns(), Some(7));
        let behind_exchange = BorrowedRows(fork);
        assert_eq!(behind_exchange.next_timer_ns(), Some(7));
        let BorrowedRows(fork) = behind_exchange;
        let (full, _) = branch(false, None, &[]);
        assert!(!super::fan_out(vec![fork, full]).is_ready(), "the slowest sets the pace");
    }

    #[test]
    fn a_blocked_branch_does_not_block_the_other() {
        use FlushStatus::{Blocked, Buffered, Flushed, NextEpoch, Pending, Waiting};
        for (one, other, expected) in [
            (Flushed, Flushed, Flushed),
            (Buffered, Flushed, Buffered),
            (Flushed, Blocked, Blocked),
            (Buffered, Blocked, Blocked),
            (Pending, Blocked, Pending),
            (Blocked, NextEpoch, Pending),
            (NextEpoch, Buffered, NextEpoch),
            (Pending, NextEpoch, Pending),
            (Waiting, Flushed, Waiting),
            (Waiting, Waiting, Waiting),
            (Buffered, Waiting, Pending),
            (Waiting, NextEpoch, Pending),
            (Waiting, Blocked, Blocked),
        ] {
            let mut fork =
                fan_out(vec![branch(true, None, &[one]).0, branch(true, None, &[other]).0]);
            assert_eq!(fork.flush().unwrap(), expected, "{one:?}, {other:?}");
        }
    }

    /// The driver must be told that rows of the next epoch were emitted before the end of this
    /// epoch.
    #[test]
    fn late_emission_of_one_branch_is_reported_when_the_other_has_finished() {
        use FlushStatus::{Blocked, Flushed, NextEpoch, Pending};
        let (one, _) = branch(true, None, &[NextEpoch, Flushed, Flushed]);
        let (other, _) = branch(true, None, &[Pending, Blocked, Flushed]);
        let mut fork = fan_out(vec![one, other]);
        let said: Vec<_> = (0..4).map(|_| fork.flush().unwrap()).collect();
        assert_eq!(said, [Pending, Blocked, NextEpoch, Flushed]);
    }
}
