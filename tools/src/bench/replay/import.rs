//! The import of a packet capture: bytes per second on one core, compared with copying the same
//! file, and the peak memory of the process.

use crate::bench::figure::{Figure, Goal, Value};
use crate::bench::open_loop::on_last_core;
use crate::bench::scratch::Scratch;
use crate::capture::import::import_file;
use crate::failure::Failure;
use crate::latency_format::median;
use millstream_engine::capture::{CaptureReader, Item, Kind};
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::Path;
use std::time::Instant;

/// Number of connections, whose packets alternate in the file.
const CONNECTIONS: u32 = 8;
/// The first sequence number of each connection. It is chosen so that sequence numbers wrap early.
const FIRST_SEQUENCE: u32 = u32::MAX - 100_000;
/// Time between two packets, in nanoseconds.
const PACKET_NS: u64 = 1_000;
const SYN: u8 = 2;
const ACK: u8 = 16;

/// A packet capture to import: its segment size and the goal for its throughput.
struct Shape {
    name: &'static str,
    payload_bytes: usize,
    goal: Option<Goal>,
}

pub(super) fn run(
    scratch: &Scratch,
    bytes: u64,
    rounds: u64,
    figures: &mut Vec<Figure>,
) -> Result<(), Failure> {
    let shapes = [
        Shape {
            name: "segments of 1448 bytes",
            payload_bytes: 1448,
            goal: Some(Goal::AtLeast(Value::ByteRate(500e6))),
        },
        Shape { name: "segments of 100 bytes", payload_bytes: 100, goal: None },
    ];
    let peak_is_known = forget_peak();
    for shape in shapes {
        let (pcap, capture) = (scratch.path("import.pcap"), scratch.path("import.capture"));
        let written = write(&pcap, bytes, shape.payload_bytes)?;
        let file_bytes = std::fs::metadata(&pcap)?.len();
        let (mut ours, mut copies) = (Vec::new(), Vec::new());
        for _ in 0..rounds.min(3) {
            copies.push(timed(file_bytes, || copy(&pcap, &capture))?);
            let mut imported = 0;
            ours.push(timed(file_bytes, || {
                imported = import_file(&pcap, &capture)?.data_bytes;
                Ok(())
            })?);
            if imported != written || data_bytes(&capture)? != written {
                let reason = format!("{imported} bytes were imported, not {written}");
                return Err(Failure::Failed(reason));
            }
        }
        drop(std::fs::remove_file(&pcap));
        drop(std::fs::remove_file(&capture));
        let name = format!("import-pcap on one core, {}", shape.name);
        let figure = Figure::new(name, Value::ByteRate(median(ours) as f64));
        let figure = figure.floor(Value::ByteRate(median(copies) as f64));
        figures.push(match shape.goal {
            Some(goal) => figure.goal(goal),
            None => figure,
        });
    }
    if let (true, Some(peak)) = (peak_is_known, peak_bytes()) {
        let name = "import-pcap: peak memory of the whole process";
        let most = Goal::AtMost(Value::Bytes((64 << 20) as f64));
        figures.push(Figure::new(name, Value::Bytes(peak as f64)).goal(most));
    }
    Ok(())
}

/// Runs `body`, which processes `bytes` bytes, on the last core. Returns its bytes per second.
fn timed(bytes: u64, body: impl FnOnce() -> Result<(), Failure> + Send) -> Result<u64, Failure> {
    on_last_core(|| {
        let start = Instant::now();
        let outcome = body();
        let seconds = start.elapsed().as_secs_f64();
        Ok(outcome.map(|()| (bytes as f64 / seconds) as u64))
    })?
}

fn copy(from: &Path, to: &Path) -> Result<(), Failure> {
    let (mut from, mut to) = (File::open(from)?, File::create(to)?);
    let mut buffer = vec![0; 1 << 20];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(to.sync_all()?),
            read => to.write_all(&buffer[..read])?,
        }
    }
}

