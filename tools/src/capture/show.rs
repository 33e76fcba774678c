//! `millstream inspect FILE`: shows the content of a capture.

use super::events::{self, Opened, Selection};
use super::merge;
use super::times;
use crate::failure::Failure;
use crate::sparkline::sparkline;
use crate::stdout::say;
use millstream_engine::capture::{
    Clock, ConnectionInfo, Direction, FLAG_MIDSTREAM, FLAG_REPEATED, Gap, GapCause, Head, Kind,
    Protocol,
};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Half the maximum number of bars in the chart of bytes over time.
const STEPS: usize = 60;
/// Maximum number of connections that are counted individually.
const CONNECTIONS_MAX: usize = 1 << 17;

/// The counters of a connection.
#[derive(Clone, Default)]
struct Connection {
    info: Option<ConnectionInfo>,
    is_midstream: bool,
    first_ns: i64,
    last_ns: i64,
    bytes: [u64; 2],
    events: u64,
    gap_bytes: u64,
    is_reset: bool,
    is_closed: bool,
}

#[derive(Default)]
struct Totals {
    connections: BTreeMap<u32, Connection>,
    /// Number of connections that are not counted individually.
    others: u64,
    events: u64,
    bytes: [u64; 2],
    datagrams: u64,
    gaps: u64,
    gap_bytes: [u64; 4],
    gap_datagrams: u64,
    conflicts: u64,
    ignored: u64,
    notes: Vec<String>,
    rate: Rate,
    first_ns: Option<i64>,
    last_ns: i64,
    /// The longest time without an event, and its start.
    pause: (i64, i64),
}

/// The result of printing a capture.
pub(crate) struct Shown {
    /// Times of the first and the last event.
    pub span: Option<(i64, i64)>,
    damage: Vec<(PathBuf, millstream_engine::capture::Damage)>,
}

impl Shown {
    /// Returns the damage as an error of the command, if there is any.
    pub(crate) fn complain(&self) -> Result<(), Failure> {
        events::complain(&self.damage)
    }
}

/// Prints the content of a capture. `most` is the maximum number of connections to list.
pub(crate) fn run(path: &Path, most: usize) -> Result<Shown, Failure> {
    let files = events::files(path)?;
    files.iter().try_for_each(|file| print_file(file))?;
    let mut totals = Totals::default();
    let take = |_, head: &Head, payload: &[u8]| {
        totals.add(head, payload);
        Ok(())
    };
    let damage = merge::read(&files, &Selection::default(), Opened::AsSelected, take)?;
    totals.print(most, &damage);
    let span = totals.first_ns.map(|first| (first, totals.last_ns));
    Ok(Shown { span, damage })
}

fn print_file(path: &Path) -> Result<(), Failure> {
    let reader = events::open(path)?;
    let header = reader.header();
    let clock = match header.clock {
        Clock::Read => "time of the read",
        Clock::Kernel => "kernel receive time",
        Clock::Packets => "packet capture",
        Clock::Unknown => "not known",
    };
    say!("file         {}", path.display());
    let packed = if header.compressed { ", compressed" } else { "" };
    say!(
        "format       version {}{packed}, {}",
        header.version,
        times::show_bytes(reader.file_bytes())
    );
    match header.precision_ns {
        0 => say!("clock        {clock}"),
        ns => say!("clock        {clock}, to {}", times::show_ns(u64::from(ns))),
    }
    if header.version > 1 {
        say!("recording    {:016x}, file {}", header.recording, header.file);
        say!("started      {}", times::show_wall_ns(header.start_wall_ns));
    }
    if reader.summary().is_none() && header.version > 1 {
        say!("end          not closed: its writer is running, or was killed");
    }
    say!("");
    Ok(())
}

