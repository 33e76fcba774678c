//! Character properties, by the names that Java 17 accepts. Their values are those of Unicode 13,
//! the version of Java 17. Characters that were added later count as unassigned.

use crate::table::text::regexp::parse::{Flags, Parse, error};
use crate::table::text::regexp::set::{CharSet, LAST};
use crate::table::text::regexp::tables::{BLOCKS, MIRRORED};
use regex_syntax::hir::{Class, HirKind};
use std::sync::OnceLock;

/// Looks up a set of characters in the tables of the crate `regex-syntax`; `None` if it has no such
/// set.
fn table(name: &str) -> Option<CharSet> {
    let hir = regex_syntax::parse(&format!(r"\p{{{name}}}")).ok()?;
    match hir.kind() {
        HirKind::Class(Class::Unicode(class)) => {
            let ranges = class.ranges().iter().map(|r| (u32::from(r.start()), u32::from(r.end())));
            Some(CharSet::new(ranges.collect()))
        }
        HirKind::Literal(literal) => {
            Some(CharSet::chars(std::str::from_utf8(&literal.0).unwrap_or_default()))
        }
        _ => None,
    }
}

/// All code points that are assigned in Unicode 13, and the noncharacters.
fn of_version() -> &'static CharSet {
    static SET: OnceLock<CharSet> = OnceLock::new();
    SET.get_or_init(|| table("age=13.0").unwrap_or_else(CharSet::all))
}

fn known(name: &str) -> Option<CharSet> {
    Some(table(name)?.and(of_version()))
}

/// The set of a property that the tables contain, corrected to Unicode 13.
fn given(name: &str) -> CharSet {
    let set = known(name).unwrap_or_else(|| CharSet::of([]));
    match name {
        // These letters became lower case after Unicode 13.
        "Lowercase" => set.without(&CharSet::of([0x10fc, 0xab69])),
        // These marks became alphabetic after Unicode 13.
        "Alphabetic" => set.without(&CharSet::new(vec![(0x363, 0x36f), (0x1dd3, 0x1de6)])),
        // Java does not allow this character in identifiers.
        "ID_Start" => set.without(&CharSet::one(0x2e2f)),
        _ => set,
    }
}

fn surrogates() -> CharSet {
    CharSet::new(vec![(0xd800, 0xdfff)])
}

fn ascii_range(from: char, to: char) -> CharSet {
    CharSet::new(vec![(from.into(), to.into())])
}

/// The union of the sets of the properties with these names.
pub fn any(names: &[&str]) -> CharSet {
    let ranges = names.iter().flat_map(|name| given(name).ranges().to_vec());
    CharSet::new(ranges.collect())
}

fn assigned() -> CharSet {
    given("Assigned").union(&surrogates())
}

/// The set of `\w` without the flag `U`: `[a-zA-Z_0-9]`.
pub fn ascii_word() -> CharSet {
    ascii_alnum().union(&CharSet::chars("_"))
}

fn ascii_alpha() -> CharSet {
    ascii_range('a', 'z').union(&ascii_range('A', 'Z'))
}

fn ascii_alnum() -> CharSet {
    ascii_alpha().union(&ascii_range('0', '9'))
}

/// The decimal digits of all scripts.
pub fn digit() -> CharSet {
    given("Nd")
}

/// The word characters of all scripts.
pub fn word() -> CharSet {
    any(&["Alphabetic", "M", "Nd", "Pc", "Join_Control"])
}

/// The white space characters of all scripts.
pub fn white_space() -> CharSet {
    given("Z").union(&CharSet::new(vec![(9, 13), (0x85, 0x85)]))
}

/// The letters and decimal digits, which `\b` treats as part of a word.
pub fn letter_or_digit() -> &'static CharSet {
    static SET: OnceLock<CharSet> = OnceLock::new();
    SET.get_or_init(|| any(&["L", "Nd"]))
}

/// The characters that `\b` treats as part of a word under the flag `U`.
pub fn word_of_unicode() -> &'static CharSet {
    static SET: OnceLock<CharSet> = OnceLock::new();
    SET.get_or_init(word)
}

/// The non-spacing marks, which `\b` counts as part of the word before them.
pub fn non_spacing() -> &'static CharSet {
    static SET: OnceLock<CharSet> = OnceLock::new();
    SET.get_or_init(|| given("Mn"))
}

/// The character with a name in any version of Unicode; `None` if there is no such character.
pub fn named(name: &str) -> Option<u32> {
    unicode_names2::character(name.trim()).map(u32::from)
}

