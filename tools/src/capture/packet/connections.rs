//! TCP connections: assigns packets to connections, and detects their start and end.
//!
//! A connection is identified by its four-tuple; a SYN with another initial sequence number starts
//! a new one. The number of tracked connections is bounded: when [`GENERATION`] of them were added
//! or used, a new one evicts those that were not, and their gaps are reported.

use super::Part;
use super::half::{Cx, Half, Segment, Shared};
use super::ip::Addresses;
use super::output::{Ended, EventSink, Lane, Output};
use millstream_engine::capture::{ConnectionInfo, Direction, IgnoredReason, Opener, Protocol};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Number of connections per generation.
const GENERATION: usize = 16_384;

/// Two endpoints, the smaller one first.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Tuple {
    low: ([u8; 16], u16),
    high: ([u8; 16], u16),
    is_v6: bool,
}

impl Tuple {
    /// The tuple of a packet, and whether the sender is the smaller endpoint.
    pub(super) fn new(at: &Addresses, ports: (u16, u16)) -> (Self, bool) {
        let (from, to) = ((at.from, ports.0), (at.to, ports.1));
        let is_low = from <= to;
        let (low, high) = if is_low { (from, to) } else { (to, from) };
        (Self { low, high, is_v6: at.is_v6 }, is_low)
    }

    fn end(&self, is_low: bool) -> SocketAddr {
        let (address, port) = if is_low { self.low } else { self.high };
        let [a, b, c, d, ..] = address;
        let ip = match self.is_v6 {
            true => IpAddr::V6(Ipv6Addr::from(address)),
            false => IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
        };
        SocketAddr::new(ip, port)
    }

    pub(super) fn info(
        &self,
        protocol: Protocol,
        opener: Opener,
        a_is_low: bool,
    ) -> ConnectionInfo {
        let (a, b) = (Some(self.end(a_is_low)), Some(self.end(!a_is_low)));
        ConnectionInfo { protocol, opener, a, b }
    }
}

impl std::hash::Hash for Tuple {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for (address, port) in [self.low, self.high] {
            for word in address.chunks_exact(8) {
                state.write_u64(word.try_into().map_or(0, u64::from_le_bytes));
            }
            state.write_u64(u64::from(port));
        }
    }
}

/// A fast multiplicative hash. Tables are bounded, so maliciously chosen addresses cost little.
#[derive(Default)]
pub(super) struct Fold(u64);

impl Hasher for Fold {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }
    fn write_u64(&mut self, word: u64) {
        let product =
            u128::from(self.0 ^ word ^ 0x9E37_79B9_7F4A_7C15).wrapping_mul(0xD6E8_FEB8_6659_FD93);
        self.0 = (product as u64) ^ (product >> 64) as u64;
    }
}

/// A bounded table by four-tuple. When [`GENERATION`] entries were added or used since the last
/// eviction, an insertion evicts those that were not.
pub(super) struct Generations<V> {
    young: HashMap<Tuple, V, BuildHasherDefault<Fold>>,
    old: HashMap<Tuple, V, BuildHasherDefault<Fold>>,
}

impl<V> Default for Generations<V> {
    fn default() -> Self {
        Self { young: HashMap::default(), old: HashMap::default() }
    }
}

impl<V: Copy> Generations<V> {
    pub(super) fn get(&mut self, tuple: &Tuple) -> Option<V> {
        if let Some(value) = self.young.get(tuple) {
            return Some(*value);
        }
        let value = self.old.remove(tuple)?;
        self.young.insert(*tuple, value);
        Some(value)
    }

    /// Adds or replaces an entry. Returns the evicted entries.
    pub(super) fn insert(&mut self, tuple: Tuple, value: V) -> Vec<V> {
        let mut forgotten = Vec::new();
        if self.young.len() >= GENERATION {
            let young = std::mem::take(&mut self.young);
            forgotten.extend(std::mem::replace(&mut self.old, young).into_values());
        }
        self.young.insert(tuple, value);
        forgotten
    }

    fn all(&self) -> impl Iterator<Item = V> + '_ {
        self.young.values().chain(self.old.values()).copied()
    }
}

struct Connection {
    number: u32,
    a_is_low: bool,
    is_reset: bool,
    is_ended: bool,
    /// The direction from `a`, and the direction from `b`.
    halves: [Half; 2],
}

/// The decoded header and the payload of a TCP packet.
pub(super) struct Tcp<'p> {
    number: u32,
    acknowledges: Option<u32>,
    is_syn: bool,
    is_fin: bool,
    is_reset: bool,
    data: Part<'p>,
}

