//! The slices of one key, and how slices are combined to windows.

use crate::state::key_table::KeyedEntry;
use crate::table::expr::compile::Cx;
use crate::table::physical::accumulator::Function;
use crate::table::physical::aggregate::sliding_window::NONE;
use crate::table::physical::aggregate::sliding_window::slice_ring::SliceRing;
use crate::table::physical::aggregate::sliding_window::slice_unit::{Unit, Values, owned};
use crate::table::plan::time_window::Lengths;
use millstream_engine::error::EngineError;
use millstream_engine::runtime::state_log::StateSlot;
use smallvec::SmallVec;
use std::collections::VecDeque;
use std::hint::black_box;

/// The configuration that all keys of a stage share.
pub(super) struct StageConfig<U> {
    pub functions: Vec<Function>,
    pub lengths: Lengths,
    /// The units of an empty slice. The first unit is the slice's start time, which must be set in
    /// each copy.
    pub empty: Values<U>,
}

impl<U: Unit> StageConfig<U> {
    pub fn new(functions: Vec<Function>, lengths: Lengths) -> Self {
        let mut empty = Values::new();
        empty.push(U::of_time(0));
        empty.extend(U::start(&functions));
        Self { functions, lengths, empty }
    }

    /// The number of units per slice: its start time and its accumulators.
    #[inline]
    fn size(&self) -> usize {
        self.empty.len()
    }

    /// The initial accumulators of a slice.
    #[inline]
    fn start(&self) -> &[U] {
        &self.empty[1..]
    }
}

/// The fields of a key's entry that are needed only with a checkpoint.
struct ChangeSlots<U> {
    /// For each slice, the log position of its last change.
    slots: VecDeque<StateSlot>,
    /// For each slice of the front, its own values without those of later slices. The front itself
    /// stores suffix sums.
    sums: SliceRing<U>,
    /// The log position of the last change of the next window's entry.
    slot: StateSlot,
}

/// The slice of a key for a start time.
pub(super) struct FoundSlice {
    /// The index among the slices of the key.
    pub place: usize,
    pub is_new: bool,
}

/// The entry of a key in the stage's table: the key, and its slices in time order.
pub(super) struct KeySlices<U> {
    pub hash: u64,
    pub key: SmallVec<[u8; 40]>,
    /// The end of the next window.
    pub next_us: i64,
    /// The slices with their start times, in time order. Slices of the front store suffix sums, the
    /// others store their own values.
    slices: SliceRing<U>,
    /// The start of the last slice. Most rows belong to it or to the next slice.
    last_us: i64,
    front: u32,
    /// The number of slices that are in the front or merged into `back`, the two halves of the
    /// two-stack queue.
    taken: u32,
    back: Values<U>,
    /// The end of the window at which all merged slices are moved to the front; `NONE` if not
    /// decided yet. It differs by key, so that not all keys are moved at the same window.
    move_to_front_us: i64,
    /// The slice that was last counted as updated, and the log generation of that count.
    counted_us: i64,
    counted: u32,
    /// The heap memory of the accumulators in slices, sums and `back`, in bytes.
    owned: usize,
    kept: Option<Box<ChangeSlots<U>>>,
}

impl<U> KeyedEntry for KeySlices<U> {
    #[inline]
    fn hash(&self) -> u64 {
        self.hash
    }
    #[inline]
    fn key(&self) -> &[u8] {
        &self.key
    }
}

impl<U: Unit> KeySlices<U> {
    pub fn new(hash: u64, key: &[u8], common: &StageConfig<U>, keeps: bool) -> Self {
        let kept = ChangeSlots {
            slots: VecDeque::new(),
            sums: SliceRing::default(),
            slot: StateSlot::default(),
        };
        Self {
            hash,
            key: SmallVec::from_slice(key),
            next_us: NONE,
            slices: SliceRing::default(),
            last_us: i64::MIN,
            front: 0,
            taken: 0,
            back: Values::from(common.start()),
            move_to_front_us: NONE,
            counted_us: NONE,
            counted: 0,
            owned: owned(common.start()),
            kept: keeps.then(|| Box::new(kept)),
        }
    }

