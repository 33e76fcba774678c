//! Listening sockets, and how the parts of a source share one.

use super::transport::Stream;
use millstream_engine::mio::event::Source;
use millstream_engine::mio::net::{TcpListener, UnixListener, UnixStream};
use millstream_engine::mio::{Interest, Registry, Token};
use millstream_engine::sync::waker::Waker;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

/// Requested maximum number of TCP clients that the kernel queues until they are accepted.
const BACKLOG: i32 = 4_096;
/// Number of file descriptors that a process needs in addition to those of its clients.
const OTHER_FILES: u64 = 64;

/// A listening socket that does not block.
pub enum Listener {
    /// A TCP listener.
    Tcp(TcpListener),
    /// A Unix socket with its file.
    Unix(UnixListener, Arc<SocketFile>),
}

impl Listener {
    pub(super) fn tcp(
        address: SocketAddr,
        receive_buffer: Option<usize>,
    ) -> io::Result<std::net::TcpListener> {
        let domain = socket2::Domain::for_address(address);
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
        // A restarted listener does not wait for its old connections to time out.
        socket.set_reuse_address(true)?;
        if let Some(bytes) = receive_buffer {
            // Accepted connections inherit the buffer size.
            socket.set_recv_buffer_size(bytes)?;
        }
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        Ok(socket.into())
    }

    /// Accepts the next client. Its name is used in notices.
    pub(super) fn accept(&self) -> io::Result<(Stream, String)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept()?;
                Ok((Stream::Tcp(stream), peer.to_string()))
            }
            Self::Unix(listener, file) => {
                let (stream, _) = listener.accept()?;
                Ok((Stream::Unix(stream), format!("a client of {}", file.path.display())))
            }
        }
    }
}

impl Source for Listener {
    fn register(&mut self, to: &Registry, token: Token, what: Interest) -> io::Result<()> {
        match self {
            Self::Tcp(listener) => listener.register(to, token, what),
            Self::Unix(listener, _) => listener.register(to, token, what),
        }
    }

    fn reregister(&mut self, to: &Registry, token: Token, what: Interest) -> io::Result<()> {
        match self {
            Self::Tcp(listener) => listener.reregister(to, token, what),
            Self::Unix(listener, _) => listener.reregister(to, token, what),
        }
    }

    fn deregister(&mut self, from: &Registry) -> io::Result<()> {
        match self {
            Self::Tcp(listener) => listener.deregister(from),
            Self::Unix(listener, _) => listener.deregister(from),
        }
    }
}

/// The file of a Unix socket. It is removed when the last listener is dropped, unless another
/// program has replaced it.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode, to detect that another program has replaced the file.
    identity: (u64, u64),
}

impl SocketFile {
    fn identity(path: &Path) -> io::Result<(u64, u64)> {
        let found = std::fs::symlink_metadata(path)?;
        Ok((found.dev(), found.ino()))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if Self::identity(&self.path).is_ok_and(|found| found == self.identity) {
            // If the file is not removed, the next start recognises it as stale.
            drop(std::fs::remove_file(&self.path));
        }
    }
}

/// Listens at a path. A stale socket file of a killed process is replaced. If any other file is
/// there, or if a process listens, the result is an error and the file is not changed.
pub(super) fn listen_at(
    path: &Path,
) -> io::Result<(std::os::unix::net::UnixListener, Arc<SocketFile>)> {
    use std::os::unix::net::UnixListener;
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            remove_stale(path)?;
            UnixListener::bind(path)?
        }
        other => other?,
    };
    listener.set_nonblocking(true)?;
    let identity = SocketFile::identity(path)?;
    Ok((listener, Arc::new(SocketFile { path: path.to_path_buf(), identity })))
}

fn remove_stale(path: &Path) -> io::Result<()> {
    let found = std::fs::symlink_metadata(path)?;
    if !found.file_type().is_socket() {
        let reason = "the existing file is not a socket";
        return Err(io::Error::new(ErrorKind::AlreadyExists, reason));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        // Another process may listen at the path.
        _ => return Err(ErrorKind::AddrInUse.into()),
    }
    if SocketFile::identity(path)? == (found.dev(), found.ino()) {
        std::fs::remove_file(path)?;
    }
    Ok(())
}

/// On Linux, raises the soft limit of open files to the hard limit if `clients` need it. Returns
/// the number of clients that fit if some do not; `None` if all do or the limit is not known.
pub(super) fn make_room_for(clients: usize) -> Option<u64> {
    let wanted = clients as u64 + OTHER_FILES;
    let limit = open_files(wanted)?;
    (limit < wanted).then(|| limit.saturating_sub(OTHER_FILES))
}

#[cfg(target_os = "linux")]
fn open_files(wanted: u64) -> Option<u64> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    if soft >= wanted || soft >= hard {
        return Some(soft);
    }
    Some(if setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() { hard } else { soft })
}

#[cfg(not(target_os = "linux"))]
fn open_files(_wanted: u64) -> Option<u64> {
    None
}

