//! `aes_encrypt` and `aes_decrypt`: AES in the modes GCM, CBC and ECB, with keys of 128, 192 and
//! 256 bits.
//!
//! The result starts with the initialization vector, except in ECB, which has none. In GCM it ends
//! with the authentication tag of 16 bytes. CBC and ECB pad by PKCS #7.

use super::registry::{Call, Function, Typed, cells};
use crate::table::error::PlanResult;
use crate::table::expr::Resolved;
use crate::table::expr::cell::Cell;
use crate::table::expr::compile::{EvalError, failed};
use crate::table::types::DataType;
use crate::table::value::Value;
use aes_gcm::aead::array::Array;
use aes_gcm::aead::consts::{U12, U16};
use aes_gcm::aead::{Aead, Generate, Payload};
use aes_gcm::aes::cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use aes_gcm::aes::{Aes128, Aes192, Aes256};
use aes_gcm::{AesGcm, Nonce};
use bumpalo::Bump;

use DataType as T;

pub(super) static FUNCTIONS: &[Function] = &[
    cells(
        "aes_encrypt",
        "aes_encrypt(data, key[, 'GCM', 'CBC' or 'ECB'[, padding[, iv[, aad]]]]): encrypted by AES",
        (2, 6),
        |n, a| resolve(n, a, 6),
        encrypt,
    )
    .usage(
        "3.3.0",
        "hex(aes_encrypt('Spark SQL', '0000111122223333', 'ECB'))",
        "B00F6FF4BF69F8A482DDF536CDFB0449",
    ),
    cells(
        "aes_decrypt",
        "aes_decrypt(data, key[, 'GCM', 'CBC' or 'ECB'[, padding[, aad]]]): decrypted by AES",
        (2, 5),
        |n, a| resolve(n, a, 5),
        decrypt,
    )
    .usage(
        "3.3.0",
        "string(aes_decrypt(aes_encrypt('abc', '0000111122223333'), '0000111122223333'))",
        "abc",
    ),
];

/// Size in bytes of a block, and of the initialization vector of CBC.
const BLOCK: usize = 16;
/// Size in bytes of the initialization vector of GCM.
const NONCE: usize = 12;

type Block = Array<u8, U16>;

/// Adds the defaults of the arguments that are left out. The types are checked by the signature.
fn resolve(_: &str, mut args: Vec<Resolved>, count: usize) -> PlanResult<Typed> {
    let text = |text: &str| Resolved::literal(Value::String(text.to_string()), T::String);
    let defaults = [text("GCM"), text("DEFAULT")];
    let given = args.len();
    args.extend(defaults.into_iter().skip(given.saturating_sub(2)));
    while args.len() < count {
        args.push(Resolved::literal(Value::Binary(Vec::new()), T::Binary));
    }
    Ok(Typed::new(args, T::Binary, true))
}

/// A mode of operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Gcm,
    Cbc,
    Ecb,
}

impl Mode {
    /// The mode of a name and a padding. Fails if the two do not belong together.
    fn of(mode: Cell<'_>, padding: Cell<'_>) -> Result<Self, Box<EvalError>> {
        let is = |cell: Cell<'_>, name: &str| cell.text().eq_ignore_ascii_case(name);
        let has = |name: &str| is(padding, "DEFAULT") || is(padding, name);
        match () {
            () if is(mode, "GCM") && has("NONE") => Ok(Self::Gcm),
            () if is(mode, "CBC") && has("PKCS") => Ok(Self::Cbc),
            () if is(mode, "ECB") && has("PKCS") => Ok(Self::Ecb),
            () => failed(
                "UNSUPPORTED_FEATURE.AES_MODE",
                format!("there is no AES-{} with padding {}", mode.text(), padding.text()),
                "Use GCM with NONE, or CBC or ECB with PKCS",
            ),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Gcm => "GCM",
            Self::Cbc => "CBC",
            Self::Ecb => "ECB",
        }
    }

    /// Size in bytes of the initialization vector.
    fn iv_bytes(self) -> usize {
        match self {
            Self::Gcm => NONCE,
            Self::Cbc => BLOCK,
            Self::Ecb => 0,
        }
    }
}

