//! Tests that each record of a recording is emitted exactly once, wherever the source is stopped
//! and restarted.

use super::config::CaptureConfig;
use super::source::CaptureSource;
use crate::connect::collected_rows::CollectedRows;
use crate::table::row::Slot;
use millstream_engine::capture::{
    CaptureWriter, ConnectionInfo, Direction, FLAG_CUT, FLAG_MORE, FileHeader, Gap, GapCause, Head,
    Kind, Protocol, WriterOptions,
};
use millstream_engine::checkpoint::offset::Offset;
use millstream_engine::env::SimEnv;
use millstream_engine::env::random::SplitMix;
use millstream_engine::epoch::protocol::ReadLimit;
use millstream_engine::runtime::tasklet::{Polled, Source, StepCx};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

/// A capture file, deleted on drop.
struct Recorded(PathBuf);

impl Drop for Recorded {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.0));
    }
}

/// Writes events, a microsecond apart.
struct Recorder {
    writer: CaptureWriter<std::fs::File>,
    path: PathBuf,
    count: u64,
    positions: std::collections::HashMap<(u32, bool), u64>,
}

impl Recorder {
    fn new(compress: bool) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("millstream-capture-source-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let header = FileHeader {
            recording: 7,
            start_wall_ns: 5_000,
            start_mono_ns: 5_000,
            ..FileHeader::default()
        };
        let file = std::fs::File::create(&path).unwrap();
        let writer = CaptureWriter::new(file, &WriterOptions { header, compress }).unwrap();
        Self { writer, path, count: 0, positions: Default::default() }
    }

    fn event(&mut self, kind: Kind, connection: u32, flags: u16, payload: &[u8]) {
        let direction = if connection.is_multiple_of(2) { Direction::In } else { Direction::Out };
        let position =
            self.positions.entry((connection, connection.is_multiple_of(2))).or_default();
        let head = Head {
            position: *position,
            lines: 0,
            mono_ns: 5_000 + self.count * 1_000,
            wall_ns: self.count as i64 * 1_000,
            connection,
            direction,
            kind,
            flags,
        };
        if kind == Kind::Data {
            *position += payload.len() as u64;
        }
        self.count += 1;
        self.writer.append(&head, payload).unwrap();
    }

    fn data(&mut self, connection: u32, payload: &[u8]) {
        self.event(Kind::Data, connection, 0, payload);
    }

    fn open(&mut self, connection: u32, protocol: Protocol) {
        let info = ConnectionInfo { protocol, ..ConnectionInfo::default() };
        self.event(Kind::Open, connection, 0, &info.encode());
    }

    fn finish(self) -> Recorded {
        self.writer.finish().unwrap();
        Recorded(self.path)
    }
}

/// A chain that collects the value and the time of each record, and sometimes accepts none.
type Kept = CollectedRows<(String, i64)>;

fn collected() -> Kept {
    CollectedRows::new(|row, _| {
        let value = String::from_utf8(row.bytes(Slot::new(0, 2)).to_vec()).unwrap();
        (value, row.long(Slot::new(1, 2)))
    })
}

fn source(recorded: &Recorded, options: &[(&str, &str)]) -> CaptureSource {
    let mut all = vec![("path".to_string(), recorded.0.display().to_string())];
    all.extend(options.iter().map(|(key, value)| (key.to_string(), value.to_string())));
    CaptureConfig::read(&all).unwrap().open().unwrap()
}

fn poll(source: &mut CaptureSource, kept: &mut Kept, budget: usize) -> Polled {
    let mut cx = StepCx { env: &SimEnv::new(0), budget, wake_at_ns: None };
    source.poll(kept, &mut cx).unwrap()
}

/// All records and the number of rejected ones.
fn read_all(recorded: &Recorded, options: &[(&str, &str)]) -> (Vec<(String, i64)>, u64) {
    let (mut source, mut kept) = (source(recorded, options), collected());
    while poll(&mut source, &mut kept, 1000) != Polled::Exhausted {}
    (kept.rows, source.counters().bad.count())
}

/// Panics at the first difference.
fn assert_same(rows: &[(String, i64)], expected: &[(String, i64)], what: &str) {
    let at = rows.iter().zip(expected).position(|(row, other)| row != other);
    let at = at.unwrap_or(rows.len().min(expected.len()));
    let (row, other) = (rows.get(at), expected.get(at));
    assert!(row == other, "{what}: record {at} is {row:?}, expected {other:?}");
}

