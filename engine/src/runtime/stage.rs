//! Stages: operators fused into a chain, each of which owns the next one. Records are pushed
//! through a chain.
//!
//! A stage passes a record on by a function call; there is no queue between stages. Control
//! (`is_ready`, `marker`, `flush` …) goes down the same chain as data.
//!
//! *Threads.* A chain belongs to one tasklet and so, after start, to one worker thread.

use crate::epoch::source_partitions::SourcePartitions;
use crate::error::EngineError;
use crate::event::Epoch;
use crate::sync::waker::Waker;

/// What is left to do in a chain after [`Stage::flush`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FlushStatus {
    /// Nothing: all output that is due has left the chain.
    Flushed,
    /// Only partial aggregates of local pre-aggregation are left. Call [`Stage::flush`] again soon:
    /// they are sent when a step brings no record, and before a marker.
    Buffered,
    /// Only work of the next epoch is left; markers have been passed on. While the watermark keeps
    /// advancing, this status may never end. It is also returned once after such work, so that the
    /// driver learns of it ([`LateEmission`]).
    NextEpoch,
    /// The chain waits for acknowledgements, for example of a broker, and takes more records
    /// meanwhile. The thread that receives the last acknowledgement will wake this worker.
    Waiting,
    /// There is more work. Call [`Stage::flush`] again soon.
    Pending,
    /// The chain waits until a full ring, connection or queue takes more output. The worker is
    /// woken then, and some time after the chain's next timer has expired.
    Blocked,
}

impl FlushStatus {
    /// Combines the statuses of two parts of a chain. If one part waits for acknowledgements and
    /// the other has work to do, the result is `Pending`, so that the worker does not sleep.
    pub fn and(self, other: Self) -> Self {
        match self.max(other) {
            Self::Waiting if self.min(other) > Self::Flushed && self != other => Self::Pending,
            all => all,
        }
    }
}

/// Tracks whether a stage has emitted results after a marker, which the driver must be told once.
#[derive(Debug, Default)]
pub struct LateEmission {
    is_owed: bool,
}

impl LateEmission {
    /// Notes that results were emitted after the marker.
    pub fn note(&mut self) {
        self.is_owed = true;
    }

    /// Whether the driver has not been told yet.
    #[inline]
    pub fn is_owed(&self) -> bool {
        self.is_owed
    }

    /// Combines what a stage has left to do with the status of the chain below. `holds_marker`: the
    /// stage has not forwarded the marker yet. `has_results`: it has more results to emit. A late
    /// emission is reported as [`FlushStatus::NextEpoch`] once at most partial aggregates are left
    /// below; until then it does not keep the worker awake.
    pub fn combine(
        &mut self,
        below: FlushStatus,
        holds_marker: bool,
        has_results: bool,
    ) -> FlushStatus {
        let own = match (holds_marker, has_results) {
            (true, _) => FlushStatus::Pending,
            (false, true) => FlushStatus::NextEpoch,
            (false, false) => FlushStatus::Flushed,
        };
        match own.and(below) {
            FlushStatus::Flushed | FlushStatus::Buffered if self.is_owed => {
                self.is_owed = false;
                FlushStatus::NextEpoch
            }
            FlushStatus::NextEpoch => {
                self.is_owed = false;
                FlushStatus::NextEpoch
            }
            all => all,
        }
    }
}

/// What a worker provides to stages that own sockets.
pub struct Io<'a> {
    /// The registry for the stage's sockets; `None` in simulation.
    pub registry: Option<&'a mio::Registry>,
    /// The worker that will run the stage.
    pub waker: &'a Waker,
    /// The partitions of the tasklet's source. A source with several partitions sets this when it is
    /// attached, before the stages of its chain are.
    pub partitions: Option<SourcePartitions>,
    pub(crate) next_token: &'a mut usize,
}

impl Io<'_> {
    /// A token that is unique on this worker.
    pub fn token(&mut self) -> mio::Token {
        *self.next_token += 1;
        mio::Token(*self.next_token - 1)
    }
}

/// The control side of a stage. Every method must be forwarded to the stages below.
pub trait Stage: Send {
    /// Called once, on the worker's thread, before anything else.
    fn attach(&mut self, _io: &mut Io<'_>) -> Result<(), EngineError> {
        Ok(())
    }

    /// Whether the stage can take a record. Callers must not push while this is false, so a stage
    /// buffers at most the expansion of one record.
    fn is_ready(&mut self) -> bool;

    /// Advances event time to `micros`, in microseconds since 1970. [`IDLE`](crate::event::IDLE)
    /// says that the input is idle, and follows the results of earlier watermarks.
    fn watermark(&mut self, micros: i64) -> Result<(), EngineError>;

    /// Ends the epoch: hands over changed state, emits pending results, forwards the marker. Work
    /// that exceeds one bounded step is left to [`flush`](Self::flush).
    /// [`is_ready`](Self::is_ready) is false until the marker is forwarded.
    fn marker(&mut self, epoch: Epoch) -> Result<(), EngineError>;

