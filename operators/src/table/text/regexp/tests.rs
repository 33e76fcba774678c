//! Tests of patterns. The expected results are those of Java 17's `Matcher.find`.

use crate::table::text::regexp::{Matcher, Regex, Replacement, StepLimitExceeded, Subject};

/// All matches with their groups, as UTF-16 offsets. `0-2 0-1 -;` is a match with two groups, of
/// which the second did not participate.
fn matches(pattern: &str, text: &str) -> String {
    let Ok(regex) = Regex::new(pattern) else { return "refused".to_string() };
    let subject = regex.subject(text);
    let offset = |at: usize| match &subject {
        Subject::Utf8(text) => text[..at].encode_utf16().count(),
        Subject::Utf16(_) => at,
    };
    let mut matcher = Matcher::new(&regex, &subject, true);
    let mut out = String::new();
    while matcher.find().unwrap() {
        for group in 0..=regex.groups() {
            if group > 0 {
                out.push(' ');
            }
            match matcher.group(group) {
                Some(found) => {
                    out.push_str(&format!("{}-{}", offset(found.start), offset(found.end)));
                }
                None => out.push('-'),
            }
        }
        out.push(';');
    }
    assert_eq!(regex.is_match(text), Ok(!out.is_empty()), "{pattern:?} in {text:?}");
    out
}

