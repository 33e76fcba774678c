//! Hash functions, bit for bit equal to Spark's.

use super::registry::{Function, MANY, Typed, cells, made, nullable_cells, typed};
use crate::table::datetime::CalendarInterval;
use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::Resolved;
use crate::table::expr::cell::{Cell, elements, field};
use crate::table::expr::compile::{EvalError, failed};
use crate::table::expr::functions::canonical_double;
use crate::table::types::DataType;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Digest;

use DataType as T;

pub(super) static FUNCTIONS: &[Function] = &[
    nullable_cells(
        "hash",
        "hash(a, …): Murmur3 of 32 bits, seed 42",
        (1, MANY),
        hashable_to_int,
        |a, call, _| {
            let pairs = a.iter().enumerate();
            let hash = pairs.fold(42, |hash, (i, cell)| murmur(*cell, call.data_type(i), hash));
            Ok(Cell::Long(i64::from(hash as i32)))
        },
    )
    .usage("2.0.0", "hash('Millstream')", "-1640861961"),
    nullable_cells(
        "xxhash64",
        "xxhash64(a, …): seed 42",
        (1, MANY),
        hashable_to_long,
        |a, call, _| {
            let pairs = a.iter().enumerate();
            let hash = pairs.fold(42, |hash, (i, cell)| xx(*cell, call.data_type(i), hash));
            Ok(Cell::Long(hash as i64))
        },
    )
    .usage("3.0.0", "xxhash64('Millstream')", "-4999507816194538216"),
    cells(
        "crc32",
        "crc32(bytes): the CRC-32 checksum",
        (1, 1),
        |n, a| typed(n, a, &[T::Binary], T::Long),
        |a, _, _| Ok(Cell::Long(i64::from(crc32fast::hash(a[0].bytes())))),
    )
    .usage("1.5.0", "crc32('Millstream')", "4067909443"),
    cells(
        "md5",
        "md5(bytes): in base 16",
        (1, 1),
        |n, a| typed(n, a, &[T::Binary], T::String),
        |a, _, arena| Ok(made(arena, &hex(&md5::Md5::digest(a[0].bytes())))),
    )
    .usage("1.5.0", "md5('Millstream')", "0beed762f24528e0d084075e7e6c9c97"),
    cells(
        "sha1",
        "sha1(bytes): in base 16",
        (1, 1),
        |n, a| typed(n, a, &[T::Binary], T::String),
        |a, _, arena| Ok(made(arena, &hex(&sha1::Sha1::digest(a[0].bytes())))),
    )
    .usage("1.5.0", "sha1('Millstream')", "7010b1fc9f89792c94bf4dedc46e2e591e61bbe2"),
    cells(
        "sha2",
        "sha2(bytes, 224, 256, 384 or 512): in base 16; 0 is 256",
        (2, 2),
        |n, a| typed(n, a, &[T::Binary, T::Int], T::String),
        |a, _, arena| {
            let bytes = a[0].bytes();
            Ok(match a[1].long() {
                224 => made(arena, &hex(&sha2::Sha224::digest(bytes))),
                0 | 256 => made(arena, &hex(&sha2::Sha256::digest(bytes))),
                384 => made(arena, &hex(&sha2::Sha384::digest(bytes))),
                512 => made(arena, &hex(&sha2::Sha512::digest(bytes))),
                _ => Cell::Null,
            })
        },
    )
    .usage(
        "1.5.0",
        "sha2('Millstream', 256)",
        "59784ac321a3155bfc3f01a27214e45509001e23db0828e0741999208303f220",
    ),
    cells(
        "hmac",
        "hmac(key, bytes[, 'SHA-256']): the keyed hash; also SHA-1, SHA-224, SHA-384, SHA-512, MD5",
        (2, 3),
        |n, a| typed(n, a, &[T::Binary, T::Binary, T::String], T::Binary),
        |a, _, arena| {
            let algorithm = a.get(2).map_or("SHA-256", |algorithm| algorithm.text());
            let hash = keyed_hash(algorithm, a[0].bytes(), a[1].bytes())?;
            Ok(Cell::Bytes(arena.alloc_slice_copy(&hash)))
        },
    )
    .usage(
        "4.3.0",
        "hex(hmac('key', 'Millstream', 'SHA-1'))",
        "E09BA171367F2CEB1686AD1671CC08497544D6DC",
    ),
    nullable_cells(
        "raise_error",
        "raise_error(message): fails with the message",
        (1, 1),
        |n, a| typed(n, a, &[T::String], T::Null),
        |a, _, _| failed("USER_RAISED_EXCEPTION", a[0].text(), ""),
    )
    .usage("3.1.0", "if(true, 'fine', raise_error('no value'))", "fine"),
    nullable_cells(
        "assert_true",
        "assert_true(condition[, message]): NULL, or fails",
        (1, 2),
        |n, a| typed(n, a, &[T::Boolean, T::String], T::Null),
        |a, call, _| match a[0].bool() {
            true => Ok(Cell::Null),
            false => {
                let message = a
                    .get(1)
                    .map_or(format!("'{}' is not true!", call.args[0]), |m| m.text().to_string());
                failed("USER_RAISED_EXCEPTION", message, "")
            }
        },
    )
    .usage("2.0.0", "assert_true(1 < 2)", "NULL"),
];

