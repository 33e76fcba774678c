//! A source that reads an iterator.

use crate::stream::source::batch_buffer::BatchBuffer;
use millstream_engine::checkpoint::offset::Offset;
use millstream_engine::epoch::protocol::{EndOffset, ReadLimit};
use millstream_engine::error::EngineError;
use millstream_engine::runtime::stage::Push;
use millstream_engine::runtime::tasklet::{Polled, Source, StepCx};

/// Maximum number of records of a micro-batch, which are buffered until it runs.
const BATCH: usize = 4096;

/// Emits the items of an iterator. Its position is the number of emitted items. A restart skips the
/// items of committed epochs, so the iterator must yield the same items again.
pub(in crate::stream) struct IteratorSource<I: Iterator> {
    items: I,
    emitted: u64,
    /// Items emitted in earlier runs.
    resumed: u64,
    exhausted: bool,
    staged: BatchBuffer<I::Item>,
}

impl<I: Iterator> IteratorSource<I> {
    pub fn new(items: I) -> Self {
        Self { items, emitted: 0, resumed: 0, exhausted: false, staged: BatchBuffer::new() }
    }
}

impl<I, D> Source<D> for IteratorSource<I>
where
    I: Iterator + Send,
    I::Item: Send,
    D: Push<I::Item>,
{
    fn name(&self) -> &str {
        "items"
    }

    #[inline]
    fn poll(&mut self, down: &mut D, cx: &mut StepCx<'_>) -> Result<Polled, EngineError> {
        let now_ns = cx.env.now_ns();
        if self.staged.is_running() {
            let counted = (cx.budget, &mut self.emitted);
            return self.staged.poll(down, counted, |item| (item, now_ns));
        }
        let mut taken = 0;
        while taken < cx.budget && down.is_ready() {
            let Some(item) = self.items.next() else {
                self.exhausted = true;
                break;
            };
            down.push(item, now_ns)?;
            taken += 1;
        }
        self.emitted += taken as u64;
        Ok(if self.exhausted && taken == 0 { Polled::Exhausted } else { Polled::Emitted })
    }

    fn position(&self) -> Offset {
        Offset(self.emitted.to_string())
    }

    fn records_emitted(&self) -> u64 {
        self.emitted - self.resumed
    }

    fn resume(&mut self, at: &Offset) -> Result<(), EngineError> {
        let number = at.number()?;
        for passed in 0..number {
            if self.items.next().is_none() {
                return Err(EngineError::operator(
                    "INVALID_OFFSET",
                    format!(
                        "the iterator ends after {passed} records, of which {number} were read"
                    ),
                    "The iterator must yield the same records again after a restart",
                ));
            }
        }
        (self.emitted, self.resumed) = (number, number);
        Ok(())
    }

    fn plan(&mut self, _: ReadLimit, _cx: &mut StepCx<'_>) -> Result<EndOffset, EngineError> {
        self.fill(BATCH);
        let end = self.emitted + self.staged.len() as u64;
        Ok(EndOffset {
            end: Offset(end.to_string()),
            has_new: self.staged.len() > 0,
            exhausted: self.exhausted,
            limited: self.staged.len() == BATCH,
        })
    }

    fn set_end_offset(&mut self, end: &Offset) -> Result<(), EngineError> {
        let end = end.number()?;
        // If an earlier run planned the batch, its records are not in the buffer yet.
        let records = end.saturating_sub(self.emitted) as usize;
        self.fill(records);
        self.staged.begin(records);
        Ok(())
    }
}

impl<I: Iterator> IteratorSource<I> {
    fn fill(&mut self, records: usize) {
        while self.staged.len() < records && !self.exhausted {
            match self.items.next() {
                Some(item) => self.staged.add(item),
                None => self.exhausted = true,
            }
        }
    }
}
