//! Reassembles fragmented IP packets.
//!
//! If fragments overlap, the byte that was captured first counts. A payload that is not complete
//! [`LIFE_NS`] after its last fragment, or that is evicted because the store is full, is dropped,
//! and its fragments are counted. A complete payload is remembered for the same time, so that late
//! duplicates are recognised.

use super::ip::{Addresses, Fragment};
use super::{Part, counts::Counts, counts::Skip};
use std::collections::{HashMap, VecDeque};

/// How long a payload waits for its next fragment, in nanoseconds.
const LIFE_NS: i64 = 30_000_000_000;
/// Maximum number of bytes of all payloads.
const STORE_BYTES: usize = 4 << 20;
/// Maximum number of payloads.
const PAYLOADS_MAX: usize = 4096;
/// Maximum number of separate ranges of a payload.
const STRETCHES_MAX: usize = 1024;

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    addresses: Addresses,
    id: u32,
    /// 0 for IPv6, where the protocol is not part of the identity.
    protocol: u8,
}

struct Entry {
    generation: u64,
    data: Vec<u8>,
    /// The ranges that the fragments cover, captured or not.
    covered: Stretches,
    /// The ranges whose bytes were captured.
    known: Stretches,
    total: Option<usize>,
    protocol: u8,
    packets: u64,
    last_ns: i64,
    is_whole: bool,
}

/// Disjoint ranges in ascending order.
#[derive(Default)]
struct Stretches(Vec<(usize, usize)>);

impl Stretches {
    fn add(&mut self, from: usize, to: usize) {
        if from >= to {
            return;
        }
        let first = self.0.partition_point(|range| range.1 < from);
        let last = self.0.partition_point(|range| range.0 <= to);
        let (mut low, mut high) = (from, to);
        if first < last {
            (low, high) = (low.min(self.0[first].0), high.max(self.0[last - 1].1));
        }
        self.0.splice(first..last, [(low, high)]);
    }

    /// The parts of a range that are not covered, in ascending order.
    fn missing(&self, from: usize, to: usize) -> Vec<(usize, usize)> {
        let (mut at, mut missing) = (from, Vec::new());
        for &(low, high) in &self.0[self.0.partition_point(|range| range.1 <= from)..] {
            if low >= to {
                break;
            }
            if low > at {
                missing.push((at, low));
            }
            at = at.max(high);
        }
        if at < to {
            missing.push((at, to));
        }
        missing
    }

    fn is_all(&self, total: usize) -> bool {
        self.0 == [(0, total)]
    }
}

/// A complete, reassembled payload.
pub(super) struct Whole {
    pub protocol: u8,
    /// The captured bytes of the payload.
    pub data: Vec<u8>,
    pub length: usize,
}

impl Whole {
    pub(super) fn part(&self) -> Part<'_> {
        Part { data: &self.data, length: self.length }
    }
}

#[derive(Default)]
pub(super) struct Fragments {
    entries: HashMap<Key, Entry>,
    /// Keys in the order in which their entries were created.
    order: VecDeque<(Key, u64)>,
    bytes: usize,
    generation: u64,
}

impl Fragments {
    /// Adds a fragment. Returns the payload if this fragment completes it.
    pub(super) fn add(
        &mut self,
        addresses: Addresses,
        fragment: &Fragment<'_>,
        now_ns: i64,
        counts: &mut Counts,
    ) -> Option<Whole> {
        let protocol = if addresses.is_v6 { 0 } else { fragment.protocol };
        let key = Key { addresses, id: fragment.id, protocol };
        let is_over = self.entries.get(&key).is_some_and(|entry| {
            let is_old = now_ns.saturating_sub(entry.last_ns) > LIFE_NS;
            is_old || (entry.is_whole && !entry.repeats(fragment))
        });
        if is_over {
            self.remove(&key, counts);
        }
        if let Some(entry) = self.entries.get_mut(&key).filter(|entry| entry.is_whole) {
            entry.last_ns = now_ns;
            return None;
        }
        let end = fragment.offset + fragment.part.length;
        self.make_room(end, now_ns, counts);
        self.generation += 1;
        let generation = self.generation;
        let order = &mut self.order;
        let entry = self.entries.entry(key).or_insert_with(|| {
            order.push_back((key, generation));
            Entry::new(generation, fragment.protocol)
        });
        let before = entry.data.len();
        entry.add(fragment, end, now_ns);
        self.bytes += entry.data.len() - before;
        let total = entry.total?;
        if !entry.covered.is_all(total) {
            return None;
        }
        entry.is_whole = true;
        let captured = match entry.known.0.first() {
            Some(&(0, to)) => to.min(total),
            _ => 0,
        };
        let data = entry.data[..captured].to_vec();
        Some(Whole { protocol: entry.protocol, data, length: total })
    }

    /// Drops all payloads. The packets of incomplete ones are counted as skipped.
    pub(super) fn finish(&mut self, counts: &mut Counts) {
        while let Some((key, _)) = self.order.pop_front() {
            self.remove(&key, counts);
        }
    }

    fn make_room(&mut self, bytes: usize, now_ns: i64, counts: &mut Counts) {
        while let Some(&(key, generation)) = self.order.front() {
            let entry = self.entries.get(&key).filter(|entry| entry.generation == generation);
            let is_old = entry.is_none_or(|e| now_ns.saturating_sub(e.last_ns) > LIFE_NS);
            let is_full = self.bytes + bytes > STORE_BYTES || self.order.len() >= PAYLOADS_MAX;
            if !is_old && !is_full {
                return;
            }
            if entry.is_some() {
                self.remove(&key, counts);
            }
            self.order.pop_front();
        }
    }

    fn remove(&mut self, key: &Key, counts: &mut Counts) {
        if let Some(entry) = self.entries.remove(key) {
            self.bytes -= entry.data.len();
            if !entry.is_whole {
                counts.skip(Skip::FragmentIncomplete, entry.packets);
            }
        }
    }
}

impl Entry {
    fn new(generation: u64, protocol: u8) -> Self {
        Self {
            generation,
            data: Vec::new(),
            covered: Stretches::default(),
            known: Stretches::default(),
            total: None,
            protocol,
            packets: 0,
            last_ns: 0,
            is_whole: false,
        }
    }

    fn add(&mut self, fragment: &Fragment<'_>, end: usize, now_ns: i64) {
        self.packets += 1;
        self.last_ns = now_ns;
        if fragment.offset == 0 {
            self.protocol = fragment.protocol;
        }
        if !fragment.has_more {
            self.total.get_or_insert(end);
        }
        if self.covered.0.len() >= STRETCHES_MAX || self.known.0.len() >= STRETCHES_MAX {
            return;
        }
        let (from, data) = (fragment.offset, fragment.part.data);
        let to = from + data.len();
        if self.data.len() < to {
            self.data.resize(to, 0);
        }
        for (low, high) in self.known.missing(from, to) {
            self.data[low..high].copy_from_slice(&data[low - from..high - from]);
        }
        self.known.add(from, to);
        self.covered.add(from, end);
    }

    /// Whether a fragment lies within this payload and has the same bytes, as far as they can be
    /// compared.
    fn repeats(&self, fragment: &Fragment<'_>) -> bool {
        let (from, data) = (fragment.offset, fragment.part.data);
        let is_within = self.total.is_some_and(|total| from + fragment.part.length <= total);
        is_within && self.data.get(from..from + data.len()).is_none_or(|bytes| bytes == data)
    }
}
