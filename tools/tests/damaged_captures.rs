//! Tests with damaged captures and packet captures. Readers return only events that were written
//! and report the missing ones. No command panics, hangs or uses much memory.
//!
//! `MILLSTREAM_MUTATIONS` sets the number of damaged files that the commands process.

mod common;

use common::Scratch;
use millstream_engine::capture::{
    CaptureReader, CaptureWriter, ConnectionInfo, Direction, Gap, GapCause, Head, Item, Kind,
    Opener, Protocol, WriterOptions,
};
use millstream_engine::env::random::SplitMix;
use std::cell::Cell;
use std::io::{Cursor, Read, Seek, SeekFrom, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// An event: its head and its payload.
type Event = (Head, Vec<u8>);

/// Events of three connections: opens, data, gaps, and an end of each kind.
fn events(count: u64, bytes: usize) -> Vec<Event> {
    let mut events = Vec::new();
    let mut head = Head {
        position: 0,
        lines: 0,
        mono_ns: 0,
        wall_ns: 1_700_000_000_000_000_000,
        connection: 0,
        direction: Direction::In,
        kind: Kind::Open,
        flags: 0,
    };
    let info = ConnectionInfo { protocol: Protocol::Tcp, opener: Opener::A, a: None, b: None };
    for connection in 0..3 {
        head.connection = connection;
        events.push((head, info.encode().to_vec()));
    }
    for n in 0..count {
        head.mono_ns += 1_000_000;
        head.wall_ns += 1_000_000;
        head.connection = (n % 3) as u32;
        head.direction = if n % 5 == 4 { Direction::Out } else { Direction::In };
        head.kind = Kind::Data;
        let line = format!("line {n} of a capture that is damaged\n").repeat(1 + bytes / 40);
        events.push((head, line.into_bytes()));
        if n % 7 == 3 {
            head.kind = Kind::Gap;
            events.push((head, Gap::of_bytes(n, GapCause::Lost).encode().to_vec()));
        }
    }
    for (connection, kind) in [(0, Kind::HalfClose), (1, Kind::Reset), (2, Kind::Close)] {
        (head.connection, head.kind) = (connection, kind);
        events.push((head, Vec::new()));
    }
    events
}

fn written(events: &[Event], compress: bool) -> Vec<u8> {
    let options = WriterOptions { compress, ..WriterOptions::default() };
    let mut writer = CaptureWriter::new(Vec::new(), &options).unwrap();
    for (head, payload) in events {
        writer.append(head, payload).unwrap();
    }
    writer.finish().unwrap()
}

/// What a reader returned for a file.
struct Found {
    events: Vec<Event>,
    /// Number of damaged parts.
    damage: usize,
    /// Number of missing events in those damaged parts for which the reader reports a number. For a
    /// compressed part, the damage that is reported at the next mark has the number.
    missing: u64,
    is_closed: bool,
}

/// Reads a file to its end. Returns `None` if the reader rejects the file.
fn found(bytes: &[u8]) -> Option<Found> {
    let mut reader = CaptureReader::new(Cursor::new(bytes), "damaged").ok()?;
    let mut found =
        Found { events: Vec::new(), damage: 0, missing: 0, is_closed: reader.summary().is_some() };
    let mut items = 0;
    while let Some(item) = reader.next_item().unwrap() {
        items += 1;
        assert!(items <= 2 * bytes.len(), "the reader does not come to an end");
        match item {
            Item::Event(head, payload) => found.events.push((head, payload.to_vec())),
            Item::Damage(damage) => {
                assert!(damage.until <= bytes.len() as u64 && damage.at <= damage.until);
                found.damage += 1;
                found.missing += damage.events.unwrap_or(0);
            }
        }
    }
    // A search in the damaged file ends too, and finds no more events than a scan.
    for at in [0, 7, 1_000] {
        let mut reader = CaptureReader::new(Cursor::new(bytes), "damaged").unwrap();
        reader.seek_wall_ns(1_700_000_000_000_000_000 + at * 1_000_000).unwrap();
        let mut count = 0;
        while let Some(item) = reader.next_item().unwrap() {
            count += usize::from(matches!(item, Item::Event(..)));
        }
        assert!(count <= found.events.len());
    }
    Some(found)
}

/// Whether the events are a subsequence of those that were written.
fn is_part(found: &[Event], written: &[Event]) -> bool {
    let mut written = written.iter();
    found.iter().all(|event| written.any(|other| other == event))
}

#[test]
fn every_flipped_byte_is_harmless_or_counted() {
    for compress in [false, true] {
        let events = events(12, 0);
        let whole = written(&events, compress);
        for at in 0..whole.len() {
            for mask in [1 << (at % 8), 0xFF] {
                let mut bytes = whole.clone();
                bytes[at] ^= mask;
                let Some(found) = found(&bytes) else {
                    assert!(at < 64, "only a header makes a file unreadable: {at}");
                    continue;
                };
                assert!(is_part(&found.events, &events), "byte {at}: other events are read");
                let lost = (events.len() - found.events.len()) as u64;
                assert!(
                    lost == 0 || found.damage > 0,
                    "byte {at}: {lost} events are lost silently"
                );
                if found.is_closed && found.damage > 0 {
                    let missing = found.missing;
                    assert!(missing == lost, "byte {at}: {missing} of {lost} missing events");
                }
            }
        }
    }
}

#[test]
fn every_cut_leaves_a_readable_prefix() {
    for compress in [false, true] {
        let events = events(12, 0);
        let whole = written(&events, compress);
        let mut most = 0;
        for length in 0..whole.len() {
            let Some(found) = found(&whole[..length]) else {
                assert!(length < 64, "only without its header a file is unreadable: {length}");
                continue;
            };
            assert!(found.events == events[..found.events.len()], "cut at {length}");
            assert!(found.events.len() >= most, "cut at {length}: a longer prefix holds less");
            assert!(!found.is_closed, "cut at {length}: it counts as closed");
            most = found.events.len();
        }
        assert_eq!(most, events.len());
    }
}

/// A file that its writer appends to.
struct Growing<'a> {
    bytes: &'a Cell<&'a [u8]>,
    at: u64,
}

