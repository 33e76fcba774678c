//! Connects to a sender, and reconnects with exponential back-off.
//!
//! A host name is looked up again when the last address of the previous look-up has failed: a
//! sender may move, and a name may not resolve before its service exists. Such a look-up runs on a
//! thread of its own, because it blocks.

use crate::connect::socket::transport::{Stream, Target};
use millstream_engine::mio::{Interest, Registry, Token};
use millstream_engine::runtime::tasklet::StepCx;
use std::io;
use std::net::ToSocketAddrs;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::thread;

const BACKOFF_FIRST_NS: u64 = 50_000_000;
const MAX_BACKOFF_NS: u64 = 5_000_000_000;
/// Time limit of one attempt, in nanoseconds.
const ATTEMPT_NS: u64 = 10_000_000_000;
/// How often the result of a look-up is polled, in nanoseconds.
const LOOK_UP_POLL_NS: u64 = 20_000_000;

/// Looks up the addresses of a sender.
pub type LookUp = fn(&str, u16) -> io::Result<Vec<Target>>;

/// Looks up addresses with the system's resolver. Blocks.
pub fn look_up(host: &str, port: u16) -> io::Result<Vec<Target>> {
    Ok((host, port).to_socket_addrs()?.map(Target::Tcp).collect())
}

/// The host name and port of a sender.
pub struct Name {
    /// A host name or an address.
    pub host: String,
    /// The port that the sender listens on.
    pub port: u16,
    /// The look-up function; replaced in tests.
    pub look_up: LookUp,
}

impl Name {
    /// Starts a look-up on a thread of its own.
    fn start(&self) -> io::Result<Receiver<io::Result<Vec<Target>>>> {
        let (host, port, look_up) = (self.host.clone(), self.port, self.look_up);
        let (found, answer) = sync_channel(1);
        let run = move || drop(found.send(look_up(&host, port)));
        thread::Builder::new().name("look-up".to_string()).spawn(run)?;
        Ok(answer)
    }
}

enum State {
    Connecting {
        stream: Stream,
        until_ns: u64,
    },
    Waiting {
        until_ns: u64,
    },
    LookingUp(Receiver<io::Result<Vec<Target>>>),
    /// There is no attempt: the connection is established, or the source has ended.
    Still,
}

/// Connects to one of several addresses, in turn.
pub struct Connector {
    /// `None` for a Unix socket, which needs no look-up.
    name: Option<Name>,
    /// Empty until the host name resolves.
    targets: Vec<Target>,
    at: usize,
    /// Whether to look up the name before the next attempt: the last target has failed, or there is
    /// none.
    is_stale: bool,
    state: State,
    backoff_ns: u64,
}

impl Connector {
    /// A connector that is connected to target number `at`.
    pub(super) fn connected(name: Option<Name>, targets: Vec<Target>, at: usize) -> Self {
        Self { at, state: State::Still, ..Self::disconnected(name, targets) }
    }

    /// A connector that is not connected. Without targets the host name is looked up first.
    pub(super) fn disconnected(name: Option<Name>, targets: Vec<Target>) -> Self {
        let is_stale = targets.is_empty();
        let state = State::Waiting { until_ns: 0 };
        Self { name, targets, at: 0, is_stale, state, backoff_ns: BACKOFF_FIRST_NS }
    }

    /// Schedules the next attempt, without blocking, and doubles the delay of the attempt after it,
    /// up to [`MAX_BACKOFF_NS`].
    pub(super) fn back_off(&mut self, cx: &mut StepCx<'_>) {
        // Half of the delay is random, so that the clients of a sender do not all reconnect at the
        // same time.
        let half_ns = self.backoff_ns / 2;
        let until_ns = cx.env.now_ns() + half_ns + cx.env.random() % (half_ns + 1);
        self.backoff_ns = (self.backoff_ns * 2).min(MAX_BACKOFF_NS);
        cx.wake_at(until_ns);
        self.state = State::Waiting { until_ns };
    }

    fn failed(&mut self, cx: &mut StepCx<'_>) {
        self.at += 1;
        if self.at >= self.targets.len() {
            self.at = 0;
            self.is_stale = true;
        }
        self.back_off(cx);
    }

    /// Uses the addresses of a finished look-up. If it failed or found none, the previous addresses
    /// are tried again; if there are none either, the look-up is repeated after a pause.
    fn resolved(&mut self, found: io::Result<Vec<Target>>, cx: &mut StepCx<'_>) {
        self.is_stale = false;
        match found {
            Ok(targets) if !targets.is_empty() => self.targets = targets,
            _ if self.targets.is_empty() => {
                self.is_stale = true;
                return self.back_off(cx);
            }
            _ => {}
        }
        self.at = 0;
        self.state = State::Waiting { until_ns: 0 };
        cx.wake_at(cx.env.now_ns());
    }

