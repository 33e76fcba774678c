//! The data of a connection that its peer does not take yet.
//!
//! Events of other connections go on meanwhile. The queues are bounded, for each connection and
//! over all of them; beyond that the replay waits.

use crate::capture::times;
use hdrhistogram::Histogram;
use millstream_engine::measure::latency::histogram;
use std::collections::VecDeque;
use std::io::{self, Write};
use std::time::{Duration, Instant};

/// Maximum number of queued bytes of a connection.
pub(super) const CONNECTION_BYTES_MAX: usize = 4 << 20;
/// Maximum number of queued bytes of all connections.
pub(super) const ALL_BYTES_MAX: usize = 64 << 20;
/// Number of bytes after which [`Outgoing::write`] pauses, because the connections of the replay are
/// locked meanwhile.
const WRITE_BYTES: usize = 256 << 10;
/// Number of connections that a report names.
const NAMED: usize = 5;

/// Whether bytes may be queued in addition to others. An event that is larger than the limit is
/// queued alone.
pub(super) fn fits(queued: usize, bytes: usize, most: usize) -> bool {
    queued == 0 || queued.saturating_add(bytes) <= most
}

/// A data event of which a part is queued.
struct Waiting {
    /// The number of its bytes that are queued.
    bytes: usize,
    due: Due,
}

/// When a data event should have been sent.
#[derive(Clone, Copy)]
pub(super) enum Due {
    At(Instant),
    /// Nothing is due at the speed `max`. The time at which the event was queued.
    Since(Instant),
}

/// The lateness of a connection's queued data.
#[derive(Clone, Copy, Default)]
struct Stall {
    connection: u64,
    events: u64,
    bytes: u64,
    longest: Duration,
}

/// The queue of a connection.
pub(super) struct Outgoing {
    bytes: VecDeque<u8>,
    events: VecDeque<Waiting>,
    stall: Stall,
}