/// Writes a pcap file of about `file_bytes` bytes. Returns the number of bytes of TCP payload.
fn write(path: &Path, file_bytes: u64, payload_bytes: usize) -> Result<u64, Failure> {
    let mut out = Packets { out: BufWriter::with_capacity(1 << 20, File::create(path)?), count: 0 };
    let header = [0xA1B2_3C4Du32, 0x0004_0002, 0, 0, 65_535, 1];
    out.out.write_all(&header.map(u32::to_le_bytes).concat())?;
    for connection in 0..CONNECTIONS {
        out.packet(connection, true, (SYN, FIRST_SEQUENCE, 0), &[])?;
        out.packet(connection, false, (SYN | ACK, 0, FIRST_SEQUENCE.wrapping_add(1)), &[])?;
    }
    let text = b"one line of a feed, of about sixty bytes, as many feeds have\n";
    let payload: Vec<u8> = text.iter().copied().cycle().take(payload_bytes).collect();
    let (mut sent, mut payload_total, mut written) = ([0u32; CONNECTIONS as usize], 0, 0);
    while written < file_bytes {
        for connection in 0..CONNECTIONS {
            let sent = &mut sent[connection as usize];
            // The receiver acknowledges every second segment.
            for _ in 0..2 {
                let sequence = FIRST_SEQUENCE.wrapping_add(1).wrapping_add(*sent);
                out.packet(connection, true, (ACK, sequence, 1), &payload)?;
                *sent = sent.wrapping_add(payload_bytes as u32);
                payload_total += payload_bytes as u64;
            }
            let acknowledged = FIRST_SEQUENCE.wrapping_add(1).wrapping_add(*sent);
            out.packet(connection, false, (ACK, 1, acknowledged), &[])?;
            written += (2 * payload_bytes + 3 * (16 + 54)) as u64;
        }
    }
    out.out.flush()?;
    Ok(payload_total)
}

/// Writes packets, a microsecond apart.
struct Packets<W> {
    out: W,
    count: u64,
}

impl<W: Write> Packets<W> {
    fn packet(
        &mut self,
        connection: u32,
        is_client: bool,
        (flags, sequence, acknowledged): (u8, u32, u32),
        payload: &[u8],
    ) -> std::io::Result<()> {
        let length = (54 + payload.len()) as u32;
        let ns = self.count * PACKET_NS;
        let time = [1_700_000_000 + (ns / 1_000_000_000) as u32, (ns % 1_000_000_000) as u32];
        self.count += 1;
        let (client, server) = ([10, 0, 0, 1], [10, 0, 0, 2]);
        let (ports, from, to) = match is_client {
            true => ([40_000 + connection as u16, 9999], client, server),
            false => ([9999, 40_000 + connection as u16], server, client),
        };
        let mut head = [0; 16 + 54];
        let parts: [&[u8]; 13] = [
            &[time[0], time[1], length, length].map(u32::to_le_bytes).concat(),
            &[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0],
            &[0x45, 0],
            &(40 + payload.len() as u16).to_be_bytes(),
            &[0, 0, 0x40, 0, 64, 6, 0, 0],
            &from,
            &to,
            &ports.map(u16::to_be_bytes).concat(),
            &sequence.to_be_bytes(),
            &acknowledged.to_be_bytes(),
            &[0x50, flags],
            &[0xFF, 0xFF, 0, 0],
            &[0, 0],
        ];
        let mut at = 0;
        for part in parts {
            head[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        self.out.write_all(&head)?;
        self.out.write_all(payload)
    }
}

fn data_bytes(path: &Path) -> Result<u64, Failure> {
    let (mut reader, mut bytes) = (CaptureReader::open(path)?, 0);
    while let Some(item) = reader.next_item()? {
        match item {
            Item::Event(head, payload) if head.kind == Kind::Data => bytes += payload.len() as u64,
            Item::Event(..) => {}
            Item::Damage(damage) => {
                return Err(Failure::Failed(format!("the capture is damaged: {damage:?}")));
            }
        }
    }
    Ok(bytes)
}

/// Resets the peak memory of this process. Returns false if the system does not support that.
fn forget_peak() -> bool {
    std::fs::write("/proc/self/clear_refs", "5").is_ok()
}

fn peak_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1024)
}