impl Totals {
    fn add(&mut self, head: &Head, payload: &[u8]) {
        if head.kind == Kind::Note {
            if self.notes.len() < 100 {
                self.notes.push(String::from_utf8_lossy(payload).into_owned());
            }
            return;
        }
        self.events += 1;
        let first = *self.first_ns.get_or_insert(head.wall_ns);
        if self.events > 1 && head.wall_ns - self.last_ns > self.pause.0 {
            self.pause = (head.wall_ns - self.last_ns, self.last_ns);
        }
        self.last_ns = if self.events == 1 { head.wall_ns } else { self.last_ns.max(head.wall_ns) };
        let since = u64::try_from(head.wall_ns.saturating_sub(first)).unwrap_or(0);
        let side = usize::from(head.direction == Direction::Out);
        let gap = Gap::decode(payload).filter(|_| head.kind == Kind::Gap);
        match head.kind {
            Kind::Data => {
                self.bytes[side] += payload.len() as u64;
                self.rate.add(since, payload.len() as u64);
            }
            Kind::Gap => {
                self.gaps += 1;
                if let Some(gap) = gap {
                    self.gap_bytes[gap.cause as usize] += gap.bytes;
                    self.gap_datagrams += u64::from(gap.datagrams);
                }
            }
            Kind::Conflict => self.conflicts += 1,
            Kind::Ignored => self.ignored += 1,
            _ => {}
        }
        self.add_to_connection(head, payload, side, gap);
    }

    fn add_to_connection(&mut self, head: &Head, payload: &[u8], side: usize, gap: Option<Gap>) {
        let is_known = self.connections.contains_key(&head.connection);
        if !is_known && self.connections.len() >= CONNECTIONS_MAX {
            self.others += u64::from(head.kind == Kind::Open && head.flags & FLAG_REPEATED == 0);
            return;
        }
        let connection = self.connections.entry(head.connection).or_default();
        if connection.events == 0 {
            connection.first_ns = head.wall_ns;
        }
        connection.events += 1;
        connection.last_ns = connection.last_ns.max(head.wall_ns);
        match head.kind {
            Kind::Open => {
                connection.info = ConnectionInfo::decode(payload).or(connection.info);
                connection.is_midstream |= head.flags & FLAG_MIDSTREAM != 0;
            }
            Kind::Data => {
                connection.bytes[side] += payload.len() as u64;
                let is_udp = connection.info.is_some_and(|info| info.protocol == Protocol::Udp);
                self.datagrams += u64::from(is_udp);
            }
            Kind::Gap => connection.gap_bytes += gap.map_or(0, |gap| gap.bytes),
            Kind::Reset => connection.is_reset = true,
            Kind::Close => connection.is_closed = true,
            _ => {}
        }
    }

    fn print(&self, most: usize, damage: &[(PathBuf, millstream_engine::capture::Damage)]) {
        say!("events       {}", self.events);
        say!("connections  {}", self.connections.len() as u64 + self.others);
        if self.datagrams > 0 {
            say!("datagrams    {}", self.datagrams);
        }
        say!("bytes in     {}", times::show_bytes(self.bytes[0]));
        say!("bytes out    {}", times::show_bytes(self.bytes[1]));
        if let Some(first) = self.first_ns {
            let span = u64::try_from(self.last_ns.saturating_sub(first)).unwrap_or(0);
            say!("first event  {}", times::show_wall_ns(first));
            say!(
                "last event   {}, after {}",
                times::show_wall_ns(self.last_ns),
                times::show_ns(span)
            );
            if self.pause.0 > 0 {
                say!(
                    "longest pause {}, from {}",
                    times::show_ns(self.pause.0 as u64),
                    times::show_wall_ns(self.pause.1)
                );
            }
        }
        self.print_losses(damage);
        if let Some((line, step_ns, peak)) = self.rate.sparkline() {
            say!("\nrate         {line}");
            let per_second = peak as f64 / (step_ns as f64 / 1e9);
            let (step, peak) = (times::show_ns(step_ns), times::show_bytes(per_second as u64));
            say!("             {step} a step, at most {peak}/s");
        }
        self.print_connections(most);
        for note in &self.notes {
            say!("\nnote         {note}");
        }
    }