/// AES with a key.
enum Cipher {
    Aes128(Box<Aes128>),
    Aes192(Box<Aes192>),
    Aes256(Box<Aes256>),
}

/// Evaluates an expression with the cipher of a [`Cipher`], of any key size.
macro_rules! with {
    ($cipher:expr, $aes:ident => $body:expr) => {
        match $cipher {
            Cipher::Aes128($aes) => $body,
            Cipher::Aes192($aes) => $body,
            Cipher::Aes256($aes) => $body,
        }
    };
}

impl Cipher {
    fn new(key: &[u8]) -> Result<Self, Box<EvalError>> {
        let made = match key.len() {
            16 => Aes128::new_from_slice(key).ok().map(|aes| Self::Aes128(Box::new(aes))),
            24 => Aes192::new_from_slice(key).ok().map(|aes| Self::Aes192(Box::new(aes))),
            32 => Aes256::new_from_slice(key).ok().map(|aes| Self::Aes256(Box::new(aes))),
            _ => None,
        };
        match made {
            Some(cipher) => Ok(cipher),
            None => failed(
                "INVALID_PARAMETER_VALUE.AES_KEY_LENGTH",
                format!("an AES key has 16, 24 or 32 bytes, not {}", key.len()),
                "",
            ),
        }
    }

    fn encrypt_block(&self, block: &mut Block) {
        with!(self, aes => aes.encrypt_block(block));
    }

    fn decrypt_block(&self, block: &mut Block) {
        with!(self, aes => aes.decrypt_block(block));
    }
}

/// Encrypts or decrypts by GCM. `None` if the tag does not match.
fn gcm(cipher: Cipher, iv: &[u8], payload: Payload<'_, '_>, encrypts: bool) -> Option<Vec<u8>> {
    let nonce = Nonce::<U12>::try_from(iv).ok()?;
    with!(cipher, aes => {
        let cipher = AesGcm::<_, U12>::from(*aes);
        match encrypts {
            true => cipher.encrypt(&nonce, payload).ok(),
            false => cipher.decrypt(&nonce, payload).ok(),
        }
    })
}

/// Fails if there is additional authenticated data in a mode other than GCM.
fn check_aad(mode: Mode, aad: &[u8]) -> Result<(), Box<EvalError>> {
    if mode == Mode::Gcm || aad.is_empty() {
        return Ok(());
    }
    failed(
        "UNSUPPORTED_FEATURE.AES_MODE_AAD",
        format!("AES-{} has no additional authenticated data", mode.name()),
        "Leave it out, or use GCM",
    )
}

fn crypto_error<T>(reason: &str) -> Result<T, Box<EvalError>> {
    failed(
        "INVALID_PARAMETER_VALUE.AES_CRYPTO_ERROR",
        format!("the data cannot be encrypted or decrypted: {reason}"),
        "Use the key, the mode and the additional data of the encryption; \
         try_aes_decrypt gives NULL",
    )
}

/// The initialization vector of an encryption: the given one, or a random one.
fn iv_of<'a>(mode: Mode, given: &'a [u8], arena: &'a Bump) -> Result<&'a [u8], Box<EvalError>> {
    if mode == Mode::Ecb && !given.is_empty() {
        return failed(
            "UNSUPPORTED_FEATURE.AES_MODE_IV",
            "AES-ECB has no initialization vector",
            "Leave it out, or use GCM or CBC",
        );
    }
    if given.len() == mode.iv_bytes() {
        return Ok(given);
    }
    if !given.is_empty() {
        return failed(
            "INVALID_PARAMETER_VALUE.AES_IV_LENGTH",
            format!("the initialization vector has {} bytes", given.len()),
            "GCM needs 12 bytes, CBC 16",
        );
    }
    match Block::try_generate() {
        Ok(random) => Ok(&arena.alloc_slice_copy(&random)[..mode.iv_bytes()]),
        Err(_) => crypto_error("the system has no random numbers"),
    }
}

