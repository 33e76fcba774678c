//! All open connections of a source, and which of them are readable.
//!
//! A single connection is read directly. With several, an edge-triggered poll reports the readable
//! ones; the poll itself is registered with the worker's poll. Readable connections wait in a
//! queue, and each gets one bounded read per turn.

use crate::connect::socket::connection::Connection;
use crate::connect::socket::listener::Listener;
use millstream_engine::error::EngineError;
use millstream_engine::mio::unix::SourceFd;
use millstream_engine::mio::{Events, Interest, Poll, Registry, Token};
use std::collections::VecDeque;
use std::os::fd::AsRawFd;
use std::time::Duration;

/// Maximum number of events per poll.
const EVENTS: usize = 256;
/// The token of the listener. The token of a connection is its slot.
const LISTENER: Token = Token(usize::MAX - 1);

fn fails(error: std::io::Error) -> EngineError {
    EngineError::runtime("register a socket", error)
}

/// What a poll has found.
#[derive(Default)]
pub(super) struct Readiness {
    /// Whether a connection is readable.
    pub has_readable: bool,
    /// Whether a client waits to be accepted.
    pub client_waits: bool,
}

/// The connections of a source, in reusable slots.
#[derive(Default)]
pub struct Connections {
    slots: Vec<Option<Connection>>,
    free: Vec<usize>,
    /// Slots of connections that may be readable. Each is in the queue at most once.
    ready: VecDeque<usize>,
    /// Listeners only: the poll that reports readable connections.
    poll: Option<(Poll, Events)>,
    open: usize,
    /// Number of connections that the peer has closed, but which may still have bytes to read.
    closing: usize,
    /// The slot of the only connection, if there is exactly one.
    only_connection: Option<usize>,
}

impl Connections {
    /// Starts to watch a listener, and registers the poll with the worker if there is one.
    pub(super) fn watch(
        &mut self,
        listener: &mut Listener,
        worker: Option<(&Registry, Token)>,
    ) -> Result<(), EngineError> {
        let poll = Poll::new().map_err(|error| EngineError::runtime("make a poll", error))?;
        poll.registry().register(listener, LISTENER, Interest::READABLE).map_err(fails)?;
        if let Some((registry, token)) = worker {
            let mut source = SourceFd(&poll.as_raw_fd());
            registry.register(&mut source, token, Interest::READABLE).map_err(fails)?;
        }
        self.poll = Some((poll, Events::with_capacity(EVENTS)));
        Ok(())
    }

    /// Number of open connections.
    pub(super) fn len(&self) -> usize {
        self.open
    }

    /// Whether there are several connections and one of them may be readable.
    #[inline]
    pub(super) fn has_ready(&self) -> bool {
        self.open > 1 && !self.ready.is_empty()
    }

    /// Whether a poll has reported the end of a connection whose last bytes may not be read yet.
    pub(super) fn has_closing(&self) -> bool {
        self.closing > 0
    }

    /// Marks a connection as open after a read without data: it has not ended, although its poll
    /// event said so.
    pub(super) fn goes_on(&mut self, slot: usize) {
        if let Some(Some(connection)) = self.slots.get_mut(slot)
            && std::mem::take(&mut connection.read_closed)
        {
            self.closing -= 1;
        }
    }

    /// Adds a connection, which may already have bytes to read.
    pub(super) fn add(&mut self, mut connection: Connection) -> Result<usize, EngineError> {
        let slot = self.free.pop().unwrap_or(self.slots.len());
        if let Some((poll, _)) = &self.poll {
            let (interest, token) = (connection.interest(), Token(slot));
            poll.registry().register(&mut connection.stream, token, interest).map_err(fails)?;
        }
        if slot == self.slots.len() {
            self.slots.push(None);
        }
        self.slots[slot] = Some(connection);
        self.open += 1;
        self.only_connection = (self.open == 1).then_some(slot);
        if self.open == 2 {
            // The single connection was read without poll events, so any connection may be
            // readable.
            (0..self.slots.len()).for_each(|slot| self.mark_ready(slot));
        }
        self.mark_ready(slot);
        Ok(slot)
    }

    /// Removes and returns a connection. Dropping the connection closes it.
    pub(super) fn remove(&mut self, slot: usize) -> Option<Connection> {
        let connection = self.slots.get_mut(slot)?.take()?;
        self.closing -= usize::from(connection.read_closed);
        self.free.push(slot);
        self.open -= 1;
        self.only_connection = None;
        match self.open {
            // When the last connection leaves, the memory of the slots is freed.
            0 => *self = Self { poll: self.poll.take(), ..Self::default() },
            1 => self.only_connection = self.slots.iter().position(Option::is_some),
            _ => {}
        }
        Some(connection)
    }

    #[inline]
    pub(super) fn get(&mut self, slot: usize) -> Option<&mut Connection> {
        self.slots.get_mut(slot)?.as_mut()
    }

    /// The slot of the only connection, if there is exactly one.
    #[inline]
    pub(super) fn only_connection(&self) -> Option<usize> {
        self.only_connection
    }

    /// Puts a connection at the end of the queue.
    pub(super) fn mark_ready(&mut self, slot: usize) {
        if let Some(Some(connection)) = self.slots.get_mut(slot)
            && !std::mem::replace(&mut connection.queued, true)
        {
            self.ready.push_back(slot);
        }
    }