/// Hashes one value with seed 42, the seed that Spark's sketches use.
pub fn xxhash64(cell: Cell<'_>, data_type: &DataType) -> u64 {
    xx(cell, data_type, 42)
}

fn keyed_hash(algorithm: &str, key: &[u8], bytes: &[u8]) -> Result<Vec<u8>, Box<EvalError>> {
    fn of<M: Mac + KeyInit>(key: &[u8], bytes: &[u8]) -> Option<Vec<u8>> {
        let mac = <M as KeyInit>::new_from_slice(key).ok()?;
        Some(mac.chain_update(bytes).finalize().into_bytes().to_vec())
    }
    let hash = match algorithm.to_ascii_uppercase().replacen("SHA-", "SHA", 1).as_str() {
        _ if key.is_empty() => None,
        "MD5" => of::<Hmac<md5::Md5>>(key, bytes),
        "SHA1" => of::<Hmac<sha1::Sha1>>(key, bytes),
        "SHA224" => of::<Hmac<sha2::Sha224>>(key, bytes),
        "SHA256" => of::<Hmac<sha2::Sha256>>(key, bytes),
        "SHA384" => of::<Hmac<sha2::Sha384>>(key, bytes),
        "SHA512" => of::<Hmac<sha2::Sha512>>(key, bytes),
        _ => {
            return failed(
                "INVALID_PARAMETER_VALUE.HMAC_ALGORITHM",
                format!("`hmac` has no algorithm '{algorithm}'"),
                "Use SHA-1, SHA-224, SHA-256, SHA-384, SHA-512 or MD5",
            );
        }
    };
    hash.map_or_else(
        || {
            let condition = "INVALID_PARAMETER_VALUE.HMAC_CRYPTO_ERROR";
            failed(condition, "the key of `hmac` is empty", "Use a key of at least one byte")
        },
        Ok,
    )
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn hashable(name: &str, args: Vec<Resolved>, to: DataType) -> PlanResult<Typed> {
    match args.iter().find(|arg| !arg.data_type.is_hashable()) {
        Some(arg) => {
            let (condition, fix) = match arg.data_type.has_variant() {
                true => ("DATATYPE_MISMATCH.HASH_VARIANT_TYPE", "Hash its text: CAST(v AS STRING)"),
                false => (
                    "DATATYPE_MISMATCH.HASH_MAP_TYPE",
                    "Hash the map's entries: map_entries gives them as an array",
                ),
            };
            let reason =
                format!("`{name}` takes no maps and no VARIANT, but `{arg}` is {}", arg.data_type);
            Err(PlanError::new(condition, reason, fix))
        }
        None => Ok(Typed::new(args, to, false)),
    }
}

fn hashable_to_int(name: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    hashable(name, args, T::Int)
}

fn hashable_to_long(name: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    hashable(name, args, T::Long)
}

/// A scalar value in the form that the hash functions take.
enum Part<'a> {
    Int(i32),
    Long(i64),
    Bytes(&'a [u8]),
    Big(Vec<u8>),
}

fn part<'a>(cell: Cell<'a>, data_type: &DataType) -> Option<Part<'a>> {
    Some(match (cell, data_type) {
        (Cell::Null, _) => return None,
        (Cell::Bool(v), _) => Part::Int(i32::from(v)),
        (Cell::Long(v), T::Byte | T::Short | T::Int | T::Date | T::YearMonthInterval(..)) => {
            Part::Int(v as i32)
        }
        (Cell::Long(v), _) => Part::Long(v),
        (Cell::Double(v), T::Float) => Part::Int((canonical_double(v) as f32).to_bits() as i32),
        (Cell::Double(v), _) => Part::Long(canonical_double(v).to_bits() as i64),
        (Cell::Decimal(v), T::Decimal(precision, _)) if *precision <= 18 => Part::Long(v as i64),
        (Cell::Decimal(v), _) => {
            // Big-endian two's complement without redundant leading bytes, as in Java's
            // `BigInteger`.
            let bytes = v.to_be_bytes();
            let filler = if v < 0 { 0xFF } else { 0 };
            let sign = |b: u8| b & 0x80 == filler & 0x80;
            let mut from = 0;
            while from < 15 && bytes[from] == filler && sign(bytes[from + 1]) {
                from += 1;
            }
            Part::Big(bytes[from..].to_vec())
        }
        (Cell::Bytes(v), _) => Part::Bytes(v),
    })
}

