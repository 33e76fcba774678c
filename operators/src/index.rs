//! Finds what stands in a list by its hash, and forgets all of it at once.

use hashbrown::HashTable;

/// Places in the table for each entry, from which on entries are taken out one by one. To empty a
/// table is to write a byte for each place: as much as 256 of them take as long as to find one entry.
const SPARSE: usize = 256;

/// The table, of places in the list.
#[derive(Default)]
pub(crate) struct Index(HashTable<u32>);

impl Index {
    /// The place of what has this hash and is the one.
    #[inline]
    pub fn find(&self, hash: u64, is_it: impl Fn(usize) -> bool) -> Option<usize> {
        self.0.find(hash, |at| is_it(*at as usize)).map(|at| *at as usize)
    }

    /// Adds a place. `hash_of` gives the hash of what is at any.
    #[inline]
    pub fn add(&mut self, hash: u64, at: usize, hash_of: impl Fn(usize) -> u64) {
        self.0.insert_unique(hash, at as u32, |at| hash_of(*at as usize));
    }

    /// Forgets all of them: the places from 0 on, of which these are the hashes.
    pub fn clear(&mut self, hashes: impl ExactSizeIterator<Item = u64>) {
        if hashes.len() * SPARSE >= self.0.capacity() {
            self.0.clear();
            return;
        }
        // A burst has made it large.
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
    use millstream_engine::key_group::hash_key;

    #[test]
    fn few_and_many_are_forgotten() {
        let mut index = Index::default();
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
