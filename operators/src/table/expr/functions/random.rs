//! Random functions with Spark's generators, so that a seed gives the same values as in Spark.
//! `rand` and `randn` use a 64-bit xorshift generator whose seed is hashed with MurmurHash3. `uuid`
//! and `shuffle` use the Mersenne Twister. Spark adds the partition number to the seed; the values
//! here are those of partition 0.

use super::registry::{Call, Function, Typed, any_nullable, called, expect, typed};
use super::seed_index;
use super::string_rare::bounded;
use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::cell::{Cell, elements};
use crate::table::expr::compile::{Compiled, bytes_fn, double_fn, failed, fold};
use crate::table::expr::{Node, Resolved, coercion};
use crate::table::row::{Array, RowWriter};
use crate::table::types::DataType as T;
use crate::table::value::Value;
use bumpalo::collections::Vec as BumpVec;
use std::cell::RefCell;

pub(super) static FUNCTIONS: &[Function] = &[
    called(
        "rand",
        "rand([seed]): a random number, from 0 to below 1",
        (0, 1),
        number,
        |_, call| {
            let state = RefCell::new(XorShift::new(seed(&call, 0)));
            double_fn(move |_| Ok(Some(state.borrow_mut().double())))
        },
    )
    .with_seed_at(0)
    .usage("1.5.0", "rand(1) < 1", "true"),
    called(
        "randn",
        "randn([seed]): a random number, normally distributed",
        (0, 1),
        number,
        |_, call| {
            let state = RefCell::new((XorShift::new(seed(&call, 0)), None));
            double_fn(move |_| Ok(Some(gaussian(&mut state.borrow_mut()))))
        },
    )
    .with_seed_at(0)
    .usage("1.5.0", "randn(1) IS NOT NULL", "true"),
    called(
        "uuid",
        "uuid([seed]): a random one",
        (0, 1),
        |name, args| {
            let args = seeded(name, args, 0)?;
            Ok(Typed::new(args, T::String, false))
        },
        |_, call| {
            let state = RefCell::new(Twister::new(seed(&call, 0)));
            bytes_fn(move |cx| {
                let mut state = state.borrow_mut();
                let (high, low) = (state.long(), state.long());
                let (high, low) = (high & !0xF000 | 0x4000, low & !(0b11 << 62) | 0b10 << 62);
                let text = bumpalo::format!(
                    in cx.arena,
                    "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
                    high >> 32,
                    high >> 16 & 0xFFFF,
                    high & 0xFFFF,
                    low >> 48,
                    low & 0xFFFF_FFFF_FFFF
                );
                Ok(Some(text.into_bump_str().as_bytes()))
            })
        },
    )
    .with_seed_at(0)
    .usage("2.3.0", "length(uuid())", "36"),
    called(
        "shuffle",
        "shuffle(array[, seed]): its elements in a random order",
        (1, 2),
        |name, args| {
            let data_type = args[0].data_type.clone();
            if !matches!(data_type, T::Array(_)) {
                return Err(super::registry::unexpected(name, "an array", &args[0]));
            }
            let nullable = any_nullable(&args[..1]);
            Ok(Typed::new(seeded(name, args, 1)?, data_type, nullable))
        },
        |args, call| {
            let state = RefCell::new(Twister::new(seed(&call, 1)));
            let element = call.element(0).clone();
            let mut args = args.into_iter();
            let Some(Compiled::Bytes(array)) = args.next() else {
                unreachable!("resolution has made sure of an array")
            };
            bytes_fn(move |cx| {
                let Some(bytes) = array(cx)? else { return Ok(None) };
                let array = Array::new(bytes);
                let cells: Vec<Cell<'_>> = elements(array, &element).collect();
                let mut out = BumpVec::new_in(cx.arena);
                let mut writer = RowWriter::array(&mut out, cells.len());
                for (to, from) in state.borrow_mut().places(cells.len()).into_iter().enumerate() {
                    cells[from].put(&mut writer, to);
                }
                Ok(Some(out.into_bump_slice()))
            })
        },
    )
    .with_seed_at(1)
    .usage("2.4.0", "size(shuffle(array(1, 2, 3)))", "3"),
    called(
        "randstr",
        "randstr(length[, seed]): a random text of letters and digits",
        (1, 2),
        |name, args| {
            check_constant(name, &args[0])?;
            let length = expect(name, args[..1].to_vec(), &[T::Int])?;
            let args = length.into_iter().chain(args.into_iter().skip(1)).collect();
            Ok(Typed::new(seeded(name, args, 1)?, T::String, false))
        },
        |args, call| {
            let state = RefCell::new(XorShift::new(seed(&call, 1)));
            let Some(Compiled::Long(length)) = args.into_iter().next() else {
                unreachable!("resolution has made sure of an INT")
            };
            bytes_fn(move |cx| {
                let length = length(cx)?.unwrap_or(0);
                let Ok(length) = usize::try_from(length) else {
                    return failed(
                        "DATATYPE_MISMATCH.VALUE_OUT_OF_RANGE",
                        format!("the length {length} of `randstr` is negative"),
                        "Use a length from 0",
                    );
                };
                bounded(length)?;
                let mut state = state.borrow_mut();
                let letter = |_| {
                    let word = state.bits(32) as i32;
                    LETTERS[(word % LETTERS.len() as i32).unsigned_abs() as usize]
                };
                Ok(Some(cx.arena.alloc_slice_fill_with(length, letter)))
            })
        },
    )
    .with_seed_at(1)
    .usage("4.0.0", "randstr(3, 0)", "ceV"),
    called(
        "uniform",
        "uniform(from, to[, seed]): a random number, from the first to below the second",
        (2, 3),
        |_, _| {
            Err(PlanError::new("UNRESOLVED_ROUTINE", "`uniform` is resolved to `rand`", "rand()"))
        },
        |_, _| unreachable!("it is resolved to `rand`"),
    )
    .usage("4.0.0", "uniform(10, 20, 0)", "17"),
];

