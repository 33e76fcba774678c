//! UDP: each datagram is a record, or contains lines.

use crate::connect::socket::connection_counts::ConnectionCounts;
use crate::connect::socket::framing::line::LineEnds;
use crate::connect::socket::framing::{FrameBuffer, Framing};
use crate::connect::socket::recorder::Recorder;
use millstream_engine::mio::net::UdpSocket;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;

/// Larger than any datagram's payload, so that none is truncated.
const MAX_BYTES: usize = 64 * 1024;
/// Size of the length field before a record, in bytes.
const PREFIX: usize = 4;
/// The default of the receive buffer that is requested from the kernel, which may grant less.
const BUFFER_BYTES: usize = 4 << 20;

/// Binds a socket for datagrams.
pub(super) fn bind(
    address: SocketAddr,
    receive_buffer: Option<usize>,
) -> io::Result<std::net::UdpSocket> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::DGRAM, None)?;
    socket.set_recv_buffer_size(receive_buffer.unwrap_or(BUFFER_BYTES))?;
    socket.bind(&address.into())?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Sets the socket for which the counters read the kernel's drop count. Call this for one part of a
/// source only, because the counters of its parts are added up.
pub(super) fn count_drops(socket: &std::net::UdpSocket, counts: &ConnectionCounts) {
    let file = socket.try_clone().map(std::os::fd::OwnedFd::from).map(std::fs::File::from);
    if let Ok(found) = file.and_then(|file| file.metadata()) {
        counts.set_udp_inode(found.ino());
    }
}

/// Receives a datagram if there is one. Returns the number of staged bytes.
pub(super) fn receive(
    socket: &UdpSocket,
    staged: &mut FrameBuffer,
    framing: Framing,
    recorder: Option<&mut Recorder>,
) -> io::Result<usize> {
    let room = staged.room(PREFIX + MAX_BYTES + 1);
    let bytes = match framing {
        Framing::Sized => {
            let (length, _) = socket.recv_from(&mut room[PREFIX..PREFIX + MAX_BYTES])?;
            if let Some(recorder) = recorder {
                recorder.datagram(&room[PREFIX..PREFIX + length]);
            }
            let length = without_end(&room[PREFIX..PREFIX + length]);
            room[..PREFIX].copy_from_slice(&(length as u32).to_le_bytes());
            PREFIX + length
        }
        Framing::Lines(ends) => {
            let (length, _) = socket.recv_from(&mut room[..MAX_BYTES])?;
            if let Some(recorder) = recorder {
                recorder.datagram(&room[..length]);
            }
            with_end(room, length, ends)
        }
    };
    staged.add(bytes);
    Ok(bytes)
}

/// The length of a datagram without one trailing LF or CRLF. Many senders append one.
fn without_end(datagram: &[u8]) -> usize {
    let rest = datagram.strip_suffix(b"\n").unwrap_or(datagram);
    rest.strip_suffix(b"\r").filter(|_| rest.len() < datagram.len()).unwrap_or(rest).len()
}

/// Ends the last line of a datagram, so that the next datagram does not continue it.
fn with_end(room: &mut [u8], length: usize, ends: LineEnds) -> usize {
    ends.close(&mut room[..length]);
    match room[..length].last() {
        None => 0,
        Some(b'\n') => length,
        Some(_) => {
            room[length] = b'\n';
            length + 1
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_trailing_line_end_of_a_datagram_is_removed() {
        let cases: [(&[u8], usize); 7] = [
            (b"", 0),
            (b"a", 1),
            (b"a\n", 1),
            (b"a\r\n", 1),
            (b"a\r", 2),
            (b"a\n\n", 2),
            (b"\n", 0),
        ];
        for (datagram, length) in cases {
            assert_eq!(without_end(datagram), length, "{}", datagram.escape_ascii());
        }
    }

    #[test]
    fn an_unterminated_last_line_of_a_datagram_is_terminated() {
        let cases: [(&[u8], &[u8]); 5] = [
            (b"", b""),
            (b"a", b"a\n"),
            (b"a\nb", b"a\nb\n"),
            (b"a\r", b"a\n"),
            (b"a\r\n", b"a\r\n"),
        ];
        for (datagram, lines) in cases {
            let mut room = vec![0; datagram.len() + 1];
            room[..datagram.len()].copy_from_slice(datagram);
            let length = with_end(&mut room, datagram.len(), LineEnds::Any);
            assert_eq!(&room[..length], lines, "{}", datagram.escape_ascii());
        }
    }
}
