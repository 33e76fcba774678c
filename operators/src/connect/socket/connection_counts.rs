//! Connection counters of a source, for progress reports.

use std::sync::atomic::{AtomicU64, Ordering};

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionEnd {
    /// The peer closed the connection.
    Closed,
    /// The peer reset the connection, or did not answer keep-alive probes.
    Reset,
    /// The source closed the connection, because it received nothing for longer than `idleTimeout`.
    TimedOut,
}

/// Counters of one source, shared between threads.
#[derive(Debug, Default)]
pub struct ConnectionCounts {
    open: AtomicU64,
    accepted: AtomicU64,
    refused: AtomicU64,
    closed: AtomicU64,
    reset: AtomicU64,
    timed_out: AtomicU64,
    datagrams: AtomicU64,
    recorded: AtomicU64,
    record_dropped: AtomicU64,
    record_dropped_bytes: AtomicU64,
    /// The inode of a UDP socket, by which the kernel reports dropped datagrams; 0 if there is
    /// none, or if another part of the source counts for it.
    udp_inode: AtomicU64,
}

/// The counters at one time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionTotals {
    /// Connections that are open now.
    pub open: u64,
    /// Connections that were accepted from clients or made to a sender.
    pub accepted: u64,
    /// Clients closed at once because of `maxConnections`.
    pub refused: u64,
    /// Connections that the peer closed.
    pub closed_by_peer: u64,
    /// Connections that were reset.
    pub reset: u64,
    /// Connections closed after `idleTimeout`.
    pub timed_out: u64,
    /// Datagrams that were received.
    pub datagrams: u64,
    /// Datagrams that the kernel dropped at the socket, for example because its buffer was full.
    /// The parts of a source share a socket, for which only the first part counts. Linux only; 0 on
    /// other systems.
    pub datagrams_dropped: u64,
    /// Events that the option `record` has written.
    pub recorded: u64,
    /// Reads and datagrams that the option `record` has dropped, because the disk was too slow or a
    /// write failed.
    pub record_dropped: u64,
    /// Bytes of the dropped reads and datagrams.
    pub record_dropped_bytes: u64,
}

// ORDERING: all accesses are relaxed: nothing else depends on these counters.
impl ConnectionCounts {
    pub(super) fn opened(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
        self.accepted.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn ended(&self, how: ConnectionEnd) {
        self.open.fetch_sub(1, Ordering::Relaxed);
        let counter = match how {
            ConnectionEnd::Closed => &self.closed,
            ConnectionEnd::Reset => &self.reset,
            ConnectionEnd::TimedOut => &self.timed_out,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn datagram(&self) {
        self.datagrams.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn recorded(&self, events: u64) {
        self.recorded.fetch_add(events, Ordering::Relaxed);
    }

    pub(super) fn record_dropped(&self, events: u64, bytes: u64) {
        self.record_dropped.fetch_add(events, Ordering::Relaxed);
        self.record_dropped_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn set_udp_inode(&self, inode: u64) {
        self.udp_inode.store(inode, Ordering::Relaxed);
    }

    /// The current values of the counters.
    pub fn totals(&self) -> ConnectionTotals {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ConnectionTotals {
            open: of(&self.open),
            accepted: of(&self.accepted),
            refused: of(&self.refused),
            closed_by_peer: of(&self.closed),
            reset: of(&self.reset),
            timed_out: of(&self.timed_out),
            datagrams: of(&self.datagrams),
            datagrams_dropped: match of(&self.udp_inode) {
                0 => 0,
                inode => dropped(inode),
            },
            recorded: of(&self.recorded),
            record_dropped: of(&self.record_dropped),
            record_dropped_bytes: of(&self.record_dropped_bytes),
        }
    }
}

impl ConnectionTotals {
    /// The name and value of each counter, for progress reports.
    pub fn named(&self) -> [(&'static str, u64); 11] {
        [
            ("connectionsOpen", self.open),
            ("connectionsAccepted", self.accepted),
            ("connectionsRefused", self.refused),
            ("connectionsClosedByPeer", self.closed_by_peer),
            ("connectionsReset", self.reset),
            ("connectionsTimedOut", self.timed_out),
            ("datagramsReceived", self.datagrams),
            ("datagramsDropped", self.datagrams_dropped),
            ("eventsRecorded", self.recorded),
            ("eventsNotRecorded", self.record_dropped),
            ("bytesNotRecorded", self.record_dropped_bytes),
        ]
    }

    /// Adds the counters of another source, or of another part of a source.
    pub fn add(&mut self, other: &Self) {
        self.open += other.open;
        self.accepted += other.accepted;
        self.refused += other.refused;
        self.closed_by_peer += other.closed_by_peer;
        self.reset += other.reset;
        self.timed_out += other.timed_out;
        self.datagrams += other.datagrams;
        self.recorded += other.recorded;
        self.record_dropped += other.record_dropped;
        self.record_dropped_bytes += other.record_dropped_bytes;
        self.datagrams_dropped += other.datagrams_dropped;
    }
}

/// Number of datagrams that the kernel has dropped for a UDP socket.
fn dropped(inode: u64) -> u64 {
    let tables = ["/proc/net/udp", "/proc/net/udp6"];
    let texts = tables.iter().filter_map(|table| std::fs::read_to_string(table).ok());
    texts.filter_map(|text| drops_of(&text, inode)).sum()
}

/// The drop count of the socket with this inode, which is the last column of its line.
fn drops_of(table: &str, inode: u64) -> Option<u64> {
    const INODE_COLUMN: usize = 9;
    let inode = inode.to_string();
    let line =
        table.lines().find(|line| line.split_whitespace().nth(INODE_COLUMN) == Some(&inode))?;
    line.split_whitespace().last()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_of_a_socket_are_read_from_the_udp_table() {
        let table = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n\
             5: 0100007F:1F90 00000000:0000 07 00000000:00000000 00:00000000 00000000  1000 0 4711 2 0000000000000000 17\n";
        assert_eq!(drops_of(table, 4711), Some(17));
        assert_eq!(drops_of(table, 471), None);
    }

    #[test]
    fn each_way_a_connection_ends_has_a_counter() {
        let counts = ConnectionCounts::default();
        (0..4).for_each(|_| counts.opened());
        for how in [ConnectionEnd::Closed, ConnectionEnd::Reset, ConnectionEnd::TimedOut] {
            counts.ended(how);
        }
        counts.refused();
        let found = counts.totals();
        assert_eq!((found.open, found.accepted, found.refused), (1, 4, 1));
        assert_eq!((found.closed_by_peer, found.reset, found.timed_out), (1, 1, 1));
    }
}
