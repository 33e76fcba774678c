//! Ports for tests.

use socket2::{Domain, Socket, Type};
use std::net::SocketAddr;
use std::sync::Mutex;

/// A free TCP port, at which connections are refused. On Linux it is reserved until the process
/// ends: a listener that allows address reuse, as those of the engine do, can bind to it, and no
/// other program gets it.
pub fn free_port() -> u16 {
    static RESERVED: Mutex<Vec<Socket>> = Mutex::new(Vec::new());
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let port = socket.local_addr().unwrap().as_socket().unwrap().port();
    if cfg!(target_os = "linux") {
        RESERVED.lock().unwrap().push(socket);
    }
    port
}
