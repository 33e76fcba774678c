//! The packet records of a pcapng file: sections of both byte orders, interfaces with different
//! resolutions and offsets, and enhanced, simple and obsolete packet blocks. All other blocks are
//! skipped.

use super::records::{FileDamage, PACKET_BYTES_MAX, Record, damage_here, end_or_damage, frame};
use super::window::Window;
use std::io::Read;

/// The type of a section header block, which reads the same in both byte orders.
pub(super) const SECTION_TYPE: [u8; 4] = [0x0A, 0x0D, 0x0D, 0x0A];
/// Maximum size of a decoded block: a packet with its options.
const BLOCK_BYTES_MAX: usize = PACKET_BYTES_MAX + 65_536;
/// Maximum number of interfaces per section.
const INTERFACES_MAX: usize = 65_536;

/// The current section of the file.
#[derive(Default)]
pub(crate) struct Section {
    is_big: bool,
    interfaces: Vec<Interface>,
}

#[derive(Clone, Copy)]
struct Interface {
    link: u32,
    snap_bytes: usize,
    /// Seconds to add to every time.
    offset_s: i64,
    resolution: Resolution,
    fcs_bytes: usize,
}

/// The resolution of times.
#[derive(Clone, Copy)]
enum Resolution {
    /// 10^-n seconds.
    Decimal(u32),
    /// 2^-n seconds.
    Binary(u32),
}

impl Resolution {
    /// Converts to nanoseconds, rounded down.
    fn ns(self, units: u64) -> u128 {
        let scaled = u128::from(units) * 1_000_000_000;
        match self {
            Self::Binary(n) => scaled >> n,
            Self::Decimal(n) => 10u128.checked_pow(n).map_or(0, |unit| scaled / unit),
        }
    }
}

impl Interface {
    /// Nanoseconds since 1970, and whether the time did not fit.
    fn wall_ns(&self, units: u64) -> (i64, bool) {
        let ns = i128::try_from(self.resolution.ns(units)).unwrap_or(i128::MAX >> 1)
            + i128::from(self.offset_s) * 1_000_000_000;
        let clamped = ns.clamp(i128::from(i64::MIN), i128::from(i64::MAX));
        (clamped as i64, clamped != ns)
    }
}

