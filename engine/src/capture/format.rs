//! The byte layout of a capture file: the header, the blocks, and the payloads of most kinds of
//! blocks.
//!
//! ```text
//! file:   | file header, 64 bytes | block | block | … |
//! block:  | length u32 | crc32 u32 | position u64 | lines u64 | mono_ns u64 | wall_ns i64 |
//!         | connection u32 | direction u8 | kind u8 | flags u16 | payload | zeros to 8 bytes |
//! ```
//! All integers are little endian. `length` is the payload's length plus one; 0 means that nothing
//! was written. The CRC covers the payload's length and the bytes after the CRC field, without the
//! padding.
//! Version 1 has a header of 8 bytes and stores microseconds where version 2 stores `wall_ns`.

use crate::checkpoint::log_entry::Fault;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The first bytes of a version 2 file.
pub(super) const MAGIC: &[u8; 8] = b"MSCAPT02";
/// The first bytes of a version 1 file.
const MAGIC_V1: &[u8; 8] = b"MSCAPT01";
/// Size of the file header, in bytes.
pub(super) const FILE_HEADER_BYTES: usize = 64;
/// Size of a block's head, in bytes.
pub(super) const HEAD_BYTES: usize = 48;
/// Maximum payload of a block, in bytes. A longer length field means that the file is damaged.
pub const MAX_PAYLOAD: usize = 4 << 20;
/// Maximum payload of an event of a [`super::CaptureWriter`], in bytes. Longer data is split.
pub const MAX_EVENT_BYTES: usize = 64 << 10;
/// Distance between the marks of an uncompressed file, in bytes.
pub const STRIDE_BYTES: u64 = 1 << 20;

/// The kind of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Bytes of a stream, or a datagram.
    Data = 0,
    /// A connection begins. The payload is a [`ConnectionInfo`], or empty.
    Open = 1,
    /// A connection has ended.
    Close = 2,
    /// The sender of this direction has closed it.
    HalfClose = 3,
    /// The sender of this direction has reset the connection.
    Reset = 4,
    /// Bytes of the stream that are missing from the file. The payload is a [`Gap`].
    Gap = 5,
    /// A retransmission with different bytes. See [`conflict_payload`].
    Conflict = 6,
    /// Bytes that were captured but do not belong to the stream. The payload is an [`Ignored`].
    Ignored = 7,
    /// A note for users and tools: a JSON object.
    Note = 8,
    /// Structure: a position that a search by time can jump to.
    Mark = 16,
    /// Structure: compressed blocks.
    Compressed = 18,
    /// Structure: a part of the index.
    Index = 19,
    /// Structure: the end of a file that was closed properly.
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

    /// Whether the block is an event rather than part of the file's structure.
    pub fn is_event(self) -> bool {
        (self as u8) < Self::Mark as u8
    }
}

/// The direction of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Direction {
    /// Towards the recorded service: from end `a` to end `b`.
    In = 0,
    /// From the recorded service: from end `b` to end `a`.
    Out = 1,
}

/// The next event of this connection and direction continues the same write or datagram.
pub const FLAG_MORE: u16 = 1;
/// Flag of a datagram that was not captured completely. The gap event for its rest follows and has
/// the flag too.
pub const FLAG_CUT: u16 = 2;
/// Flag of an open event: the connection began before the recording.
pub const FLAG_MIDSTREAM: u16 = 4;
/// Flag of an open event: the connection was opened in an earlier file of the recording.
pub const FLAG_REPEATED: u16 = 8;

/// The head of a block: everything except the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Of an event: offset of the payload's first byte in the stream of its connection and
    /// direction. In the log of a durable source: its offset in everything that the source has
    /// received.
    pub position: u64,
    /// In the log of a durable source: the number of complete lines before the payload. Otherwise
    /// 0.
    pub lines: u64,
    /// Monotonic time, in nanoseconds. It never decreases within a file.
    pub mono_ns: u64,
    /// Wall-clock time, in nanoseconds since 1970. It can decrease, for example if the clock was
    /// set back.
    pub wall_ns: i64,
    /// The connection's number in the recording.
    pub connection: u32,
    /// The direction of the bytes.
    pub direction: Direction,
    /// The kind of the block.
    pub kind: Kind,
    /// The `FLAG_…` bits of the block.
    pub flags: u16,
}