impl<'p> Tcp<'p> {
    /// Decodes a TCP header, of which at least 20 bytes must be captured. Returns it with the
    /// ports. The packet is skipped if fewer are captured or the header's length is wrong.
    pub(super) fn decode(part: Part<'p>) -> Result<((u16, u16), Self), super::Skip> {
        let header = part.head(20)?;
        let header_bytes = usize::from(header[12] >> 4) * 4;
        if header_bytes < 20 || header_bytes > part.length {
            return Err(super::Skip::BadLength);
        }
        let flags = header[13];
        let segment = Self {
            number: super::be32(header, 4),
            acknowledges: (flags & 0x10 != 0).then(|| super::be32(header, 8)),
            is_syn: flags & 2 != 0,
            is_fin: flags & 1 != 0,
            is_reset: flags & 4 != 0,
            data: part.after(header_bytes),
        };
        Ok(((super::be16(header, 0), super::be16(header, 2)), segment))
    }
}

/// The tracked connections.
#[derive(Default)]
pub(super) struct Connections {
    table: Generations<u32>,
    slots: Vec<Connection>,
    free: Vec<u32>,
    shared: Shared,
}

impl Connections {
    /// Processes a packet. `next_number` is the number of the next new connection, and is
    /// incremented when one begins.
    pub(super) fn packet<S: EventSink>(
        &mut self,
        tuple: Tuple,
        is_low: bool,
        packet: &Tcp<'_>,
        next_number: &mut u32,
        out: &mut Output<S>,
    ) -> Result<(), Ended> {
        let known = self.table.get(&tuple);
        let known = known.filter(|slot| !self.slots[*slot as usize].is_new(is_low, packet));
        let slot = match known {
            Some(slot) => slot,
            None => self.begin(tuple, is_low, packet, next_number, out)?,
        };
        let connection = &mut self.slots[slot as usize];
        connection.packet(is_low, packet, &mut self.shared, out)
    }

    fn begin<S: EventSink>(
        &mut self,
        tuple: Tuple,
        is_low: bool,
        packet: &Tcp<'_>,
        next_number: &mut u32,
        out: &mut Output<S>,
    ) -> Result<u32, Ended> {
        // Endpoint A is the client: the one that sends the SYN, or that receives the answer to one.
        // Without a SYN it is not known, and A is the sender of the first packet.
        let is_opening = packet.is_syn && !packet.is_reset;
        let a_is_low = is_low != (is_opening && packet.acknowledges.is_some());
        let number = *next_number;
        *next_number += 1;
        let opener = if is_opening { Opener::A } else { Opener::Unknown };
        out.open(number, &tuple.info(Protocol::Tcp, opener, a_is_low), !is_opening)?;
        let connection = Connection {
            number,
            a_is_low,
            is_reset: false,
            is_ended: false,
            halves: Default::default(),
        };
        // The previous connection of the same endpoints has ended.
        if let Some(slot) = self.table.get(&tuple) {
            self.retire(slot, out)?;
            self.slots[slot as usize] = connection;
            return Ok(slot);
        }
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = connection;
                slot
            }
            None => {
                self.slots.push(connection);
                self.slots.len() as u32 - 1
            }
        };
        for forgotten in self.table.insert(tuple, slot) {
            out.counts.connections_evicted += u64::from(!self.slots[forgotten as usize].is_ended);
            self.retire(forgotten, out)?;
            self.free.push(forgotten);
        }
        Ok(slot)
    }

    /// Ends a connection, and reports the bytes that are missing in it.
    fn retire<S: EventSink>(&mut self, slot: u32, out: &mut Output<S>) -> Result<(), Ended> {
        let connection = &mut self.slots[slot as usize];
        connection.finish(&mut self.shared, out)?;
        for half in &mut connection.halves {
            half.discard(&mut self.shared);
        }
        out.forget(connection.number);
        Ok(())
    }

    /// Ends all connections at the end of the last packet capture.
    pub(super) fn finish<S: EventSink>(&mut self, out: &mut Output<S>) -> Result<(), Ended> {
        let mut slots: Vec<u32> = self.table.all().collect();
        slots.sort_by_key(|slot| self.slots[*slot as usize].number);
        for slot in slots {
            self.retire(slot, out)?;
        }
        Ok(())
    }
}

