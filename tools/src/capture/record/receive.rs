//! Reads from a socket, with the kernel's receive time if the system provides it.

use std::io;
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// A moment on both clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stamp {
    pub wall_ns: i64,
    pub mono_ns: u64,
}

impl Stamp {
    pub(super) fn now() -> Self {
        static START: OnceLock<Instant> = OnceLock::new();
        let start = *START.get_or_init(Instant::now);
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { wall_ns: wall.as_nanos() as i64, mono_ns: start.elapsed().as_nanos() as u64 }
    }

    /// The moment of a wall-clock time in the recent past.
    fn at(wall_ns: i64) -> Self {
        let now = Self::now();
        // The clock may have been set in between, so the difference is limited.
        let since = u64::try_from(now.wall_ns - wall_ns).unwrap_or(0).min(1_000_000_000);
        Self { wall_ns, mono_ns: now.mono_ns.saturating_sub(since) }
    }
}

/// The result of a read: the bytes, the sender of a datagram, and the receive time.
pub(super) struct Received {
    pub bytes: usize,
    pub from: Option<SocketAddr>,
    pub at: Stamp,
    /// Datagrams that the kernel had dropped for this socket when this one arrived, modulo 2^32.
    pub dropped: Option<u32>,
}

#[cfg(target_os = "linux")]
pub(super) use linux::{Receiver, ask_for_drops, ask_for_times};

#[cfg(target_os = "linux")]
mod linux {
    use super::{Received, Stamp};
    use nix::sys::socket::{
        ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt,
    };
    use std::io::{self, IoSliceMut};
    use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
    use std::os::fd::{AsFd, AsRawFd};

    /// Enables the kernel's receive times. If the system has none, the time of the read is used.
    pub(in super::super) fn ask_for_times(socket: &impl AsFd) {
        let _ = setsockopt(&socket.as_fd(), sockopt::ReceiveTimestampns, &true);
    }

    /// Asks the kernel to report with each datagram how many it has dropped.
    pub(in super::super) fn ask_for_drops(socket: &impl AsFd) {
        let _ = setsockopt(&socket.as_fd(), sockopt::RxqOvfl, &1);
    }

    /// Reads from sockets, with receive times.
    pub(in super::super) struct Receiver {
        control: Vec<u8>,
    }

    impl Receiver {
        pub(in super::super) fn new() -> Self {
            Self { control: nix::cmsg_space!(nix::sys::time::TimeSpec, [u8; 64]) }
        }

        pub(in super::super) fn receive(
            &mut self,
            socket: &impl AsRawFd,
            buffer: &mut [u8],
        ) -> io::Result<Received> {
            let mut slices = [IoSliceMut::new(buffer)];
            let (control, flags) = (Some(&mut self.control[..]), MsgFlags::empty());
            let message =
                recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut slices, control, flags)?;
            let (mut at, mut dropped) = (None, None);
            for control in message.cmsgs().into_iter().flatten() {
                match control {
                    ControlMessageOwned::ScmTimestampns(time) => {
                        at = Some(Stamp::at(time.tv_sec() * 1_000_000_000 + time.tv_nsec()));
                    }
                    ControlMessageOwned::RxqOvfl(count) => dropped = Some(count),
                    _ => {}
                }
            }
            let from = message.address.and_then(|address| {
                let v4 = address.as_sockaddr_in().map(|a| SocketAddr::V4(SocketAddrV4::from(*a)));
                let v6 = address.as_sockaddr_in6().map(|a| SocketAddr::V6(SocketAddrV6::from(*a)));
                v4.or(v6)
            });
            let at = at.unwrap_or_else(Stamp::now);
            Ok(Received { bytes: message.bytes, from, at, dropped })
        }
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) use other::{Receiver, ask_for_drops, ask_for_times};

#[cfg(not(target_os = "linux"))]
mod other {
    use super::{Received, Stamp};
    use socket2::SockRef;
    use std::io;
    use std::os::fd::AsFd;

    pub(in super::super) fn ask_for_times(_: &impl AsFd) {}

    pub(in super::super) fn ask_for_drops(_: &impl AsFd) {}

    pub(in super::super) struct Receiver;

    impl Receiver {
        pub(in super::super) fn new() -> Self {
            Self
        }

        pub(in super::super) fn receive(
            &mut self,
            socket: &impl AsFd,
            buffer: &mut [u8],
        ) -> io::Result<Received> {
            let mut space = vec![std::mem::MaybeUninit::uninit(); buffer.len()];
            let (bytes, from) = SockRef::from(socket).recv_from(&mut space)?;
            for (to, byte) in buffer.iter_mut().zip(&space[..bytes]) {
                // SAFETY: `recv_from` has written the first `bytes` bytes.
                *to = unsafe { byte.assume_init() };
            }
            let from = from.as_socket();
            Ok(Received { bytes, from, at: Stamp::now(), dropped: None })
        }
    }
}

/// Whether an error only means that the socket is not ready now.
pub(super) fn is_not_now(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