/// The clock that provided the times of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Clock {
    /// Unknown, as in files of version 1.
    #[default]
    Unknown = 0,
    /// Read by the recorder after the read of the socket.
    Read = 1,
    /// Taken by the kernel when the packet arrived.
    Kernel = 2,
    /// Copied from a packet capture.
    Packets = 3,
}

/// The header of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileHeader {
    /// The format version: 1 or 2.
    pub version: u8,
    /// The clock that provided the times.
    pub clock: Clock,
    /// Whether events are in compressed blocks.
    pub compressed: bool,
    /// Precision of the times, in nanoseconds; 0 if unknown.
    pub precision_ns: u32,
    /// Wall-clock time at the start of the recording or, after a rotation, of this file, in
    /// nanoseconds since 1970.
    pub start_wall_ns: i64,
    /// Monotonic time at the same moment, in nanoseconds.
    pub start_mono_ns: u64,
    /// The recording's id, shared by all its files.
    pub recording: u64,
    /// Number of this file in its recording, from 0.
    pub file: u32,
    /// Distance between the marks, in bytes; 0 if marks are not at fixed offsets.
    pub stride_bytes: u32,
}

impl FileHeader {
    /// Size of the header of a file of this version, in bytes.
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

    /// Decodes a header. A header of version 1 has only its magic, so its fields are 0. The error
    /// describes the damage, or says that the version or the stride is not supported.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Fault> {
        if bytes.starts_with(MAGIC_V1) {
            return Ok(Self { version: 1, ..Self::default() });
        }
        if !bytes.starts_with(&MAGIC[..6]) {
            return Err(Fault::Damaged("it does not start with the magic bytes of a capture"));
        }
        let header = bytes.get(..FILE_HEADER_BYTES).ok_or("its header is truncated")?;
        if u32_at(header, 12) != header_crc(header) {
            return Err(Fault::Damaged("its header does not match its CRC"));
        }
        if !bytes.starts_with(MAGIC) {
            return Err(Fault::OtherVersion);
        }
        let stride_bytes = u32_at(header, 52);
        if stride_bytes != 0 && u64::from(stride_bytes) != STRIDE_BYTES {
            return Err(Fault::OtherVersion);
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

/// Writes the head of a block into the first [`HEAD_BYTES`] of `out`, except the length field. The
/// CRC covers the payload of `length` bytes, so the payload must already follow the head in `out`.
pub(super) fn encode(head: &Head, length: usize, out: &mut [u8]) {
    encode_fields(head, out);
    seal(length, out);
}

fn encode_fields(head: &Head, out: &mut [u8]) {
    out[8..16].copy_from_slice(&head.position.to_le_bytes());
    out[16..24].copy_from_slice(&head.lines.to_le_bytes());
    out[24..32].copy_from_slice(&head.mono_ns.to_le_bytes());
    out[32..40].copy_from_slice(&head.wall_ns.to_le_bytes());
    out[40..44].copy_from_slice(&head.connection.to_le_bytes());
    out[44] = head.direction as u8;
    out[45] = head.kind as u8;
    out[46..48].copy_from_slice(&head.flags.to_le_bytes());
}

/// Writes the CRC of a block with a payload of `length` bytes.
pub(super) fn seal(length: usize, block: &mut [u8]) {
    let crc = block_crc(length, &block[..HEAD_BYTES + length]);
    block[4..8].copy_from_slice(&crc.to_le_bytes());
}

/// Appends a block without its CRC.
pub(super) fn push_unsealed(head: &Head, payload: &[u8], out: &mut Vec<u8>) {
    let mut fields = [0; HEAD_BYTES];
    fields[..4].copy_from_slice(&(payload.len() as u32 + 1).to_le_bytes());
    encode_fields(head, &mut fields);
    let start = out.len();
    out.extend_from_slice(&fields);
    out.extend_from_slice(payload);
    out.resize(start + block_bytes(payload.len()), 0);
}

/// Appends a whole block.
pub(super) fn push_block(head: &Head, payload: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    push_unsealed(head, payload, out);
    seal(payload.len(), &mut out[start..]);
}

/// Size of a block with a payload of this length, in bytes.
pub(super) fn block_bytes(length: usize) -> usize {
    (HEAD_BYTES + length).next_multiple_of(8)
}

/// The last 8 bytes of a properly closed file. They follow the offset of its end block.
pub(super) const TRAILER_MAGIC: &[u8; 8] = b"MSCAPEND";
/// Size of the trailer, in bytes.
pub(super) const TRAILER_BYTES: usize = 16;

/// Why no block can be decoded at an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoBlock {
    /// The bytes end within the block.
    Short {
        /// The number of bytes that are needed to decide.
        need: usize,
    },
    /// The length field is 0: nothing was written here.
    Empty,
    /// The bytes are not a valid block.
    Damaged,
}

/// Decodes the head of the block at the start of `bytes`. Returns it with the payload's length.
/// Fails with `Empty` if no block was written there, with `Short` if `bytes` ends within the block,
/// and with `Damaged` if the length, the kind, the direction or the CRC is wrong.
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
    // Cheap checks first, so that a scan of damaged bytes computes few CRCs.
    let head = decode_head(block, version).ok_or(NoBlock::Damaged)?;
    match block_crc(length, block) == u32_at(block, 4) {
        true => Ok((head, length)),
        false => Err(NoBlock::Damaged),
    }
}

