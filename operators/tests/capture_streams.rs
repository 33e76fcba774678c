//! A capture as the source of a typed stream: order, options, restarts.

#![cfg(feature = "sql")]

use millstream::connect::bad_records::BadRecords;
use millstream::connect::capture::Capture;
use millstream::stream::{Count, Flow};
use millstream::{Config, EngineError, Trigger, WaitProfile};
use millstream_engine::capture::{CaptureWriter, Direction, FileHeader, Head, Kind, WriterOptions};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

const LINES: usize = 300;
const NS: i64 = 1_000_000;

struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let name = format!("millstream-capture-stream-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        drop(std::fs::remove_dir_all(&path));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Writes a capture with one line per millisecond, from three connections in turn. Each line is
    /// split into two events.
    fn capture(&self) -> PathBuf {
        let path = self.0.join("lines.capture");
        let header = FileHeader { recording: 9, ..FileHeader::default() };
        let options = WriterOptions { header, compress: false };
        let mut writer =
            CaptureWriter::new(std::fs::File::create(&path).unwrap(), &options).unwrap();
        let mut positions = [0; 3];
        for n in 0..LINES {
            let (line, connection) = (line(n), n % 3);
            for (part, payload) in [&line[..3], &line[3..]].iter().enumerate() {
                let wall_ns = n as i64 * NS + part as i64;
                let head = Head {
                    position: positions[connection],
                    lines: 0,
                    mono_ns: 1 + wall_ns as u64,
                    wall_ns,
                    connection: connection as u32,
                    direction: Direction::In,
                    kind: Kind::Data,
                    flags: 0,
                };
                positions[connection] += payload.len() as u64;
                writer.append(&head, payload.as_bytes()).unwrap();
            }
        }
        writer.finish().unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

fn line(n: usize) -> String {
    format!("key{} {n}\n", n % 7)
}

fn config(trigger: Trigger) -> Config {
    let wait = WaitProfile::Park;
    Config { pin: false, wait, trigger, record_stalls: false, ..Config::default() }
}

const CONTINUOUS: Trigger = Trigger::Continuous { interval_ns: 1_000_000 };

type Records = Arc<Mutex<Vec<(i64, String)>>>;

/// A flow that collects the records of a capture.
fn collect(capture: &Capture) -> Result<(Flow, Records), EngineError> {
    let (flow, records) = (Flow::new("records"), Records::default());
    let kept = records.clone();
    let stream = flow.capture(capture, |record| (record.time_us, record.text.to_string()))?;
    stream.sink(move |record| kept.lock().unwrap().push(record));
    Ok((flow, records))
}

fn read(capture: &Capture, trigger: Trigger) -> Vec<(i64, String)> {
    let (flow, records) = collect(capture).unwrap();
    flow.start(config(trigger)).unwrap().await_termination().unwrap();
    std::mem::take(&mut records.lock().unwrap())
}

/// The records of some lines.
fn wanted(lines: impl Iterator<Item = usize>) -> Vec<(i64, String)> {
    lines.map(|n| (n as i64 * NS / 1000, line(n).trim_end().to_string())).collect()
}

#[test]
fn records_come_in_recorded_order_every_time() {
    let scratch = Scratch::new("order");
    let capture = Capture::new(scratch.capture());
    for trigger in [CONTINUOUS, Trigger::AsSoonAsPossible, Trigger::AvailableNow] {
        assert_eq!(read(&capture, trigger), wanted(0..LINES), "{trigger:?}");
    }
    for seed in 0..20 {
        let (flow, records) = collect(&capture).unwrap();
        flow.simulate(config(CONTINUOUS), seed).unwrap();
        assert_eq!(*records.lock().unwrap(), wanted(0..LINES), "seed {seed}");
    }
}

#[test]
fn a_part_of_a_capture_is_read_at_a_pace() {
    let scratch = Scratch::new("part");
    let capture = Capture::new(scratch.capture());
    let part = capture.clone().from_ns(100 * NS).to_ns(200 * NS);
    assert_eq!(read(&part, CONTINUOUS), wanted(100..200));
    assert_eq!(read(&part.clone().speed(1000.0), CONTINUOUS), wanted(100..200));
    let some = part.connections(&[0, 2]);
    assert_eq!(read(&some, CONTINUOUS), wanted((100..200).filter(|n| n % 3 != 1)));
    assert_eq!(read(&capture.clone().direction(Direction::Out), CONTINUOUS), []);
    // Records of a stream have their times whatever the option `includeTimestamp` is.
    let timeless = capture.option("includeTimestamp", "false");
    assert_eq!(read(&timeless, CONTINUOUS), wanted(0..LINES));
}

#[test]
fn skipped_records_are_counted() {
    let scratch = Scratch::new("bad");
    let path = scratch.capture();
    let bad = BadRecords::default();
    let capture = Capture::new(&path).option("maxLineLength", 7).bad_records(&bad);
    // `key0 10` has seven bytes.
    assert_eq!(read(&capture, CONTINUOUS), wanted(0..100));
    assert_eq!((bad.count(), bad.last().len()), (LINES as u64 - 100, 16));
    // Flips a bit in the middle of the file.
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let bad = BadRecords::default();
    let found = read(&Capture::new(&path).bad_records(&bad), CONTINUOUS);
    assert!(found.len() < LINES && bad.count() > 0, "{} of {LINES}", found.len());
    assert!(bad.last().iter().any(|bad| bad.file.as_deref() == Some(&path)), "{:?}", bad.last());
}

#[test]
fn a_wrong_option_or_path_is_an_error_of_the_flow() {
    let scratch = Scratch::new("wrong");
    let capture = Capture::new(scratch.capture());
    let condition = |capture: &Capture| collect(capture).err().unwrap().condition().to_string();
    assert_eq!(condition(&capture.clone().speed(0.0)), "INVALID_OPTION_VALUE");
    assert_eq!(condition(&capture.clone().from_ns(2).to_ns(1)), "INVALID_OPTION_VALUE");
    assert_eq!(condition(&Capture::new("/nowhere/x.capture")), "CAPTURE_UNREADABLE");
    std::fs::write(scratch.0.join("no.capture"), "no capture").unwrap();
    assert_eq!(condition(&Capture::new(scratch.0.join("no.capture"))), "NOT_A_CAPTURE");
}

/// Counts the lines of each key, with a checkpoint. Returns the updates.
fn count(capture: &Capture, checkpoint: &Path, trigger: Trigger) -> Vec<(String, u64)> {
    let flow = Flow::new("counts").checkpoint(checkpoint);
    let updates = Arc::new(Mutex::new(Vec::new()));
    let kept = updates.clone();
    let keys = flow.capture(capture, |record| record.text.split(' ').next().unwrap().to_string());
    let counts = keys.unwrap().key_by(String::clone).aggregate(Count);
    counts.sink(move |update| kept.lock().unwrap().push(update));
    flow.start(config(trigger)).unwrap().await_termination().unwrap();
    std::mem::take(&mut updates.lock().unwrap())
}

#[test]
fn a_restart_continues_after_the_last_committed_record() {
    let scratch = Scratch::new("restart");
    let path = scratch.capture();
    let whole = count(&Capture::new(&path), &scratch.0.join("whole"), CONTINUOUS);
    assert_eq!(whole.len(), LINES);

    // Continuous: the first run ends between the halves of a line.
    let checkpoint = scratch.0.join("continuous");
    let mut found = count(&Capture::new(&path).to_ns(50 * NS + 1), &checkpoint, CONTINUOUS);
    assert_eq!(found.len(), 50);
    found.extend(count(&Capture::new(&path), &checkpoint, CONTINUOUS));
    assert_eq!(found, whole);

    // Micro-batch: each run is one small batch.
    let (checkpoint, mut found) = (scratch.0.join("batches"), Vec::new());
    let small = Capture::new(&path).option("maxBytesPerTrigger", 100);
    let mut runs = 0;
    while found.len() < LINES {
        found.extend(count(&small, &checkpoint, Trigger::Once));
        runs += 1;
        assert!(runs <= LINES, "a run without a record: {} of {LINES}", found.len());
    }
    assert!(runs > 10, "{runs}");
    assert_eq!(found, whole);

    // Another recording is refused.
    let other = path.with_file_name("other.capture");
    let header = FileHeader { recording: 10, ..FileHeader::default() };
    let options = WriterOptions { header, compress: false };
    CaptureWriter::new(std::fs::File::create(&other).unwrap(), &options).unwrap().finish().unwrap();
    let flow = Flow::new("counts").checkpoint(&checkpoint);
    let keys = flow.capture(&Capture::new(&other), |record| record.text.to_string()).unwrap();
    keys.key_by(String::clone).aggregate(Count).sink(|_| {});
    let error = flow.start(config(CONTINUOUS)).and_then(|query| query.await_termination());
    assert_eq!(error.unwrap_err().condition(), "CAPTURE_CHANGED");
}
