//! Link layers: finds the IP packet in a frame.

use super::{Part, Skip, be16, be32};

/// Maximum number of labels before the packet; of tags it is one less.
const TAGS_MAX: usize = 16;

/// Finds the IP packet in a frame of this link type.
pub(super) fn packet(link: u32, frame: Part<'_>) -> Result<Part<'_>, Skip> {
    match link {
        // The header of BSD loopback is the address family in the byte order of the capturing
        // machine.
        0 => family(frame, |bytes| {
            let family = u32::from_le_bytes(bytes);
            if family > 0xFFFF { family.swap_bytes() } else { family }
        }),
        // The header of OpenBSD loopback is the address family in network byte order.
        108 => family(frame, u32::from_be_bytes),
        1 => {
            let header = frame.head(14)?;
            ethertype(be16(header, 12), frame.after(14))
        }
        // The link type is raw IP. Some systems use 12 or 14 for it.
        12 | 14 | 101 | 228 | 229 => Ok(frame),
        // Linux cooked capture has an Ethernet type as the protocol if the hardware uses such
        // types.
        113 => {
            let header = frame.head(16)?;
            cooked(be16(header, 2), be16(header, 14), frame.after(16))
        }
        276 => {
            let header = frame.head(20)?;
            cooked(be16(header, 8), be16(header, 0), frame.after(20))
        }
        _ => Err(Skip::Linktype),
    }
}

fn family(frame: Part<'_>, number: impl Fn([u8; 4]) -> u32) -> Result<Part<'_>, Skip> {
    let header = frame.head(4)?;
    match number(header.try_into().unwrap_or_default()) {
        // The address family of IPv6 has a different number on each system.
        2 | 10 | 23 | 24 | 28 | 30 => Ok(frame.after(4)),
        _ => Err(Skip::Ethertype),
    }
}

fn cooked(hardware: u16, protocol: u16, rest: Part<'_>) -> Result<Part<'_>, Skip> {
    /// Hardware types whose protocol field is not an Ethernet type: Netlink and wireless monitors.
    const OTHER: [u16; 5] = [801, 802, 803, 824, 805];
    if protocol < 0x0600 || OTHER.contains(&hardware) {
        return Err(Skip::Ethertype);
    }
    ethertype(protocol, rest)
}

/// Finds the packet after an Ethernet type: through VLAN tags, PPPoE and MPLS.
fn ethertype(mut kind: u16, mut rest: Part<'_>) -> Result<Part<'_>, Skip> {
    for _ in 0..TAGS_MAX {
        match kind {
            0x0800 | 0x86DD => return Ok(rest),
            0x8100 | 0x88A8 | 0x9100 | 0x9200 | 0x9300 => {
                let tag = rest.head(4)?;
                kind = be16(tag, 2);
                rest = rest.after(4);
            }
            0x8864 => {
                let header = rest.head(8)?;
                let bytes = usize::from(be16(header, 4));
                if bytes < 2 || bytes + 6 > rest.length {
                    return Err(Skip::BadLength);
                }
                kind = match be16(header, 6) {
                    0x0021 => 0x0800,
                    0x0057 => 0x86DD,
                    _ => return Err(Skip::Ethertype),
                };
                rest = rest.first(bytes + 6).after(8);
            }
            0x8847 | 0x8848 => return labelled(rest),
            0x0806 => return Err(Skip::Arp),
            0..=0x05FF => return Err(Skip::Llc),
            _ => return Err(Skip::Ethertype),
        }
    }
    Err(Skip::Ethertype)
}

/// Finds the packet below a stack of MPLS labels. Only its first four bits tell its type: packets
/// that are not IPv4 or IPv6, and stacks of more than [`TAGS_MAX`] labels, are skipped.
fn labelled(mut rest: Part<'_>) -> Result<Part<'_>, Skip> {
    for _ in 0..TAGS_MAX {
        let label = be32(rest.head(4)?, 0);
        rest = rest.after(4);
        if label & 0x100 != 0 {
            return match rest.head(1)?[0] >> 4 {
                4 | 6 => Ok(rest),
                _ => Err(Skip::Ethertype),
            };
        }
    }
    Err(Skip::Ethertype)
}
