//! A recorded connection: one socket whose bytes are recorded, or two sockets of a proxy.

use super::receive::{Receiver, Stamp, is_not_now};
use super::recorder::Recorder;
use crate::capture::delivery::{is_delivered, reset_on_close};
use crate::failure::Failure;
use millstream_engine::capture::{ConnectionInfo, Direction, Endpoint, Kind};
use mio::net::TcpStream;
use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::{Duration, Instant};

/// Maximum number of consecutive reads from one direction.
const READS_MAX: usize = 16;
/// Maximum time that a reset waits until the receiver has the bytes before it.
const RESET_AFTER: Duration = Duration::from_secs(10);

/// One direction of a recorded connection.
#[derive(Default)]
struct Lane {
    /// Bytes that were read and not forwarded yet.
    pending: Vec<u8>,
    position: u64,
    /// Whether the sender has closed this direction.
    is_ended: bool,
    /// Whether the close was forwarded to the receiver.
    is_shut: bool,
    /// Whether writing to the sender has failed. The bytes that it had sent before can be read;
    /// then its end is a reset.
    is_broken: bool,
}

/// The next step of a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// The connection waits for its sockets.
    Wait,
    /// The connection can continue without waiting.
    Again,
    /// The connection must be looked at again soon, though no socket reports an event.
    Soon,
    /// The connection needs a server: the next of its addresses must be tried.
    Connect,
    /// The connection has ended.
    End,
}

pub(super) struct Pair {
    /// The connection, and the time at which the peer was accepted. The address of the server is
    /// known when it is connected.
    info: ConnectionInfo,
    accepted: Stamp,
    /// The number in the recording, once the open event is recorded.
    number: u32,
    /// The peer's socket, and the server's socket of a proxy.
    sockets: [Option<TcpStream>; 2],
    /// The direction from the peer, and the direction from the server.
    lanes: [Lane; 2],
    /// Whether the connection to the server is established.
    is_connected: bool,
    /// The number of the server's addresses that have been tried, and why the last one failed.
    attempts: usize,
    error: Option<io::Error>,
    /// A reset that is not forwarded yet: the side that has reset the connection, and the time at
    /// which the reset is forwarded at the latest. Before that the other side receives the bytes that
    /// were sent before the reset.
    reset: Option<(usize, Instant)>,
}

impl Pair {
    /// A connection that a proxy passes on to a server: see [`Next::Connect`].
    pub(super) fn proxied(info: ConnectionInfo, peer: TcpStream) -> Self {
        Self {
            info,
            accepted: Stamp::now(),
            number: 0,
            sockets: [Some(peer), None],
            lanes: Default::default(),
            is_connected: false,
            attempts: 0,
            error: None,
            reset: None,
        }
    }

    /// A connection that is only recorded.
    pub(super) fn recorded(
        info: ConnectionInfo,
        peer: TcpStream,
        out: &mut Recorder,
    ) -> Result<Self, Failure> {
        let mut pair = Self::proxied(info, peer);
        pair.open(info.b, out)?;
        Ok(pair)
    }

    /// Records that the connection was opened, with the address of its end `b`.
    fn open(&mut self, b: Endpoint, out: &mut Recorder) -> Result<(), Failure> {
        self.info.b = b;
        self.number = out.open(&self.info, self.accepted)?;
        self.is_connected = true;
        Ok(())
    }

    /// Begins to connect to the next address of the server for which that is possible. Returns the
    /// socket, or `None` if no address is left.
    pub(super) fn connect(&mut self, servers: &[SocketAddr]) -> Option<&mut TcpStream> {
        self.sockets[1] = None;
        while let Some(address) = servers.get(self.attempts) {
            self.attempts += 1;
            match TcpStream::connect(*address) {
                Ok(server) => return Some(self.sockets[1].insert(server)),
                Err(error) => self.error = Some(error),
            }
        }
        None
    }

    /// Resets the peer, because no address of the server can be reached. `last` is the last one.
    pub(super) fn refuse(&mut self, last: Endpoint, out: &mut Recorder) -> Result<Next, Failure> {
        if let (Some(address), Some(error)) = (last, &self.error) {
            let fix = "Start the server, or give another --to. The client was reset";
            eprintln!("CONNECT_FAILED: {address}: {error}. {fix}");
        }
        self.open(last, out)?;
        self.reset(1, out)
    }

