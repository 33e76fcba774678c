//! `millstream import-pcap`: converts pcap and pcapng files to a Millstream capture: a file with
//! the bytes that crossed each socket, and their times.

use super::output::{Force, check_same, exists};
use super::packet::{Counts, Ended, EventSink, FileDamage, Filter, GapPolicy, Importer, Progress};
use super::times;
use crate::failure::Failure;
use crate::stdout::say;
use clap::{Args as ClapArgs, ValueEnum};
use flate2::read::MultiGzDecoder;
use millstream_engine::capture::{
    Clock, Direction, Existing, FileHeader, Head, Kind, Recording, Rotation, Summary, WriterOptions,
};
use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

#[derive(ClapArgs)]
#[command(after_help = "Examples:\n  \
    millstream import-pcap tuesday.pcap -o tuesday.capture\n  \
    millstream import-pcap ring.pcapng.gz -o lines.capture --port 9999 --direction in\n  \
    millstream import-pcap part1.pcap part2.pcap -o both.capture --gaps skip-line --compress\n\n\
    Reads pcap (both byte orders, microseconds and nanoseconds) and pcapng, plain or gzip.\n\
    Skipped packets and missing bytes are counted by reason.\n\
    Exit codes: 0 done, 1 damaged input or failure (packets before the damage are imported),\n\
    2 invalid command line.")]