fn values(recorded: &Recorded, options: &[(&str, &str)]) -> Vec<String> {
    read_all(recorded, options).0.into_iter().map(|(value, _)| value).collect()
}

/// A recording of many connections with unfinished lines, losses, datagrams and rejected records.
fn busy(compress: bool, seed: u64) -> Recorded {
    busy_for(1_500, compress, seed)
}

fn busy_for(events: u64, compress: bool, seed: u64) -> Recorded {
    let (mut dice, mut recorder) = (SplitMix(seed), Recorder::new(compress));
    (0..12).for_each(|n| recorder.open(n, if n < 9 { Protocol::Tcp } else { Protocol::Udp }));
    for n in 0..events {
        let connection = dice.below(12) as u32;
        let mut text = format!("c{connection} n{n}").into_bytes();
        for _ in 0..dice.below(6) {
            text.extend_from_slice(match dice.below(6) {
                0 => b"\r\n",
                1 => b"\r",
                2 => b" some more text",
                3 => b"\n\n",
                _ => b"\n",
            });
        }
        match dice.below(40) {
            0 => recorder.event(Kind::Close, connection, 0, b""),
            1 => recorder.event(Kind::Reset, connection, 0, b""),
            2 => recorder.event(Kind::HalfClose, connection, 0, b""),
            3 => {
                let gap = Gap::of_bytes(9, GapCause::Lost);
                recorder.event(Kind::Gap, connection, 0, &gap.encode());
            }
            4 => recorder.data(connection, b"\xff\n"),
            5 => recorder.data(connection, &[b'x'; 300]),
            6 => recorder.event(Kind::Data, connection, FLAG_MORE, b"part "),
            7 if connection >= 9 => recorder.event(Kind::Data, connection, FLAG_CUT, b"cut"),
            _ => recorder.data(connection, &text),
        }
    }
    recorder.finish()
}

const LIMITS: [(&str, &str); 2] = [("direction", "both"), ("maxLineLength", "200")];

#[test]
fn records_are_lines_of_a_connection_and_datagrams() {
    let mut recorder = Recorder::new(false);
    recorder.open(0, Protocol::Tcp);
    recorder.open(2, Protocol::Udp);
    recorder.data(0, b"one\ntw");
    recorder.data(2, b"a\nb\r\n");
    recorder.data(4, b"unknown\r");
    recorder.data(0, b"o\r");
    recorder.data(4, b"\nprotocol\n");
    recorder.data(0, b"\n\nlast");
    recorder.event(Kind::HalfClose, 0, 0, b"");
    recorder.data(4, b"never ended");
    recorder.data(1, b"the other direction\n");
    let recorded = recorder.finish();
    let all = [("one", 2), ("a\nb", 3), ("unknown", 4), ("two", 5), ("protocol", 6), ("", 7)];
    let all: Vec<_> = all.into_iter().chain([("last", 8)]).map(|(v, t)| (v.into(), t)).collect();
    assert_eq!(read_all(&recorded, &[]), (all.clone(), 1));
    let lines = [("datagram", "lines"), ("connection", "2, 7")];
    assert_eq!(values(&recorded, &lines), ["a", "b"]);
    assert_eq!(values(&recorded, &[("direction", "out")]), ["the other direction"]);
    let from_to = [("from", "4000"), ("to", "1970-01-01 00:00:00.000007")];
    assert_eq!(values(&recorded, &from_to), ["unknown", "two", "protocol"]);
    let rejected = read_all(&recorded, &[("lastLine", "reject")]);
    assert_eq!((rejected.0.len(), rejected.1), (6, 2));
    let lf = values(&recorded, &[("connection", "0"), ("lineSep", "\\n")]);
    assert_eq!(lf, ["one", "two\r", "", "last"]);
}

