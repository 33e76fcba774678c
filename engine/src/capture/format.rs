//! The bytes of a capture file: its header, its blocks, and the payloads of the blocks that
//! describe something else than bytes of a stream.
//!
//! ```text
//! file:   | file header, 64 bytes | block | block | … |
//! block:  | length u32 | crc32 u32 | position u64 | lines u64 | mono_ns u64 | wall_ns i64 |
//!         | connection u32 | direction u8 | kind u8 | flags u16 | payload | zeros to 8 bytes |
//! ```
//! All integers are little endian. `length` is one more than the payload has, so that an empty
//! block is not all zeros; the CRC covers the payload's length and everything behind the CRC.
//! Version 1 has a header of 8 bytes and stores microseconds where version 2 stores `wall_ns`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The first bytes of a file of this version.
pub(super) const MAGIC: &[u8; 8] = b"MSCAPT02";
/// The first bytes of a file of the version before.
pub(super) const MAGIC_V1: &[u8; 8] = b"MSCAPT01";
/// Bytes of the file header.
pub(super) const FILE_HEADER_BYTES: usize = 64;
/// Bytes of a block before its payload.
pub(super) const HEAD_BYTES: usize = 48;
/// Largest payload of any block; a longer one is damage.
pub const MAX_PAYLOAD: usize = 4 << 20;
/// Largest payload of an event of a [`super::CaptureWriter`]; longer data is split.
pub const MAX_EVENT_BYTES: usize = 64 << 10;
/// Distance of the marks of an uncompressed file.
pub const STRIDE_BYTES: u64 = 1 << 20;

/// What a block says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Bytes of a stream, or a datagram.
    Data = 0,
    /// A connection begins. The payload is a [`ConnectionInfo`], or empty.
    Open = 1,
    /// A connection has ended.
    Close = 2,
    /// The sender of this direction has ended it.
    HalfClose = 3,
    /// The sender of this direction has reset the connection.
    Reset = 4,
    /// Bytes of the stream that are not in the file. The payload is a [`Gap`].
    Gap = 5,
    /// Bytes that were sent again with other contents. See [`conflict_payload`].
    Conflict = 6,
    /// Bytes that were seen and do not belong to the stream. The payload is an [`Ignored`].
    Ignored = 7,
    /// Text for people and tools: a JSON object.
    Note = 8,
    /// Structure: where a search by time can land.
    Mark = 16,
    /// Structure: compressed blocks.
    Compressed = 18,
    /// Structure: a part of the index.
    Index = 19,
    /// Structure: the end of a file that was closed.
    End = 20,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => Self::Data,
            1 => Self::Open,
            2 => Self::Close,
            3 => Self::HalfClose,
            4 => Self::Reset,
            5 => Self::Gap,
            6 => Self::Conflict,
            7 => Self::Ignored,
            8 => Self::Note,
            16 => Self::Mark,
            18 => Self::Compressed,
            19 => Self::Index,
            20 => Self::End,
            _ => return None,
        })
    }

    /// Whether the block is an event, not structure of the file.
    pub fn is_event(self) -> bool {
        (self as u8) < Self::Mark as u8
    }
}

/// Which way bytes went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Direction {
    /// Towards the recorded service: from end `a` to end `b`.
    In = 0,
    /// From the recorded service: from end `b` to end `a`.
    Out = 1,
}

/// More of the same write or datagram follows in the next event of this connection and direction.
pub const FLAG_MORE: u16 = 1;
/// The recorder cut the datagram short; a gap for the rest follows.
pub const FLAG_CUT: u16 = 2;
/// Of an open event: the connection had begun before the recording.
pub const FLAG_MIDSTREAM: u16 = 4;
/// Of an open event: the connection was opened in an earlier file of the recording.
pub const FLAG_REPEATED: u16 = 8;

