//! The function `sentences`: splits a text into sentences and words by the rules of Java's
//! `BreakIterator`. These rules are older than those of Unicode: `3.5%` is one word, and a sentence
//! does not start with a small letter after a period and white space.
//!
//! Limits: the same rules apply to all languages, whereas Java has special rules for Thai.

use crate::table::text::regexp::{CharSet, char_set};
use std::sync::OnceLock;

/// Character classes for finding sentence boundaries.
struct SentenceKinds {
    /// Marks and format characters, which the rules ignore.
    ignored: CharSet,
    letter: CharSet,
    lower: CharSet,
    space: CharSet,
    opening: CharSet,
    closing: CharSet,
    digit: CharSet,
}

/// Character classes for finding word boundaries.
struct WordKinds {
    ignored: CharSet,
    /// Marks, which belong to the character before them.
    mark: CharSet,
    letter: CharSet,
    digit: CharSet,
    /// Characters that may join two letters to one word, such as an apostrophe.
    in_word: CharSet,
    before_number: CharSet,
    space: CharSet,
    /// Characters to which marks do not attach: controls, format characters, line and paragraph
    /// separators, and other marks.
    bare: CharSet,
    /// Letters and decimal digits, with which a word starts.
    begins: CharSet,
}

const KANJI: [(u32, u32); 3] = [(0x3005, 0x3005), (0x4e00, 0x9fa5), (0xf900, 0xfa2d)];
const KATAKANA: [(u32, u32); 2] = [(0x30a1, 0x30fa), (0x30fd, 0x30fe)];
const HIRAGANA: [(u32, u32); 2] = [(0x3041, 0x3094), (0x309d, 0x309e)];
/// The voicing marks, the middle dot and the prolonged sound mark of the Japanese syllabaries.
const KANA_MARKS: [(u32, u32); 2] = [(0x3099, 0x309c), (0x30fb, 0x30fc)];

fn among(ranges: &[(u32, u32)], c: char) -> bool {
    ranges.iter().any(|&(from, to)| (from..=to).contains(&u32::from(c)))
}

fn sentence_kinds() -> &'static SentenceKinds {
    static KINDS: OnceLock<SentenceKinds> = OnceLock::new();
    KINDS.get_or_init(|| SentenceKinds {
        ignored: char_set(&["Mn", "Me", "Cf"]),
        letter: char_set(&["L"]),
        lower: char_set(&["Ll"]),
        space: char_set(&["Zs"]).union(&CharSet::chars("\t\r\u{c}\n\u{2028}")),
        opening: char_set(&["Ps", "Pi"]).union(&CharSet::chars("\"'")),
        closing: char_set(&["Pe", "Pf"]).union(&CharSet::chars("\"'")),
        digit: char_set(&["N"]),
    })
}

fn word_kinds() -> &'static WordKinds {
    static KINDS: OnceLock<WordKinds> = OnceLock::new();
    KINDS.get_or_init(|| {
        let eastern: Vec<_> = [&KANJI[..], &KATAKANA, &HIRAGANA, &KANA_MARKS].concat();
        let cent = CharSet::chars("\u{a2}");
        WordKinds {
            // The soft hyphen is not ignored: it joins letters like any other hyphen.
            ignored: char_set(&["Cf"]).without(&CharSet::chars("\u{ad}")),
            mark: char_set(&["Mn", "Me"]),
            letter: char_set(&["L", "Mc"]).without(&CharSet::new(eastern)),
            digit: char_set(&["N"]),
            in_word: char_set(&["Pd", "Pc"]).union(&CharSet::chars("\u{ad}\u{2027}\"'.")),
            before_number: char_set(&["Sc"]).union(&CharSet::chars("#.")).without(&cent),
            space: char_set(&["Zs"]).union(&CharSet::chars("\t")),
            bare: char_set(&["Mn", "Me", "Cc", "Cf", "Zl", "Zp"]),
            begins: char_set(&["L", "Nd"]),
        }
    })
}

/// The state of the search for the end of a sentence, after a character.
#[derive(Clone, Copy, PartialEq)]
enum At {
    /// Inside a sentence.
    Inside,
    /// After a period, and possibly closing brackets and quotation marks.
    Period,
    /// After a period and a quotation mark that may close the last quotation or open the next one.
    Quote,
    /// After a period and white space.
    PeriodSpace,
    /// After a period, before the first letter of a possible next sentence.
    Opening,
    /// After `!`, `?` or an ideographic full stop.
    Mark,
    /// After such a mark and white space.
    MarkSpace,
    /// After a danda, the full stop of Indic scripts, and possibly white space.
    Danda,
}

