//! Tables that may change while a query joins a stream with them.

use crate::table::value::Value;
use millstream_engine::error::EngineError;
use std::fmt;
use std::sync::Arc;

/// Reads the current content of a table.
pub trait TableReader: Send + Sync {
    /// A number that identifies the current version of the table. It differs after each change.
    fn version(&self) -> Result<u64, EngineError>;
    /// Reads the current rows.
    fn rows(&self) -> Result<Vec<Vec<Value>>, EngineError>;
}

/// The number of attempts to read a table that changes while it is read.
const ATTEMPTS: usize = 3;

/// A table that may change, and the version of the rows that were read last.
#[derive(Clone)]
pub struct LiveTable {
    reader: Arc<dyn TableReader>,
    version: u64,
}

impl LiveTable {
    /// Creates a table and remembers its current version. Call this before reading the rows, so
    /// that a later change is detected.
    pub fn new(reader: Arc<dyn TableReader>) -> Self {
        // An error is ignored here, because the first read reports it in more detail.
        let version = reader.version().unwrap_or_default();
        Self { reader, version }
    }

    /// Reads the rows if the table has changed since the last read. Returns `None` if it has not.
    /// If the table changes during the read, it is read again, at most `ATTEMPTS` times in all.
    /// After an error the next call reads again.
    pub fn changed_rows(&mut self) -> Result<Option<Vec<Vec<Value>>>, EngineError> {
        let mut version = self.reader.version()?;
        if version == self.version {
            return Ok(None);
        }
        let mut outcome = self.reader.rows();
        for _ in 1..ATTEMPTS {
            let now = self.reader.version()?;
            if now == version {
                break;
            }
            // The table changed during the read, so the rows may be a mix of versions, or the read
            // may have failed. They are read again.
            (version, outcome) = (now, self.reader.rows());
        }
        let rows = outcome?;
        self.version = version;
        Ok(Some(rows))
    }
}

impl fmt::Debug for LiveTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LiveTable({:x})", self.version)
    }
}

impl PartialEq for LiveTable {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.reader, &other.reader) && self.version == other.version
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// The versions that successive calls return, and the number of reads.
    struct Script(Mutex<(Vec<u64>, i64)>);

    impl TableReader for Script {
        fn version(&self) -> Result<u64, EngineError> {
            let mut script = self.0.lock().unwrap();
            let next = script.0.remove(0);
            Ok(next)
        }
        fn rows(&self) -> Result<Vec<Vec<Value>>, EngineError> {
            let mut script = self.0.lock().unwrap();
            script.1 += 1;
            Ok(vec![vec![Value::Long(script.1)]])
        }
    }

    fn table(versions: &[u64]) -> LiveTable {
        LiveTable::new(Arc::new(Script(Mutex::new((versions.to_vec(), 0)))))
    }

    fn read(table: &mut LiveTable) -> Option<Value> {
        table.changed_rows().unwrap().map(|mut rows| rows.remove(0).remove(0))
    }

    #[test]
    fn a_table_is_read_when_it_has_changed() {
        let mut table = table(&[1, 1, 2, 2, 2]);
        assert_eq!(read(&mut table), None);
        assert_eq!(read(&mut table), Some(Value::Long(1)));
        assert_eq!(read(&mut table), None);
    }

    #[test]
    fn a_table_that_changes_while_it_is_read_is_read_again() {
        let mut often = table(&[1, 2, 3, 3, 3]);
        assert_eq!(read(&mut often), Some(Value::Long(2)));
        assert_eq!(read(&mut often), None);
        // A table that changes during every read is read `ATTEMPTS` times, and again at the next
        // check.
        let mut always = table(&[1, 2, 3, 4, 5, 5]);
        assert_eq!(read(&mut always), Some(Value::Long(3)));
        assert_eq!(read(&mut always), Some(Value::Long(4)));
    }
}
