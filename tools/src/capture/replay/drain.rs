//! Reads and discards what peers send during a replay, so that they are never blocked. Sends the
//! data that a peer did not take at once. Ends connections that must wait for their peers.

use super::LINGER;
use super::outgoing::{ALL_BYTES_MAX, CONNECTION_BYTES_MAX, Due, Lateness, Outgoing, fits};
use crate::capture::delivery::{is_delivered, reset_on_close};
use crate::failure::Failure;
use mio::net::TcpStream;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token, Waker};
use std::collections::HashMap;
use std::io::{self, Read as _, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often the thread checks whether the replay has ended, and the replay whether it was stopped.
const TICK: Duration = Duration::from_millis(50);
/// How often the thread checks whether bytes before a reset are acknowledged. No event reports it.
const RESET_TICK: Duration = Duration::from_millis(1);
const WAKER: Token = Token(usize::MAX);

/// How a connection will end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// The replay still writes to it.
    NotYet,
    /// It is closed when the peer has closed it.
    Close,
    /// It is reset when the queued data is sent and acknowledged.
    Reset,
    /// It is reset when the peer's kernel has acknowledged all bytes, at the latest at this time.
    ResetBy(Instant),
}

struct Entry {
    stream: Arc<TcpStream>,
    outgoing: Outgoing,
    /// Whether the connection is not established yet.
    is_connecting: bool,
    /// Whether the replay ends its direction when the queued data is sent.
    half_closes: bool,
    ending: Ending,
    /// Whether the peer has closed the connection, or it has failed.
    has_ended: bool,
    /// Whether data could not be sent.
    has_failed: bool,
}

impl Entry {
    /// Whether the connection must be reset now.
    fn is_reset_due(&self) -> bool {
        matches!(self.ending, Ending::ResetBy(latest)
            if is_delivered(&self.stream) || Instant::now() >= latest)
    }

    /// Sends queued data if `sends` is set. Then ends the connection as far as that is asked for.
    fn advance(&mut self, sends: bool, late: &mut Lateness) -> Advanced {
        let mut done = Advanced::default();
        if self.is_connecting {
            // Reading may have taken the error of a connection that was refused. Then it has ended.
            let has_failed = !matches!(self.stream.take_error(), Ok(None));
            let is_there = self.stream.peer_addr().is_ok();
            if !has_failed && !is_there && !self.has_ended {
                return done;
            }
            self.is_connecting = false;
            self.has_failed |= has_failed || !is_there;
        }
        if sends && !self.has_failed {
            match self.outgoing.write(&*self.stream, late) {
                Ok(goes_on) => done.goes_on = goes_on,
                Err(_) => self.has_failed = true,
            }
        }
        if self.has_failed {
            self.has_ended = true;
            done.unsent = self.outgoing.discard() as u64;
        } else if self.outgoing.is_empty() {
            if std::mem::take(&mut self.half_closes) {
                drop(self.stream.shutdown(Shutdown::Write));
            }
            if self.ending == Ending::Reset {
                self.ending = Ending::ResetBy(Instant::now() + LINGER);
            }
        }
        done
    }

    /// Whether nothing is left to do.
    fn is_over(&self) -> bool {
        let is_closed = self.ending == Ending::Close && self.has_ended;
        let has_failed = self.ending != Ending::NotYet && self.has_failed;
        self.outgoing.is_empty() && (is_closed || has_failed)
    }
}

/// What was done for a connection.
#[derive(Default)]
struct Advanced {
    /// The number of events that are not sent, because the peer has gone.
    unsent: u64,
    /// Whether the peer may take more data.
    goes_on: bool,
}

/// The connections of a replay.
struct Table {
    entries: HashMap<usize, Entry>,
    /// The number of queued bytes of all connections.
    queued: usize,
    late: Lateness,
    /// The number of queued events that were not sent, because their peer had gone.
    failed: u64,
}

impl Table {
    /// Applies a change to a connection and, if `sends` is set, sends queued data. Resets or closes
    /// the connection if that is due. Returns whether the peer may take more data.
    fn update(&mut self, key: usize, sends: bool, change: impl FnOnce(&mut Entry)) -> bool {
        let Some(entry) = self.entries.get_mut(&key) else { return false };
        let before = entry.outgoing.len();
        change(entry);
        let done = entry.advance(sends, &mut self.late);
        self.failed += done.unsent;
        self.queued = self.queued.saturating_sub(before) + entry.outgoing.len();
        let is_reset = entry.is_reset_due();
        if is_reset {
            reset_on_close(&entry.stream);
        }
        if is_reset || entry.is_over() {
            self.remove(key);
        }
        done.goes_on
    }

    fn remove(&mut self, key: usize) {
        let Some(entry) = self.entries.remove(&key) else { return };
        self.queued = self.queued.saturating_sub(entry.outgoing.len());
        self.late.note(&entry.outgoing);
    }

