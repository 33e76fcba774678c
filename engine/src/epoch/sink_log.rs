//! The commit log of a transactional sink, which the driver writes.

use crate::env::storage::Storage;
use crate::error::EngineError;
use crate::event::Epoch;

/// The commit log of a transactional sink: decides which epochs are visible.
///
/// *Threads.* The driver's.
pub trait SinkLog: Send {
    /// Makes staged output durable, but not visible.
    fn sync(&mut self, storage: &dyn Storage, staged: &[String]) -> Result<(), EngineError>;
    /// Makes an epoch's staged output visible. If the log already has the epoch, its entry stays
    /// and the staged output is dropped.
    fn commit(
        &mut self,
        storage: &dyn Storage,
        epoch: Epoch,
        staged: &[String],
    ) -> Result<(), EngineError>;
}