/// A datagram in several events: the end of one was not recorded, and the first part of another was
/// given up because all unfinished records together were too long.
#[test]
fn a_datagram_is_rejected_as_a_whole() {
    let mut recorder = Recorder::new(false);
    recorder.open(0, Protocol::Tcp);
    recorder.open(2, Protocol::Udp);
    recorder.event(Kind::Data, 2, FLAG_MORE, b"first part, ");
    recorder.event(Kind::Data, 2, FLAG_CUT, b"cut");
    recorder.data(2, b"whole");
    recorder.event(Kind::Data, 2, FLAG_MORE, &[b'x'; 700]);
    recorder.data(0, &[b'y'; 600]);
    recorder.event(Kind::Data, 2, FLAG_MORE, b" middle");
    recorder.data(2, b" end");
    recorder.data(2, b"next");
    recorder.data(0, b"\n");
    let recorded = recorder.finish();
    let (rows, rejected) =
        read_all(&recorded, &[("maxLineLength", "1000"), ("maxUnfinishedBytes", "1000")]);
    let rows: Vec<String> = rows.into_iter().map(|(value, _)| value).collect();
    assert_eq!(rows, ["whole".to_string(), "next".to_string(), "y".repeat(600)]);
    assert_eq!(rejected, 2);
}

#[test]
fn missing_bytes_lose_only_the_lines_that_contained_them() {
    let mut recorder = Recorder::new(false);
    recorder.data(0, b"one\nhal");
    let gap = Gap::of_bytes(5, GapCause::Lost);
    recorder.event(Kind::Gap, 0, 0, &gap.encode());
    recorder.data(0, b"f\ntwo\n");
    recorder.data(0, b"thr");
    recorder.event(Kind::Reset, 0, 0, b"");
    let recorded = recorder.finish();
    let (rows, rejected) = read_all(&recorded, &[]);
    assert_eq!(rows.iter().map(|(value, _)| value.as_str()).collect::<Vec<_>>(), ["one", "two"]);
    assert_eq!(rejected, 3, "what was before the gap, what was behind it, what was reset");
}

/// Stops at random points and continues in a new source at the offset.
#[test]
fn a_restart_continues_exactly_in_continuous_mode() {
    for (seed, compress) in [(1, false), (2, cfg!(feature = "compression")), (3, false)] {
        let recorded = busy(compress, seed);
        let (expected, rejected) = read_all(&recorded, &LIMITS);
        assert!(expected.len() > 1_000 && rejected > 50, "{} {rejected}", expected.len());
        let mut dice = SplitMix(seed);
        let (mut kept, mut at, mut bad, mut restarts) = (collected(), None, 0, 0);
        loop {
            let mut source = source(&recorded, &LIMITS);
            if let Some(at) = &at {
                resume(&mut source, at);
            }
            let mut polled = Polled::Emitted;
            for _ in 0..1 + dice.below(3) {
                kept.room = Some(1 + dice.below(9) as usize);
                polled = poll(&mut source, &mut kept, 1 + dice.below(30) as usize);
            }
            at = Some(position(&source));
            bad += source.counters().bad.count();
            if polled == Polled::Exhausted {
                break;
            }
            restarts += 1;
        }
        assert_same(&kept.rows, &expected, &format!("seed {seed}"));
        assert_eq!(bad, rejected, "seed {seed}");
        assert!(restarts > 100, "{restarts}");
    }
}

fn resume(source: &mut CaptureSource, at: &Offset) {
    Source::<Kept>::resume(source, at).unwrap();
}

fn position(source: &CaptureSource) -> Offset {
    Source::<Kept>::position(source)
}

/// Runs batches of up to `bytes` bytes, each of them in a new source and again in another one.
/// Returns the records and the number of batches.
fn run_batches(
    recorded: &Recorded,
    options: &[(&str, &str)],
    mut bytes: impl FnMut() -> u64,
    seed: u64,
) -> (Vec<(String, i64)>, usize) {
    let mut dice = SplitMix(seed);
    let (mut rows, mut at): (Vec<(String, i64)>, Option<Offset>) = (Vec::new(), None);
    for batches in 0.. {
        let bytes = bytes().to_string();
        let options = [options, &[("maxBytesPerTrigger", bytes.as_str())]].concat();
        let mut planner = source(recorded, &options);
        at.iter().for_each(|at| resume(&mut planner, at));
        let mut cx = StepCx { env: &SimEnv::new(0), budget: 7, wake_at_ns: None };
        let planned = Source::<Kept>::plan(&mut planner, ReadLimit::RateLimited, &mut cx).unwrap();
        if !planned.has_new && planned.exhausted {
            return (rows, batches);
        }
        let mut runs = Vec::new();
        let mut again = source(recorded, &options);
        at.iter().for_each(|at| resume(&mut again, at));
        for source in [&mut planner, &mut again] {
            let mut kept = collected();
            Source::<Kept>::set_end_offset(source, &planned.end).unwrap();
            let mut polled = Polled::Emitted;
            while polled != Polled::AtEndOffset {
                kept.room = Some(1 + dice.below(900) as usize);
                polled = poll(source, &mut kept, 1 + dice.below(50) as usize);
            }
            runs.push(kept.rows);
        }
        assert_same(&runs[1], &runs[0], "the second run of a batch");
        rows.append(&mut runs[0]);
        at = Some(planned.end);
    }
    unreachable!("a recording has a last batch")
}

