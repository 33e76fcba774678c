//! The capture source: reads events and emits their records, on schedule if it has one.
//!
//! Without a schedule, events that consist of whole lines are emitted from the reader's buffer.
//! Records of other events are staged first.

use super::config::CaptureConfig;
use super::framer::{At, Connections, Framer, TOO_LONG};
use super::input::{Input, Next};
use super::offset::{CaptureOffset, Consumed, Mark};
use super::pace::{Pace, SendLag};
use super::staged::{Content, Staged, Stretch};
use crate::connect::bad_records::BadRecords;
use crate::connect::socket::framing::line::LineEnds;
use crate::connect::source_counters::SourceCounters;
use crate::table::row::{Row, RowWriter};
use millstream_engine::capture::{CaptureReader, Clock, ConnectionInfo, Item, Kind, Protocol};
use millstream_engine::checkpoint::offset::Offset;
use millstream_engine::epoch::protocol::{EndOffset, ReadLimit};
use millstream_engine::error::EngineError;
use millstream_engine::runtime::stage::Push;
use millstream_engine::runtime::tasklet::{Polled, Source, StepCx};
use std::sync::atomic::Ordering;

/// The source spins instead of sleeping for this long before a record is due, because the system
/// wakes sleeping threads late by about this much.
const SPIN_NS: u64 = 150_000;

/// Reads a recording and emits its records.
pub struct CaptureSource {
    config: CaptureConfig,
    input: Input,
    framer: Framer,
    staged: Staged,
    pace: Option<Pace>,
    consumed: Consumed,
    /// A position at or before the first event of every staged record.
    staged_begin: Option<Mark>,
    /// The position at which the last event's first completed record began.
    last_begin: Mark,
    /// The offset of the checkpoint after a restart. Records before it are framed again but not
    /// emitted.
    resume_at: Option<Consumed>,
    bound: Option<Consumed>,
    /// Whether the whole recording has been read.
    at_end: bool,
    recording: u64,
    row: Vec<u8>,
    counters: SourceCounters,
}

/// What the rows of an event have in common.
struct Columns<'a> {
    config: &'a CaptureConfig,
    row: &'a mut Vec<u8>,
    /// The event's time, the column `timestamp`.
    wall_us: i64,
}

impl Columns<'_> {
    /// The row of a record.
    #[inline]
    fn row(&mut self, value: &[u8]) -> Row<'_> {
        self.row.clear();
        let width = if self.config.include_timestamp { 2 } else { 1 };
        let mut writer = RowWriter::new(self.row, width);
        writer.bytes(0, value);
        if self.config.include_timestamp {
            writer.long(1, self.wall_us);
        }
        Row(self.row)
    }
}

/// The result of emitting staged records.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Emitted {
    /// All staged records were emitted.
    All,
    /// The chain is full, the budget is used up, or the end of the batch is reached.
    Part,
    /// The next record is not due before this time, in nanoseconds.
    Until(u64),
}

impl CaptureConfig {
    /// Opens the recording.
    pub fn open(&self) -> Result<CaptureSource, EngineError> {
        let input = Input::open(self)?;
        let mut framer = Framer::new();
        if input.started_late() {
            framer.opened_before(datagrams_before(&input)?);
        }
        Ok(CaptureSource {
            config: self.clone(),
            recording: input.header().recording,
            input,
            framer,
            staged: Staged::default(),
            pace: self.speed.map(|speed| Pace::new(speed, self.schedule_start_ns)),
            consumed: Consumed::default(),
            staged_begin: None,
            last_begin: Mark::default(),
            resume_at: None,
            bound: None,
            at_end: false,
            row: Vec::new(),
            counters: SourceCounters::default(),
        })
    }
}

