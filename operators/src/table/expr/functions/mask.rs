//! `mask`, which hides letters and digits, and `luhn_check` for card numbers.

use super::registry::{Call, Function, Typed, called, cells, constant_text, text_or_null, typed};
use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::Resolved;
use crate::table::expr::cell::Cell;
use crate::table::expr::compile::{Compiled, from_cells, text_in};
use crate::table::text::regexp::{CharSet, char_set};
use crate::table::types::DataType;
use crate::table::value::Value;
use std::sync::LazyLock;

use DataType as T;

pub(super) static FUNCTIONS: &[Function] = &[
    called(
        "mask",
        "mask(s[, capital, small, digit, other]): characters of each kind replaced by \
         one; NULL keeps them",
        (1, 5),
        resolve_mask,
        mask,
    )
    .usage("3.4.0", "mask('Ab-12')", "Xx-nn"),
    cells(
        "luhn_check",
        "luhn_check(digits): whether the last digit is the check digit of the others \
         (ISO/IEC 7812)",
        (1, 1),
        |n, a| typed(n, a, &[T::String], T::Boolean),
        |a, _, _| Ok(Cell::Bool(has_check_digit(a[0].bytes()))),
    )
    .usage("3.5.0", "luhn_check('79927398713')", "true"),
];

static CAPITALS: LazyLock<CharSet> = LazyLock::new(|| char_set(&["Lu"]));
static SMALL: LazyLock<CharSet> = LazyLock::new(|| char_set(&["Ll"]));
static DIGITS: LazyLock<CharSet> = LazyLock::new(|| char_set(&["Nd"]));

/// The default replacements for upper-case letters, lower-case letters, digits and other
/// characters. `None` means that the characters are not replaced.
const GIVEN: [Option<&str>; 4] = [Some("X"), Some("x"), Some("n"), None];

fn resolve_mask(name: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    let mut resolved = vec![text_or_null(name, args[0].clone())?];
    for (index, given) in GIVEN.iter().enumerate() {
        let by = match args.get(index + 1) {
            Some(arg) => constant_text(name, arg)?,
            None => given.map(str::to_string),
        };
        if let Some(by) = by.as_deref().filter(|by| by.chars().count() != 1) {
            return Err(PlanError::new(
                "DATATYPE_MISMATCH.INPUT_SIZE_NOT_ONE",
                format!("`{name}` replaces by one character, not by '{by}'"),
                "Give one character, or NULL to keep the characters",
            ));
        }
        resolved.push(Resolved::literal(by.map_or(Value::Null, Value::String), T::String));
    }
    let nullable = resolved[0].nullable;
    Ok(Typed::new(resolved, T::String, nullable))
}

fn mask(args: Vec<Compiled>, call: Call) -> Compiled {
    let by = [1, 2, 3, 4].map(|index| call.text(index).and_then(|text| text.chars().next()));
    let [capital, small, digit, other] = by;
    let masked = move |c: char| {
        let code = u32::from(c);
        let by = match () {
            () if CAPITALS.contains(code) => capital,
            () if SMALL.contains(code) => small,
            () if DIGITS.contains(code) => digit,
            () => other,
        };
        by.unwrap_or(c)
    };
    let mut args = args.into_iter();
    let Some(text) = args.next() else { unreachable!("resolution counted the arguments") };
    from_cells(call.to.physical(), move |cx| {
        let text = text.cell(cx)?;
        if text.is_null() {
            return Ok(Cell::Null);
        }
        let text = text_in(text.bytes(), cx.arena);
        let mut out = bumpalo::collections::String::with_capacity_in(text.len(), cx.arena);
        out.extend(text.chars().map(masked));
        Ok(Cell::Bytes(out.into_bump_str().as_bytes()))
    })
}

/// Luhn's algorithm: from the right, every second digit is doubled and its decimal digits are
/// summed.
fn has_check_digit(digits: &[u8]) -> bool {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return false;
    }
    let sum = digits.iter().rev().enumerate().fold(0, |sum: u64, (place, digit)| {
        let value = u64::from(digit - b'0') << (place % 2);
        sum + if value > 9 { value - 9 } else { value }
    });
    sum.is_multiple_of(10)
}
