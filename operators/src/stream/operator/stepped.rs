//! The control side of operators that work in bounded steps. A record can cause pending work
//! (*unfinished*), and so can a watermark (*release*).
//!
//! *Order.* Pending work of records is finished before a marker is passed on, except when
//! watermarks arrive in-band and the checkpoint stores the work. With in-band watermarks, a marker
//! is passed on before the work of a watermark. In micro-batch mode the watermark belongs to the
//! batch, so its work precedes the marker. The work of a watermark waits for the pending work of
//! the records before it, but not for that of later records. A watermark is passed on when its work
//! is finished.

use crate::event_time::watermark::OperatorWatermark;
use crate::event_time::watermark_queue::WatermarkQueue;
use millstream_engine::error::EngineError;
use millstream_engine::event::{Epoch, is_idle};
use millstream_engine::runtime::stage::{FlushStatus, Io, LateEmission, Push, Stage};

/// The work of an operator. `D` is the chain below.
pub(in crate::stream) trait StepWork<D>: Send {
    /// Restores the committed state. Called before the first record.
    fn restore(&mut self) -> Result<(), EngineError>;
    /// Whether [`finish`](Self::finish) must run before the next record.
    fn is_full(&self) -> bool {
        false
    }
    /// Whether work of earlier records is pending.
    fn is_unfinished(&self) -> bool {
        false
    }
    /// The number of the next record, for work that tells records apart by ascending numbers.
    fn next_number(&self) -> u64 {
        0
    }
    /// Whether work of records with numbers below `number` is pending.
    fn is_unfinished_before(&self, number: u64) -> bool {
        let _ = number;
        self.is_unfinished()
    }
    /// Whether pending work of records may continue after a marker, because the checkpoint stores
    /// it.
    fn keeps_unfinished(&self) -> bool {
        false
    }
    /// Runs a step of the pending work of records. Returns whether all of it is finished.
    fn finish(&mut self, down: &mut D) -> Result<bool, EngineError> {
        let _ = down;
        Ok(true)
    }
    /// Runs a step of the work that a watermark causes. Returns whether all of it is finished.
    fn release(&mut self, watermark_us: i64, down: &mut D) -> Result<bool, EngineError>;
    /// Hands the changes of an epoch to the checkpoint.
    fn hand_over(&mut self, epoch: Epoch) -> Result<(), EngineError>;
    /// How far results may be behind the watermark, in addition to the lag of the records
    /// themselves, in microseconds.
    fn lag_us(&self) -> i64 {
        0
    }
}

/// The work that a record causes.
pub(in crate::stream) trait RecordWork<T, D>: StepWork<D> {
    /// Processes a record.
    fn record(
        &mut self,
        item: T,
        ingest_ns: u64,
        watermarks: &OperatorWatermark,
        down: &mut D,
    ) -> Result<(), EngineError>;
}

/// The stage, which calls the work in steps.
pub(in crate::stream) struct Stepped<W, D> {
    work: W,
    watermarks: OperatorWatermark,
    /// The watermarks whose work is not finished.
    passing: WatermarkQueue,
    marker: Option<Epoch>,
    /// Whether results are emitted after a marker and the driver has not been told yet.
    late_emission: LateEmission,
    down: D,
}

impl<W: StepWork<D>, D: Stage> Stepped<W, D> {
    pub fn new(work: W, watermarks: OperatorWatermark, down: D) -> Self {
        Self {
            work,
            watermarks,
            passing: WatermarkQueue::default(),
            marker: None,
            late_emission: LateEmission::default(),
            down,
        }
    }

    fn go_on(&mut self) -> Result<(), EngineError> {
        let in_band = self.watermarks.is_in_band();
        let finished = !self.work.is_unfinished() || self.work.finish(&mut self.down)?;
        let continues = finished || in_band && self.work.keeps_unfinished();
        if in_band && continues && self.marker.is_some() {
            self.pass_marker()?;
            // The results of what is left belong to the next epoch, also if this call finishes it.
            if self.has_work() {
                self.late_emission.note();
            }
        }
        if !continues || self.watermark_waits() {
            return Ok(());
        }
        if let Some(watermark_us) = self.passing.us()
            && !self.work.release(watermark_us, &mut self.down)?
        {
            return Ok(());
        }
        self.passing.pass(in_band, self.work.lag_us(), &mut self.down)?;
        self.pass_marker()
    }

    /// Whether the next watermark waits for the work of records before it.
    fn watermark_waits(&self) -> bool {
        self.passing.is_waiting() && self.work.is_unfinished_before(self.passing.number())
    }

