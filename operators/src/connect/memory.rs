//! The memory source and sink: rows pushed by the program, and results kept in a table that is read
//! by name. For tests and small embedded uses; typed streams have a faster channel
//! (`stream::Flow::channel`).

use crate::table::physical::TableSignal;
use crate::table::plan::analyzer::OutputMode;
use crate::table::row::{Row, decode, encode};
use crate::table::types::{DataType, Schema};
use crate::table::value::Value;
use millstream_engine::checkpoint::offset::Offset;
use millstream_engine::env::Env;
use millstream_engine::epoch::protocol::{EndOffset, ReadLimit};
use millstream_engine::error::EngineError;
use millstream_engine::event::Epoch;
use millstream_engine::measure::latency::LatencyRecorder;
use millstream_engine::runtime::stage::{FlushStatus, Io, Push, Stage};
use millstream_engine::runtime::tasklet::{Polled, Source, StepCx};
use millstream_engine::sync::waker::Waker;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

/// Encoded rows with their ingest times.
type Rows = VecDeque<(Vec<u8>, u64)>;

#[derive(Default)]
struct Queue {
    /// Rows that are neither committed nor taken by a source.
    rows: Rows,
    /// The stream position of the first row in `rows`.
    base: u64,
    /// Whether the stream has ended.
    closed: bool,
    /// Whether a query has read from the stream in this process. If not, positions in a checkpoint
    /// belong to an earlier process.
    drawn: bool,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    reader: Mutex<Option<(Arc<dyn Env>, Waker)>>,
    /// Whether a query is reading the part.
    claimed: AtomicBool,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn reader(&self) -> MutexGuard<'_, Option<(Arc<dyn Env>, Waker)>> {
        self.reader.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn wake(&self) {
        if let Some((_, waker)) = &*self.reader() {
            waker.wake();
        }
    }
}

/// A stream that a program adds rows to. Clones share the stream.
#[derive(Clone)]
pub struct MemoryStream {
    schema: Schema,
    /// Each part is read by a source of its own.
    parts: Arc<[Shared]>,
    /// Number of rows added, for distributing them over the parts.
    added: Arc<AtomicUsize>,
}

impl MemoryStream {
    /// Creates a stream with this schema.
    pub fn new(schema: Schema) -> Self {
        Self::in_parts(schema, 1)
    }

    /// Creates a stream whose rows are distributed round robin over `parts` parts, each read by its
    /// own tasklet.
    pub fn in_parts(schema: Schema, parts: usize) -> Self {
        let parts = (0..parts.max(1)).map(|_| Shared::default()).collect();
        Self { schema, parts, added: Arc::default() }
    }

    /// The number of parts.
    pub fn parts(&self) -> usize {
        self.parts.len()
    }

    /// The schema of the rows.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// Adds rows, all at once: a micro-batch reads either all of them or none. With several parts
    /// this holds only if no batch is planned during the call.
    pub fn add(&self, rows: impl IntoIterator<Item = Vec<Value>>) {
        let mut dealt: Vec<Vec<Vec<u8>>> = vec![Vec::new(); self.parts.len()];
        let mut count = 0;
        // ORDERING: relaxed: it only selects the part that gets the next row.
        let first = self.added.load(Ordering::Relaxed);
        for row in rows {
            dealt[(first + count) % self.parts.len()].push(encode(&row));
            count += 1;
        }
        self.added.fetch_add(count, Ordering::Relaxed);
        for (part, rows) in self.parts.iter().zip(dealt) {
            let now_ns = part.reader().as_ref().map_or(0, |(env, _)| env.now_ns());
            part.queue().rows.extend(rows.into_iter().map(|row| (row, now_ns)));
            part.wake();
        }
    }

    /// Ends the stream.
    pub fn close(&self) {
        for part in &*self.parts {
            part.queue().closed = true;
            part.wake();
        }
    }

    /// Creates the source of a part for one query. A second source at the same time is an error.
    /// Rows that the query has not committed when it ends return to the stream.
    pub fn source(&self, part: usize, env: Arc<dyn Env>) -> Result<MemorySource, EngineError> {
        let shared = &self.parts[part];
        // ORDERING: acquire and release: the next source sees the rows that the last one returned.
        if shared.claimed.swap(true, Ordering::AcqRel) {
            return Err(EngineError::operator(
                "MEMORY_STREAM_IN_USE",
                "a memory stream feeds one query at a time",
                "Stop that query first, or create another stream",
            ));
        }
        let mut queue = shared.queue();
        let lost = !std::mem::replace(&mut queue.drawn, true);
        let emitted = queue.base;
        drop(queue);
        Ok(MemorySource {
            stream: self.clone(),
            part,
            env,
            emitted,
            records: 0,
            staged: Rows::new(),
            uncommitted: Rows::new(),
            bound: None,
            as_of_start: None,
            lost,
        })
    }
}

