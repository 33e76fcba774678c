//! The pace of a replay over loopback: how late events are sent, and whether the lag grows. The
//! floor is a loop that spins until the time of each event and writes the same bytes.
//!
//! The drift is the lateness of events in the last second minus that in the first second. The
//! receiver measures it, because its clock readings do not depend on the sender's schedule.

use crate::bench::figure::{Figure, Goal, Value};
use crate::bench::open_loop::note;
use crate::bench::scratch::Scratch;
use crate::capture::replay::{Speed, play_to};
use crate::failure::Failure;
use crate::latency_format::median_by;
use hdrhistogram::Histogram;
use millstream_engine::capture::{
    CaptureWriter, Clock, ConnectionInfo, Direction, FileHeader, Head, Kind, Opener, Protocol,
    WriterOptions,
};
use millstream_engine::measure::latency::histogram;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Events per second.
const RATE: u64 = 10_000;
const PERIOD_NS: u64 = 1_000_000_000 / RATE;
const LINE_BYTES: usize = 64;

/// The send lag that a sender measured and the drift that its receiver measured.
struct Paced {
    lag: Histogram<u64>,
    drift_ns: f64,
}

pub(super) fn run(
    scratch: &Scratch,
    seconds: u64,
    figures: &mut Vec<Figure>,
) -> Result<(), Failure> {
    let (path, events) = (scratch.path("pace.capture"), seconds * RATE);
    write(&path, events)?;
    let bare = measured(events, |to| bare_sender(to, events))?;
    let ours = measured(events, |to| play_to(&path, to, Speed::Factor(1.0)))?;
    let at = |paced: &Paced, quantile: f64| Value::Ns(paced.lag.value_at_quantile(quantile) as f64);
    let name = |what: &str| format!("replay at 1x, {RATE} events/s for {seconds} s: {what}");
    for (what, quantile, goal_ns) in [
        ("send lag p50", 0.5, Some(2e3)),
        ("send lag p99", 0.99, Some(50e3)),
        ("send lag max", 1.0, None),
    ] {
        let figure = Figure::new(name(what), at(&ours, quantile)).floor(at(&bare, quantile));
        figures.push(match goal_ns {
            Some(ns) => figure.goal(Goal::AtMost(Value::Ns(ns))),
            None => figure,
        });
    }
    let drift = Figure::new(name("drift"), Value::Ns(ours.drift_ns.abs()));
    let drift = drift.floor(Value::Ns(bare.drift_ns.abs()));
    figures.push(drift.goal(Goal::AtMost(Value::Ns(10e3))));
    Ok(())
}

/// Writes a capture of one connection whose events are exactly one period apart.
fn write(path: &Path, events: u64) -> Result<(), Failure> {
    let header = FileHeader { clock: Clock::Read, precision_ns: 1, ..FileHeader::default() };
    let options = WriterOptions { header, compress: false };
    let mut writer = CaptureWriter::new(File::create(path)?, &options)?;
    let mut head = Head {
        position: 0,
        lines: 0,
        mono_ns: 0,
        wall_ns: 0,
        connection: 0,
        direction: Direction::In,
        kind: Kind::Open,
        flags: 0,
    };
    let info = ConnectionInfo { protocol: Protocol::Tcp, opener: Opener::A, a: None, b: None };
    writer.append(&head, &info.encode())?;
    head.kind = Kind::Data;
    for event in 0..events {
        head.mono_ns = event * PERIOD_NS;
        head.wall_ns = head.mono_ns as i64;
        writer.append(&head, &line(event))?;
        head.position += LINE_BYTES as u64;
    }
    head.kind = Kind::HalfClose;
    writer.append(&head, &[])?;
    head.kind = Kind::Close;
    writer.append(&head, &[])?;
    writer.finish()?;
    Ok(())
}

fn line(event: u64) -> [u8; LINE_BYTES] {
    let mut line = [b'.'; LINE_BYTES];
    // Writing into memory that is large enough does not fail.
    let _ = write!(&mut line[..20], "{event:020}");
    line[LINE_BYTES - 1] = b'\n';
    line
}

fn bare_sender(to: SocketAddr, events: u64) -> Result<Histogram<u64>, Failure> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_nodelay(true)?;
    let (mut lag, start) = (histogram(), Instant::now());
    for event in 0..events {
        let due = Duration::from_nanos(event * PERIOD_NS);
        let now = loop {
            let now = start.elapsed();
            if now >= due {
                break now;
            }
            std::hint::spin_loop();
        };
        note(&mut lag, due, now);
        stream.write_all(&line(event))?;
    }
    Ok(lag)
}

/// Runs a sender and a receiver. Returns the sender's lag and the drift that the receiver measured.
fn measured(
    events: u64,
    send: impl FnOnce(SocketAddr) -> Result<Histogram<u64>, Failure>,
) -> Result<Paced, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let at = listener.local_addr()?;
    let receiver = std::thread::spawn(move || receive(&listener, events));
    let lag = send(at)?;
    let drift_ns = joined(receiver)?;
    Ok(Paced { lag, drift_ns })
}

fn joined(receiver: JoinHandle<Result<f64, Failure>>) -> Result<f64, Failure> {
    let panicked = || Failure::Failed("the receiver panicked".to_string());
    receiver.join().map_err(|_| panicked())?
}

/// Receives all events. Returns the median lateness in the last second minus that in the first, in
/// nanoseconds; of a run below two seconds, in its second half minus its first. An error if bytes
/// are missing or too many.
fn receive(listener: &TcpListener, events: u64) -> Result<f64, Failure> {
    let (mut stream, _) = listener.accept()?;
    let (mut late_ns, mut bytes) = (Vec::with_capacity(events as usize), 0);
    let (mut buffer, start) = (vec![0; 1 << 16], Instant::now());
    loop {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        let now_ns = start.elapsed().as_nanos() as i64;
        bytes += read;
        while late_ns.len() < bytes / LINE_BYTES {
            late_ns.push(now_ns - late_ns.len() as i64 * PERIOD_NS as i64);
        }
    }
    if bytes as u64 != events * LINE_BYTES as u64 {
        let reason = format!("{bytes} bytes arrived of {events} events of {LINE_BYTES} bytes");
        return Err(Failure::Failed(reason));
    }
    // A run of one second is compared by halves.
    let second = (RATE as usize).min(late_ns.len() / 2);
    let last = late_ns.len() - second;
    let middle = |late_ns: &[i64]| median_by(late_ns.to_vec(), Ord::cmp) as f64;
    Ok(middle(&late_ns[last..]) - middle(&late_ns[..second]))
}
