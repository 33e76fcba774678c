//! `millstream capture`: records traffic as a client, as a server, as a proxy, or from datagrams.
//!
//! One thread polls all sockets and writes the events. A proxy stops reading from a side if the
//! other side does not accept the data, so it buffers a bounded number of bytes per connection.

mod datagrams;
mod pair;
mod receive;
mod recorder;
mod streams;
#[cfg(test)]
mod tests;

use super::output::Force;
use super::times;
use crate::failure::Failure;
use crate::stdout::say;
use clap::Args as ClapArgs;
use recorder::Recorder;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

#[derive(ClapArgs)]
#[command(after_help = "Examples:\n  \
    millstream capture --connect feed:9999 -o feed.capture --for 10m\n  \
    millstream capture --listen 9999 -o clients.capture\n  \
    millstream capture --listen 9999 --to 127.0.0.1:8888 -o both.capture\n  \
    millstream capture --udp 5005 --group 239.1.2.3 -o market.capture --bytes 1G\n\n\
    Ctrl-C ends the recording. The file is readable at any time, also after a crash.")]
pub(crate) struct Args {
    /// Record what this server sends
    #[arg(long, value_name = "HOST:PORT", conflicts_with_all = ["listen", "udp"])]
    connect: Option<String>,
    /// Record what clients send to this port
    #[arg(long, value_name = "[ADDRESS:]PORT", conflicts_with = "udp")]
    listen: Option<String>,
    /// With --listen: forward everything to this server and back, and record both directions
    #[arg(long, value_name = "HOST:PORT", requires = "listen")]
    to: Option<String>,
    /// Record the datagrams that arrive at this port
    #[arg(long, value_name = "[ADDRESS:]PORT")]
    udp: Option<String>,
    /// With --udp: join this multicast group; may be repeated
    #[arg(long, value_name = "ADDRESS", requires = "udp")]
    group: Vec<IpAddr>,
    /// The capture file to write
    #[arg(short, long, value_name = "OUT")]
    output: PathBuf,
    #[command(flatten)]
    force: Force,
    /// Stop after this time
    #[arg(long = "for", value_name = "DURATION", value_parser = times::parse_ns)]
    duration: Option<u64>,
    /// Stop after this much data
    #[arg(long, value_name = "SIZE", value_parser = times::parse_bytes)]
    bytes: Option<u64>,
    /// Compress with zstd
    #[arg(long)]
    compress: bool,
    /// Start a new file at this size
    #[arg(long, value_name = "SIZE", value_parser = times::parse_bytes)]
    rotate_bytes: Option<u64>,
    /// Start a new file after this time
    #[arg(long, value_name = "DURATION", value_parser = times::parse_ns)]
    rotate_time: Option<u64>,
}

/// Records until it is stopped, by a signal, the duration or the size, or until the connection of
/// `--connect` ends. Then prints a summary.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let stop = super::import::stop_flag()?;
    let limit = recorder::Limit {
        end: args.duration.map(|ns| std::time::Instant::now() + Duration::from_nanos(ns)),
        bytes: args.bytes,
        stop,
    };
    let begin = || Recorder::begin(args, limit);
    let recorder = match (&args.connect, &args.listen, &args.udp) {
        (Some(server), ..) => streams::connect(&resolve(server)?, begin)?,
        (_, Some(port), _) => {
            let to = args.to.as_deref().map_or(Ok(Vec::new()), resolve)?;
            streams::listen(&local(port)?, &to, begin)?
        }
        (.., Some(port)) => datagrams::listen(&local(port)?, &args.group, begin)?,
        _ => {
            let reason = "NOTHING_TO_CAPTURE: give --connect, --listen or --udp";
            return Err(Failure::Wrong(reason.to_string()));
        }
    };
    let dropped = recorder.dropped_datagrams;
    let summary = recorder.finish()?;
    say!("connections  {}", summary.connections);
    say!("events       {}", summary.events);
    say!("data         {}", times::show_bytes(summary.data_bytes));
    if dropped > 0 {
        say!("dropped      {dropped} datagrams, by the kernel: its buffer was full");
    }
    say!("written to   {}", args.output.display());
    Ok(())
}

/// Resolves the addresses of `HOST:PORT`.
pub(crate) fn resolve(text: &str) -> Result<Vec<SocketAddr>, Failure> {
    let fails = |why: String| Failure::Wrong(format!("ADDRESS_UNKNOWN: {text}: {why}"));
    let found = text.to_socket_addrs().map_err(|error| fails(error.to_string()))?;
    let found: Vec<SocketAddr> = found.collect();
    if found.is_empty() { Err(fails("no address".to_string())) } else { Ok(found) }
}

/// Parses `PORT` or `ADDRESS:PORT` of this machine. A name may have several addresses.
pub(crate) fn local(text: &str) -> Result<Vec<SocketAddr>, Failure> {
    match text.parse::<u16>() {
        Ok(port) => Ok(vec![SocketAddr::new([0, 0, 0, 0].into(), port)]),
        Err(_) => resolve(text),
    }
}

/// Tries the addresses of a name until one works, as `std` does. Returns the last one with its error
/// if none does.
pub(crate) fn first_of<T>(
    addresses: &[SocketAddr],
    mut attempt: impl FnMut(SocketAddr) -> io::Result<T>,
) -> Result<T, (SocketAddr, io::Error)> {
    let mut failed = (SocketAddr::from(([0; 4], 0)), io::ErrorKind::NotFound.into());
    for address in addresses {
        match attempt(*address) {
            Ok(done) => return Ok(done),
            Err(error) => failed = (*address, error),
        }
    }
    Err(failed)
}