    /// Ends the input: no record, watermark or marker follows.
    fn end(&mut self) -> Result<(), EngineError>;

    /// Publishes rings, writes output and does a bounded amount of pending work.
    fn flush(&mut self) -> Result<FlushStatus, EngineError>;

    /// The time of the next timer of the stage and of those below, on the environment's monotonic
    /// clock, at which it must be flushed even without records. `None` if there is no timer.
    fn next_timer_ns(&self) -> Option<u64>;
}

/// The data side of a stage.
pub trait Push<T>: Stage {
    /// Takes a record with its ingest time, in nanoseconds, or [`UNTIMED`](crate::event::UNTIMED).
    /// Call this only while [`Stage::is_ready`] is true.
    fn push(&mut self, value: T, ingest_ns: u64) -> Result<(), EngineError>;

    /// Announces a record that is pushed soon. The stage may load the memory that it will read into
    /// the cache.
    #[inline]
    fn prefetch(&self, _value: &T) {}
}

/// Forwards the control side of a stage, unchanged, to the stage in a field.
#[macro_export]
macro_rules! pass_control {
    ($field:ident) => {
        fn attach(
            &mut self,
            io: &mut $crate::runtime::stage::Io<'_>,
        ) -> Result<(), $crate::error::EngineError> {
            self.$field.attach(io)
        }
        #[inline]
        fn is_ready(&mut self) -> bool {
            self.$field.is_ready()
        }
        fn watermark(&mut self, micros: i64) -> Result<(), $crate::error::EngineError> {
            self.$field.watermark(micros)
        }
        fn marker(
            &mut self,
            epoch: $crate::event::Epoch,
        ) -> Result<(), $crate::error::EngineError> {
            self.$field.marker(epoch)
        }
        fn end(&mut self) -> Result<(), $crate::error::EngineError> {
            self.$field.end()
        }
        #[inline]
        fn flush(
            &mut self,
        ) -> Result<$crate::runtime::stage::FlushStatus, $crate::error::EngineError> {
            self.$field.flush()
        }
        #[inline]
        fn next_timer_ns(&self) -> Option<u64> {
            self.$field.next_timer_ns()
        }
    };
}

impl<S: Stage + ?Sized> Stage for Box<S> {
    fn attach(&mut self, io: &mut Io<'_>) -> Result<(), EngineError> {
        (**self).attach(io)
    }
    fn is_ready(&mut self) -> bool {
        (**self).is_ready()
    }
    fn watermark(&mut self, micros: i64) -> Result<(), EngineError> {
        (**self).watermark(micros)
    }
    fn marker(&mut self, epoch: Epoch) -> Result<(), EngineError> {
        (**self).marker(epoch)
    }
    fn end(&mut self) -> Result<(), EngineError> {
        (**self).end()
    }
    fn flush(&mut self) -> Result<FlushStatus, EngineError> {
        (**self).flush()
    }
    fn next_timer_ns(&self) -> Option<u64> {
        (**self).next_timer_ns()
    }
}

impl<T, S: Push<T> + ?Sized> Push<T> for Box<S> {
    #[inline]
    fn push(&mut self, value: T, ingest_ns: u64) -> Result<(), EngineError> {
        (**self).push(value, ingest_ns)
    }
    #[inline]
    fn prefetch(&self, value: &T) {
        (**self).prefetch(value);
    }
}

#[cfg(test)]
mod tests {
    use super::{FlushStatus, LateEmission, Push, Stage};
    use crate::error::EngineError;
    use crate::event::Epoch;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// A stage that notes the value that was announced last.
    struct Announced(Arc<AtomicU64>);

    impl Stage for Announced {
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

    impl Push<u64> for Announced {
        fn push(&mut self, _value: u64, _ingest_ns: u64) -> Result<(), EngineError> {
            Ok(())
        }
        fn prefetch(&self, value: &u64) {
            self.0.store(*value, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_boxed_stage_is_told_which_record_comes_soon() {
        let last = Arc::new(AtomicU64::new(0));
        let stage: Box<dyn Push<u64>> = Box::new(Announced(last.clone()));
        Push::prefetch(&stage, &7);
        assert_eq!(last.load(Ordering::Relaxed), 7);
    }

    /// A window above a Kafka sink: once its results are emitted, the worker sleeps until the
    /// broker acknowledges them, and only then the driver is told.
    #[test]
    fn a_late_emission_does_not_keep_a_waiting_chain_busy() {
        use FlushStatus::{Buffered, Flushed, NextEpoch, Pending, Waiting};
        let mut late = LateEmission::default();
        late.note();
        assert_eq!(late.combine(Waiting, true, true), Pending);
        assert_eq!(late.combine(Waiting, false, true), Pending);
        assert_eq!(late.combine(Waiting, false, false), Waiting);
        assert!(late.is_owed());
        assert_eq!(late.combine(Buffered, false, false), NextEpoch);
        assert_eq!(late.combine(Flushed, false, false), Flushed);
        late.note();
        assert_eq!(late.combine(Flushed, false, true), NextEpoch, "there are more results");
        assert!(!late.is_owed());
    }
}
