//! A capture as the source of a typed stream.

use crate::connect::bad_records::BadRecords;
use crate::connect::capture::config::CaptureConfig;
use crate::connect::capture::source::CaptureSource;
use crate::stream::{CheckpointManifest, Flow, Recipe, Stream};
use crate::table::row::{Row, Slot};
use millstream_engine::capture::Direction;
use millstream_engine::error::EngineError;
use millstream_engine::runtime::job::Job;
use millstream_engine::runtime::stage::{Push, Stage};
use millstream_engine::runtime::tasklet::SourceTasklet;
use std::marker::PhantomData;
use std::path::Path;

/// A capture and the options for reading it. Passed to [`Flow::capture`].
#[derive(Clone, Debug)]
pub struct Capture {
    options: Vec<(String, String)>,
    /// The counter of records that are left out; `None` if they are not counted.
    bad: Option<BadRecords>,
}

/// A record of a capture: a line of a recorded connection, or a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CapturedRecord<'a> {
    /// The record, without its line end.
    pub text: &'a str,
    /// The recorded time at which the record was complete, in microseconds since 1970.
    pub time_us: i64,
}

impl Capture {
    /// Reads the capture in a file, or all captures in a folder. By default records are emitted
    /// without waiting, and only the data sent to the recorded service is read.
    pub fn new(path: impl AsRef<Path>) -> Self {
        let (options, bad) = (Vec::new(), None);
        Self { options, bad }.option("path", path.as_ref().display())
    }

    /// Emits each record at `start + (t - t0) / factor`. Latency is then measured from that time.
    pub fn speed(self, factor: f64) -> Self {
        self.option("speed", factor)
    }

    /// Reads only records at or after this time, in nanoseconds since 1970.
    pub fn from_ns(self, ns: i64) -> Self {
        self.option("from", ns)
    }

    /// Reads only records before this time, in nanoseconds since 1970.
    pub fn to_ns(self, ns: i64) -> Self {
        self.option("to", ns)
    }

    /// Reads only these connections. Each recording of a folder counts its connections from 0.
    pub fn connections(self, numbers: &[u32]) -> Self {
        let numbers: Vec<_> = numbers.iter().map(u32::to_string).collect();
        self.option("connection", numbers.join(","))
    }

    /// The direction to read: [`In`](Direction::In) is towards the recorded service.
    pub fn direction(self, direction: Direction) -> Self {
        self.option("direction", if direction == Direction::In { "in" } else { "out" })
    }

    /// Sets any other option of the SQL source `capture`, such as `lineSep` or `maxLineLength`. The
    /// last value of an option counts.
    pub fn option(mut self, name: &str, value: impl std::fmt::Display) -> Self {
        self.options.push((name.to_string(), value.to_string()));
        self
    }

    /// Counts in `bad` the records that are left out, and keeps the last few of them with the
    /// reason. Left out are records that are too long, not UTF-8 or incomplete, and damaged parts
    /// of the file. Without this call they are left out silently. After a restart the count starts
    /// from 0.
    pub fn bad_records(mut self, bad: &BadRecords) -> Self {
        self.bad = Some(bad.clone());
        self
    }

    /// Opens the capture.
    fn open(&self) -> Result<CaptureSource, EngineError> {
        let times = ("includeTimestamp".to_string(), "true".to_string());
        let options: Vec<_> = self.options.iter().cloned().chain([times]).collect();
        let mut source = CaptureConfig::read(&options)?.open()?;
        if let Some(bad) = &self.bad {
            source.count_bad_records(bad.clone());
        }
        Ok(source)
    }
}

