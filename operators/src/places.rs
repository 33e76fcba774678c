//! A stack of places that moves little of what is in it.
//!
//! A `Vec` that grows copies all it has, which takes milliseconds for a million places, in which
//! no record goes on. Here a chunk is full at some point, and the next one begins.

/// Places in a chunk: the most that are copied at once.
const CHUNK: usize = 4096;

/// Places of entries, last in, first out.
///
/// It keeps its chunks when it shrinks, and takes no memory as long as it stays below what it had or
/// was [made room](Self::reserve) for.
#[derive(Default)]
pub(crate) struct Places {
    full: Vec<Vec<u32>>,
    top: Vec<u32>,
    /// Empty chunks.
    spares: Vec<Vec<u32>>,
}

/// An empty chunk whose memory is there: what the system gives is not until it is written to.
fn chunk(room: usize) -> Vec<u32> {
    let mut chunk = Vec::with_capacity(room);
    chunk.resize(room, u32::MAX);
    chunk.clear();
    chunk
}

impl Places {
    #[inline]
    pub fn push(&mut self, place: u32) {
        if self.top.len() == CHUNK {
            self.next_chunk();
        }
        self.top.push(place);
    }

    #[cold]
    fn next_chunk(&mut self) {
        let next = self.spares.pop().unwrap_or_else(|| {
            // Where it goes when it is empty.
            self.spares.reserve(self.full.len() + 2);
            chunk(CHUNK)
        });
        self.full.push(std::mem::replace(&mut self.top, next));
    }

    #[inline]
    pub fn pop(&mut self) -> Option<u32> {
        if self.top.is_empty() {
            let last = self.full.pop()?;
            self.spares.push(std::mem::replace(&mut self.top, last));
        }
        self.top.pop()
    }

    /// Makes room for so many places in all.
    pub fn reserve(&mut self, places: usize) {
        let chunks = places.div_ceil(CHUNK);
        if self.top.capacity() < CHUNK && places > self.top.capacity() {
            let room = places.next_power_of_two().min(CHUNK);
            let mut top = chunk(room);
            top.append(&mut self.top);
            self.top = top;
        }
        while self.full.len() + 1 + self.spares.len() < chunks {
            self.spares.push(chunk(CHUNK));
        }
        self.full.reserve(chunks.saturating_sub(self.full.len()));
        self.spares.reserve(chunks.saturating_sub(self.spares.len()));
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

    /// The chunks of one that was full, or was made room for, are all that it needs.
    #[test]
    fn room_is_made_beforehand() {
        let rooms = |places: &Places| {
            let chunks = places.full.iter().chain([&places.top]).chain(&places.spares);
            let lasting = (places.full.capacity(), places.spares.capacity());
            (lasting, chunks.map(Vec::capacity).sum::<usize>())
        };
        for many in [1, 100, CHUNK, 3 * CHUNK + 5] {
            let mut places = Places::default();
            places.reserve(many);
            let before = rooms(&places);
            (0..many).for_each(|place| places.push(place as u32));
            for _ in 0..many {
                places.pop();
            }
            (0..many).for_each(|place| places.push(place as u32));
            assert_eq!(rooms(&places), before, "{many}");
        }
    }
}
