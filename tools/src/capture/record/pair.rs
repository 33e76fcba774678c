//! A recorded connection: one socket whose bytes are recorded, or two sockets of a proxy.

use super::receive::{Receiver, Stamp, is_not_now};
use super::recorder::Recorder;
use crate::capture::delivery::{is_delivered, reset_on_close};
use crate::failure::Failure;
use millstream_engine::capture::{Direction, Kind};
use mio::net::TcpStream;
use std::io::Write;
use std::net::Shutdown;
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
    /// The server cannot be reached: the next of its addresses must be tried, or the peer be reset.
    Refused,
    /// The connection has ended.
    End,
}

pub(super) struct Pair {
    number: u32,
    /// The peer's socket, and the server's socket of a proxy.
    sockets: [Option<TcpStream>; 2],
    /// The direction from the peer, and the direction from the server.
    lanes: [Lane; 2],
    /// Whether the connection to the server is established.
    is_connected: bool,
    /// The number of the server's addresses that have been tried.
    pub(super) attempts: usize,
    /// The side whose reset is passed on when the other side has the bytes before it, and the
    /// latest time for that.
    reset: Option<(usize, Instant)>,
}

impl Pair {
    pub(super) fn new(number: u32, peer: TcpStream, server: Option<TcpStream>) -> Self {
        let is_connected = server.is_none();
        let (sockets, lanes) = ([Some(peer), server], Default::default());
        Self { number, sockets, lanes, is_connected, attempts: 0, reset: None }
    }

    /// Waits for a connection to another address of the server.
    pub(super) fn try_server(&mut self, server: TcpStream) {
        self.sockets[1] = Some(server);
    }

    /// Resets the peer, because no address of the server can be reached.
    pub(super) fn refuse(&mut self, out: &mut Recorder) -> Result<Next, Failure> {
        self.reset(1, out)
    }

    pub(super) fn sockets(&mut self) -> impl Iterator<Item = (usize, &mut TcpStream)> {
        self.sockets.iter_mut().enumerate().filter_map(|(side, s)| Some((side, s.as_mut()?)))
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
        if let (false, Some(server)) = (self.is_connected, &self.sockets[1]) {
            if server.take_error().ok().flatten().is_some() {
                return Ok(Next::Refused);
            }
            if server.peer_addr().is_err() {
                return Ok(Next::Wait);
            }
            self.is_connected = true;
        }
        let mut next = Next::Wait;
        for side in [0, 1] {
            match self.pump_lane(side, receiver, buffer, out)? {
                Next::End => return Ok(Next::End),
                Next::Soon => return Ok(Next::Soon),
                Next::Again => next = Next::Again,
                Next::Wait | Next::Refused => {}
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