pub(crate) struct Args {
    /// The packet captures, ordered by time
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The capture to write
    #[arg(short, long, value_name = "OUT")]
    output: PathBuf,
    #[command(flatten)]
    force: Force,
    /// Only packets from or to this address; may be repeated
    #[arg(long, value_name = "ADDRESS")]
    host: Vec<IpAddr>,
    /// Only packets from or to this port; may be repeated
    #[arg(long, value_name = "PORT")]
    port: Vec<u16>,
    /// Only this protocol
    #[arg(long, value_enum)]
    protocol: Option<ProtocolArg>,
    /// Only data in this direction: `in` is towards the service, which is the endpoint that was
    /// connected to
    #[arg(long, value_enum)]
    direction: Option<DirectionArg>,
    /// Only this connection, numbered by first packet; may be repeated
    #[arg(long, value_name = "N")]
    connection: Vec<u32>,
    /// Only events at or after this time, such as 2026-03-01T12:30:00Z
    #[arg(long, value_name = "TIME", value_parser = times::parse_wall_ns)]
    from: Option<i64>,
    /// Only events before this time
    #[arg(long, value_name = "TIME", value_parser = times::parse_wall_ns)]
    to_time: Option<i64>,
    /// How to continue after a gap in a stream
    #[arg(long, value_enum, default_value = "keep")]
    gaps: GapsArg,
    /// Compress with zstd
    #[arg(long)]
    compress: bool,
    /// Start a new file at this size, such as 1G
    #[arg(long, value_name = "SIZE", value_parser = times::parse_bytes)]
    rotate_bytes: Option<u64>,
    /// Start a new file after this much recorded time, such as 1h
    #[arg(long, value_name = "DURATION", value_parser = times::parse_ns)]
    rotate_time: Option<u64>,
    /// Print the counts as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum ProtocolArg {
    Tcp,
    Udp,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum DirectionArg {
    In,
    Out,
}

impl DirectionArg {
    pub(crate) fn direction(self) -> Direction {
        match self {
            Self::In => Direction::In,
            Self::Out => Direction::Out,
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum GapsArg {
    /// Keep the data after the gap; the capture contains a gap event
    Keep,
    /// Drop the rest of the direction
    Stop,
    /// Drop the data up to the next line
    SkipLine,
    /// Fail
    Fail,
}

/// Writes events to a recording, which is created when it is first needed.
struct Writer {
    output: PathBuf,
    compress: bool,
    rotation: Rotation,
    existing: Existing,
    precision_ns: u32,
    recording: Option<Recording>,
}

impl Writer {
    fn new(output: &Path, compress: bool, rotation: Rotation, existing: Existing) -> Self {
        let output = output.to_path_buf();
        Self { output, compress, rotation, existing, precision_ns: 0, recording: None }
    }

    /// Creates the recording, which starts at the time of an event.
    fn begin(&mut self, first: &Head) -> io::Result<&mut Recording> {
        let header = FileHeader {
            clock: Clock::Packets,
            precision_ns: self.precision_ns,
            start_wall_ns: first.wall_ns,
            start_mono_ns: first.mono_ns,
            recording: first.wall_ns as u64 ^ u64::from(std::process::id()).rotate_right(16),
            ..FileHeader::default()
        };
        let options = WriterOptions { header, compress: self.compress };
        let recording = Recording::create(&self.output, &options, self.rotation, self.existing)?;
        Ok(self.recording.insert(recording))
    }
}

impl EventSink for Writer {
    fn begin_file(&mut self, precision_ns: u32) {
        self.precision_ns = self.precision_ns.max(precision_ns);
    }

    fn event(&mut self, head: &Head, payload: &[u8]) -> io::Result<()> {
        let recording = match &mut self.recording {
            Some(recording) => recording,
            None => self.begin(head)?,
        };
        recording.append(head, payload)
    }
}

/// Imports packet captures.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    // A wrong name is reported before anything is written.
    args.files.iter().try_for_each(|path| check(path, &args.output))?;
    let rotation = Rotation { bytes: args.rotate_bytes, ns: args.rotate_time };
    args.force.check(&args.output, rotation)?;
    let stop = stop_flag()?;
    let writer = Writer::new(&args.output, args.compress, rotation, args.force.existing());
    let mut importer = Importer::new(writer, args.filter(), args.policy());
    let mut damaged = Vec::new();
    let start = Instant::now();
    let mut bar = ProgressLine::new();
    for path in &args.files {
        let input = open(path)?;
        let damage = importer.read(input, |progress| {
            bar.show(path, progress);
            !stop.load(Ordering::Relaxed)
        });
        if let Some(damage) = damage.map_err(|ended| failure(path, &args.output, ended))? {
            damaged.push((path.clone(), damage));
        }
        if stop.load(Ordering::Relaxed) {
            break;
        }
    }
    bar.clear();
    let is_nothing = importer.packets() == 0 && damaged.len() == args.files.len();
    let last = args.files.last().map(PathBuf::as_path).unwrap_or(Path::new(""));
    let (mut writer, counts) =
        importer.finish().map_err(|ended| failure(last, &args.output, ended))?;
    let fails = |error: io::Error| write_failed(&args.output, &error);
    if !is_nothing {
        let report = report(args, &counts, &damaged);
        if writer.recording.is_none() {
            writer.begin(&note_at(&Summary::default())).map_err(fails)?;
        }
        if let Some(mut recording) = writer.recording.take() {
            let note = note_at(&recording.summary());
            let text = report.to_string();
            recording.append(&note, text.as_bytes()).map_err(fails)?;
            recording.finish().map_err(fails)?;
        }
        match args.json {
            true => say!("{report}"),
            false => print(&counts, start.elapsed()),
        }
    }
    if stop.load(Ordering::Relaxed) {
        let reason = format!(
            "interrupted after {} packets; {} is readable",
            counts.packets,
            args.output.display()
        );
        return Err(Failure::Failed(reason));
    }
    if damaged.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> =
        damaged.iter().map(|(path, damage)| damaged_line(path, damage)).collect();
    let outcome = if is_nothing {
        "Nothing was imported"
    } else {
        "The packets before the damage are imported"
    };
    Err(Failure::Failed(format!("{}. {outcome}", lines.join("\nerror: "))))
}

/// The head of a note at the end of a recording.
fn note_at(summary: &Summary) -> Head {
    Head {
        position: 0,
        lines: 0,
        mono_ns: summary.mono_ns_max,
        wall_ns: summary.wall_ns_max,
        connection: 0,
        direction: Direction::In,
        kind: Kind::Note,
        flags: 0,
    }
}

/// Imports one packet capture without filters and without printing a report.
pub(crate) fn import_file(input: &Path, output: &Path) -> Result<Counts, Failure> {
    let writer = Writer::new(output, false, Rotation::default(), Existing::Overwrite);
    let mut importer = Importer::new(writer, Filter::default(), GapPolicy::Keep);
    check(input, output)?;
    let damage = importer.read(open(input)?, |_| true);
    if let Some(damage) = damage.map_err(|ended| failure(input, output, ended))? {
        return Err(Failure::Failed(damaged_line(input, &damage)));
    }
    let (writer, counts) = importer.finish().map_err(|ended| failure(input, output, ended))?;
    if let Some(recording) = writer.recording {
        recording.finish().map_err(|error| write_failed(output, &error))?;
    }
    Ok(counts)
}

fn damaged_line(path: &Path, damage: &FileDamage) -> String {
    format!("PACKETS_DAMAGED: {} (at byte {}): {}", path.display(), damage.at, damage.what)
}

impl Args {
    fn filter(&self) -> Filter {
        Filter {
            hosts: self.host.clone(),
            ports: self.port.clone(),
            protocol: self.protocol.map(|protocol| match protocol {
                ProtocolArg::Tcp => 6,
                ProtocolArg::Udp => 17,
            }),
            direction: self.direction.map(DirectionArg::direction),
            connections: self.connection.clone(),
            from_ns: self.from,
            to_ns: self.to_time,
        }
    }

    fn policy(&self) -> GapPolicy {
        match self.gaps {
            GapsArg::Keep => GapPolicy::Keep,
            GapsArg::Stop => GapPolicy::Stop,
            GapsArg::SkipLine => GapPolicy::SkipLine,
            GapsArg::Fail => GapPolicy::Fail,
        }
    }
}

/// A flag that Ctrl-C sets. A second Ctrl-C ends the program.
pub(super) fn stop_flag() -> Result<Arc<AtomicBool>, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    let handler = ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
    });
    handler.map_err(|error| Failure::Failed(format!("cannot catch Ctrl-C: {error}")))?;
    Ok(stop)
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    Failure::Wrong(format!("PACKETS_UNREADABLE: {}: {error}", path.display()))
}