impl Outgoing {
    pub(super) fn new(connection: u64) -> Self {
        let stall = Stall { connection, ..Stall::default() };
        Self { bytes: VecDeque::new(), events: VecDeque::new(), stall }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Queues the unsent bytes of an event.
    pub(super) fn push(&mut self, bytes: &[u8], due: Due) {
        self.bytes.extend(bytes);
        self.events.push_back(Waiting { bytes: bytes.len(), due });
        self.stall.events += 1;
        self.stall.bytes += bytes.len() as u64;
    }

    /// Writes as much as the peer takes, event by event, up to [`WRITE_BYTES`]. Returns whether it may
    /// take more. Fails if the peer has gone.
    pub(super) fn write(&mut self, mut out: impl Write, late: &mut Lateness) -> io::Result<bool> {
        let least = self.bytes.len().saturating_sub(WRITE_BYTES);
        while let Some(first) = self.events.front_mut() {
            let (next, _) = self.bytes.as_slices();
            match out.write(&next[..next.len().min(first.bytes)]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(bytes) => {
                    self.bytes.drain(..bytes);
                    first.bytes -= bytes;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
            if first.bytes == 0 {
                let lag = late.sent(first.due);
                self.stall.longest = self.stall.longest.max(lag);
                self.events.pop_front();
            }
            if self.bytes.len() <= least && !self.bytes.is_empty() {
                return Ok(true);
            }
        }
        // The memory of a stall is not kept.
        self.bytes.shrink_to(0);
        Ok(false)
    }

    /// Drops everything, because the peer has gone. Returns the number of events that were not sent.
    pub(super) fn discard(&mut self) -> usize {
        self.bytes = VecDeque::new();
        std::mem::take(&mut self.events).len()
    }
}

/// The lateness of all queued data.
pub(super) struct Lateness {
    /// The send lags of the queued data events. Empty at the speed `max`.
    pub lags: Histogram<u64>,
    /// The number of connections whose data was queued.
    stalled: u64,
    /// Those that were late the longest.
    worst: Vec<Stall>,
    /// How long the replay has waited because the queues were full.
    pub full: Duration,
}

impl Lateness {
    pub(super) fn new() -> Self {
        Self { lags: histogram(), stalled: 0, worst: Vec::new(), full: Duration::ZERO }
    }

    /// Counts an event that was queued and is sent now. Returns how late it is.
    fn sent(&mut self, due: Due) -> Duration {
        match due {
            Due::Since(since) => since.elapsed(),
            Due::At(due) => {
                let lag = due.elapsed();
                self.lags.saturating_record((lag.as_nanos() as u64).max(1));
                lag
            }
        }
    }

    /// Notes the stall of a connection that ends, if it has had any.
    pub(super) fn note(&mut self, ended: &Outgoing) {
        if ended.stall.events == 0 {
            return;
        }
        self.stalled += 1;
        let at = self.worst.partition_point(|other| other.longest >= ended.stall.longest);
        self.worst.insert(at, ended.stall);
        self.worst.truncate(NAMED);
    }

    /// The lines of the report.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for stall in &self.worst {
            let (bytes, longest) =
                (times::show_bytes(stall.bytes), stall.longest.as_nanos() as u64);
            let plural = if stall.events == 1 { "" } else { "s" };
            lines.push(format!(
                "connection {}: {} event{plural} ({bytes}) waited for the peer, up to {}",
                stall.connection,
                stall.events,
                times::show_ns(longest),
            ));
        }
        let unnamed = self.stalled - self.worst.len() as u64;
        if unnamed > 0 {
            lines.push(format!("and {unnamed} other connections"));
        }
        if !self.full.is_zero() {
            lines.push(format!(
                "{} of waiting because a queue was full; later events were delayed by as much",
                times::show_ns(self.full.as_nanos() as u64)
            ));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A peer that takes a number of bytes.
    struct Peer(Vec<u8>, usize);

    impl Write for Peer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = bytes.len().min(self.1);
            if taken == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.0.extend(&bytes[..taken]);
            self.1 -= taken;
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn queued_data_is_sent_in_order_and_counted_when_it_is_whole() {
        let (mut queue, mut late) = (Outgoing::new(3), Lateness::new());
        let due = Instant::now() - Duration::from_secs(1);
        let mut sent = Vec::new();
        for n in 0..100u8 {
            queue.push(&[n; 10], Due::At(due));
            let mut peer = Peer(Vec::new(), 7);
            queue.write(&mut peer, &mut late).unwrap();
            sent.extend(peer.0);
            assert_eq!(late.lags.len(), u64::from(n + 1) * 7 / 10);
        }
        let mut peer = Peer(Vec::new(), usize::MAX);
        queue.write(&mut peer, &mut late).unwrap();
        sent.extend(peer.0);
        assert!(queue.is_empty());
        assert_eq!(sent, (0..100).flat_map(|n| [n; 10]).collect::<Vec<u8>>());
        assert!(late.lags.min() >= 999_000_000, "a lag counts from the due time");
        late.note(&queue);
        let lines = late.lines();
        assert!(lines[0].starts_with("connection 3: 100 events (1000 B) waited"), "{lines:?}");
    }

    #[test]
    fn a_report_names_the_connections_that_were_late_the_longest() {
        let mut late = Lateness::new();
        for connection in 0..20 {
            let mut queue = Outgoing::new(connection);
            queue.stall.events = 1;
            queue.stall.longest = Duration::from_secs(connection * 7 % 20);
            late.note(&queue);
        }
        late.note(&Outgoing::new(20));
        let lines = late.lines();
        assert!(
            lines[0].starts_with("connection 17: ") && lines[0].contains("up to 19"),
            "{lines:?}"
        );
        assert_eq!(lines.len(), NAMED + 1);
        assert_eq!(lines[NAMED], "and 15 other connections");
    }

    #[test]
    fn a_long_queue_is_sent_in_parts() {
        let (mut queue, mut late) = (Outgoing::new(3), Lateness::new());
        for _ in 0..8 {
            queue.push(&[0; WRITE_BYTES / 2], Due::Since(Instant::now()));
        }
        let mut peer = Peer(Vec::new(), usize::MAX);
        for part in 1..=4 {
            assert_eq!(queue.write(&mut peer, &mut late).unwrap(), part < 4);
            assert_eq!(peer.0.len(), part * WRITE_BYTES);
        }
    }

    #[test]
    fn queues_are_bounded() {
        assert!(fits(0, 10, 5), "a large event alone");
        assert!(fits(4, 1, 5) && !fits(4, 2, 5));
    }
}
