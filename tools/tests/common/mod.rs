//! Parts that several tests of the command line share.

// Each test program uses some of them.
#![allow(dead_code)]

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A new folder that is removed at the end of a test.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Self {
        let name = format!("millstream-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        drop(std::fs::remove_dir_all(&path));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn path(&self, name: &str) -> String {
        self.file(name).to_str().unwrap().to_string()
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.file(name)).unwrap()
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.file(name), text).unwrap();
    }

    /// The command line, in this folder.
    pub fn millstream(&self, args: &[&str]) -> Command {
        let mut command = millstream();
        command.current_dir(&self.0).args(args);
        command
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

pub fn millstream() -> Command {
    Command::new(env!("CARGO_BIN_EXE_millstream"))
}

/// Sends a signal, such as `INT`, the signal of Ctrl-C.
pub fn signal(child: &Child, name: &str) {
    let (name, id) = (format!("-{name}"), child.id().to_string());
    assert!(Command::new("kill").args([name, id]).status().unwrap().success());
}

/// A running command that listens, and its address.
pub struct Listening {
    pub child: Child,
    pub at: SocketAddr,
}

impl Listening {
    pub fn start(args: &[&str]) -> Self {
        let mut command = millstream();
        command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
        let (mut child, mut line) = (command.spawn().unwrap(), String::new());
        BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
        let at = line.strip_prefix("listening at ").and_then(|rest| rest.split(';').next());
        Self { at: at.unwrap_or_else(|| panic!("{line}")).parse().unwrap(), child }
    }

    /// Ends the command as Ctrl-C does. Returns its output.
    pub fn stop(self) -> String {
        signal(&self.child, "INT");
        self.end()
    }

    /// Waits until the command ends by itself. Returns its output.
    pub fn end(self) -> String {
        let output = self.child.wait_with_output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    }
}

/// A free port that is reserved until the socket is dropped. The socket does not listen, so
/// connections are refused. On Linux a listener that allows address reuse, as those of the engine
/// do, can bind to the port too.
pub fn reserved_port() -> (socket2::Socket, u16) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let port = socket.local_addr().unwrap().as_socket().unwrap().port();
    (socket, port)
}

/// Waits for a condition that another process causes.
pub fn until(what: &str, mut is_met: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_met() {
        assert!(start.elapsed() < Duration::from_secs(120), "never came: {what}");
        std::thread::yield_now();
    }
}
