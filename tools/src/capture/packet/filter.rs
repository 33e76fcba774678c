//! The filter of an import: which packets and events are imported.

use super::ip::Addresses;
use millstream_engine::capture::Direction;
use std::net::IpAddr;

/// What to import. An empty list does not filter.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    pub hosts: Vec<IpAddr>,
    pub ports: Vec<u16>,
    /// 6 for TCP, 17 for UDP.
    pub protocol: Option<u8>,
    pub direction: Option<Direction>,
    pub connections: Vec<u32>,
    /// Only events at or after this wall-clock time are imported, in nanoseconds.
    pub from_ns: Option<i64>,
    /// Only events before this wall-clock time are imported, in nanoseconds.
    pub to_ns: Option<i64>,
}

impl Filter {
    pub(super) fn takes_time(&self, wall_ns: i64) -> bool {
        self.from_ns.is_none_or(|from| wall_ns >= from) && self.to_ns.is_none_or(|to| wall_ns < to)
    }

    pub(super) fn takes_packet(&self, protocol: u8, at: &Addresses, ports: (u16, u16)) -> bool {
        self.protocol.is_none_or(|wanted| wanted == protocol)
            && (self.ports.is_empty()
                || self.ports.contains(&ports.0)
                || self.ports.contains(&ports.1))
            && (self.hosts.is_empty()
                || self.hosts.iter().any(|host| is(host, at.is_v6, &at.from))
                || self.hosts.iter().any(|host| is(host, at.is_v6, &at.to)))
    }

    pub(super) fn takes_event(&self, connection: u32, direction: Direction, is_data: bool) -> bool {
        (self.connections.is_empty() || self.connections.contains(&connection))
            && (!is_data || self.direction.is_none_or(|wanted| wanted == direction))
    }
}

fn is(host: &IpAddr, is_v6: bool, address: &[u8; 16]) -> bool {
    match host {
        IpAddr::V4(host) => !is_v6 && host.octets() == address[..4],
        IpAddr::V6(host) => is_v6 && host.octets() == *address,
    }
}