impl Connection {
    /// Whether a packet starts another connection of the same endpoints.
    fn is_new(&self, is_low: bool, packet: &Tcp<'_>) -> bool {
        if !packet.is_syn || packet.is_reset {
            return false;
        }
        let from_b = usize::from(is_low != self.a_is_low);
        let (own, other) = (&self.halves[from_b], &self.halves[1 - from_b]);
        let first = packet.number.wrapping_add(1);
        match own.syn {
            Some(syn) => return syn != packet.number,
            // The SYN follows data of its own connection in the file.
            None if own.is_synced => return own.first_number() != first,
            None => {}
        }
        match packet.acknowledges {
            // The answer to a SYN acknowledges it, and perhaps data that was sent with it.
            Some(number) => other.is_synced && !(0..=1 << 16).contains(&other.place(number)),
            // Both endpoints sent a SYN at the same time.
            None => other.syn.is_none() || self.is_ended,
        }
    }

    fn packet<S: EventSink>(
        &mut self,
        is_low: bool,
        packet: &Tcp<'_>,
        shared: &mut Shared,
        out: &mut Output<S>,
    ) -> Result<(), Ended> {
        let from_b = usize::from(is_low != self.a_is_low);
        if self.is_reset {
            if packet.data.length > 0 && !packet.is_reset {
                let at = self.halves[from_b].next;
                let bytes = packet.data.length as u64;
                out.ignored(self.lane(from_b), at, bytes, IgnoredReason::AfterReset)?;
            }
            return Ok(());
        }
        self.sync(from_b, packet);
        if let Some(number) = packet.acknowledges {
            let (half, mut cx) = self.half(1 - from_b, shared, out);
            half.acknowledge(number, &mut cx)?;
        }
        if packet.is_reset {
            return self.reset(from_b, shared, out);
        }
        let segment = Segment {
            number: packet.number.wrapping_add(u32::from(packet.is_syn)),
            data: packet.data,
            is_fin: packet.is_fin,
        };
        let (half, mut cx) = self.half(from_b, shared, out);
        half.segment(&segment, &mut cx)?;
        if !self.is_ended && self.halves.iter().all(|half| half.is_closed) {
            self.is_ended = true;
            out.close(self.number)?;
        }
        Ok(())
    }

    /// Determines the initial sequence numbers from the first packets.
    fn sync(&mut self, from_b: usize, packet: &Tcp<'_>) {
        let own = &mut self.halves[from_b];
        if packet.is_syn {
            if own.syn.is_none() && !packet.is_reset {
                own.syn = Some(packet.number);
                if !own.is_synced {
                    own.sync(packet.number.wrapping_add(1));
                }
            }
            let other = &mut self.halves[1 - from_b];
            if let Some(number) = packet.acknowledges.filter(|_| !other.is_synced) {
                other.syn = Some(number.wrapping_sub(1));
                other.sync(number);
            }
        } else if !own.is_synced && !packet.is_reset {
            own.sync(packet.number);
        }
    }

    fn reset<S: EventSink>(
        &mut self,
        from_b: usize,
        shared: &mut Shared,
        out: &mut Output<S>,
    ) -> Result<(), Ended> {
        self.finish(shared, out)?;
        self.is_reset = true;
        out.reset(self.lane(from_b), self.halves[from_b].next)?;
        if !std::mem::replace(&mut self.is_ended, true) {
            out.close(self.number)?;
        }
        Ok(())
    }

    fn finish<S: EventSink>(
        &mut self,
        shared: &mut Shared,
        out: &mut Output<S>,
    ) -> Result<(), Ended> {
        if self.is_reset {
            return Ok(());
        }
        for from_b in [0, 1] {
            let (half, mut cx) = self.half(from_b, shared, out);
            half.finish(&mut cx)?;
        }
        if !self.is_ended && self.halves.iter().all(|half| half.is_closed) {
            self.is_ended = true;
            out.close(self.number)?;
        }
        Ok(())
    }

    fn lane(&self, from_b: usize) -> Lane {
        let direction = if from_b == 0 { Direction::In } else { Direction::Out };
        Lane { connection: self.number, direction }
    }

    fn half<'c, S>(
        &'c mut self,
        from_b: usize,
        shared: &'c mut Shared,
        out: &'c mut Output<S>,
    ) -> (&'c mut Half, Cx<'c, S>) {
        let lane = self.lane(from_b);
        let owner = u64::from(self.number) * 2 + from_b as u64;
        (&mut self.halves[from_b], Cx { lane, owner, shared, out })
    }
}
