//! `millstream export`: a capture as JSON lines, as text, or as pcapng.

use super::events::{self, Opened, Selection};
use super::merge;
use super::output::{Force, check_same, not_created};
use super::packets_out::PacketWriter;
use crate::failure::Failure;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use clap::{Args as ClapArgs, ValueEnum};
use millstream_engine::capture::{
    ConnectionInfo, Direction, FLAG_CUT, FLAG_MIDSTREAM, FLAG_MORE, FLAG_REPEATED, Gap, Head,
    Ignored, IgnoredReason, Kind, Opener, Protocol, conflict_bytes,
};
use std::collections::{HashMap, HashSet};
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

#[derive(ClapArgs)]
#[command(after_help = "Examples:\n  \
    millstream export tuesday.capture --format json | head\n  \
    millstream export tuesday.capture --format text --direction in -o lines.txt\n  \
    millstream export tuesday.capture --format pcapng -o tuesday.pcapng\n\n\
    json: an object per event. text: complete lines, in the order in which they were completed.\n\
    pcapng: synthetic packets made from the events, for Wireshark and similar programs.")]
pub(crate) struct Args {
    /// The capture, or a folder of captures
    capture: PathBuf,
    /// The output format
    #[arg(long, value_enum, default_value = "json")]
    format: Format,
    /// The output file; by default standard output
    #[arg(short, long, value_name = "OUT")]
    output: Option<PathBuf>,
    #[command(flatten)]
    force: Force,
    #[command(flatten)]
    selection: Selection,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Json,
    Text,
    Pcapng,
}

/// Writes events in an output format.
trait Exporter {
    fn event(&mut self, head: &Head, payload: &[u8], out: &mut dyn Write) -> io::Result<()>;
    fn finish(&mut self, out: &mut dyn Write) -> io::Result<()>;
    /// Whether the output does not need the open event of a connection again.
    fn knows(&self, _connection: u32) -> bool {
        true
    }
}

/// Exports a capture.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let files = events::files(&args.capture)?;
    let out: Box<dyn Write> = match &args.output {
        None => Box::new(io::stdout()),
        Some(path) => {
            files.iter().try_for_each(|file| check_same(file, path))?;
            let created = args.force.existing().create(path);
            Box::new(created.map_err(|error| not_created("EXPORT_UNWRITABLE", path, &error))?)
        }
    };
    let mut out = BufWriter::with_capacity(1 << 18, out);
    let mut exporter: Box<dyn Exporter> = match args.format {
        Format::Json => Box::new(Json),
        Format::Text => Box::<Text>::default(),
        Format::Pcapng => Box::new(Packets(PacketWriter::begin(&mut out)?)),
    };
    let opened = match args.format {
        Format::Pcapng => Opened::WithOpen,
        Format::Json | Format::Text => Opened::AsSelected,
    };
    let damage = merge::read(&files, &args.selection, opened, |file, head, payload| {
        // A later file of a recording repeats the open events of open connections. The packets of a
        // connection need the first one that is read.
        let is_repeated = head.flags & FLAG_REPEATED != 0 && head.kind == Kind::Open;
        if is_repeated && file > 0 && exporter.knows(head.connection) {
            return Ok(());
        }
        exporter.event(head, payload, &mut out).or_else(closed)
    })?;
    exporter.finish(&mut out).and_then(|()| out.flush()).or_else(closed)?;
    events::complain(&damage)
}

/// If the reader closes the pipe (`| head`), this is not an error.
fn closed(error: io::Error) -> Result<(), Failure> {
    match error.kind() {
        io::ErrorKind::BrokenPipe => std::process::exit(0),
        _ => Err(Failure::Failed(format!("EXPORT_WRITE_FAILED: {error}"))),
    }
}

struct Json;

