//! Processors with two inputs, which share state and timers by key.
//!
//! A two-input processor is implemented as a [`Processor`] of [`Either`](crate::stream::Either)
//! records, so state, timers and checkpoint entries are the same as for one input.

use crate::stream::keyed_input::{Either, KeyedInput, OneInput, TwoInputs};
use crate::stream::keyed_stream::KeyedStream;
use crate::stream::operator::process::{Context, Processor, Timer};
use crate::stream::operator::processor_recipe::ProcessRecipe;
use crate::stream::processor_state::{Kept, States};
use crate::stream::recipe::Recipe;
use crate::stream::typed_stream::Stream;
use millstream_engine::error::EngineError;
use millstream_engine::runtime::job::JoinOrder;
use std::hash::Hash;
use std::marker::PhantomData;
use std::sync::Arc;

/// A user-defined operator on two keyed streams. Both streams share the state and timers of a key.
/// Each instance has a clone of its own.
pub trait TwoInputProcessor<K, L, R>: Clone + Send + 'static {
    /// The type of the emitted results.
    type Output: Send + 'static;

    /// Processes a record of the left stream. An error ends the query.
    fn left(
        &mut self,
        key: &K,
        record: L,
        cx: &mut Context<'_, Self::Output>,
    ) -> Result<(), EngineError>;

    /// Processes a record of the right stream. An error ends the query.
    fn right(
        &mut self,
        key: &K,
        record: R,
        cx: &mut Context<'_, Self::Output>,
    ) -> Result<(), EngineError>;

    /// Called when a timer of the key has fired. The timer is already removed.
    fn timer(
        &mut self,
        key: &K,
        timer: Timer,
        cx: &mut Context<'_, Self::Output>,
    ) -> Result<(), EngineError> {
        let _ = (key, timer, cx);
        Ok(())
    }
}

/// Adapts a [`TwoInputProcessor`] to a [`Processor`].
#[derive(Clone)]
struct BothSides<P>(P);

impl<K, L, R, P: TwoInputProcessor<K, L, R>> Processor<K, Either<L, R>> for BothSides<P> {
    type Output = P::Output;
    #[inline]
    fn record(
        &mut self,
        key: &K,
        record: Either<L, R>,
        cx: &mut Context<'_, P::Output>,
    ) -> Result<(), EngineError> {
        match record {
            Either::Left(record) => self.0.left(key, record, cx),
            Either::Right(record) => self.0.right(key, record, cx),
        }
    }
    fn timer(
        &mut self,
        key: &K,
        timer: Timer,
        cx: &mut Context<'_, P::Output>,
    ) -> Result<(), EngineError> {
        self.0.timer(key, timer, cx)
    }
}

/// Two keyed streams that one operator reads, from [`KeyedStream::connect`].
#[must_use = "connected streams do nothing until they are processed"]
pub struct ConnectedStreams<L, F, R, G, C> {
    pub(in crate::stream) left: KeyedStream<L, F, C>,
    pub(in crate::stream) right: KeyedStream<R, G, C>,
}

impl<L: Recipe, F, C: 'static> KeyedStream<L, F, C> {
    /// Connects this stream with another one that has the same key type, so that one operator reads
    /// both.
    pub fn connect<R: Recipe, G>(
        self,
        right: KeyedStream<R, G, C>,
    ) -> ConnectedStreams<L, F, R, G, C> {
        ConnectedStreams { left: self, right }
    }
}