impl Read for Growing<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let rest = &self.bytes.get()[(self.at as usize).min(self.bytes.get().len())..];
        let count = rest.len().min(out.len());
        out[..count].copy_from_slice(&rest[..count]);
        self.at += count as u64;
        Ok(count)
    }
}

impl Seek for Growing<'_> {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        let mut cursor = Cursor::new(self.bytes.get());
        cursor.set_position(self.at);
        self.at = cursor.seek(to)?;
        Ok(self.at)
    }
}

#[test]
fn a_file_that_grows_is_read_to_where_it_ended_when_it_was_opened() {
    let events = events(40, 0);
    let whole = written(&events, false);
    for length in 64..whole.len() {
        let bytes = Cell::new(&whole[..length]);
        let mut reader = CaptureReader::new(Growing { bytes: &bytes, at: 0 }, "growing").unwrap();
        bytes.set(&whole);
        let mut found = 0;
        while let Some(item) = reader.next_item().unwrap() {
            assert!(reader_offset_is_within(&item, length), "opened at {length}: {item:?}");
            if let Item::Event(head, payload) = item {
                assert_eq!((head, payload), (events[found].0, &events[found].1[..]));
                found += 1;
            }
        }
        assert!(reader.offset() <= length as u64, "opened at {length}: {}", reader.offset());
    }
}

fn reader_offset_is_within(item: &Item<'_>, length: usize) -> bool {
    match item {
        Item::Damage(damage) => damage.until <= length as u64,
        Item::Event(..) => true,
    }
}

#[test]
fn removed_and_inserted_bytes_are_detected() {
    for compress in [false, true] {
        let events = events(12, 0);
        let whole = written(&events, compress);
        for at in (64..whole.len()).step_by(3) {
            for (removed, added) in [(1, 0), (8, 0), (0, 1), (0, 8), (100, 0), (0, 100)] {
                let mut bytes = whole.clone();
                let end = (at + removed).min(whole.len());
                bytes.splice(at..end, vec![0xA5; added]);
                let Some(found) = found(&bytes) else { continue };
                assert!(is_part(&found.events, &events), "byte {at}: other events are read");
                let is_whole = found.events.len() == events.len();
                // After the last event only the index can be missing.
                assert!(is_whole || found.damage > 0 || !found.is_closed, "byte {at}: silently");
            }
        }
    }
}

// ---- the commands ----

/// Damages bytes in one to four places, each in one of several ways.
fn mutated(whole: &[u8], random: &mut SplitMix) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    let mut index = |below: usize| random.below(below.max(1) as u64) as usize;
    for _ in 0..=index(4) {
        let at = index(bytes.len());
        let end = (at + index(200)).min(bytes.len());
        match index(7) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..end)),
            2 => bytes[at..end].fill(0),
            3 => bytes[at..end].fill(0xFF),
            4 => {
                let copied = bytes[at..end].to_vec();
                let to = index(bytes.len());
                drop(bytes.splice(to..to, copied));
            }
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << index(8);
                }
            }
        }
    }
    bytes
}

