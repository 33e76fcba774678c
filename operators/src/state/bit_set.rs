//! A set of small numbers with fast lookup of the smallest and the largest one.

/// A set of numbers, as a tree of words. Each bit of an upper word tells whether the corresponding
/// word of the level below is not zero.
#[derive(Debug, Default)]
pub(crate) struct BitSet {
    /// The levels of the tree. The first has one bit per number, the last has a single word.
    levels: Vec<Vec<u64>>,
}

impl BitSet {
    pub fn insert(&mut self, number: usize) {
        let (mut at, mut level) = (number, 0);
        loop {
            if level == self.levels.len() {
                // The new root must represent the words of the level below.
                let any = self.levels.last().is_some_and(|below| below[0] != 0);
                self.levels.push(vec![u64::from(any)]);
            }
            let words = &mut self.levels[level];
            if words.len() <= at / 64 {
                words.resize(at / 64 + 1, 0);
            }
            words[at / 64] |= 1 << (at % 64);
            if words.len() == 1 && level + 1 == self.levels.len() {
                return;
            }
            (at, level) = (at / 64, level + 1);
        }
    }

    pub fn remove(&mut self, number: usize) {
        let mut at = number;
        for words in &mut self.levels {
            let Some(word) = words.get_mut(at / 64) else { return };
            *word &= !(1 << (at % 64));
            if *word != 0 {
                return;
            }
            at /= 64;
        }
    }

    /// The smallest number of the set; `None` if the set is empty.
    #[inline]
    pub fn first(&self) -> Option<usize> {
        self.search(|word| word.trailing_zeros() as usize)
    }

    /// The largest number of the set; `None` if the set is empty.
    pub fn last(&self) -> Option<usize> {
        self.search(|word| 63 - word.leading_zeros() as usize)
    }

    #[inline]
    fn search(&self, choose: impl Fn(u64) -> usize) -> Option<usize> {
        let mut at = 0;
        for words in self.levels.iter().rev() {
            let word = words[at];
            if word == 0 {
                return None;
            }
            at = at * 64 + choose(word);
        }
        (!self.levels.is_empty()).then_some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn the_bit_set_behaves_like_a_set(steps: Vec<(u32, u8, bool)>) {
            let (mut bits, mut model) = (BitSet::default(), BTreeSet::new());
            for (number, zeros, is_in) in steps {
                let number = (number as usize % 300_000) >> (zeros % 18);
                if is_in {
                    bits.insert(number);
                    model.insert(number);
                } else {
                    bits.remove(number);
                    model.remove(&number);
                }
                prop_assert_eq!(bits.first(), model.first().copied());
                prop_assert_eq!(bits.last(), model.last().copied());
            }
            while let Some(number) = bits.first() {
                prop_assert_eq!(Some(number), model.pop_first());
                bits.remove(number);
            }
            prop_assert!(model.is_empty() && bits.last().is_none());
        }
    }
}