    /// The memory in bytes, without the entry itself.
    pub fn memory(&self) -> usize {
        let kept = self.kept.as_ref().map_or(0, |kept| {
            size_of::<ChangeSlots<U>>()
                + kept.sums.memory()
                + kept.slots.capacity() * size_of::<StateSlot>()
        });
        let spilled = |spilled: bool, bytes: usize| if spilled { bytes } else { 0 };
        let key = spilled(self.key.spilled(), self.key.capacity());
        let back = spilled(self.back.spilled(), self.back.capacity() * size_of::<U>());
        self.slices.memory() + kept + key + back + self.owned
    }

    /// The heap memory of all accumulators, in bytes.
    #[inline]
    pub fn owned(&self) -> usize {
        self.owned
    }

    /// Prefetches the first slice, and the first one that is not merged yet.
    pub fn prefetch(&self, common: &StageConfig<U>) {
        let (len, taken) = (self.slices.len(), self.taken as usize);
        let time = |place: usize| (place < len).then(|| self.begin(place, common));
        black_box((time(0), time(taken)));
    }

    /// The start time of the slice with an index.
    #[inline]
    pub fn begin(&self, place: usize, common: &StageConfig<U>) -> i64 {
        self.slices.get(place, common.size())[0].time()
    }

    /// The start time of the first slice; `None` if the key has no slices.
    #[inline]
    pub fn first_us(&self, common: &StageConfig<U>) -> Option<i64> {
        (self.slices.len() > 0).then(|| self.begin(0, common))
    }

    /// Finds the slice with a start time, or creates it.
    #[inline]
    pub fn slice(&mut self, begin_us: i64, common: &StageConfig<U>) -> FoundSlice {
        if begin_us == self.last_us {
            return FoundSlice { place: self.slices.len() - 1, is_new: false };
        }
        if begin_us < self.last_us {
            return self.earlier_slice(begin_us, common);
        }
        self.last_us = begin_us;
        self.slices.push_back(&common.empty);
        self.owned += owned(&common.empty);
        let place = self.slices.len() - 1;
        self.slices.get_mut(place, common.size())[0] = U::of_time(begin_us);
        if let Some(kept) = &mut self.kept {
            kept.slots.push_back(StateSlot::default());
        }
        FoundSlice { place, is_new: true }
    }

    #[cold]
    fn earlier_slice(&mut self, begin_us: i64, common: &StageConfig<U>) -> FoundSlice {
        let mut at = self.slices.len();
        while at > 0 && self.begin(at - 1, common) > begin_us {
            at -= 1;
        }
        if at > 0 && self.begin(at - 1, common) == begin_us {
            return FoundSlice { place: at - 1, is_new: false };
        }
        let in_front = at < self.front as usize;
        // In the front, a new slice starts with the suffix sum of the slices after it.
        let mut slice = if in_front {
            Values::from(self.slices.get(at, common.size()))
        } else {
            common.empty.clone()
        };
        slice[0] = U::of_time(begin_us);
        self.owned += owned(&slice) + if in_front { owned(common.start()) } else { 0 };
        self.slices.insert(at, &slice);
        self.taken += u32::from(at < self.taken as usize);
        self.front += u32::from(in_front);
        if let Some(kept) = &mut self.kept {
            kept.slots.insert(at, StateSlot::default());
            if in_front {
                kept.sums.insert(at, common.start());
            }
        }
        FoundSlice { place: at, is_new: true }
    }

