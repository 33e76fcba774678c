//! `millstream inspect`: shows the content of a checkpoint, and whether it is damaged.
//! [`crate::capture::show`] shows captures, [`slow`] shows recorded progress.

mod progress_log;
mod slow;

use crate::capture::times;
use crate::failure::Failure;
use crate::stdout::say;
use clap::Args as ClapArgs;
use millstream::table::physical::{
    PartNumber, part_number, show_join_row, show_join_sides, show_state,
};
use millstream::table::row::{Row, decode};
use millstream::table::types::Schema;
use millstream_engine::capture::{self, Content, Tear, Verdict};
use millstream_engine::checkpoint::offset::Offset;
use millstream_engine::checkpoint::state_file::StateFile;
use millstream_engine::checkpoint::{
    EpochMode, QueryDescription, numbered_entries, open_state, read_commit, read_metadata,
    read_offsets,
};
use millstream_engine::env::storage::FileStorage;
use millstream_engine::error::EngineError;
use slow::Question;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

#[derive(ClapArgs)]
#[command(after_help = "Examples:\n  \
    millstream inspect /var/lib/wordcount\n  \
    millstream inspect /var/lib/wordcount --state 0\n  \
    millstream inspect tuesday.capture\n  \
    millstream inspect progress.jsonl\n  \
    millstream inspect tuesday.capture --progress progress.jsonl --slow 5ms\n\n\
    Progress reports are written by `millstream run --progress FILE`. Shown are the periods in which\n\
    latency rose, and the commands that replay them.\n\
    Nothing is changed; a query may be running on it. Exit code 1 if something is damaged.")]
pub(crate) struct Args {
    /// The folder of a checkpoint, a capture, a folder of captures, or a file of progress reports
    #[arg(value_name = "PATH")]
    checkpoint: PathBuf,
    /// Print the keys and values of this stateful operator; those of user-defined processors are
    /// printed as bytes
    ///
    /// A line has the columns of a key, separated by tabs, then `=>` and the value. Of an
    /// aggregation these are the parts of each function, such as sum and count. Of a join of streams
    /// the value is a buffered row: its side, its number in the order of arrival, `matched` if it has
    /// had a match, and its columns. Before the rows there is a line per side: `rows`, the buffered
    /// rows; `matched`, those that have had a match (recorded only on a side whose rows are emitted
    /// without one); `bytes`, their size in the checkpoint; `oldest`, the smallest value of each
    /// timestamp column; `unfinished searches`, rows whose matches are not all emitted yet
    #[arg(long, value_name = "OP")]
    state: Option<usize>,
    /// Number of epochs to list, the latest ones
    #[arg(long, default_value_t = 10)]
    epochs: usize,
    /// Number of connections of a capture to list
    #[arg(long, default_value_t = 20)]
    connections: usize,
    /// With a capture: the progress reports of the query for which it was recorded
    #[arg(long, value_name = "FILE")]
    progress: Option<PathBuf>,
    /// The p99 latency above which a progress report is slow. The default is three times the median
    #[arg(long, value_name = "DURATION", value_parser = times::parse_ns)]
    slow: Option<u64>,
    /// Number of slow periods to show for each query, the slowest ones
    #[arg(long, value_name = "N", default_value_t = 3)]
    periods: usize,
}

/// The damage found so far. The inspection continues with the rest.
#[derive(Default)]
struct Damage(Vec<String>);

impl Damage {
    fn take<T>(&mut self, result: Result<T, EngineError>) -> Option<T> {
        result.map_err(|error| self.0.push(error.to_string())).ok()
    }
}

