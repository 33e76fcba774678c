//! The events of capture files, filtered for the commands.

use crate::capture::import::DirectionArg;
use crate::capture::times;
use crate::failure::Failure;
use clap::Args as ClapArgs;
use millstream_engine::capture::{
    CaptureReader, Damage, Direction, FLAG_REPEATED, Head, Item, Kind, capture_files,
};
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

/// The events of a capture that a command reads.
#[derive(ClapArgs, Clone, Debug, Default)]
pub(crate) struct Selection {
    /// Only events at or after this time, such as 2026-03-01T12:30:00Z
    #[arg(long, value_name = "TIME", value_parser = times::parse_wall_ns)]
    pub from: Option<i64>,
    /// Only events before this time
    #[arg(long, value_name = "TIME", value_parser = times::parse_wall_ns)]
    pub to_time: Option<i64>,
    /// Only data in this direction: `in` is towards the recorded service
    #[arg(long, value_enum)]
    pub direction: Option<DirectionArg>,
    /// Only this connection; may be repeated
    #[arg(long, value_name = "N")]
    pub connection: Vec<u32>,
}

impl std::fmt::Debug for DirectionArg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.direction() == Direction::In { "in" } else { "out" })
    }
}

impl Selection {
    /// Whether the selection includes an event.
    pub(crate) fn takes(&self, head: &Head) -> bool {
        let is_whole = matches!(head.kind, Kind::Open | Kind::Close | Kind::Note);
        self.from.is_none_or(|from| head.wall_ns >= from)
            && self.to_time.is_none_or(|to| head.wall_ns < to)
            && (self.connection.is_empty()
                || head.kind == Kind::Note
                || self.connection.contains(&head.connection))
            && (is_whole || self.direction.is_none_or(|d| d.direction() == head.direction))
    }
}

/// The files of a path: the file itself, or the captures in a folder in the order of recording. An
/// error if a folder has none.
pub(crate) fn files(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    let files = capture_files(path)?;
    if files.is_empty() {
        let reason = format!(
            "NOT_A_CAPTURE: {} has no capture (.cap, .capture) and no checkpoint",
            path.display()
        );
        return Err(Failure::Wrong(reason));
    }
    Ok(files)
}

/// Opens a file. An invalid file is an error of the command line.
pub(crate) fn open(path: &Path) -> Result<CaptureReader<std::fs::File>, Failure> {
    CaptureReader::open(path).map_err(|error| Failure::Wrong(error.to_string()))
}

/// Calls a function with the selected events of a file, in order. Returns the damaged parts that
/// were read; only the first ones if there are many. Reading begins at a mark before the
/// selection's start.
pub(crate) fn read(
    path: &Path,
    selection: &Selection,
    mut take: impl FnMut(&Head, &[u8]) -> Result<(), Failure>,
) -> Result<Vec<Damage>, Failure> {
    const DAMAGE_MAX: usize = 1000;
    let mut reader = open(path)?;
    if let Some(from) = selection.from {
        reader.seek_wall_ns(from)?;
    }
    let mut damage = Vec::new();
    while let Some(item) = reader.next_item()? {
        match item {
            Item::Event(head, payload) if selection.takes(&head) => take(&head, payload)?,
            Item::Event(..) => {}
            Item::Damage(what) if damage.len() < DAMAGE_MAX => damage.push(what),
            Item::Damage(_) => {}
        }
    }
    Ok(damage)
}

/// Like [`read`], but a selection that starts within connections includes their open events: each is
/// repeated, as at the start of a rotated file, before the connection's first selected event.
/// Without them the protocols and the addresses of the connections would be unknown.
pub(crate) fn read_opened(
    path: &Path,
    selection: &Selection,
    mut take: impl FnMut(&Head, &[u8]) -> Result<(), Failure>,
) -> Result<Vec<Damage>, Failure> {
    let mut known = HashSet::new();
    let mut earlier = None;
    read(path, selection, |head, payload| {
        let is_new = match head.kind {
            Kind::Note => false,
            Kind::Close => !known.remove(&head.connection),
            _ => known.insert(head.connection),
        };
        if is_new && head.kind != Kind::Open && selection.from.is_some() {
            let opens = match &mut earlier {
                Some(opens) => opens,
                None => earlier.insert(opens_until(path, head.mono_ns)?),
            };
            if let Some((open, payload)) = opens.remove(&head.connection) {
                let (mono_ns, wall_ns) = (head.mono_ns, head.wall_ns);
                let flags = open.flags | FLAG_REPEATED;
                take(&Head { mono_ns, wall_ns, flags, ..open }, &payload)?;
            }
        }
        take(head, payload)
    })
}

/// The open events of a file up to a monotonic time, without those of connections that are closed
/// by then.
fn opens_until(path: &Path, mono_ns: u64) -> Result<HashMap<u32, (Head, Vec<u8>)>, Failure> {
    let (mut reader, mut opens) = (open(path)?, HashMap::new());
    while let Some(item) = reader.next_item()? {
        match item {
            Item::Event(head, _) if head.mono_ns > mono_ns => break,
            Item::Event(head, payload) if head.kind == Kind::Open => {
                opens.insert(head.connection, (head, payload.to_vec()));
            }
            Item::Event(head, _) if head.kind == Kind::Close && head.mono_ns < mono_ns => {
                opens.remove(&head.connection);
            }
            _ => {}
        }
    }
    Ok(opens)
}

/// Returns an error that describes the damage, if there is any.
pub(crate) fn complain(damage: &[(PathBuf, Damage)]) -> Result<(), Failure> {
    if damage.is_empty() {
        return Ok(());
    }
    let lines = damage.iter().map(|(path, damage)| {
        let events = match damage.events {
            Some(1) => "; 1 event is missing".to_string(),
            Some(events) => format!("; {events} events are missing"),
            None => String::new(),
        };
        let (at, until, what) = (damage.at, damage.until, damage.what);
        format!("CAPTURE_DAMAGED: {} (at bytes {at} to {until}): {what}{events}", path.display())
    });
    Err(Failure::Failed(lines.collect::<Vec<_>>().join("\nerror: ")))
}