/// The set of `\p{name}`, which also depends on the flags.
pub fn family(name: &str, flags: Flags) -> Parse<CharSet> {
    let ignore_case = flags.ignore_case;
    if let Some((name, value)) = name.split_once('=') {
        let set = match name.to_ascii_lowercase().as_str() {
            "sc" | "script" => script(value),
            "blk" | "block" => block(value),
            "gc" | "general_category" => category(value, ignore_case),
            _ => None,
        };
        return match set {
            Some(set) => Ok(set),
            None => error(format!("Unknown Unicode property {{name=<{name}>, value=<{value}>}}")),
        };
    }
    let set = if let Some(name) = name.strip_prefix("In") {
        block(name)
    } else if let Some(name) = name.strip_prefix("Is") {
        binary(name, ignore_case).or_else(|| category(name, ignore_case)).or_else(|| script(name))
    } else if flags.unicode_classes {
        posix(name, ignore_case).or_else(|| category(name, ignore_case))
    } else {
        category(name, ignore_case)
    };
    match set {
        Some(set) => Ok(set),
        None => error(format!("Unknown character property name {{{name}}}")),
    }
}

fn plain(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, ' ' | '_' | '-')).collect::<String>().to_ascii_uppercase()
}

fn block(name: &str) -> Option<CharSet> {
    let name = match plain(name) {
        name if name == "GREEKANDCOPTIC" => "GREEK".to_string(),
        name if name == "COMBININGDIACRITICALMARKSFORSYMBOLS" => "COMBININGMARKSFORSYMBOLS".into(),
        name if name == "CYRILLICSUPPLEMENT" => "CYRILLICSUPPLEMENTARY".into(),
        name => name,
    };
    let parts = BLOCKS.iter().filter(|(known, ..)| *known == name);
    let ranges: Vec<_> = parts.map(|(_, from, to)| (*from, *to)).collect();
    (!ranges.is_empty()).then(|| CharSet::new(ranges))
}

fn script(name: &str) -> Option<CharSet> {
    if matches!(plain(name).as_str(), "UNKNOWN" | "ZZZZ") {
        return Some(assigned().negate().union(&surrogates()).union(&given("Co")));
    }
    known(&format!("script={name}"))
}

/// The set of a binary property; `name` is the part after the prefix `Is`.
fn binary(name: &str, ignore_case: bool) -> Option<CharSet> {
    Some(match name.to_ascii_uppercase().as_str() {
        "LOWERCASE" | "UPPERCASE" | "TITLECASE" if ignore_case => {
            any(&["Lowercase", "Uppercase", "Lt"])
        }
        "ALPHABETIC" => given("Alphabetic"),
        "LETTER" => given("L"),
        "IDEOGRAPHIC" => given("Ideographic"),
        "LOWERCASE" => given("Lowercase"),
        "UPPERCASE" => given("Uppercase"),
        "TITLECASE" => given("Lt"),
        "WHITE_SPACE" | "WHITESPACE" => white_space(),
        "CONTROL" => given("Cc"),
        "PUNCTUATION" => given("P"),
        "HEX_DIGIT" | "HEXDIGIT" => given("Hex_Digit").union(&digit()),
        "ASSIGNED" => assigned(),
        "NONCHARACTER_CODE_POINT" | "NONCHARACTERCODEPOINT" => given("Noncharacter_Code_Point"),
        "DIGIT" => digit(),
        "ALNUM" => any(&["Alphabetic", "Nd"]),
        "BLANK" => given("Zs").union(&CharSet::one(9)),
        "GRAPH" => graph(),
        "PRINT" => {
            let blank = given("Zs").union(&CharSet::one(9));
            graph().union(&blank).without(&given("Cc"))
        }
        "WORD" => word(),
        "JOIN_CONTROL" | "JOINCONTROL" => given("Join_Control"),
        _ => return None,
    })
}

fn graph() -> CharSet {
    assigned().without(&any(&["Z", "Cc"])).without(&surrogates())
}

/// The set of a POSIX class under the flag `U`, whose name is case-insensitive; `None` if there is
/// none of this name.
fn posix(name: &str, ignore_case: bool) -> Option<CharSet> {
    let name = match name.to_ascii_uppercase().as_str() {
        "ALPHA" => "ALPHABETIC",
        "LOWER" => "LOWERCASE",
        "UPPER" => "UPPERCASE",
        "SPACE" => "WHITE_SPACE",
        "PUNCT" => "PUNCTUATION",
        "XDIGIT" => "HEX_DIGIT",
        "CNTRL" => "CONTROL",
        "ALNUM" => "ALNUM",
        "DIGIT" => "DIGIT",
        "BLANK" => "BLANK",
        "GRAPH" => "GRAPH",
        "PRINT" => "PRINT",
        _ => return None,
    };
    binary(name, ignore_case)
}

