//! A two-level keyed aggregate: each upstream instance pre-aggregates its records by key
//! ([`PartialCombine`]), and the instance that owns a key combines the partial states
//! ([`FinalCombine`]).

use crate::event_time::pending_watermark::PendingWatermark;
use crate::state::hash_index::HashIndex;
use crate::state::preaggregation::PreaggregationLimit;
use crate::stream::keyed_state::{KeyedState, StateBackend, keep_states};
use crate::stream::operator::aggregate::Aggregate;
use crate::stream::operator::aggregate_recipe::AggregateRecipe;
use crate::stream::operator::stateless::Map;
use crate::stream::recipe::{CheckpointManifest, Recipe};
use millstream_engine::checkpoint::key_group::{hash_key, instance_of};
use millstream_engine::error::EngineError;
use millstream_engine::event::Epoch;
use millstream_engine::runtime::exchange::Exchange;
use millstream_engine::runtime::job::Job;
use millstream_engine::runtime::stage::{FlushStatus, Io, Push, Stage};
use millstream_engine::runtime::tasklet::InboxTasklet;
use std::hash::Hash;
use std::marker::PhantomData;

/// An aggregate whose partial states can be merged in any order.
pub trait Combine<T>: Aggregate<T> {
    /// Merges another partial state and returns the key's new value. `other` has seen at least one
    /// record.
    fn merge(&self, state: &mut Self::State, other: Self::State) -> Self::Output;
}

/// Pre-aggregates records by key. Flushes the partial states at the latest when no more input is
/// available.
struct PartialCombine<K, T, A: Aggregate<T>, D> {
    aggregate: A,
    states: Vec<(K, A::State)>,
    index: HashIndex,
    /// Ingest time of the first buffered record.
    since_ns: u64,
    /// Partial states that are being sent.
    leaving: Vec<(K, A::State)>,
    leaving_ns: u64,
    hold: PreaggregationLimit,
    /// A watermark to pass on after the buffered records.
    watermark: PendingWatermark,
    marker: Option<Epoch>,
    down: D,
}

impl<K, T, A, D> PartialCombine<K, T, A, D>
where
    K: Hash + Eq,
    A: Aggregate<T>,
    D: Push<(K, A::State)>,
{
    fn new(aggregate: A, down: D) -> Self {
        Self {
            aggregate,
            states: Vec::new(),
            index: HashIndex::default(),
            since_ns: 0,
            leaving: Vec::new(),
            leaving_ns: 0,
            hold: PreaggregationLimit::default(),
            watermark: PendingWatermark::default(),
            marker: None,
            down,
        }
    }

    /// Sends as many partial states as the stage below accepts. Returns whether all were sent.
    fn leave(&mut self) -> Result<bool, EngineError> {
        while !self.leaving.is_empty() && self.down.is_ready() {
            let Some(part) = self.leaving.pop() else { break };
            self.down.push(part, self.leaving_ns)?;
        }
        Ok(self.leaving.is_empty())
    }

    /// Flushes the buffer as far as the stage below allows. Returns whether everything was sent,
    /// including the watermark and the marker after the records.
    fn flushed(&mut self) -> Result<bool, EngineError> {
        if !self.leave()? {
            return Ok(false);
        }
        if !self.states.is_empty() {
            self.hold.flushed(self.states.len());
            self.leaving_ns = self.since_ns;
            self.index.clear(self.states.iter().map(|(key, _)| hash_key(key)));
            // `leaving` is emptied from its end, so the order is reversed here.
            self.states.reverse();
            std::mem::swap(&mut self.leaving, &mut self.states);
        }
        if !self.leave()? {
            return Ok(false);
        }
        self.watermark.pass(true, 0, &mut self.down)?;
        if let Some(epoch) = self.marker.take() {
            self.down.marker(epoch)?;
        }
        Ok(true)
    }
}