    fn remove_all(&mut self) {
        let keys: Vec<usize> = self.entries.keys().copied().collect();
        keys.into_iter().for_each(|key| self.remove(key));
    }

    /// Resets the connections whose reset is due. Returns whether others wait for one.
    fn reset_delivered(&mut self) -> bool {
        let waits = |entry: &Entry| matches!(entry.ending, Ending::ResetBy(_));
        let waiting: Vec<usize> =
            self.entries.iter().filter(|(_, entry)| waits(entry)).map(|(key, _)| *key).collect();
        waiting.iter().for_each(|key| {
            self.update(*key, false, |_| {});
        });
        waiting.iter().any(|key| self.entries.contains_key(key))
    }
}

struct Shared {
    table: Mutex<Table>,
    /// Notified when a connection is removed, and when queued data was sent.
    changed: Condvar,
    received: AtomicU64,
    is_over: AtomicBool,
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a change of the table, at most for a time.
    fn wait<'t>(&self, table: MutexGuard<'t, Table>, most: Duration) -> MutexGuard<'t, Table> {
        self.changed.wait_timeout(table, most).unwrap_or_else(PoisonError::into_inner).0
    }
}

/// What became of data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    All,
    /// It is sent when the peer takes it.
    Later,
    /// It is not sent, because the peer has gone.
    Not,
}

pub(super) struct Drain {
    shared: Arc<Shared>,
    registry: Registry,
    waker: Waker,
    thread: Option<JoinHandle<()>>,
}

impl Drain {
    pub(super) fn start() -> Result<Self, Failure> {
        let poll = Poll::new()?;
        let table = Table { entries: HashMap::new(), queued: 0, late: Lateness::new(), failed: 0 };
        let shared = Arc::new(Shared {
            table: Mutex::new(table),
            changed: Condvar::new(),
            received: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
        });
        let registry = poll.registry().try_clone()?;
        let waker = Waker::new(&registry, WAKER)?;
        let of_thread = shared.clone();
        let thread = std::thread::spawn(move || run(poll, &of_thread));
        Ok(Self { shared, registry, waker, thread: Some(thread) })
    }

    pub(super) fn received(&self) -> u64 {
        self.shared.received.load(Ordering::Relaxed)
    }

    /// The number of queued events that were not sent, because their peer had gone.
    pub(super) fn failed(&self) -> u64 {
        self.shared.table().failed
    }

    #[cfg(test)]
    pub(super) fn queued(&self) -> usize {
        self.shared.table().queued
    }

    /// The lateness of queued data. Call this at the end.
    pub(super) fn take_lateness(&self) -> Lateness {
        std::mem::replace(&mut self.shared.table().late, Lateness::new())
    }

    pub(super) fn add(
        &self,
        connection: u64,
        stream: Arc<TcpStream>,
        is_connecting: bool,
    ) -> io::Result<()> {
        let (key, fd) = (connection as usize, stream.as_raw_fd());
        let entry = Entry {
            stream,
            outgoing: Outgoing::new(connection),
            is_connecting,
            half_closes: false,
            ending: Ending::NotYet,
            has_ended: false,
            has_failed: false,
        };
        self.shared.table().entries.insert(key, entry);
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.registry.register(&mut SourceFd(&fd), Token(key), interest)
    }

    pub(super) fn remove(&self, connection: u64) {
        self.shared.table().remove(connection as usize);
    }

    /// Sends data behind the data of the connection that is queued. What the peer does not take at
    /// once is queued. Waits while the queues are full, unless the replay is stopped.
    pub(super) fn send(&self, connection: u64, bytes: &[u8], due: Due, stop: &AtomicBool) -> Sent {
        let (key, mut since) = (connection as usize, None);
        let mut table = self.shared.table();
        loop {
            let queued = match table.entries.get(&key) {
                Some(entry) if !entry.has_failed => entry.outgoing.len(),
                _ => return Sent::Not,
            };
            let has_room = fits(queued, bytes.len(), CONNECTION_BYTES_MAX)
                && fits(table.queued, bytes.len(), ALL_BYTES_MAX);
            if has_room {
                break;
            }
            if stop.load(Ordering::Relaxed) {
                return Sent::Later;
            }
            since.get_or_insert_with(Instant::now);
            table = self.shared.wait(table, TICK);
        }
        table.late.full += since.map_or(Duration::ZERO, |since| since.elapsed());
        // The system reports when the peer takes more than it did at the last try, and the thread goes
        // on. The caller's try may have been before an earlier report, so an empty queue needs another.
        let mut sent = Sent::Later;
        table.update(key, false, |entry| {
            let mut rest = bytes;
            if !entry.is_connecting && !entry.has_failed && entry.outgoing.is_empty() {
                match write_now(&entry.stream, bytes) {
                    Ok(written) => rest = &bytes[written..],
                    Err(_) => (entry.has_failed, sent) = (true, Sent::Not),
                }
            }
            match sent {
                Sent::Not => {}
                _ if rest.is_empty() => sent = Sent::All,
                _ => entry.outgoing.push(rest, due),
            }
        });
        sent
    }

