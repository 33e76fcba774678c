//! Reads a capture ahead of its replay, as batches of events with times relative to the start.

use crate::capture::events::{self, Selection};
use crate::failure::Failure;
use crossbeam_channel::{Receiver, Sender, bounded};
use millstream_engine::capture::{Damage, Direction, FLAG_REPEATED, Gap, Kind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Payload bytes per batch, and number of batches read ahead.
const BATCH_BYTES: usize = 256 << 10;
const BATCHES_AHEAD: usize = 16;
/// Maximum number of events per batch.
const BATCH_EVENTS: usize = 4096;

/// An event to replay.
#[derive(Clone, Copy, Debug)]
pub(super) struct Event {
    /// Recorded time since the first event, in nanoseconds.
    pub at_ns: u64,
    /// The connection's number over all loops.
    pub connection: u64,
    pub kind: Kind,
    pub is_udp: bool,
    from: usize,
    to: usize,
}

/// Events and their payloads.
#[derive(Default)]
pub(super) struct Events {
    events: Vec<Event>,
    bytes: Vec<u8>,
}

impl Events {
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Event, &[u8])> {
        self.events.iter().map(|event| (event, &self.bytes[event.from..event.to]))
    }
}

/// The differences between a replay and its capture.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Gaps {
    /// The number of shortened pauses, and the total time removed.
    pub shortened: u64,
    pub cut_ns: u64,
    /// Bytes of the selected direction that the capture lacks.
    pub missing_bytes: u64,
}

type Outcome = Result<Box<(Gaps, Vec<(PathBuf, Damage)>)>, Failure>;

pub(super) enum Batch {
    Events(Events),
    End(Outcome),
}

/// The events of a capture in replay order.
pub(super) struct Plan {
    pub batches: Receiver<Batch>,
}

impl Plan {
    /// Starts reading.
    pub(super) fn start(
        files: Vec<PathBuf>,
        selection: Selection,
        loops: u64,
        max_gap_ns: Option<u64>,
        stop: Arc<AtomicBool>,
    ) -> Self {
        let (sender, batches) = bounded(BATCHES_AHEAD);
        std::thread::spawn(move || {
            let mut reading = Reading {
                sender,
                selection,
                max_gap_ns,
                stop,
                batch: Events::default(),
                clock: Clock::default(),
                gaps: Gaps::default(),
                first_connection: 0,
                connections: 0,
                udp: Default::default(),
                is_gone: false,
            };
            let outcome = reading.all(&files, loops);
            reading.send();
            drop(reading.sender.send(Batch::End(outcome)));
        });
        Self { batches }
    }
}

/// Converts recorded times to replay times: shortens pauses, and continues over loops.
#[derive(Default)]
struct Clock {
    last_ns: Option<u64>,
    at_ns: u64,
}

struct Reading {
    sender: Sender<Batch>,
    selection: Selection,
    max_gap_ns: Option<u64>,
    stop: Arc<AtomicBool>,
    batch: Events,
    clock: Clock,
    gaps: Gaps,
    /// The number of connection 0 in this loop, and the number of connections.
    first_connection: u64,
    connections: u64,
    /// Connections that consist of datagrams.
    udp: std::collections::HashSet<u64>,
    is_gone: bool,
}

impl Reading {
    fn all(&mut self, files: &[PathBuf], loops: u64) -> Outcome {
        let mut damage = Vec::new();
        for round in 0..loops {
            // A loop starts when the previous one has ended.
            self.clock.last_ns = None;
            self.first_connection += self.connections;
            self.connections = 0;
            for file in files {
                let selection = Selection { direction: None, ..self.selection.clone() };
                let found = events::read(file, &selection, |head, payload| {
                    self.add(head, payload);
                    if self.is_gone || self.stop.load(Ordering::Relaxed) {
                        return Err(Failure::Failed("interrupted".to_string()));
                    }
                    Ok(())
                })?;
                if round == 0 {
                    damage.extend(found.into_iter().map(|damage| (file.clone(), damage)));
                }
            }
        }
        Ok(Box::new((self.gaps, damage)))
    }

    fn add(&mut self, head: &millstream_engine::capture::Head, payload: &[u8]) {
        let is_played = match head.kind {
            Kind::Open => head.flags & FLAG_REPEATED == 0,
            Kind::Close => true,
            // A reset by either side ends the connection.
            Kind::Reset => true,
            Kind::Data | Kind::HalfClose | Kind::Gap => head.direction == self.direction(),
            _ => false,
        };
        if !is_played {
            return;
        }
        let connection = self.first_connection + u64::from(head.connection);
        self.connections = self.connections.max(u64::from(head.connection) + 1);
        if head.kind == Kind::Gap {
            let bytes = Gap::decode(payload).map_or(0, |gap| gap.bytes);
            self.gaps.missing_bytes += bytes;
            return;
        }
        if head.kind == Kind::Open {
            use millstream_engine::capture::{ConnectionInfo, Protocol};
            let info = ConnectionInfo::decode(payload).unwrap_or_default();
            if info.protocol == Protocol::Udp {
                self.udp.insert(connection);
            }
        }
        let at_ns = self.advance(head.mono_ns);
        let from = self.batch.bytes.len();
        if head.kind == Kind::Data {
            self.batch.bytes.extend_from_slice(payload);
        }
        let (to, is_udp) = (self.batch.bytes.len(), self.udp.contains(&connection));
        if head.kind == Kind::Close {
            self.udp.remove(&connection);
        }
        self.batch.events.push(Event { at_ns, connection, kind: head.kind, is_udp, from, to });
        if to >= BATCH_BYTES || self.batch.events.len() >= BATCH_EVENTS {
            self.send();
        }
    }

    fn direction(&self) -> Direction {
        self.selection.direction.map_or(Direction::In, |direction| direction.direction())
    }

    fn advance(&mut self, mono_ns: u64) -> u64 {
        let last_ns = self.clock.last_ns.unwrap_or(mono_ns);
        // Files of one recording continue each other; other files start anew.
        let mut pause_ns = mono_ns.saturating_sub(last_ns);
        if let Some(most) = self.max_gap_ns.filter(|most| pause_ns > *most) {
            self.gaps.shortened += 1;
            self.gaps.cut_ns += pause_ns - most;
            pause_ns = most;
        }
        self.clock.last_ns = Some(mono_ns);
        self.clock.at_ns += pause_ns;
        self.clock.at_ns
    }

    fn send(&mut self) {
        let batch = std::mem::take(&mut self.batch);
        if !batch.events.is_empty() {
            self.is_gone |= self.sender.send(Batch::Events(batch)).is_err();
        }
    }
}
