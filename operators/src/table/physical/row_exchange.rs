//! Row exchange between workers. Rows are hashed by key, sent through rings as owned rows, and
//! passed as borrowed rows to the chain after the exchange.

use crate::table::expr::functions::canonical_double;
use crate::table::physical::stages::{BoxChain, copy};
use crate::table::row::{Row, RowBuf, RowWriter, Slot};
use crate::table::types::{DataType, Physical};
use millstream_engine::checkpoint::key_group::{hash_bytes, instance_of};
use millstream_engine::error::EngineError;
use millstream_engine::event::{Event, Record};
use millstream_engine::runtime::exchange::Outbox;
use millstream_engine::runtime::stage::{FlushStatus, Push, Stage};

/// Sends each pushed row to the instance that owns the row's key. Without a [`KeyHasher`], sends
/// all pushed rows to the first instance.
pub(super) struct RowOutbox {
    outbox: Outbox<RowBuf>,
    key: Option<KeyHasher>,
}

/// Hashes the first columns of a row. They are encoded as a row of their own, so that equal keys
/// have equal hashes in rows of any width.
pub(super) struct KeyHasher {
    slots: Vec<(Slot, Physical)>,
    key: Vec<u8>,
}

impl KeyHasher {
    pub fn new(types: &[&DataType], keys: usize) -> Self {
        let slots = (0..keys).map(|i| (Slot::new(i, types.len()), types[i].physical()));
        Self { slots: slots.collect(), key: Vec::new() }
    }

    fn hash(&mut self, row: Row<'_>) -> u64 {
        self.key.clear();
        let mut writer = RowWriter::new(&mut self.key, self.slots.len());
        for (to, (slot, kind)) in self.slots.iter().enumerate() {
            match kind {
                Physical::Double if !row.is_null(*slot) => {
                    writer.double(to, canonical_double(row.double(*slot)));
                }
                _ => copy(&mut writer, to, row, *slot, *kind),
            }
        }
        hash_bytes(&self.key)
    }
}

impl RowOutbox {
    pub fn new(outbox: Outbox<RowBuf>, key: Option<KeyHasher>) -> Self {
        Self { outbox, key }
    }

    /// Sends a row to the instance that owns the keys with this hash.
    #[inline]
    pub fn send(&mut self, hash: u64, row: Row<'_>, ingest_ns: u64) {
        let lane = instance_of(hash, self.outbox.lanes());
        let value = RowBuf::from_slice(row.0);
        self.outbox.send(lane, Event::Record(Record { value, ingest_ns }));
    }
}

impl Stage for RowOutbox {
    fn is_ready(&mut self) -> bool {
        self.outbox.is_ready()
    }
    fn watermark(&mut self, micros: i64) -> Result<(), EngineError> {
        self.outbox.broadcast(|| Event::Watermark(micros));
        Ok(())
    }
    fn marker(&mut self, epoch: u64) -> Result<(), EngineError> {
        self.outbox.broadcast(|| Event::Marker(epoch));
        Ok(())
    }
    fn end(&mut self) -> Result<(), EngineError> {
        self.outbox.broadcast(|| Event::End);
        Ok(())
    }
    fn flush(&mut self) -> Result<FlushStatus, EngineError> {
        Ok(self.outbox.flush())
    }

    fn next_timer_ns(&self) -> Option<u64> {
        None
    }
}

impl<'a> Push<Row<'a>> for RowOutbox {
    #[inline]
    fn push(&mut self, row: Row<'a>, ingest_ns: u64) -> Result<(), EngineError> {
        // Without a key the hash is 0, which belongs to the first instance.
        let hash = self.key.as_mut().map_or(0, |key| key.hash(row));
        self.send(hash, row, ingest_ns);
        Ok(())
    }
}

/// The receiving end of an exchange: passes owned rows to a chain as borrowed rows.
pub(super) struct BorrowedRows(pub BoxChain);

impl Stage for BorrowedRows {
    fn attach(
        &mut self,
        io: &mut millstream_engine::runtime::stage::Io<'_>,
    ) -> Result<(), EngineError> {
        self.0.attach(io)
    }
    fn is_ready(&mut self) -> bool {
        self.0.is_ready()
    }
    fn watermark(&mut self, micros: i64) -> Result<(), EngineError> {
        self.0.watermark(micros)
    }
    fn marker(&mut self, epoch: u64) -> Result<(), EngineError> {
        self.0.marker(epoch)
    }
    fn end(&mut self) -> Result<(), EngineError> {
        self.0.end()
    }
    fn flush(&mut self) -> Result<FlushStatus, EngineError> {
        self.0.flush()
    }

    fn next_timer_ns(&self) -> Option<u64> {
        self.0.next_timer_ns()
    }
}

impl Push<RowBuf> for BorrowedRows {
    #[inline]
    fn push(&mut self, row: RowBuf, ingest_ns: u64) -> Result<(), EngineError> {
        self.0.push(Row(&row), ingest_ns)
    }
}
