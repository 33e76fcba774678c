//! Tests that a reader reads everything that a writer has written, and reports all damage.

use super::*;
use crate::env::random::SplitMix;
use crate::error::EngineError;
use std::io::Cursor;

/// An event: its head and its payload.
type Event = (Head, Vec<u8>);

fn head(kind: Kind, n: u64) -> Head {
    Head {
        position: n * 3,
        lines: 0,
        mono_ns: n * 1000,
        wall_ns: 1_700_000_000_000_000_000 + (n * 1000) as i64,
        connection: (n % 7) as u32,
        direction: if n.is_multiple_of(2) { Direction::In } else { Direction::Out },
        kind,
        flags: 0,
    }
}

/// Events of six kinds, with up to `longest` bytes of data each.
fn events(count: u64, longest: u64) -> Vec<Event> {
    let mut dice = SplitMix(7);
    let kinds = [Kind::Data, Kind::Open, Kind::Close, Kind::HalfClose, Kind::Reset, Kind::Note];
    (0..count)
        .map(|n| {
            let kind = kinds[if dice.below(3) > 0 { 0 } else { dice.below(6) as usize }];
            let length = if kind == Kind::Data { dice.below(longest + 1) } else { 0 };
            (head(kind, n), (0..length).map(|at| (at * n) as u8).collect())
        })
        .collect()
}

fn options(compress: bool) -> WriterOptions {
    let header = FileHeader {
        clock: Clock::Kernel,
        precision_ns: 1,
        start_wall_ns: 1_700_000_000_000_000_000,
        recording: 42,
        ..FileHeader::default()
    };
    WriterOptions { header, compress }
}

fn written(events: &[Event], compress: bool) -> Vec<u8> {
    let mut writer = CaptureWriter::new(Vec::new(), &options(compress)).unwrap();
    for (head, payload) in events {
        writer.append(head, payload).unwrap();
    }
    writer.finish().unwrap()
}

/// Reads all events and all damage.
fn read(bytes: &[u8]) -> Result<(Vec<Event>, Vec<Damage>), EngineError> {
    let mut reader = CaptureReader::new(Cursor::new(bytes), "test")?;
    let (mut events, mut damage) = (Vec::new(), Vec::new());
    while let Some(item) = reader.next_item()? {
        match item {
            Item::Event(head, payload) => events.push((head, payload.to_vec())),
            Item::Damage(what) => damage.push(what),
        }
    }
    Ok((events, damage))
}

fn compressions() -> &'static [bool] {
    if cfg!(feature = "zstd") { &[false, true] } else { &[false] }
}

/// Takes so many bytes, then fails.
#[derive(Default)]
struct FullDisk {
    bytes: Vec<u8>,
    most: usize,
}