/// The source of one part of a [`MemoryStream`].
pub struct MemorySource {
    stream: MemoryStream,
    part: usize,
    env: Arc<dyn Env>,
    emitted: u64,
    /// The number of rows emitted in this run.
    records: u64,
    staged: Rows,
    /// Emitted rows that are not committed. They return to the stream when the query ends.
    uncommitted: Rows,
    bound: Option<u64>,
    as_of_start: Option<u64>,
    /// Whether the checkpoint's positions belong to a stream of an earlier process.
    lost: bool,
}

impl MemorySource {
    fn shared(&self) -> &Shared {
        &self.stream.parts[self.part]
    }

    fn stage(&mut self) -> bool {
        let mut queue = self.stream.parts[self.part].queue();
        let taken = queue.rows.len() as u64;
        queue.base += taken;
        self.staged.append(&mut queue.rows);
        queue.closed
    }
}

impl Drop for MemorySource {
    fn drop(&mut self) {
        let shared = &self.stream.parts[self.part];
        let mut queue = shared.queue();
        let back = self.uncommitted.len() + self.staged.len();
        queue.base -= back as u64;
        self.uncommitted.append(&mut self.staged);
        self.uncommitted.append(&mut queue.rows);
        queue.rows = std::mem::take(&mut self.uncommitted);
        drop(queue);
        *shared.reader() = None;
        shared.claimed.store(false, Ordering::Release);
    }
}

impl<D: for<'a> Push<Row<'a>>> Source<D> for MemorySource {
    fn name(&self) -> &str {
        "memory"
    }

    fn attach(&mut self, io: &mut Io<'_>) -> Result<(), EngineError> {
        *self.shared().reader() = Some((self.env.clone(), io.waker.clone()));
        Ok(())
    }

    fn poll(&mut self, down: &mut D, cx: &mut StepCx<'_>) -> Result<Polled, EngineError> {
        let mut closed = false;
        if self.bound.is_none() && self.staged.is_empty() {
            closed = self.stage();
        }
        let before = self.emitted;
        while self.emitted - before < cx.budget as u64
            && self.bound.is_none_or(|bound| self.emitted < bound)
            && down.is_ready()
        {
            let Some((row, ingest_ns)) = self.staged.pop_front() else { break };
            self.emitted += 1;
            self.records += 1;
            let pushed = down.push(Row(&row), ingest_ns);
            // Also the row that failed: it returns to the stream with the others.
            self.uncommitted.push_back((row, ingest_ns));
            pushed?;
        }
        if self.bound.is_some_and(|bound| self.emitted >= bound) {
            self.bound = None;
            return Ok(Polled::AtEndOffset);
        }
        Ok(match (self.emitted > before, closed) {
            (true, _) => Polled::Emitted,
            (false, true) if self.staged.is_empty() => Polled::Exhausted,
            (false, _) => Polled::Idle,
        })
    }

    fn position(&self) -> Offset {
        Offset(self.emitted.to_string())
    }

    fn records_emitted(&self) -> u64 {
        self.records
    }

    fn resume(&mut self, at: &Offset) -> Result<(), EngineError> {
        let at = at.number()?;
        let shared = &self.stream.parts[self.part];
        let mut queue = shared.queue();
        if !self.lost {
            // Removes rows that the previous query had committed but had not removed.
            let done = at.saturating_sub(queue.base).min(queue.rows.len() as u64);
            queue.rows.drain(..done as usize);
        }
        queue.base = at;
        self.emitted = at;
        Ok(())
    }

    fn plan(&mut self, extent: ReadLimit, _cx: &mut StepCx<'_>) -> Result<EndOffset, EngineError> {
        let exhausted = self.stage();
        let all = self.emitted + self.staged.len() as u64;
        let end = match extent {
            ReadLimit::AvailableAtStart => (*self.as_of_start.get_or_insert(all)).max(self.emitted),
            ReadLimit::All | ReadLimit::RateLimited => all,
        };
        Ok(EndOffset {
            end: Offset(end.to_string()),
            has_new: end > self.emitted,
            exhausted,
            limited: false,
        })
    }

    fn set_end_offset(&mut self, end: &Offset) -> Result<(), EngineError> {
        let end = end.number()?;
        self.bound = Some(end);
        if self.emitted + (self.staged.len() as u64) < end {
            self.stage();
        }
        if self.emitted + (self.staged.len() as u64) < end {
            // The batch's rows belonged to an earlier process and are lost. Rows in the stream are
            // new ones.
            self.emitted = end;
            self.shared().queue().base = end + self.staged.len() as u64;
        }
        Ok(())
    }