/// Whether a client cannot be accepted now but may be later.
pub(super) fn is_out_of_files(error: &io::Error) -> bool {
    const ENOMEM: i32 = 12;
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    const ENOBUFS: i32 = 105;
    matches!(error.raw_os_error(), Some(ENOMEM | ENFILE | EMFILE | ENOBUFS))
}

/// Whether an error of accepting concerns only that client, such as one that has left already.
pub(super) fn is_of_client(error: &io::Error) -> bool {
    const EPROTO: i32 = 71;
    let kinds = [
        ErrorKind::ConnectionAborted,
        ErrorKind::ConnectionReset,
        ErrorKind::Interrupted,
        ErrorKind::NetworkDown,
        ErrorKind::NetworkUnreachable,
        ErrorKind::HostUnreachable,
        ErrorKind::PermissionDenied,
    ];
    kinds.contains(&error.kind()) || error.raw_os_error() == Some(EPROTO)
}

/// The number of clients of each part.
#[derive(Debug, Default)]
struct ClientCounts {
    /// Open connections of each part.
    open: Vec<usize>,
    wakers: Vec<Option<Waker>>,
    accepted: u64,
}

/// State shared by the parts of a listening source. The part with the fewest clients accepts the
/// next one.
#[derive(Clone, Debug, Default)]
pub struct AcceptTurns(Arc<Mutex<ClientCounts>>);

impl AcceptTurns {
    fn crowd(&self) -> MutexGuard<'_, ClientCounts> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Adds a part. Returns its number.
    pub(super) fn join(&self) -> usize {
        let mut crowd = self.crowd();
        crowd.open.push(0);
        crowd.wakers.push(None);
        crowd.open.len() - 1
    }

    pub(super) fn set_waker(&self, part: usize, waker: Waker) {
        self.crowd().wakers[part] = Some(waker);
    }

    /// Whether this part should accept the next client. Otherwise the part that should is woken.
    pub(super) fn is_turn(&self, part: usize) -> bool {
        let crowd = self.crowd();
        let fewest = crowd.open.iter().copied().min().unwrap_or(0);
        if crowd.open[part] == fewest {
            return true;
        }
        let other = crowd.open.iter().position(|open| *open == fewest);
        if let Some(waker) = other.and_then(|other| crowd.wakers[other].as_ref()) {
            waker.wake();
        }
        false
    }

    /// Whether the limit of `most` clients is reached.
    pub(super) fn is_full(&self, most: usize) -> bool {
        self.crowd().open.iter().sum::<usize>() >= most
    }

    /// Counts a client, unless there are `most` already. Returns whether it was counted.
    pub(super) fn try_admit(&self, part: usize, most: usize) -> bool {
        let mut crowd = self.crowd();
        let admitted = crowd.open.iter().sum::<usize>() < most;
        if admitted {
            crowd.open[part] += 1;
            crowd.accepted += 1;
        }
        admitted
    }

    /// Removes a client. If there are several parts, wakes them: they must check whether it was the
    /// last client, and which of them accepts the next one.
    pub(super) fn leave(&self, part: usize) {
        let mut crowd = self.crowd();
        crowd.open[part] -= 1;
        if crowd.open.len() > 1 {
            crowd.wakers.iter().flatten().for_each(Waker::wake);
        }
    }

    /// Whether all clients have left, and there has been at least one.
    pub(super) fn all_left(&self) -> bool {
        let crowd = self.crowd();
        crowd.accepted > 0 && crowd.open.iter().all(|open| *open == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    fn path(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("ms-{name}-{}.sock", std::process::id()));
        drop(std::fs::remove_file(&path));
        path
    }

    #[test]
    fn a_stale_socket_file_is_replaced_and_removed_at_the_end() {
        let path = path("stale");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "the file outlives its listener");
        let (listener, file) = listen_at(&path).unwrap();
        let taken = listen_at(&path).err().unwrap();
        assert_eq!(taken.kind(), ErrorKind::AddrInUse);
        drop((listener, file));
        assert!(!path.exists());
    }

    #[test]
    fn a_file_that_is_not_a_stale_socket_is_not_removed() {
        let path = path("foreign");
        std::fs::write(&path, "precious").unwrap();
        assert_eq!(listen_at(&path).err().unwrap().kind(), ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
        std::fs::remove_file(&path).unwrap();
        let (listener, file) = listen_at(&path).unwrap();
        // Another program has replaced the file.
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "another").unwrap();
        drop((listener, file));
        assert!(path.exists());
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn the_partition_with_the_fewest_clients_accepts_the_next() {
        let parts = AcceptTurns::default();
        let [a, b] = [parts.join(), parts.join()];
        assert!(parts.is_turn(a) && parts.try_admit(a, 2));
        assert!(!parts.is_turn(a) && parts.is_turn(b));
        assert!(parts.try_admit(b, 2) && !parts.try_admit(a, 2));
        parts.leave(a);
        assert!(parts.is_turn(a) && !parts.all_left());
        parts.leave(b);
        assert!(parts.all_left());
    }
}
