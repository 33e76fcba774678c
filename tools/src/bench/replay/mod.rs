//! `millstream bench replay`: measurements of captures, most with a floor that was measured in the
//! same run. They are the pace of a replay, the cost of recording a running query, the import of
//! packet captures, a capture as a source, and the search for a time.

mod import;
mod pace;
mod record;
mod seek;
mod source;

use crate::bench::figure::{self, Figure};
use crate::bench::scratch::Scratch;
use crate::bench::socket_job::Wait;
use crate::capture::times;
use crate::failure::Failure;
use crate::stdout::say;
use clap::{Args as ClapArgs, ValueEnum};
use std::path::PathBuf;

#[derive(ClapArgs)]
#[command(after_help = "Examples:\n  \
    millstream bench replay\n  \
    millstream bench replay --only pace --seconds 60\n  \
    millstream bench replay --only seek --seek-bytes 4G --json\n  \
    millstream bench replay --quick\n\n\
    The floor of each figure is measured in the same run: a sender that only spins and writes, the query\n\
    without recording, a copy of the file, the same lines from a text file, a search without decoding.\n\
    Everything that is sent, recorded, imported and read is counted; a wrong number ends the run.")]
pub(super) struct Args {
    /// The part to measure; by default all
    #[arg(long, value_enum)]
    only: Option<Part>,
    /// Use 0.5% of the data and one short round, to check that everything works
    #[arg(long, conflicts_with_all = ["seconds", "rounds"])]
    quick: bool,
    /// Seconds of the pace measurement (drift shows only over many seconds). Rounds of a recorded
    /// query take at most 5
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(2..=3600))]
    seconds: u64,
    /// Number of rounds of the measurements that alternate with their floor. The import takes at
    /// most 3
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=100))]
    rounds: u64,
    /// How the recorded query waits
    #[arg(long, value_enum, default_value = "balanced")]
    wait: Wait,
    /// Size of the packet capture that is imported
    #[arg(long, value_name = "SIZE", value_parser = file_bytes, default_value = "1G")]
    import_bytes: u64,
    /// Size of the capture in which times are searched
    #[arg(long, value_name = "SIZE", value_parser = file_bytes, default_value = "10G")]
    seek_bytes: u64,
    /// Folder for the files; by default the system's temporary folder
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Parses the size of a file: at least 100 MiB, because `--quick` uses 0.5% of it.
fn file_bytes(text: &str) -> Result<u64, String> {
    const LEAST: u64 = 100 << 20;
    match times::parse_bytes(text)? {
        bytes if bytes >= LEAST => Ok(bytes),
        _ => Err(format!("{text} is too small: at least {}", times::show_bytes(LEAST))),
    }
}

/// A part of the measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Import of a packet capture: speed on one core, and memory
    Import,
    /// Send lag and drift at 10,000 events a second
    Pace,
    /// The cost of recording for a running query
    Record,
    /// A capture as a source, compared with a text file
    Source,
    /// The search for a time in a large file
    Seek,
}

/// Runs the measurements and prints the results.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let scratch = Scratch::new("replay", args.dir.as_deref())?;
    let wanted = |part: Part| args.only.is_none_or(|only| only == part);
    let size = |bytes: u64| if args.quick { bytes / 200 } else { bytes };
    let (seconds, rounds) = if args.quick { (1, 1) } else { (args.seconds, args.rounds) };
    let mut figures = Vec::new();
    // Import runs first, because it measures the peak memory of the whole process.
    if wanted(Part::Import) {
        import::run(&scratch, size(args.import_bytes), rounds, &mut figures)?;
    }
    if wanted(Part::Pace) {
        pace::run(&scratch, seconds, &mut figures)?;
    }
    if wanted(Part::Record) {
        let load = record::Load {
            wait: args.wait,
            seconds: seconds.min(5),
            lines: size(5_000_000),
            rounds,
        };
        record::run(&scratch, &load, &mut figures)?;
    }
    if wanted(Part::Source) {
        source::run(&scratch, size(10_000_000), rounds, &mut figures)?;
    }
    if wanted(Part::Seek) {
        seek::run(&scratch, size(args.seek_bytes), &mut figures)?;
    }
    if args.json {
        let figures: Vec<_> = figures.iter().map(Figure::json).collect();
        say!("{}", serde_json::json!({ "job": "replay", "figures": figures }));
        return Ok(());
    }
    figure::print(&figures);
    Ok(())
}