impl<K, T, A, D> Stage for PartialCombine<K, T, A, D>
where
    K: Hash + Eq + Send,
    A: Aggregate<T>,
    D: Push<(K, A::State)>,
{
    fn attach(&mut self, io: &mut Io<'_>) -> Result<(), EngineError> {
        self.down.attach(io)
    }

    #[inline]
    fn is_ready(&mut self) -> bool {
        let open = self.marker.is_none() && !self.hold.is_full();
        open && (!self.hold.is_bypassed() || self.down.is_ready())
    }

    fn watermark(&mut self, micros: i64) -> Result<(), EngineError> {
        self.watermark.arrive(micros);
        if self.states.is_empty() { self.flushed().map(drop) } else { Ok(()) }
    }

    fn marker(&mut self, epoch: Epoch) -> Result<(), EngineError> {
        self.marker = Some(epoch);
        self.flushed().map(drop)
    }

    fn end(&mut self) -> Result<(), EngineError> {
        // Sources end only after a marker, so the buffer is empty here.
        self.down.end()
    }

    fn flush(&mut self) -> Result<FlushStatus, EngineError> {
        // Called even if the buffer is full, because it counts the calls of `flush`.
        let dry = self.hold.is_input_idle();
        let behind = self.marker.is_some() || self.watermark.is_waiting() && self.states.is_empty();
        let gone =
            if dry || behind || self.hold.is_full() { self.flushed()? } else { self.leave()? };
        let below = self.down.flush()?;
        Ok(below.and(match (gone, self.states.is_empty()) {
            (true, true) => FlushStatus::Flushed,
            (true, false) => FlushStatus::Buffered,
            // Partial states are left because the chain below is full, so the worker must call
            // again.
            (false, _) => FlushStatus::Pending,
        }))
    }

    fn next_timer_ns(&self) -> Option<u64> {
        self.down.next_timer_ns()
    }
}

impl<K, T, A, D> Push<(K, T)> for PartialCombine<K, T, A, D>
where
    K: Hash + Eq + Send,
    A: Aggregate<T>,
    D: Push<(K, A::State)>,
{
    #[inline]
    fn push(&mut self, (key, value): (K, T), ingest_ns: u64) -> Result<(), EngineError> {
        if self.hold.is_bypassed() {
            self.hold.add(0);
            let mut state = A::State::default();
            self.aggregate.add(&mut state, value);
            return self.down.push((key, state), ingest_ns);
        }
        let (hash, states) = (hash_key(&key), &mut self.states);
        let at = self.index.find(hash, |at| states[at].0 == key).unwrap_or_else(|| {
            if states.is_empty() {
                self.since_ns = ingest_ns;
            }
            let at = states.len();
            states.push((key, A::State::default()));
            self.index.add(hash, at, |at| hash_key(&states[at].0));
            self.hold.add_group(states.len());
            at
        });
        self.aggregate.add(&mut states[at].1, value);
        self.hold.add(self.states.len());
        Ok(())
    }
}

/// Merges the partial states of a key from all workers. `W` contains the states.
struct FinalCombine<K, T, A, W, D> {
    aggregate: A,
    states: W,
    down: D,
    types: PhantomData<fn() -> (K, T)>,
}

impl<K, T, A, W, D> Stage for FinalCombine<K, T, A, W, D>
where
    A: Aggregate<T>,
    W: KeyedState<K, A::State>,
    D: Stage,
{
    keep_states!(down);
}

impl<K, T, A, W, D> Push<(K, A::State)> for FinalCombine<K, T, A, W, D>
where
    A: Combine<T>,
    W: KeyedState<K, A::State>,
    D: Push<(K, A::Output)>,
{
    #[inline]
    fn push(&mut self, (key, other): (K, A::State), ingest_ns: u64) -> Result<(), EngineError> {
        let output = self.states.with(&key, |state| self.aggregate.merge(state, other))?;
        self.down.push((key, output), ingest_ns)
    }
}

/// The recipe of a two-level aggregate. It has the properties of the one-level one.
pub(in crate::stream) struct CombineRecipe<R, F, K, A, C>(pub AggregateRecipe<R, F, K, A, C>);

