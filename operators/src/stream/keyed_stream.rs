//! A typed stream whose records have keys.

use crate::stream::keyed_input::OneInput;
use crate::stream::keyed_state::{InMemory, StateBackend};
use crate::stream::operator::aggregate::Aggregate;
use crate::stream::operator::aggregate_recipe::AggregateRecipe;
use crate::stream::operator::combine::{Combine, CombineRecipe};
use crate::stream::operator::process::Processor;
use crate::stream::operator::processor_recipe::ProcessRecipe;
use crate::stream::operator::two_input_processor::one_input;
use crate::stream::processor_state::{Kept, States};
use crate::stream::recipe::Recipe;
use crate::stream::typed_stream::Stream;
use std::hash::Hash;
use std::marker::PhantomData;
use std::sync::Arc;

/// A stream whose records have keys.
#[must_use = "a keyed stream does nothing until it is aggregated"]
pub struct KeyedStream<R, F, C = InMemory> {
    pub(in crate::stream) up: Stream<R, C>,
    pub(in crate::stream) key: F,
}

impl<R: Recipe, F, C: 'static> KeyedStream<R, F, C> {
    /// A running aggregate: emits the key and its new value after each record.
    pub fn aggregate<K, A>(self, aggregate: A) -> Stream<impl Recipe<Item = (K, A::Output)>, C>
    where
        K: Hash + Eq + Clone + Send + 'static,
        F: FnMut(&R::Item) -> K + Clone + Send + 'static,
        A: Aggregate<R::Item>,
        C: StateBackend<K, A::State>,
    {
        let key = self.key;
        self.up.with(|up| AggregateRecipe::<_, _, K, A, C> {
            up,
            key,
            aggregate,
            types: PhantomData,
        })
    }

    /// A running aggregate that may skip intermediate values. Each upstream instance pre-aggregates
    /// its records by key while more input is available, unless there are too many keys. It then
    /// sends the partial states to the owners of the keys, so fewer records cross between workers.
    /// If the stream and the aggregate have a single instance on the same worker, it is
    /// [`aggregate`](Self::aggregate).
    pub fn combine<K, A>(self, aggregate: A) -> Stream<impl Recipe<Item = (K, A::Output)>, C>
    where
        K: Hash + Eq + Clone + Send + 'static,
        F: FnMut(&R::Item) -> K + Clone + Send + 'static,
        A: Combine<R::Item>,
        C: StateBackend<K, A::State>,
    {
        let key = self.key;
        self.up.with(|up| {
            let types = PhantomData;
            CombineRecipe(AggregateRecipe::<_, _, K, A, C> { up, key, aggregate, types })
        })
    }

    /// Applies a user-defined operator with state and timers for each key. `make` declares the
    /// states and creates the processor that uses them. `name` identifies the operator in
    /// checkpoints.
    pub fn process<K, P>(
        self,
        name: &str,
        make: impl FnOnce(&mut States) -> P,
    ) -> Stream<impl Recipe<Item = P::Output>, C>
    where
        K: Kept + Hash + Eq + Clone,
        F: FnMut(&R::Item) -> K + Clone + Send + 'static,
        P: Processor<K, R::Item>,
    {
        let mut states = States::default();
        let processor = make(&mut states);
        let (name, states) = (name.to_string(), Arc::new(states));
        one_input(self, |input: OneInput<_, _, K>| ProcessRecipe { input, name, states, processor })
    }
}