    /// Reads, records and forwards as much as possible.
    pub(super) fn pump(
        &mut self,
        receiver: &mut Receiver,
        buffer: &mut [u8],
        out: &mut Recorder,
    ) -> Result<Next, Failure> {
        if let Some((side, latest)) = self.reset {
            return self.pass_reset_on(side, latest, out);
        }
        if !self.is_connected {
            let Some(server) = &self.sockets[1] else { return Ok(Next::Connect) };
            if let Some(error) = server.take_error().unwrap_or_else(Some) {
                self.error = Some(error);
                return Ok(Next::Connect);
            }
            let Ok(address) = server.peer_addr() else { return Ok(Next::Wait) };
            self.open(Some(address), out)?;
        }
        let mut next = Next::Wait;
        for side in [0, 1] {
            match self.pump_lane(side, receiver, buffer, out)? {
                Next::End => return Ok(Next::End),
                Next::Soon => return Ok(Next::Soon),
                Next::Again => next = Next::Again,
                Next::Wait | Next::Connect => {}
            }
        }
        let is_over = self
            .lanes
            .iter()
            .zip(&self.sockets)
            .all(|(lane, socket)| socket.is_none() || (lane.is_ended && lane.is_shut));
        if is_over {
            out.event(Kind::Close, (self.number, Direction::In), 0, Stamp::now(), &[])?;
            return Ok(Next::End);
        }
        Ok(next)
    }

    fn pump_lane(
        &mut self,
        side: usize,
        receiver: &mut Receiver,
        buffer: &mut [u8],
        out: &mut Recorder,
    ) -> Result<Next, Failure> {
        let name = (self.number, if side == 0 { Direction::In } else { Direction::Out });
        for _ in 0..READS_MAX {
            if self.lanes[1 - side].is_broken && !self.lanes[side].is_broken {
                return Ok(Next::Wait);
            }
            let Some(to_write) = self.pass_on(side) else {
                // The receiver has disconnected. What it had sent before is in its own lane, unless
                // that has ended: then nothing is left to read, and no read shows the reset.
                self.lanes[1 - side].is_broken = true;
                if self.lanes[1 - side].is_ended {
                    return self.reset(1 - side, out);
                }
                return Ok(Next::Again);
            };
            if to_write > 0 {
                return Ok(Next::Wait);
            }
            let lane = &mut self.lanes[side];
            let Some(socket) = self.sockets[side].as_ref().filter(|_| !lane.is_ended) else {
                return Ok(Next::Wait);
            };
            match receiver.receive(socket, buffer) {
                Ok(received) if received.bytes == 0 && lane.is_broken => {
                    return self.reset(side, out);
                }
                Ok(received) if received.bytes == 0 => {
                    lane.is_ended = true;
                    out.event(Kind::HalfClose, name, lane.position, Stamp::now(), &[])?;
                }
                Ok(received) => {
                    let data = &buffer[..received.bytes];
                    out.event(Kind::Data, name, lane.position, received.at, data)?;
                    lane.position += data.len() as u64;
                    if self.sockets[1 - side].is_some() {
                        lane.pending.extend_from_slice(data);
                    }
                }
                Err(error) if is_not_now(&error) => return Ok(Next::Wait),
                Err(_) => return self.reset(side, out),
            }
        }
        Ok(Next::Again)
    }

    /// Forwards the bytes that were read, and then the close. Returns the number of bytes that do
    /// not fit into the receiver's socket, or `None` if the receiver has disconnected.
    fn pass_on(&mut self, side: usize) -> Option<usize> {
        let is_broken = self.lanes[1 - side].is_broken;
        let lane = &mut self.lanes[side];
        if is_broken {
            lane.pending.clear();
            return Some(0);
        }
        let Some(socket) = self.sockets[1 - side].as_mut() else {
            lane.is_shut = lane.is_ended;
            return Some(0);
        };
        let mut written = 0;
        while written < lane.pending.len() {
            match socket.write(&lane.pending[written..]) {
                Ok(bytes) => written += bytes,
                Err(error) if is_not_now(&error) => break,
                Err(_) => return None,
            }
        }
        lane.pending.drain(..written);
        if lane.pending.is_empty() && lane.is_ended && !lane.is_shut {
            lane.is_shut = true;
            // The receiver may have closed the connection already.
            drop(socket.shutdown(Shutdown::Write));
        }
        Some(lane.pending.len())
    }

    /// Records a reset by one side, all bytes of which were read, and passes it on.
    fn reset(&mut self, side: usize, out: &mut Recorder) -> Result<Next, Failure> {
        let name = (self.number, if side == 0 { Direction::In } else { Direction::Out });
        out.event(Kind::Reset, name, self.lanes[side].position, Stamp::now(), &[])?;
        let latest = Instant::now() + RESET_AFTER;
        (self.sockets[side], self.reset) = (None, Some((side, latest)));
        self.pass_reset_on(side, latest, out)
    }

    /// Resets the other side when it has the bytes that were sent before the reset.
    fn pass_reset_on(
        &mut self,
        side: usize,
        latest: Instant,
        out: &mut Recorder,
    ) -> Result<Next, Failure> {
        let is_late = Instant::now() >= latest;
        // If the other side has disconnected too, nothing is left to write.
        let is_written = self.pass_on(side).is_none_or(|left| left == 0);
        if let Some(other) = &self.sockets[1 - side] {
            let has_all = is_written && is_delivered(other);
            if !(has_all || is_late) {
                return Ok(Next::Soon);
            }
            reset_on_close(other);
        }
        out.event(Kind::Close, (self.number, Direction::In), 0, Stamp::now(), &[])?;
        Ok(Next::End)
    }
}
