//! The control side of operators that work in bounded steps: what a watermark releases, and what a
//! record has begun and not finished.
//!
//! *Order.* What records have begun is finished before a marker passes, unless watermarks arrive
//! in-band and the checkpoint keeps it. A marker passes before what
//! a watermark releases if watermarks arrive in-band, and behind it in micro-batch mode, where the
//! watermark belongs to the batch. A watermark passes when all that it releases has left.

use crate::event_time::watermark::OperatorWatermark;
use millstream_engine::error::EngineError;
use millstream_engine::event::{Epoch, IDLE};
use millstream_engine::runtime::stage::{FlushStatus, Io, Push, Stage};

/// The work of an operator. `D` is the stage below.
pub(in crate::stream) trait StepWork<D>: Send {
    /// Restores the committed state. Called before the first record.
    fn restore(&mut self) -> Result<(), EngineError>;
    /// Whether no record can be taken before [`finish`](Self::finish) has run.
    fn is_full(&self) -> bool {
        false
    }
    /// Whether records have begun something that is not finished.
    fn is_unfinished(&self) -> bool {
        false
    }
    /// Whether what records have begun may go on behind a marker, because the checkpoint keeps it.
    fn keeps_unfinished(&self) -> bool {
        false
    }
    /// A step of what records have begun. Returns whether all is finished.
    fn finish(&mut self, down: &mut D) -> Result<bool, EngineError> {
        let _ = down;
        Ok(true)
    }
    /// A step of what a watermark releases. Returns whether all was released.
    fn release(&mut self, watermark_us: i64, down: &mut D) -> Result<bool, EngineError>;
    /// Hands the changes of an epoch to the checkpoint.
    fn hand_over(&mut self, epoch: Epoch) -> Result<(), EngineError>;
    /// How far results may be behind the watermark, beyond the records themselves.
    fn lag_us(&self) -> i64 {
        0
    }
}

/// The work that a record causes.
pub(in crate::stream) trait RecordWork<T, D>: StepWork<D> {
    /// Takes a record. Returns whether the watermark that is in force releases something that the
    /// record has added.
    fn record(
        &mut self,
        item: T,
        ingest_ns: u64,
        watermarks: &OperatorWatermark,
        down: &mut D,
    ) -> Result<bool, EngineError>;
}

/// The stage.
pub(in crate::stream) struct Stepped<W, D> {
    work: W,
    watermarks: OperatorWatermark,
    /// A watermark that has not released everything yet.
    passing_us: Option<i64>,
    marker: Option<Epoch>,
    /// Results have left, or will leave, behind a marker, and the driver does not know it yet.
    owes_late_emission: bool,
    down: D,
}

impl<W: StepWork<D>, D: Stage> Stepped<W, D> {
    pub fn new(work: W, watermarks: OperatorWatermark, down: D) -> Self {
        Self { work, watermarks, passing_us: None, marker: None, owes_late_emission: false, down }
    }

    fn go_on(&mut self) -> Result<(), EngineError> {
        let in_band = self.watermarks.is_in_band();
        let finished = !self.work.is_unfinished() || self.work.finish(&mut self.down)?;
        if in_band && (finished || self.work.keeps_unfinished()) {
            self.pass_marker()?;
        }
        if !finished {
            return Ok(());
        }
        if let Some(watermark_us) = self.passing_us {
            if !self.work.release(watermark_us, &mut self.down)? {
                return Ok(());
            }
            self.passing_us = None;
            if in_band {
                self.down.watermark(watermark_us.saturating_sub(self.work.lag_us()))?;
            }
        }
        self.pass_marker()
    }

    fn pass_marker(&mut self) -> Result<(), EngineError> {
        match self.marker.take() {
            Some(epoch) => {
                self.work.hand_over(epoch)?;
                self.down.marker(epoch)
            }
            None => Ok(()),
        }
    }
}

impl<W: StepWork<D>, D: Stage> Stage for Stepped<W, D> {
    fn attach(&mut self, io: &mut Io<'_>) -> Result<(), EngineError> {
        self.work.restore()?;
        self.down.attach(io)
    }
    #[inline]
    fn is_ready(&mut self) -> bool {
        self.marker.is_none() && !self.work.is_full() && self.down.is_ready()
    }
    fn watermark(&mut self, micros: i64) -> Result<(), EngineError> {
        if micros == IDLE {
            return self.down.watermark(IDLE);
        }
        self.watermarks.advance(micros);
        self.passing_us = self.passing_us.max(Some(micros));
        self.go_on()
    }
    fn marker(&mut self, epoch: Epoch) -> Result<(), EngineError> {
        if !self.watermarks.is_in_band() {
            self.passing_us = Some(self.watermarks.watermark_us());
        }
        self.marker = Some(epoch);
        self.go_on()
    }
    fn end(&mut self) -> Result<(), EngineError> {
        self.down.end()
    }
    fn flush(&mut self) -> Result<FlushStatus, EngineError> {
        let works = self.passing_us.is_some() || self.work.is_unfinished();
        if !works && self.marker.is_none() && !self.owes_late_emission {
            return self.down.flush();
        }
        self.owes_late_emission |= works && self.marker.is_none();
        self.go_on()?;
        let below = self.down.flush()?;
        Ok(FlushStatus::combine(below, self.marker.is_some(), &mut self.owes_late_emission))
    }
    #[inline]
    fn next_timer_ns(&self) -> Option<u64> {
        self.down.next_timer_ns()
    }
}

impl<T, W: RecordWork<T, D>, D: Stage> Push<T> for Stepped<W, D> {
    #[inline]
    fn push(&mut self, item: T, ingest_ns: u64) -> Result<(), EngineError> {
        let Self { work, watermarks, down, .. } = self;
        if work.record(item, ingest_ns, watermarks, down)? && watermarks.is_in_band() {
            self.passing_us = self.passing_us.max(Some(self.watermarks.watermark_us()));
        }
        Ok(())
    }
}
