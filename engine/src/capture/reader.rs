//! Reads a capture file event by event, from its start or from a time on.
//!
//! A footer is not needed: the file of a killed writer is read up to the last complete block. A
//! damaged part is reported, with the number of lost events if it is known. Reading continues after
//! it.
//!
//! *Memory.* A window of the file, one decompressed block, and during a search the index.
//! *Threads.* One.

use super::format::{
    FILE_HEADER_BYTES, FileHeader, HEAD_BYTES, Head, Kind, MAX_PAYLOAD, NoBlock, Summary,
    TRAILER_BYTES, TRAILER_MAGIC, block_bytes, decode, u32_at, u64_at,
};
use super::index::{self, Entry, Time};
use crate::checkpoint::log_entry::{Fault, OTHER_VERSION, OTHER_VERSION_FIX};
use crate::error::EngineError;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

/// Size of a read, in bytes. A window of this size stays in the processor's second-level cache.
const WINDOW_BYTES: usize = 256 << 10;
/// Size of a mark, in bytes.
const MARK_BYTES: usize = HEAD_BYTES + Summary::BYTES;

/// The next item of a capture file.
#[derive(Debug, PartialEq, Eq)]
pub enum Item<'b> {
    /// An event and its payload.
    Event(Head, &'b [u8]),
    /// A part of the file that cannot be read, or missing events.
    Damage(Damage),
}

/// A damaged part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Offset of the first byte that cannot be read.
    pub at: u64,
    /// Offset at which reading continues, or the end of the file.
    pub until: u64,
    /// The number of events in the damaged part, if it is known.
    pub events: Option<u64>,
    /// The kind of damage.
    pub what: &'static str,
}

/// The location of an event in a file, at which reading can continue later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Offset of the block that contains the event: the compressed block if the file is compressed.
    pub block: u64,
    /// Index of the event within that block.
    pub index: u64,
    /// Number of the file's events before that block.
    pub events_before: u64,
}

/// Reads one capture file, event by event.
pub struct CaptureReader<R> {
    input: R,
    name: String,
    header: FileHeader,
    file_bytes: u64,
    /// Bytes that were read and not consumed: `buffer[start..filled]`, which begins at `offset` in
    /// the file. The buffer keeps its length, so that a read does not have to clear it.
    buffer: Vec<u8>,
    start: usize,
    filled: usize,
    offset: u64,
    /// The decompressed bytes of the current compressed block.
    unpacked: Vec<u8>,
    unpacked_at: usize,
    unpacker: Unpacker,
    /// The location of the next event in the decompressed block.
    unpacked_place: Place,
    /// The number of events before the next one, as far as it is known.
    events: u64,
    /// Offset of the end block, totals, and offset of the index; `None` if the file was not closed
    /// properly.
    end: Option<(u64, Summary, u64)>,
    at_end: bool,
}

impl CaptureReader<File> {
    /// Opens a capture file. An error if the file cannot be read or is not a capture.
    pub fn open(path: &Path) -> Result<Self, EngineError> {
        let name = path.display().to_string();
        let file = File::open(path).map_err(|error| unreadable(&name, &error))?;
        Self::new(file, name)
    }
}

fn unreadable(name: &str, error: &io::Error) -> EngineError {
    let fix = "Check the path, its permissions and its disk";
    EngineError::operator("CAPTURE_UNREADABLE", format!("cannot read {name}: {error}"), fix)
}

/// A block in the window or in the decompressed block: its head and the range of its payload.
struct Found {
    head: Head,
    from: usize,
    to: usize,
    is_unpacked: bool,
}

enum Step {
    Event(Found),
    Damage(Damage),
    Again,
    End,
}

