//! The packet records of a pcap file. [`super::ng`] reads those of pcapng.
//!
//! Supports both byte orders, microseconds and nanoseconds, and the longer record headers of Alexey
//! Kuznetsov's patch.

use super::Part;
use super::ng::Section;
use super::window::Window;
use std::io::Read;

/// Maximum size of a packet in a record, as in libpcap and Wireshark.
pub(super) const PACKET_BYTES_MAX: usize = 262_144;
/// Maximum size of a piece of a file that must be in memory at once.
const PIECE_BYTES_MAX: usize = 2 * PACKET_BYTES_MAX;

/// A packet record of a file.
pub(crate) struct Record<'p> {
    /// Nanoseconds since 1970; `None` if the record has no time.
    pub wall_ns: Option<i64>,
    /// Whether the time did not fit and was clamped.
    pub is_clamped: bool,
    /// Whether the captured length exceeds the packet's length.
    pub is_over: bool,
    /// The link type of the frame.
    pub link: u32,
    pub frame: Part<'p>,
}

/// The first damage of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileDamage {
    /// Offset in the file, after decompression.
    pub at: u64,
    pub what: String,
}

/// Reads the records of a file.
pub(crate) struct Records<R> {
    window: Window<R>,
    format: Format,
}

enum Format {
    Pcap(Pcap),
    Ng(Box<Section>),
}

#[derive(Clone, Copy)]
struct Pcap {
    is_big: bool,
    /// Nanoseconds per unit of the fraction.
    unit_ns: i64,
    record_header: usize,
    link: u32,
    fcs_bytes: usize,
}

impl<R: Read> Records<R> {
    /// Reads the file header.
    pub(crate) fn new(input: R) -> Result<Self, FileDamage> {
        let mut window = Window::new(input, PIECE_BYTES_MAX);
        let first: Vec<u8> = window.peek(24).to_vec();
        let error = window.take_error();
        let damage = |what: &str| Err(FileDamage { at: 0, what: what.to_string() });
        if let Some(error) = error {
            return damage(&format!("it cannot be read: {error}"));
        }
        if first.is_empty() {
            return damage("the file is empty");
        }
        let format = match Pcap::new(&first) {
            Some(pcap) if first.len() >= 24 => {
                window.consume(24);
                Format::Pcap(pcap)
            }
            Some(_) => return damage("the file ends within its header"),
            None if first.starts_with(&super::ng::SECTION_TYPE) => Format::Ng(Box::default()),
            None => return damage("it is neither pcap nor pcapng, plain or gzip"),
        };
        Ok(Self { window, format })
    }

    /// Number of consumed bytes.
    pub(crate) fn offset(&self) -> u64 {
        self.window.offset()
    }

    /// Precision of the times in nanoseconds. In pcapng it differs between interfaces, so it is 1
    /// there.
    pub(crate) fn precision_ns(&self) -> u32 {
        match &self.format {
            Format::Pcap(pcap) => pcap.unit_ns as u32,
            Format::Ng(_) => 1,
        }
    }

    /// Reads the next packet. `Ok(None)` at the end of the file.
    pub(crate) fn next_record(&mut self) -> Result<Option<Record<'_>>, FileDamage> {
        match &mut self.format {
            Format::Pcap(pcap) => pcap.next_record(&mut self.window),
            Format::Ng(section) => section.next_record(&mut self.window),
        }
    }
}

/// The error for damage at the current offset, or for a failed read.
pub(super) fn damage_here<R: Read>(window: &mut Window<R>, what: &str) -> FileDamage {
    let at = window.offset();
    match window.take_error() {
        Some(error) => FileDamage { at, what: format!("the input cannot be read: {error}") },
        None => FileDamage { at, what: what.to_string() },
    }
}

/// The result at the end of the input: the end of the file, or a failed read.
pub(super) fn end_or_damage<R: Read, T>(
    window: &mut Window<R>,
    is_end: bool,
    what: &str,
) -> Result<Option<T>, FileDamage> {
    match window.take_error() {
        None if is_end => Ok(None),
        None => Err(damage_here(window, what)),
        Some(error) => {
            let what = format!("the input cannot be read: {error}");
            Err(FileDamage { at: window.offset(), what })
        }
    }
}

impl Pcap {
    fn new(header: &[u8]) -> Option<Self> {
        let magic: [u8; 4] = header.get(..4)?.try_into().ok()?;
        let is_big = matches!(magic[0], 0xA1);
        let value = if is_big { u32::from_be_bytes(magic) } else { u32::from_le_bytes(magic) };
        let (unit_ns, record_header) = match value {
            0xA1B2_C3D4 => (1000, 16),
            0xA1B2_3C4D => (1, 16),
            0xA1B2_CD34 => (1000, 24),
            _ => return None,
        };
        let mut pcap = Self { is_big, unit_ns, record_header, link: 0, fcs_bytes: 0 };
        let link = pcap.word(header, 20);
        pcap.link = link & 0xFFFF;
        // If bit 26 is set, the upper four bits are the length of the checksum after each frame, in
        // 16-bit words.
        if link & 0x0400_0000 != 0 {
            pcap.fcs_bytes = (link >> 28) as usize * 2;
        }
        Some(pcap)
    }

    fn word(&self, bytes: &[u8], at: usize) -> u32 {
        let bytes = bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).unwrap_or([0; 4]);
        if self.is_big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
    }

    fn next_record<'w, R: Read>(
        &self,
        window: &'w mut Window<R>,
    ) -> Result<Option<Record<'w>>, FileDamage> {
        let header = window.peek(self.record_header);
        if header.len() < self.record_header {
            let is_end = header.is_empty();
            return end_or_damage(window, is_end, "the file ends within a record header");
        }
        let (seconds, fraction) = (self.word(header, 0), self.word(header, 4));
        let (captured, length) = (self.word(header, 8) as usize, self.word(header, 12) as usize);
        if captured > PACKET_BYTES_MAX {
            let what = format!("a record declares {captured} bytes");
            return Err(damage_here(window, &what));
        }
        let whole = self.record_header + captured;
        if window.peek(whole).len() < whole {
            return Err(damage_here(window, "the file ends within a record"));
        }
        window.consume(self.record_header);
        let wall_ns = i64::from(seconds) * 1_000_000_000 + i64::from(fraction) * self.unit_ns;
        let data = window.take(captured);
        Ok(Some(Record {
            wall_ns: Some(wall_ns),
            is_clamped: false,
            is_over: captured > length,
            link: self.link,
            frame: frame(data, length, self.fcs_bytes),
        }))
    }
}

/// Removes the checksum from a frame.
pub(super) fn frame(data: &[u8], length: usize, fcs_bytes: usize) -> Part<'_> {
    // More bytes than expected are kept, because the inner headers contain the packet's length.
    let length = length.max(data.len()).saturating_sub(fcs_bytes);
    Part { data: &data[..data.len().min(length)], length }
}
