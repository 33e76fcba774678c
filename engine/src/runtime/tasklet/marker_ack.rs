//! The acknowledgement of a marker, which a tasklet sends to the driver when its chain has flushed
//! everything that belongs to the marker's epoch.

use crate::epoch::protocol::Report;
use crate::event::Epoch;
use crate::runtime::stage::FlushStatus;

/// The acknowledgement that a tasklet owes, if it owes one.
#[derive(Default)]
pub(super) struct MarkerAck {
    epoch: Option<Epoch>,
    /// Whether results were emitted after the marker.
    emitted_late: bool,
}

impl MarkerAck {
    /// Notes that the chain was given the marker of an epoch.
    pub(super) fn expect(&mut self, epoch: Epoch) {
        self.epoch = Some(epoch);
    }

    /// Returns the acknowledgement, once, if one is owed and `status` is `NextEpoch` or less: then
    /// whatever is left in the chain belongs to the next epoch. `None` otherwise.
    pub(super) fn due(&mut self, status: FlushStatus) -> Option<Report> {
        if status > FlushStatus::NextEpoch {
            return None;
        }
        let epoch = self.epoch.take()?;
        let owes_late_emission = status == FlushStatus::NextEpoch;
        let emitted_late = std::mem::take(&mut self.emitted_late);
        Some(Report::Ack { epoch, owes_late_emission, emitted_late })
    }

    /// Notes the flush at the end of a step. Returns whether the tasklet must be called again
    /// without waiting.
    pub(super) fn flushed(&mut self, status: FlushStatus) -> bool {
        let is_owed = self.epoch.is_some();
        self.emitted_late |= is_owed && status == FlushStatus::NextEpoch;
        match status {
            FlushStatus::Buffered | FlushStatus::NextEpoch | FlushStatus::Pending => true,
            FlushStatus::Flushed => is_owed,
            FlushStatus::Waiting | FlushStatus::Blocked => false,
        }
    }
}
