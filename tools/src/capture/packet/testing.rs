//! Builds packet captures for tests, and collects the events of an import.

use super::{Counts, Ended, EventSink, FileDamage, Filter, GapPolicy, Importer};
use millstream_engine::capture::{
    ConnectionInfo, Direction, Gap, Head, Ignored, Kind, conflict_bytes,
};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;

pub(super) const SYN: u8 = 2;
pub(super) const ACK: u8 = 0x10;
pub(super) const FIN: u8 = 1;
pub(super) const RST: u8 = 4;

/// Builds an IPv4 packet with addresses of the tests.
pub(super) fn ipv4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    ipv4_fragment(protocol, 7, 0, payload, [10, 0, 0, 1], [10, 0, 0, 2])
}

pub(super) fn ipv4_fragment(
    protocol: u8,
    id: u16,
    place: u16,
    payload: &[u8],
    from: [u8; 4],
    to: [u8; 4],
) -> Vec<u8> {
    let mut packet = vec![0x45, 0];
    packet.extend((payload.len() as u16 + 20).to_be_bytes());
    packet.extend(id.to_be_bytes());
    packet.extend(place.to_be_bytes());
    packet.extend([64, protocol, 0, 0]);
    packet.extend(from);
    packet.extend(to);
    packet.extend(payload);
    packet
}

/// An IPv6 packet whose payload starts with a header of this kind.
pub(super) fn ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((payload.len() as u16).to_be_bytes());
    packet.extend([next, 64]);
    packet.extend([1; 16]);
    packet.extend([2; 16]);
    packet.extend(payload);
    packet
}

pub(super) fn udp(ports: (u16, u16), data: &[u8]) -> Vec<u8> {
    let mut segment = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
    segment.extend((data.len() as u16 + 8).to_be_bytes());
    segment.extend([0, 0]);
    segment.extend(data);
    segment
}

/// A TCP segment from the client (port 1000) or the server (port 2000).
pub(super) fn tcp(from_server: bool, seq: u32, ack: u32, flags: u8, data: &[u8]) -> Vec<u8> {
    let (from, to) = if from_server { (2000u16, 1000u16) } else { (1000, 2000) };
    let mut segment = [from.to_be_bytes(), to.to_be_bytes()].concat();
    segment.extend(seq.to_be_bytes());
    segment.extend(ack.to_be_bytes());
    segment.extend([0x50, flags, 0xFF, 0xFF, 0, 0, 0, 0]);
    segment.extend(data);
    segment
}

/// The segment as an IPv4 packet.
pub(super) fn packet(from_server: bool, seq: u32, ack: u32, flags: u8, data: &[u8]) -> Vec<u8> {
    let (mut from, mut to) = ([10, 0, 0, 1], [10, 0, 0, 2]);
    if from_server {
        std::mem::swap(&mut from, &mut to);
    }
    ipv4_fragment(6, 7, 0, &tcp(from_server, seq, ack, flags, data), from, to)
}

pub(super) fn ethernet(kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; 12];
    frame.extend(kind.to_be_bytes());
    frame.extend(payload);
    frame
}

/// How a pcap file is written.
#[derive(Clone, Copy)]
pub(super) struct Pcap {
    pub is_big: bool,
    pub is_ns: bool,
    pub link: u32,
    /// The snap length, in bytes.
    pub snap: usize,
    /// Microseconds between two packets.
    pub step_us: u64,
}

impl Default for Pcap {
    fn default() -> Self {
        Self { is_big: false, is_ns: false, link: 101, snap: 262_144, step_us: 10 }
    }
}

impl Pcap {
    /// A file with these frames, each cut to the snap length, at intervals of `step_us`.
    pub(super) fn file(&self, frames: &[Vec<u8>]) -> Vec<u8> {
        let word = |n: u32| if self.is_big { n.to_be_bytes() } else { n.to_le_bytes() };
        let mut file = word(if self.is_ns { 0xA1B2_3C4D } else { 0xA1B2_C3D4 }).to_vec();
        file.extend(if self.is_big { [0, 2, 0, 4] } else { [2, 0, 4, 0] });
        file.extend([0; 8]);
        file.extend(word(self.snap as u32));
        file.extend(word(self.link));
        for (n, frame) in frames.iter().enumerate() {
            let us = n as u64 * self.step_us;
            file.extend(word(1_700_000_000 + (us / 1_000_000) as u32));
            file.extend(word((us % 1_000_000) as u32 * if self.is_ns { 1000 } else { 1 }));
            let captured = frame.len().min(self.snap);
            file.extend(word(captured as u32));
            file.extend(word(frame.len() as u32));
            file.extend(&frame[..captured]);
        }
        file
    }
}

