//! IPv4 and IPv6: decodes a packet to its payload, or to a fragment.

use super::{Part, Skip, be16, be32};

/// A packet with this many extension headers is skipped.
const EXTENSIONS_MAX: usize = 16;

/// The two addresses of a packet, IPv4 in the first four bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Addresses {
    pub is_v6: bool,
    pub from: [u8; 16],
    pub to: [u8; 16],
}

/// The content of an IP packet.
#[derive(Clone, Copy, Debug)]
pub(super) enum Carried<'p> {
    /// The payload of a protocol.
    Payload { protocol: u8, part: Part<'p> },
    /// A fragment of a payload.
    Fragment(Fragment<'p>),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Fragment<'p> {
    pub id: u32,
    /// The protocol of the payload. For IPv6 it is the next header, and only that of the first
    /// fragment counts.
    pub protocol: u8,
    pub offset: usize,
    pub has_more: bool,
    pub part: Part<'p>,
}

/// Decodes the IP header of a packet, with its extension headers.
pub(super) fn decode(packet: Part<'_>) -> Result<(Addresses, Carried<'_>), Skip> {
    match packet.head(1)?[0] >> 4 {
        4 => v4(packet),
        6 => v6(packet),
        _ => Err(Skip::BadLength),
    }
}

fn v4(packet: Part<'_>) -> Result<(Addresses, Carried<'_>), Skip> {
    let header = packet.head(20)?;
    let header_bytes = usize::from(header[0] & 0xF) * 4;
    // Network cards with segmentation offload leave the length 0: then the packet ends with the
    // frame.
    let total = match usize::from(be16(header, 2)) {
        0 => packet.length,
        total => total,
    };
    if header_bytes < 20 || total < header_bytes || total > packet.length {
        return Err(Skip::BadLength);
    }
    packet.head(header_bytes)?;
    let mut addresses = Addresses::default();
    addresses.from[..4].copy_from_slice(&header[12..16]);
    addresses.to[..4].copy_from_slice(&header[16..20]);
    let (part, protocol) = (packet.first(total).after(header_bytes), header[9]);
    let fragment = be16(header, 6);
    let (offset, has_more) = (usize::from(fragment & 0x1FFF) * 8, fragment & 0x2000 != 0);
    if offset == 0 && !has_more {
        return Ok((addresses, Carried::Payload { protocol, part }));
    }
    let id = u32::from(be16(header, 4));
    checked(Fragment { id, protocol, offset, has_more, part })
        .map(|fragment| (addresses, Carried::Fragment(fragment)))
}

/// Rejects a fragment whose offset or length is impossible.
fn checked(fragment: Fragment<'_>) -> Result<Fragment<'_>, Skip> {
    let length = fragment.part.length;
    let is_odd = fragment.has_more && !length.is_multiple_of(8);
    if length == 0 || is_odd || fragment.offset + length > 65_535 {
        return Err(Skip::BadLength);
    }
    Ok(fragment)
}

fn v6(packet: Part<'_>) -> Result<(Addresses, Carried<'_>), Skip> {
    let header = packet.head(40)?;
    let total = match usize::from(be16(header, 4)) {
        // A length of 0 means that the payload is too long for the field, or that there is no
        // payload.
        0 => packet.length,
        bytes => bytes + 40,
    };
    if total > packet.length {
        return Err(Skip::BadLength);
    }
    let mut addresses = Addresses { is_v6: true, ..Addresses::default() };
    addresses.from.copy_from_slice(&header[8..24]);
    addresses.to.copy_from_slice(&header[24..40]);
    extensions(header[6], packet.first(total).after(40)).map(|carried| (addresses, carried))
}

/// Skips the extension headers of an IPv6 packet or of a reassembled payload. The result is the
/// payload, or a fragment at a fragment header. Packets with [`EXTENSIONS_MAX`] headers or more are
/// skipped.
pub(super) fn extensions(mut next: u8, mut part: Part<'_>) -> Result<Carried<'_>, Skip> {
    for _ in 0..EXTENSIONS_MAX {
        let bytes = match next {
            // These are the hop-by-hop, routing, destination, mobility, host identity and shim
            // headers.
            0 | 43 | 60 | 135 | 139 | 140 => (usize::from(part.head(2)?[1]) + 1) * 8,
            // The authentication header counts its length in units of four bytes.
            51 => (usize::from(part.head(2)?[1]) + 2) * 4,
            44 => {
                let header = part.head(8)?;
                let (protocol, place) = (header[0], be16(header, 2));
                let (offset, has_more) = (usize::from(place & !7), place & 1 != 0);
                let id = be32(header, 4);
                let part = part.after(8);
                if offset == 0 && !has_more {
                    return extensions_behind_atomic(protocol, part);
                }
                let fragment = Fragment { id, protocol, offset, has_more, part };
                return checked(fragment).map(Carried::Fragment);
            }
            protocol => return Ok(Carried::Payload { protocol, part }),
        };
        let header = part.head(bytes)?;
        next = header[0];
        part = part.after(bytes);
    }
    Err(Skip::IpProtocol)
}

/// Skips the extension headers after the fragment header of a packet that is not fragmented. A
/// second fragment header is an error.
fn extensions_behind_atomic(next: u8, part: Part<'_>) -> Result<Carried<'_>, Skip> {
    if next == 44 { Err(Skip::IpProtocol) } else { extensions(next, part) }
}