impl Exporter for Json {
    fn event(&mut self, head: &Head, payload: &[u8], out: &mut dyn Write) -> io::Result<()> {
        if head.kind == Kind::Note {
            let text = String::from_utf8_lossy(payload);
            let note = serde_json::from_str::<serde_json::Value>(&text);
            let note = note.unwrap_or_else(|_| serde_json::Value::from(text.into_owned()));
            return writeln!(out, "{{\"kind\":\"note\",\"t\":{},\"note\":{note}}}", head.wall_ns);
        }
        let direction = if head.direction == Direction::In { "in" } else { "out" };
        write!(
            out,
            "{{\"kind\":\"{}\",\"t\":{},\"connection\":{}",
            name(head.kind),
            head.wall_ns,
            head.connection
        )?;
        if !matches!(head.kind, Kind::Open | Kind::Close) {
            write!(out, ",\"direction\":\"{direction}\",\"at\":{}", head.position)?;
        }
        match head.kind {
            Kind::Open => open(head, payload, out)?,
            Kind::Data => data(head, payload, out)?,
            Kind::Gap => {
                if let Some(gap) = Gap::decode(payload) {
                    let cause = gap.cause.name();
                    write!(out, ",\"bytes\":{},\"cause\":\"{cause}\"", gap.bytes)?;
                    if gap.datagrams > 0 {
                        write!(out, ",\"datagrams\":{}", gap.datagrams)?;
                    }
                }
            }
            Kind::Conflict => write!(out, ",\"bytes\":{}", conflict_bytes(payload))?,
            Kind::Ignored => {
                if let Some(ignored) = Ignored::decode(payload) {
                    let reason = match ignored.reason {
                        IgnoredReason::AfterFin => "after-fin",
                        IgnoredReason::AfterReset => "after-reset",
                    };
                    write!(out, ",\"bytes\":{},\"reason\":\"{reason}\"", ignored.bytes)?;
                }
            }
            _ => {}
        }
        out.write_all(b"}\n")
    }

    fn finish(&mut self, _: &mut dyn Write) -> io::Result<()> {
        Ok(())
    }
}

fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Open => "open",
        Kind::Close => "close",
        Kind::HalfClose => "half-close",
        Kind::Reset => "reset",
        Kind::Gap => "gap",
        Kind::Conflict => "conflict",
        Kind::Ignored => "ignored",
        Kind::Note => "note",
        _ => "data",
    }
}

fn open(head: &Head, payload: &[u8], out: &mut dyn Write) -> io::Result<()> {
    let Some(info) = ConnectionInfo::decode(payload) else { return Ok(()) };
    let protocol = match info.protocol {
        Protocol::Tcp => "\"tcp\"",
        Protocol::Udp => "\"udp\"",
        Protocol::Unknown => "null",
    };
    write!(out, ",\"protocol\":{protocol}")?;
    for (name, end) in [("a", info.a), ("b", info.b)] {
        if let Some(end) = end {
            write!(out, ",\"{name}\":\"{end}\"")?;
        }
    }
    match info.opener {
        Opener::A => write!(out, ",\"opener\":\"a\"")?,
        Opener::B => write!(out, ",\"opener\":\"b\"")?,
        Opener::Unknown => {}
    }
    if head.flags & FLAG_MIDSTREAM != 0 {
        write!(out, ",\"midstream\":true")?;
    }
    Ok(())
}

/// Writes data as text if it is text, otherwise as base64.
fn data(head: &Head, payload: &[u8], out: &mut dyn Write) -> io::Result<()> {
    write!(out, ",\"bytes\":{}", payload.len())?;
    for (flag, name) in [(FLAG_MORE, "more"), (FLAG_CUT, "cut")] {
        if head.flags & flag != 0 {
            write!(out, ",\"{name}\":true")?;
        }
    }
    match std::str::from_utf8(payload) {
        Ok(text) => write!(out, ",\"text\":{}", serde_json::Value::from(text)),
        Err(_) => write!(out, ",\"base64\":\"{}\"", BASE64_STANDARD.encode(payload)),
    }
}

/// Writes lines, in the order in which they end.
#[derive(Default)]
struct Text {
    partial: HashMap<(u32, bool), Vec<u8>>,
    partial_bytes: usize,
    /// The directions whose current line has a gap.
    broken: HashSet<(u32, bool)>,
}