impl<R: Read + Seek> CaptureReader<R> {
    /// Reads the header, and the totals if the file was closed properly. `name` is used in error
    /// messages. The error is `NOT_A_CAPTURE` if the header is missing or damaged.
    pub fn new(mut input: R, name: impl Into<String>) -> Result<Self, EngineError> {
        let name = name.into();
        let fails = |error: &io::Error| unreadable(&name, error);
        let file_bytes = input.seek(SeekFrom::End(0)).map_err(|error| fails(&error))?;
        input.seek(SeekFrom::Start(0)).map_err(|error| fails(&error))?;
        let mut first = Vec::with_capacity(FILE_HEADER_BYTES);
        let read = (&mut input).take(FILE_HEADER_BYTES as u64).read_to_end(&mut first);
        read.map_err(|error| fails(&error))?;
        let header = FileHeader::decode(&first).map_err(|fault| match fault {
            Fault::Damaged(what) => EngineError::operator(
                "NOT_A_CAPTURE",
                format!("{name} cannot be read as a capture: {what}"),
                "Packet captures (pcap, pcapng) are converted by `millstream import-pcap`",
            ),
            Fault::OtherVersion => EngineError::operator(
                "CAPTURE_VERSION_UNSUPPORTED",
                format!("{name} was written by {OTHER_VERSION}"),
                OTHER_VERSION_FIX,
            ),
        })?;
        let mut reader = Self {
            input,
            name,
            header,
            file_bytes,
            buffer: Vec::new(),
            start: 0,
            filled: 0,
            offset: 0,
            unpacked: Vec::new(),
            unpacked_at: 0,
            unpacker: Unpacker::default(),
            unpacked_place: Place::default(),
            events: 0,
            end: None,
            at_end: false,
        };
        reader.end = reader.read_end()?;
        reader.go_to(header.bytes() as u64, 0)?;
        Ok(reader)
    }

    /// The header of the file.
    pub fn header(&self) -> &FileHeader {
        &self.header
    }

    /// Totals of a file that was closed properly; `None` after a crash.
    pub fn summary(&self) -> Option<&Summary> {
        self.end.as_ref().map(|(_, summary, _)| summary)
    }

    /// Size of the file, in bytes.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// Offset of the next block in the file.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The location of the next event.
    pub fn place(&self) -> Place {
        if self.unpacked_at < self.unpacked.len() {
            return self.unpacked_place;
        }
        Place { block: self.offset, index: 0, events_before: self.events }
    }

    /// Continues at a location that [`Self::place`] has returned for this file; at the end, if the
    /// file has become shorter.
    pub fn go_to_place(&mut self, place: Place) -> Result<(), EngineError> {
        self.go_to(place.block, place.events_before)?;
        for _ in 0..place.index {
            if matches!(self.step_to_item()?, Step::End) {
                break;
            }
        }
        Ok(())
    }

    /// Skips blocks that are neither an event nor damage.
    fn step_to_item(&mut self) -> Result<Step, EngineError> {
        loop {
            match self.step()? {
                Step::Again => {}
                found => return Ok(found),
            }
        }
    }