#[test]
#[rustfmt::skip]
fn patterns_match_as_in_java() {
    for (pattern, text, expected) in [
        ("\\w+", "naïve a_1", "0-2;3-5;6-9;"),
        ("(?U)\\w+", "naïve a_1", "0-5;6-9;"),
        ("\\d", "3٣", "0-1;"),
        ("(?U)\\d", "3٣", "0-1;1-2;"),
        ("\\bna", "naïve éna", "0-2;"),
        ("\\b", "é", "0-0;1-1;"),
        ("(?i)É", "éÉ", "1-2;"),
        ("(?iu)É", "éÉ", "0-1;1-2;"),
        ("(?iu)k", "kKK", "0-1;1-2;2-3;"),
        ("(?iu)[a-z]", "ſİK", "0-1;1-2;2-3;"),
        ("(?m)$", "a\r\nb\n", "1-1;4-4;5-5;"),
        ("(?m)^.", "a\r\nb\u{85}c", "0-1;3-4;5-6;"),
        ("$", "a\r\n", "1-1;3-3;"),
        ("a\\Z", "a\u{2028}", "0-1;"),
        ("a\\z", "a\n", ""),
        ("\\R", "\r\n\n\u{2028}", "0-2;2-3;3-4;"),
        (".", "a\r\u{85}\u{2028}b", "0-1;4-5;"),
        ("(?d).", "a\r\n", "0-1;1-2;"),
        ("(?s).", "\n", "0-1;"),
        ("(?d)$", "a\r", "2-2;"),
        ("[[:alpha:]]", "a:lz", "0-1;1-2;2-3;"),
        ("[]a]", "a]b", "0-1;1-2;"),
        ("[^]]", "a]", "0-1;"),
        ("[a-z&&[^c]]+", "abcd", "0-2;3-4;"),
        ("[a-z&&b-d&&[^c]]", "abcd", "1-2;3-4;"),
        ("[^a&&b]", "ab", "0-1;1-2;"),
        ("[\\w-]+@", "x-y@", "0-4;"),
        ("[a-c[x]]+", "abxy", "0-3;"),
        ("(?<=a)b", "aab", "2-3;"),
        ("(?<=a{1,3})b", "aaaab", "4-5;"),
        ("(?<=(?:x|yz))b", "xbyzb", "1-2;4-5;"),
        ("(?<!a)b", "abb", "2-3;"),
        ("a(?=b)", "abac", "0-1;"),
        ("a(?!b)", "abac", "2-3;"),
        ("(?<=a+)b", "aab", "2-3;"),
        ("(?<=xa+?)b", "xab", "refused"),
        ("(a)\\1", "aab", "0-2 0-1;"),
        ("(?i)(a)\\1", "aA", "0-2 0-1;"),
        ("(?<n>a)b\\k<n>", "aba", "0-3 0-1;"),
        ("(a)(b)?\\2", "ab", ""),
        ("(a)\\11", "aa1", "0-3 0-1;"),
        ("\\1(a)", "aa", ""),
        ("a++b", "aab", "0-3;"),
        ("a++ab", "aab", ""),
        ("(?>a|ab)c", "abc", ""),
        ("(a|ab)(c|bcd)(d*)", "abcd", "0-4 0-1 1-4 4-4;"),
        ("(?:(.)b)*cbd", "abcbd", "0-5 2-3;"),
        ("((a)|b)*", "ab", "0-2 1-2 0-1;2-2 - -;"),
        ("(a|b)*c", "abac", "0-4 2-3;"),
        ("(a?)*?b", "aab", "0-3 1-2;"),
        ("(a*)+", "b", "0-0 0-0;1-1 1-1;"),
        ("(|a)+", "aaa", "0-0 0-0;1-1 1-1;2-2 2-2;3-3 3-3;"),
        ("(?:a|ab)*+c", "abc", "2-3;"),
        ("x*", "axb", "0-0;1-2;2-2;3-3;"),
        ("a{2,}?", "aaaa", "0-2;2-4;"),
        ("(\\S?+){2,}z|b", "ab", "1-2 -;"),
        ("\\h+", "a  b", "1-3;"),
        ("\\v", "a\u{b}b", "1-2;"),
        ("\\X", "e\u{301}x", "0-2;2-3;"),
        ("\\X", "👨‍👩x", "0-5;5-6;"),
        ("\\G.", "ab", "0-1;1-2;"),
        ("\\cA", "\u{1}", "0-1;"),
        ("\\0101", "A", "0-1;"),
        ("\\x{1F600}", "😀", "0-2;"),
        ("\\ud83d\\ude00", "😀", "0-2;"),
        ("\\N{LATIN SMALL LETTER A}", "ba", "1-2;"),
        ("\\Qa.b\\E+", "a.bb", "0-4;"),
        ("(?x) a b # c", "ab", "0-2;"),
        ("\\e\\a", "\u{1b}\u{7}", "0-2;"),
        ("\\p{javaLowerCase}+", "aéÉ", "0-2;"),
        ("\\p{IsAlphabetic}+", "aé1", "0-2;"),
        ("\\p{IsGreek}", "aω", "1-2;"),
        ("\\p{InGreek}", "aω", "1-2;"),
        ("\\p{script=Cyrillic}", "aж", "1-2;"),
        ("\\p{Lower}", "aé", "0-1;"),
        ("(?U)\\p{Lower}", "aé", "0-1;1-2;"),
        ("(?i)\\p{Lu}", "aA", "0-1;1-2;"),
        ("\\P{L}", "a1", "1-2;"),
        ("\\pN", "1", "0-1;"),
        ("\\p{IsAlphabetic}", "\u{363}\u{10fc}", "1-2;"),
        ("\\p{javaLowerCase}", "\u{10fc}a", "1-2;"),
        ("\\p{L1}", "ω", ""),
        ("", "a😀b", "0-0;1-1;2-2;3-3;4-4;"),
        ("[^a]", "a😀", "1-3;"),
        (".", "😀", "0-2;"),
        ("[^\\p{L}]", "𝒜", ""),
        ("😀", "x😀", "1-3;"),
        ("(", "", "refused"),
        ("*", "", "refused"),
        ("a**", "", "refused"),
        ("[z-a]", "", "refused"),
        ("\\p{Foo}", "", "refused"),
        ("{", "", "refused"),
        ("a{1", "", "refused"),
        ("a{,3}", "", "refused"),
        ("\\y", "", "refused"),
        ("[a", "", "refused"),
        (")", "", "refused"),
        ("(?<a_1>x)", "", "refused"),
        ("(?<x>a)(?<x>b)", "", "refused"),
        ("\\k<x>", "", "refused"),
        ("(?<=(a|bc){2,}x)", "", "refused"),
        ("\\", "", "refused"),
        ("[a&&]", "a", "0-1;"),
        ("a{2}{3}", "aaaaaa", "0-2;2-4;4-6;"),
        ("\\_", "_", "0-1;"),
        ("]}", "]}", "0-2;"),
    ] {
        assert_eq!(matches(pattern, text), expected, "{pattern:?} in {text:?}");
    }
}