/// A block without its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Where the payload begins in the stream of its connection and direction. In the log of a
    /// durable source: in everything that the source received.
    pub position: u64,
    /// Whole lines before it, in the log of a durable source; otherwise 0.
    pub lines: u64,
    /// Monotonic time in nanoseconds. Never falls within a file.
    pub mono_ns: u64,
    /// Wall-clock time, in nanoseconds since 1970. May fall where the clock was set back.
    pub wall_ns: i64,
    /// The connection, numbered over the recording.
    pub connection: u32,
    /// Which way.
    pub direction: Direction,
    /// What it says.
    pub kind: Kind,
    /// `FLAG_…` bits.
    pub flags: u16,
}

/// The clock that the times of a file come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Clock {
    /// Not known: a file of version 1.
    #[default]
    Unknown = 0,
    /// Read by the recorder after the read of the socket.
    Read = 1,
    /// Taken by the kernel when the packet arrived.
    Kernel = 2,
    /// Taken over from a packet capture.
    Packets = 3,
}

/// The header of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileHeader {
    /// 1 or 2.
    pub version: u8,
    /// Where the times come from.
    pub clock: Clock,
    /// Whether events are in compressed blocks.
    pub compressed: bool,
    /// Precision of the times in nanoseconds; 0 if it is not known.
    pub precision_ns: u32,
    /// Wall-clock time of the start, in nanoseconds since 1970.
    pub start_wall_ns: i64,
    /// Monotonic time of the start.
    pub start_mono_ns: u64,
    /// Shared by all files of a recording.
    pub recording: u64,
    /// Number of this file in its recording, from 0.
    pub file: u32,
    /// Distance of the marks; 0 if there are none at fixed offsets.
    pub stride_bytes: u32,
}

impl FileHeader {
    /// Bytes of the header of a file of this version.
    pub(super) fn bytes(&self) -> usize {
        if self.version == 1 { MAGIC_V1.len() } else { FILE_HEADER_BYTES }
    }

    pub(super) fn encode(&self) -> [u8; FILE_HEADER_BYTES] {
        let mut out = [0; FILE_HEADER_BYTES];
        out[..8].copy_from_slice(MAGIC);
        out[8..12].copy_from_slice(&(FILE_HEADER_BYTES as u32).to_le_bytes());
        out[16..24].copy_from_slice(&self.start_wall_ns.to_le_bytes());
        out[24..32].copy_from_slice(&self.start_mono_ns.to_le_bytes());
        out[32..36].copy_from_slice(&self.precision_ns.to_le_bytes());
        out[36] = self.clock as u8;
        out[37] = u8::from(self.compressed);
        out[40..48].copy_from_slice(&self.recording.to_le_bytes());
        out[48..52].copy_from_slice(&self.file.to_le_bytes());
        out[52..56].copy_from_slice(&self.stride_bytes.to_le_bytes());
        let crc = header_crc(&out);
        out[12..16].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads a header. The error says what is wrong with it.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        if bytes.starts_with(MAGIC_V1) {
            return Ok(Self { version: 1, ..Self::default() });
        }
        if !bytes.starts_with(&MAGIC[..6]) {
            return Err("it does not begin as a capture does");
        }
        if !bytes.starts_with(MAGIC) {
            return Err("it is of a version that this program does not know");
        }
        let header = bytes.get(..FILE_HEADER_BYTES).ok_or("its header is cut off")?;
        if u32_at(header, 12) != header_crc(header) {
            return Err("its header does not match its CRC");
        }
        let stride_bytes = u32_at(header, 52);
        if stride_bytes != 0 && u64::from(stride_bytes) != STRIDE_BYTES {
            return Err("its marks are at a distance that this program does not know");
        }
        Ok(Self {
            version: 2,
            clock: match header[36] {
                1 => Clock::Read,
                2 => Clock::Kernel,
                3 => Clock::Packets,
                _ => Clock::Unknown,
            },
            compressed: header[37] & 1 != 0,
            precision_ns: u32_at(header, 32),
            start_wall_ns: u64_at(header, 16) as i64,
            start_mono_ns: u64_at(header, 24),
            recording: u64_at(header, 40),
            file: u32_at(header, 48),
            stride_bytes,
        })
    }
}