#[test]
fn a_restart_runs_the_planned_batch_again() {
    for (seed, compress) in [(4, false), (5, cfg!(feature = "compression"))] {
        let recorded = busy(compress, seed);
        let (expected, _) = read_all(&recorded, &LIMITS);
        let mut dice = SplitMix(seed);
        let (rows, _) = run_batches(&recorded, &LIMITS, || 1 + dice.below(900), seed);
        assert_same(&rows, &expected, &format!("seed {seed}"));
    }
}

/// The ends of these batches are computed from the counts of the marks.
#[test]
fn batches_that_end_at_marks_have_each_record_once() {
    let recorded = busy_for(40_000, false, 8);
    let whole = std::fs::read(&recorded.0).unwrap();
    let mut dice = SplitMix(8);
    for round in 0..6 {
        let mut bytes = whole.clone();
        // The first round reads the intact file, the second one a file without an end.
        for _ in 0..4 * u64::from(round > 1) {
            let at = 64 + dice.below(bytes.len() as u64 - 64) as usize;
            let end = (at + 1 + dice.below(5_000) as usize).min(bytes.len());
            bytes[at..end].fill(0xA5);
        }
        if round == 1 {
            bytes.truncate(bytes.len() - 100);
        }
        std::fs::write(&recorded.0, &bytes).unwrap();
        for options in
            [&LIMITS[..], &[LIMITS[0], LIMITS[1], ("from", "9000000"), ("to", "30000000")]]
        {
            let (expected, _) = read_all(&recorded, options);
            assert!(expected.len() > 5_000, "{}", expected.len());
            let (rows, batches) =
                run_batches(&recorded, options, || (1 << 20) + dice.below(1 << 20), round);
            assert_same(&rows, &expected, &format!("round {round}"));
            assert!((2..10).contains(&batches), "{batches}");
        }
    }
}

#[test]
fn a_restart_over_another_recording_is_refused() {
    let recorded = busy(false, 6);
    let mut source = source(&recorded, &[]);
    let at = position(&source).0.replace("\"recording\":7", "\"recording\":8");
    let error = Source::<Kept>::resume(&mut source, &Offset(at)).unwrap_err();
    assert_eq!(error.condition(), "CAPTURE_CHANGED");
    let error = Source::<Kept>::resume(&mut source, &Offset("17".to_string())).unwrap_err();
    assert_eq!(error.condition(), "INVALID_OFFSET");
}

#[test]
fn a_damaged_recording_gives_the_intact_records_and_counts_the_others() {
    let recorded = busy(false, 7);
    let whole = std::fs::read(&recorded.0).unwrap();
    let expected = read_all(&recorded, &LIMITS).0;
    let (mut dice, mut damaged) = (SplitMix(9), 0);
    for _ in 0..200 {
        let mut bytes = whole.clone();
        let at = 64 + dice.below(bytes.len() as u64 - 64) as usize;
        match dice.below(3) {
            0 => bytes.truncate(at),
            _ => bytes[at] ^= 1 << dice.below(8),
        }
        std::fs::write(&recorded.0, &bytes).unwrap();
        let (mut source, mut kept) = (source(&recorded, &LIMITS), collected());
        while poll(&mut source, &mut kept, 1000) != Polled::Exhausted {}
        if kept.rows != expected {
            assert!(source.counters().bad.count() > 0, "byte {at}: nothing is counted");
            damaged += 1;
        }
    }
    assert!(damaged > 100, "{damaged}");
}

