//! The order of the values in Spark's hash tables (`OpenHashMap`), which decides between values that
//! are equally frequent.
//!
//! The order of values with different slots depends only on their hashes. The order of those that
//! collide depends on the order of the insertions: here that of the values. So a result may differ
//! from Spark's, which inserts in the order of the rows, but it does not depend on the order of the
//! rows or on the parallelism.

use crate::table::expr::functions::spread;

/// The slots of a table without values.
const SLOTS_MIN: usize = 64;
/// An unused slot.
const FREE: u32 = u32::MAX;
/// The number of hash tables that values pass through in Spark: that of their partition, a copy of
/// it behind the exchange, and that of the result. Each is filled in the order of the one before.
const TABLES: usize = 3;

/// The indices of hashes in the order in which Spark's result iterates over them.
pub(super) fn iteration_order(hashes: &[u32]) -> Vec<u32> {
    let mut order: Vec<u32> = (0..hashes.len() as u32).collect();
    for _ in 0..TABLES {
        order = order_of_insertions(hashes, &order);
    }
    order
}

/// The order of the slots of a table after insertions.
fn order_of_insertions(hashes: &[u32], inserted: &[u32]) -> Vec<u32> {
    let mut slots = vec![FREE; SLOTS_MIN];
    for (count, index) in inserted.iter().enumerate() {
        insert(&mut slots, hashes, *index);
        // The table is at most 70 percent full.
        if (count + 1) * 10 > slots.len() * 7 {
            let mut larger = vec![FREE; slots.len() * 2];
            used(&slots).for_each(|index| insert(&mut larger, hashes, index));
            slots = larger;
        }
    }
    used(&slots).collect()
}

fn used(slots: &[u32]) -> impl Iterator<Item = u32> {
    slots.iter().copied().filter(|index| *index != FREE)
}

/// Inserts an index into the first free slot. The distance to the next slot grows by 1.
fn insert(slots: &mut [u32], hashes: &[u32], index: u32) {
    let mask = slots.len() - 1;
    let (mut at, mut step) = (spread(hashes[index as usize]) as usize & mask, 1);
    while slots[at] != FREE {
        (at, step) = ((at + step) & mask, step + 1);
    }
    slots[at] = index;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first values, as Spark 4.2 answers: `mode` of integers that are all equally frequent.
    #[test]
    fn the_first_value_is_that_of_spark() {
        let first = |values: &[i64]| {
            let hashes: Vec<u32> = values.iter().map(|v| *v as u32).collect();
            values[iteration_order(&hashes)[0] as usize]
        };
        assert_eq!(first(&[-10, 0, 10]), 0);
        assert_eq!(first(&(0..100).collect::<Vec<_>>()), 19);
    }

    #[test]
    fn every_value_has_one_slot() {
        for count in [0, 1, 44, 45, 64, 89, 1000] {
            let hashes = vec![7; count];
            let mut order = iteration_order(&hashes);
            order.sort_unstable();
            assert_eq!(order, (0..count as u32).collect::<Vec<_>>());
        }
    }
}