fn header_crc(header: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&header[..12]);
    crc.update(&header[16..]);
    crc.finalize()
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
}

fn block_crc(length: usize, block: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&(length as u32).to_le_bytes());
    crc.update(&block[8..]);
    crc.finalize()
}

/// Writes the head of a block whose payload of `length` bytes stands behind it, except for the
/// length field.
pub(super) fn encode(head: &Head, length: usize, out: &mut [u8]) {
    out[8..16].copy_from_slice(&head.position.to_le_bytes());
    out[16..24].copy_from_slice(&head.lines.to_le_bytes());
    out[24..32].copy_from_slice(&head.mono_ns.to_le_bytes());
    out[32..40].copy_from_slice(&head.wall_ns.to_le_bytes());
    out[40..44].copy_from_slice(&head.connection.to_le_bytes());
    out[44] = head.direction as u8;
    out[45] = head.kind as u8;
    out[46..48].copy_from_slice(&head.flags.to_le_bytes());
    let crc = block_crc(length, &out[..HEAD_BYTES + length]);
    out[4..8].copy_from_slice(&crc.to_le_bytes());
}

/// Appends a whole block.
pub(super) fn push_block(head: &Head, payload: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; HEAD_BYTES]);
    out.extend_from_slice(payload);
    encode(head, payload.len(), &mut out[start..]);
    out[start..start + 4].copy_from_slice(&(payload.len() as u32 + 1).to_le_bytes());
    out.resize(start + block_bytes(payload.len()), 0);
}

/// Bytes of a block with a payload of this length.
pub(super) fn block_bytes(length: usize) -> usize {
    (HEAD_BYTES + length).next_multiple_of(8)
}

/// The last bytes of a file that was closed: the offset of its end block, and this.
pub(super) const TRAILER_MAGIC: &[u8; 8] = b"MSCAPEND";
/// Bytes of the trailer.
pub(super) const TRAILER_BYTES: usize = 16;

/// Why there is no block at an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoBlock {
    /// The bytes end before the block, or the part of it that says how long it is, does.
    Short {
        /// Bytes needed to look again.
        need: usize,
    },
    /// The length field is 0: nothing was written here.
    Empty,
    /// What stands there is no block.
    Damaged,
}

/// The block at the start of `bytes`: its head, and the length of its payload.
pub(super) fn decode(bytes: &[u8], version: u8) -> Result<(Head, usize), NoBlock> {
    let Some(field) = bytes.get(..4).map(|bytes| u32_at(bytes, 0)) else {
        return Err(NoBlock::Short { need: HEAD_BYTES });
    };
    let Some(length) = (field as usize).checked_sub(1) else { return Err(NoBlock::Empty) };
    if length > MAX_PAYLOAD {
        return Err(NoBlock::Damaged);
    }
    let Some(block) = bytes.get(..HEAD_BYTES + length) else {
        return Err(NoBlock::Short { need: HEAD_BYTES + length });
    };
    // Cheap tests first: a scan over damaged bytes computes few sums.
    let kind = Kind::from_byte(block[45]).ok_or(NoBlock::Damaged)?;
    if block[44] > 1 || block_crc(length, block) != u32_at(block, 4) {
        return Err(NoBlock::Damaged);
    }
    let wall = u64_at(block, 32) as i64;
    let head = Head {
        position: u64_at(block, 8),
        lines: u64_at(block, 16),
        mono_ns: u64_at(block, 24),
        wall_ns: if version == 1 { wall.saturating_mul(1000) } else { wall },
        connection: u32_at(block, 40),
        direction: if block[44] == 0 { Direction::In } else { Direction::Out },
        kind,
        flags: u16::from_le_bytes([block[46], block[47]]),
    };
    Ok((head, length))
}