impl Section {
    fn half(&self, bytes: &[u8], at: usize) -> u16 {
        let bytes = bytes.get(at..at + 2).and_then(|b| b.try_into().ok()).unwrap_or([0; 2]);
        if self.is_big { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) }
    }

    fn word(&self, bytes: &[u8], at: usize) -> u32 {
        let bytes = bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).unwrap_or([0; 4]);
        if self.is_big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    }

    pub(super) fn next_record<'w, R: Read>(
        &mut self,
        window: &'w mut Window<R>,
    ) -> Result<Option<Record<'w>>, FileDamage> {
        loop {
            let Some((kind, bytes)) = self.block_head(window)? else { return Ok(None) };
            let is_read =
                matches!(kind, BlockKind::Section | BlockKind::Interface) || kind.is_packet();
            if !is_read {
                self.pass_block(window, bytes)?;
                continue;
            }
            if bytes > BLOCK_BYTES_MAX {
                return Err(damage_here(window, "a block is longer than any packet"));
            }
            let block = window.peek(bytes);
            if block.len() < bytes {
                return Err(damage_here(window, "the file ends within a block"));
            }
            if self.word(block, bytes - 4) as usize != bytes {
                return Err(damage_here(window, "the two lengths of a block differ"));
            }
            let body = &block[8..bytes - 4];
            match kind {
                BlockKind::Section => {
                    if self.half(body, 4) != 1 {
                        let what = "the version of a section is unknown";
                        return Err(damage_here(window, what));
                    }
                    window.consume(bytes);
                }
                BlockKind::Interface => {
                    let interface = self.interface(body);
                    match interface {
                        Some(interface) if self.interfaces.len() < INTERFACES_MAX => {
                            self.interfaces.push(interface);
                        }
                        _ => return Err(damage_here(window, "an interface block is too short")),
                    }
                    window.consume(bytes);
                }
                _ => {
                    let Some(packet) = self.packet(kind, body) else {
                        return Err(damage_here(window, "a packet block contradicts itself"));
                    };
                    let block = window.take(bytes);
                    return Ok(Some(packet.record(&block[8..bytes - 4])));
                }
            }
        }
    }

    /// Reads the kind and the length of the next block. A section header sets the byte order.
    fn block_head<R: Read>(
        &mut self,
        window: &mut Window<R>,
    ) -> Result<Option<(BlockKind, usize)>, FileDamage> {
        let head = window.peek(12);
        if head.len() < 12 {
            let is_end = head.is_empty();
            return end_or_damage(window, is_end, "the file ends within a block header");
        }
        let is_section = head[..4] == SECTION_TYPE;
        if is_section {
            self.is_big = match head[8..12] {
                [0x1A, 0x2B, 0x3C, 0x4D] => true,
                [0x4D, 0x3C, 0x2B, 0x1A] => false,
                _ => return Err(damage_here(window, "a section header has no byte order")),
            };
            self.interfaces.clear();
        }
        let (kind, bytes) = (self.word(head, 0), self.word(head, 4) as usize);
        let least = if is_section { 28 } else { 12 };
        if bytes < least || !bytes.is_multiple_of(4) {
            return Err(damage_here(window, &format!("a block declares {bytes} bytes")));
        }
        let kind = match kind {
            _ if is_section => BlockKind::Section,
            1 => BlockKind::Interface,
            2 => BlockKind::ObsoletePacket,
            3 => BlockKind::SimplePacket,
            6 => BlockKind::EnhancedPacket,
            _ => BlockKind::Other,
        };
        Ok(Some((kind, bytes)))
    }

    /// Skips a block of any length, and checks that its two length fields agree.
    fn pass_block<R: Read>(&self, window: &mut Window<R>, bytes: usize) -> Result<(), FileDamage> {
        let at = window.offset();
        let cut = |window: &mut Window<R>| FileDamage {
            at,
            ..damage_here(window, "the file ends within a block")
        };
        if !window.pass(bytes as u64 - 4) {
            return Err(cut(window));
        }
        let last = window.peek(4);
        if last.len() < 4 {
            return Err(cut(window));
        }
        if self.word(last, 0) as usize != bytes {
            return Err(FileDamage { at, what: "the two lengths of a block differ".to_string() });
        }
        window.consume(4);
        Ok(())
    }

    fn interface(&self, body: &[u8]) -> Option<Interface> {
        let mut interface = Interface {
            link: u32::from(self.half(body, 0)),
            snap_bytes: self.word(body, 4) as usize,
            offset_s: 0,
            resolution: Resolution::Decimal(6),
            fcs_bytes: 0,
        };
        let mut options = body.get(8..)?;
        while options.len() >= 4 {
            let (code, bytes) = (self.half(options, 0), usize::from(self.half(options, 2)));
            let Some(value) = options.get(4..4 + bytes) else { break };
            match (code, value) {
                (0, _) => break,
                (9, [unit, ..]) => {
                    let n = u32::from(unit & 0x7F);
                    interface.resolution = if unit & 0x80 == 0 {
                        Resolution::Decimal(n)
                    } else {
                        Resolution::Binary(n)
                    };
                }
                (13, [bits_or_bytes, ..]) => {
                    // The specification counts in bits, but some writers count in bytes.
                    let value = usize::from(*bits_or_bytes);
                    interface.fcs_bytes = if value > 8 { value / 8 } else { value };
                }
                (14, value) if value.len() >= 8 => {
                    let value = value[..8].try_into().unwrap_or([0; 8]);
                    interface.offset_s = match self.is_big {
                        true => i64::from_be_bytes(value),
                        false => i64::from_le_bytes(value),
                    };
                }
                _ => {}
            }
            options = options.get(4 + bytes.next_multiple_of(4)..).unwrap_or(&[]);
        }
        Some(interface)
    }

    /// Decodes a packet block. `None` if it names an unknown interface, or claims more captured
    /// bytes than it has or than a packet may have.
    fn packet(&self, kind: BlockKind, body: &[u8]) -> Option<Packet> {
        let (id, header) = match kind {
            BlockKind::SimplePacket => (0, 4),
            BlockKind::ObsoletePacket => (usize::from(self.half(body, 0)), 20),
            _ => (self.word(body, 0) as usize, 20),
        };
        let interface = *self.interfaces.get(id)?;
        let room = body.len().checked_sub(header)?;
        if kind == BlockKind::SimplePacket {
            let length = self.word(body, 0) as usize;
            let snap = if interface.snap_bytes == 0 { usize::MAX } else { interface.snap_bytes };
            let captured = length.min(snap);
            let packet = Packet { interface, units: None, header, captured, length };
            return (captured <= room).then_some(packet);
        }
        let units = u64::from(self.word(body, 4)) << 32 | u64::from(self.word(body, 8));
        let (captured, length) = (self.word(body, 12) as usize, self.word(body, 16) as usize);
        let packet = Packet { interface, units: Some(units), header, captured, length };
        (captured <= room && captured <= PACKET_BYTES_MAX).then_some(packet)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum BlockKind {
    Section,
    Interface,
    EnhancedPacket,
    SimplePacket,
    ObsoletePacket,
    Other,
}

impl BlockKind {
    fn is_packet(self) -> bool {
        matches!(self, Self::EnhancedPacket | Self::SimplePacket | Self::ObsoletePacket)
    }
}

struct Packet {
    interface: Interface,
    units: Option<u64>,
    header: usize,
    captured: usize,
    length: usize,
}

impl Packet {
    fn record<'b>(&self, body: &'b [u8]) -> Record<'b> {
        let data = &body[self.header..self.header + self.captured];
        let time = self.units.map(|units| self.interface.wall_ns(units));
        Record {
            wall_ns: time.map(|(ns, _)| ns),
            is_clamped: time.is_some_and(|(_, clamped)| clamped),
            is_over: self.captured > self.length,
            link: self.interface.link,
            frame: frame(data, self.length, self.interface.fcs_bytes),
        }
    }
}
