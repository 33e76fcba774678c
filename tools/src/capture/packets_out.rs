//! Exports events as packets of a pcapng file. A TCP connection is re-created with synthetic
//! sequence numbers and acknowledgements, and with a handshake if the capture has its start, so
//! that other tools can follow its streams.
//!
//! The link type is raw IP, and times are in nanoseconds. A gap in a TCP stream advances the
//! sequence number. If an endpoint of a connection is unknown, both get documentation addresses
//! (192.0.2.0/24).

use millstream_engine::capture::{
    ConnectionInfo, Direction, FLAG_CUT, FLAG_MIDSTREAM, FLAG_REPEATED, Gap, Head, Kind, Opener,
    Protocol,
};
use std::collections::HashMap;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};

/// Maximum number of data bytes per packet.
const SEGMENT_MAX: usize = 65_000;
const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const PSH_ACK: u8 = 0x18;
const ACK: u8 = 0x10;

struct Connection {
    ends: [SocketAddr; 2],
    is_udp: bool,
    /// The next sequence number of each endpoint.
    next: [u32; 2],
}

pub(crate) struct PacketWriter {
    connections: HashMap<u32, Connection>,
    packet: Vec<u8>,
    /// The bytes of a datagram that is split into several events, or that waits for the length of
    /// its cut-off part.
    datagram: Vec<u8>,
}

impl PacketWriter {
    /// Writes the header of the file.
    pub(crate) fn begin(out: &mut dyn Write) -> io::Result<Self> {
        // Writes the section header: byte order, version 1.0, unknown length.
        let mut section = 0x1A2B_3C4Du32.to_le_bytes().to_vec();
        section.extend([1, 0, 0, 0]);
        section.extend([0xFF; 8]);
        block(0x0A0D_0D0A, &section, out)?;
        // Writes the interface: raw IP, no snap length, resolution (if_tsresol) 10^-9.
        block(1, &[101, 0, 0, 0, 0, 0, 0, 0, 9, 0, 1, 0, 9, 0, 0, 0, 0, 0, 0, 0], out)?;
        let (connections, packet) = (HashMap::new(), Vec::new());
        Ok(Self { connections, packet, datagram: Vec::new() })
    }

    pub(crate) fn event(
        &mut self,
        head: &Head,
        payload: &[u8],
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let from = usize::from(head.direction == Direction::Out);
        match head.kind {
            Kind::Open => self.open(head, payload, out),
            Kind::Close => {
                self.connections.remove(&head.connection);
                Ok(())
            }
            Kind::Data if self.connection(head.connection).is_udp => {
                self.datagram.extend_from_slice(payload);
                if head.flags & (millstream_engine::capture::FLAG_MORE | FLAG_CUT) != 0 {
                    return Ok(());
                }
                self.write_datagram(head, from, 0, out)
            }
            Kind::Gap => {
                let bytes = Gap::decode(payload).map_or(0, |gap| gap.bytes);
                let connection = self.connection(head.connection);
                if connection.is_udp {
                    // Datagrams that were dropped are in no packet.
                    let is_of_datagram = head.flags & FLAG_CUT != 0;
                    return match is_of_datagram {
                        true => self.write_datagram(head, from, bytes as usize, out),
                        false => Ok(()),
                    };
                }
                connection.next[from] = connection.next[from].wrapping_add(bytes as u32);
                // The peer acknowledges the missing bytes, so that Wireshark and `import-pcap` take
                // them as lost and read on.
                self.segment(head, 1 - from, ACK, &[], out)
            }
            Kind::Data => payload
                .chunks(SEGMENT_MAX)
                .try_for_each(|data| self.segment(head, from, PSH_ACK, data, out)),
            Kind::HalfClose => self.segment(head, from, FIN | ACK, &[], out),
            Kind::Reset => self.segment(head, from, RST | ACK, &[], out),
            _ => Ok(()),
        }
    }

    /// Whether an event of this open connection has been written.
    pub(crate) fn knows(&self, number: u32) -> bool {
        self.connections.contains_key(&number)
    }

    fn connection(&mut self, number: u32) -> &mut Connection {
        self.connections.entry(number).or_insert_with(|| Connection {
            ends: [
                SocketAddr::new([192, 0, 2, 1].into(), 1024 + (number % 60_000) as u16),
                SocketAddr::new([192, 0, 2, 2].into(), 9),
            ],
            is_udp: false,
            next: [1, 1],
        })
    }

    fn open(&mut self, head: &Head, payload: &[u8], out: &mut dyn Write) -> io::Result<()> {
        let info = ConnectionInfo::decode(payload).unwrap_or_default();
        let connection = self.connection(head.connection);
        if let (Some(a), Some(b)) = (info.a, info.b) {
            connection.ends = [a, b];
        }
        connection.is_udp = info.protocol == Protocol::Udp;
        // Each connection gets another initial sequence number, so that consecutive connections of
        // the same endpoints are distinguished.
        let first = head.connection.wrapping_mul(0x9E37_79B9) | 1;
        connection.next = [first, first.wrapping_add(0x4000_0000)];
        if connection.is_udp || head.flags & (FLAG_MIDSTREAM | FLAG_REPEATED) != 0 {
            return Ok(());
        }
        let from = usize::from(info.opener == Opener::B);
        self.segment(head, from, SYN, &[], out)?;
        self.segment(head, 1 - from, SYN | ACK, &[], out)?;
        self.segment(head, from, ACK, &[], out)
    }

