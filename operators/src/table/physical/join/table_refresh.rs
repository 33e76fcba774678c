//! Reloads a table that changes while a stream is joined with it.
//!
//! *Micro-batch mode.* At the first row of each batch, the table is checked and reloaded if it has
//! changed, before the row is joined. So a batch sees one version of the table.
//!
//! *Continuous mode.* At a marker, a background thread is asked to check the table. The thread
//! loads and indexes the table, so no record waits for the reload. The join swaps the tables
//! between two records and passes the old table to the thread, which frees its memory. In
//! simulation there is no thread, and the table is checked at the marker itself.
//!
//! *Limits.* Each version is loaded completely, and while it is loaded, the old version is in
//! memory too.

use super::table_index::{IndexBy, Table, index};
use crate::table::plan::live_table::LiveTable;
use crate::table::row::encode;
use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded, unbounded};
use millstream_engine::error::EngineError;
use millstream_engine::runtime::stage::Io;

/// Loads and indexes a table.
struct TableLoader {
    live: LiveTable,
    by: IndexBy,
}

impl TableLoader {
    /// Reloads the table if it has changed. Returns `None` if it has not.
    fn changed(&mut self) -> Result<Option<Table>, EngineError> {
        let Some(rows) = self.live.changed_rows()? else { return Ok(None) };
        index(rows.iter().map(|row| encode(row)).collect(), &mut self.by).map(Some)
    }
}

/// A request to the background thread.
enum Request {
    Look,
    Free(Table),
}

/// The channels to and from the background thread.
struct Background {
    requests: Sender<Request>,
    answers: Receiver<Result<Option<Table>, EngineError>>,
}

impl Background {
    /// Starts the thread. It ends when the join is dropped.
    fn start(mut loader: TableLoader) -> Result<Self, EngineError> {
        let (requests, asked) = unbounded();
        let (answer, answers) = bounded(1);
        let body = move || {
            for request in asked {
                match request {
                    Request::Free(table) => drop(table),
                    Request::Look => {
                        if answer.send(loader.changed()).is_err() {
                            return;
                        }
                    }
                }
            }
        };
        let thread = std::thread::Builder::new().name("table".to_string()).spawn(body);
        thread.map_err(|error| {
            let reason = format!("the thread that reloads tables cannot be started: {error}");
            EngineError::operator("THREAD_FAILED", reason, "Allow this process more threads")
        })?;
        Ok(Self { requests, answers })
    }
}

/// The error if the thread has ended before the join: its panic was printed by the panic hook. The
/// table would never change again.
fn ended() -> EngineError {
    let reason = "the thread that reloads tables has ended";
    EngineError::operator("THREAD_FAILED", reason, "Read its message on the standard error")
}

/// The thread that checks the table for changes.
enum Looker {
    /// No thread: the table does not change.
    Nobody,
    /// The worker, at the first row of a batch or, in simulation, at each marker.
    Worker { loader: TableLoader, at_marker: bool },
    /// A background thread, in continuous mode.
    Thread(Background),
}

/// Keeps the table of a join up to date.
pub(super) struct TableRefresh {
    looker: Looker,
    continuous: bool,
    /// Whether [`update`](TableRefresh::update) must be called: the table must be checked before
    /// the next row, or the background thread has not answered yet.
    due: bool,
}

impl TableRefresh {
    /// Creates a refresh for the table that `live` describes, indexed by `by`. Without `live` the
    /// table never changes.
    pub fn new(live: Option<LiveTable>, by: IndexBy, continuous: bool) -> Self {
        let looker = match live {
            Some(live) => {
                Looker::Worker { loader: TableLoader { live, by }, at_marker: continuous }
            }
            None => Looker::Nobody,
        };
        let due = !continuous && matches!(looker, Looker::Worker { .. });
        Self { looker, continuous, due }
    }

