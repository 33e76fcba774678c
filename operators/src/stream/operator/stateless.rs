//! The stateless stages: map, filter, flat map, and the user's sink function.
//!
//! The stages, except flat map, are marked `#[inline(always)]`, so that they are inlined into the
//! loop over a source's records. With a call per record the throughput of a count was a tenth to a
//! third lower (`benches/ablation/build calls`).

use millstream_engine::error::EngineError;
use millstream_engine::event::Epoch;
use millstream_engine::measure::latency::LatencyRecorder;
use millstream_engine::pass_control;
use millstream_engine::runtime::stage::{FlushStatus, Push, Stage};

pub(in crate::stream) struct Map<F, D> {
    pub f: F,
    pub down: D,
}

impl<F: Send, D: Stage> Stage for Map<F, D> {
    pass_control!(down);
}

impl<T, U, F: FnMut(T) -> U + Send, D: Push<U>> Push<T> for Map<F, D> {
    #[inline(always)]
    fn push(&mut self, value: T, ingest_ns: u64) -> Result<(), EngineError> {
        self.down.push((self.f)(value), ingest_ns)
    }
}

pub(in crate::stream) struct Filter<F, D> {
    pub f: F,
    pub down: D,
}

impl<F: Send, D: Stage> Stage for Filter<F, D> {
    pass_control!(down);
}

impl<T, F: FnMut(&T) -> bool + Send, D: Push<T>> Push<T> for Filter<F, D> {
    #[inline(always)]
    fn push(&mut self, value: T, ingest_ns: u64) -> Result<(), EngineError> {
        if (self.f)(&value) { self.down.push(value, ingest_ns) } else { Ok(()) }
    }
}

pub(in crate::stream) struct FlatMap<F, D> {
    pub f: F,
    pub down: D,
}

impl<F: Send, D: Stage> Stage for FlatMap<F, D> {
    pass_control!(down);
}

impl<T, I: IntoIterator, F: FnMut(T) -> I + Send, D: Push<I::Item>> Push<T> for FlatMap<F, D> {
    #[inline]
    fn push(&mut self, value: T, ingest_ns: u64) -> Result<(), EngineError> {
        for item in (self.f)(value) {
            self.down.push(item, ingest_ns)?;
        }
        Ok(())
    }
}

/// The end of a chain: calls the user's function and records the latency.
pub struct Call<F> {
    pub(in crate::stream) f: F,
    pub(in crate::stream) latency: LatencyRecorder,
}

impl<F: Send> Stage for Call<F> {
    #[inline]
    fn is_ready(&mut self) -> bool {
        true
    }
    fn watermark(&mut self, _micros: i64) -> Result<(), EngineError> {
        Ok(())
    }
    fn marker(&mut self, _epoch: Epoch) -> Result<(), EngineError> {
        self.latency.record_pending();
        self.latency.publish();
        Ok(())
    }
    fn end(&mut self) -> Result<(), EngineError> {
        self.latency.record_pending();
        self.latency.publish();
        Ok(())
    }
    fn flush(&mut self) -> Result<FlushStatus, EngineError> {
        self.latency.record_pending();
        Ok(FlushStatus::Flushed)
    }

    fn next_timer_ns(&self) -> Option<u64> {
        None
    }
}

impl<T, F: FnMut(T) + Send> Push<T> for Call<F> {
    #[inline(always)]
    fn push(&mut self, value: T, ingest_ns: u64) -> Result<(), EngineError> {
        (self.f)(value);
        self.latency.record(ingest_ns);
        Ok(())
    }
}