/// The parts of an INTERVAL in the order in which they are hashed.
fn parts_of_interval(cell: Cell<'_>) -> [(Cell<'static>, DataType); 3] {
    let CalendarInterval { months, days, micros } = CalendarInterval::from_bytes(cell.bytes());
    [
        (Cell::Long(micros), T::Long),
        (Cell::Long(days.into()), T::Int),
        (Cell::Long(months.into()), T::Int),
    ]
}

fn murmur(cell: Cell<'_>, data_type: &DataType, seed: u32) -> u32 {
    match data_type {
        T::Array(element) if !cell.is_null() => {
            elements(cell.array(), element).fold(seed, |hash, e| murmur(e, element, hash))
        }
        T::Struct(fields) if !cell.is_null() => {
            let (bytes, width) = (cell.bytes(), fields.len());
            fields.iter().enumerate().fold(seed, |hash, (i, f)| {
                murmur(field(bytes, i, width, &f.data_type), &f.data_type, hash)
            })
        }
        T::CalendarInterval if !cell.is_null() => {
            parts_of_interval(cell).iter().fold(seed, |hash, (v, t)| murmur(*v, t, hash))
        }
        _ => match part(cell, data_type) {
            None => seed,
            Some(Part::Int(v)) => finish(mix(seed, v as u32), 4),
            Some(Part::Long(v)) => finish(mix(mix(seed, v as u32), (v >> 32) as u32), 8),
            Some(Part::Bytes(v)) => murmur_bytes(v, seed),
            Some(Part::Big(v)) => murmur_bytes(&v, seed),
        },
    }
}

pub(super) fn mix(hash: u32, value: u32) -> u32 {
    let value = value.wrapping_mul(0xcc9e_2d51).rotate_left(15).wrapping_mul(0x1b87_3593);
    (hash ^ value).rotate_left(13).wrapping_mul(5).wrapping_add(0xe654_6b64)
}

pub(super) fn finish(hash: u32, length: u32) -> u32 {
    let mut hash = hash ^ length;
    hash = (hash ^ hash >> 16).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ hash >> 13).wrapping_mul(0xc2b2_ae35);
    hash ^ hash >> 16
}