    /// The next connection that may have bytes.
    pub(super) fn next_ready(&mut self) -> Option<usize> {
        while let Some(slot) = self.ready.pop_front() {
            if let Some(Some(connection)) = self.slots.get_mut(slot) {
                connection.queued = false;
                return Some(slot);
            }
        }
        None
    }

    /// Polls for readable connections and for clients.
    pub(super) fn poll_connections(&mut self) -> Result<Readiness, EngineError> {
        let mut readiness = Readiness::default();
        let Some((mut poll, mut events)) = self.poll.take() else { return Ok(readiness) };
        loop {
            match poll.poll(&mut events, Some(Duration::ZERO)) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                other => other.map_err(|error| EngineError::runtime("look at sockets", error))?,
            }
            let mut count = 0;
            for event in &events {
                count += 1;
                if event.token() == LISTENER {
                    readiness.client_waits = true;
                    continue;
                }
                readiness.has_readable = true;
                let slot = event.token().0;
                let is_closed = event.is_read_closed() || event.is_error();
                if let Some(connection) =
                    self.get(slot).filter(|open| is_closed && !open.read_closed)
                {
                    connection.read_closed = true;
                    self.closing += 1;
                }
                self.mark_ready(slot);
            }
            if count < EVENTS {
                break;
            }
        }
        self.poll = Some((poll, events));
        Ok(readiness)
    }

    /// The connection with the longest unfinished line.
    pub(super) fn longest(&mut self) -> Option<&mut Connection> {
        self.slots.iter_mut().flatten().max_by_key(|connection| connection.unfinished())
    }

    /// Collects the connections that have received nothing since `since_ns`. If there are several,
    /// queued ones are left out, because they may have bytes to read. Returns the time at which
    /// bytes were last received, for the connection that is silent the longest among the others.
    pub(super) fn silent_since(&self, since_ns: u64, found: &mut Vec<usize>) -> Option<u64> {
        let mut oldest = None::<u64>;
        for (slot, connection) in self.slots.iter().enumerate() {
            let Some(connection) = connection else { continue };
            let (last_ns, is_lone) = (connection.last_ns, self.only_connection == Some(slot));
            // A single connection is read without the queue.
            if last_ns <= since_ns && (is_lone || !connection.queued) {
                found.push(slot);
            } else {
                oldest = Some(oldest.map_or(last_ns, |oldest| oldest.min(last_ns)));
            }
        }
        oldest
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connect::socket::transport::Stream;
    use millstream_engine::mio::net::UnixStream;
    use std::io::Read;

    fn connection(last_ns: u64) -> Connection {
        let (stream, _) = UnixStream::pair().unwrap();
        Connection::new(Stream::Unix(stream), 0, last_ns)
    }

    #[test]
    fn a_connection_with_unread_bytes_is_not_idle() {
        let mut connections = Connections::default();
        for last_ns in [10, 20, 90] {
            connections.add(connection(last_ns)).unwrap();
        }
        let mut found = Vec::new();
        assert_eq!(connections.silent_since(50, &mut found), Some(10));
        assert!(found.is_empty(), "new ones may have bytes");
        while connections.next_ready().is_some() {}
        connections.mark_ready(1);
        assert_eq!(connections.silent_since(50, &mut found), Some(20));
        assert_eq!(found, [0]);
        connections.remove(0);
        connections.remove(2);
        found.clear();
        assert_eq!(connections.silent_since(50, &mut found), None);
        assert_eq!(found, [1], "the lone one is read before anyone asks");
    }

    #[test]
    fn a_peer_that_reads_its_acknowledgements_late_is_reported_when_there_is_room() {
        let poll = Some((Poll::new().unwrap(), Events::with_capacity(EVENTS)));
        let mut connections = Connections { poll, ..Connections::default() };
        let (mine, mut peer) = UnixStream::pair().unwrap();
        let mut connection = Connection::new(Stream::Unix(mine), 0, 0);
        connection.acknowledges = true;
        let slot = connections.add(connection).unwrap();
        let mut lines = 0;
        while !connections.get(slot).unwrap().owes_acknowledgement() {
            lines += 1;
            connections.get(slot).unwrap().acknowledge(lines);
        }
        connections.poll_connections().unwrap();
        while connections.next_ready().is_some() {}
        assert!(!connections.poll_connections().unwrap().has_readable);
        let mut buffer = [0; 1 << 16];
        while peer.read(&mut buffer).is_ok() {}
        assert!(connections.poll_connections().unwrap().has_readable);
        assert_eq!(connections.next_ready(), Some(slot));
    }

    #[test]
    fn slots_are_reused_and_queued_once() {
        let mut connections = Connections::default();
        for _ in 0..100 {
            let slots = [0, 1, 2].map(|_| connections.add(connection(0)).unwrap());
            slots.iter().for_each(|slot| connections.mark_ready(*slot));
            assert_eq!((connections.len(), connections.only_connection()), (3, None));
            assert!(connections.slots.len() <= 3 && connections.ready.len() <= 3);
            slots[..2].iter().for_each(|slot| drop(connections.remove(*slot)));
            assert_eq!(connections.only_connection(), Some(slots[2]));
            connections.remove(slots[2]);
        }
        assert_eq!((connections.len(), connections.slots.len()), (0, 0));
    }
}