/// Prints the content of a checkpoint or a capture, the slow periods of a file of progress reports,
/// or the list of the checkpoints in a folder.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let (storage, folder) = (&FileStorage, &args.checkpoint);
    if !folder.exists() {
        let reason = format!("PATH_NOT_FOUND: there is no file or folder {}", folder.display());
        return Err(Failure::Wrong(reason));
    }
    if progress_log::is_progress(folder) {
        if args.progress.is_some() {
            let reason = "--progress is for a capture, and PATH is a file of progress reports";
            return Err(Failure::Wrong(reason.to_string()));
        }
        let question = Question { limit_ns: args.slow, most: args.periods, capture: None };
        return slow::run(folder, &question);
    }
    let queries = queries_below(folder);
    if folder.is_file()
        || (!folder.join("metadata").exists() && queries.is_empty() && has_captures(folder))
    {
        return inspect_capture(args);
    }
    if args.progress.is_some() || args.slow.is_some() {
        let reason = format!(
            "--progress is for a capture, and --slow for progress reports: {} is neither",
            folder.display()
        );
        return Err(Failure::Wrong(reason));
    }
    if !folder.join("metadata").exists() && !queries.is_empty() {
        return list(args, &queries);
    }
    let (id, shape) =
        read_metadata(storage, folder).map_err(|error| Failure::Failed(format!("{error}")))?;
    let mut damage = Damage::default();
    let offsets =
        damage.take(numbered_entries(storage, &folder.join("offsets"))).unwrap_or_default();
    let commits =
        damage.take(numbered_entries(storage, &folder.join("commits"))).unwrap_or_default();
    // Finds the files of the last state: that of the last epoch which is committed or, in
    // continuous mode, has only its commit missing.
    let mut manifest = Vec::new();
    for epoch in &commits {
        let path = folder.join("commits").join(epoch.to_string());
        if let Some(commit) = damage.take(read_commit(storage, &path)) {
            manifest = commit.state;
        }
    }
    let mut listed = Vec::new();
    for epoch in &offsets {
        let path = folder.join("offsets").join(epoch.to_string());
        let Some((header, positions)) = damage.take(read_offsets(storage, &path)) else { continue };
        if header.mode == EpochMode::Continuous && Some(epoch) > commits.last() {
            manifest.clone_from(&header.state);
        }
        listed.push((*epoch, header, positions));
    }
    let mut state = Vec::new();
    for operator in 0..shape.operators.len() {
        let names = manifest.get(operator).map_or(&[][..], Vec::as_slice);
        let files = damage.take(open_state(storage, folder, &id, operator, names));
        state.push(files.and_then(|files| {
            let keys = damage.take(load(&files))?;
            Some((files, keys))
        }));
    }
    match args.state {
        Some(operator) => print_state(operator, &shape, &state)?,
        None => {
            say!("id         {id}");
            for (index, source) in shape.sources.iter().enumerate() {
                say!("source {index}   {source}");
            }
            if let Some(sink) = &shape.sink {
                say!("sink       {sink}");
            }
            print_epochs(args.epochs, &listed, &commits);
            print_operators(&shape.operator_names(), &state);
            let committed = committed_offsets(&listed, &commits);
            for source in 0..shape.sources.len() {
                // The offset of a durable source is a number of bytes.
                let offset = committed.and_then(|offsets| offsets.get(source)?.number().ok());
                let folder = folder.join("sources").join(source.to_string());
                print_log(&folder, offset.unwrap_or(0), &mut damage);
            }
        }
    }
    if damage.0.is_empty() {
        return Ok(());
    }
    Err(Failure::Failed(damage.0.join("\nerror: ")))
}

/// Prints a capture, and with `--progress` the slow periods of the query for which it was recorded.
/// Fails if the capture is damaged, after it is printed.
fn inspect_capture(args: &Args) -> Result<(), Failure> {
    let path = &args.checkpoint;
    if args.slow.is_some() && args.progress.is_none() {
        let reason = "--slow is for progress reports: give their file with --progress";
        return Err(Failure::Wrong(reason.to_string()));
    }
    let shown = crate::capture::show::run(path, args.connections)?;
    if let Some(progress) = &args.progress {
        say!("");
        let capture = Some((path.as_path(), shown.span));
        let question = Question { limit_ns: args.slow, most: args.periods, capture };
        slow::run(progress, &question)?;
    }
    shown.complain()
}

/// Whether a folder contains capture files.
fn has_captures(folder: &Path) -> bool {
    let mut entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.any(|entry| entry.path().extension().is_some_and(|e| e == "cap" || e == "capture"))
}

/// The checkpoints in a folder: one per query of a job (`run --checkpoint DIR`).
fn queries_below(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut queries: Vec<_> =
        entries.map(|entry| entry.path()).filter(|path| path.join("metadata").is_file()).collect();
    queries.sort();
    queries
}

/// Prints one line per query of a job.
fn list(args: &Args, queries: &[PathBuf]) -> Result<(), Failure> {
    let folder = args.checkpoint.display();
    if args.state.is_some() {
        let first = queries[0].display();
        return Err(Failure::Wrong(format!(
            "SEVERAL_QUERIES: {folder} has the checkpoints of {} queries, but --state needs one: \
             millstream inspect {first} --state 0",
            queries.len()
        )));
    }
    say!("{folder} has the checkpoints of {} queries:\n", queries.len());
    say!("query                epochs   operators  sink");
    let mut damage = Damage::default();
    for query in queries {
        let name = query.file_name().unwrap_or_default().to_string_lossy();
        let Some((_, shape)) = damage.take(read_metadata(&FileStorage, query)) else { continue };
        let epochs = damage.take(numbered_entries(&FileStorage, &query.join("offsets")));
        let (epochs, operators) = (epochs.unwrap_or_default().len(), shape.operators.len());
        let sink = shape.sink.as_deref().unwrap_or("-");
        say!("{name:<20} {epochs:<8} {operators:<10} {sink}");
    }
    say!("\nOne of them: millstream inspect {}", queries[0].display());
    if damage.0.is_empty() { Ok(()) } else { Err(Failure::Failed(damage.0.join("\nerror: "))) }
}