    /// Advances the attempt. Returns the connection once it is established.
    pub(super) fn advance(
        &mut self,
        cx: &mut StepCx<'_>,
        worker: Option<(&Registry, Token)>,
    ) -> io::Result<Option<Stream>> {
        match std::mem::replace(&mut self.state, State::Still) {
            State::Still => Ok(None),
            State::Waiting { until_ns } if cx.env.now_ns() < until_ns => {
                cx.wake_at(until_ns);
                self.state = State::Waiting { until_ns };
                Ok(None)
            }
            State::LookingUp(answer) => {
                match answer.try_recv() {
                    Ok(found) => self.resolved(found, cx),
                    Err(TryRecvError::Disconnected) => {
                        self.resolved(Err(io::ErrorKind::NotFound.into()), cx);
                    }
                    Err(TryRecvError::Empty) => {
                        cx.wake_at(cx.env.now_ns() + LOOK_UP_POLL_NS);
                        self.state = State::LookingUp(answer);
                    }
                }
                Ok(None)
            }
            State::Waiting { .. } if self.is_stale && self.name.is_some() => {
                let started = self.name.as_ref().map(Name::start);
                match started {
                    Some(Ok(answer)) => {
                        cx.wake_at(cx.env.now_ns() + LOOK_UP_POLL_NS);
                        self.state = State::LookingUp(answer);
                    }
                    _ => self.back_off(cx),
                }
                Ok(None)
            }
            State::Waiting { .. } => {
                let Ok(mut stream) = self.targets[self.at].connect() else {
                    self.failed(cx);
                    return Ok(None);
                };
                if let Some((registry, token)) = worker {
                    let interest = Interest::READABLE | Interest::WRITABLE;
                    registry.register(&mut stream, token, interest)?;
                }
                let until_ns = cx.env.now_ns() + ATTEMPT_NS;
                self.state = State::Connecting { stream, until_ns };
                self.answered(cx)
            }
            connecting @ State::Connecting { .. } => {
                self.state = connecting;
                self.answered(cx)
            }
        }
    }

    fn answered(&mut self, cx: &mut StepCx<'_>) -> io::Result<Option<Stream>> {
        let State::Connecting { stream, until_ns } = &self.state else { return Ok(None) };
        match stream.connected() {
            Ok(Some(())) => {
                let connected = std::mem::replace(&mut self.state, State::Still);
                self.backoff_ns = BACKOFF_FIRST_NS;
                match connected {
                    State::Connecting { stream, .. } => Ok(Some(stream)),
                    _ => Ok(None),
                }
            }
            Ok(None) if cx.env.now_ns() < *until_ns => {
                cx.wake_at(*until_ns);
                Ok(None)
            }
            _ => {
                self.failed(cx);
                Ok(None)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millstream_engine::env::{Env, SimEnv};
    use std::net::TcpListener;
    use std::sync::Mutex;

    /// The answers of the test's look-ups; the last one is returned first.
    static ANSWERS: Mutex<Vec<Option<Vec<Target>>>> = Mutex::new(Vec::new());

    fn answered(_: &str, _: u16) -> io::Result<Vec<Target>> {
        let answer = ANSWERS.lock().unwrap().pop().expect("one look-up for each answer");
        answer.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    #[test]
    fn a_name_is_looked_up_until_it_resolves_and_again_when_its_addresses_fail() {
        let sender = TcpListener::bind("127.0.0.1:0").unwrap();
        let there = Target::Tcp(sender.local_addr().unwrap());
        let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        // The name does not resolve, has no address, resolves to an address that refuses, fails to
        // resolve again, and then resolves to the sender.
        let answers = [None, Some(Vec::new()), Some(vec![Target::Tcp(gone)]), None];
        *ANSWERS.lock().unwrap() = answers.into_iter().chain([Some(vec![there])]).rev().collect();
        let name = Name { host: "sender".to_string(), port: 1, look_up: answered };
        let mut connector = Connector::disconnected(Some(name), Vec::new());
        let env = SimEnv::new(7);
        let stream = loop {
            let mut cx = StepCx { env: &env, budget: 8, wake_at_ns: None };
            if let Some(stream) = connector.advance(&mut cx, None).unwrap() {
                break stream;
            }
            let wake_at_ns = cx.wake_at_ns.expect("the connector always has a next attempt");
            assert!(wake_at_ns <= env.now_ns() + ATTEMPT_NS);
            if let State::LookingUp(_) | State::Connecting { .. } = connector.state {
                // Threads and the kernel do not follow the simulated clock.
                thread::yield_now();
            } else {
                env.advance(wake_at_ns - env.now_ns());
            }
        };
        assert!(stream.connected().unwrap().is_some());
        assert!(ANSWERS.lock().unwrap().is_empty());
    }
}
