//! The checkpoint lock: the file `lock`, held by the process whose query uses the checkpoint. The
//! system releases it when the process ends, so the file of a crashed process blocks no restart.

use crate::checkpoint::log_entry;
use crate::env::storage::{Storage, StorageLock};
use crate::error::EngineError;
use std::path::Path;

/// Locks the checkpoint in a folder until the result is dropped. An error if another query holds
/// the lock.
pub fn acquire(storage: &dyn Storage, folder: &Path) -> Result<StorageLock, EngineError> {
    let path = folder.join("lock");
    let lock = storage.lock(&path).map_err(|error| log_entry::write_failed(&path, &error))?;
    lock.ok_or_else(|| {
        EngineError::operator(
            "CONCURRENT_STREAM_LOG_UPDATE",
            format!("another query runs on the checkpoint {}", folder.display()),
            "Stop it first, or give this query another checkpointLocation",
        )
    })
}