/// Decodes the head of a block without checking its CRC; `None` if its kind or direction is
/// unknown.
pub(super) fn decode_head(block: &[u8], version: u8) -> Option<Head> {
    let block: &[u8; HEAD_BYTES] = block.first_chunk()?;
    let direction = match block[44] {
        0 => Direction::In,
        1 => Direction::Out,
        _ => return None,
    };
    let wall = u64_at(block, 32) as i64;
    Some(Head {
        position: u64_at(block, 8),
        lines: u64_at(block, 16),
        mono_ns: u64_at(block, 24),
        wall_ns: if version == 1 { wall.saturating_mul(1000) } else { wall },
        connection: u32_at(block, 40),
        direction,
        kind: Kind::from_byte(block[45])?,
        flags: u16::from_le_bytes([block[46], block[47]]),
    })
}

/// The transport protocol of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// The protocol is unknown.
    #[default]
    Unknown,
    /// A byte stream.
    Tcp,
    /// Datagrams. Those between the same two endpoints are a connection.
    Udp,
}

/// The endpoint that opened a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Opener {
    /// Unknown, for example because the recording began later.
    #[default]
    Unknown,
    /// End `a`, the peer.
    A,
    /// End `b`, the recorded service.
    B,
}

/// An IP address and a port; `None` if unknown, or if the socket is not an IP socket.
pub type Endpoint = Option<SocketAddr>;

/// The payload of an open event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionInfo {
    /// The transport protocol.
    pub protocol: Protocol,
    /// The endpoint that opened the connection.
    pub opener: Opener,
    /// Endpoint `a`, the peer: the client of an imported or proxied connection.
    pub a: Endpoint,
    /// Endpoint `b`, the recorded service.
    pub b: Endpoint,
}

impl ConnectionInfo {
    /// Encoded size, in bytes.
    pub const BYTES: usize = 40;

    /// Encodes the payload of an open event.
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

    /// Decodes the payload of an open event; `None` if it is too short.
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

/// The reason why bytes are missing from a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapCause {
    /// The packet capture lacks the packet.
    Lost,
    /// The packet was truncated at the snap length.
    Cut,
    /// The recorder was too slow.
    Dropped,
    /// The user excluded the bytes.
    Skipped,
}

impl GapCause {
    /// The name of the cause in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Cut => "cut",
            Self::Dropped => "dropped",
            Self::Skipped => "skipped",
        }
    }
}

/// The payload of a gap event. The gap begins at the head's position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The number of missing bytes; 0 if it is unknown.
    pub bytes: u64,
    /// The reason why the bytes are missing.
    pub cause: GapCause,
    /// The number of datagrams that the kernel dropped. Their sizes and senders are unknown.
    pub datagrams: u32,
}

impl Gap {
    /// A gap of bytes in a stream or in one datagram.
    pub fn of_bytes(bytes: u64, cause: GapCause) -> Self {
        Self { bytes, cause, datagrams: 0 }
    }