impl At {
    /// The next state after a character that continues the sentence.
    fn inside(c: char) -> Self {
        match c {
            '.' | '\u{ff0e}' => Self::Period,
            '!' | '?' | '\u{3002}' | '\u{ff01}' | '\u{ff1f}' => Self::Mark,
            '\u{964}' | '\u{965}' => Self::Danda,
            _ => Self::Inside,
        }
    }
}

/// The classes of a character in the rules for sentences.
struct Role {
    letter: bool,
    lower: bool,
    space: bool,
    closes: bool,
    opens: bool,
}

impl Role {
    fn of(c: char) -> Self {
        let kinds = sentence_kinds();
        let is = |set: &CharSet| set.contains(u32::from(c));
        let (letter, space, closes) = (is(&kinds.letter), is(&kinds.space), is(&kinds.closing));
        let ends = matches!(At::inside(c), At::Period | At::Mark);
        // A character of any other class may precede the first letter of a sentence.
        let named = letter || space || closes || ends || is(&kinds.digit);
        let other = !named && !matches!(c, ',' | PARAGRAPH);
        let opens = is(&kinds.opening) || other;
        Self { letter, lower: is(&kinds.lower), space, closes, opens }
    }
}

/// The paragraph separator, which always ends a sentence.
const PARAGRAPH: char = '\u{2029}';

/// The length in bytes of the first sentence of a non-empty text.
fn sentence(text: &str) -> usize {
    // `end` is the end of the sentence if it continues up to here. `before_next` is its end if the
    // next sentence has started.
    let mut end = text.chars().next().map_or(0, char::len_utf8);
    let mut before_next = 0;
    let mut at = At::Inside;
    for (i, c) in text.char_indices() {
        if !sentence_kinds().ignored.contains(u32::from(c)) {
            let role = Role::of(c);
            at = match at {
                At::Mark if role.closes || matches!(At::inside(c), At::Period | At::Mark) => at,
                At::Mark | At::MarkSpace if role.space => At::MarkSpace,
                At::Mark | At::MarkSpace if c == PARAGRAPH => return i + c.len_utf8(),
                At::Danda if role.space => at,
                At::Mark | At::MarkSpace | At::Danda => return end,
                At::PeriodSpace if role.letter && !role.lower => return before_next,
                At::Quote | At::Opening if role.letter => return before_next,
                At::Period | At::Quote if role.closes => {
                    if role.opens {
                        At::Quote
                    } else {
                        At::Period
                    }
                }
                At::Period | At::Quote | At::PeriodSpace if role.space => At::PeriodSpace,
                At::Period | At::Quote | At::PeriodSpace | At::Opening if role.opens => At::Opening,
                _ if c == PARAGRAPH => return i + c.len_utf8(),
                _ => At::inside(c),
            };
        }
        let behind = i + c.len_utf8();
        match at {
            At::Period | At::Quote | At::PeriodSpace => before_next = behind,
            At::Opening => {}
            _ => end = behind,
        }
    }
    if before_next == text.len() { before_next } else { end }
}

/// The length in bytes of a run of adjacent words and numbers. A sign before or after a number,
/// such as `$` or `%`, belongs to the number.
fn words_and_numbers(text: &str) -> usize {
    #[derive(Clone, Copy)]
    enum Part {
        Begin,
        Prefix,
        Word,
        WordDanda,
        MidWord,
        Number,
        MidNumber,
        Suffix,
    }
    let kinds = word_kinds();
    let (mut end, mut part) = (0, Part::Begin);
    for (i, c) in text.char_indices() {
        let is = |set: &CharSet| set.contains(u32::from(c));
        if !is(&kinds.ignored) {
            part = match part {
                Part::Word | Part::Number if is(&kinds.mark) => part,
                Part::Begin | Part::Word | Part::MidWord | Part::Number if is(&kinds.letter) => {
                    Part::Word
                }
                Part::MidWord | Part::Suffix => break,
                _ if is(&kinds.digit) => Part::Number,
                Part::Begin if is(&kinds.before_number) => Part::Prefix,
                Part::Word if matches!(c, '\u{964}' | '\u{965}') => Part::WordDanda,
                Part::Word if is(&kinds.in_word) => Part::MidWord,
                Part::Number if matches!(c, '"' | '\'' | ',' | '\u{66b}' | '.') => Part::MidNumber,
                Part::Number if "%&\u{a2}\u{66a}\u{2030}\u{2031}".contains(c) => Part::Suffix,
                _ => break,
            };
        }
        if !matches!(part, Part::Begin | Part::MidWord | Part::MidNumber) {
            end = i + c.len_utf8();
        }
    }
    end
}