    /// Starts the background thread, in continuous mode outside simulation.
    pub fn attach(&mut self, io: &mut Io<'_>) -> Result<(), EngineError> {
        let in_simulation = io.registry.is_none();
        if !self.continuous || in_simulation {
            return Ok(());
        }
        self.looker = match std::mem::replace(&mut self.looker, Looker::Nobody) {
            Looker::Worker { loader, .. } => Looker::Thread(Background::start(loader)?),
            other => other,
        };
        Ok(())
    }

    /// Called at the end of an epoch. In continuous mode, checks the table, or takes the result of
    /// the thread's last check and requests another one. In micro-batch mode, schedules a check for
    /// the next row. Fails if the changed table cannot be read.
    pub fn end_epoch(&mut self, table: &mut Table) -> Result<(), EngineError> {
        match &mut self.looker {
            Looker::Nobody => {}
            Looker::Worker { at_marker: false, .. } => self.due = true,
            Looker::Worker { loader, at_marker: true } => {
                if let Some(changed) = loader.changed()? {
                    *table = changed;
                }
            }
            Looker::Thread(_) => {
                if self.due {
                    self.update(table)?;
                }
                // At most one check is in progress.
                if let (Looker::Thread(background), false) = (&self.looker, self.due) {
                    background.requests.send(Request::Look).map_err(|_| ended())?;
                    self.due = true;
                }
            }
        }
        Ok(())
    }

    /// Whether [`update`](Self::update) must be called before the next row.
    #[inline]
    pub fn is_due(&self) -> bool {
        self.due
    }

    /// Checks the table, or takes the answer of the thread if there is one. Replaces the table if
    /// it has changed.
    #[cold]
    pub fn update(&mut self, table: &mut Table) -> Result<(), EngineError> {
        match &mut self.looker {
            Looker::Nobody => self.due = false,
            Looker::Worker { loader, .. } => {
                self.due = false;
                if let Some(changed) = loader.changed()? {
                    *table = changed;
                }
            }
            Looker::Thread(background) => {
                let answer = match background.answers.try_recv() {
                    Ok(answer) => answer,
                    Err(TryRecvError::Empty) => return Ok(()),
                    Err(TryRecvError::Disconnected) => return Err(ended()),
                };
                self.due = false;
                if let Some(changed) = answer? {
                    let old = std::mem::replace(table, changed);
                    drop(background.requests.send(Request::Free(old)));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::plan::live_table::TableReader;
    use crate::table::value::Value;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::{Duration, Instant};

    /// A table whose version can be read only once.
    #[derive(Default)]
    struct Broken(AtomicBool);

    impl TableReader for Broken {
        fn version(&self) -> Result<u64, EngineError> {
            assert!(!self.0.swap(true, Ordering::Relaxed), "the table is broken");
            Ok(0)
        }
        fn rows(&self) -> Result<Vec<Vec<Value>>, EngineError> {
            Ok(Vec::new())
        }
    }

    #[test]
    fn a_query_fails_if_the_thread_that_reloads_its_table_has_ended() {
        let mut by = IndexBy { keys: Vec::new(), null_safe: Vec::new(), value_of: None };
        let mut table = index(Vec::new(), &mut by).unwrap();
        let live = LiveTable::new(Arc::new(Broken::default()));
        let background = Background::start(TableLoader { live, by }).unwrap();
        let looker = Looker::Thread(background);
        let mut refresh = TableRefresh { looker, continuous: true, due: false };
        refresh.end_epoch(&mut table).unwrap();
        let began = Instant::now();
        let error = loop {
            if let Err(error) = refresh.update(&mut table) {
                break error;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "the table is stale for ever");
            std::thread::yield_now();
        };
        assert_eq!(error.condition(), "THREAD_FAILED");
        refresh.due = false;
        let error = refresh.end_epoch(&mut table).unwrap_err();
        assert_eq!(error.condition(), "THREAD_FAILED", "nor can it be asked again");
    }
}
