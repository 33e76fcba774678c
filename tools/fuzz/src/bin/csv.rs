//! Fuzzes CSV in many dialects: no panic, a record never depends on how much of the following text
//! is known, and written records can be read back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use millstream::table::text::csv::{
    Dialect, LineEnd, Parsed, Parser, UnescapedQuote, WriteOptions,
};

fn dialect(choice: &[u8]) -> Dialect {
    use UnescapedQuote::*;
    let of = |index: usize, count: usize| usize::from(choice[index]) % count;
    let code = |text: &str| text.chars().map(u32::from).collect::<Vec<_>>();
    let escape = code("\\\"^")[of(1, 3)];
    let ends = ["\n", "\r\n", "\r."].map(|head| LineEnd::detect(head.as_bytes(), true, 9));
    Dialect {
        separator: code([",", "||", ", ", "é", "aa", "\t"][of(0, 6)]),
        quote: code("\"'\0")[of(2, 3)],
        escape,
        escape_of_escape: [0, escape, u32::from('#')][of(3, 3)],
        comment: [None, Some(u32::from('#'))][of(4, 2)],
        trim_start: choice[4] & 2 > 0,
        trim_end: choice[4] & 4 > 0,
        unescaped_quote: [
            StopAtDelimiter,
            StopAtClosingQuote,
            BackToDelimiter,
            SkipValue,
            RaiseError,
        ][of(5, 5)],
        line_end: ends[of(6, 3)],
        normalize_in_quotes: choice[4] & 8 == 0,
        columns_max: if choice[4] & 16 > 0 { 3 } else { 20480 },
        chars_max: (choice[4] & 32 > 0).then_some(4),
        ..Dialect::default()
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((choice, text)) = data.split_at_checked(8) else { return };
    let mut parser = Parser::new(dialect(choice));
    if choice[7] & 1 > 0 {
        parser.set_wanted((1..8).map(|bit| choice[7] >> bit & 1 > 0).collect());
    }
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        let (parsed, length) = parser.parse(rest, true).expect("the window is the last one");
        if matches!(parsed, Parsed::Malformed(_)) {
            break;
        }
        assert!((1..=rest.len()).contains(&length), "a record without bytes, or beyond the text");
        let (fields, copied) = (parser.fields().to_vec(), parser.copied().to_vec());
        let cut = usize::from(choice[0]) % rest.len();
        if let Some(early) = parser.parse(&rest[..cut], false) {
            assert_eq!(early, (parsed, length));
            assert_eq!((parser.fields(), parser.copied()), (&fields[..], &copied[..]));
        }
        at += length;
    }
    let mut written = Vec::new();
    WriteOptions::default().field(text, true, &mut written);
    let read = Parser::new(Dialect::default()).parse(&written, true);
    assert!(read.is_some_and(|(_, length)| length == written.len()));
});