/// Spark's variant of MurmurHash3. Each byte after the last whole 4-byte word is sign-extended and
/// mixed in on its own.
pub(in crate::table) fn murmur_bytes(bytes: &[u8], seed: u32) -> u32 {
    let mut words = bytes.chunks_exact(4);
    let mut hash = seed;
    for word in &mut words {
        hash = mix(hash, u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
    }
    for byte in words.remainder() {
        hash = mix(hash, i32::from(*byte as i8) as u32);
    }
    finish(hash, bytes.len() as u32)
}

const P1: u64 = 0x9E37_79B1_85EB_CA87;
const P2: u64 = 0xC2B2_AE3D_27D4_EB4F;
const P3: u64 = 0x1656_67B1_9E37_79F9;
const P4: u64 = 0x85EB_CA77_C2B2_AE63;
const P5: u64 = 0x27D4_EB2F_1656_67C5;

fn xx(cell: Cell<'_>, data_type: &DataType, seed: u64) -> u64 {
    match data_type {
        T::Array(element) if !cell.is_null() => {
            elements(cell.array(), element).fold(seed, |hash, e| xx(e, element, hash))
        }
        T::Struct(fields) if !cell.is_null() => {
            let (bytes, width) = (cell.bytes(), fields.len());
            fields.iter().enumerate().fold(seed, |hash, (i, f)| {
                xx(field(bytes, i, width, &f.data_type), &f.data_type, hash)
            })
        }
        T::CalendarInterval if !cell.is_null() => {
            parts_of_interval(cell).iter().fold(seed, |hash, (v, t)| xx(*v, t, hash))
        }
        _ => match part(cell, data_type) {
            None => seed,
            Some(Part::Int(v)) => {
                let hash = seed.wrapping_add(P5).wrapping_add(4);
                let hash = hash ^ u64::from(v as u32).wrapping_mul(P1);
                avalanche(hash.rotate_left(23).wrapping_mul(P2).wrapping_add(P3))
            }
            Some(Part::Long(v)) => {
                let hash = seed.wrapping_add(P5).wrapping_add(8) ^ round(0, v as u64);
                avalanche(hash.rotate_left(27).wrapping_mul(P1).wrapping_add(P4))
            }
            Some(Part::Bytes(v)) => xx_bytes(v, seed),
            Some(Part::Big(v)) => xx_bytes(&v, seed),
        },
    }
}

fn round(hash: u64, value: u64) -> u64 {
    hash.wrapping_add(value.wrapping_mul(P2)).rotate_left(31).wrapping_mul(P1)
}

fn avalanche(hash: u64) -> u64 {
    let hash = (hash ^ hash >> 33).wrapping_mul(P2);
    let hash = (hash ^ hash >> 29).wrapping_mul(P3);
    hash ^ hash >> 32
}

fn xx_bytes(bytes: &[u8], seed: u64) -> u64 {
    let word = |b: &[u8]| b.iter().rev().fold(0u64, |word, byte| word << 8 | u64::from(*byte));
    let mut rest = bytes;
    let mut hash = if bytes.len() >= 32 {
        let mut lanes = [
            seed.wrapping_add(P1).wrapping_add(P2),
            seed.wrapping_add(P2),
            seed,
            seed.wrapping_sub(P1),
        ];
        while rest.len() >= 32 {
            for (lane, part) in lanes.iter_mut().zip(rest.chunks(8)) {
                *lane = round(*lane, word(part));
            }
            rest = &rest[32..];
        }
        let [a, b, c, d] = lanes;
        let mut hash = a
            .rotate_left(1)
            .wrapping_add(b.rotate_left(7))
            .wrapping_add(c.rotate_left(12))
            .wrapping_add(d.rotate_left(18));
        for lane in lanes {
            hash = (hash ^ round(0, lane)).wrapping_mul(P1).wrapping_add(P4);
        }
        hash
    } else {
        seed.wrapping_add(P5)
    };
    hash = hash.wrapping_add(bytes.len() as u64);
    while rest.len() >= 8 {
        hash =
            (hash ^ round(0, word(&rest[..8]))).rotate_left(27).wrapping_mul(P1).wrapping_add(P4);
        rest = &rest[8..];
    }
    if rest.len() >= 4 {
        hash = (hash ^ word(&rest[..4]).wrapping_mul(P1))
            .rotate_left(23)
            .wrapping_mul(P2)
            .wrapping_add(P3);
        rest = &rest[4..];
    }
    for byte in rest {
        hash = (hash ^ u64::from(*byte).wrapping_mul(P5)).rotate_left(11).wrapping_mul(P1);
    }
    avalanche(hash)
}
