//! The limit of open files of this process, which also limits its sockets.

use super::events::{self, Opened, Selection};
use super::merge;
use crate::failure::Failure;
use millstream_engine::capture::{ConnectionInfo, FLAG_REPEATED, Head, Kind, Protocol};
use std::collections::HashSet;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

/// Open files that are no connections: standard streams, captures, listeners and pollers.
const OTHER_FILES: u64 = 32;

/// What to do if the limit is too low.
const FIX: &str = "Raise the hard limit of open files: `ulimit -Hn` as root, or LimitNOFILE of a \
    systemd service";

/// Raises the soft limit to the hard limit, and returns the limit; `u64::MAX` if it is not known.
#[cfg(unix)]
pub(super) fn raise() -> u64 {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return u64::MAX };
    // Some systems have a lower limit than the one that they name.
    let is_raised = soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok();
    if is_raised { hard } else { soft }
}

#[cfg(not(unix))]
pub(super) fn raise() -> u64 {
    u64::MAX
}

/// What to do about the error of opening a socket.
pub(super) fn fix(error: &io::Error, otherwise: &'static str) -> &'static str {
    if is_limit(error) { FIX } else { otherwise }
}

/// Whether a socket could not be opened because of a limit of open files.
#[cfg(unix)]
pub(super) fn is_limit(error: &io::Error) -> bool {
    use nix::libc::{EMFILE, ENFILE};
    matches!(error.raw_os_error(), Some(EMFILE | ENFILE))
}

#[cfg(not(unix))]
pub(super) fn is_limit(_: &io::Error) -> bool {
    false
}

/// What a replay opens.
pub(super) struct Needs<'a> {
    pub files: &'a [PathBuf],
    pub selection: &'a Selection,
    pub loops: u64,
    /// Whether each flow of datagrams has a socket of its own.
    pub has_datagram_sockets: bool,
}

impl Needs<'_> {
    /// Raises the limit. Fails if more connections are open at a time than it then allows. The whole
    /// capture is read only if it has more connections in total, or a file does not name their number.
    pub(super) fn provide(&self, stop: &AtomicBool) -> Result<(), Failure> {
        let limit = raise();
        let allowed = limit.saturating_sub(OTHER_FILES);
        if self.connections()?.is_some_and(|connections| connections <= allowed) {
            return Ok(());
        }
        let open = self.open_at_once(stop)?;
        if open <= allowed {
            return Ok(());
        }
        Err(Failure::Failed(format!(
            "TOO_MANY_CONNECTIONS: {open} connections of the capture are open at a time, and this \
            process may have {limit} open files. {FIX}. Or select fewer connections: --connection, \
            --from, --to-time"
        )))
    }

    /// The number of connections over all loops; `None` if a file does not name it.
    fn connections(&self) -> Result<Option<u64>, Failure> {
        let mut connections = 0u64;
        for path in self.files {
            let reader = events::open(path)?;
            let Some(summary) = reader.summary() else { return Ok(None) };
            connections = connections.saturating_add(summary.connections);
        }
        Ok(Some(connections.saturating_mul(self.loops)))
    }

    /// The largest number of connections that are open at a time. Those that the capture leaves open
    /// stay open until the last loop ends.
    fn open_at_once(&self, stop: &AtomicBool) -> Result<u64, Failure> {
        let (mut open, mut datagrams) = (HashSet::new(), HashSet::new());
        let mut most = 0;
        let take = |_, head: &Head, payload: &[u8]| {
            if stop.load(Ordering::Relaxed) {
                return Err(Failure::Failed("interrupted".to_string()));
            }
            let is_udp = head.kind == Kind::Open
                && ConnectionInfo::decode(payload)
                    .is_some_and(|info| info.protocol == Protocol::Udp);
            match head.kind {
                Kind::Open if is_udp && !self.has_datagram_sockets => {
                    datagrams.insert(head.connection);
                }
                Kind::Open if head.flags & FLAG_REPEATED == 0 => {
                    open.insert(head.connection);
                }
                Kind::Data if !datagrams.contains(&head.connection) => {
                    open.insert(head.connection);
                }
                Kind::Close | Kind::Reset => {
                    open.remove(&head.connection);
                    datagrams.remove(&head.connection);
                }
                _ => {}
            }
            most = most.max(open.len() as u64);
            Ok(())
        };
        let selection = Selection { direction: None, ..self.selection.clone() };
        // Damage is reported by the replay.
        merge::read(self.files, &selection, Opened::WithOpen, take)?;
        Ok(most.saturating_add((open.len() as u64).saturating_mul(self.loops - 1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millstream_engine::capture::{CaptureWriter, Direction, WriterOptions};
    use std::fs::File;

    #[test]
    fn connections_count_while_they_are_open() {
        let name = format!("millstream-open-files-{}.capture", std::process::id());
        let path = std::env::temp_dir().join(name);
        let mut writer =
            CaptureWriter::new(File::create(&path).unwrap(), &WriterOptions::default()).unwrap();
        let mut event = |connection, kind, payload: &[u8]| {
            let (direction, mono_ns, wall_ns) = (Direction::In, 1, 1);
            #[rustfmt::skip]
            let head = Head {
                position: 0, lines: 0, mono_ns, wall_ns, connection, direction, kind, flags: 0,
            };
            writer.append(&head, payload).unwrap();
        };
        let udp = ConnectionInfo { protocol: Protocol::Udp, ..ConnectionInfo::default() }.encode();
        for connection in 0..10 {
            event(connection, Kind::Open, &[]);
            event(connection, Kind::Data, b"line\n");
            event(connection, if connection % 2 == 0 { Kind::Close } else { Kind::Reset }, &[]);
        }
        // Two connections stay open.
        event(10, Kind::Open, &[]);
        event(11, Kind::Open, &[]);
        event(12, Kind::Open, &udp);
        event(12, Kind::Data, b"datagram");
        event(12, Kind::Close, &[]);
        writer.finish().unwrap();
        let (files, selection) = ([path.clone()], Selection::default());
        for (loops, has_datagram_sockets, open) in
            [(1, true, 3), (1, false, 2), (4, true, 9), (4, false, 8)]
        {
            let needs = Needs { files: &files, selection: &selection, loops, has_datagram_sockets };
            assert_eq!(needs.open_at_once(&AtomicBool::new(false)).unwrap(), open, "{loops} loops");
            assert_eq!(needs.connections().unwrap(), Some(13 * loops));
        }
        std::fs::remove_file(path).unwrap();
    }
}
