//! A hash index over a list, cleared as a whole.

use hashbrown::HashTable;

/// Capacity per entry above which entries are removed one by one. Clearing a table writes a byte
/// per bucket, and writing 256 bytes takes about as long as finding one entry.
const SPARSE: usize = 256;

/// A hash table of list positions.
#[derive(Default)]
pub(crate) struct HashIndex(HashTable<u32>);

impl HashIndex {
    /// The position of the entry with this hash for which `is_it` is true.
    #[inline]
    pub fn find(&self, hash: u64, is_it: impl Fn(usize) -> bool) -> Option<usize> {
        self.0.find(hash, |at| is_it(*at as usize)).map(|at| *at as usize)
    }

    /// Adds a position. `hash_of` returns the hash of the entry at any position.
    #[inline]
    pub fn add(&mut self, hash: u64, at: usize, hash_of: impl Fn(usize) -> u64) {
        self.0.insert_unique(hash, at as u32, |at| hash_of(*at as usize));
    }

    /// Removes all positions. `hashes` are the hashes of the entries at positions 0, 1, 2 ….
    pub fn clear(&mut self, hashes: impl ExactSizeIterator<Item = u64>) {
        if hashes.len() * SPARSE >= self.0.capacity() {
            self.0.clear();
            return;
        }
        // Here the table is much larger than its content, because of an earlier burst.
        for (at, hash) in hashes.enumerate() {
            if let Ok(entry) = self.0.find_entry(hash, |other| *other as usize == at) {
                entry.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millstream_engine::checkpoint::key_group::hash_key;

    #[test]
    fn clear_removes_few_and_many_entries() {
        let mut index = HashIndex::default();
        let mut list = Vec::new();
        for count in [10, 3_000, 2, 500, 0, 3_000] {
            for number in 0..count {
                let hash = hash_key(&number);
                assert_eq!(index.find(hash, |at| list[at] == number), None);
                list.push(number);
                index.add(hash, list.len() - 1, |at| hash_key(&list[at]));
            }
            let all = (0..count).all(|number| {
                index.find(hash_key(&number), |at| list[at] == number) == Some(number as usize)
            });
            assert!(all);
            index.clear(list.iter().map(hash_key));
            assert!(index.0.is_empty(), "after {count}");
            list.clear();
        }
    }
}
