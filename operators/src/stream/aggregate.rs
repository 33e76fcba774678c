//! Running aggregates: a state per key, and the key's new value after each record.

use super::combine::Combine;
use millstream_engine::error::EngineError;
use millstream_engine::key_group::hash_key;
use millstream_engine::pass_control;
use millstream_engine::split_table::SplitTable;
use millstream_engine::stage::{Push, Stage};
use std::hash::Hash;

/// How records of one key are folded into one value.
pub trait Aggregate<T>: Clone + Send + 'static {
    /// What is kept per key.
    type State: Default + Send + 'static;
    /// What is emitted after each record.
    type Output: Send + 'static;
    /// Takes a record in and gives the key's new value.
    fn add(&self, state: &mut Self::State, value: T) -> Self::Output;
}

/// Number of records.
#[derive(Clone, Copy, Debug)]
pub struct Count;

impl<T> Aggregate<T> for Count {
    type State = u64;
    type Output = u64;
    #[inline]
    fn add(&self, state: &mut u64, _value: T) -> u64 {
        *state += 1;
        *state
    }
}

impl<T> Combine<T> for Count {
    #[inline]
    fn merge(&self, state: &mut u64, other: u64) -> u64 {
        *state += other;
        *state
    }
}

/// Of two that have each seen a record, or not.
fn merged(state: &mut Option<i64>, other: Option<i64>, best: fn(i64, i64) -> i64) -> i64 {
    let both = match (*state, other) {
        (Some(one), Some(other)) => best(one, other),
        (one, other) => one.or(other).unwrap_or_default(),
    };
    *state = Some(both);
    both
}

macro_rules! folds {
    ($($(#[$doc:meta])* $name:ident, $out:ty, $zero:ty, |$state:ident, $value:ident| $body:expr, $merge:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub struct $name<F>(pub F);

        impl<T, F: Fn(&T) -> i64 + Clone + Send + 'static> Aggregate<T> for $name<F> {
            type State = $zero;
            type Output = $out;
            #[inline]
            fn add(&self, $state: &mut $zero, value: T) -> $out {
                let $value = (self.0)(&value);
                $body
            }
        }

        impl<T, F: Fn(&T) -> i64 + Clone + Send + 'static> Combine<T> for $name<F> {
            #[inline]
            fn merge(&self, $state: &mut $zero, other: $zero) -> $out {
                let $value = other;
                $merge
            }
        }
    )*};
}

folds! {
    /// Sum of a number taken from each record; wider than the number, so it cannot overflow.
    Sum, i128, i128, |state, value| { *state += i128::from(value); *state },
        { *state += value; *state };
    /// Smallest of a number taken from each record.
    Min, i64, Option<i64>, |state, value| { let low = state.map_or(value, |s| s.min(value)); *state = Some(low); low },
        merged(state, value, i64::min);
    /// Largest of a number taken from each record.
    Max, i64, Option<i64>, |state, value| { let high = state.map_or(value, |s| s.max(value)); *state = Some(high); high },
        merged(state, value, i64::max);
}

/// Any fold: `Reduce(|state: &mut S, record| output)`.
#[derive(Clone, Copy, Debug)]
pub struct Reduce<F, S>(F, std::marker::PhantomData<fn() -> S>);

impl<F, S> Reduce<F, S> {
    /// Folds records into a state that starts as `S::default()`.
    pub fn new(fold: F) -> Self {
        Self(fold, std::marker::PhantomData)
    }
}

impl<T, S, O, F> Aggregate<T> for Reduce<F, S>
where
    S: Default + Clone + Send + 'static,
    O: Send + 'static,
    F: Fn(&mut S, T) -> O + Clone + Send + 'static,
{
    type State = S;
    type Output = O;
    #[inline]
    fn add(&self, state: &mut S, value: T) -> O {
        (self.0)(state, value)
    }
}

/// A state for each key.
pub(super) struct KeyStates<K, S>(SplitTable<(K, S)>);

impl<K, S> Default for KeyStates<K, S> {
    fn default() -> Self {
        Self(SplitTable::default())
    }
}

impl<K: Hash + Eq + Clone, S: Default> KeyStates<K, S> {
    /// Does something with the state of a key.
    #[inline(always)]
    pub fn with<R>(&mut self, key: &K, body: impl FnOnce(&mut S) -> R) -> R {
        let hash = hash_key(key);
        if let Some((_, state)) = self.0.find_mut(hash, |(other, _)| other == key) {
            return body(state);
        }
        body(self.begin(hash, key))
    }

    /// A new key's state. On its own, so that what is done for each record stays small enough to be
    /// inlined into the loop over a source's records.
    #[cold]
    #[inline(never)]
    fn begin(&mut self, hash: u64, key: &K) -> &mut S {
        let entry = (key.clone(), S::default());
        &mut self.0.insert_unique(hash, entry, |(key, _)| hash_key(key)).1
    }
}

pub(super) struct Running<K, T, A: Aggregate<T>, D> {
    aggregate: A,
    states: KeyStates<K, A::State>,
    down: D,
}

impl<K, T, A: Aggregate<T>, D> Running<K, T, A, D> {
    pub fn new(aggregate: A, down: D) -> Self {
        Self { aggregate, states: KeyStates::default(), down }
    }
}

impl<K: Send, T, A: Aggregate<T>, D: Stage> Stage for Running<K, T, A, D> {
    pass_control!(down);
}

impl<K, T, A, D> Push<(K, T)> for Running<K, T, A, D>
where
    K: Hash + Eq + Clone + Send,
    A: Aggregate<T>,
    D: Push<(K, A::Output)>,
{
    #[inline(always)]
    fn push(&mut self, (key, value): (K, T), ingest_ns: u64) -> Result<(), EngineError> {
        let output = self.states.with(&key, |state| self.aggregate.add(state, value));
        self.down.push((key, output), ingest_ns)
    }
}