    /// Ends the replay's direction of the connection behind the queued data.
    pub(super) fn half_close(&self, connection: u64) {
        self.shared.table().update(connection as usize, false, |entry| entry.half_closes = true);
    }

    /// Ends the replay's direction behind the queued data, and closes the connection when its peer
    /// has closed it.
    pub(super) fn close_at_end(&self, connection: u64) {
        self.shared.table().update(connection as usize, false, |entry| {
            (entry.half_closes, entry.ending) = (true, Ending::Close);
        });
    }

    /// Resets the connection behind the queued data, when the peer's kernel has acknowledged all
    /// bytes: now, or when that happens, at the latest after [`LINGER`].
    pub(super) fn reset_when_delivered(&self, connection: u64) {
        let key = connection as usize;
        let mut table = self.shared.table();
        table.update(key, false, |entry| entry.ending = Ending::Reset);
        if table.entries.contains_key(&key) {
            // If this fails, the thread looks after its tick.
            drop(self.waker.wake());
        }
    }

    /// Waits until a connection has ended that only waits for its peer, at most for a time. Returns
    /// whether one has ended.
    pub(super) fn wait_for_an_end(&self, most: Duration) -> bool {
        let end = Instant::now() + most;
        let mut table = self.shared.table();
        let before = table.entries.len();
        while table.entries.len() >= before {
            let left = end.saturating_duration_since(Instant::now());
            let is_hopeless = table.entries.values().all(|entry| entry.ending == Ending::NotYet);
            if left.is_zero() || is_hopeless {
                return false;
            }
            table = self.shared.wait(table, left);
        }
        true
    }

    /// Waits until all queued data is sent, unless the replay is stopped, and then until all peers
    /// have closed, at most for `most`.
    pub(super) fn finish(&mut self, most: Duration, stop: &AtomicBool) {
        let mut table = self.shared.table();
        while table.queued > 0 && !stop.load(Ordering::Relaxed) {
            table = self.shared.wait(table, TICK);
        }
        let end = Instant::now() + most;
        while !table.entries.is_empty() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            table = self.shared.wait(table, left);
        }
        table.remove_all();
        drop(table);
        self.shared.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn run(mut poll: Poll, shared: &Shared) {
    let (mut events, mut buffer) = (Events::with_capacity(256), vec![0; 64 << 10]);
    // The connections whose peers may take or have sent more data, which no event reports.
    let mut again = Vec::new();
    let mut wait = TICK;
    while !shared.is_over.load(Ordering::Relaxed) {
        if poll.poll(&mut events, Some(wait)).is_err() {
            continue;
        }
        let mut keys = std::mem::take(&mut again);
        keys.extend(events.iter().map(|event| event.token().0));
        keys.sort_unstable();
        keys.dedup();
        for key in keys {
            let stream = shared.table().entries.get(&key).map(|entry| entry.stream.clone());
            let Some(stream) = stream else { continue };
            let read = read_some(&stream, &mut buffer, &shared.received);
            drop(stream);
            let change = |entry: &mut Entry| entry.has_ended |= read == Read::Ended;
            let goes_on = shared.table().update(key, true, change);
            if goes_on || read == Read::More {
                again.push(key);
            }
            shared.changed.notify_all();
        }
        wait = match (again.is_empty(), shared.table().reset_delivered()) {
            (false, _) => Duration::ZERO,
            (true, true) => RESET_TICK,
            (true, false) => TICK,
        };
        shared.changed.notify_all();
    }
}

/// Writes as much as the peer takes at once. Returns the number of bytes. Fails if the peer has gone.
pub(super) fn write_now(mut stream: &TcpStream, payload: &[u8]) -> io::Result<usize> {
    let mut written = 0;
    while written < payload.len() {
        match stream.write(&payload[written..]) {
            Ok(bytes) => written += bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(written)
}

/// The most reads of a connection in a turn, so that a peer that sends constantly delays no other.
const READS_A_TURN: usize = 16;

/// The state of a stream after it was read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Read {
    /// There may be more to read.
    More,
    /// Everything available was read.
    All,
    /// The peer has closed the stream, or it has failed.
    Ended,
}

fn read_some(mut stream: &TcpStream, buffer: &mut [u8], received: &AtomicU64) -> Read {
    for _ in 0..READS_A_TURN {
        match stream.read(buffer) {
            Ok(0) => return Read::Ended,
            Ok(bytes) => drop(received.fetch_add(bytes as u64, Ordering::Relaxed)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                // A connection that is not established yet has not ended.
                let waits = [io::ErrorKind::WouldBlock, io::ErrorKind::NotConnected];
                return if waits.contains(&error.kind()) { Read::All } else { Read::Ended };
            }
        }
    }
    Read::More
}