impl<L: Recipe, F, R: Recipe, G, C: 'static> ConnectedStreams<L, F, R, G, C> {
    /// Makes the streams the input of a recipe, and returns its output stream.
    pub(in crate::stream) fn into_input<K, S: Recipe>(
        self,
        recipe: impl FnOnce(TwoInputs<OneInput<L, F, K>, OneInput<R, G, K>>) -> S,
    ) -> Stream<S, C> {
        let KeyedStream { up: right, key: right_key } = self.right;
        let KeyedStream { up: left, key } = self.left;
        let right = OneInput { up: right.recipe, key: right_key, types: PhantomData };
        left.with(|up| {
            let left = OneInput { up, key, types: PhantomData };
            recipe(TwoInputs { left, right, order: JoinOrder::default() })
        })
    }

    /// Applies a user-defined operator whose state and timers are shared by both streams. `make`
    /// declares the states and creates the processor that uses them. `name` identifies the operator
    /// in checkpoints.
    ///
    /// The watermark of the operator is the lower one of both streams, or that of the only stream
    /// that has one.
    ///
    /// ```
    /// use millstream::stream::{Context, Flow, Ttl, TwoInputProcessor, ValueState};
    /// use millstream::{Config, EngineError, WaitProfile};
    ///
    /// /// Converts amounts with the latest rate of their currency.
    /// #[derive(Clone)]
    /// struct Convert {
    ///     rate: ValueState<u64>,
    /// }
    ///
    /// impl TwoInputProcessor<String, (String, u64), (String, u64)> for Convert {
    ///     type Output = (String, u64);
    ///     fn left(
    ///         &mut self,
    ///         key: &String,
    ///         (_, amount): (String, u64),
    ///         cx: &mut Context<'_, (String, u64)>,
    ///     ) -> Result<(), EngineError> {
    ///         let rate = cx.value(self.rate).copied().unwrap_or(1);
    ///         cx.emit((key.clone(), amount * rate))
    ///     }
    ///     fn right(
    ///         &mut self,
    ///         _: &String,
    ///         (_, rate): (String, u64),
    ///         cx: &mut Context<'_, (String, u64)>,
    ///     ) -> Result<(), EngineError> {
    ///         cx.set_value(self.rate, rate)
    ///     }
    /// }
    ///
    /// let flow = Flow::new("amounts");
    /// let (mut amounts, left) = flow.channel::<(String, u64)>();
    /// let (mut rates, right) = flow.channel::<(String, u64)>();
    /// let (sink, mut output) = flow.output();
    /// left.key_by(|amount| amount.0.clone())
    ///     .connect(right.key_by(|rate| rate.0.clone()))
    ///     .process("convert", |states| Convert { rate: states.value("rate", Ttl::NONE) })
    ///     .sink(sink);
    /// let query = flow.start(Config { wait: WaitProfile::Park, ..Config::default() })?;
    /// rates.push(("EUR".to_string(), 3))?;
    /// query.process_all_available()?;
    /// amounts.push(("EUR".to_string(), 5))?;
    /// query.process_all_available()?;
    /// assert_eq!(output.try_recv(), Some(("EUR".to_string(), 15)));
    /// query.stop()?;
    /// # Ok::<(), EngineError>(())
    /// ```
    pub fn process<K, P>(
        self,
        name: &str,
        make: impl FnOnce(&mut States) -> P,
    ) -> Stream<impl Recipe<Item = P::Output>, C>
    where
        K: Kept + Hash + Eq + Clone,
        F: FnMut(&L::Item) -> K + Clone + Send + 'static,
        G: FnMut(&R::Item) -> K + Clone + Send + 'static,
        P: TwoInputProcessor<K, L::Item, R::Item>,
    {
        let mut states = States::default();
        let processor = BothSides(make(&mut states));
        let (name, states) = (name.to_string(), Arc::new(states));
        self.into_input(|input: TwoInputs<_, OneInput<R, G, K>>| ProcessRecipe {
            input,
            name,
            states,
            processor,
        })
    }
}

/// One keyed stream as the input of an operator.
pub(in crate::stream) fn one_input<R: Recipe, F, K, C: 'static, S: Recipe>(
    stream: KeyedStream<R, F, C>,
    recipe: impl FnOnce(OneInput<R, F, K>) -> S,
) -> Stream<S, C>
where
    OneInput<R, F, K>: KeyedInput,
{
    let KeyedStream { up, key } = stream;
    up.with(|up| recipe(OneInput { up, key, types: PhantomData }))
}
