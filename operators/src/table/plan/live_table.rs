//! Tables that may change while a query joins a stream with them.

use crate::table::value::Value;
use millstream_engine::error::EngineError;
use std::fmt;
use std::sync::Arc;

/// Reads the current content of a table.
pub trait TableReader: Send + Sync {
    /// The version of the table's source, which differs after a change.
    fn version(&self) -> Result<u64, EngineError>;
    /// The current rows.
    fn rows(&self) -> Result<Vec<Vec<Value>>, EngineError>;
}

/// The number of attempts to read a table that changes while it is read.
const ATTEMPTS: usize = 3;

/// A table that may change, with the version of the rows last read.
#[derive(Clone)]
pub struct LiveTable {
    reader: Arc<dyn TableReader>,
    version: u64,
}

impl LiveTable {
    /// Creates a table whose rows have not been read. Call this before reading them, so that a
    /// change in between is noticed.
    pub fn new(reader: Arc<dyn TableReader>) -> Self {
        // An error is ignored here, because the first read reports it in more detail.
        let version = reader.version().unwrap_or_default();
        Self { reader, version }
    }

    /// Reads the rows again if they have changed since the last read; otherwise returns `None`.
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
            // The rows may be a mix of versions, or the source may have been removed in between.
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

    /// The versions to return one after another, and the number of reads.
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
        // A table that changes constantly is read a few times, and again later.
        let mut always = table(&[1, 2, 3, 4, 5, 5]);
        assert_eq!(read(&mut always), Some(Value::Long(3)));
        assert_eq!(read(&mut always), Some(Value::Long(4)));
    }
}
