//! Records the datagrams that arrive at a port, including those of multicast groups.

use super::receive::{Receiver, Stamp, ask_for_times, is_not_now};
use super::recorder::{Recorder, TICK};
use crate::failure::Failure;
use millstream_engine::capture::{ConnectionInfo, Direction, Kind, Opener, Protocol};
use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, Socket, Type};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Maximum number of distinct senders. Beyond it, all are dropped and numbered anew.
const SENDERS_MAX: usize = 1 << 16;
/// Maximum number of datagrams between two checks of the limits.
const BURST_MAX: usize = 1024;

/// Records until the limit is reached.
pub(super) fn listen(
    at: SocketAddr,
    groups: &[IpAddr],
    begin: impl FnOnce() -> Result<Recorder, Failure>,
) -> Result<Recorder, Failure> {
    let mut socket = bind(at, groups).map_err(|error| {
        Failure::Failed(format!("LISTEN_FAILED: {at}: {error}. Take another port or group"))
    })?;
    let local = socket.local_addr()?;
    ask_for_times(&socket);
    let mut poll = Poll::new()?;
    poll.registry().register(&mut socket, Token(0), Interest::READABLE)?;
    let (mut recorder, mut receiver) = (begin()?, Receiver::new());
    let (mut buffer, mut events) = (vec![0; 1 << 16], Events::with_capacity(8));
    let mut senders: HashMap<SocketAddr, (u32, u64)> = HashMap::new();
    eprintln!("listening at {local}; Ctrl-C ends");
    while !recorder.is_over()? {
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
            let Some(from) = received.from else { continue };
            let (number, position) = match senders.get_mut(&from) {
                Some(sender) => sender,
                None => {
                    if senders.len() >= SENDERS_MAX {
                        senders.clear();
                    }
                    let info = ConnectionInfo {
                        protocol: Protocol::Udp,
                        opener: Opener::A,
                        a: Some(from),
                        b: Some(local),
                    };
                    let number = recorder.open(&info, received.at)?;
                    senders.entry(from).or_insert((number, 0))
                }
            };
            let data = &buffer[..received.bytes];
            let lane = (*number, Direction::In);
            recorder.event(Kind::Data, lane, *position, received.at, data)?;
            *position += data.len() as u64;
            count += 1;
            if count % BURST_MAX == 0 && recorder.is_over()? {
                break;
            }
        }
    }
    let now = Stamp::now();
    let mut open: Vec<u32> = senders.values().map(|(number, _)| *number).collect();
    open.sort_unstable();
    for number in open {
        recorder.event(Kind::Close, (number, Direction::In), 0, now, &[])?;
    }
    Ok(recorder)
}

fn bind(at: SocketAddr, groups: &[IpAddr]) -> std::io::Result<UdpSocket> {
    let is_v6 = at.is_ipv6() || groups.iter().any(IpAddr::is_ipv6);
    let socket = Socket::new(if is_v6 { Domain::IPV6 } else { Domain::IPV4 }, Type::DGRAM, None)?;
    if !groups.is_empty() {
        // Other programs on this machine may receive the group's datagrams too.
        socket.set_reuse_address(true)?;
    }
    // Buffer for a burst; the system may grant less.
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
