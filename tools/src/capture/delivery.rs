//! Resets of sockets. A reset discards the bytes that the peer's kernel has not acknowledged, so it
//! must wait for them if the recorded peer had received all of them.

use mio::net::TcpStream;
use socket2::SockRef;
use std::time::Duration;

#[cfg(target_os = "linux")]
nix::ioctl_read_bad!(unacknowledged_bytes, nix::libc::TIOCOUTQ, nix::libc::c_int);

/// Whether the peer's kernel has acknowledged each byte that was written, or never will because the
/// connection has failed.
#[cfg(target_os = "linux")]
pub(super) fn is_delivered(stream: &TcpStream) -> bool {
    use std::os::fd::AsRawFd;
    let mut bytes = 0;
    // SAFETY: the descriptor is open for as long as `stream` is borrowed, and TIOCOUTQ writes one
    // `c_int` to the pointer, which `bytes` is.
    let asked = unsafe { unacknowledged_bytes(stream.as_raw_fd(), &mut bytes) };
    asked.is_err() || bytes == 0 || stream.peer_addr().is_err()
}

/// Other systems do not say how many bytes are unacknowledged, so a reset can discard some.
#[cfg(not(target_os = "linux"))]
pub(super) fn is_delivered(_: &TcpStream) -> bool {
    true
}

/// Makes the socket reset its connection when it is closed.
pub(super) fn reset_on_close(stream: &TcpStream) {
    // If this fails, the connection is closed without a reset.
    drop(SockRef::from(stream).set_linger(Some(Duration::ZERO)));
}