/// The length in bytes of the leading white space and of a line end after it.
fn white_space(text: &str) -> usize {
    let kinds = word_kinds();
    let mut end = 0;
    let (mut spaces, mut returned) = (false, false);
    for (i, c) in text.char_indices() {
        let is = |set: &CharSet| set.contains(u32::from(c));
        let taken = is(&kinds.ignored)
            || !returned && (is(&kinds.space) || spaces && is(&kinds.mark))
            || !returned && c == '\r';
        (spaces, returned) = (spaces || is(&kinds.space), returned || c == '\r');
        if matches!(c, '\n' | '\u{c}' | '\u{2028}' | '\u{2029}') {
            return i + c.len_utf8();
        }
        if !taken {
            break;
        }
        end = i + c.len_utf8();
    }
    end
}

/// The length in bytes of the first character and the marks after it.
fn marked(text: &str) -> usize {
    let kinds = word_kinds();
    let (mut end, mut takes_marks) = (0, None);
    for (i, c) in text.char_indices() {
        let is = |set: &CharSet| set.contains(u32::from(c));
        if !is(&kinds.ignored) {
            match takes_marks {
                None => takes_marks = Some(!is(&kinds.bare)),
                Some(true) if is(&kinds.mark) => {}
                Some(_) => break,
            }
        }
        end = i + c.len_utf8();
    }
    end
}

/// The length in bytes of the leading characters that are ignored or in any of the ranges.
fn run(text: &str, ranges: &[&[(u32, u32)]]) -> usize {
    let ignored = &word_kinds().ignored;
    let taken =
        |c: char| ignored.contains(u32::from(c)) || ranges.iter().any(|ranges| among(ranges, c));
    text.find(|c| !taken(c)).unwrap_or(text.len())
}

/// The length in bytes of the first part of a non-empty text by the word rules: the longest match
/// of all rules.
fn word(text: &str) -> usize {
    let runs = [
        run(text, &[&KATAKANA, &KANA_MARKS]),
        run(text, &[&HIRAGANA, &KANA_MARKS]),
        run(text, &[&KANJI]),
    ];
    let longest = runs.into_iter().max().unwrap_or(0);
    longest.max(words_and_numbers(text)).max(white_space(text)).max(marked(text))
}

/// Splits a text into parts. `first` returns the length in bytes of the first part.
fn cut(mut text: &str, first: fn(&str) -> usize) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        if text.is_empty() {
            return None;
        }
        let (part, rest) = text.split_at(first(text));
        text = rest;
        Some(part)
    })
}

/// Splits a text into sentences. Each sentence includes the white space after it.
pub fn sentences(text: &str) -> impl Iterator<Item = &str> {
    cut(text, sentence)
}

/// The words of a sentence: its parts that start with a letter or a decimal digit up to U+FFFF.
pub fn words(sentence: &str) -> impl Iterator<Item = &str> {
    // In Java a supplementary character consists of two `char`s, and Spark's function counts
    // neither of them as a letter.
    let begins = |c: char| u32::from(c) <= 0xffff && word_kinds().begins.contains(u32::from(c));
    cut(sentence, word).filter(move |word| word.starts_with(begins))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> Vec<Vec<&str>> {
        sentences(text).map(|sentence| words(sentence).collect()).collect()
    }

    #[test]
    fn sentences_end_where_java_ends_them() {
        for (text, sentences) in [
            ("", 0),
            ("One. Two! Three? Four", 4),
            ("e.g. small letters, and 3. digits", 1),
            ("a. (b", 2),
            ("She said \"no.\" Then left.", 2),
            ("end.\u{2029}begin", 2),
            ("a!b", 2),
        ] {
            assert_eq!(super::sentences(text).count(), sentences, "{text}");
        }
    }

    #[test]
    fn words_are_split_as_in_java() {
        for (text, expected) in [
            ("it's well-known, a.b", vec!["it's", "well-known", "a.b"]),
            ("3.5% of $5 and 1,000,x", vec!["3.5%", "of", "and", "1,000", "x"]),
            ("日本カタひら", vec!["日本", "カタ", "ひら"]),
            ("e\u{301}te\u{301}", vec!["e\u{301}te\u{301}"]),
            ("𝒜 😀", vec![]),
        ] {
            assert_eq!(words(text).collect::<Vec<_>>(), expected, "{text}");
        }
        assert_eq!(parts("a. B"), [["a"], ["B"]]);
    }
}