impl std::io::Write for FullDisk {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let taken = bytes.len().min(self.most - self.bytes.len());
        self.bytes.extend_from_slice(&bytes[..taken]);
        if taken == 0 { Err(std::io::ErrorKind::StorageFull.into()) } else { Ok(taken) }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Buffers of `each` events.
fn buffers(events: &[Event], each: usize) -> impl Iterator<Item = EventBuffer> {
    events.chunks(each).map(|events| {
        let mut buffer = EventBuffer::default();
        events.iter().for_each(|(head, payload)| buffer.push(head, payload));
        buffer
    })
}

#[test]
fn a_file_of_buffers_equals_a_file_of_single_events() {
    let events = events(5_000, 2000);
    for &compress in compressions() {
        for each in [1, 100, 5_000] {
            let mut writer = CaptureWriter::new(Vec::new(), &options(compress)).unwrap();
            for mut buffer in buffers(&events, each) {
                let found: Vec<Event> = buffer.iter().map(|(h, p)| (h, p.to_vec())).collect();
                assert!(events.windows(found.len()).step_by(each).any(|part| part == found));
                writer.append_buffer(&mut buffer).unwrap();
            }
            assert!(writer.finish().unwrap() == written(&events, compress), "{compress} {each}");
        }
    }
}

#[test]
fn a_full_disk_has_exactly_the_events_that_were_reported_as_written() {
    let (events, mut dice) = (events(3_000, 2000), SplitMix(11));
    let whole = written(&events, false).len() as u64;
    for _ in 0..60 {
        let most = dice.below(whole - 64) as usize + 64;
        let disk = FullDisk { bytes: Vec::new(), most };
        let mut writer = CaptureWriter::new(disk, &options(false)).unwrap();
        let mut count = 0;
        for mut buffer in buffers(&events, 500) {
            match writer.append_buffer(&mut buffer) {
                Ok(()) => count += buffer.len(),
                Err(unwritten) => {
                    count += unwritten.written;
                    break;
                }
            }
        }
        let (found, _) = read(&writer.output().bytes).unwrap();
        assert!(found == events[..count], "{most}: {} of {count}", found.len());
    }
}

#[test]
fn written_events_are_read_back() {
    for &compress in compressions() {
        let events = events(20_000, 2000);
        let bytes = written(&events, compress);
        let (found, damage) = read(&bytes).unwrap();
        assert!(found == events && damage.is_empty(), "{compress}: {damage:?}");
        let reader = CaptureReader::new(Cursor::new(&bytes), "test").unwrap();
        let summary = reader.summary().unwrap();
        assert_eq!(summary.events, 20_000);
        assert_eq!(summary.mono_ns_max, 19_999_000);
        let header = reader.header();
        assert_eq!((header.clock, header.recording, header.precision_ns), (Clock::Kernel, 42, 1));
    }
}

#[test]
fn long_data_is_split_and_marked_as_one_write() {
    let payload: Vec<u8> = (0..300_000u32).map(|n| n as u8).collect();
    let bytes = written(&[(head(Kind::Data, 5), payload.clone())], false);
    let (found, _) = read(&bytes).unwrap();
    let joined: Vec<u8> = found.iter().flat_map(|(_, payload)| payload.clone()).collect();
    assert_eq!(joined, payload);
    let more: Vec<bool> = found.iter().map(|(head, _)| head.flags & FLAG_MORE != 0).collect();
    assert_eq!(more, [true, true, true, true, false]);
    let mut position = 15;
    for (head, payload) in &found {
        assert_eq!(head.position, position);
        position += payload.len() as u64;
    }
}

#[test]
fn a_search_by_time_finds_the_same_events_as_reading_all_with_and_without_the_end_of_the_file() {
    for &compress in compressions() {
        let events = events(30_000, 800);
        let whole = written(&events, compress);
        let cut = &whole[..whole.len() * 4 / 5];
        for bytes in [&whole[..], cut] {
            let all = read(bytes).unwrap().0;
            for n in [0, 1, 77, 9_999, 15_000, 21_000, 29_999, 40_000] {
                let (wall_ns, mono_ns) = (head(Kind::Data, n).wall_ns, n * 1000);
                let wanted: Vec<&Event> = all.iter().filter(|e| e.0.wall_ns >= wall_ns).collect();
                for by_wall in [true, false] {
                    let mut reader = CaptureReader::new(Cursor::new(bytes), "test").unwrap();
                    match by_wall {
                        true => reader.seek_wall_ns(wall_ns).unwrap(),
                        false => reader.seek_mono_ns(mono_ns).unwrap(),
                    }
                    let (mut found, mut before) = (Vec::new(), 0);
                    while let Some(item) = reader.next_item().unwrap() {
                        let Item::Event(head, payload) = item else { continue };
                        if head.wall_ns >= wall_ns {
                            found.push((head, payload.to_vec()));
                        } else {
                            before += 1;
                        }
                    }
                    assert!(found.iter().eq(wanted.iter().copied()), "{compress} {n}");
                    assert!(before < 3000, "{before} events were read in vain");
                }
            }
        }
    }
}

#[test]
fn a_writer_that_was_killed_leaves_a_readable_prefix_at_every_length() {
    for &compress in compressions() {
        let events = events(40, 100);
        let whole = written(&events, compress);
        for length in 64..whole.len() {
            let (found, damage) = read(&whole[..length]).unwrap();
            assert!(found.iter().eq(&events[..found.len()]), "cut at {length}");
            assert!(damage.len() <= 1, "cut at {length}: {damage:?}");
        }
    }
}

#[test]
fn every_changed_byte_is_an_error_or_counted_damage_and_changes_no_other_event() {
    for &compress in compressions() {
        let events = events(40, 100);
        let whole = written(&events, compress);
        for at in 0..whole.len() {
            for change in [0xFF, whole[at]] {
                let mut bytes = whole.clone();
                bytes[at] ^= change;
                let Ok((found, damage)) = read(&bytes) else { continue };
                let mut rest = events.iter();
                assert!(
                    found.iter().all(|event| rest.any(|wanted| wanted == event)),
                    "byte {at}: an event was changed"
                );
                assert!(found.len() == events.len() || !damage.is_empty(), "byte {at}");
            }
        }
    }
}

#[test]
fn reading_continues_after_damage_and_counts_the_events_in_it() {
    for &compress in compressions() {
        let events = events(10_000, 1200);
        let whole = written(&events, compress);
        // The last stride is left out, because no mark follows it.
        for part in 1..8 {
            let mut bytes = whole.clone();
            let at = whole.len() * part / 10;
            bytes[at..at + 100].fill(0xA5);
            let (found, damage) = read(&bytes).unwrap();
            let missing: u64 = damage.iter().filter_map(|damage| damage.events).sum();
            assert_eq!(found.len() as u64 + missing, 10_000, "{compress} {part} {damage:?}");
            assert!(missing > 0 && found.last() == events.last());
        }
    }
}

#[test]
fn a_damaged_event_loses_no_other_event() {
    let events = events(200, 300);
    let whole = written(&events, false);
    let mut at = 64;
    for (n, (_, payload)) in events.iter().enumerate().take(199) {
        let mut bytes = whole.clone();
        // Flips a bit of the block's time.
        bytes[at + 24] ^= 1;
        let (found, damage) = read(&bytes).unwrap();
        assert_eq!(found.len(), 199, "event {n}");
        let [damage] = &damage[..] else { panic!("event {n}: {damage:?}") };
        assert_eq!((damage.at, damage.events), (at as u64, Some(1)));
        at += (48 + payload.len()).next_multiple_of(8);
    }
}

#[test]
fn files_of_the_previous_version_are_read() {
    // A version 1 file: a header of eight bytes, one data block with times in microseconds, and
    // zeros.
    let mut file = b"MSCAPT01".to_vec();
    let mut block = vec![0; 48];
    block[8..16].copy_from_slice(&9u64.to_le_bytes());
    block[24..32].copy_from_slice(&5000u64.to_le_bytes());
    block[32..40].copy_from_slice(&(-3i64).to_le_bytes());
    block[40..44].copy_from_slice(&2u32.to_le_bytes());
    block.extend_from_slice(b"abc\n");
    let mut crc = crc32fast::Hasher::new();
    crc.update(&4u32.to_le_bytes());
    crc.update(&block[8..]);
    block[4..8].copy_from_slice(&crc.finalize().to_le_bytes());
    block[..4].copy_from_slice(&5u32.to_le_bytes());
    file.extend_from_slice(&block);
    file.resize(4096, 0);
    let (found, damage) = read(&file).unwrap();
    assert!(damage.is_empty());
    let [(head, payload)] = &found[..] else { panic!("{found:?}") };
    assert_eq!((head.position, head.mono_ns, head.wall_ns, head.connection), (9, 5000, -3000, 2));
    assert_eq!(
        (head.kind, head.direction, &payload[..]),
        (Kind::Data, Direction::In, &b"abc\n"[..])
    );
    let mut count = 0;
    blocks(&file, |_, _| count += 1);
    assert_eq!(count, 1);
}

#[test]
fn a_capture_of_another_version_is_not_called_damaged() {
    let intact = FileHeader { version: 2, ..FileHeader::default() }.encode();
    // The version, and the distance of the marks.
    for (at, byte) in [(7, b'3'), (52, 7)] {
        let mut bytes = intact.to_vec();
        bytes[at] = byte;
        let crc = crc32fast::hash(&[&bytes[..12], &bytes[16..]].concat());
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        let error = CaptureReader::new(Cursor::new(&bytes), "some.file").err().unwrap();
        assert_eq!(error.condition(), "CAPTURE_VERSION_UNSUPPORTED");
        assert!(error.to_string().contains("some.file"), "{error}");
        let path = std::env::temp_dir().join(format!("millstream-v3-{}.cap", std::process::id()));
        std::fs::write(&path, &bytes).unwrap();
        let content = Content::read(&path, |_, _| {}).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(content.damaged(&path).condition(), "CHECKPOINT_VERSION_UNSUPPORTED");
    }
}

#[test]
fn a_file_that_is_not_a_capture_is_an_error_with_its_name() {
    for bytes in [&b""[..], b"MSCAPT", b"MSCAPT03 and more", &[0xD4, 0xC3, 0xB2, 0xA1], &[0; 100]] {
        let error = CaptureReader::new(Cursor::new(bytes), "some.file").err().unwrap();
        assert_eq!(error.condition(), "NOT_A_CAPTURE");
        assert!(error.to_string().contains("some.file"), "{error}");
    }
}

#[test]
fn addresses_of_connections_are_read_back() {
    for (a, b) in [
        (Some("192.0.2.1:80"), Some("[2001:db8::1]:65535")),
        (None, Some("0.0.0.0:0")),
        (None, None),
    ] {
        let parse = |end: Option<&str>| end.map(|end| end.parse().unwrap());
        let (a, b) = (parse(a), parse(b));
        let info = ConnectionInfo { protocol: Protocol::Udp, opener: Opener::B, a, b };
        assert_eq!(ConnectionInfo::decode(&info.encode()), Some(info));
    }
    assert_eq!(ConnectionInfo::decode(&[]), None);
}

#[test]
fn a_recording_rotates_and_every_file_knows_its_open_connections() {
    let folder = std::env::temp_dir().join(format!("millstream-rotate-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("lines.capture");
    let rotation = Rotation { bytes: Some(20_000), ns: None };
    let mut recording =
        Recording::create(&path, &options(false), rotation, Existing::Keep).unwrap();
    let info = ConnectionInfo { a: "192.0.2.1:1".parse().ok(), ..ConnectionInfo::default() };
    recording.append(&head(Kind::Open, 0), &info.encode()).unwrap();
    for n in 1..1000 {
        recording.append(&head(Kind::Data, n * 14), &[b'x'; 100]).unwrap();
    }
    assert_eq!(recording.summary().connections, 1);
    recording.finish().unwrap();
    let mut data = 0;
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().flatten().collect();
    files.sort_by_key(std::fs::DirEntry::path);
    assert!(files.len() > 5, "{}", files.len());
    for (number, file) in files.iter().enumerate() {
        let mut reader = CaptureReader::open(&file.path()).unwrap();
        assert_eq!((reader.header().file, reader.header().recording), (number as u32, 42));
        assert!(reader.summary().is_some());
        let Some(Item::Event(first, payload)) = reader.next_item().unwrap() else { panic!() };
        assert_eq!(
            (first.kind, first.flags),
            (Kind::Open, if number > 0 { FLAG_REPEATED } else { 0 })
        );
        assert_eq!(ConnectionInfo::decode(payload), Some(info));
        while let Some(item) = reader.next_item().unwrap() {
            assert!(matches!(item, Item::Event(Head { kind: Kind::Data, .. }, _)));
            data += 1;
        }
    }
    assert_eq!(data, 999);
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn reading_continues_at_the_location_of_any_event() {
    let all = events(2_000, 2_000);
    for compress in [false, cfg!(feature = "zstd")] {
        let bytes = written(&all, compress);
        let mut reader = CaptureReader::new(Cursor::new(&bytes), "test").unwrap();
        let mut places = vec![reader.place()];
        while reader.next_item().unwrap().is_some() {
            places.push(reader.place());
        }
        for at in (0..all.len()).step_by(37) {
            let mut again = CaptureReader::new(Cursor::new(&bytes), "test").unwrap();
            again.go_to_place(places[at]).unwrap();
            let mut read = Vec::new();
            while let Some(item) = again.next_item().unwrap() {
                let Item::Event(head, payload) = item else { panic!("damage: {item:?}") };
                read.push((head, payload.to_vec()));
            }
            assert!(read == all[at..], "event {at}, compressed {compress}");
        }
    }
}
