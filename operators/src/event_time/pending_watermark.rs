//! A watermark that an operator passes on only after the results that it releases.

use millstream_engine::error::EngineError;
use millstream_engine::event::is_idle;
use millstream_engine::runtime::stage::Stage;

/// The watermark whose work is not finished, and the mark of idleness that arrived after it. The
/// mark must not overtake the watermark: the stages below would take the watermark for the end of
/// the idleness, which is reported only once.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PendingWatermark {
    us: Option<i64>,
    idle: Option<i64>,
}

impl PendingWatermark {
    /// Adds a watermark or a mark of idleness that has arrived.
    pub fn arrive(&mut self, micros: i64) {
        if is_idle(micros) {
            self.idle = Some(micros);
        } else {
            self.us = self.us.max(Some(micros));
            self.idle = None;
        }
    }

    /// Adds work of a watermark that has arrived before.
    #[cfg(feature = "sql")]
    pub fn repeat(&mut self, micros: i64) {
        self.us = self.us.max(Some(micros));
    }

    /// Replaces the watermark by that of a batch.
    pub fn begin_batch(&mut self, micros: Option<i64>) {
        self.us = micros;
    }

    /// The watermark whose work is not finished.
    #[inline]
    pub fn us(&self) -> Option<i64> {
        self.us
    }

    /// Whether something waits to be passed on: a watermark whose work is not finished, or a mark
    /// of idleness. The operator must go on until then, even without records.
    #[inline]
    pub fn is_waiting(&self) -> bool {
        self.us.is_some() || self.idle.is_some()
    }

    /// Forgets everything, at the end of the query.
    #[cfg(feature = "sql")]
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Takes the watermark, and leaves the mark of idleness.
    #[cfg(feature = "sql")]
    pub fn take_us(&mut self) -> Option<i64> {
        self.us.take()
    }

    /// Ends the work of the watermark: passes it on, `lag_us` lower, if watermarks arrive `in_band`,
    /// and then the mark of idleness.
    pub fn pass<D: Stage + ?Sized>(
        &mut self,
        in_band: bool,
        lag_us: i64,
        down: &mut D,
    ) -> Result<(), EngineError> {
        if let Some(us) = self.us.take().filter(|_| in_band) {
            down.watermark(us.saturating_sub(lag_us))?;
        }
        match self.idle.take() {
            Some(mark) => down.watermark(mark),
            None => Ok(()),
        }
    }
}