    /// Adds a row to the slice with an index.
    #[inline]
    pub fn add(
        &mut self,
        place: usize,
        common: &StageConfig<U>,
        cx: Cx<'_>,
    ) -> Result<(), EngineError> {
        if place < self.front as usize {
            return self.add_late(place, common, cx);
        }
        if place < self.taken as usize {
            let before = owned(&self.back);
            U::add(&common.functions, &mut self.back, cx)?;
            self.owned = self.owned + owned(&self.back) - before;
        }
        let slice = self.slices.get_mut(place, common.size());
        let before = owned(slice);
        U::add(&common.functions, &mut slice[1..], cx)?;
        self.owned = self.owned + owned(slice) - before;
        Ok(())
    }

    /// Adds a row to a slice of the front, and so to the suffix sums of all slices before it. The
    /// row's expressions are evaluated only once.
    #[cold]
    fn add_late(
        &mut self,
        place: usize,
        common: &StageConfig<U>,
        cx: Cx<'_>,
    ) -> Result<(), EngineError> {
        let functions = &common.functions;
        let mut row = Values::from(common.start());
        U::add(functions, &mut row, cx)?;
        for at in 0..=place {
            let slice = self.slices.get_mut(at, common.size());
            let before = owned(slice);
            U::merge(functions, &mut slice[1..], &row)?;
            self.owned = self.owned + owned(slice) - before;
        }
        if let Some(kept) = &mut self.kept {
            let sum = kept.sums.get_mut(place, row.len());
            let before = owned(sum);
            U::merge(functions, sum, &row)?;
            self.owned = self.owned + owned(sum) - before;
        }
        Ok(())
    }

    /// Merges the slices that start before the end of a window into `back`. Moves them to the front
    /// if that is due. Returns the cost in merges.
    pub fn take(&mut self, end_us: i64, common: &StageConfig<U>) -> Result<usize, EngineError> {
        let (before, owned_before) = (self.taken as usize, owned(&self.back));
        while (self.taken as usize) < self.slices.len() {
            let slice = self.slices.get(self.taken as usize, common.size());
            if slice[0].time() >= end_us {
                break;
            }
            U::merge(&common.functions, &mut self.back, &slice[1..])?;
            self.taken += 1;
        }
        self.owned = self.owned + owned(&self.back) - owned_before;
        let cost = self.taken as usize - before;
        let Lengths { width_us, slide_us, .. } = common.lengths;
        if self.move_to_front_us <= end_us {
            self.move_to_front_us = end_us.saturating_add(width_us);
            return Ok(cost + self.move_to_front(common)?);
        }
        if self.move_to_front_us == NONE {
            // The window of the first move depends on the key's hash, which spreads the cost over
            // time.
            let moment = (self.hash >> 8) as i64 % (width_us / slide_us);
            self.move_to_front_us = end_us.saturating_add(moment * slide_us);
        }
        Ok(cost)
    }

    /// Moves all slices merged in `back` to the front, as suffix sums. Returns the cost in merges.
    fn move_to_front(&mut self, common: &StageConfig<U>) -> Result<usize, EngineError> {
        let (functions, size) = (&common.functions, common.size());
        let (front, taken) = (self.front as usize, self.taken as usize);
        if let Some(kept) = &mut self.kept {
            (front..taken).for_each(|at| kept.sums.push_back(&self.slices.get(at, size)[1..]));
        }
        for at in (front..taken.saturating_sub(1)).rev() {
            let (slice, later) = self.slices.pair(at, at + 1, size);
            U::merge(functions, &mut slice[1..], &later[1..])?;
        }
        if front < taken {
            for at in 0..front {
                let (slice, later) = self.slices.pair(at, front, size);
                U::merge(functions, &mut slice[1..], &later[1..])?;
            }
        }
        self.back.clone_from_slice(common.start());
        self.front = self.taken;
        self.count_owned(common);
        Ok(taken)
    }

