//! Records the datagrams that arrive at a port, including those of multicast groups.

use super::first_of;
use super::receive::{Received, Receiver, Stamp, ask_for_drops, ask_for_times, is_not_now};
use super::recorder::{Recorder, TICK};
use crate::failure::Failure;
use millstream_engine::capture::{ConnectionInfo, Direction, Gap, Kind, Opener, Protocol};
use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, Socket, Type};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;

/// Maximum number of distinct senders. Beyond it, all senders are dropped and numbered anew.
const SENDERS_MAX: usize = 1 << 16;
/// Maximum number of datagrams between two checks of the limits.
const BURST_MAX: usize = 1024;

/// Records until the limit is reached.
pub(super) fn listen(
    at: &[SocketAddr],
    groups: &[IpAddr],
    begin: impl FnOnce() -> Result<Recorder, Failure>,
) -> Result<Recorder, Failure> {
    let mut socket = first_of(at, |at| bind(at, groups)).map_err(|(at, error)| {
        Failure::Failed(format!("LISTEN_FAILED: {at}: {error}. Use another port or group"))
    })?;
    let local = socket.local_addr()?;
    ask_for_times(&socket);
    ask_for_drops(&socket);
    let mut poll = Poll::new()?;
    poll.registry().register(&mut socket, Token(0), Interest::READABLE)?;
    let mut datagrams = Datagrams::new(begin()?, local);
    let (mut receiver, mut buffer) = (Receiver::new(), vec![0; 1 << 16]);
    let mut events = Events::with_capacity(8);
    eprintln!("listening at {local}; Ctrl-C ends");
    while !datagrams.recorder.is_over()? {
        match poll.poll(&mut events, Some(TICK)) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            polled => polled?,
        }
        let mut count = 0;
        loop {
            let received = match receiver.receive(&socket, &mut buffer) {
                Ok(received) => received,
                Err(error) if is_not_now(&error) => break,
                Err(error) => {
                    return Err(Failure::Failed(format!("RECEIVE_FAILED: {local}: {error}")));
                }
            };
            datagrams.add(&received, &buffer[..received.bytes])?;
            count += 1;
            if count % BURST_MAX == 0 && datagrams.recorder.is_over()? {
                break;
            }
        }
    }
    datagrams.finish(&socket)
}

/// The recorded connection of a sender, and the position of its next datagram.
#[derive(Clone, Copy)]
struct Sender {
    connection: u32,
    position: u64,
}

/// The datagrams of a recording.
struct Datagrams {
    recorder: Recorder,
    local: SocketAddr,
    senders: HashMap<SocketAddr, Sender>,
    /// The sender of the last datagram.
    last: Option<Sender>,
    /// The kernel's count of dropped datagrams that was last recorded.
    dropped: u32,
}

impl Datagrams {
    fn new(recorder: Recorder, local: SocketAddr) -> Self {
        Self { recorder, local, senders: HashMap::new(), last: None, dropped: 0 }
    }

    fn add(&mut self, received: &Received, data: &[u8]) -> Result<(), Failure> {
        let Some(from) = received.from else { return Ok(()) };
        if self.senders.len() >= SENDERS_MAX && !self.senders.contains_key(&from) {
            self.senders.clear();
        }
        let known = match self.senders.entry(from) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let info = ConnectionInfo {
                    protocol: Protocol::Udp,
                    opener: Opener::A,
                    a: Some(from),
                    b: Some(self.local),
                };
                let connection = self.recorder.open(&info, received.at)?;
                new.insert(Sender { connection, position: 0 })
            }
        };
        let sender = *known;
        known.position += data.len() as u64;
        self.last = Some(*known);
        if let Some(dropped) = received.dropped {
            self.gap(sender, dropped, received.at)?;
        }
        let lane = (sender.connection, Direction::In);
        self.recorder.event(Kind::Data, lane, sender.position, received.at, data)
    }

    /// Records a gap for the datagrams that the kernel has dropped since the previous gap. Their
    /// senders are unknown, so the gap belongs to the sender of the datagram with which the kernel
    /// reported them, or at the end of the recording to that of the last datagram.
    fn gap(&mut self, sender: Sender, dropped: u32, at: Stamp) -> Result<(), Failure> {
        // The count is modulo 2^32.
        let missing = dropped.wrapping_sub(self.dropped);
        if missing == 0 {
            return Ok(());
        }
        self.dropped = dropped;
        self.recorder.dropped_datagrams += u64::from(missing);
        let (lane, payload) =
            ((sender.connection, Direction::In), Gap::of_datagrams(missing).encode());
        self.recorder.event(Kind::Gap, lane, sender.position, at, &payload)
    }

    fn finish(mut self, socket: &UdpSocket) -> Result<Recorder, Failure> {
        let now = Stamp::now();
        // No further datagram will report the drops since the last datagram, so the count is read
        // from the system.
        if let (Some(last), Some(dropped)) = (self.last, drops(socket)) {
            self.gap(last, dropped, now)?;
        }
        let mut open: Vec<u32> = self.senders.values().map(|sender| sender.connection).collect();
        open.sort_unstable();
        for connection in open {
            self.recorder.event(Kind::Close, (connection, Direction::In), 0, now, &[])?;
        }
        Ok(self.recorder)
    }
}

/// The number of datagrams that the kernel has dropped for a socket, modulo 2^32. `None` on systems
/// that do not report it, and if the socket is not in the kernel's tables.
fn drops(socket: &UdpSocket) -> Option<u32> {
    const INODE_COLUMN: usize = 9;
    let link = std::fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd())).ok()?;
    let inode = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_string();
    ["/proc/net/udp", "/proc/net/udp6"].iter().find_map(|table| {
        let text = std::fs::read_to_string(table).ok()?;
        let is_ours = |line: &&str| line.split_whitespace().nth(INODE_COLUMN) == Some(&*inode);
        let count = text.lines().find(is_ours)?.split_whitespace().last()?;
        count.parse::<u64>().ok().map(|count| count as u32)
    })
}

fn bind(at: SocketAddr, groups: &[IpAddr]) -> std::io::Result<UdpSocket> {
    let is_v6 = at.is_ipv6() || groups.iter().any(IpAddr::is_ipv6);
    let socket = Socket::new(if is_v6 { Domain::IPV6 } else { Domain::IPV4 }, Type::DGRAM, None)?;
    if !groups.is_empty() {
        // Other programs on this machine may receive the group's datagrams too.
        socket.set_reuse_address(true)?;
    }
    // Requests a buffer that is large enough for a burst; the system may grant less.
    drop(socket.set_recv_buffer_size(8 << 20));
    let at = if is_v6 && at.is_ipv4() {
        SocketAddr::new(std::net::Ipv6Addr::UNSPECIFIED.into(), at.port())
    } else {
        at
    };
    socket.bind(&at.into())?;
    for group in groups {
        match group {
            IpAddr::V4(group) => socket.join_multicast_v4(group, &Ipv4Addr::UNSPECIFIED)?,
            IpAddr::V6(group) => socket.join_multicast_v6(group, 0)?,
        }
    }
    socket.set_nonblocking(true)?;
    Ok(UdpSocket::from_std(socket.into()))
}
