//! Running aggregates: a state per key, and the key's new value after each record.

use crate::stream::keyed_state::{KeyedState, keep_states};
use crate::stream::operator::combine::Combine;
use millstream_engine::error::EngineError;
use millstream_engine::runtime::stage::{Push, Stage};
use std::marker::PhantomData;

/// Folds the records of a key into a value.
pub trait Aggregate<T>: Clone + Send + 'static {
    /// The state of a key. In a flow with a checkpoint serde must be able to write it.
    type State: Default + Send + 'static;
    /// The value that is emitted after each record.
    type Output: Send + 'static;
    /// Adds a record and returns the key's new value.
    fn add(&self, state: &mut Self::State, value: T) -> Self::Output;
}

/// Counts the records of a key.
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

/// Combines two states, each of which may have seen no record. Returns 0 if neither has seen one.
fn merged(state: &mut Option<i64>, other: Option<i64>, best: fn(i64, i64) -> i64) -> i64 {
    *state = match (*state, other) {
        (Some(one), Some(other)) => Some(best(one, other)),
        (one, other) => one.or(other),
    };
    state.unwrap_or_default()
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
    /// The sum of a number that the closure computes from each record, in a wider type that cannot
    /// overflow.
    Sum, i128, i128, |state, value| { *state += i128::from(value); *state },
        { *state += value; *state };
    /// The minimum of a number that the closure computes from each record.
    Min, i64, Option<i64>, |state, value| { let low = state.map_or(value, |s| s.min(value)); *state = Some(low); low },
        merged(state, value, i64::min);
    /// The maximum of a number that the closure computes from each record.
    Max, i64, Option<i64>, |state, value| { let high = state.map_or(value, |s| s.max(value)); *state = Some(high); high },
        merged(state, value, i64::max);
}

/// Any fold: `Reduce::new(|state: &mut S, record| output)`.
#[derive(Clone, Copy, Debug)]
pub struct Reduce<F, S>(F, PhantomData<fn() -> S>);

impl<F, S> Reduce<F, S> {
    /// Folds records into a state that starts as `S::default()`.
    pub fn new(fold: F) -> Self {
        Self(fold, PhantomData)
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

/// The stage of a running aggregate. `W` contains the states.
pub(in crate::stream) struct Running<K, T, A, W, D> {
    aggregate: A,
    states: W,
    down: D,
    types: PhantomData<fn() -> (K, T)>,
}

impl<K, T, A, W, D> Running<K, T, A, W, D> {
    pub fn new(aggregate: A, states: W, down: D) -> Self {
        Self { aggregate, states, down, types: PhantomData }
    }
}

impl<K, T, A, W, D> Stage for Running<K, T, A, W, D>
where
    A: Aggregate<T>,
    W: KeyedState<K, A::State>,
    D: Stage,
{
    keep_states!(down);
}

impl<K, T, A, W, D> Push<(K, T)> for Running<K, T, A, W, D>
where
    A: Aggregate<T>,
    W: KeyedState<K, A::State>,
    D: Push<(K, A::Output)>,
{
    #[inline(always)]
    fn push(&mut self, (key, value): (K, T), ingest_ns: u64) -> Result<(), EngineError> {
        let output = self.states.with(&key, |state| self.aggregate.add(state, value))?;
        self.down.push((key, output), ingest_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_states_without_records_merge_to_a_state_without_records() {
        let least = Min(|number: &i64| *number);
        let mut state = None;
        least.merge(&mut state, None);
        assert_eq!((state, least.merge(&mut state, Some(5))), (None, 5));
        assert_eq!(least.merge(&mut state, None), 5);
    }
}