/// What a connection runs over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// Not known.
    #[default]
    Unknown,
    /// A byte stream.
    Tcp,
    /// Datagrams: a "connection" is all datagrams between two ends.
    Udp,
}

/// Which end opened a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Opener {
    /// Not known: the recording began later.
    #[default]
    Unknown,
    /// End `a`.
    A,
    /// End `b`, the recorded service.
    B,
}

/// An address and a port; neither where it is not known.
pub type Endpoint = Option<SocketAddr>;

/// The payload of an open event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionInfo {
    /// What it runs over.
    pub protocol: Protocol,
    /// Who opened it.
    pub opener: Opener,
    /// The peer: the client of an imported or proxied connection.
    pub a: Endpoint,
    /// The recorded service.
    pub b: Endpoint,
}

impl ConnectionInfo {
    /// Bytes of an encoded one.
    pub const BYTES: usize = 40;

    /// The payload of its open event.
    pub fn encode(&self) -> [u8; Self::BYTES] {
        let mut out = [0; Self::BYTES];
        out[0] = match self.protocol {
            Protocol::Unknown => 0,
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
        };
        out[1] = match self.opener {
            Opener::Unknown => 0,
            Opener::A => 1,
            Opener::B => 2,
        };
        for (end, at) in [(self.a, 0), (self.b, 1)] {
            let Some(end) = end else { continue };
            out[4 + 2 * at..6 + 2 * at].copy_from_slice(&end.port().to_le_bytes());
            let address = &mut out[8 + 16 * at..24 + 16 * at];
            match end.ip() {
                IpAddr::V4(ip) => address[..4].copy_from_slice(&ip.octets()),
                IpAddr::V6(ip) => address.copy_from_slice(&ip.octets()),
            }
            out[2 + at] = if end.is_ipv4() { 4 } else { 6 };
        }
        out
    }

    /// Reads the payload of an open event; `None` if it says nothing of the connection.
    pub fn decode(payload: &[u8]) -> Option<Self> {
        let payload: &[u8; Self::BYTES] = payload.get(..Self::BYTES)?.try_into().ok()?;
        let end = |at: usize| {
            let port = u16::from_le_bytes([payload[4 + 2 * at], payload[5 + 2 * at]]);
            let address: [u8; 16] = payload[8 + 16 * at..24 + 16 * at].try_into().ok()?;
            let [a, b, c, d, ..] = address;
            match payload[2 + at] {
                4 => Some(SocketAddr::new(Ipv4Addr::new(a, b, c, d).into(), port)),
                6 => Some(SocketAddr::new(Ipv6Addr::from(address).into(), port)),
                _ => None,
            }
        };
        Some(Self {
            protocol: match payload[0] {
                6 => Protocol::Tcp,
                17 => Protocol::Udp,
                _ => Protocol::Unknown,
            },
            opener: match payload[1] {
                1 => Opener::A,
                2 => Opener::B,
                _ => Opener::Unknown,
            },
            a: end(0),
            b: end(1),
        })
    }
}

/// Why bytes are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapCause {
    /// The packet capture lacks the packet.
    Lost,
    /// The packet was cut by the snap length.
    Cut,
    /// The recorder could not keep up.
    Dropped,
    /// Left out on request.
    Skipped,
}

impl GapCause {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Cut => "cut",
            Self::Dropped => "dropped",
            Self::Skipped => "skipped",
        }
    }
}

/// The payload of a gap event, which begins at the head's position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Bytes that are missing.
    pub bytes: u64,
    /// Why.
    pub cause: GapCause,
}

impl Gap {
    /// The payload of its event.
    pub fn encode(&self) -> [u8; 16] {
        let mut out = [0; 16];
        out[..8].copy_from_slice(&self.bytes.to_le_bytes());
        out[8] = self.cause as u8;
        out
    }

