//! A schema registry on localhost for tests: an HTTP server with given answers, which records the
//! requests.

// Not every test that includes this module uses all of it.
#![allow(dead_code, reason = "see above")]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

/// What the server does with a request.
#[derive(Clone, Copy, PartialEq)]
pub enum Fault {
    /// Answers with a status.
    Status(u16),
    /// Answers with the status 200, a page instead of JSON, and a value of `Retry-After`.
    Page(&'static str),
    /// Closes the connection without an answer.
    Close,
    /// Keeps the connection and sends nothing.
    Silence,
}

#[derive(Default)]
struct State {
    answers: HashMap<String, (u16, String)>,
    /// Faults of the next requests. The last one stays if `is_down`.
    faults: Vec<Fault>,
    is_down: bool,
    requests: Vec<String>,
    authorizations: Vec<String>,
    silent: Vec<TcpStream>,
    is_over: bool,
}

pub struct FakeRegistry {
    pub address: String,
    shared: Arc<(Mutex<State>, Condvar)>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl FakeRegistry {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::<(Mutex<State>, Condvar)>::default();
        let served = shared.clone();
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if served.0.lock().unwrap().is_over {
                    return;
                }
                // A client that gives up closes its connection.
                drop(serve(stream.unwrap(), &served));
            }
        });
        Self { address, shared, thread: Some(thread) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.0.lock().unwrap()
    }

    /// Sets the answer to a path.
    pub fn answer(&self, path: &str, status: u16, body: impl Into<String>) {
        self.lock().answers.insert(path.to_string(), (status, body.into()));
    }

    /// Registers a schema of Avro under an id, as the latest one of a subject.
    pub fn register(&self, subject: &str, id: u32, schema: &str) {
        let json =
            serde_json::json!({ "subject": subject, "version": id, "id": id, "schema": schema });
        self.answer(&format!("/schemas/ids/{id}"), 200, json.to_string());
        self.answer(&format!("/subjects/{subject}/versions/latest"), 200, json.to_string());
    }

    /// The faults of the next requests.
    pub fn fail_next(&self, faults: &[Fault]) {
        self.lock().faults = faults.to_vec();
    }

    /// Every request fails from now on, or none.
    pub fn set_down(&self, fault: Option<Fault>) {
        let mut state = self.lock();
        state.is_down = fault.is_some();
        state.faults = fault.into_iter().collect();
    }

    /// The paths that were requested.
    pub fn requests(&self) -> Vec<String> {
        self.lock().requests.clone()
    }

    /// The values of the header `Authorization`.
    pub fn authorizations(&self) -> Vec<String> {
        self.lock().authorizations.clone()
    }

    /// Waits until this number of requests has arrived.
    pub fn wait_for_requests(&self, count: usize) {
        let state = self.lock();
        let is_waiting = |state: &mut State| state.requests.len() < count;
        let (state, timeout) =
            self.shared.1.wait_timeout_while(state, Duration::from_secs(60), is_waiting).unwrap();
        drop(state);
        assert!(!timeout.timed_out(), "fewer than {count} requests");
    }
}

impl Drop for FakeRegistry {
    fn drop(&mut self) {
        self.lock().is_over = true;
        drop(TcpStream::connect(self.address.trim_start_matches("http://")));
        drop(self.thread.take().map(std::thread::JoinHandle::join));
    }
}

/// Reads one request and answers it.
fn serve(mut stream: TcpStream, shared: &(Mutex<State>, Condvar)) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let Some(first) = lines.next().transpose()? else { return Ok(()) };
    let path = first.split(' ').nth(1).unwrap_or_default().to_string();
    let mut authorization = None;
    for line in lines {
        let line = line?;
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("authorization")
        {
            authorization = Some(value.trim().to_string());
        }
    }
    let mut state = shared.0.lock().unwrap();
    state.requests.push(path.clone());
    state.authorizations.extend(authorization);
    shared.1.notify_all();
    let fault = match (state.faults.first().copied(), state.is_down) {
        (Some(fault), true) => Some(fault),
        (Some(_), false) => Some(state.faults.remove(0)),
        (None, _) => None,
    };
    let mut retry_after = String::new();
    let (status, body) = match fault {
        Some(Fault::Close) => return Ok(()),
        Some(Fault::Silence) => {
            state.silent.push(stream);
            return Ok(());
        }
        Some(Fault::Status(status)) => (status, "{}".to_string()),
        Some(Fault::Page(wait)) => {
            retry_after = format!("Retry-After: {wait}\r\n");
            (200, "<html>".to_string())
        }
        None => state.answers.get(&path).cloned().unwrap_or_else(|| {
            (404, r#"{"error_code": 40403, "message": "Schema not found"}"#.to_string())
        }),
    };
    drop(state);
    let head = format!(
        "HTTP/1.1 {status} x\r\n{retry_after}Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())
}