    /// The accumulators of the window over all merged slices; `None` if there are no such slices.
    #[inline]
    pub fn window<'a>(
        &'a self,
        common: &StageConfig<U>,
        sum: &'a mut Values<U>,
    ) -> Result<Option<&'a [U]>, EngineError> {
        if self.taken == 0 {
            return Ok(None);
        }
        if self.front == 0 {
            return Ok(Some(&self.back));
        }
        sum.clear();
        sum.extend(self.slices.get(0, common.size())[1..].iter().cloned());
        U::merge(&common.functions, sum, &self.back)?;
        Ok(Some(sum))
    }

    /// Removes the first slice. Returns the cost in merges.
    pub fn pop(&mut self, common: &StageConfig<U>) -> Result<usize, EngineError> {
        let cost = if self.front == 0 { self.move_to_front(common)? } else { 0 };
        self.owned -= owned(self.slices.get(0, common.size()));
        self.slices.pop_front(common.size());
        (self.front, self.taken) = (self.front - 1, self.taken - 1);
        if self.slices.len() == 0 {
            self.last_us = i64::MIN;
        }
        if let Some(kept) = &mut self.kept {
            self.owned -= owned(kept.sums.get(0, common.start().len()));
            kept.sums.pop_front(common.start().len());
            kept.slots.pop_front();
        }
        Ok(cost)
    }

    /// The index of the slice with a start time; `None` if there is no such slice.
    pub fn find(&self, begin_us: i64, common: &StageConfig<U>) -> Option<usize> {
        (0..self.slices.len()).rev().find(|at| self.begin(*at, common) == begin_us)
    }

    /// Removes a slice that is not merged into a window yet. Returns whether the slice existed.
    pub fn remove(&mut self, begin_us: i64, common: &StageConfig<U>) -> bool {
        let Some(at) = self.find(begin_us, common) else { return false };
        self.owned -= owned(self.slices.get(at, common.size()));
        self.slices.remove(at, common.size());
        self.last_us =
            self.slices.len().checked_sub(1).map_or(i64::MIN, |last| self.begin(last, common));
        if let Some(kept) = &mut self.kept {
            kept.slots.remove(at);
        }
        true
    }

    /// The log generation in which the slice was last counted as updated; 0 if it was never
    /// counted, or another slice was counted after it.
    #[inline]
    pub fn counted(&mut self, begin_us: i64) -> &mut u32 {
        if std::mem::replace(&mut self.counted_us, begin_us) != begin_us {
            self.counted = 0;
        }
        &mut self.counted
    }

    /// The slice's own values, and the log position of its last change; `None` without a
    /// checkpoint.
    pub fn kept(
        &mut self,
        place: usize,
        common: &StageConfig<U>,
    ) -> Option<(&[U], &mut StateSlot)> {
        let kept = self.kept.as_deref_mut()?;
        let slice = self.slices.get(place, common.size());
        let sum = match place < self.front as usize {
            true => kept.sums.get(place, common.start().len()),
            false => &slice[1..],
        };
        Some((sum, &mut kept.slots[place]))
    }

    /// Recomputes the heap memory of all values. Takes time linear in the number of slices.
    pub fn count_owned(&mut self, common: &StageConfig<U>) {
        if U::OWNS {
            let (size, sums) = (common.size(), common.start().len());
            let slices = (0..self.slices.len()).map(|at| owned(self.slices.get(at, size)));
            let kept = self.kept.iter().flat_map(|kept| {
                (0..kept.sums.len()).map(move |at| owned(kept.sums.get(at, sums)))
            });
            self.owned = slices.chain(kept).sum::<usize>() + owned(&self.back);
        }
    }

    /// The accumulators of a slice that is not merged yet. After a change, call
    /// [`count_owned`](Self::count_owned).
    pub fn values(&mut self, place: usize, common: &StageConfig<U>) -> &mut [U] {
        &mut self.slices.get_mut(place, common.size())[1..]
    }

    /// The log position of the last change of the next window's entry; `None` without a checkpoint.
    pub fn slot(&mut self) -> Option<&mut StateSlot> {
        self.kept.as_mut().map(|kept| &mut kept.slot)
    }
}