const LETTERS: &[u8; 62] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

fn check_constant(name: &str, arg: &Resolved) -> PlanResult<()> {
    if arg.is_foldable() {
        return Ok(());
    }
    Err(PlanError::new(
        "DATATYPE_MISMATCH.NON_FOLDABLE_INPUT",
        format!("`{name}` needs a constant, but has `{arg}`"),
        "Write a number",
    ))
}

/// Resolves `uniform(from, to[, seed])` to `from + (to - from) * rand(seed)`. The result has the
/// common type of `from` and `to`.
pub(super) fn uniform(mut args: Vec<Resolved>) -> PlanResult<Resolved> {
    let seed = args.split_off(2);
    for arg in &args {
        check_constant("uniform", arg)?;
        if !arg.data_type.is_numeric() && arg.data_type != T::Null {
            return Err(super::registry::unexpected("uniform", "a number", arg));
        }
    }
    let (from, to) = (args[0].data_type.clone(), args[1].data_type.clone());
    let is_decimal = |data_type: &T| matches!(data_type, T::Decimal(..));
    let data_type = match (&from, &to) {
        (T::Null, _) | (_, T::Null) => T::Double,
        // A whole limit does not widen a decimal.
        (decimal, whole) | (whole, decimal) if is_decimal(decimal) && whole.is_integral() => {
            decimal.clone()
        }
        (T::Float, whole) | (whole, T::Float) if whole.is_integral() => T::Float,
        (from, to) => coercion::widest(from, to).unwrap_or(T::Double),
    };
    let [from, to] = [0, 1].map(|index| args[index].clone().coerce(&T::Double));
    let rand = super::resolve("rand", seed)?;
    let span = super::resolve("-", vec![to, from.clone()])?;
    let above = super::resolve("*", vec![span, rand])?;
    let value = super::resolve("+", vec![from, above])?;
    crate::table::expr::resolve::cast(value, &data_type, false)
}

/// Adds a seed to each random call that has none, so that all copies of the expression give the
/// same values.
pub fn with_seeds(expr: Resolved) -> Resolved {
    let expr = expr.map_children(&mut with_seeds);
    match expr.node {
        Node::Call(name, mut args) if seed_index(name) == Some(args.len()) => {
            args.push(Resolved::literal(Value::Long(drawn()), T::Long));
            Resolved { node: Node::Call(name, args), ..expr }
        }
        node => Resolved { node, ..expr },
    }
}

/// Draws a random seed from the operating system's entropy.
fn drawn() -> i64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0u8) as i64
}

fn number(name: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    Ok(Typed::new(seeded(name, args, 0)?, T::Double, false))
}

/// Checks and coerces the seed, which follows `before` other arguments and must be a constant.
fn seeded(name: &str, mut args: Vec<Resolved>, before: usize) -> PlanResult<Vec<Resolved>> {
    let Some(seed) = args.get(before) else { return Ok(args) };
    if !seed.is_constant() {
        return Err(PlanError::new(
            "SEED_EXPRESSION_IS_UNFOLDABLE",
            format!("the seed `{seed}` of `{name}` is not a constant"),
            "Write a number",
        ));
    }
    let wanted = matches!(seed.data_type, T::Int | T::Long | T::Null);
    if !wanted {
        return Err(super::registry::unexpected(name, "an INT or BIGINT", seed));
    }
    let Typed { args: mut seed, .. } = typed(name, args.split_off(before), &[T::Long], T::Long)?;
    args.append(&mut seed);
    Ok(args)
}

/// The seed of a call. NULL counts as 0, and so does an argument that is not constant. Without a
/// seed argument, a random seed is drawn.
fn seed(call: &Call, index: usize) -> i64 {
    match call.args.get(index) {
        Some(seed) => match fold(seed.clone(), call.semantics).node {
            Node::Literal(Value::Long(seed)) => seed,
            _ => 0,
        },
        None => drawn(),
    }
}

/// Marsaglia's 64-bit xorshift generator.
struct XorShift(i64);