    fn segment(
        &mut self,
        head: &Head,
        from: usize,
        flags: u8,
        data: &[u8],
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let connection = self.connection(head.connection);
        let (own, other) = (connection.next[from], connection.next[1 - from]);
        let counts = data.len() as u32 + u32::from(flags & (SYN | FIN) != 0);
        connection.next[from] = own.wrapping_add(counts);
        let ends = [connection.ends[from], connection.ends[1 - from]];
        let mut header = [0; 20];
        header[..2].copy_from_slice(&ends[0].port().to_be_bytes());
        header[2..4].copy_from_slice(&ends[1].port().to_be_bytes());
        header[4..8].copy_from_slice(&own.to_be_bytes());
        if flags & ACK != 0 {
            header[8..12].copy_from_slice(&other.to_be_bytes());
        }
        header[12] = 5 << 4;
        header[13] = flags;
        header[14..16].copy_from_slice(&u16::MAX.to_be_bytes());
        self.packet(head.wall_ns, ends, 6, &header, data, 0, out)
    }

    fn write_datagram(
        &mut self,
        head: &Head,
        from: usize,
        cut: usize,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let data = std::mem::take(&mut self.datagram);
        let connection = self.connection(head.connection);
        let ends = [connection.ends[from], connection.ends[1 - from]];
        let length = 8 + data.len() + cut.min(65_507usize.saturating_sub(data.len()));
        let mut header = [0; 8];
        header[..2].copy_from_slice(&ends[0].port().to_be_bytes());
        header[2..4].copy_from_slice(&ends[1].port().to_be_bytes());
        header[4..6].copy_from_slice(&(length as u16).to_be_bytes());
        self.packet(head.wall_ns, ends, 17, &header, &data, length - 8 - data.len(), out)?;
        self.datagram = data;
        self.datagram.clear();
        Ok(())
    }

    /// Writes an IP packet, of which the last `cut` bytes are not in the file.
    #[expect(clippy::too_many_arguments, reason = "the fields of a packet")]
    fn packet(
        &mut self,
        wall_ns: i64,
        ends: [SocketAddr; 2],
        protocol: u8,
        header: &[u8],
        data: &[u8],
        cut: usize,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let payload = header.len() + data.len() + cut;
        self.packet.clear();
        match (ends[0].ip(), ends[1].ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let mut ip = [0; 20];
                ip[0] = 0x45;
                ip[2..4].copy_from_slice(&((payload + 20) as u16).to_be_bytes());
                ip[6] = 0x40;
                (ip[8], ip[9]) = (64, protocol);
                ip[12..16].copy_from_slice(&from.octets());
                ip[16..20].copy_from_slice(&to.octets());
                let sum = checksum(&ip);
                ip[10..12].copy_from_slice(&sum.to_be_bytes());
                self.packet.extend_from_slice(&ip);
            }
            (from, to) => {
                let v6 = |ip: IpAddr| match ip {
                    IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
                    IpAddr::V6(ip) => ip.octets(),
                };
                let mut ip = [0; 40];
                ip[0] = 0x60;
                ip[4..6].copy_from_slice(&(payload as u16).to_be_bytes());
                (ip[6], ip[7]) = (protocol, 64);
                ip[8..24].copy_from_slice(&v6(from));
                ip[24..40].copy_from_slice(&v6(to));
                self.packet.extend_from_slice(&ip);
            }
        }
        self.packet.extend_from_slice(header);
        self.packet.extend_from_slice(data);
        let units = wall_ns as u64;
        let mut body = Vec::with_capacity(20 + self.packet.len() + 4);
        body.extend_from_slice(&0u32.to_le_bytes());
        body.extend_from_slice(&((units >> 32) as u32).to_le_bytes());
        body.extend_from_slice(&(units as u32).to_le_bytes());
        body.extend_from_slice(&(self.packet.len() as u32).to_le_bytes());
        body.extend_from_slice(&((self.packet.len() + cut) as u32).to_le_bytes());
        body.extend_from_slice(&self.packet);
        body.resize(body.len().next_multiple_of(4), 0);
        block(6, &body, out)
    }
}

fn block(kind: u32, body: &[u8], out: &mut dyn Write) -> io::Result<()> {
    let length = (body.len() as u32 + 12).to_le_bytes();
    out.write_all(&kind.to_le_bytes())?;
    out.write_all(&length)?;
    out.write_all(body)?;
    out.write_all(&length)
}

/// The checksum of an IPv4 header.
fn checksum(header: &[u8; 20]) -> u16 {
    let words = header.chunks_exact(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
    let sum: u32 = words.sum();
    let sum = (sum & 0xFFFF) + (sum >> 16);
    !((sum & 0xFFFF) + (sum >> 16)) as u16
}