    /// Reads the next event, or a report of damage. `None` at the end of the file.
    pub fn next_item(&mut self) -> Result<Option<Item<'_>>, EngineError> {
        loop {
            match self.step()? {
                Step::Event(Found { head, from, to, is_unpacked }) => {
                    let bytes = if is_unpacked { &self.unpacked } else { &self.buffer };
                    return Ok(Some(Item::Event(head, &bytes[from..to])));
                }
                Step::Damage(damage) => return Ok(Some(Item::Damage(damage))),
                Step::Again => {}
                Step::End => return Ok(None),
            }
        }
    }

    /// Moves to a mark before which all events are earlier than this wall-clock time, or to the
    /// first event if there is none. Earlier events may follow.
    pub fn seek_wall_ns(&mut self, ns: i64) -> Result<(), EngineError> {
        self.seek(Time::Wall(ns))
    }

    /// Like [`Self::seek_wall_ns`], with a monotonic time.
    pub fn seek_mono_ns(&mut self, ns: u64) -> Result<(), EngineError> {
        self.seek(Time::Mono(ns))
    }

    /// The totals of everything before the last intact mark in `after + 1..=until`, or of the whole
    /// file if its end block lies there. `None` if there is neither, and for files without marks at
    /// fixed offsets. Moves the reader.
    pub fn totals_between(
        &mut self,
        after: u64,
        until: u64,
    ) -> Result<Option<Summary>, EngineError> {
        let stride = u64::from(self.header.stride_bytes);
        if stride == 0 {
            return Ok(None);
        }
        if let Some((end_at, summary, _)) = self.end
            && (after + 1..=until).contains(&end_at)
        {
            return Ok(Some(summary));
        }
        let mut mark = until.min(self.file_bytes) / stride;
        while mark * stride > after {
            self.go_to(mark * stride, 0)?;
            if let Some(totals) = self.mark_totals()? {
                return Ok(Some(totals));
            }
            mark -= 1;
        }
        Ok(None)
    }

    fn step(&mut self) -> Result<Step, EngineError> {
        if self.unpacked_at < self.unpacked.len() {
            return Ok(self.step_unpacked());
        }
        if self.at_end {
            return Ok(Step::End);
        }
        self.fill(HEAD_BYTES)?;
        let mut outcome = decode(self.window(), self.header.version);
        if let Err(NoBlock::Short { need }) = outcome {
            self.fill(need)?;
            outcome = decode(self.window(), self.header.version);
        }
        match outcome {
            Ok((head, length)) => self.take_block(head, length),
            Err(NoBlock::Empty) => self.skip_empty(),
            Err(NoBlock::Short { .. }) if self.filled == self.start => {
                self.at_end = true;
                Ok(Step::End)
            }
            Err(NoBlock::Short { .. }) => self.resync("the file ends within a block"),
            Err(NoBlock::Damaged) => self.resync("a block does not match its CRC"),
        }
    }

    fn step_unpacked(&mut self) -> Step {
        let at = self.unpacked_at;
        let Ok((head, length)) = decode(&self.unpacked[at..], 2) else {
            self.unpacked_at = self.unpacked.len();
            let what = "a compressed block contains data other than blocks";
            let until = self.offset;
            return Step::Damage(Damage { at: until, until, events: None, what });
        };
        self.unpacked_at = (at + block_bytes(length)).min(self.unpacked.len());
        if !head.kind.is_event() {
            return Step::Again;
        }
        self.events += 1;
        self.unpacked_place.index += 1;
        let from = at + HEAD_BYTES;
        Step::Event(Found { head, from, to: from + length, is_unpacked: true })
    }

    fn take_block(&mut self, head: Head, length: usize) -> Result<Step, EngineError> {
        let (at, from) = (self.offset, self.start + HEAD_BYTES);
        let found = Found { head, from, to: from + length, is_unpacked: false };
        // The zeros after the last block may be cut off.
        self.consume(block_bytes(length).min(self.filled - self.start));
        if head.kind.is_event() {
            self.events += 1;
            return Ok(Step::Event(found));
        }
        let payload = &self.buffer[found.from..found.to];
        match head.kind {
            Kind::Mark | Kind::End => {
                self.at_end = head.kind == Kind::End;
                let known = Summary::decode(&head, payload).events;
                let missing = known.checked_sub(self.events).filter(|missing| *missing > 0);
                self.events = known;
                Ok(missing.map_or(Step::Again, |missing| {
                    let what = "events are missing";
                    Step::Damage(Damage { at, until: at, events: Some(missing), what })
                }))
            }
            Kind::Compressed => {
                self.unpacked_at = 0;
                self.unpacked_place = Place { block: at, index: 0, events_before: self.events };
                match self.unpacker.unpack(payload, head.position, &mut self.unpacked) {
                    Ok(()) => Ok(Step::Again),
                    Err(what) => {
                        self.unpacked.clear();
                        let until = self.offset;
                        Ok(Step::Damage(Damage { at, until, events: None, what }))
                    }
                }
            }
            _ => Ok(Step::Again),
        }
    }

    /// Skips bytes that were never written: the rest of a stride, or of the file. If they are not
    /// all zero, they are reported as damage.
    fn skip_empty(&mut self) -> Result<Step, EngineError> {
        let at = self.offset;
        let until = match u64::from(self.header.stride_bytes) {
            0 => self.file_bytes,
            stride => ((at / stride + 1) * stride).min(self.file_bytes),
        };
        let mut is_zero = true;
        while self.offset < until {
            self.fill(1)?;
            let here = (self.filled - self.start).min((until - self.offset) as usize);
            if here == 0 {
                break;
            }
            is_zero &= self.buffer[self.start..self.start + here].iter().all(|byte| *byte == 0);
            self.consume(here);
        }
        if is_zero {
            return Ok(Step::Again);
        }
        let what = "there are bytes after the last written block";
        Ok(Step::Damage(Damage { at, until, events: self.events_before_mark()?, what }))
    }

    /// Continues after the damaged block if another block begins where its length ends, otherwise
    /// at the next intact mark, or at the end of the file. The report has the number of missing
    /// events, if it is known.
    fn resync(&mut self, what: &'static str) -> Result<Step, EngineError> {
        let at = self.offset;
        let stride = u64::from(self.header.stride_bytes);
        if let Some(bytes) = self.length_of_damaged()? {
            // Marks are located where events cannot be, so the location tells whether the damaged
            // block was an event. Only events are counted.
            let is_mark = at.checked_rem(stride) == Some(0) || self.header.compressed;
            let events = u64::from(!is_mark);
            self.events += events;
            self.consume(bytes);
            let events = (!self.header.compressed).then_some(events);
            return Ok(Step::Damage(Damage { at, until: self.offset, events, what }));
        }
        if self.header.compressed {
            self.scan()?;
        } else {
            // If there is no mark, reading continues at the end of the file.
            let mut boundary = at.checked_div(stride).map_or(u64::MAX, |n| (n + 1) * stride);
            let mut is_found = false;
            while !is_found && boundary < self.file_bytes {
                self.go_to(boundary, self.events)?;
                is_found = self.mark()?.is_some();
                boundary += stride;
            }
            if !is_found {
                self.go_to(self.file_bytes, self.events)?;
            }
        }
        let events = self.events_before_mark()?;
        Ok(Step::Damage(Damage { at, until: self.offset, events, what }))
    }

    /// The size of the damaged block at the current offset, if an intact block follows at its end.
    /// `None` otherwise, because then the length itself may be damaged.
    fn length_of_damaged(&mut self) -> Result<Option<usize>, EngineError> {
        self.fill(HEAD_BYTES)?;
        let length = (u32_at(self.window(), 0) as usize).saturating_sub(1);
        if length > MAX_PAYLOAD {
            return Ok(None);
        }
        let bytes = block_bytes(length);
        let mut need = bytes + HEAD_BYTES;
        loop {
            if self.fill(need)? < need {
                return Ok(None);
            }
            match decode(&self.window()[bytes..], self.header.version) {
                Ok(_) => return Ok(Some(bytes)),
                Err(NoBlock::Short { need: more }) if bytes + more > need => need = bytes + more,
                Err(_) => return Ok(None),
            }
        }
    }

    /// Moves to the next intact mark, which may be at any multiple of eight bytes; to the end of
    /// the file if there is none.
    fn scan(&mut self) -> Result<(), EngineError> {
        loop {
            self.fill(8)?;
            let step = 8.min(self.filled - self.start);
            if step == 0 {
                return Ok(());
            }
            self.consume(step);
            if self.fill(MARK_BYTES)? >= MARK_BYTES
                && u32_at(self.window(), 0) as usize == Summary::BYTES + 1
                && self.mark()?.is_some()
            {
                return Ok(());
            }
        }
    }

    /// The mark at the current offset; `None` if there is no intact mark.
    fn mark(&mut self) -> Result<Option<Entry>, EngineError> {
        let totals = self.mark_totals()?;
        Ok(totals.map(|totals| Entry::new(self.offset, &totals)))
    }

    /// The totals in the mark at the current offset; `None` if there is no intact mark.
    fn mark_totals(&mut self) -> Result<Option<Summary>, EngineError> {
        self.fill(MARK_BYTES)?;
        let bytes = self.window();
        Ok(match decode(bytes, self.header.version) {
            // A mark contains its own offset, so a copy of a mark in a payload is not mistaken for
            // one.
            Ok((head, length)) if head.kind == Kind::Mark && head.position == self.offset => {
                let payload = &bytes[HEAD_BYTES..HEAD_BYTES + length];
                Some(Summary::decode(&head, payload))
            }
            _ => None,
        })
    }

    /// The number of missing events: the count in the mark at the current offset, or at the end of
    /// the file, minus the events that were read. `None` if there is no such count. Events are
    /// counted from the mark's count on.
    fn events_before_mark(&mut self) -> Result<Option<u64>, EngineError> {
        let known = match self.mark()? {
            Some(mark) => Some(mark.events),
            None if self.offset >= self.file_bytes => {
                self.end.map(|(_, summary, _)| summary.events)
            }
            None => None,
        };
        let missing = known.map(|known| known.saturating_sub(self.events));
        self.events = known.unwrap_or(self.events);
        Ok(missing)
    }

    fn seek(&mut self, time: Time) -> Result<(), EngineError> {
        let first = self.header.bytes() as u64;
        let stride = u64::from(self.header.stride_bytes);
        let index = match &self.end {
            Some((_, _, index_at)) if self.header.compressed => self.read_index(*index_at)?,
            _ => Vec::new(),
        };
        let (mut offset, mut events) = (first, 0);
        if stride > 0 {
            if let Some(mark) = self.search_strides(time, stride)? {
                (offset, events) = (mark.offset, mark.events);
            }
        } else if !index.is_empty() {
            let after = index.partition_point(|entry| entry.is_before(time));
            if let Some(entry) = after.checked_sub(1).and_then(|at| index.get(at)) {
                (offset, events) = (entry.offset, entry.events);
            }
        } else if self.header.compressed
            && let Some(mark) = self.hop(time, first)?
        {
            (offset, events) = (mark.offset, mark.events);
        }
        self.go_to(offset, events)
    }

    /// Finds the last mark before which all events are earlier than `time`, by binary search over
    /// the strides. `None` if there is none after the first stride. Damaged marks are not found.
    fn search_strides(&mut self, time: Time, stride: u64) -> Result<Option<Entry>, EngineError> {
        let data_end = self.end.map_or(self.file_bytes, |(at, ..)| at);
        // Marks 1 to `high` exist, except where the file is damaged.
        let (mut low, mut high, mut best) = (0, data_end.saturating_sub(1) / stride, None);
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            // If a mark is damaged, the search uses the nearest intact mark below it.
            let (mut at, mut mark) = (middle, None);
            while at > low && mark.is_none() {
                self.go_to(at * stride, 0)?;
                mark = self.mark()?;
                at -= u64::from(mark.is_none());
            }
            match mark {
                Some(mark) if mark.is_before(time) => {
                    low = middle;
                    best = Some(mark);
                }
                Some(_) => high = at - 1,
                None => high = low,
            }
        }
        Ok(best)
    }

    /// Finds the last mark before which all events are earlier than `time`, by skipping from block
    /// head to block head. Stops at the first damaged mark. `None` if there is no such mark. For a
    /// compressed file without an index.
    fn hop(&mut self, time: Time, first: u64) -> Result<Option<Entry>, EngineError> {
        let (mut at, mut best) = (first, None);
        loop {
            self.go_to(at, 0)?;
            let Some(mark) = self.mark()? else { return Ok(best) };
            if !mark.is_before(time) {
                return Ok(best);
            }
            best = Some(mark);
            let packed = at + block_bytes(Summary::BYTES) as u64;
            self.consume(block_bytes(Summary::BYTES));
            if self.fill(HEAD_BYTES)? < HEAD_BYTES {
                return Ok(best);
            }
            let length = u32_at(self.window(), 0).saturating_sub(1) as usize;
            at = packed + block_bytes(length.min(MAX_PAYLOAD)) as u64;
        }
    }

    fn read_index(&mut self, at: u64) -> Result<Vec<Entry>, EngineError> {
        let mut found: Vec<Entry> = Vec::new();
        self.go_to(at, 0)?;
        loop {
            self.fill(HEAD_BYTES)?;
            let mut outcome = decode(self.window(), 2);
            if let Err(NoBlock::Short { need }) = outcome {
                self.fill(need)?;
                outcome = decode(self.window(), 2);
            }
            let Ok((head, length)) = outcome else { return Ok(found) };
            if head.kind != Kind::Index {
                return Ok(found);
            }
            let from = self.start + HEAD_BYTES;
            found.extend(index::entries(&self.buffer[from..from + length]));
            self.consume(block_bytes(length).min(self.filled - self.start));
            // Only a maliciously crafted file has more than 2^17 entries, or entries out of order.
            if found.len() > 1 << 17 || !found.is_sorted_by_key(|entry| entry.offset) {
                return Ok(Vec::new());
            }
        }
    }

    fn read_end(&mut self) -> Result<Option<(u64, Summary, u64)>, EngineError> {
        let Some(trailer) = self.file_bytes.checked_sub(TRAILER_BYTES as u64) else {
            return Ok(None);
        };
        self.go_to(trailer, 0)?;
        if self.fill(TRAILER_BYTES)? < TRAILER_BYTES {
            return Ok(None);
        }
        let bytes = self.window();
        let (at, magic) = (u64_at(bytes, 0), &bytes[8..16]);
        if magic != TRAILER_MAGIC || at >= trailer {
            return Ok(None);
        }
        self.go_to(at, 0)?;
        self.fill(block_bytes(Summary::BYTES + 8))?;
        let bytes = self.window();
        Ok(match decode(bytes, self.header.version) {
            Ok((head, length)) if head.kind == Kind::End && head.position == at => {
                let payload = &bytes[HEAD_BYTES..HEAD_BYTES + length];
                Some((at, Summary::decode(&head, payload), u64_at(payload, Summary::BYTES)))
            }
            _ => None,
        })
    }

    /// The bytes that were read and not consumed.
    #[inline]
    fn window(&self) -> &[u8] {
        &self.buffer[self.start..self.filled]
    }

    /// Reads until the window contains `need` bytes, or the file ends. A file that grows is read up
    /// to the length that it had when it was opened. Returns the number of bytes in the window.
    #[inline]
    fn fill(&mut self, need: usize) -> Result<usize, EngineError> {
        let have = self.filled - self.start;
        if have >= need { Ok(have) } else { self.read_more(need) }
    }

    fn read_more(&mut self, need: usize) -> Result<usize, EngineError> {
        let is_first = self.filled == 0;
        self.buffer.copy_within(self.start..self.filled, 0);
        (self.start, self.filled) = (0, self.filled - self.start);
        let rest = self.file_bytes.saturating_sub(self.offset);
        // The first read after a jump is small, so that a search reads little.
        let window = if is_first { 4096 } else { WINDOW_BYTES };
        let want = need.max(window).min(usize::try_from(rest).unwrap_or(usize::MAX));
        if self.buffer.len() < want {
            self.buffer.resize(want, 0);
        }
        while self.filled < need.min(want) {
            match self.input.read(&mut self.buffer[self.filled..want]) {
                Ok(0) => break,
                Ok(read) => self.filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(unreadable(&self.name, &error)),
            }
        }
        Ok(self.filled)
    }

    fn consume(&mut self, bytes: usize) {
        self.start += bytes;
        self.offset += bytes as u64;
    }

    fn go_to(&mut self, offset: u64, events: u64) -> Result<(), EngineError> {
        let sought = self.input.seek(SeekFrom::Start(offset));
        sought.map_err(|error| unreadable(&self.name, &error))?;
        self.unpacked.clear();
        (self.start, self.filled, self.unpacked_at) = (0, 0, 0);
        (self.offset, self.events, self.at_end) = (offset, events, false);
        Ok(())
    }
}