/// The set of a general category, of a POSIX class in ASCII, or of a class that a Java method
/// defines.
fn category(name: &str, ignore_case: bool) -> Option<CharSet> {
    Some(match name {
        "Lu" | "Ll" | "Lt" if ignore_case => any(&["Lu", "Ll", "Lt"]),
        "Lower" | "Upper" if ignore_case => ascii_alpha(),
        "javaLowerCase" | "javaUpperCase" | "javaTitleCase" if ignore_case => {
            any(&["Lowercase", "Uppercase", "Lt"])
        }
        "L" | "M" | "N" | "Z" | "P" | "S" | "Lu" | "Ll" | "Lt" | "Lm" | "Lo" | "Mn" | "Me"
        | "Mc" | "Nd" | "Nl" | "No" | "Zs" | "Zl" | "Zp" | "Cc" | "Cf" | "Co" | "Pd" | "Ps"
        | "Pe" | "Pc" | "Po" | "Sm" | "Sc" | "Sk" | "So" | "Pi" | "Pf" => given(name),
        "C" => any(&["L", "M", "N", "Z", "P", "S"]).negate(),
        "Cn" => assigned().negate(),
        "Cs" => surrogates(),
        "LC" => any(&["Lu", "Ll", "Lt"]),
        "LD" => any(&["L", "Nd"]),
        "L1" => CharSet::new(vec![(0, 0xff)]),
        "all" => CharSet::new(vec![(0, LAST)]),
        "ASCII" => CharSet::new(vec![(0, 0x7f)]),
        "Alnum" => ascii_alnum(),
        "Alpha" => ascii_alpha(),
        "Blank" => CharSet::chars(" \t"),
        "Cntrl" => CharSet::new(vec![(0, 0x1f), (0x7f, 0x7f)]),
        "Digit" => ascii_range('0', '9'),
        "Graph" => ascii_range('!', '~'),
        "Lower" => ascii_range('a', 'z'),
        "Print" => ascii_range(' ', '~'),
        "Punct" => ascii_range('!', '~').without(&ascii_alnum()),
        "Space" => CharSet::chars(" \t\n\u{b}\u{c}\r"),
        "Upper" => ascii_range('A', 'Z'),
        "XDigit" => {
            let digits = ascii_range('0', '9').union(&ascii_range('a', 'f'));
            digits.union(&ascii_range('A', 'F'))
        }
        other => return java(other),
    })
}

fn ignorable() -> CharSet {
    given("Cf").union(&CharSet::new(vec![(0, 8), (0xe, 0x1b), (0x7f, 0x9f)]))
}

/// The set of a class such as `javaLowerCase`: `java` followed by the name of a method of
/// `java.lang.Character` without its `is`.
fn java(name: &str) -> Option<CharSet> {
    Some(match name.strip_prefix("java")? {
        "LowerCase" => given("Lowercase"),
        "UpperCase" => given("Uppercase"),
        "Alphabetic" => given("Alphabetic"),
        "Ideographic" => given("Ideographic"),
        "TitleCase" => given("Lt"),
        "Digit" => digit(),
        "Defined" => assigned(),
        "Letter" => given("L"),
        "LetterOrDigit" => any(&["L", "Nd"]),
        "JavaIdentifierStart" => any(&["L", "Nl", "Sc", "Pc"]),
        "JavaIdentifierPart" => any(&["L", "Nl", "Sc", "Pc", "Nd", "Mn", "Mc"]).union(&ignorable()),
        "UnicodeIdentifierStart" => given("ID_Start"),
        "UnicodeIdentifierPart" => given("ID_Continue").union(&ignorable()),
        "IdentifierIgnorable" => ignorable(),
        "SpaceChar" => given("Z"),
        "Whitespace" => {
            let spaces = given("Z").without(&CharSet::chars("\u{a0}\u{2007}\u{202f}"));
            spaces.union(&CharSet::new(vec![(9, 13), (0x1c, 0x1f)]))
        }
        "ISOControl" => CharSet::new(vec![(0, 0x1f), (0x7f, 0x9f)]),
        "Mirrored" => CharSet::new(MIRRORED.to_vec()),
        _ => return None,
    })
}

/// The set of a property in Unicode 13, for grapheme clusters.
pub fn table_of_version(name: &str) -> CharSet {
    given(name)
}
