//! Reads and discards what peers send during a replay, so that they are never blocked. Ends
//! connections that must wait for their peers.

use super::LINGER;
use crate::capture::delivery::{is_delivered, reset_on_close};
use crate::failure::Failure;
use mio::net::TcpStream;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token, Waker};
use std::collections::HashMap;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often the thread checks whether the replay has ended.
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
    /// It is reset when the peer's kernel has acknowledged all bytes, at the latest at this time.
    Reset(Instant),
}

struct Entry {
    stream: Arc<TcpStream>,
    ending: Ending,
    /// Whether the peer has closed the connection, or it has failed.
    has_ended: bool,
}

impl Entry {
    /// Whether the connection must be reset now.
    fn is_reset_due(&self) -> bool {
        matches!(self.ending, Ending::Reset(latest)
            if is_delivered(&self.stream) || Instant::now() >= latest)
    }
}

#[derive(Default)]
struct Shared {
    entries: Mutex<HashMap<usize, Entry>>,
    /// Notified when an entry is removed.
    gone: Condvar,
    received: AtomicU64,
    is_over: AtomicBool,
}

impl Shared {
    fn entries(&self) -> MutexGuard<'_, HashMap<usize, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
        let (registry, shared) = (poll.registry().try_clone()?, Arc::<Shared>::default());
        let waker = Waker::new(&registry, WAKER)?;
        let of_thread = shared.clone();
        let thread = std::thread::spawn(move || run(poll, &of_thread));
        Ok(Self { shared, registry, waker, thread: Some(thread) })
    }

    pub(super) fn received(&self) -> u64 {
        self.shared.received.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self, connection: u64, stream: Arc<TcpStream>) -> io::Result<()> {
        let (key, fd) = (connection as usize, stream.as_raw_fd());
        let entry = Entry { stream, ending: Ending::NotYet, has_ended: false };
        self.shared.entries().insert(key, entry);
        self.registry.register(&mut SourceFd(&fd), Token(key), Interest::READABLE)
    }

    pub(super) fn remove(&self, connection: u64) {
        self.shared.entries().remove(&(connection as usize));
    }

    /// Closes the connection when its peer has closed it: now, or when that happens.
    pub(super) fn close_at_end(&self, connection: u64) {
        let mut entries = self.shared.entries();
        let key = connection as usize;
        if entries.get(&key).is_some_and(|entry| entry.has_ended) {
            entries.remove(&key);
        } else if let Some(entry) = entries.get_mut(&key) {
            entry.ending = Ending::Close;
        }
    }

    /// Resets the connection when the peer's kernel has acknowledged all bytes: now, or when that
    /// happens, at the latest after [`LINGER`].
    pub(super) fn reset_when_delivered(&self, connection: u64) {
        let mut entries = self.shared.entries();
        let key = connection as usize;
        let Some(entry) = entries.get_mut(&key) else { return };
        entry.ending = Ending::Reset(Instant::now() + LINGER);
        if entry.is_reset_due() {
            reset_on_close(&entry.stream);
            entries.remove(&key);
        } else {
            // If this fails, the thread looks after its tick.
            drop(self.waker.wake());
        }
    }

    /// Waits until all peers have closed, at most for `most`.
    pub(super) fn finish(&mut self, most: Duration) {
        let end = Instant::now() + most;
        let mut entries = self.shared.entries();
        while !entries.is_empty() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = self.shared.gone.wait_timeout(entries, left);
            entries = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        entries.clear();
        drop(entries);
        self.shared.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn run(mut poll: Poll, shared: &Shared) {
    let (mut events, mut buffer) = (Events::with_capacity(256), vec![0; 64 << 10]);
    let mut wait = TICK;
    while !shared.is_over.load(Ordering::Relaxed) {
        if poll.poll(&mut events, Some(wait)).is_err() {
            continue;
        }
        for event in &events {
            let key = event.token().0;
            let stream = shared.entries().get(&key).map(|entry| entry.stream.clone());
            let Some(stream) = stream else { continue };
            if !read_all(&stream, &mut buffer, &shared.received) {
                continue;
            }
            drop(stream);
            let mut entries = shared.entries();
            if entries.get(&key).is_some_and(|entry| entry.ending == Ending::Close) {
                entries.remove(&key);
                shared.gone.notify_all();
            } else if let Some(entry) = entries.get_mut(&key) {
                entry.has_ended = true;
            }
        }
        wait = if reset_delivered(shared) { RESET_TICK } else { TICK };
    }
}

/// Resets the connections whose reset is due. Returns whether others still wait for their peers.
fn reset_delivered(shared: &Shared) -> bool {
    let mut entries = shared.entries();
    let before = entries.len();
    for (_, entry) in entries.extract_if(|_, entry| entry.is_reset_due()) {
        reset_on_close(&entry.stream);
    }
    if entries.len() < before {
        shared.gone.notify_all();
    }
    entries.values().any(|entry| matches!(entry.ending, Ending::Reset(_)))
}

/// Reads everything available. Returns whether the stream has ended: the peer has closed it, or it
/// has failed.
fn read_all(mut stream: &TcpStream, buffer: &mut [u8], received: &AtomicU64) -> bool {
    loop {
        match stream.read(buffer) {
            Ok(0) => return true,
            Ok(bytes) => drop(received.fetch_add(bytes as u64, Ordering::Relaxed)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return error.kind() != io::ErrorKind::WouldBlock,
        }
    }
}
