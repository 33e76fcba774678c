//! A stack of places that moves little of what is in it.
//!
//! A `Vec` that grows copies all it has, which takes milliseconds for a million places, in which
//! no record goes on. Here a chunk is full at some point, and the next one begins.

/// Places in a chunk: the most that are copied at once.
const CHUNK: usize = 4096;

/// Places of entries, last in, first out.
#[derive(Default)]
pub(crate) struct Places {
    full: Vec<Vec<u32>>,
    top: Vec<u32>,
    /// An empty chunk, so that going up and down over the end of one allocates nothing.
    spare: Vec<u32>,
}

impl Places {
    #[inline]
    pub fn push(&mut self, place: u32) {
        if self.top.len() == CHUNK {
            let mut next = std::mem::take(&mut self.spare);
            next.reserve_exact(CHUNK);
            self.full.push(std::mem::replace(&mut self.top, next));
        }
        self.top.push(place);
    }

    #[inline]
    pub fn pop(&mut self) -> Option<u32> {
        if self.top.is_empty() {
            self.spare = std::mem::replace(&mut self.top, self.full.pop()?);
        }
        self.top.pop()
    }

    pub fn len(&self) -> usize {
        self.full.len() * CHUNK + self.top.len()
    }

    pub fn is_empty(&self) -> bool {
        self.top.is_empty() && self.full.is_empty()
    }

    /// Some of those that [`pop`](Self::pop) gives next, at most so many, last first.
    #[cfg(feature = "sql")]
    pub fn ahead(&self, most: usize) -> &[u32] {
        &self.top[self.top.len().saturating_sub(most)..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_stack_of_any_length() {
        let mut places = Places::default();
        let mut model = Vec::new();
        // Up and down over the ends of chunks, further up than down.
        for round in 0..40u32 {
            for place in 0..1000 {
                places.push(round * 1000 + place);
                model.push(round * 1000 + place);
            }
            for _ in 0..(round * 37 % 1000) {
                assert_eq!(places.pop(), model.pop());
            }
            assert_eq!((places.len(), places.is_empty()), (model.len(), false));
        }
        while let Some(place) = model.pop() {
            assert_eq!(places.pop(), Some(place));
        }
        assert!(places.is_empty() && places.pop().is_none());
    }
}