impl XorShift {
    fn new(seed: i64) -> Self {
        const FIRST: u32 = 0x3c07_4a61;
        let bytes = seed.to_be_bytes();
        let low = murmur(&bytes, FIRST);
        let high = murmur(&bytes, low);
        Self((u64::from(high) << 32 | u64::from(low)) as i64)
    }

    fn bits(&mut self, count: u32) -> i64 {
        let mut next = self.0 ^ (self.0 << 21);
        next ^= (next as u64 >> 35) as i64;
        next ^= next << 4;
        self.0 = next;
        next & ((1 << count) - 1)
    }

    fn double(&mut self) -> f64 {
        let bits = (self.bits(26) << 27) + self.bits(27);
        bits as f64 / (1u64 << 53) as f64
    }
}

/// The next normally distributed number. As in Java, two numbers are computed at once, and the
/// second is stored for the next call.
fn gaussian((state, second): &mut (XorShift, Option<f64>)) -> f64 {
    if let Some(second) = second.take() {
        return second;
    }
    loop {
        let (x, y) = (2.0 * state.double() - 1.0, 2.0 * state.double() - 1.0);
        let square = x * x + y * y;
        if square < 1.0 && square != 0.0 {
            let factor = (-2.0 * square.ln() / square).sqrt();
            *second = Some(y * factor);
            return x * factor;
        }
    }
}

/// MurmurHash3 (32 bits) of bytes whose number is a multiple of 4.
fn murmur(bytes: &[u8], seed: u32) -> u32 {
    let mut hash = seed;
    let (words, _) = bytes.as_chunks::<4>();
    for word in words {
        let k = u32::from_le_bytes(*word).wrapping_mul(0xcc9e_2d51).rotate_left(15);
        hash ^= k.wrapping_mul(0x1b87_3593);
        hash = hash.rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64);
    }
    hash ^= bytes.len() as u32;
    hash = (hash ^ hash >> 16).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ hash >> 13).wrapping_mul(0xc2b2_ae35);
    hash ^ hash >> 16
}

const WORDS: usize = 624;
const AHEAD: usize = 397;

/// The Mersenne Twister, seeded with the two halves of a 64-bit seed.
struct Twister {
    words: Box<[u32; WORDS]>,
    next: usize,
}

impl Twister {
    fn new(seed: i64) -> Self {
        let key = [(seed as u64 >> 32) as u32, seed as u32];
        let mut words = Box::new([0u32; WORDS]);
        words[0] = 19_650_218;
        for i in 1..WORDS {
            let before = words[i - 1];
            words[i] = (before ^ before >> 30).wrapping_mul(1_812_433_253).wrapping_add(i as u32);
        }
        let (mut i, mut j) = (1, 0);
        for _ in 0..WORDS {
            let before = words[i - 1];
            words[i] = (words[i] ^ (before ^ before >> 30).wrapping_mul(1_664_525))
                .wrapping_add(key[j])
                .wrapping_add(j as u32);
            (i, j) = (i + 1, (j + 1) % key.len());
            if i == WORDS {
                (words[0], i) = (words[WORDS - 1], 1);
            }
        }
        for _ in 1..WORDS {
            let before = words[i - 1];
            words[i] = (words[i] ^ (before ^ before >> 30).wrapping_mul(1_566_083_941))
                .wrapping_sub(i as u32);
            i += 1;
            if i == WORDS {
                (words[0], i) = (words[WORDS - 1], 1);
            }
        }
        words[0] = 0x8000_0000;
        Self { words, next: WORDS }
    }

    fn word(&mut self) -> u32 {
        if self.next == WORDS {
            for i in 0..WORDS {
                let y = self.words[i] & 0x8000_0000 | self.words[(i + 1) % WORDS] & 0x7fff_ffff;
                let twist = if y & 1 == 1 { 0x9908_b0df } else { 0 };
                self.words[i] = self.words[(i + AHEAD) % WORDS] ^ (y >> 1) ^ twist;
            }
            self.next = 0;
        }
        let mut y = self.words[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ y >> 18
    }

    fn long(&mut self) -> u64 {
        u64::from(self.word()) << 32 | u64::from(self.word())
    }

    /// A uniform number below `n`, computed as in Apache Commons Math.
    fn below(&mut self, n: u32) -> u32 {
        if n.is_power_of_two() {
            return ((u64::from(n) * u64::from(self.word() >> 1)) >> 31) as u32;
        }
        loop {
            let bits = self.word() >> 1;
            let value = bits % n;
            // Values from the last, incomplete range of `n` numbers are rejected, to keep the
            // distribution uniform.
            if bits - value <= (i32::MAX as u32) - (n - 1) {
                return value;
            }
        }
    }

    /// A random permutation of `count` indices.
    fn places(&mut self, count: usize) -> Vec<usize> {
        let mut places = vec![0; count];
        for i in 0..count {
            let j = self.below(i as u32 + 1) as usize;
            places[i] = places[j];
            places[j] = i;
        }
        places
    }
}
