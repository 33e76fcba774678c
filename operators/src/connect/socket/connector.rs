//! Connects to a sender, and reconnects with exponential back-off.

use crate::connect::socket::transport::{Stream, Target};
use millstream_engine::mio::{Interest, Registry, Token};
use millstream_engine::runtime::tasklet::StepCx;
use std::io;

const BACKOFF_FIRST_NS: u64 = 50_000_000;
const MAX_BACKOFF_NS: u64 = 5_000_000_000;
/// Time limit of one attempt, in nanoseconds.
const ATTEMPT_NS: u64 = 10_000_000_000;

enum State {
    Connecting {
        stream: Stream,
        until_ns: u64,
    },
    Waiting {
        until_ns: u64,
    },
    /// Connected, or finished.
    Still,
}

/// Connects to one of several addresses, in turn.
pub struct Connector {
    targets: Vec<Target>,
    at: usize,
    state: State,
    backoff_ns: u64,
}

impl Connector {
    /// Connected to the target `at`, or not yet.
    pub(super) fn new(targets: Vec<Target>, at: usize, connected: bool) -> Self {
        let state = if connected { State::Still } else { State::Waiting { until_ns: 0 } };
        Self { targets, at, state, backoff_ns: BACKOFF_FIRST_NS }
    }

    pub(super) fn target(&self) -> &Target {
        &self.targets[self.at]
    }

    /// Waits before the next attempt.
    pub(super) fn back_off(&mut self, cx: &mut StepCx<'_>) {
        // Half of the delay is random, so that many clients of a lost sender do not return at once.
        let half_ns = self.backoff_ns / 2;
        let until_ns = cx.env.now_ns() + half_ns + cx.env.random() % (half_ns + 1);
        self.backoff_ns = (self.backoff_ns * 2).min(MAX_BACKOFF_NS);
        cx.wake_at(until_ns);
        self.state = State::Waiting { until_ns };
    }

    fn failed(&mut self, cx: &mut StepCx<'_>) {
        self.at = (self.at + 1) % self.targets.len();
        self.back_off(cx);
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
            State::Waiting { .. } => {
                let Ok(mut stream) = self.target().connect() else {
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
