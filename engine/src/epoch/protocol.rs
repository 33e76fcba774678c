//! The messages between the driver and everything that it drives: commands to sources, reports from
//! tasklets, workers and the owner of the query.

use crate::checkpoint::changes::StateChanges;
use crate::checkpoint::offset::Offset;
use crate::error::EngineError;
use crate::event::Epoch;
use crossbeam_channel::Sender;

/// How much of the available data a batch may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadLimit {
    /// As much as the source's rate limit allows.
    RateLimited,
    /// Everything, ignoring the rate limit.
    All,
    /// What was available at the first plan, as far as the rate limit allows.
    AvailableAtStart,
}

/// A command from the driver to a source.
#[derive(Clone, Debug)]
pub enum Command {
    /// Continuous mode: emit the marker of an epoch. Sources without more data do so too.
    EmitMarker {
        /// The epoch that ends.
        epoch: Epoch,
        /// Emit everything that is available now before the marker.
        drain: bool,
        /// Emit no records after the marker.
        last: bool,
    },
    /// Micro-batch mode: report how far you can read.
    Plan(ReadLimit),
    /// Emit the records up to `end`, then the marker. Also used for an epoch that an earlier run
    /// planned.
    Run {
        /// The epoch of the batch.
        epoch: Epoch,
        /// The end offset of the batch in this source.
        end: Offset,
    },
    /// Continuous mode: stop draining and emit the marker now.
    AbandonDrain,
    /// The epoch of your last marker is committed.
    Committed,
    /// Forward `End` to the stages and rings of the chain.
    End,
}

/// A source's answer to [`Command::Plan`]: how far it can read.
#[derive(Clone, Debug)]
pub struct EndOffset {
    /// The position up to which the source can read.
    pub end: Offset,
    /// Whether there is data after the current position.
    pub has_new: bool,
    /// Whether there will never be data after `end`.
    pub exhausted: bool,
    /// Whether a rate limit applies: there is more data than `end` includes.
    pub limited: bool,
}

/// A message to the driver from a tasklet, a worker or the query's owner.
#[derive(Debug)]
pub enum Report {
    /// A tasklet has passed on the marker, and everything that belongs to its epoch has left the
    /// tasklet.
    Ack {
        /// The epoch of the marker.
        epoch: Epoch,
        /// Whether results that a watermark released before the marker may still have to be
        /// emitted.
        owes_late_emission: bool,
        /// Whether results that a watermark released before the marker were emitted after it.
        emitted_late: bool,
    },
    /// The position of a source at a marker.
    Offset {
        /// The number of the source.
        source: usize,
        /// The marker's epoch.
        epoch: Epoch,
        /// The position of the source.
        offset: Offset,
        /// Records emitted so far in this run.
        records: u64,
    },
    /// The changes of an operator instance in an epoch. Sent before its tasklet's
    /// [`Ack`](Self::Ack).
    State {
        /// The epoch in which the state changed.
        epoch: Epoch,
        /// The changes of the operator instance.
        changes: StateChanges,
    },
    /// The output that a sink has staged in an epoch: written, not yet visible. Sent before its
    /// tasklet's `Ack`.
    Staged {
        /// The epoch in which the output was staged.
        epoch: Epoch,
        /// Opaque to the engine: what the sink needs to commit the epoch, also after a restart.
        staged: Vec<String>,
    },
    /// The answer to [`Command::Plan`].
    Planned {
        /// The number of the source.
        source: usize,
        /// How far the source can read.
        planned: EndOffset,
    },
    /// A source will never have more data.
    Exhausted {
        /// The number of the source.
        source: usize,
    },
    /// A tasklet has ended.
    Done {
        /// The number of the tasklet.
        tasklet: usize,
    },
    /// A tasklet or a worker failed.
    Failed(EngineError),
    /// The owner wants the query to end after the current epoch.
    Stop,
    /// The owner waits until all data that is available now is processed.
    ProcessAll(Sender<()>),
}