type Keys = HashMap<Vec<u8>, Vec<u8>>;

fn load(files: &[StateFile]) -> Result<Keys, EngineError> {
    let mut keys = Keys::new();
    for file in files {
        file.read(&FileStorage, 0..256, |key, value| {
            match value {
                Some(value) => drop(keys.insert(key.to_vec(), value.to_vec())),
                None => drop(keys.remove(key)),
            }
            Ok(())
        })?;
    }
    Ok(keys)
}

type Listed = (u64, millstream_engine::checkpoint::OffsetHeader, Vec<Offset>);

fn print_epochs(most: usize, listed: &[Listed], commits: &[u64]) {
    say!("\nepoch      mode         committed  offsets");
    for (epoch, header, positions) in listed.iter().rev().take(most).rev() {
        let mode = match header.mode {
            EpochMode::Continuous => "continuous",
            EpochMode::MicroBatch => "micro-batch",
        };
        let committed = if commits.contains(epoch) { "yes" } else { "no" };
        let positions: Vec<_> = positions.iter().map(|offset| offset.0.as_str()).collect();
        say!("{epoch:<10} {mode:<12} {committed:<10} {}", positions.join("  "));
    }
    if let Some(hidden) = listed.len().checked_sub(most).filter(|hidden| *hidden > 0) {
        say!("({hidden} earlier epochs: --epochs {})", listed.len());
    }
}

fn print_operators(operators: &[String], state: &[Option<(Vec<StateFile>, Keys)>]) {
    if operators.is_empty() {
        return;
    }
    say!("\noperator   keys         files      bytes        what");
    for (index, what) in operators.iter().enumerate() {
        match &state[index] {
            Some((files, keys)) => {
                let bytes: u64 = files.iter().map(StateFile::bytes).sum();
                say!("{index:<10} {:<12} {:<10} {bytes:<12} {what}", keys.len(), files.len());
            }
            None => say!("{index:<10} damaged                              {what}"),
        }
    }
}

/// The sources' positions from which a restart resumes: those of the last epoch that is committed
/// or, in continuous mode, has only its commit missing. `None` if there is no such epoch.
fn committed_offsets<'l>(listed: &'l [Listed], commits: &[u64]) -> Option<&'l [Offset]> {
    let counts = |(epoch, header, _): &&Listed| {
        header.mode == EpochMode::Continuous || commits.contains(epoch)
    };
    listed.iter().rev().find(counts).map(|(_, _, offsets)| offsets.as_slice())
}

/// Reads a segment of a capture log; `None` if a running query has removed it.
fn read_segment(path: &Path) -> Result<Option<Content>, EngineError> {
    let mut content = None;
    // If the end has moved meanwhile, a running query was appending there.
    for _ in 0..2 {
        let before: Option<Content> = content;
        let mut read = match Content::read(path, |_, _| {}) {
            Ok(read) => read,
            Err(error) if error.condition() == "CHECKPOINT_FILE_MISSING" => return Ok(None),
            Err(error) => return Err(error),
        };
        if before.is_some_and(|before| before.at != read.at) {
            read.tear = Tear::None;
        }
        content = Some(read);
        if read.tear == Tear::None {
            break;
        }
    }
    Ok(content)
}

/// Reads the segments of a log, from the last one to the first: what a running query appends
/// meanwhile is behind what has been read, so that nothing seems to be missing between two segments.
fn read_segments(
    paths: impl DoubleEndedIterator<Item = PathBuf>,
    mut read: impl FnMut(&Path) -> Option<Content>,
) -> (Vec<PathBuf>, Vec<Content>) {
    let found = paths.rev().filter_map(|path| read(&path).map(|content| (path, content)));
    let mut found: Vec<_> = found.collect();
    found.reverse();
    found.into_iter().unzip()
}