    fn on_committed(&mut self, end: &Offset) -> Result<(), EngineError> {
        let kept = self.emitted - end.number()?.min(self.emitted);
        let done = self.uncommitted.len().saturating_sub(kept as usize);
        self.uncommitted.drain(..done);
        Ok(())
    }
}

/// A result table in memory, shared by its clones.
#[derive(Clone)]
pub struct MemoryTable {
    schema: Schema,
    rows: Arc<Mutex<Vec<Vec<Value>>>>,
    /// Changes with each change of the rows.
    version: Arc<AtomicU64>,
}

/// A version number that no table has used before.
fn next_version() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    // ORDERING: relaxed: only uniqueness of the numbers matters.
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl MemoryTable {
    /// Creates an empty table with this schema.
    pub fn new(schema: Schema) -> Self {
        Self { schema, rows: Arc::default(), version: Arc::new(next_version().into()) }
    }

    /// The schema of the table.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// Whether this is a clone of the same table.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.rows, &other.rows)
    }

    /// A copy of its rows.
    pub fn rows(&self) -> Vec<Vec<Value>> {
        self.rows.lock().unwrap_or_else(|p| p.into_inner()).clone()
    }

    /// Adds rows, each with a value for each column of the schema.
    pub(crate) fn add(&self, rows: Vec<Vec<Value>>) {
        self.rows.lock().unwrap_or_else(|p| p.into_inner()).extend(rows);
        self.changed();
    }

    /// Replaces the rows.
    pub(crate) fn replace(&self, rows: Vec<Vec<Value>>) {
        *self.rows.lock().unwrap_or_else(|p| p.into_inner()) = rows;
        self.changed();
    }

    /// Removes and returns its rows.
    pub fn take(&self) -> Vec<Vec<Value>> {
        let rows = std::mem::take(&mut *self.rows.lock().unwrap_or_else(|p| p.into_inner()));
        self.changed();
        rows
    }

    /// The version of the rows. It changes when rows are added or removed.
    pub(crate) fn version(&self) -> u64 {
        // ORDERING: acquire: a reader of the version also sees the rows of that version.
        self.version.load(Ordering::Acquire)
    }

    fn changed(&self) {
        // ORDERING: release: publishes the rows together with the version.
        self.version.store(next_version(), Ordering::Release);
    }

    /// Creates a sink that fills the table. In output mode complete each epoch's rows replace the
    /// earlier ones; an epoch without rows leaves them, unless `whole` tells that the result is
    /// empty.
    pub fn sink(
        &self,
        mode: OutputMode,
        whole: TableSignal,
        latency: LatencyRecorder,
    ) -> MemorySink {
        let types = self.schema.fields.iter().map(|f| f.data_type.clone()).collect();
        let complete = mode == OutputMode::Complete;
        MemorySink { table: self.clone(), types, complete, whole, pending: Vec::new(), latency }
    }
}

/// The sink that fills a [`MemoryTable`].
pub struct MemorySink {
    table: MemoryTable,
    types: Vec<DataType>,
    complete: bool,
    whole: TableSignal,
    pending: Vec<Vec<Value>>,
    latency: LatencyRecorder,
}

impl MemorySink {
    fn deliver(&mut self) {
        if !self.pending.is_empty() {
            let mut rows = self.table.rows.lock().unwrap_or_else(|p| p.into_inner());
            if self.complete {
                rows.clear();
            }
            rows.append(&mut self.pending);
            drop(rows);
            self.table.changed();
        }
        self.latency.record_pending();
    }

    /// Ends an epoch of mode complete.
    fn deliver_whole(&mut self) {
        let is_empty = self.whole.take() && self.pending.is_empty();
        if is_empty && !self.table.rows.lock().unwrap_or_else(|p| p.into_inner()).is_empty() {
            self.table.take();
        }
        self.deliver();
    }
}

impl Stage for MemorySink {
    fn is_ready(&mut self) -> bool {
        true
    }
    fn watermark(&mut self, _micros: i64) -> Result<(), EngineError> {
        Ok(())
    }
    fn marker(&mut self, _epoch: Epoch) -> Result<(), EngineError> {
        match self.complete {
            true => self.deliver_whole(),
            false => self.deliver(),
        }
        self.latency.publish();
        Ok(())
    }
    fn end(&mut self) -> Result<(), EngineError> {
        Ok(())
    }
    fn flush(&mut self) -> Result<FlushStatus, EngineError> {
        if !self.complete {
            self.deliver();
        }
        Ok(FlushStatus::Flushed)
    }

    fn next_timer_ns(&self) -> Option<u64> {
        None
    }
}

impl<'a> Push<Row<'a>> for MemorySink {
    fn push(&mut self, row: Row<'a>, ingest_ns: u64) -> Result<(), EngineError> {
        self.pending.push(decode(row, self.types.iter()));
        self.latency.add_pending(ingest_ns);
        Ok(())
    }
}
