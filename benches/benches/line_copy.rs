//! The cost of passing a line from the read buffer to an operator, which drops it or stores it. The
//! line is either copied into a row, as in the socket source, or passed as a slice that shares the
//! read buffer (crate `bytes`). `cargo bench -p millstream-benches --bench line_copy`.

use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;
use std::hint::black_box;
use std::time::Instant;

const READ_BYTES: usize = 64 * 1024;
const ROUNDS: usize = 9;
const READS: usize = 400;

/// The size of the null bits and the slot that precede the text in a row of one column, in bytes.
const HEAD_BYTES: usize = 16;
/// An owned row, which is sent to another worker or stored in an operator.
type RowBuf = SmallVec<[u8; 88]>;

fn lines(text: &[u8], mut each: impl FnMut(&[u8])) {
    let mut from = 0;
    while let Some(at) = memchr::memchr2(b'\n', b'\r', &text[from..]) {
        each(&text[from..from + at]);
        from += at + 1;
    }
}

/// Runs `read` repeatedly. `count` is the number of lines per read. Returns the nanoseconds per
/// line.
fn timed(count: usize, mut read: impl FnMut()) -> f64 {
    let begun = Instant::now();
    (0..READS).for_each(|_| read());
    begun.elapsed().as_nanos() as f64 / (READS * count) as f64
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    println!("| bytes of a line | row, borrowed | slice, borrowed | row, kept | slice, kept |");
    println!("|---|---|---|---|---|");
    for length in [20, 60, 200, 1_000, 8_000] {
        let mut text = Vec::with_capacity(READ_BYTES);
        while text.len() + length < READ_BYTES {
            text.resize(text.len() + length, b'x');
            text.push(b'\n');
        }
        let mut count = 0;
        lines(&text, |_| count += 1);
        let [mut row, mut slice, mut row_kept, mut slice_kept] = [(); 4].map(|()| Vec::new());
        let (mut buffer, mut out) = (vec![0; READ_BYTES], Vec::new());
        let mut pool = BytesMut::new();
        let (mut rows, mut slices) = (Vec::<RowBuf>::new(), Vec::<Bytes>::new());
        for _ in 0..ROUNDS {
            row.push(timed(count, || {
                buffer[..text.len()].copy_from_slice(black_box(&text));
                lines(&buffer[..text.len()], |line| {
                    out.clear();
                    out.resize(HEAD_BYTES, 0);
                    out.extend_from_slice(line);
                    black_box(&out);
                });
            }));
            slice.push(timed(count, || {
                // The pool allocates a buffer per read. A buffer without live slices is reused.
                pool.reserve(READ_BYTES);
                pool.extend_from_slice(black_box(&text));
                let read = pool.split().freeze();
                lines(&read, |line| {
                    black_box(read.slice_ref(line));
                });
            }));
            row_kept.push(timed(count, || {
                buffer[..text.len()].copy_from_slice(black_box(&text));
                rows.clear();
                lines(&buffer[..text.len()], |line| {
                    out.clear();
                    out.resize(HEAD_BYTES, 0);
                    out.extend_from_slice(line);
                    rows.push(RowBuf::from_slice(&out));
                });
                black_box(&rows);
            }));
            slice_kept.push(timed(count, || {
                slices.clear();
                pool.reserve(READ_BYTES);
                pool.extend_from_slice(black_box(&text));
                let read = pool.split().freeze();
                lines(&read, |line| slices.push(read.slice_ref(line)));
                black_box(&slices);
            }));
        }
        println!(
            "| {length} | {:.1} ns | {:.1} ns | {:.1} ns | {:.1} ns |",
            median(row),
            median(slice),
            median(row_kept),
            median(slice_kept)
        );
    }
}