    fn has_work(&self) -> bool {
        self.passing.is_waiting() || self.work.is_unfinished()
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
        if !is_idle(micros) {
            self.watermarks.advance(micros);
        }
        self.passing.arrive(micros, self.work.next_number());
        self.go_on()
    }
    fn marker(&mut self, epoch: Epoch) -> Result<(), EngineError> {
        if !self.watermarks.is_in_band() {
            self.passing.begin_batch(self.watermarks.watermark_us());
        }
        self.marker = Some(epoch);
        self.go_on()
    }
    fn end(&mut self) -> Result<(), EngineError> {
        self.down.end()
    }
    fn flush(&mut self) -> Result<FlushStatus, EngineError> {
        let works = self.has_work();
        if !works && self.marker.is_none() && !self.late_emission.is_owed() {
            return self.down.flush();
        }
        if works && self.marker.is_none() {
            self.late_emission.note();
        }
        self.go_on()?;
        let below = self.down.flush()?;
        let works = self.has_work();
        Ok(self.late_emission.combine(below, self.marker.is_some(), works))
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
        work.record(item, ingest_ns, watermarks, down)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millstream_engine::epoch::event_time::BatchTimes;
    use millstream_engine::epoch::trigger::Trigger;
    use millstream_engine::runtime::job::{Config, Job};

    /// The end of a chain.
    struct Last;

    impl Stage for Last {
        fn is_ready(&mut self) -> bool {
            true
        }
        fn watermark(&mut self, _micros: i64) -> Result<(), EngineError> {
            Ok(())
        }
        fn marker(&mut self, _epoch: Epoch) -> Result<(), EngineError> {
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

    /// Each record causes three steps of work. Records are known by their numbers.
    #[derive(Default)]
    struct ThreeSteps {
        unfinished: Vec<(u64, u32)>,
        next_number: u64,
        released_us: Vec<i64>,
    }

    impl StepWork<Last> for ThreeSteps {
        fn restore(&mut self) -> Result<(), EngineError> {
            Ok(())
        }
        fn is_unfinished(&self) -> bool {
            !self.unfinished.is_empty()
        }
        fn next_number(&self) -> u64 {
            self.next_number
        }
        fn is_unfinished_before(&self, number: u64) -> bool {
            self.unfinished.iter().any(|(record, _)| *record < number)
        }
        fn keeps_unfinished(&self) -> bool {
            true
        }
        fn finish(&mut self, _down: &mut Last) -> Result<bool, EngineError> {
            self.unfinished.iter_mut().for_each(|(_, steps)| *steps -= 1);
            self.unfinished.retain(|(_, steps)| *steps > 0);
            Ok(self.unfinished.is_empty())
        }
        fn release(&mut self, watermark_us: i64, _down: &mut Last) -> Result<bool, EngineError> {
            self.released_us.push(watermark_us);
            Ok(true)
        }
        fn hand_over(&mut self, _epoch: Epoch) -> Result<(), EngineError> {
            Ok(())
        }
    }

    impl RecordWork<(), Last> for ThreeSteps {
        fn record(
            &mut self,
            _item: (),
            _ingest_ns: u64,
            _watermarks: &OperatorWatermark,
            _down: &mut Last,
        ) -> Result<(), EngineError> {
            self.unfinished.push((self.next_number, 3));
            self.next_number += 1;
            Ok(())
        }
    }

    fn in_band() -> Stepped<ThreeSteps, Last> {
        let trigger = Trigger::Continuous { interval_ns: 1_000_000 };
        let config = Config { pin: false, trigger, ..Config::default() };
        let times: BatchTimes = Job::new("steps", config).unwrap().times();
        Stepped::new(ThreeSteps::default(), OperatorWatermark::new(times, true), Last)
    }

    #[test]
    fn work_that_a_marker_finishes_is_reported_for_the_next_epoch() {
        let mut stage = in_band();
        stage.push((), 0).unwrap();
        stage.watermark(10).unwrap();
        assert_eq!(stage.flush().unwrap(), FlushStatus::NextEpoch);
        assert!(stage.work.released_us.is_empty(), "a step of the record is left");
        stage.marker(1).unwrap();
        assert_eq!(stage.work.released_us, [10]);
        assert_eq!(stage.flush().unwrap(), FlushStatus::NextEpoch);
        assert_eq!(stage.flush().unwrap(), FlushStatus::Flushed);
    }

    #[test]
    fn a_watermark_waits_for_the_work_of_the_records_before_it_only() {
        let mut stage = in_band();
        for at in 1..20 {
            stage.push((), 0).unwrap();
            stage.watermark(at).unwrap();
            stage.push((), 0).unwrap();
            assert_ne!(stage.flush().unwrap(), FlushStatus::Flushed);
            assert!(stage.work.is_unfinished(), "there is always unfinished work");
            let released = stage.work.released_us.last().copied().unwrap_or(0);
            assert!(released >= at - 4, "at {at} only the watermark {released} has taken effect");
            assert!(released < at, "the work of the record before it is unfinished");
        }
    }
}
