//! Inputs and outputs for async services: [`futures::Sink`](futures_sink::Sink) and
//! [`futures::Stream`](futures_core::Stream).
//!
//! There is no helper thread: a task that must wait registers its waker, and the query's worker
//! wakes it. Any executor works.

use super::input::{Input, PushError};
use super::output::{Output, RecvError};
use futures_core::Stream;
use futures_sink::Sink;
use millstream_engine::error::EngineError;
use std::pin::Pin;
use std::task::{Context, Poll};

/// An [`Input`] as a sink. Made by [`Input::into_sink`]. A record that is sent while the channel is
/// full waits in the sink, and the sink is not ready until that record has been pushed.
///
/// A clone is another producer, like a clone of the input. Closing the sink pushes a waiting record
/// and drops the input. Dropping the sink drops both. It fails with `CHANNEL_CLOSED` when the query
/// has ended or the sink was closed.
pub struct InputSink<T> {
    /// `None` if the sink is closed.
    input: Option<Input<T>>,
    /// A record that was accepted although the channel was full.
    waiting: Option<T>,
}

/// An [`Output`] as a stream: it ends when the query has ended and all results have been read. If
/// the query has failed, the last item is its error. Made by [`Output::into_stream`].
pub struct OutputStream<T> {
    output: Output<T>,
    ended: bool,
}

// Records are moved and never pinned.
impl<T> Unpin for InputSink<T> {}
impl<T> Unpin for OutputStream<T> {}

impl<T: Send> Input<T> {
    /// Converts the input to a [`futures::Sink`](futures_sink::Sink).
    pub fn into_sink(self) -> InputSink<T> {
        InputSink { input: Some(self), waiting: None }
    }
}

impl<T: Send> InputSink<T> {
    /// The input; `None` if the sink is closed.
    pub fn input(&self) -> Option<&Input<T>> {
        self.input.as_ref()
    }

    /// Pushes the waiting record, if there is one.
    fn poll_waiting(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), EngineError>> {
        let Some(value) = self.waiting.take() else { return Poll::Ready(Ok(())) };
        let Some(input) = &mut self.input else { return Poll::Ready(Err(closed())) };
        match input.push_or_register(value, cx.waker()) {
            Ok(()) => Poll::Ready(Ok(())),
            Err(PushError::Full(value)) => {
                self.waiting = Some(value);
                Poll::Pending
            }
            Err(error) => Poll::Ready(Err(error.into())),
        }
    }
}

fn closed() -> EngineError {
    EngineError::operator("CHANNEL_CLOSED", "this sink was closed", "")
}

impl<T: Send> Clone for InputSink<T> {
    /// Creates another producer. A waiting record stays in this sink.
    fn clone(&self) -> Self {
        Self { input: self.input.clone(), waiting: None }
    }
}

impl<T: Send> Sink<T> for InputSink<T> {
    type Error = EngineError;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), EngineError>> {
        let this = self.get_mut();
        let Some(input) = &this.input else { return Poll::Ready(Err(closed())) };
        if input.is_closed() {
            return Poll::Ready(Err(PushError::Closed(()).into()));
        }
        this.poll_waiting(cx)
    }

    fn start_send(self: Pin<&mut Self>, item: T) -> Result<(), EngineError> {
        let this = self.get_mut();
        let Some(input) = &mut this.input else { return Err(closed()) };
        match input.try_push(item) {
            Ok(()) => Ok(()),
            Err(PushError::Full(item)) => {
                // At most one record waits: the sink is not ready again until it was pushed.
                this.waiting = Some(item);
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), EngineError>> {
        self.get_mut().poll_waiting(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), EngineError>> {
        let this = self.get_mut();
        let flushed = this.poll_waiting(cx);
        if flushed.is_ready() {
            this.input = None;
        }
        flushed
    }
}

impl<T: Send> Output<T> {
    /// Converts the output to a [`futures::Stream`](futures_core::Stream).
    pub fn into_stream(self) -> OutputStream<T> {
        OutputStream { output: self, ended: false }
    }
}

impl<T: Send> OutputStream<T> {
    /// Converts the stream back to the output.
    pub fn into_inner(self) -> Output<T> {
        self.output
    }

    /// The next result, or the end of the stream (`Some(None)`); `None` if neither is available yet.
    /// The error of a failed query comes as the last result.
    fn next_now(&mut self) -> Option<Option<Result<T, EngineError>>> {
        if let Some(value) = self.output.try_recv() {
            return Some(Some(Ok(value)));
        }
        let end = self.output.end()?;
        // The last results may have arrived after the first check.
        if let Some(value) = self.output.try_recv() {
            return Some(Some(Ok(value)));
        }
        self.ended = true;
        match end {
            RecvError::Ended => Some(None),
            RecvError::Failed(error) => Some(Some(Err(*error))),
        }
    }
}

impl<T: Send> Stream for OutputStream<T> {
    type Item = Result<T, EngineError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        loop {
            if let Some(item) = this.next_now() {
                return Poll::Ready(item);
            }
            if this.output.register(cx.waker()) {
                return Poll::Pending;
            }
        }
    }
}
