//! A capture as a source with `speed 'max'`: the lines per second that a query reads, compared with
//! the same query over a text file with the same lines.

use crate::bench::figure::{Figure, Goal, Value};
use crate::bench::open_loop::wrong;
use crate::bench::scratch::Scratch;
use crate::failure::Failure;
use crate::latency_format::{median, median_by};
use millstream::session::{Session, Trigger};
use millstream_engine::capture::{
    CaptureWriter, ConnectionInfo, Direction, Head, Kind, Opener, Protocol, WriterOptions,
};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::Instant;

/// The size of a read of a busy socket, in bytes.
const READ_BYTES: usize = 16 << 10;

pub(super) fn run(
    scratch: &Scratch,
    lines: u64,
    rounds: u64,
    figures: &mut Vec<Figure>,
) -> Result<(), Failure> {
    let folder = scratch.path("text");
    std::fs::create_dir_all(&folder)?;
    write_text(&folder.join("lines.txt"), lines)?;
    let shapes = [("an event a line", 1), ("an event a read of 16 KiB", READ_BYTES)];
    for (what, event_bytes) in shapes {
        let capture = scratch.path("source.capture");
        write_capture(&capture, lines, event_bytes)?;
        let (mut ours, mut text) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            text.push(timed("text", &folder, lines)?);
            ours.push(timed("capture", &capture, lines)?);
        }
        std::fs::remove_file(&capture)?;
        let ratios = ours.iter().zip(&text).map(|(ours, text)| *ours as f64 / *text as f64);
        let ratio = median_by(ratios.collect(), f64::total_cmp);
        let name = |unit: &str| format!("capture as a source at max, {what}: {unit}");
        let figure = Figure::new(name("lines/s"), Value::Rate(median(ours) as f64));
        figures.push(figure.floor(Value::Rate(median(text) as f64)));
        let ratio = Figure::new(name("beside the floor"), Value::Times(ratio));
        figures.push(ratio.goal(Goal::AtLeast(Value::Times(0.9))));
    }
    Ok(())
}

fn line(seq: u64, out: &mut Vec<u8>) {
    // Writing into memory does not fail.
    let _ =
        writeln!(out, "{seq:012},one line of a feed, as long as many are,{:06}", seq % 1_000_003);
}

fn write_text(path: &Path, lines: u64) -> Result<(), Failure> {
    let (mut out, mut text) = (BufWriter::new(File::create(path)?), Vec::new());
    for seq in 0..lines {
        text.clear();
        line(seq, &mut text);
        out.write_all(&text)?;
    }
    Ok(out.flush()?)
}

fn write_capture(path: &Path, lines: u64, event_bytes: usize) -> Result<(), Failure> {
    let mut writer = CaptureWriter::new(File::create(path)?, &WriterOptions::default())?;
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
    writer.append(&head, &info.encode())?;
    head.kind = Kind::Data;
    let mut text = Vec::new();
    for seq in 0..lines {
        line(seq, &mut text);
        if text.len() < event_bytes && seq + 1 < lines {
            continue;
        }
        (head.mono_ns, head.wall_ns) = (head.mono_ns + 10_000, head.wall_ns + 10_000);
        // With large events, a line may be split between two events, as reads of a socket split
        // lines.
        let length = if seq + 1 < lines && event_bytes > 1 { event_bytes } else { text.len() };
        writer.append(&head, &text[..length])?;
        head.position += length as u64;
        text.drain(..length);
    }
    for kind in [Kind::HalfClose, Kind::Close] {
        head.kind = kind;
        writer.append(&head, &[])?;
    }
    writer.finish()?;
    Ok(())
}

/// Runs the query over a file of a format. Returns lines per second.
fn timed(format: &str, path: &Path, lines: u64) -> Result<u64, Failure> {
    let session = Session::new();
    let path = path.display().to_string();
    let read = session.read_stream().format(format).option("path", path).load().map_err(wrong)?;
    read.create_temp_view("lines");
    let text = "SELECT upper(value) AS value FROM lines WHERE NOT contains(value, 'drop')";
    let writer = session.sql(text).map_err(wrong)?.write_stream().output_mode("append");
    let writer = writer.format("noop").trigger(Trigger::AvailableNow);
    let start = Instant::now();
    let query = writer.start()?;
    query.await_termination()?;
    let seconds = start.elapsed().as_secs_f64();
    let read = query.totals().records_in;
    if read != lines {
        return Err(Failure::Failed(format!("{read} of {lines} lines were read from {format}")));
    }
    Ok((lines as f64 / seconds) as u64)
}
