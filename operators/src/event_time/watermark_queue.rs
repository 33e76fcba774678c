//! Watermarks that take effect only after the unfinished work of the records before them.
//!
//! The work of a record, such as the search for its matches, may need rows that a later watermark
//! removes. So a watermark waits for this work. It does not wait for the work of records after it:
//! these are not late, and match no row that the watermark removes. Otherwise a constant load of
//! unfinished work would keep every watermark from taking effect, and state would grow for ever.
//! Watermarks that arrive while one waits are combined, and follow it.

use super::pending_watermark::PendingWatermark;
use millstream_engine::error::EngineError;
use millstream_engine::runtime::stage::Stage;

/// The watermark that takes effect next, and the combined watermarks after it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct WatermarkQueue {
    next: PendingWatermark,
    /// The records before `next` have smaller numbers.
    next_number: u64,
    /// Waits for something only while `next` does.
    later: PendingWatermark,
    later_number: u64,
}

impl WatermarkQueue {
    /// Adds a watermark or a mark of idleness. The records before it have numbers below `number`.
    pub fn arrive(&mut self, micros: i64, number: u64) {
        let (pending, of_pending) = match self.next.is_waiting() {
            true => (&mut self.later, &mut self.later_number),
            false => (&mut self.next, &mut self.next_number),
        };
        pending.arrive(micros);
        *of_pending = number;
    }

    /// Adds work of the last watermark: a record arrived that it removes. The work waits for the
    /// records with numbers below `number`: those whose work was unfinished in the checkpoint, for
    /// which the watermark no longer waits after a restart. Watermarks that already wait do this
    /// work too.
    #[cfg(feature = "sql")]
    pub fn repeat(&mut self, micros: i64, number: u64) {
        if self.next.us().is_some() {
            return;
        }
        if !self.next.is_waiting() {
            self.next_number = number;
        }
        self.next.repeat(micros);
    }

    /// Replaces the next watermark by that of a batch, which follows all records of the batch.
    pub fn begin_batch(&mut self, micros: i64) {
        self.next.begin_batch(Some(micros));
        self.next_number = u64::MAX;
    }

    /// The next watermark, if any waits.
    #[inline]
    pub fn us(&self) -> Option<i64> {
        self.next.us()
    }

    /// The records before the next watermark or mark of idleness have numbers below this one.
    #[inline]
    pub fn number(&self) -> u64 {
        self.next_number
    }

    /// Whether a watermark or a mark of idleness waits.
    #[inline]
    pub fn is_waiting(&self) -> bool {
        self.next.is_waiting()
    }

    /// Forgets everything, at the end of the query.
    #[cfg(feature = "sql")]
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Ends the work of the next watermark: passes it on, `lag_us` lower, if watermarks arrive
    /// `in_band`, and then its mark of idleness.
    pub fn pass<D: Stage + ?Sized>(
        &mut self,
        in_band: bool,
        lag_us: i64,
        down: &mut D,
    ) -> Result<(), EngineError> {
        self.next.pass(in_band, lag_us, down)?;
        self.next = std::mem::take(&mut self.later);
        self.next_number = self.later_number;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millstream_engine::event::IDLE;
    use millstream_engine::runtime::stage::FlushStatus;

    /// A stage that collects the watermarks.
    #[derive(Default)]
    struct Watermarks(Vec<i64>);

    impl Stage for Watermarks {
        fn is_ready(&mut self) -> bool {
            true
        }
        fn watermark(&mut self, micros: i64) -> Result<(), EngineError> {
            self.0.push(micros);
            Ok(())
        }
        fn marker(&mut self, _epoch: u64) -> Result<(), EngineError> {
            Ok(())
        }
        fn end(&mut self) -> Result<(), EngineError> {
            Ok(())
        }
        fn flush(&mut self) -> Result<FlushStatus, EngineError> {
            Ok(FlushStatus::Flushed)
        }
        fn next_timer_ns(&self) -> Option<u64> {
            None
        }
    }

    #[test]
    fn a_newer_watermark_does_not_move_the_number_of_the_one_that_waits() {
        let (mut queue, mut down) = (WatermarkQueue::default(), Watermarks::default());
        queue.arrive(10, 3);
        for (us, number) in [(20, 5), (30, 8)] {
            queue.arrive(us, number);
            assert_eq!((queue.us(), queue.number()), (Some(10), 3));
        }
        // A record that has expired on arrival changes nothing while a watermark waits.
        #[cfg(feature = "sql")]
        queue.repeat(30, 1);
        queue.pass(true, 1, &mut down).unwrap();
        assert_eq!((queue.us(), queue.number()), (Some(30), 8));
        queue.arrive(IDLE, 9);
        queue.pass(true, 1, &mut down).unwrap();
        assert!(queue.is_waiting() && queue.us().is_none());
        assert_eq!(queue.number(), 9, "idleness waits for the records before it");
        queue.pass(true, 1, &mut down).unwrap();
        assert!(!queue.is_waiting());
        #[cfg(feature = "sql")]
        {
            queue.repeat(30, 2);
            assert_eq!(
                (queue.us(), queue.number()),
                (Some(30), 2),
                "restored records are waited for"
            );
        }
        assert_eq!(down.0, [9, 29, IDLE]);
    }
}
