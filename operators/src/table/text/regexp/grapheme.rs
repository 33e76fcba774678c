//! Extended grapheme clusters: sequences of code points that the user sees as one character.

use crate::table::text::regexp::input::Input;
use crate::table::text::regexp::property;
use crate::table::text::regexp::set::CharSet;
use std::sync::OnceLock;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Other,
    Cr,
    Lf,
    Control,
    Extend,
    Joiner,
    Regional,
    Prepend,
    Spacing,
    L,
    V,
    T,
    Lv,
    Lvt,
    Pictograph,
}

fn tables() -> &'static [(Class, CharSet)] {
    static TABLES: OnceLock<Vec<(Class, CharSet)>> = OnceLock::new();
    TABLES.get_or_init(|| {
        let table = |class, name: &str| (class, property::table_of_version(name));
        vec![
            table(Class::Control, "gcb=Control"),
            table(Class::Extend, "gcb=Extend"),
            table(Class::Regional, "gcb=Regional_Indicator"),
            table(Class::Prepend, "gcb=Prepend"),
            table(Class::Spacing, "gcb=SpacingMark"),
            table(Class::L, "gcb=L"),
            table(Class::V, "gcb=V"),
            table(Class::T, "gcb=T"),
            table(Class::Lv, "gcb=LV"),
            table(Class::Lvt, "gcb=LVT"),
            table(Class::Pictograph, "Extended_Pictographic"),
        ]
    })
}

fn class(c: u32) -> Class {
    match c {
        0x0d => Class::Cr,
        0x0a => Class::Lf,
        0x200d => Class::Joiner,
        // This arm covers the printable characters below U+0300, except the soft hyphen and two
        // pictographic signs, without a table lookup.
        0x20..0x7f | 0xa0..=0xa8 | 0xaa..=0xac | 0xaf..0x300 => Class::Other,
        0xd800..0xe000 => Class::Control,
        _ => tables().iter().find(|(_, set)| set.contains(c)).map_or(Class::Other, |pair| pair.0),
    }
}

/// Whether two characters of these classes always belong to one cluster if they are adjacent.
fn together(a: Class, b: Class) -> bool {
    use Class as C;
    match (a, b) {
        (C::Cr, C::Lf) => true,
        (C::Cr | C::Lf | C::Control, _) | (_, C::Cr | C::Lf | C::Control) => false,
        (C::L, C::L | C::V | C::Lv | C::Lvt)
        | (C::Lv | C::V, C::V | C::T)
        | (C::Lvt | C::T, C::T)
        | (_, C::Extend | C::Joiner | C::Spacing)
        | (C::Prepend, _) => true,
        _ => false,
    }
}

/// The end of the grapheme cluster that starts at a position; `None` at the end of the text.
pub fn next_boundary<I: Input + ?Sized>(text: &I, at: usize) -> Option<usize> {
    let (c, mut end) = text.at(at)?;
    let mut last = class(c);
    let mut pictograph = last == Class::Pictograph;
    let mut regional = u32::from(last == Class::Regional);
    while let Some((c, next)) = text.at(end) {
        let this = class(c);
        let joined = last == Class::Joiner && pictograph && this == Class::Pictograph;
        let flag = last == Class::Regional && this == Class::Regional && regional % 2 == 1;
        if !joined && !flag && !together(last, this) {
            break;
        }
        regional += u32::from(this == Class::Regional);
        if this == Class::Pictograph {
            pictograph = true;
        } else if !matches!(this, Class::Extend | Class::Joiner) {
            pictograph = false;
        }
        (last, end) = (this, next);
    }
    Some(end)
}
