//! The recent maximum size of a collection, so that memory needed only for a burst can be freed.
//!
//! A collection that keeps its capacity when it is emptied allocates nothing while its size varies.
//! But after a burst it would keep the burst's capacity for ever. So the capacity worth keeping is
//! the largest size of the last epochs. This mark rises at once and falls by a fraction with each
//! epoch.

/// The mark falls by at most 1/16 with each epoch, rounded up to one item: by half after 11 epochs
/// if it is large.
const FALL: usize = 16;

/// The largest recent size of a collection.
#[derive(Clone, Copy, Debug, Default)]
pub struct HighWater {
    /// The largest size since the last epoch.
    most: usize,
    mark: usize,
}

impl HighWater {
    /// Records the current size of the collection.
    #[inline]
    pub fn note(&mut self, size: usize) {
        self.most = self.most.max(size);
    }

    /// Ends an epoch, with the current size of the collection. Returns the capacity worth keeping.
    pub fn end_epoch(&mut self, size: usize) -> usize {
        self.note(size);
        self.mark = self.most.max(self.mark - self.mark.div_ceil(FALL));
        self.most = size;
        self.mark
    }

    /// The capacity worth keeping: the mark of the last epoch, or the largest size since then if it
    /// is larger.
    #[inline]
    pub fn mark(&self) -> usize {
        self.mark.max(self.most)
    }
}

/// A buffer that is emptied at the end of each epoch.
#[derive(Debug)]
pub struct EpochBuffer<T> {
    items: Vec<T>,
    mark: HighWater,
}

/// The number of items whose capacity is always kept.
const LEAST: usize = 1024;

impl<T> Default for EpochBuffer<T> {
    fn default() -> Self {
        Self { items: Vec::new(), mark: HighWater::default() }
    }
}

impl<T> std::ops::Deref for EpochBuffer<T> {
    type Target = Vec<T>;
    #[inline]
    fn deref(&self) -> &Vec<T> {
        &self.items
    }
}

impl<T> std::ops::DerefMut for EpochBuffer<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut Vec<T> {
        &mut self.items
    }
}

impl<T> EpochBuffer<T> {
    /// Calls `apply` with each item and empties the buffer. Capacity that no recent epoch has
    /// needed is freed.
    pub fn drain_epoch(&mut self, apply: impl FnMut(T)) {
        self.mark.note(self.items.len());
        let needed = self.mark.end_epoch(0);
        self.items.drain(..).for_each(apply);
        shrink(&mut self.items, needed);
    }
}

/// Frees capacity if it is more than four times `needed`. Small buffers stay as they are.
pub fn shrink<T>(items: &mut Vec<T>, needed: usize) {
    let needed = needed.max(LEAST);
    if items.capacity() > needed * 4 {
        items.shrink_to(needed * 2);
    }
}

/// Shrinks buffers that a long value has enlarged. Each buffer must contain the last value that was
/// written into it.
pub fn shrink_scratch<const N: usize>(buffers: [&mut Vec<u8>; N]) {
    for buffer in buffers {
        shrink(buffer, buffer.len());
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_mark_rises_at_once_and_falls_slowly() {
        let mut mark = HighWater::default();
        mark.note(1000);
        mark.note(10);
        assert_eq!((mark.mark(), mark.end_epoch(10)), (1000, 1000));
        let falls: Vec<usize> = (0..200).map(|_| mark.end_epoch(10)).collect();
        assert!(falls[0] > 900 && falls[10] < 550 && falls[10] > 450, "{falls:?}");
        assert_eq!(falls[199], 10);
    }

    #[test]
    fn a_buffer_frees_the_memory_of_a_burst() {
        let mut buffer = EpochBuffer::default();
        let mut epoch = |items: u32| {
            buffer.extend(0..items);
            let mut sum = 0;
            buffer.drain_epoch(|_| sum += 1);
            assert_eq!((sum, buffer.len()), (items, 0));
            buffer.capacity()
        };
        epoch(1_000_000);
        assert!(epoch(100) >= 500_000, "the next burst may come soon");
        let least = (0..300).map(|_| epoch(100)).min().unwrap();
        assert!(least <= 4 * LEAST, "{least}");
        // A constant size never changes the capacity.
        let steady = (0..300).map(|_| epoch(5_000)).collect::<Vec<_>>();
        assert!(steady.windows(2).all(|two| two[0] == two[1]));
    }
}
