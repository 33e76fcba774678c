//! Fuzzes captures, and packet captures that are imported into them.
#![no_main]
#![allow(dead_code, unused_imports, reason = "the importer's modules are compiled on their own")]

#[path = "../../../src/capture/packet/mod.rs"]
mod packet;

use libfuzzer_sys::fuzz_target;
use millstream_engine::capture::{CaptureReader, CaptureWriter, Head, Item, WriterOptions, blocks};
use packet::{EventSink, Filter, GapPolicy, Importer};
use std::io::{self, Cursor};

/// Writes the events of an import, and checks their order.
struct Sink {
    writer: CaptureWriter<Vec<u8>>,
    mono_ns: u64,
}

impl EventSink for Sink {
    fn begin_file(&mut self, _: u32) {}

    fn event(&mut self, head: &Head, payload: &[u8]) -> io::Result<()> {
        assert!(head.mono_ns >= self.mono_ns, "monotonic time falls");
        self.mono_ns = head.mono_ns;
        self.writer.append(head, payload)
    }
}

/// Reads a capture to its end, with `seek_ns` from that time on. Returns the number of its events;
/// 0 if the bytes are not a capture.
fn read(bytes: &[u8], seek_ns: Option<i64>) -> u64 {
    let Ok(mut reader) = CaptureReader::new(Cursor::new(bytes), "fuzz") else { return 0 };
    if let Some(ns) = seek_ns {
        reader.seek_wall_ns(ns).expect("bytes in memory");
    }
    let mut events = 0;
    while let Some(item) = reader.next_item().expect("bytes in memory") {
        events += u64::from(matches!(item, Item::Event(..)));
    }
    events
}

fuzz_target!(|data: &[u8]| {
    let Some((choice, bytes)) = data.split_first() else { return };
    if choice % 2 == 0 {
        blocks(bytes, |_, _| {});
        read(bytes, None);
        read(bytes, Some(1_700_000_000_000_000_000));
        return;
    }
    let policy = match choice / 2 % 4 {
        0 => GapPolicy::Keep,
        1 => GapPolicy::Stop,
        2 => GapPolicy::SkipLine,
        _ => GapPolicy::Fail,
    };
    let options = WriterOptions { compress: choice & 64 != 0, ..WriterOptions::default() };
    let writer = CaptureWriter::new(Vec::new(), &options).expect("memory");
    let mut importer = Importer::new(Sink { writer, mono_ns: 0 }, Filter::default(), policy);
    if importer.read(bytes, |_| true).is_err() {
        return;
    }
    let Ok((sink, counts)) = importer.finish() else { return };
    assert!(counts.data_bytes <= bytes.len() as u64 * 2, "bytes out of nothing");
    let events = sink.writer.summary().events;
    let file = sink.writer.finish().expect("memory");
    assert_eq!(read(&file, None), events, "what was written is read");
});