    /// A gap of datagrams that the kernel dropped before the recorder could read them.
    pub fn of_datagrams(datagrams: u32) -> Self {
        Self { bytes: 0, cause: GapCause::Dropped, datagrams }
    }

    /// Encodes the payload of a gap event.
    pub fn encode(&self) -> [u8; 16] {
        let mut out = [0; 16];
        out[..8].copy_from_slice(&self.bytes.to_le_bytes());
        out[8] = self.cause as u8;
        out[12..].copy_from_slice(&self.datagrams.to_le_bytes());
        out
    }

    /// Decodes the payload of a gap event; `None` if it is too short. Unknown causes count as
    /// `Skipped`, and a payload without a number of datagrams has none.
    pub fn decode(payload: &[u8]) -> Option<Self> {
        let cause = match payload.get(8)? {
            0 => GapCause::Lost,
            1 => GapCause::Cut,
            2 => GapCause::Dropped,
            _ => GapCause::Skipped,
        };
        let datagrams = if payload.len() >= 16 { u32_at(payload, 12) } else { 0 };
        Some(Self { bytes: u64_at(payload, 0), cause, datagrams })
    }
}

/// Why captured bytes do not belong to the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IgnoredReason {
    /// The sequence numbers of the bytes lie after the end of the direction (FIN).
    AfterFin,
    /// The bytes were captured after the reset of the connection.
    AfterReset,
}

/// The payload of an ignored event, which describes one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ignored {
    /// The number of ignored bytes of the segment.
    pub bytes: u64,
    /// The reason why the bytes are ignored.
    pub reason: IgnoredReason,
}

impl Ignored {
    /// Encodes the payload of an ignored event.
    pub fn encode(&self) -> [u8; 16] {
        let mut out = [0; 16];
        out[..8].copy_from_slice(&self.bytes.to_le_bytes());
        out[8] = self.reason as u8;
        out
    }

    /// Decodes the payload of an ignored event; `None` if it is too short. Unknown reasons count as
    /// `AfterReset`.
    pub fn decode(payload: &[u8]) -> Option<Self> {
        let reason = match payload.get(8)? {
            0 => IgnoredReason::AfterFin,
            _ => IgnoredReason::AfterReset,
        };
        Some(Self { bytes: u64_at(payload, 0), reason })
    }
}

/// Encodes the payload of a conflict event: how many bytes of a retransmitted segment differ from
/// the bytes that were captured first. The head's position is the first such byte.
pub fn conflict_payload(differing_bytes: u64) -> [u8; 8] {
    differing_bytes.to_le_bytes()
}

/// Decodes the payload of a conflict event.
pub fn conflict_bytes(payload: &[u8]) -> u64 {
    u64_at(payload, 0)
}

/// Totals of a file. A mark stores the totals of everything before the mark. The end block stores
/// the totals of the whole file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// The number of events counted.
    pub events: u64,
    /// The number of bytes of data events.
    pub data_bytes: u64,
    /// The number of connections opened in the file. Connections that are opened again after a
    /// rotation are not counted.
    pub connections: u64,
    /// The largest wall-clock time, in nanoseconds since 1970.
    pub wall_ns_max: i64,
    /// The largest monotonic time, in nanoseconds.
    pub mono_ns_max: u64,
}

impl Summary {
    /// Encoded size, in bytes.
    pub(super) const BYTES: usize = 24;

    pub(super) fn encode(&self) -> [u8; Self::BYTES] {
        let mut out = [0; Self::BYTES];
        out[..8].copy_from_slice(&self.events.to_le_bytes());
        out[8..16].copy_from_slice(&self.data_bytes.to_le_bytes());
        out[16..24].copy_from_slice(&self.connections.to_le_bytes());
        out
    }

    /// Decodes the totals from the head and the payload of a mark or an end block.
    pub(super) fn decode(head: &Head, payload: &[u8]) -> Self {
        Self {
            events: u64_at(payload, 0),
            data_bytes: u64_at(payload, 8),
            connections: u64_at(payload, 16),
            wall_ns_max: head.wall_ns,
            mono_ns_max: head.mono_ns,
        }
    }

    /// The head of a mark or an end block that stores these totals.
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

    /// Adds an event to the totals. `length` counts only for data, and a repeated `Open`, at the
    /// start of a file, is not another connection.
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