#[derive(Default)]
struct Unpacker {
    #[cfg(feature = "zstd")]
    decompressor: Option<zstd::bulk::Decompressor<'static>>,
}

impl Unpacker {
    /// Decompresses a block. `bytes` is the decompressed size that the block's head declares; any
    /// other size is an error, and so is one above [`MAX_PAYLOAD`].
    #[cfg(feature = "zstd")]
    fn unpack(&mut self, packed: &[u8], bytes: u64, out: &mut Vec<u8>) -> Result<(), &'static str> {
        out.clear();
        if bytes > MAX_PAYLOAD as u64 {
            return Err("the declared size of a compressed block is above the limit");
        }
        if self.decompressor.is_none() {
            self.decompressor = zstd::bulk::Decompressor::new().ok();
        }
        let decompressor = self.decompressor.as_mut().ok_or("zstd cannot be started")?;
        out.reserve_exact(bytes as usize);
        match decompressor.decompress_to_buffer(packed, out) {
            Ok(read) if read as u64 == bytes => Ok(()),
            _ => Err("a compressed block cannot be decompressed"),
        }
    }

    #[cfg(not(feature = "zstd"))]
    fn unpack(&mut self, _: &[u8], _: u64, out: &mut Vec<u8>) -> Result<(), &'static str> {
        out.clear();
        Err("the block is compressed, and this program was built without the feature zstd")
    }
}