impl<C: 'static> Flow<C> {
    /// A source that reads recorded traffic, as `USING capture` does in SQL. `make` converts each
    /// recorded line or datagram to a record of the stream. The stream ends with the capture.
    ///
    /// Records and their order depend on the capture and its options alone. A restart from a
    /// checkpoint continues after the last committed record. Incomplete records, lines that are too
    /// long and records that are not UTF-8 are left out. The last line of a closed connection is
    /// complete without a line end. [`Capture::bad_records`] counts the records that are left out.
    ///
    /// ```
    /// use millstream::Config;
    /// use millstream::connect::capture::Capture;
    /// use millstream::engine::capture::{CaptureWriter, Direction, Head, Kind, WriterOptions};
    /// use millstream::stream::{Count, Flow};
    ///
    /// # let name = format!("millstream-doc-{}.capture", std::process::id());
    /// # let path = std::env::temp_dir().join(name);
    /// // Two clients, a line each second. `millstream capture` records real ones.
    /// let mut recording = CaptureWriter::new(std::fs::File::create(&path)?, &WriterOptions::default())?;
    /// for (second, line) in ["GET /", "GET /a", "PUT /a"].iter().enumerate() {
    ///     let ns = second as u64 * 1_000_000_000;
    ///     let (connection, direction, kind) = (second as u32 % 2, Direction::In, Kind::Data);
    ///     let head = Head {
    ///         position: 0, lines: 0, mono_ns: ns, wall_ns: ns as i64, connection, direction, kind,
    ///         flags: 0,
    ///     };
    ///     recording.append(&head, format!("{line}\n").as_bytes())?;
    /// }
    /// recording.finish()?;
    ///
    /// let flow = Flow::new("methods");
    /// let requests = flow.capture(&Capture::new(&path).from_ns(1_000_000_000), |record| {
    ///     let method = record.text.split(' ').next().unwrap_or_default();
    ///     (record.time_us, method.to_string())
    /// })?;
    /// let (sink, mut output) = flow.output();
    /// requests.map(|(_, method)| method).key_by(String::clone).aggregate(Count).sink(sink);
    /// flow.start(Config::default())?.await_termination()?;
    /// assert_eq!(output.try_recv(), Some(("GET".to_string(), 1)));
    /// assert_eq!(output.try_recv(), Some(("PUT".to_string(), 1)));
    /// # std::fs::remove_file(&path)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn capture<T, F>(
        &self,
        capture: &Capture,
        make: F,
    ) -> Result<Stream<impl Recipe<Item = T> + use<T, F, C>, C>, EngineError>
    where
        T: Send + 'static,
        F: FnMut(CapturedRecord<'_>) -> T + Send + 'static,
    {
        Ok(self.stream(FromCapture { source: capture.open()?, make, item: PhantomData }))
    }
}

/// Builds the source tasklet of a stream that reads a capture.
struct FromCapture<F, T> {
    source: CaptureSource,
    make: F,
    item: PhantomData<fn() -> T>,
}

impl<T, F> Recipe for FromCapture<F, T>
where
    T: Send + 'static,
    F: FnMut(CapturedRecord<'_>) -> T + Send + 'static,
{
    type Item = T;
    fn build<D: Push<T> + 'static>(
        self,
        job: &mut Job,
        _parallelism: usize,
        chain: &mut dyn FnMut(&mut Job, usize) -> D,
    ) {
        let down = MakeRecords { down: chain(job, 0), make: self.make, item: PhantomData };
        let port = job.source_port(0);
        job.add_tasklet(0, Box::new(SourceTasklet::new(port, self.source, down)));
    }
    fn places(&self, _job: &Job, _parallelism: usize) -> Vec<usize> {
        vec![0]
    }
    fn describe(&self, kept: &mut CheckpointManifest) {
        kept.add_source("capture");
    }
    fn has_event_time(&self) -> bool {
        false
    }
}

/// Converts the rows of the capture source to the stream's records.
struct MakeRecords<D, F, T> {
    down: D,
    make: F,
    item: PhantomData<fn() -> T>,
}

impl<D: Stage, F: Send, T> Stage for MakeRecords<D, F, T> {
    millstream_engine::pass_control!(down);
}

impl<'a, D, F, T> Push<Row<'a>> for MakeRecords<D, F, T>
where
    D: Push<T>,
    F: FnMut(CapturedRecord<'_>) -> T + Send,
{
    #[inline]
    fn push(&mut self, row: Row<'a>, ingest_ns: u64) -> Result<(), EngineError> {
        // The source rejects records that are not UTF-8. A row holds bytes, so they are checked
        // again.
        let text = std::str::from_utf8(row.bytes(Slot::new(0, 2))).map_err(|error| {
            EngineError::operator("INVALID_UTF8", format!("a captured record: {error}"), "")
        })?;
        let record = CapturedRecord { text, time_us: row.long(Slot::new(1, 2)) };
        self.down.push((self.make)(record), ingest_ns)
    }
}