/// The connections that carry datagrams and are open where `input` starts. The open events at the
/// beginning of each file tell.
fn datagrams_before(input: &Input) -> Result<Connections, EngineError> {
    let (mut reader, place) = (CaptureReader::open(input.current_file())?, input.mark().place);
    // All connections of a recorder use one protocol; an imported file may mix both.
    let is_mixed = !matches!(input.header().clock, Clock::Read | Clock::Kernel);
    let mut found = Connections::default();
    while reader.place() < place
        && let Some(item) = reader.next_item()?
    {
        let Item::Event(head, payload) = item else { continue };
        match head.kind {
            Kind::Open => {
                let info = ConnectionInfo::decode(payload).unwrap_or_default();
                if info.protocol == Protocol::Udp {
                    found.insert(head.connection);
                } else if !is_mixed {
                    break;
                } else {
                    found.remove(&head.connection);
                }
            }
            Kind::Close => {
                found.remove(&head.connection);
            }
            _ => {}
        }
    }
    Ok(found)
}

impl CaptureSource {
    /// The counters, to be read from other threads.
    pub fn counters(&self) -> SourceCounters {
        self.counters.clone()
    }

    /// The send lag. `None` if `speed` is `max`.
    pub fn send_lag(&self) -> Option<SendLag> {
        self.pace.as_ref().map(Pace::send_lag)
    }

    /// Sets the counter of bad records, which a typed stream shares with its caller.
    pub(super) fn count_bad_records(&mut self, bad: BadRecords) {
        self.counters.bad = bad;
    }

    // ---- reading ----