    fn print_losses(&self, damage: &[(PathBuf, millstream_engine::capture::Damage)]) {
        let causes = [GapCause::Lost, GapCause::Cut, GapCause::Dropped, GapCause::Skipped];
        let causes = causes.iter().filter(|cause| self.gap_bytes[**cause as usize] > 0);
        let causes = causes.map(|cause| {
            format!("{} {}", times::show_bytes(self.gap_bytes[*cause as usize]), cause.name())
        });
        let mut causes: Vec<String> = causes.collect();
        if self.gap_datagrams > 0 {
            let cause = GapCause::Dropped.name();
            causes.push(format!("{} datagrams {cause}", self.gap_datagrams));
        }
        match causes.is_empty() {
            true => say!("gaps         {}", self.gaps),
            false => say!("gaps         {}: {}", self.gaps, causes.join(", ")),
        }
        if self.conflicts + self.ignored > 0 {
            say!("conflicts    {}", self.conflicts);
            say!("ignored      {}", self.ignored);
        }
        let missing: u64 = damage.iter().filter_map(|(_, damage)| damage.events).sum();
        match damage.len() {
            0 => say!("damage       none"),
            count => say!("damage       {count} stretches; {missing} events known to be missing"),
        }
    }

    fn print_connections(&self, most: usize) {
        if self.connections.is_empty() || most == 0 {
            return;
        }
        say!(
            "\n{:<6} {:<5} {:<46} {:>12} {:>12} {:>10} {:>12}  end",
            "conn",
            "proto",
            "ends",
            "bytes in",
            "bytes out",
            "gaps",
            "seconds"
        );
        for (number, connection) in self.connections.iter().take(most) {
            let info = connection.info.unwrap_or_default();
            let protocol = match info.protocol {
                Protocol::Tcp => "tcp",
                Protocol::Udp => "udp",
                Protocol::Unknown => "-",
            };
            let end = |end: Option<std::net::SocketAddr>| {
                end.map_or_else(|| "?".to_string(), |end| end.to_string())
            };
            let ends = format!("{} > {}", end(info.a), end(info.b));
            let how = match (connection.is_reset, connection.is_closed) {
                (true, _) => "reset",
                (_, true) => "closed",
                _ => "open",
            };
            let how =
                if connection.is_midstream { format!("{how}, midstream") } else { how.into() };
            let [bytes_in, bytes_out] = connection.bytes;
            let seconds = (connection.last_ns - connection.first_ns) as f64 / 1e9;
            say!(
                "{number:<6} {protocol:<5} {ends:<46} {bytes_in:>12} {bytes_out:>12} {:>10} {seconds:>12.6}  {how}",
                connection.gap_bytes
            );
        }
        let listed = self.connections.len().min(most) as u64;
        let hidden = self.connections.len() as u64 + self.others - listed;
        if hidden > 0 {
            say!("({hidden} more: --connections N)");
        }
    }
}

/// Bytes over time. The length of a step doubles when the time does not fit.
struct Rate {
    step_ns: u64,
    bytes: Vec<u64>,
}

impl Default for Rate {
    fn default() -> Self {
        Self { step_ns: 1_000, bytes: vec![0; 2 * STEPS] }
    }
}

impl Rate {
    fn add(&mut self, since_ns: u64, bytes: u64) {
        while since_ns / self.step_ns >= self.bytes.len() as u64 {
            let half = self.bytes.len() / 2;
            for step in 0..half {
                self.bytes[step] = self.bytes[2 * step] + self.bytes[2 * step + 1];
            }
            self.bytes[half..].fill(0);
            self.step_ns *= 2;
        }
        self.bytes[(since_ns / self.step_ns) as usize] += bytes;
    }

    /// The chart as a line of bars, the time per bar, and the most bytes of a bar.
    fn sparkline(&self) -> Option<(String, u64, u64)> {
        let used = self.bytes.iter().rposition(|bytes| *bytes > 0)? + 1;
        let (line, peak) = sparkline(&self.bytes[..used]);
        Some((line, self.step_ns, peak))
    }
}
