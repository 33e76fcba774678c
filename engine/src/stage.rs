//! What a record is pushed through: operators fused into a chain by owning what comes after.
//!
//! A chain is a call, not a queue. Typed streams nest stages by value, so the compiler sees the
//! whole chain; tables box them. Control (`ready`, `marker`, `settle` …) goes down the same
//! chain as data.
//!
//! *Threads.* A chain belongs to one tasklet and so, after start, to one worker thread.

use crate::error::EngineError;
use crate::event::Epoch;
use crate::wake::Waker;

/// What is left to do in a chain after [`Stage::settle`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Settled {
    /// Nothing: all that was pushed is out.
    Clear,
    /// Nothing but records that are put together as long as more are there at once: they go in the
    /// drain that brings none, and before a marker.
    Held,
    /// There was more of our own work when it began, all of it of the next epoch: markers have been
    /// passed on. With a watermark that moves all the time there may always be some.
    Trailing,
    /// More of our own work; call again soon.
    More,
    /// Something that another side must make room for; a wake-up will follow.
    Blocked,
}

impl Settled {
    /// Of a stage with a chain below: whether it holds a marker back, and whether it owes something
    /// of the next epoch, or owed it when it began though it is done now: what was done then is
    /// behind the marker, and whoever waits for the end of the epoch before must know. It owes until
    /// it could say so.
    pub fn over(below: Self, holds_marker: bool, owes: &mut bool) -> Self {
        let own = match (holds_marker, *owes) {
            (true, _) => Self::More,
            (false, true) => Self::Trailing,
            (false, false) => Self::Clear,
        };
        let all = own.max(below);
        if all == Self::Trailing {
            *owes = false;
        }
        all
    }
}

/// What a worker offers to stages that own sockets.
pub struct Io<'a> {
    /// Where to register sockets; `None` under simulation.
    pub registry: Option<&'a mio::Registry>,
    /// The worker that will run the stage.
    pub waker: &'a Waker,
    pub(crate) next_token: &'a mut usize,
}

impl Io<'_> {
    /// A token that no other socket of this worker has.
    pub fn token(&mut self) -> mio::Token {
        *self.next_token += 1;
        mio::Token(*self.next_token - 1)
    }
}

/// The control side of a stage. Every method must be passed on to the stages below.
pub trait Stage: Send {
    /// Called once, on the worker's thread, before anything else.
    fn attach(&mut self, _io: &mut Io<'_>) -> Result<(), EngineError> {
        Ok(())
    }

    /// Whether one more record can be taken. A caller must not push when this is false, so what
    /// a stage holds back is bounded by the expansion of one record.
    fn ready(&mut self) -> bool;

    /// Event time has advanced to `micros` since 1970.
    fn watermark(&mut self, micros: i64) -> Result<(), EngineError>;

    /// The epoch ends here: snapshot, emit what is due at an epoch, pass the marker on. Work that
    /// does not fit in one bounded step is left to [`settle`](Self::settle), during which
    /// [`ready`](Self::ready) is false.
    fn marker(&mut self, epoch: Epoch) -> Result<(), EngineError>;

    /// Nothing follows.
    fn end(&mut self) -> Result<(), EngineError>;

    /// Ends a drain: publish rings, write sockets, do a bounded piece of pending work.
    fn settle(&mut self) -> Result<Settled, EngineError>;

    /// When, on the clock of the world that it runs in, it wants to be settled although nothing has
    /// come: the next of its timers.
    #[inline]
    fn due_ns(&self) -> Option<u64> {
        None
    }
}

/// The data side of a stage.
pub trait Push<T>: Stage {
    /// Takes a record.
    fn push(&mut self, value: T, ingest_ns: u64) -> Result<(), EngineError>;
}

/// Passes the control side of a stage on to the stage in the named field, unchanged.
#[macro_export]
macro_rules! pass_control {
    ($field:ident) => {
        fn attach(
            &mut self,
            io: &mut $crate::stage::Io<'_>,
        ) -> Result<(), $crate::error::EngineError> {
            self.$field.attach(io)
        }
        #[inline]
        fn ready(&mut self) -> bool {
            self.$field.ready()
        }
        fn watermark(&mut self, micros: i64) -> Result<(), $crate::error::EngineError> {
            self.$field.watermark(micros)
        }
        fn marker(
            &mut self,
            epoch: $crate::event::Epoch,
        ) -> Result<(), $crate::error::EngineError> {
            self.$field.marker(epoch)
        }
        fn end(&mut self) -> Result<(), $crate::error::EngineError> {
            self.$field.end()
        }
        #[inline]
        fn settle(&mut self) -> Result<$crate::stage::Settled, $crate::error::EngineError> {
            self.$field.settle()
        }
        #[inline]
        fn due_ns(&self) -> Option<u64> {
            self.$field.due_ns()
        }
    };
}

impl<S: Stage + ?Sized> Stage for Box<S> {
    fn attach(&mut self, io: &mut Io<'_>) -> Result<(), EngineError> {
        (**self).attach(io)
    }
    fn ready(&mut self) -> bool {
        (**self).ready()
    }
    fn watermark(&mut self, micros: i64) -> Result<(), EngineError> {
        (**self).watermark(micros)
    }
    fn marker(&mut self, epoch: Epoch) -> Result<(), EngineError> {
        (**self).marker(epoch)
    }
    fn end(&mut self) -> Result<(), EngineError> {
        (**self).end()
    }
    fn settle(&mut self) -> Result<Settled, EngineError> {
        (**self).settle()
    }
    fn due_ns(&self) -> Option<u64> {
        (**self).due_ns()
    }
}

impl<T, S: Push<T> + ?Sized> Push<T> for Box<S> {
    #[inline]
    fn push(&mut self, value: T, ingest_ns: u64) -> Result<(), EngineError> {
        (**self).push(value, ingest_ns)
    }
}