#[test]
fn a_pattern_that_runs_away_is_an_error() {
    let regex = Regex::new(r"(?=(a+)+$)(a|aa)+\2b").unwrap();
    let text = "a".repeat(60) + "b";
    assert_eq!(regex.is_match(&text), Err(StepLimitExceeded));
    // The linear engine also handles this pattern, without exponential backtracking.
    let regex = Regex::new("(a+)+$").unwrap();
    assert_eq!(regex.is_match(&text), Ok(false));
}

/// The number of matches of a pattern in a text.
fn count(pattern: &str, text: &str) -> Result<usize, StepLimitExceeded> {
    let regex = Regex::new(pattern).unwrap();
    let subject = regex.subject(text);
    let mut matcher = Matcher::new(&regex, &subject, false);
    let mut count = 0;
    while matcher.find()? {
        count += 1;
    }
    Ok(count)
}

#[test]
fn searches_that_look_at_all_of_a_text_for_each_match_are_an_error() {
    let letters = "A".repeat(3_000);
    for pattern in [".*[^A-Z]|[A-Z]", "A(?:A*b)?"] {
        assert_eq!(count(pattern, &letters), Err(StepLimitExceeded), "{pattern}");
        // A short text does not exceed the limit.
        assert!(count(pattern, &letters[..500]) == Ok(500), "{pattern}");
    }
}

#[test]
fn the_cost_of_an_instruction_is_the_text_that_it_reads() {
    let (letters, accents) = ("a".repeat(2_000), "é".repeat(4_000));
    let marks = format!("a{}", "\u{301}".repeat(4_000));
    for (pattern, text) in [
        (r"(.*)\1b", &letters),
        (r"(a*)(?=\1b)", &letters),
        (r"(?i)(.*)\1c", &letters),
        (r"(?iu)(.*)\1c", &letters),
        (r"\X*b", &accents),
        (r"\X*b", &marks),
    ] {
        assert_eq!(count(pattern, text), Err(StepLimitExceeded), "{pattern}");
    }
    let short: String = letters.chars().take(200).collect();
    assert_eq!(count(r"(.*)\1b", &short), Ok(0));
    assert_eq!(count(r"(a+)\1", &letters), Ok(1));
    assert_eq!(count(r"\X", &accents), Ok(4_000));
}

#[test]
fn many_matches_in_a_long_text_are_found() {
    let (letters, words) = ("A".repeat(30_000), "some words\n".repeat(3_000));
    for (pattern, text, matches) in [
        ("[A-Z]", &letters, 30_000),
        ("A{1,7}", &letters, 4286),
        (".*", &letters, 2),
        ("\\w+", &words, 6000),
        ("(\\w+) (\\w+)\n", &words, 3000),
        ("", &words, 33_001),
        ("\\bw|\n", &words, 6000),
        (".*s\n|x", &words, 3000),
    ] {
        assert_eq!(count(pattern, text), Ok(matches), "{pattern}");
    }
}

#[test]
fn a_long_text_does_not_recurse_deeply() {
    let text = "ab".repeat(50_000);
    assert_eq!(Regex::new("(?:a|b)*+$").unwrap().is_match(&text), Ok(true));
    assert_eq!(Regex::new("^(?:(?=.)(a|b))*$").unwrap().is_match(&text), Ok(true));
}

#[test]
fn deep_patterns_are_refused() {
    let deep = "(".repeat(10_000) + &")".repeat(10_000);
    assert!(Regex::new(&deep).is_err());
    assert!(Regex::new(&"[".repeat(10_000)).is_err());
}

#[test]
fn replacements_that_java_refuses_are_refused() {
    let regex = Regex::new("(?<n>b)(c)").unwrap();
    for bad in ["$", "$x", "$3", "x\\", "${m}", "${n", "${}", "${1}"] {
        assert!(Replacement::new(bad, &regex).is_err(), "{bad}");
    }
    for good in ["", "$0", "$22", "${n}", "\\$", "\\x", "${n}$1"] {
        assert!(Replacement::new(good, &regex).is_ok(), "{good}");
    }
}