/// Checks the name of an input. A pipe is not opened, because what it contains is read only once.
fn check(path: &Path, output: &Path) -> Result<(), Failure> {
    let metadata = std::fs::metadata(path).map_err(|error| unreadable(path, &error))?;
    if metadata.is_dir() {
        return Err(unreadable(path, &io::ErrorKind::IsADirectory.into()));
    }
    if metadata.is_file() {
        File::open(path).map_err(|error| unreadable(path, &error))?;
    }
    check_same(path, output)
}

/// Opens an input.
fn open(path: &Path) -> Result<Box<dyn Read>, Failure> {
    let opened = File::open(path).and_then(unpacked);
    opened.map_err(|error| unreadable(path, &error))
}

/// The content of a file, decompressed if it is gzip.
fn unpacked(mut file: File) -> io::Result<Box<dyn Read>> {
    let mut first = Vec::new();
    (&mut file).take(2).read_to_end(&mut first)?;
    let is_gzip = first == [0x1F, 0x8B];
    let whole = io::Cursor::new(first).chain(file);
    Ok(if is_gzip {
        Box::new(MultiGzDecoder::new(io::BufReader::with_capacity(1 << 18, whole)))
    } else {
        Box::new(whole)
    })
}

fn failure(path: &Path, output: &Path, ended: Ended) -> Failure {
    Failure::Failed(match ended {
        Ended::Sink(error) => return write_failed(output, &error),
        Ended::Gap(what) => format!(
            "GAP_IN_STREAM: {}: {what}. Import with another policy: --gaps keep, stop or skip-line",
            path.display()
        ),
    })
}

fn write_failed(path: &Path, error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::AlreadyExists => exists(path),
        _ => Failure::Failed(format!(
            "CAPTURE_WRITE_FAILED: {}: {error}. Check the output's disk",
            path.display()
        )),
    }
}

/// The maximum number of files that a report names. It is one event of the recording, whose size is
/// limited.
const NAMES_MAX: usize = 100;

fn report(args: &Args, counts: &Counts, damaged: &[(PathBuf, FileDamage)]) -> serde_json::Value {
    let map = |pairs: &mut dyn Iterator<Item = (&'static str, u64)>| {
        let pairs = pairs.map(|(name, count)| (name.to_string(), serde_json::Value::from(count)));
        serde_json::Value::Object(pairs.collect())
    };
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let damage = damaged.iter().take(NAMES_MAX).map(|(path, damage)| {
        serde_json::json!({"file": name(path), "at": damage.at, "what": damage.what})
    });
    serde_json::json!({
        "import": args.files.iter().take(NAMES_MAX).map(|path| name(path)).collect::<Vec<_>>(),
        "files": args.files.len(),
        "packets": counts.packets,
        "skipped": map(&mut counts.skipped()),
        "odd": map(&mut counts.odd()),
        "connections": counts.tcp_connections,
        "udp_flows": counts.udp_flows,
        "datagrams": counts.datagrams,
        "data_bytes": counts.data_bytes,
        "losses": map(&mut counts.losses()),
        "damage": damage.collect::<Vec<_>>(),
    })
}

fn print(counts: &Counts, elapsed: Duration) {
    say!("packets                  {}", counts.packets);
    say!("TCP connections          {}", counts.tcp_connections);
    if counts.datagrams > 0 {
        say!("UDP datagrams            {} in {} flows", counts.datagrams, counts.udp_flows);
    }
    say!("data                     {}", times::show_bytes(counts.data_bytes));
    for (name, packets) in counts.skipped() {
        say!("skipped: {name:<20} {packets} packets");
    }
    for (name, packets) in counts.odd() {
        say!("odd: {name:<19} {packets} packets");
    }
    for (name, count) in counts.losses() {
        say!("{name:<24} {count}");
    }
    say!("time                     {}", times::show_ns(elapsed.as_nanos() as u64));
}

/// A progress line on a terminal, which is overwritten.
struct ProgressLine {
    is_shown: bool,
    start: Instant,
    last: Option<Instant>,
}

impl ProgressLine {
    fn new() -> Self {
        Self { is_shown: io::stderr().is_terminal(), start: Instant::now(), last: None }
    }

    fn show(&mut self, path: &Path, progress: Progress) {
        let now = Instant::now();
        let due = self.last.is_none_or(|last| now - last > Duration::from_millis(500));
        // Nothing is shown in the first half second.
        if !self.is_shown || !due || now - self.start < Duration::from_millis(500) {
            return;
        }
        self.last = Some(now);
        let rate = progress.file_bytes as f64 / (now - self.start).as_secs_f64();
        eprint!(
            "\r\x1b[K{}: {} read, {} packets, {} of data, {}/s",
            path.file_name().unwrap_or_default().to_string_lossy(),
            times::show_bytes(progress.file_bytes),
            progress.packets,
            times::show_bytes(progress.data_bytes),
            times::show_bytes(rate as u64),
        );
    }

    fn clear(&self) {
        if self.last.is_some() {
            eprint!("\r\x1b[K");
        }
    }
}