    /// Reads the next event and stages its records. Returns whether there was one.
    fn read_event(&mut self) -> Result<bool, EngineError> {
        self.read_event_with(None::<fn(&[u8], Columns<'_>) -> Result<usize, EngineError>>)
    }

    /// Reads the next event. If it consists of whole lines, they are passed to `push`, which
    /// returns the number of bytes that it has taken. All other records are staged. Returns whether
    /// there was an event.
    fn read_event_with(
        &mut self,
        push: Option<impl FnOnce(&[u8], Columns<'_>) -> Result<usize, EngineError>>,
    ) -> Result<bool, EngineError> {
        if self.at_end {
            return Ok(false);
        }
        let mark = self.input.mark();
        let Self { config, framer, staged, staged_begin, last_begin, row, .. } = self;
        let (was_empty, mut is_past) = (staged.is_empty(), false);
        let next = self.input.next(|head, payload| {
            if let Some(push) = push
                && config.is_in_range(head)
                && framer.is_whole_lines(head, payload, config)
            {
                let wall_us = head.wall_ns.div_euclid(1000);
                let taken = push(payload, Columns { config, row, wall_us })?;
                if taken < payload.len() {
                    staged.bytes.extend_from_slice(&payload[taken..]);
                    let at = At { mark, wall_us, mono_ns: head.mono_ns };
                    staged.push(at.stretch(Content::Lines { is_text: true }));
                    (*staged_begin, *last_begin) = (Some(mark), mark);
                }
                return Ok(());
            }
            if !config.includes(head) {
                return Ok(());
            }
            if config.to_ns.is_some_and(|to_ns| head.wall_ns >= to_ns) {
                is_past = true;
                return Ok(());
            }
            let begin = framer.begin_of(head).unwrap_or(mark);
            *last_begin = begin;
            let known = if was_empty { None } else { *staged_begin };
            *staged_begin = Some(known.map_or(begin, |known| known.min(begin)));
            let wall_us = head.wall_ns.div_euclid(1000);
            let at = At { mark, wall_us, mono_ns: head.mono_ns };
            let (start, count) = (staged.bytes.len(), staged.stretches());
            framer.event(head, payload, at, (config, staged));
            if config.from_ns.is_some_and(|from_ns| head.wall_ns < from_ns) {
                staged.truncate(start, count);
            }
            Ok(())
        })?;
        match next {
            Next::Event if is_past => {
                // This event is not before `to`, so it is not read, and unfinished lines are not
                // completed. If a restart has a later `to`, it reads this event.
                self.at_end = true;
                self.input.go_to(mark)?;
            }
            Next::Event => {}
            Next::Damage(damage, path) => {
                self.framer.damaged();
                let at = (damage.at, damage.until - damage.at);
                if self.resume_at.is_none() {
                    self.counters.bad.add(Some(&path), at, damage.what, b"");
                }
            }
            Next::End => self.end(mark),
        }
        Ok(true)
    }

    /// Rejects unfinished records at the end of the recording.
    fn end(&mut self, mark: Mark) {
        self.at_end = true;
        if self.staged.is_empty() {
            self.staged_begin = Some(self.framer.earliest_begin().unwrap_or(mark));
        }
        let at = At { mark, wall_us: 0, mono_ns: 0 };
        self.framer.end(at, &mut self.staged);
    }

    /// After a restart, frames events up to the checkpoint's offset without emitting records, and
    /// drops the records of the next event that were emitted before. Done once. A capture that has
    /// become shorter ends earlier.
    fn catch_up(&mut self) -> Result<(), EngineError> {
        let Some(until) = self.resume_at else { return Ok(()) };
        while self.input.mark().event < until.events && self.read_event()? {
            self.staged.clear();
        }
        if until.records > 0 {
            self.read_event()?;
            let mut dropped = 0;
            while dropped < until.records && self.drop_record() {
                dropped += 1;
            }
        }
        self.resume_at = None;
        self.consumed = until;
        Ok(())
    }

    /// Drops the first staged record, of lines the first line. Returns whether there was one.
    fn drop_record(&mut self) -> bool {
        let Some(stretch) = self.staged.first() else { return false };
        match stretch.content {
            Content::Record | Content::Rejected { .. } => self.staged.pop(),
            Content::Lines { .. } => {
                let lines = &self.staged.bytes[self.staged.at..stretch.end];
                let whole = first_line(self.config.ends, lines).1;
                self.consume(whole, stretch);
            }
        }
        true
    }

    /// Consumes bytes of the first stretch, and removes the stretch when it is empty.
    fn consume(&mut self, bytes: usize, stretch: Stretch) {
        self.staged.at += bytes;
        if self.staged.at >= stretch.end {
            self.staged.pop();
        }
    }

    // ---- emitting ----

    /// Counts a record of an event as consumed.
    #[inline]
    fn count(&mut self, event: u64) {
        if self.consumed.events == event {
            self.consumed.records += 1;
        } else {
            self.consumed = Consumed { events: event, records: 1 };
        }
    }

    /// Emits staged records until `budget` is 0 or a record is not due at `now_ns`.
    fn emit<D>(
        &mut self,
        down: &mut D,
        budget: &mut usize,
        (now_ns, cx): (u64, &StepCx<'_>),
    ) -> Result<Emitted, EngineError>
    where
        D: for<'a> Push<Row<'a>>,
    {
        while let Some(stretch) = self.staged.first() {
            if self.is_bound_reached(stretch.event) {
                return Ok(Emitted::Part);
            }
            let mut ingest_ns = now_ns;
            if let Some(pace) = &mut self.pace
                && stretch.mono_ns > 0
            {
                let now_ns = cx.env.now_ns();
                let due_ns = pace.due_ns(stretch.mono_ns, now_ns);
                // A planned batch contains only due records. A batch that an earlier run planned is
                // emitted at once.
                if due_ns > now_ns && self.bound.is_none() {
                    return Ok(Emitted::Until(due_ns));
                }
                pace.emitted(due_ns, now_ns);
                ingest_ns = due_ns.min(now_ns);
            }
            if !self.emit_stretch(stretch, ingest_ns, down, budget)? {
                return Ok(Emitted::Part);
            }
        }
        self.consumed = Consumed { events: self.input.mark().event, records: 0 };
        Ok(Emitted::All)
    }

    /// Reads events and emits the records of those that consist of whole lines without staging
    /// them. Ends after an event with staged records, at the end of the batch, and when `budget` is
    /// 0 or the chain is full. Nothing may be staged before. Returns whether the recording goes on.
    fn emit_direct<D>(
        &mut self,
        down: &mut D,
        budget: &mut usize,
        now_ns: u64,
    ) -> Result<bool, EngineError>
    where
        D: for<'a> Push<Row<'a>>,
    {
        let end = self.bound.map_or(u64::MAX, |bound| bound.events);
        let (at_start, mut goes_on) = (*budget, true);
        // Events without a record use up the budget as well.
        for _ in 0..at_start {
            let (before, event) = (*budget, self.input.mark().event);
            if before == 0 || event >= end || !down.is_ready() {
                break;
            }
            let push = |lines: &[u8], mut columns: Columns<'_>| {
                let mut at = 0;
                while at < lines.len() && *budget > 0 && down.is_ready() {
                    let (length, whole) = first_line(columns.config.ends, &lines[at..]);
                    down.push(columns.row(&lines[at..at + length]), now_ns)?;
                    at += whole;
                    *budget -= 1;
                }
                Ok(at)
            };
            goes_on = self.read_event_with(Some(push))?;
            if !self.staged.is_empty() {
                let records = (before - *budget) as u64;
                self.consumed = Consumed { events: event, records };
                break;
            }
            if !goes_on {
                break;
            }
        }
        if self.staged.is_empty() {
            self.consumed = Consumed { events: self.input.mark().event, records: 0 };
        }
        // ORDERING: relaxed: a counter that nothing else depends on.
        self.counters.records.fetch_add((at_start - *budget) as u64, Ordering::Relaxed);
        Ok(goes_on)
    }

    fn is_bound_reached(&self, event: u64) -> bool {
        self.bound.is_some_and(|bound| {
            let is_reached = bound.records == 0 || self.consumed >= bound;
            event > bound.events || (event == bound.events && is_reached)
        })
    }

    /// Emits the records of a stretch. Returns whether all of them were emitted.
    fn emit_stretch<D>(
        &mut self,
        stretch: Stretch,
        ingest_ns: u64,
        down: &mut D,
        budget: &mut usize,
    ) -> Result<bool, EngineError>
    where
        D: for<'a> Push<Row<'a>>,
    {
        let (from, end) = (self.staged.at, stretch.end);
        if *budget == 0 || !down.is_ready() {
            return Ok(false);
        }
        match stretch.content {
            Content::Rejected { length, reason } => {
                let first = &self.staged.bytes[from..end];
                self.counters.bad.add(None, (stretch.event, length), reason, first);
            }
            Content::Record => {
                let is_text = std::str::from_utf8(&self.staged.bytes[from..end]).is_ok();
                self.emit_record((from, end), is_text, (stretch, ingest_ns), down)?;
            }
            Content::Lines { is_text } => {
                while self.staged.at < end {
                    if *budget == 0 || !down.is_ready() || self.is_bound_reached(stretch.event) {
                        return Ok(false);
                    }
                    let at = self.staged.at;
                    let (length, whole) = first_line(self.config.ends, &self.staged.bytes[at..end]);
                    let line = &self.staged.bytes[at..at + length];
                    if length > self.config.max_line {
                        let place = (stretch.event, length as u64);
                        self.counters.bad.add(None, place, TOO_LONG, line);
                    } else {
                        let is_text = is_text || std::str::from_utf8(line).is_ok();
                        let range = (at, at + length);
                        self.emit_record(range, is_text, (stretch, ingest_ns), down)?;
                    }
                    self.staged.at += whole;
                    *budget -= 1;
                    self.count(stretch.event);
                }
                self.staged.pop();
                return Ok(true);
            }
        }
        *budget -= 1;
        self.count(stretch.event);
        self.staged.pop();
        Ok(true)
    }

    #[inline]
    fn emit_record<D>(
        &mut self,
        (from, end): (usize, usize),
        is_text: bool,
        (stretch, ingest_ns): (Stretch, u64),
        down: &mut D,
    ) -> Result<(), EngineError>
    where
        D: for<'a> Push<Row<'a>>,
    {
        let value = &self.staged.bytes[from..end];
        if !is_text {
            let place = (stretch.event, value.len() as u64);
            self.counters.bad.add(None, place, "not UTF-8", value);
            return Ok(());
        }
        let (config, wall_us) = (&self.config, stretch.wall_us);
        let mut columns = Columns { config, row: &mut self.row, wall_us };
        // ORDERING: relaxed: a counter that nothing else depends on.
        self.counters.records.fetch_add(1, Ordering::Relaxed);
        down.push(columns.row(value), ingest_ns)
    }

    /// Builds an offset. `staged_begin` is the position at which the first staged record after the
    /// offset began.
    fn offset(&self, consumed: Consumed, staged_begin: Option<Mark>) -> CaptureOffset {
        let unread = self.input.mark();
        let begins = [staged_begin, self.framer.earliest_begin()];
        let start = begins.into_iter().flatten().fold(unread, Mark::min);
        let schedule_ns = self.pace.as_ref().and_then(Pace::reached_ns);
        CaptureOffset { consumed, start, recording: self.recording, schedule_ns }
    }

    /// Micro-batch: plans a batch up to a mark ahead without reading its events, so that their
    /// records need not be staged. `None` if there is no suitable mark within the batch's size
    /// limit.
    fn plan_at_mark(&mut self) -> Result<Option<EndOffset>, EngineError> {
        if self.pace.is_some() || self.at_end || !self.staged.is_empty() {
            return Ok(None);
        }
        let Some((events, wall_ns_max)) =
            self.input.event_at_mark(self.config.batch_bytes as u64)?
        else {
            return Ok(None);
        };
        // A batch must not go beyond the option `to`: a restart with a later `to` reads what
        // follows.
        if self.config.to_ns.is_some_and(|to_ns| wall_ns_max >= to_ns) {
            return Ok(None);
        }
        // Where the last line before the mark began is not known. A restart begins at the start of
        // the batch.
        let end = self.offset(Consumed { events, records: 0 }, None).to_offset();
        Ok(Some(EndOffset { end, has_new: true, exhausted: false, limited: true }))
    }

    /// Micro-batch: stages due records up to the batch's size limit. Returns the end of the batch,
    /// and whether more records are due.
    fn stage_batch(&mut self, cx: &mut StepCx<'_>) -> Result<(Consumed, bool), EngineError> {
        let limit = self.config.batch_bytes;
        loop {
            if self.staged.len() >= limit {
                return Ok((Consumed { events: self.input.mark().event, records: 0 }, true));
            }
            if let (Some(pace), Some(last)) = (&mut self.pace, self.staged.last())
                && last.mono_ns > 0
            {
                let due_ns = pace.due_ns(last.mono_ns, cx.env.now_ns());
                if due_ns > cx.env.now_ns() {
                    cx.wake_at(due_ns);
                    return Ok((Consumed { events: last.event, records: 0 }, false));
                }
            }
            if !self.read_event()? {
                return Ok((Consumed { events: self.input.mark().event, records: 0 }, false));
            }
        }
    }
}

/// The length of the first line, without and with its line end.
#[inline]
fn first_line(ends: LineEnds, lines: &[u8]) -> (usize, usize) {
    // Staged lines always have an end.
    let length = ends.first(lines).unwrap_or(lines.len());
    if length == lines.len() {
        return (length, length);
    }
    let end = match ends {
        LineEnds::Any => LineEnds::length(lines, length),
        LineEnds::Lf => 1,
    };
    (length, length + end)
}

impl<D: for<'a> Push<Row<'a>>> Source<D> for CaptureSource {
    fn name(&self) -> &str {
        "capture"
    }

    fn poll(&mut self, down: &mut D, cx: &mut StepCx<'_>) -> Result<Polled, EngineError> {
        self.catch_up()?;
        let (mut budget, now_ns) = (cx.budget, cx.env.now_ns());
        // Events that complete no record use up the budget of a poll as well.
        for _ in 0..cx.budget.max(1) {
            match self.emit(down, &mut budget, (now_ns, cx))? {
                Emitted::Part => {
                    let next = self.staged.first().map(|next| next.event);
                    if next.is_some_and(|event| self.is_bound_reached(event)) {
                        self.consumed = self.bound.take().unwrap_or(self.consumed);
                        return Ok(Polled::AtEndOffset);
                    }
                    return Ok(Polled::Emitted);
                }
                Emitted::Until(due_ns) => {
                    if self.bound.is_none() && budget == cx.budget {
                        if let Some(pace) = &mut self.pace {
                            pace.share();
                        }
                        let left_ns = due_ns.saturating_sub(cx.env.now_ns());
                        if left_ns > SPIN_NS {
                            cx.wake_at(due_ns - SPIN_NS);
                            return Ok(Polled::Idle);
                        }
                    }
                    return Ok(Polled::Emitted);
                }
                Emitted::All => {}
            }
            if self.bound.is_some_and(|bound| self.consumed >= bound) {
                self.bound = None;
                return Ok(Polled::AtEndOffset);
            }
            let unread = self.input.mark().event;
            let is_direct =
                self.pace.is_none() && self.bound.is_none_or(|bound| unread < bound.events);
            let goes_on = match is_direct {
                true => self.emit_direct(down, &mut budget, now_ns)?,
                false => self.read_event()?,
            };
            if goes_on && (budget == 0 || !down.is_ready()) {
                return Ok(Polled::Emitted);
            }
            if !goes_on {
                if let Some(pace) = &mut self.pace {
                    pace.share();
                }
                self.staged.shrink();
                // The recording is shorter than when the batch was planned.
                let ended = self.bound.take().map(|_| Polled::AtEndOffset);
                return Ok(ended.unwrap_or(Polled::Exhausted));
            }
        }
        Ok(Polled::Emitted)
    }

    fn position(&self) -> Offset {
        let begin = self.staged_begin.filter(|_| !self.staged.is_empty());
        self.offset(self.consumed, begin).to_offset()
    }

    fn records_emitted(&self) -> u64 {
        // ORDERING: relaxed: a counter that nothing else depends on.
        self.counters.records.load(Ordering::Relaxed)
    }

    fn resume(&mut self, at: &Offset) -> Result<(), EngineError> {
        let offset = CaptureOffset::parse(at)?;
        if offset.recording != self.recording {
            return Err(EngineError::operator(
                "CAPTURE_CHANGED",
                format!(
                    "{} is not the capture that the checkpoint was written for",
                    self.config.path.display()
                ),
                "Restore that capture, or start with an empty checkpoint",
            ));
        }
        if let (Some(pace), Some(reached_ns)) = (&mut self.pace, offset.schedule_ns) {
            pace.resume(reached_ns);
        }
        self.input.go_to(offset.start)?;
        if self.input.started_late() {
            self.framer.opened_before(datagrams_before(&self.input)?);
        }
        (self.resume_at, self.consumed) = (Some(offset.consumed), offset.consumed);
        Ok(())
    }

    fn plan(&mut self, extent: ReadLimit, cx: &mut StepCx<'_>) -> Result<EndOffset, EngineError> {
        // A recording does not grow, so the read limit does not matter.
        let _ = extent;
        self.catch_up()?;
        if let Some(end) = self.plan_at_mark()? {
            return Ok(end);
        }
        let (end, is_limited) = self.stage_batch(cx)?;
        let has_new = self.staged.first().is_some_and(|first| first.event < end.events);
        if !has_new {
            self.staged.shrink();
        }
        // The batch contains everything that was read, unless the last event is not due yet.
        let is_last_due = end.events == self.input.mark().event;
        let begin = Some(self.last_begin).filter(|_| !is_last_due);
        Ok(EndOffset {
            end: self.offset(end.max(self.consumed), begin).to_offset(),
            has_new,
            exhausted: self.at_end,
            limited: is_limited,
        })
    }

    fn set_end_offset(&mut self, end: &Offset) -> Result<(), EngineError> {
        self.bound = Some(CaptureOffset::parse(end)?.consumed);
        Ok(())
    }
}