fn encrypt<'a>(a: &[Cell<'a>], _: &Call, arena: &'a Bump) -> Result<Cell<'a>, Box<EvalError>> {
    let (data, key, aad) = (a[0].bytes(), a[1].bytes(), a[5].bytes());
    let cipher = Cipher::new(key)?;
    let mode = Mode::of(a[2], a[3])?;
    let iv = iv_of(mode, a[4].bytes(), arena)?;
    check_aad(mode, aad)?;
    let sealed = match mode {
        Mode::Gcm => match gcm(cipher, iv, Payload { msg: data, aad }, true) {
            Some(sealed) => sealed,
            None => return crypto_error("it is too long"),
        },
        _ => encrypt_blocks(&cipher, mode, iv, data),
    };
    let out = arena.alloc_slice_fill_copy(iv.len() + sealed.len(), 0);
    out[..iv.len()].copy_from_slice(iv);
    out[iv.len()..].copy_from_slice(&sealed);
    Ok(Cell::Bytes(out))
}

fn decrypt<'a>(a: &[Cell<'a>], _: &Call, arena: &'a Bump) -> Result<Cell<'a>, Box<EvalError>> {
    let (data, key, aad) = (a[0].bytes(), a[1].bytes(), a[4].bytes());
    let cipher = Cipher::new(key)?;
    let mode = Mode::of(a[2], a[3])?;
    let Some((iv, sealed)) = data.split_at_checked(mode.iv_bytes()) else {
        return crypto_error("it is shorter than the initialization vector");
    };
    if mode == Mode::Cbc {
        // As in Spark, ECB ignores the data.
        check_aad(mode, aad)?;
    }
    let opened = match mode {
        Mode::Gcm => gcm(cipher, iv, Payload { msg: sealed, aad }, false),
        _ => decrypt_blocks(&cipher, mode, iv, sealed),
    };
    match opened {
        Some(opened) => Ok(Cell::Bytes(arena.alloc_slice_copy(&opened))),
        None => crypto_error("key, tag or padding do not match"),
    }
}

/// Combines a block with the one before it, as CBC does.
fn chain(block: &mut Block, before: &Block) {
    block.iter_mut().zip(before).for_each(|(byte, before)| *byte ^= before);
}

/// Encrypts padded data by CBC or ECB.
fn encrypt_blocks(cipher: &Cipher, mode: Mode, iv: &[u8], data: &[u8]) -> Vec<u8> {
    let padding = BLOCK - data.len() % BLOCK;
    let mut out = data.to_vec();
    out.resize(data.len() + padding, padding as u8);
    let mut before = Block::try_from(iv).unwrap_or_default();
    for bytes in out.chunks_exact_mut(BLOCK) {
        let mut block = Block::try_from(&*bytes).unwrap_or_default();
        if mode == Mode::Cbc {
            chain(&mut block, &before);
        }
        cipher.encrypt_block(&mut block);
        bytes.copy_from_slice(&block);
        before = block;
    }
    out
}

/// Decrypts by CBC or ECB, and removes the padding. `None` if the data is not made of whole blocks,
/// or its padding is invalid. As in Java, no block at all gives no data.
fn decrypt_blocks(cipher: &Cipher, mode: Mode, iv: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    if !sealed.len().is_multiple_of(BLOCK) {
        return None;
    }
    let mut out = Vec::with_capacity(sealed.len());
    let mut before = Block::try_from(iv).unwrap_or_default();
    for bytes in sealed.chunks_exact(BLOCK) {
        let encrypted = Block::try_from(bytes).ok()?;
        let mut block = encrypted;
        cipher.decrypt_block(&mut block);
        if mode == Mode::Cbc {
            chain(&mut block, &before);
        }
        out.extend_from_slice(&block);
        before = encrypted;
    }
    let Some(&padding) = out.last() else { return Some(out) };
    let kept = out.len().checked_sub(usize::from(padding))?;
    let is_padding = (1..=BLOCK).contains(&usize::from(padding));
    if !is_padding || out[kept..].iter().any(|byte| *byte != padding) {
        return None;
    }
    out.truncate(kept);
    Some(out)
}
