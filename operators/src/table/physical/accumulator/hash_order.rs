//! The order of the values in Spark's hash tables (`OpenHashMap`), which decides between values that
//! are equally frequent.
//!
//! The order of values with different slots depends only on their hashes. The order of those that
//! collide depends on the order of the insertions: here that of the values. So a result may differ
//! from Spark's, which inserts in the order of the rows, but it does not depend on the order of the
//! rows or on the parallelism.
//!
//! *Bounds.* Values whose hashes collide are found by probing, so very many of them would take time
//! quadratic in their number. The order is given up after a number of probes that hashes without
//! many collisions do not need.

use crate::table::expr::functions::spread;

/// The slots of a table without values.
const SLOTS_MIN: usize = 64;
/// An unused slot.
const FREE: u32 = u32::MAX;
/// The number of hash tables that values pass through in Spark: that of their partition, a copy of
/// it behind the exchange, and that of the result. Each is filled in the order of the one before.
const TABLES: usize = 3;
/// The maximum number of probes for each value and in total.
const PROBES_PER_VALUE: usize = 32;
const PROBES_MIN: usize = 1024;

/// The indices of hashes in the order in which Spark's result iterates over them. `None` if too many
/// of the hashes collide.
pub(super) fn iteration_order(hashes: &[u32]) -> Option<Vec<u32>> {
    let mut order: Vec<u32> = (0..hashes.len() as u32).collect();
    for _ in 0..TABLES {
        order = order_of_insertions(hashes, &order)?;
    }
    Some(order)
}

/// The order of the slots of a table after insertions. `None` if too many of the hashes collide.
fn order_of_insertions(hashes: &[u32], inserted: &[u32]) -> Option<Vec<u32>> {
    let mut slots = vec![FREE; SLOTS_MIN];
    let mut probes = PROBES_PER_VALUE * hashes.len() + PROBES_MIN;
    for (count, index) in inserted.iter().enumerate() {
        insert(&mut slots, hashes, *index, &mut probes)?;
        // The table is at most 70 percent full.
        if (count + 1) * 10 > slots.len() * 7 {
            let mut larger = vec![FREE; slots.len() * 2];
            for index in used(&slots) {
                insert(&mut larger, hashes, index, &mut probes)?;
            }
            slots = larger;
        }
    }
    Some(used(&slots).collect())
}

fn used(slots: &[u32]) -> impl Iterator<Item = u32> {
    slots.iter().copied().filter(|index| *index != FREE)
}

/// Inserts an index into the first free slot. The distance to the next slot grows by 1. `None` if no
/// `probes` are left.
fn insert(slots: &mut [u32], hashes: &[u32], index: u32, probes: &mut usize) -> Option<()> {
    let mask = slots.len() - 1;
    let (mut at, mut step) = (spread(hashes[index as usize]) as usize & mask, 1);
    while slots[at] != FREE {
        *probes = probes.checked_sub(1)?;
        (at, step) = ((at + step) & mask, step + 1);
    }
    slots[at] = index;
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first values, as Spark 4.2 answers: `mode` of integers that are all equally frequent.
    #[test]
    fn the_first_value_is_that_of_spark() {
        let first = |values: &[i64]| {
            let hashes: Vec<u32> = values.iter().map(|v| *v as u32).collect();
            values[iteration_order(&hashes).unwrap()[0] as usize]
        };
        assert_eq!(first(&[-10, 0, 10]), 0);
        assert_eq!(first(&(0..100).collect::<Vec<_>>()), 19);
    }

    #[test]
    fn every_value_has_one_slot() {
        for count in [0, 1, 44, 45, 64, 89, 1000] {
            let hashes: Vec<u32> = (0..count).map(|index| index / 4).collect();
            let mut order = iteration_order(&hashes).unwrap();
            order.sort_unstable();
            assert_eq!(order, (0..count).collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_order_of_very_many_colliding_values_is_given_up() {
        let order = |count| iteration_order(&vec![7; count]);
        assert!(order(40).is_some_and(|order| order.len() == 40));
        assert_eq!(order(1_000_000), None);
    }
}