    /// Reads the payload of a gap event.
    pub fn decode(payload: &[u8]) -> Option<Self> {
        let cause = match payload.get(8)? {
            0 => GapCause::Lost,
            1 => GapCause::Cut,
            2 => GapCause::Dropped,
            _ => GapCause::Skipped,
        };
        Some(Self { bytes: u64_at(payload, 0), cause })
    }
}

/// Why bytes that were seen are not part of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IgnoredReason {
    /// Their numbers lie behind the end of the direction.
    AfterFin,
    /// They came after the reset of the connection.
    AfterReset,
}

/// The payload of an ignored event: one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ignored {
    /// Bytes of the segment that were ignored.
    pub bytes: u64,
    /// Why.
    pub reason: IgnoredReason,
}

impl Ignored {
    /// The payload of its event.
    pub fn encode(&self) -> [u8; 16] {
        let mut out = [0; 16];
        out[..8].copy_from_slice(&self.bytes.to_le_bytes());
        out[8] = self.reason as u8;
        out
    }

    /// Reads the payload of an ignored event.
    pub fn decode(payload: &[u8]) -> Option<Self> {
        let reason = match payload.get(8)? {
            0 => IgnoredReason::AfterFin,
            _ => IgnoredReason::AfterReset,
        };
        Some(Self { bytes: u64_at(payload, 0), reason })
    }
}

/// The payload of a conflict event: how many bytes of a segment differ from those first seen at
/// their place. The head's position is the first of them.
pub fn conflict_payload(differing_bytes: u64) -> [u8; 8] {
    differing_bytes.to_le_bytes()
}

/// Reads the payload of a conflict event.
pub fn conflict_bytes(payload: &[u8]) -> u64 {
    u64_at(payload, 0)
}

/// Totals of a file, in its marks (of all before) and in its end block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Events.
    pub events: u64,
    /// Bytes of data events.
    pub data_bytes: u64,
    /// Connections opened in it, not those that are opened again after a rotation.
    pub connections: u64,
    /// Largest wall-clock time.
    pub wall_ns_max: i64,
    /// Largest monotonic time.
    pub mono_ns_max: u64,
}

impl Summary {
    /// Bytes of an encoded one.
    pub(super) const BYTES: usize = 24;

    pub(super) fn encode(&self) -> [u8; Self::BYTES] {
        let mut out = [0; Self::BYTES];
        out[..8].copy_from_slice(&self.events.to_le_bytes());
        out[8..16].copy_from_slice(&self.data_bytes.to_le_bytes());
        out[16..24].copy_from_slice(&self.connections.to_le_bytes());
        out
    }

    /// From the head and the payload of a mark or an end block.
    pub(super) fn decode(head: &Head, payload: &[u8]) -> Self {
        Self {
            events: u64_at(payload, 0),
            data_bytes: u64_at(payload, 8),
            connections: u64_at(payload, 16),
            wall_ns_max: head.wall_ns,
            mono_ns_max: head.mono_ns,
        }
    }

    /// The head of a block of structure after all that this is the summary of.
    pub(super) fn head(&self, kind: Kind, position: u64) -> Head {
        Head {
            position,
            lines: 0,
            mono_ns: self.mono_ns_max,
            wall_ns: self.wall_ns_max,
            connection: 0,
            direction: Direction::In,
            kind,
            flags: 0,
        }
    }

    /// Counts an event.
    pub(super) fn add(&mut self, head: &Head, length: usize) {
        self.wall_ns_max =
            if self.events == 0 { head.wall_ns } else { self.wall_ns_max.max(head.wall_ns) };
        self.mono_ns_max = self.mono_ns_max.max(head.mono_ns);
        self.events += 1;
        match head.kind {
            Kind::Data => self.data_bytes += length as u64,
            Kind::Open if head.flags & FLAG_REPEATED == 0 => self.connections += 1,
            _ => {}
        }
    }
}
