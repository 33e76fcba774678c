//! A source that is read by several branches of a query: each row goes to all of them.
//!
//! The branches run in the tasklet of the source. Rows are borrowed, so a row is not copied for a
//! branch. The slowest branch sets the pace: a row is taken when all branches have room for it.

use super::stages::BoxChain;
use crate::table::row::Row;
use millstream_engine::error::EngineError;
use millstream_engine::event::Epoch;
use millstream_engine::stage::{Io, Push, Settled, Stage};

/// One chain that feeds all branches.
pub(super) fn fork(mut branches: Vec<BoxChain>) -> BoxChain {
    match (branches.pop(), branches.is_empty()) {
        (Some(only), true) => only,
        (last, _) => {
            branches.extend(last);
            Box::new(Fork { branches, owes: false })
        }
    }
}

struct Fork {
    branches: Vec<BoxChain>,
    /// A branch has done work of the next epoch, and another one's work kept that from being said.
    owes: bool,
}

impl Fork {
    fn each(
        &mut self,
        mut call: impl FnMut(&mut BoxChain) -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        self.branches.iter_mut().try_for_each(&mut call)
    }
}

/// What is left to do of two branches. Where one of them can go on while the other is blocked, the
/// next step must come without a wake-up: the other may wait for what that step does.
fn both(one: Settled, other: Settled) -> Settled {
    let working = |settled| matches!(settled, Settled::Trailing | Settled::More);
    match (one, other) {
        (Settled::Blocked, work) | (work, Settled::Blocked) if working(work) => Settled::More,
        (one, other) => one.max(other),
    }
}

impl Stage for Fork {
    fn attach(&mut self, io: &mut Io<'_>) -> Result<(), EngineError> {
        self.branches.iter_mut().try_for_each(|branch| branch.attach(io))
    }
    fn ready(&mut self) -> bool {
        self.branches.iter_mut().all(|branch| branch.ready())
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
    fn settle(&mut self) -> Result<Settled, EngineError> {
        let mut all = Settled::Clear;
        for branch in &mut self.branches {
            let settled = branch.settle()?;
            self.owes |= settled == Settled::Trailing;
            all = both(all, settled);
        }
        Ok(Settled::over(all, false, &mut self.owes))
    }
    fn due_ns(&self) -> Option<u64> {
        self.branches.iter().filter_map(|branch| branch.due_ns()).min()
    }
}

impl<'a> Push<Row<'a>> for Fork {
    #[inline]
    fn push(&mut self, row: Row<'a>, ingest_ns: u64) -> Result<(), EngineError> {
        self.each(|branch| branch.push(row, ingest_ns))
    }
}