impl<R, F, K, A, C> Recipe for CombineRecipe<R, F, K, A, C>
where
    R: Recipe,
    K: Hash + Eq + Clone + Send + 'static,
    F: FnMut(&R::Item) -> K + Clone + Send + 'static,
    A: Combine<R::Item>,
    C: StateBackend<K, A::State>,
{
    type Item = (K, A::Output);
    fn build<D: Push<(K, A::Output)> + 'static>(
        self,
        job: &mut Job,
        parallelism: usize,
        chain: &mut dyn FnMut(&mut Job, usize) -> D,
    ) {
        let places = self.places(job, parallelism);
        let producers = self.0.up.places(job, parallelism);
        if places.len() == 1 && producers == places {
            return self.0.build(job, parallelism, chain);
        }
        let AggregateRecipe { up, mut key, aggregate, types: _ } = self.0;
        let (outboxes, inlets) = job.rings::<(K, A::State)>(&producers, &places);
        let states = C::states(job, places.len());
        let instances = inlets.into_iter().zip(places).zip(states);
        for (i, ((inlets, worker), states)) in instances.enumerate() {
            let down = chain(job, i);
            let global: FinalCombine<K, R::Item, A, C::States, D> =
                FinalCombine { aggregate: aggregate.clone(), states, down, types: PhantomData };
            let port = job.tasklet_port();
            let inbox = InboxTasklet::new(port, format!("combine {i}"), inlets, global);
            job.add_tasklet(worker, Box::new(inbox));
        }
        let mut outboxes = outboxes.into_iter();
        let pair = move |item: R::Item| (key(&item), item);
        let route = |(key, _): &(K, A::State), lanes: usize| instance_of(hash_key(key), lanes);
        up.build(job, parallelism, &mut |_, _| match outboxes.next() {
            Some(outbox) => {
                let down = PartialCombine::new(aggregate.clone(), Exchange::new(outbox, route));
                Map { f: pair.clone(), down }
            }
            None => unreachable!("a recipe makes one chain per instance"),
        });
    }
    fn places(&self, job: &Job, parallelism: usize) -> Vec<usize> {
        self.0.places(job, parallelism)
    }
    fn watermark_lag_us(&self) -> i64 {
        self.0.watermark_lag_us()
    }
    fn describe(&self, kept: &mut CheckpointManifest) {
        self.0.describe(kept);
    }
    fn has_event_time(&self) -> bool {
        self.0.has_event_time()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::operator::aggregate::Count;
    use millstream_engine::event::IDLE;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// An item that the tested stage has emitted.
    #[derive(Debug, PartialEq)]
    enum Out {
        Part(u8, u64),
        Watermark(i64),
        Marker(Epoch),
    }

    /// A stage that accepts `each` records between two flushes.
    struct Slow {
        room: usize,
        each: usize,
        out: Vec<Out>,
    }

    impl Stage for Slow {
        fn is_ready(&mut self) -> bool {
            self.room > 0
        }
        fn watermark(&mut self, micros: i64) -> Result<(), EngineError> {
            self.out.push(Out::Watermark(micros));
            Ok(())
        }
        fn marker(&mut self, epoch: Epoch) -> Result<(), EngineError> {
            self.out.push(Out::Marker(epoch));
            Ok(())
        }
        fn end(&mut self) -> Result<(), EngineError> {
            Ok(())
        }
        fn flush(&mut self) -> Result<FlushStatus, EngineError> {
            self.room = self.each;
            Ok(FlushStatus::Flushed)
        }

        fn next_timer_ns(&self) -> Option<u64> {
            None
        }
    }

    impl Push<(u8, u64)> for Slow {
        fn push(&mut self, (key, count): (u8, u64), _: u64) -> Result<(), EngineError> {
            assert!(self.room > 0, "pushed into a stage that was not ready");
            self.room -= 1;
            self.out.push(Out::Part(key, count));
            Ok(())
        }
    }

    #[derive(Clone, Debug)]
    enum Op {
        Records(Vec<u8>),
        Watermark,
        Marker,
        Drain,
    }

    fn ops() -> impl Strategy<Value = Vec<Op>> {
        let op = prop_oneof![
            4 => proptest::collection::vec(0u8..20, 0..30).prop_map(Op::Records),
            2 => Just(Op::Watermark),
            1 => Just(Op::Marker),
            4 => Just(Op::Drain),
        ];
        proptest::collection::vec(op, 0..60)
    }

    /// The counts in the output.
    fn counted(out: &[Out]) -> BTreeMap<u8, u64> {
        let mut counts = BTreeMap::new();
        for part in out {
            if let Out::Part(key, count) = part {
                *counts.entry(*key).or_insert(0) += count;
            }
        }
        counts
    }

    /// The chain takes one record per step, so the last one leaves in a step of its own.
    #[test]
    fn a_mark_of_idleness_leaves_with_the_last_buffered_record() {
        let slow = Slow { room: 1, each: 1, out: Vec::new() };
        let mut local: PartialCombine<u8, u8, Count, Slow> = PartialCombine::new(Count, slow);
        (0..3).for_each(|key| local.push((key, key), 0).unwrap());
        local.watermark(IDLE).unwrap();
        while local.flush().unwrap() != FlushStatus::Flushed {}
        assert!(matches!(local.down.out[..], [.., Out::Watermark(IDLE)]), "{:?}", local.down.out);
    }

    proptest! {
        /// Before a marker, exactly the records pushed before it are emitted. Before a watermark,
        /// at least the records pushed before it are emitted.
        #[test]
        fn records_keep_their_order_around_markers_and_none_is_lost(ops in ops(), each in 1usize..40) {
            let slow = Slow { room: each, each, out: Vec::new() };
            let mut local: PartialCombine<u8, u8, Count, Slow> = PartialCombine::new(Count, slow);
            let mut pushed = BTreeMap::<u8, u64>::new();
            let (mut at_watermark, mut at_marker) = (Vec::new(), Vec::new());
            let mut sent = 0;
            for op in ops {
                match op {
                    Op::Records(keys) => for key in keys {
                        if local.is_ready() {
                            local.push((key, key), 0).unwrap();
                            *pushed.entry(key).or_insert(0) += 1;
                        }
                    },
                    // A tasklet sends nothing after a marker until the marker has left.
                    _ if local.marker.is_some() => {
                        local.flush().unwrap();
                    }
                    Op::Watermark => {
                        at_watermark.push(pushed.clone());
                        local.watermark(at_watermark.len() as i64).unwrap();
                    }
                    Op::Marker => {
                        at_marker.push(pushed.clone());
                        local.marker(at_marker.len() as Epoch).unwrap();
                    }
                    Op::Drain => {
                        local.flush().unwrap();
                    }
                }
                for (at, out) in local.down.out.iter().enumerate().skip(sent) {
                    let counts = counted(&local.down.out[..at]);
                    match out {
                        Out::Part(..) => {}
                        Out::Watermark(number) => {
                            for (key, count) in &at_watermark[*number as usize - 1] {
                                prop_assert!(counts.get(key) >= Some(count));
                            }
                        }
                        Out::Marker(number) => {
                            prop_assert_eq!(&counts, &at_marker[*number as usize - 1]);
                        }
                    }
                }
                sent = local.down.out.len();
            }
            // Steps for the buffered records and for the records that arrive meanwhile.
            let steps = 10 + 2 * pushed.len();
            for _ in 0..steps {
                local.flush().unwrap();
            }
            prop_assert_eq!(local.flush().unwrap(), FlushStatus::Flushed);
            prop_assert_eq!(counted(&local.down.out), pushed);
            let last = local.down.out.iter().rev().find_map(|out| match out {
                Out::Watermark(number) => Some(*number),
                _ => None,
            });
            prop_assert_eq!(last.unwrap_or(0), at_watermark.len() as i64);
        }
    }
}
