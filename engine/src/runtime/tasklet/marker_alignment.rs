//! Marker alignment: a marker is forwarded when every inlet that has not ended has delivered it.
//! Until then, inlets that have delivered the marker are not read.

use crate::runtime::exchange::Inlet;

/// The state of a tasklet's inlet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InletState {
    /// The inlet is being read.
    Open,
    /// The inlet has delivered the marker and is not read until the other inlets have delivered it
    /// too.
    Aligned,
    /// The inlet has ended.
    Ended,
}

/// An inlet with its state.
pub struct AlignedInlet<T> {
    pub inlet: Inlet<T>,
    pub state: InletState,
    /// The last watermark of the inlet, in microseconds since 1970.
    pub watermark_us: i64,
}

impl<T> AlignedInlet<T> {
    /// An open inlet without a watermark.
    pub fn new(inlet: Inlet<T>) -> Self {
        Self { inlet, state: InletState::Open, watermark_us: i64::MIN }
    }

    /// Reads the inlet again after the marker was forwarded.
    pub fn reopen(&mut self) {
        if self.state == InletState::Aligned {
            self.state = InletState::Open;
        }
    }
}

/// The progress of a marker alignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alignment {
    /// An inlet is still open.
    Incomplete,
    /// Every inlet that has not ended has delivered the marker.
    Marker,
    /// Every inlet has ended.
    Ended,
}

impl Alignment {
    /// Returns the alignment of these inlets. Ended inlets do not delay a marker. Without inlets it
    /// is `Ended`.
    pub fn of<T>(inlets: &[AlignedInlet<T>]) -> Self {
        if inlets.iter().any(|inlet| inlet.state == InletState::Open) {
            return Self::Incomplete;
        }
        let is_ended = inlets.iter().all(|inlet| inlet.state == InletState::Ended);
        if is_ended { Self::Ended } else { Self::Marker }
    }
}
