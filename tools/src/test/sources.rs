//! The job with its sources replaced by files and captures.

use super::Args;
use crate::capture::events::{self, Selection};
use crate::capture::import::DirectionArg;
use crate::failure::Failure;
use crate::run::{overrides, read};
use millstream::session::{JobQuery, ReplacedSource, Session, is_capture};
use millstream_engine::capture::{Item, Kind};
use std::path::{Path, PathBuf};

/// The options of the captures that replace sources. With `--latency` they are replayed at their
/// recorded speed, unless `--speed` is given. Several captures share a schedule, except at `max`.
fn capture_options(args: &Args) -> Result<Vec<(String, String)>, Failure> {
    let mut options = Vec::new();
    let mut add = |name: &str, value: String| options.push((name.to_string(), value));
    let paced = args.latency.as_ref().map(|_| "1".to_string());
    // Several captures are replayed on a common schedule.
    let starts = capture_starts(args)?;
    if let Some(speed) = args.speed.clone().or(paced) {
        if let Some(start_ns) = starts.iter().min().filter(|_| speed != "max" && starts.len() > 1) {
            add("scheduleStart", start_ns.to_string());
        }
        add("speed", speed);
    }
    if let Some(from) = args.selection.from {
        add("from", from.to_string());
    }
    if let Some(to) = args.selection.to_time {
        add("to", to.to_string());
    }
    if let Some(direction) = args.selection.direction {
        add("direction", format!("{direction:?}"));
    }
    if !args.selection.connection.is_empty() {
        let numbers: Vec<_> = args.selection.connection.iter().map(u32::to_string).collect();
        add("connection", numbers.join(","));
    }
    Ok(options)
}

/// The time of the first selected data of each capture. A capture without selected data is an
/// error, because the test would prove nothing.
fn capture_starts(args: &Args) -> Result<Vec<i64>, Failure> {
    let named = args.source.iter().map(|(_, path)| path);
    let captures = args.replay.iter().chain(named).filter(|path| is_capture(path));
    let starts = captures.map(|path| {
        first_data_ns(path, args)?.ok_or_else(|| {
            Failure::Wrong(format!(
                "CAPTURE_SELECTS_NOTHING: {} has no data of this direction, connection and time: \
                 `millstream inspect` shows what it has",
                path.display()
            ))
        })
    });
    starts.collect()
}

/// The wall-clock time of the first selected data of a capture, in file order; `None` if it has
/// none. Damaged stretches are passed over.
fn first_data_ns(path: &Path, args: &Args) -> Result<Option<i64>, Failure> {
    // The default direction is that of the capture source.
    let direction = args.selection.direction.or(Some(DirectionArg::In));
    let selection = Selection { direction, ..args.selection.clone() };
    for file in events::files(path)? {
        let mut reader = events::open(&file)?;
        if let Some(from_ns) = selection.from {
            reader.seek_wall_ns(from_ns)?;
        }
        while let Some(item) = reader.next_item()? {
            if let Item::Event(head, _) = item
                && head.kind == Kind::Data
                && selection.takes(&head)
            {
                return Ok(Some(head.wall_ns));
            }
        }
    }
    Ok(None)
}

/// Parses the job, with its sources replaced.
pub(super) fn prepare(args: &Args, session: &Session) -> Result<Vec<JobQuery>, Failure> {
    let options = capture_options(args)?;
    let replaced = |view: Option<&String>, path: &PathBuf| ReplacedSource {
        view: view.cloned(),
        path: path.clone(),
        capture_options: options.clone(),
    };
    let named = args.source.iter().map(|(name, path)| replaced(Some(name), path));
    session.replace_sources(named.chain(args.replay.iter().map(|path| replaced(None, path))));
    let text = read(&args.job)?;
    // The job's checkpoint is not checked, because the test uses none.
    let mut overrides = overrides(&args.set, args.trigger.as_deref())?;
    overrides.explains = true;
    let at_job = |error: &dyn std::fmt::Display| format!("{}: {error}", args.job.display());
    let queries = session.job(&text, &overrides).map_err(|error| Failure::Wrong(at_job(&error)))?;
    let sources = session.job_sources();
    let names: Vec<_> = sources.iter().map(|source| source.view.as_str()).collect();
    for (name, _) in &args.source {
        if !names.iter().any(|view| view.eq_ignore_ascii_case(name)) {
            return Err(Failure::Wrong(at_job(&format!(
                "there is no source `{name}`; its sources are {}",
                names.join(", ")
            ))));
        }
    }
    let is_named = |view: &str| args.source.iter().any(|(name, _)| name.eq_ignore_ascii_case(view));
    let replayed = sources.iter().filter(|s| s.replaced_by.is_some() && !is_named(&s.view));
    let replayed: Vec<_> = replayed.map(|source| source.view.as_str()).collect();
    if args.replay.is_some() && replayed.len() != 1 {
        let found = match replayed.len() {
            0 => "the job has no socket or capture that --replay can replace".to_string(),
            _ => format!("--replay would replace {}: use --source NAME=FILE", replayed.join(", ")),
        };
        return Err(Failure::Wrong(at_job(&found)));
    }
    for live in sources.iter().filter(|source| source.replaced_by.is_none()) {
        let (what, file) = match live.format.to_ascii_lowercase().as_str() {
            "socket" => ("a socket", "a file"),
            "kafka" => ("in a Kafka cluster", "a file of JSON lines"),
            _ => continue,
        };
        return Err(Failure::Wrong(at_job(&format!(
            "source `{0}` is {what}, and a test reads nothing from the network: give it {file} with \
             --source {0}=FILE",
            live.view
        ))));
    }
    Ok(queries)
}