/// A pcap file of Ethernet, IPv4 and TCP, with fragments and segments out of order.
fn pcap() -> Vec<u8> {
    let mut file = [0xA1B2_C3D4u32, 0x0004_0002, 0, 0, 65_535, 1].map(u32::to_le_bytes).concat();
    for n in 0..40u32 {
        let text = format!("line {n} of a packet capture that is damaged\n").into_bytes();
        let sequence = (u32::MAX - 500).wrapping_add((n ^ 1) * text.len() as u32);
        let mut packet = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0];
        packet.extend((40 + text.len() as u16).to_be_bytes());
        let more_fragments = if n % 9 == 8 { 0x20 } else { 0x40 };
        packet.extend([0, n as u8, more_fragments, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        packet.extend([1000u16, 2000].map(u16::to_be_bytes).concat());
        packet.extend(sequence.to_be_bytes());
        packet.extend([0, 0, 0, 1, 0x50, 16, 0xFF, 0xFF, 0, 0, 0, 0]);
        packet.extend(text);
        let record = [1_700_000_000, n * 1000, packet.len() as u32, packet.len() as u32];
        file.extend(record.map(u32::to_le_bytes).concat());
        file.extend(packet);
    }
    file
}

/// The lengths of the lines of a capture.
const JOB: &str = "CREATE TEMPORARY VIEW lines USING socket OPTIONS (host 'localhost', port '9');\n\
    CREATE STREAMING TABLE t USING noop AS SELECT length(value) AS n FROM STREAM lines;\n";

/// Runs a command with limits on its memory and its time.
fn run(args: &[&str]) -> Output {
    // Address space in KiB, most of which the program itself and the stacks of threads use. A job
    // reserves a large stack for its planner.
    let address_space_kib: u32 = if args[0] == "test" { 4 << 20 } else { 1 << 20 };
    let script = format!("ulimit -v {address_space_kib} && exec timeout 120 \"$@\"");
    let program = env!("CARGO_BIN_EXE_millstream");
    let mut command = Command::new("sh");
    command.args(["-c", &script, "sh", program]).args(args).stdin(Stdio::null());
    command.output().unwrap()
}

/// A server that discards the bytes that it receives.
fn sink() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || drop(std::io::copy(&mut stream, &mut std::io::sink())));
        }
    });
    at
}

/// Fails unless the command has ended by itself without a panic, and has printed an error if it
/// failed.
fn check(output: &Output, args: &[&str], file: &Path) {
    let error = String::from_utf8_lossy(&output.stderr);
    let is_said = match output.status.code() {
        Some(0) => !error.contains("panicked"),
        Some(1 | 2) => error.contains("error: ") && !error.contains("panicked"),
        // Exit code 101: the command panicked. 124: it hung. 134 or none: it was aborted, possibly
        // for lack of memory.
        _ => false,
    };
    if !is_said {
        let kept = std::env::temp_dir().join("millstream-damaged-capture");
        drop(std::fs::copy(file, &kept));
        panic!("{args:?} of {}: {:?}: {error}", kept.display(), output.status);
    }
}

#[test]
fn commands_report_damaged_files() {
    let files: usize = std::env::var("MILLSTREAM_MUTATIONS")
        .map_or(70, |files| files.parse().expect("a number of files"));
    let scratch = Scratch::new("damaged");
    let path = |name: &str| scratch.file(name);
    let (damaged, out) = (path("damaged"), path("out"));
    let many = events(2_000, 4_000);
    let (plain, packed) = (written(&many, false), written(&many, true));
    let small = written(&events(40, 0), false);
    // The same events are also tested as pcapng and as gzip.
    std::fs::write(path("small.capture"), &small).unwrap();
    let ng = path("small.pcapng");
    let export = ["export", path("small.capture").to_str().unwrap(), "--format", "pcapng", "-o"]
        .map(str::to_string);
    let output = Command::new(env!("CARGO_BIN_EXE_millstream")).args(export).arg(&ng).output();
    assert!(output.unwrap().status.success());
    let ng = std::fs::read(ng).unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(&pcap()).unwrap();
    let gzip = gzip.finish().unwrap();
    let subjects: [(&[u8], bool); 7] = [
        (&small, true),
        (&plain, true),
        (&packed, true),
        (&small, true),
        (&pcap(), false),
        (&ng, false),
        (&gzip, false),
    ];
    let (mut random, sink) = (SplitMix(25), sink().to_string());
    let (name, out) = (damaged.to_str().unwrap(), out.to_str().unwrap());
    let (job, rows) = (path("job.sql"), path("rows.jsonl"));
    std::fs::write(&job, JOB).unwrap();
    let (job, rows) = (job.to_str().unwrap(), rows.to_str().unwrap());
    let test = ["test", job, "--replay", path("small.capture").to_str().unwrap(), "--expect", rows]
        .map(str::to_string);
    let output = Command::new(env!("CARGO_BIN_EXE_millstream")).args(test).arg("--update").output();
    assert!(output.unwrap().status.success());
    let mut codes = std::collections::BTreeMap::new();
    for n in 0..files {
        let (whole, is_capture) = subjects[n % subjects.len()];
        std::fs::write(&damaged, mutated(whole, &mut random)).unwrap();
        let commands: &[&[&str]] = match (is_capture, n / subjects.len() % 5) {
            (false, _) => &[&["import-pcap", name, "-o", out, "--force"]],
            (true, 0) => &[&["inspect", name]],
            (true, 1) => &[&["export", name, "-o", out, "--force"]],
            (true, 2) => {
                &[&["export", name, "--from", "2023-11-14T22:13:21Z", "-o", out, "--force"]]
            }
            (true, 3) => &[&["test", job, "--replay", name, "--expect", rows]],
            (true, _) => &[&["replay", name, "--to", &sink, "--speed", "max"]],
        };
        for args in commands {
            let output = run(args);
            check(&output, args, &damaged);
            *codes.entry((args[0], output.status.code())).or_insert(0) += 1;
        }
    }
    eprintln!("{files} damaged files; commands and exit codes: {codes:?}");
}
