//! The sources of a query. A stream that several branches read is created once, after all its
//! readers are known.

use super::{Lowering, PART_IDLE_NS, PlacedChain};
use crate::table::physical::fan_out::fan_out;
use crate::table::physical::stages::BoxChain;
use crate::table::plan::Scan;
use millstream_engine::error::EngineError;

/// A source and its readers so far.
pub(super) struct Read {
    scan: Scan,
    /// The columns that at least one reader needs.
    needed: Vec<bool>,
    /// For each partition, its worker and the chains of all readers.
    parts: Vec<(usize, Vec<BoxChain>)>,
}

impl Lowering<'_, '_> {
    /// Registers chains, one per partition, as readers of a source.
    pub(super) fn read(&mut self, scan: &Scan, downs: Vec<PlacedChain>, needed: &[bool]) {
        // Only streams are shared; every reader of a table has its own source.
        let found = match scan.streaming {
            true => self.reads.iter_mut().find(|read| read.scan.shares_source(scan)),
            false => None,
        };
        let Some(read) = found else {
            let parts = downs.into_iter().map(|(worker, down)| (worker, vec![down])).collect();
            return self.reads.push(Read { scan: scan.clone(), needed: needed.to_vec(), parts });
        };
        read.needed.iter_mut().zip(needed).for_each(|(all, needed)| *all |= needed);
        for ((_, branches), (_, down)) in read.parts.iter_mut().zip(downs) {
            branches.push(down);
        }
    }

    /// Creates the tasklets of all sources, each of which feeds all its readers.
    pub(super) fn open_sources(mut self) -> Result<(), EngineError> {
        for Read { scan, needed, parts } in std::mem::take(&mut self.reads) {
            let places: Vec<usize> = parts.iter().map(|(worker, _)| *worker).collect();
            let downs = parts.into_iter().map(|(worker, branches)| (worker, fan_out(branches)));
            let idle_ns = self.job.idle_timeout();
            let is_sooner = places.len() > 1 && idle_ns.is_none_or(|ns| PART_IDLE_NS < ns);
            self.job.set_partition_idle_timeout(is_sooner.then_some(PART_IDLE_NS));
            let tasklets = (self.make_source)(self.job, &scan, &needed, downs.collect())?;
            self.job.set_partition_idle_timeout(None);
            self.job.set_idle_timeout(idle_ns);
            let seats = places.into_iter().zip(tasklets);
            seats.for_each(|(worker, tasklet)| self.job.add_tasklet(worker, tasklet));
        }
        Ok(())
    }
}