/// Builds a pcapng block.
pub(super) fn block(is_big: bool, kind: u32, body: &[u8]) -> Vec<u8> {
    let word = |n: u32| if is_big { n.to_be_bytes() } else { n.to_le_bytes() };
    let body = [body, &vec![0; body.len().next_multiple_of(4) - body.len()]].concat();
    let length = word(body.len() as u32 + 12);
    [&word(kind)[..], &length, &body, &length].concat()
}

/// A pcapng file with one interface of this link type and resolution, and with these frames.
pub(super) fn ng(is_big: bool, link: u16, resolution: u8, frames: &[Vec<u8>]) -> Vec<u8> {
    let half = |n: u16| if is_big { n.to_be_bytes() } else { n.to_le_bytes() };
    let word = |n: u32| if is_big { n.to_be_bytes() } else { n.to_le_bytes() };
    let section = [&word(0x1A2B_3C4D)[..], &half(1), &half(0), &[0xFF; 8]].concat();
    let option = [&half(9)[..], &half(1), &[resolution, 0, 0, 0], &[0; 4]].concat();
    let interface = [&half(link)[..], &[0; 2], &[0; 4], &option].concat();
    let mut file = block(is_big, 0x0A0D_0D0A, &section);
    file.extend(block(is_big, 1, &interface));
    for (n, frame) in frames.iter().enumerate() {
        let length = word(frame.len() as u32);
        let body = [&word(0)[..], &word(0), &word(n as u32), &length, &length, frame].concat();
        file.extend(block(is_big, 6, &body));
        file.extend(block(is_big, 0x0BAD, b"of another tool"));
    }
    file
}

/// The events of an import.
#[derive(Default)]
pub(super) struct Found {
    /// One line per event, with data as text: `0 in data 5 "abc"`.
    pub lines: Vec<String>,
    /// The bytes of each direction of each connection.
    pub streams: BTreeMap<(u32, bool), Vec<u8>>,
    pub times: Vec<i64>,
    /// Payload lengths of the events, in bytes.
    lengths: Vec<usize>,
    pub counts: Counts,
    pub damage: Option<FileDamage>,
}

impl Found {
    /// The payload length of a line's event, in bytes. `line` must be borrowed from `self.lines`,
    /// because it is found by its address. For any other string the result is 0.
    pub(super) fn data_bytes(&self, line: &str) -> usize {
        let at = self.lines.iter().position(|other| std::ptr::eq(other.as_str(), line));
        at.map_or(0, |at| self.lengths[at])
    }
}

impl EventSink for Found {
    fn begin_file(&mut self, _: u32) {}

    fn event(&mut self, head: &Head, payload: &[u8]) -> io::Result<()> {
        let is_out = head.direction == Direction::Out;
        let side = if is_out { "out" } else { "in" };
        let mut line = format!("{} ", head.connection);
        let _ = match head.kind {
            Kind::Open => {
                let info = ConnectionInfo::decode(payload).unwrap_or_default();
                let end = |end: Option<std::net::SocketAddr>| end.map_or(0, |end| end.port());
                write!(line, "open {} {}", end(info.a), end(info.b))
            }
            Kind::Close => write!(line, "close"),
            Kind::Data => {
                self.streams.entry((head.connection, is_out)).or_default().extend(payload);
                let text = String::from_utf8_lossy(payload);
                write!(line, "{side} data {} {text:?}", head.position)
            }
            Kind::Gap => {
                let gap = Gap::decode(payload).unwrap();
                write!(line, "{side} gap {} {} {}", head.position, gap.bytes, gap.cause.name())
            }
            Kind::Conflict => {
                write!(line, "{side} conflict {} {}", head.position, conflict_bytes(payload))
            }
            Kind::Ignored => {
                let ignored = Ignored::decode(payload).unwrap();
                write!(line, "{side} {:?} {}", ignored.reason, ignored.bytes)
            }
            kind => write!(line, "{side} {kind:?} {}", head.position),
        };
        self.lines.push(line);
        self.times.push(head.wall_ns);
        self.lengths.push(payload.len());
        Ok(())
    }
}

pub(super) fn import_with(file: &[u8], filter: Filter, policy: GapPolicy) -> Result<Found, Ended> {
    let mut importer = Importer::new(Found::default(), filter, policy);
    let damage = importer.read(file, |_| true)?;
    let (mut found, counts) = importer.finish()?;
    (found.counts, found.damage) = (counts, damage);
    Ok(found)
}

pub(super) fn import(file: &[u8]) -> Found {
    import_with(file, Filter::default(), GapPolicy::Keep).unwrap()
}

/// Imports IPv4 packets. Returns one line per event.
pub(super) fn lines(packets: &[Vec<u8>]) -> Vec<String> {
    import(&Pcap::default().file(packets)).lines
}