#[test]
fn a_paced_recording_is_emitted_at_its_times() {
    let mut recorder = Recorder::new(false);
    (0..10).for_each(|n| recorder.data(0, format!("{n}\n").as_bytes()));
    let recorded = recorder.finish();
    let (env, mut kept) = (SimEnv::new(0), collected());
    let mut source = source(&recorded, &[("speed", "0.001")]);
    let mut times = Vec::new();
    while kept.rows.len() < 10 {
        let mut cx = StepCx { env: &env, budget: 100, wake_at_ns: None };
        source.poll(&mut kept, &mut cx).unwrap();
        times.push((kept.rows.len(), env_ns(&env)));
        let wake_at_ns = cx.wake_at_ns.unwrap_or(env_ns(&env) + 10_000);
        env.advance(wake_at_ns - env_ns(&env));
    }
    let first_ns = times[0].1;
    for (count, ns) in times {
        // The recording has one record per millisecond.
        let due = ((ns - first_ns) / 1_000_000 + 1).min(10) as usize;
        assert_eq!(count, due, "after {} ns", ns - first_ns);
    }
}

/// Options for a recording with a record per microsecond: the records are due a millisecond apart,
/// and the schedule starts five milliseconds before the first one.
const SLOW: [(&str, &str); 2] = [("speed", "0.001"), ("scheduleStart", "0")];

/// Polls for `ns` nanoseconds. Returns the time until the first record, and the number of records.
fn poll_for(source: &mut CaptureSource, env: &SimEnv, ns: u64) -> (u64, usize) {
    let (start_ns, mut kept, mut first_ns) = (env_ns(env), collected(), None);
    loop {
        let mut cx = StepCx { env, budget: 100, wake_at_ns: None };
        source.poll(&mut kept, &mut cx).unwrap();
        if !kept.rows.is_empty() {
            first_ns.get_or_insert(env_ns(env) - start_ns);
        }
        if env_ns(env) >= start_ns + ns {
            return (first_ns.unwrap_or(u64::MAX), kept.rows.len());
        }
        let wake_at_ns = cx.wake_at_ns.unwrap_or(env_ns(env) + 10_000);
        env.advance(wake_at_ns.min(start_ns + ns) - env_ns(env));
    }
}

#[test]
fn a_given_schedule_continues_after_a_restart() {
    const MS: u64 = 1_000_000;
    let mut recorder = Recorder::new(false);
    (0..10).for_each(|n| recorder.data(0, format!("{n}\n").as_bytes()));
    let recorded = recorder.finish();
    let env = SimEnv::new(0);
    let mut first = source(&recorded, &SLOW);
    assert_eq!(poll_for(&mut first, &env, 7 * MS + MS / 2), (5 * MS, 3));
    // The clock of the new process starts elsewhere. The next record is due after the rest of its
    // millisecond: neither at once nor after the whole time since the schedule's start.
    let at = position(&first);
    let mut second = source(&recorded, &SLOW);
    resume(&mut second, &at);
    let (waited_ns, count) = poll_for(&mut second, &SimEnv::new(1), 7 * MS);
    assert!((MS / 2..=MS / 2 + MS / 5).contains(&waited_ns), "{waited_ns} ns");
    assert_eq!(count, 7);
}

#[test]
fn a_restart_before_the_schedule_starts_waits_for_all_of_it() {
    let mut recorder = Recorder::new(false);
    recorder.data(0, b"0\n");
    let recorded = recorder.finish();
    let at = position(&source(&recorded, &SLOW));
    let mut second = source(&recorded, &SLOW);
    resume(&mut second, &at);
    assert_eq!(poll_for(&mut second, &SimEnv::new(0), 6_000_000), (5_000_000, 1));
}

fn env_ns(env: &SimEnv) -> u64 {
    use millstream_engine::env::Env;
    env.now_ns()
}

#[test]
fn wrong_options_are_refused() {
    for (name, value) in [
        ("speed", "fast"),
        ("speed", "0"),
        ("scheduleStart", "-1"),
        ("scheduleStart", "1969-12-31 23:59:59"),
        ("from", "tomorrow"),
        ("direction", "up"),
        ("connection", "first"),
        ("lineSep", ";"),
        ("datagram", "raw"),
        ("lastLine", "maybe"),
    ] {
        let options = [("path", "/x"), ("speed", "1"), (name, value)];
        let own = options.map(|(key, value)| (key.to_string(), value.to_string()));
        let error = CaptureConfig::read(&own.to_vec()).unwrap_err();
        assert_eq!(error.condition, "INVALID_OPTION_VALUE", "{name}");
        assert!(error.reason.contains(name), "{error}");
    }
    let error = CaptureConfig::read(&Vec::new()).unwrap_err();
    assert_eq!(error.condition, "MISSING_OPTION");
}