impl Exporter for Text {
    fn event(&mut self, head: &Head, payload: &[u8], out: &mut dyn Write) -> io::Result<()> {
        /// The maximum length of a line in bytes; a longer line is written in pieces.
        const LINE_MAX: usize = 1 << 20;
        /// The maximum number of bytes of unfinished lines, and of lines that ended since the last
        /// count. Beyond it, all unfinished lines are written if they have more than half of it.
        const PARTIAL_MAX: usize = 32 << 20;
        /// The memory of an unfinished line in addition to its bytes.
        const OVERHEAD: usize = 64;
        let key = (head.connection, head.direction == Direction::Out);
        match head.kind {
            Kind::Data => {
                let payload = match self.broken.contains(&key) {
                    true => match payload.iter().position(|byte| *byte == b'\n') {
                        Some(end) => {
                            self.broken.remove(&key);
                            &payload[end + 1..]
                        }
                        None => return Ok(()),
                    },
                    false => payload,
                };
                if payload.is_empty() {
                    return Ok(());
                }
                self.partial_bytes += payload.len() + OVERHEAD;
                if self.partial_bytes > PARTIAL_MAX {
                    // The count still includes lines that have ended, so it is computed anew.
                    self.partial_bytes = self.partial.values().map(|l| l.len() + OVERHEAD).sum();
                    if self.partial_bytes > PARTIAL_MAX / 2 {
                        self.finish(out)?;
                        self.partial_bytes = 0;
                    }
                }
                let line = self.partial.entry(key).or_default();
                line.extend_from_slice(payload);
                let end = match line.iter().rposition(|byte| *byte == b'\n') {
                    Some(end) => end + 1,
                    None if line.len() > LINE_MAX => line.len(),
                    None => return Ok(()),
                };
                out.write_all(&line[..end])?;
                line.drain(..end);
                if line.is_empty() {
                    self.partial.remove(&key);
                }
            }
            // A line with a gap is left out: its part before the gap, and its rest.
            Kind::Gap => {
                self.partial.remove(&key);
                // A datagram begins a line.
                let is_of_datagrams = head.flags & FLAG_CUT != 0
                    || Gap::decode(payload).is_some_and(|gap| gap.datagrams > 0);
                if !is_of_datagrams {
                    self.broken.insert(key);
                }
            }
            Kind::HalfClose | Kind::Reset => self.end(key, out)?,
            Kind::Close => {
                self.end((head.connection, false), out)?;
                self.end((head.connection, true), out)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut dyn Write) -> io::Result<()> {
        let mut keys: Vec<_> = self.partial.keys().copied().collect();
        keys.sort_unstable();
        keys.into_iter().try_for_each(|key| self.end(key, out))
    }
}

impl Text {
    /// Writes the last line of a direction, although it has no line end.
    fn end(&mut self, key: (u32, bool), out: &mut dyn Write) -> io::Result<()> {
        self.broken.remove(&key);
        let Some(line) = self.partial.remove(&key) else { return Ok(()) };
        out.write_all(&line)?;
        out.write_all(b"\n")
    }
}

struct Packets(PacketWriter);

impl Exporter for Packets {
    fn event(&mut self, head: &Head, payload: &[u8], out: &mut dyn Write) -> io::Result<()> {
        self.0.event(head, payload, out)
    }

    fn knows(&self, connection: u32) -> bool {
        self.0.knows(connection)
    }

    fn finish(&mut self, _: &mut dyn Write) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text of events of one direction of a connection.
    fn text_of(events: &[(Kind, u16, &[u8])]) -> String {
        let (mut text, mut out) = (Text::default(), Vec::new());
        for (kind, flags, payload) in events {
            let head = Head {
                position: 0,
                lines: 0,
                mono_ns: 0,
                wall_ns: 0,
                connection: 0,
                direction: Direction::In,
                kind: *kind,
                flags: *flags,
            };
            text.event(&head, payload, &mut out).unwrap();
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_line_with_a_gap_is_left_out_of_the_text() {
        let gap = Gap::of_bytes(9, millstream_engine::capture::GapCause::Lost).encode();
        let text = text_of(&[
            (Kind::Data, 0, b"one\nabc"),
            (Kind::Gap, 0, &gap),
            (Kind::Data, 0, b"de"),
            (Kind::Data, 0, b"f\nghi\n"),
            (Kind::Gap, 0, &gap),
            (Kind::Data, 0, b"tail"),
            (Kind::HalfClose, 0, b""),
        ]);
        assert_eq!(text, "one\nghi\n");
    }

    #[test]
    fn a_datagram_after_a_gap_is_a_line_of_the_text() {
        use millstream_engine::capture::GapCause;
        let lost = Gap { datagrams: 2, ..Gap::of_bytes(0, GapCause::Lost) }.encode();
        let cut = Gap::of_bytes(9, GapCause::Cut).encode();
        let text = text_of(&[
            (Kind::Data, 0, b"one\n"),
            (Kind::Gap, 0, &lost),
            (Kind::Data, 0, b"two\n"),
            (Kind::Data, FLAG_MORE, b"half of"),
            (Kind::Gap, FLAG_CUT, &cut),
            (Kind::Data, 0, b"three\n"),
        ]);
        assert_eq!(text, "one\ntwo\nthree\n");
    }
}