/// Prints the capture log of a durable source, if the folder contains one. A restart resumes at the
/// stream position `from`. A block that is torn at the end of the log is not damage, because a
/// restart accepts it; nor is anything before `from`, which a restart does not read.
fn print_log(folder: &Path, from: u64, damage: &mut Damage) {
    if !folder.join("0000000000.cap").exists()
        && !std::fs::read_dir(folder).is_ok_and(|mut entries| {
            entries.any(|e| e.is_ok_and(|e| e.path().extension().is_some_and(|e| e == "cap")))
        })
    {
        return;
    }
    say!("\ncapture log segment                 blocks     payload bytes");
    let paths = damage.take(capture::segments(folder)).unwrap_or_default();
    let (paths, contents) = read_segments(paths.into_iter().map(|(_, path)| path), |path| {
        damage.take(read_segment(path)).flatten()
    });
    for (index, (path, content)) in paths.iter().zip(&contents).enumerate() {
        let Content { events, payload_bytes, .. } = content;
        say!("{:<35} {events:<10} {payload_bytes}", path.display());
        match capture::verdict(&contents, index, from) {
            Verdict::Whole => {}
            Verdict::Damaged => damage.0.push(content.damaged(path).to_string()),
            Verdict::EndsHere => {
                let later = contents[index + 1..].iter().filter(|later| later.first.is_some());
                say!("{:<35} {}", "", log_ends_here(content.at, later.count()));
                break;
            }
        }
    }
}

/// Describes where a log ends, and what a restart removes.
fn log_ends_here(at: usize, later: usize) -> String {
    let removed = match later {
        0 => String::new(),
        1 => " and the later segment".to_string(),
        later => format!(" and the {later} later segments"),
    };
    format!("ends at byte {at}: a restart removes what follows there{removed}")
}

/// Prints a line per key: its columns, `=>`, its values. For a join of two streams, first prints a
/// summary of each side. Prints nothing if the state is damaged.
fn print_state(
    operator: usize,
    shape: &QueryDescription,
    state: &[Option<(Vec<StateFile>, Keys)>],
) -> Result<(), Failure> {
    let (Some(entry), Some(layout)) = (state.get(operator), shape.layouts.get(operator)) else {
        return Err(Failure::Wrong(format!(
            "NO_SUCH_OPERATOR: {operator}: the query has {} stateful operator{}",
            state.len(),
            if state.len() == 1 { ", number 0" } else { "s, numbered from 0" }
        )));
    };
    let Some((_, keys)) = entry else { return Ok(()) };
    let schema = match layout.keys.as_str() {
        "" => Schema::new(Vec::new()),
        keys => Schema::parse_ddl(keys).map_err(|error| Failure::Failed(error.to_string()))?,
    };
    let entries = keys.iter().map(|(key, value)| (&key[..], &value[..]));
    let what = shape.operators.get(operator).map_or("", String::as_str);
    for line in show_join_sides(what, layout, entries).into_iter().flatten() {
        say!("{line}");
    }
    let mut lines: Vec<String> = Vec::with_capacity(keys.len());
    // Only the program knows the types of its processor's state.
    let is_opaque = layout.keys.is_empty() && layout.values.is_empty();
    for (key, value) in keys {
        if is_opaque {
            lines.push(format!("{}\t=>\t{}", key.escape_ascii(), value.escape_ascii()));
            continue;
        }
        let values = decode(Row(key), schema.fields.iter().map(|field| &field.data_type));
        let columns = values.iter().zip(&schema.fields).map(|(value, field)| {
            let text = value.display(&field.data_type, millstream::table::datetime::Tz::UTC);
            text.unwrap_or_else(|| "NULL".to_string())
        });
        let columns = columns.collect::<Vec<_>>().join("\t");
        if let Some(row) = show_join_row(layout, key, value) {
            lines.push(format!("{columns}\t=>\t{row}"));
            continue;
        }
        let columns_of_key = schema.fields.iter().map(|field| &field.data_type);
        if let Some(PartNumber { part, value: number }) = part_number(key, columns_of_key) {
            let bytes = value.len().saturating_sub(1);
            lines.push(format!("{columns}\t=>\tvalue {number}, part {part}: {bytes} bytes"));
            continue;
        }
        let values = show_state(&layout.values, value).unwrap_or_default();
        lines.push(format!("{columns}\t=>\t{}", values.join("\t")));
    }
    lines.sort();
    for line in lines {
        say!("{line}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_that_appends_while_its_log_is_read_has_a_whole_log() {
        // Each read comes after 100 more bytes of the stream; a segment has 100 bytes.
        let (mut written, begins) = (50, [0, 100, 200]);
        let paths = begins.iter().map(|begin| PathBuf::from(begin.to_string()));
        let (paths, contents) = read_segments(paths, |path| {
            let begin = path.to_str()?.parse::<u64>().ok()?;
            let end = (begin + 100).min(written);
            written += 100;
            let first = (end > begin).then_some(begin);
            let (end, header_error) = (first.map_or(0, |_| end), None);
            let (events, payload_bytes, at, tear) = (1, 100, 64, Tear::None);
            Some(Content { events, payload_bytes, first, end, at, tear, header_error })
        });
        assert_eq!(paths, ["0", "100", "200"].map(PathBuf::from));
        let verdicts: Vec<_> = (0..3).map(|n| capture::verdict(&contents, n, 0)).collect();
        assert_eq!(verdicts, [Verdict::Whole; 3]);
    }
}
