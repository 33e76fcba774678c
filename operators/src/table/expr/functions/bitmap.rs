//! Functions of bitmaps. A bitmap holds the numbers of a bucket of [`BITS`] consecutive numbers, so
//! that distinct numbers can be counted by bucket.

use super::registry::{Function, Typed, cells, typed, unexpected};
use crate::table::expr::cell::Cell;
use crate::table::types::DataType;

use DataType as T;

/// Number of bits of a bitmap.
const BITS: i64 = 8 * 4096;

pub(super) static FUNCTIONS: &[Function] = &[
    cells(
        "bitmap_bit_position",
        "bitmap_bit_position(n): the bit of a number in the bitmap of its bucket, from 0",
        (1, 1),
        |n, a| typed(n, a, &[T::Long], T::Long),
        |a, _, _| {
            let n = a[0].long();
            // As in Spark, the smallest BIGINT has itself as its negative value.
            Ok(Cell::Long(if n > 0 { (n - 1) % BITS } else { n.wrapping_neg() % BITS }))
        },
    )
    .usage("3.5.0", "bitmap_bit_position(123)", "122"),
    cells(
        "bitmap_bucket_number",
        "bitmap_bucket_number(n): the bucket of a number, whose bitmap has its bit",
        (1, 1),
        |n, a| typed(n, a, &[T::Long], T::Long),
        |a, _, _| {
            let n = a[0].long();
            Ok(Cell::Long(if n > 0 { 1 + (n - 1) / BITS } else { n / BITS }))
        },
    )
    .usage("3.5.0", "bitmap_bucket_number(40000)", "2"),
    cells(
        "bitmap_count",
        "bitmap_count(bitmap): the number of bits of a BINARY that are 1",
        (1, 1),
        |n, a| match a[0].data_type {
            T::Binary => {
                let nullable = a[0].nullable;
                Ok(Typed::new(a, T::Long, nullable))
            }
            _ => Err(unexpected(n, "BINARY", &a[0])),
        },
        |a, _, _| {
            let ones: u64 = a[0].bytes().iter().map(|byte| u64::from(byte.count_ones())).sum();
            Ok(Cell::Long(ones as i64))
        },
    )
    .usage("3.5.0", "bitmap_count(X'FF01')", "9"),
];
