//! Running aggregates: a state per key, and the key's new value after each record.

use millstream_engine::error::EngineError;
use millstream_engine::key_group::BuildFixed;
use millstream_engine::pass_control;
use millstream_engine::stage::{Push, Stage};
use std::collections::HashMap;
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

macro_rules! folds {
    ($($(#[$doc:meta])* $name:ident, $out:ty, $zero:ty, |$f:ident, $state:ident, $value:ident| $body:expr;)*) => {$(
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
    )*};
}

folds! {
    /// Sum of a number taken from each record; wider than the number, so it cannot overflow.
    Sum, i128, i128, |f, state, value| { *state += i128::from(value); *state };
    /// Smallest of a number taken from each record.
    Min, i64, Option<i64>, |f, state, value| { let low = state.map_or(value, |s| s.min(value)); *state = Some(low); low };
    /// Largest of a number taken from each record.
    Max, i64, Option<i64>, |f, state, value| { let high = state.map_or(value, |s| s.max(value)); *state = Some(high); high };
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

pub(super) struct Running<K, T, A: Aggregate<T>, D> {
    pub aggregate: A,
    pub states: HashMap<K, A::State, BuildFixed>,
    pub down: D,
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
    #[inline]
    fn push(&mut self, (key, value): (K, T), ingest_ns: u64) -> Result<(), EngineError> {
        // A known key is looked up by reference and cloned once, for the output.
        let output = match self.states.get_mut(&key) {
            Some(state) => self.aggregate.add(state, value),
            None => {
                let state = self.states.entry(key.clone()).or_default();
                self.aggregate.add(state, value)
            }
        };
        self.down.push((key, output), ingest_ns)
    }
}
