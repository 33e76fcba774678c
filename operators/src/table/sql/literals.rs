//! Finds and decodes the string literals of a SQL text.
//!
//! The parser's tokenizer uses the escapes of other systems and has no raw literals. So the text
//! between the quotes is hidden from it. [`hide`] decodes each literal and replaces its content
//! with a filler of the same length, which preserves lines and columns. After tokenizing,
//! [`Literals::put_back`] stores the decoded texts in the tokens.
//!
//! A literal is enclosed in single or double quotes. An escape is a `\` and one of these: a
//! character of `0 b n r t Z`; three octal digits from `000` to `177`; `u` and four or `U` and
//! eight hexadecimal digits. `\%` and `\_` keep their backslash, for LIKE. Before any other
//! character the backslash is dropped. A doubled quote is one quote. `r'…'` has no escapes and ends
//! at the next quote. The parser concatenates adjacent literals. A literal directly after a raw
//! literal, in the same quotes, is appended to it by this module.
//!
//! Two Spark settings change these rules for the statements after the `SET` or `RESET` of one: see
//! [`LiteralSettings`].

use super::{place, syntax};
use crate::table::error::{Place, PlanError, PlanResult};
use sqlparser::tokenizer::{Location, Token, TokenWithSpan};
use std::iter::Peekable;

/// The decoded literals of a text, in order.
pub struct Literals(Vec<String>);

/// The names of the settings in [`LiteralSettings`], in the order of its fields.
const NAMES: [&str; 2] = [
    "spark.sql.parser.escapedStringLiterals",
    "spark.sql.legacy.consecutiveStringLiterals.enabled",
];

/// The Spark settings that affect string literals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LiteralSettings {
    /// `spark.sql.parser.escapedStringLiterals`: backslashes stay in the text, and a doubled quote
    /// stays doubled. A quote after a backslash still does not end the literal. As in Spark, a raw
    /// literal then contains its opening quote.
    without_escapes: bool,
    /// `spark.sql.legacy.consecutiveStringLiterals.enabled`: a doubled quote ends one literal and
    /// begins the next one, so that both are concatenated. This setting has no effect together with
    /// the other one.
    two_quotes_are_none: bool,
    /// Whether `SET` and `RESET` in the text do not change these settings, in the order of the fields.
    fixed: [bool; 2],
}

impl LiteralSettings {
    /// The field of a setting, by the setting's name in lower case.
    pub fn setting(&mut self, key: &str) -> Option<&mut bool> {
        Some(match Self::index(key)? {
            0 => &mut self.without_escapes,
            _ => &mut self.two_quotes_are_none,
        })
    }

    /// Makes a setting, by its name in any case, keep its value. Other names are ignored.
    pub fn fix(&mut self, key: &str) {
        if let Some(at) = Self::index(key) {
            self.fixed[at] = true;
        }
    }

    fn index(key: &str) -> Option<usize> {
        NAMES.iter().position(|name| name.eq_ignore_ascii_case(key))
    }

    /// Updates the settings if `statement`, whose literals are hidden and which has no comments, is a
    /// `SET` or `RESET` of one of them, or a `RESET` of all settings. Any other statement is ignored.
    /// `literal` is the statement's last literal.
    fn see(&mut self, statement: &str, literal: Option<&String>) {
        let code = statement.to_ascii_lowercase();
        let (word, rest) = code.split_once(char::is_whitespace).unwrap_or((&code, ""));
        let text = |written: &str| match written.trim() {
            quoted if quoted.starts_with(['\'', '"']) => {
                literal.map_or(String::new(), |text| text.trim().to_ascii_lowercase())
            }
            plain => plain.replace('`', ""),
        };
        match (word, rest.split_once('=')) {
            ("reset", None) if rest.trim().is_empty() => {
                NAMES.into_iter().for_each(|name| self.change(name, false));
            }
            ("reset", None) => self.change(&text(rest), false),
            ("set", Some((key, value))) => {
                // The execution of the statement rejects a value other than true and false.
                if let Ok(on) = text(value).parse() {
                    self.change(&text(key), on);
                }
            }
            _ => {}
        }
    }

    /// Changes a setting, by its name in any case, unless it is fixed. Other names are ignored.
    fn change(&mut self, key: &str, on: bool) {
        if Self::index(key).is_some_and(|at| !self.fixed[at])
            && let Some(setting) = self.setting(key)
        {
            *setting = on;
        }
    }
}

/// A statement whose literals are hidden, without its comments and the white space around it. Each
/// character is read once, because a statement may follow a hundred thousand lines of comments.
fn without_comments(statement: impl Iterator<Item = char>) -> String {
    let (mut code, mut rest) = (String::new(), statement.peekable());
    while let Some(c) = rest.next() {
        match (c, rest.peek()) {
            ('-', Some('-')) => {
                code.push(' ');
                rest.by_ref().find(|c| *c == '\n');
            }
            ('/', Some('*')) => {
                code.push(' ');
                rest.next();
                skip_block(&mut rest);
            }
            _ => code.push(c),
        }
    }
    code.trim().to_string()
}

/// Skips the rest of a block comment. Block comments may be nested.
fn skip_block(rest: &mut Peekable<impl Iterator<Item = char>>) {
    let mut depth = 1;
    while let Some(c) = rest.next() {
        depth = match (c, rest.peek()) {
            ('/', Some('*')) => depth + 1,
            ('*', Some('/')) => depth - 1,
            _ => continue,
        };
        rest.next();
        if depth == 0 {
            return;
        }
    }
}

/// A cursor over the characters of a text, and the output up to the cursor.
struct Chars {
    chars: Vec<char>,
    at: usize,
    out: String,
    reading: LiteralSettings,
    /// The decoded literals.
    literals: Vec<String>,
    /// The end of each statement, after its semicolon, and whether the statement is blank.
    ends: Vec<(usize, bool)>,
    /// The output's length at the begin of the current statement.
    statement: usize,
    /// Whether a comment, a name or a binary literal is not closed.
    is_open: bool,
}

impl Chars {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    /// Copies up to `count` characters to the output and advances the cursor.
    fn copy(&mut self, count: usize) {
        let end = (self.at + count).min(self.chars.len());
        self.out.extend(&self.chars[self.at..end]);
        self.at = end;
    }

    fn new(sql: &str, reading: LiteralSettings) -> Self {
        let (out, chars) = (String::with_capacity(sql.len()), sql.chars().collect());
        let (literals, ends) = (Vec::new(), Vec::new());
        Self { chars, at: 0, out, reading, literals, ends, statement: 0, is_open: false }
    }

    /// Copies characters up to and including the next occurrence of `last`, or to the end.
    fn copy_through(&mut self, last: char) {
        while let Some(c) = self.peek(0) {
            self.copy(1);
            if c == last {
                return;
            }
        }
        self.is_open |= last != '\n';
    }

    /// Whether the text since the last semicolon consists of white space and closed comments.
    fn is_blank(&self) -> bool {
        !self.is_open && without_comments(self.out[self.statement..].chars()).is_empty()
    }

    /// Ends a statement at the semicolon at the cursor.
    fn end_statement(&mut self) {
        let code = without_comments(self.out[self.statement..].chars());
        self.reading.see(&code, self.literals.last());
        self.copy(1);
        self.statement = self.out.len();
        self.ends.push((self.at, code.is_empty()));
    }

    /// Whether blanks and a single quote follow the character at the cursor.
    fn opens_after_blanks(&self) -> bool {
        let rest = self.chars.get(self.at + 1..).unwrap_or_default();
        rest.iter().find(|c| !c.is_whitespace()) == Some(&'\'')
    }

    /// Writes a filler for the next character, and advances. A line break is copied instead.
    fn fill(&mut self) {
        self.out.push(if self.peek(0) == Some('\n') { '\n' } else { 'x' });
        self.at += 1;
    }

    /// The error of a literal that begins at the index `begin` and is not closed.
    fn unterminated(&self, begin: usize) -> PlanError {
        let before = &self.chars[..begin];
        let line = before.iter().filter(|c| **c == '\n').count();
        let column = before.iter().rev().take_while(|c| **c != '\n').count();
        let begin = Location::new(line as u64 + 1, column as u64 + 1);
        syntax("Unterminated string literal", place(begin))
    }

    /// Copies a block comment. Block comments may be nested.
    fn copy_comment(&mut self) {
        let mut depth = 0;
        loop {
            match (self.peek(0), self.peek(1)) {
                (Some('/'), Some('*')) => {
                    depth += 1;
                    self.copy(2);
                }
                (Some('*'), Some('/')) => {
                    depth -= 1;
                    self.copy(2);
                    if depth == 0 {
                        return;
                    }
                }
                (Some(_), _) => self.copy(1),
                (None, _) => {
                    self.is_open = true;
                    return;
                }
            }
        }
    }

    /// Decodes the literal at the cursor, which is at its opening quote.
    fn literal(&mut self, quote: char, mut raw: bool) -> PlanResult<String> {
        let begin = self.at;
        let mut text = String::new();
        let escapes = !self.reading.without_escapes;
        self.copy(1);
        loop {
            if raw && !escapes {
                text.push(quote);
            }
            let mut body = Vec::new();
            loop {
                match self.peek(0) {
                    None => return Err(self.unterminated(begin)),
                    Some(c) if c == quote => break,
                    Some('\\') if !raw => {
                        body.push('\\');
                        self.fill();
                        if let Some(next) = self.peek(0) {
                            body.push(next);
                            self.fill();
                        }
                    }
                    Some(c) => {
                        body.push(c);
                        self.fill();
                    }
                }
            }
            if raw || !escapes {
                text.extend(body);
            } else {
                text.push_str(&unescape(&body));
            }
            if self.peek(1) != Some(quote) {
                self.copy(1);
                return Ok(text);
            }
            // By default, a doubled quote denotes one quote. In a raw literal it ends the literal
            // and begins another one.
            self.fill();
            self.fill();
            if !raw && (!escapes || !self.reading.two_quotes_are_none) {
                text.push(quote);
                text.extend((!escapes).then_some(quote));
            }
            raw = false;
        }
    }
}

impl Chars {
    fn push_literal(&mut self, quote: char, raw: bool) -> PlanResult<()> {
        let literal = self.literal(quote, raw)?;
        self.literals.push(literal);
        Ok(())
    }

    /// Copies the whole text, with fillers for the contents of literals. Stops at a literal that is
    /// not closed.
    fn scan(&mut self) -> PlanResult<()> {
        while let Some(c) = self.peek(0) {
            match (c, self.peek(1)) {
                ('-', Some('-')) => self.copy_through('\n'),
                ('/', Some('*')) => self.copy_comment(),
                ('`', _) => {
                    self.copy(1);
                    self.copy_through('`');
                }
                ('\'' | '"', _) => self.push_literal(c, false)?,
                (';', _) => self.end_statement(),
                _ if c.is_alphanumeric() || c == '_' => {
                    let rest = &self.chars[self.at..];
                    let length =
                        rest.iter().take_while(|c| c.is_alphanumeric() || **c == '_').count();
                    match (c, self.peek(length)) {
                        ('r' | 'R', Some(quote @ ('\'' | '"'))) if length == 1 => {
                            self.out.push(' ');
                            self.at += 1;
                            self.push_literal(quote, true)?;
                        }
                        // The digits of a binary literal are not replaced.
                        ('x' | 'X', Some('\'')) if length == 1 => {
                            self.copy(2);
                            self.copy_through('\'');
                        }
                        // Blanks may separate the X from the quote. The parser reads them only before the
                        // X, so they change places.
                        ('x' | 'X', _) if length == 1 && self.opens_after_blanks() => {
                            self.at += 1;
                            while self.peek(0).is_some_and(char::is_whitespace) {
                                self.copy(1);
                            }
                            self.out.push(c);
                            self.copy(1);
                            self.copy_through('\'');
                        }
                        _ => self.copy(length),
                    }
                }
                _ => self.copy(1),
            }
        }
        Ok(())
    }
}

/// Replaces the contents of all string literals in a text with fillers, and returns the decoded
/// literals. `reading` has the settings at the start of the text.
pub fn hide(sql: &str, reading: LiteralSettings) -> PlanResult<(String, Literals)> {
    let mut chars = Chars::new(sql, reading);
    chars.scan()?;
    Ok((chars.out, Literals(chars.literals)))
}

/// A text split into statements, before it is parsed: a shell must know whether an input is complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatementTexts<'t> {
    /// The statements that end with a semicolon, without it. Blank ones are left out.
    pub ended: Vec<&'t str>,
    /// The text after the last semicolon.
    pub rest: &'t str,
    /// Whether the rest consists of white space and comments.
    pub is_rest_blank: bool,
}

/// Splits a text at the semicolons outside of literals, quoted names and comments.
pub(crate) fn split(sql: &str, reading: LiteralSettings) -> StatementTexts<'_> {
    let mut chars = Chars::new(sql, reading);
    let is_closed = chars.scan().is_ok();
    let mut indices = sql.char_indices().map(|(at, _)| at).chain([sql.len()]);
    let (mut ended, mut begin, mut passed) = (Vec::new(), 0, 0);
    for (end, is_blank) in &chars.ends {
        let end_byte = indices.nth(end - passed).unwrap_or(sql.len());
        passed = end + 1;
        if !is_blank {
            ended.push(sql[begin..end_byte - 1].trim());
        }
        begin = end_byte;
    }
    let is_rest_blank = is_closed && chars.is_blank();
    StatementTexts { ended, rest: &sql[begin..], is_rest_blank }
}

impl Literals {
    /// Stores the decoded literals in the string tokens of the text with fillers. Fails if the
    /// number of tokens differs from that of the literals.
    pub fn put_back(self, tokens: &mut [TokenWithSpan]) -> PlanResult<()> {
        let mut texts = self.0.into_iter();
        for token in tokens {
            if let Token::SingleQuotedString(text) | Token::DoubleQuotedString(text) =
                &mut token.token
            {
                match texts.next() {
                    Some(said) => *text = said,
                    None => {
                        return Err(syntax("this string is not read", place(token.span.start)));
                    }
                }
            }
        }
        match texts.next() {
            Some(text) => Err(syntax(format!("the string '{text}' is not read"), Place::default())),
            None => Ok(()),
        }
    }
}

/// Decodes the escapes in the text between the quotes. As in Java, escapes may denote surrogates: a
/// pair is one character, and an unpaired surrogate becomes `?`.
fn unescape(body: &[char]) -> String {
    let mut units: Vec<u16> = Vec::with_capacity(body.len());
    let mut buffer = [0; 2];
    let mut i = 0;
    while i < body.len() {
        let c = body[i];
        i += 1;
        if c != '\\' || i == body.len() {
            units.extend_from_slice(c.encode_utf16(&mut buffer));
            continue;
        }
        if let Some(length) = numeric(&body[i..], &mut units) {
            i += length;
            continue;
        }
        let escaped = body[i];
        i += 1;
        let said = match escaped {
            '0' => '\0',
            'b' => '\u{8}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'Z' => '\u{1a}',
            other => other,
        };
        if matches!(escaped, '%' | '_') {
            units.push(u16::from(b'\\'));
        }
        units.extend_from_slice(said.encode_utf16(&mut buffer));
    }
    char::decode_utf16(units).map(|c| c.unwrap_or('?')).collect()
}

/// Decodes a numeric escape to UTF-16 and returns its length; `None` if the escape is not numeric.
fn numeric(escape: &[char], units: &mut Vec<u16>) -> Option<usize> {
    let digits = |from: usize, count: usize, radix: u32| {
        let digits = escape.get(from..from + count)?;
        digits.iter().try_fold(0, |value, c| Some(value * radix + c.to_digit(radix)?))
    };
    match escape.first()? {
        'u' => {
            units.push(digits(1, 4, 16)? as u16);
            Some(5)
        }
        'U' => {
            let code = digits(1, 8, 16)?;
            match code.checked_sub(0x1_0000) {
                None => units.push(code as u16),
                // A code point beyond Unicode wraps around, as in Spark.
                Some(rest) => {
                    units.push((rest / 0x400 + 0xd800) as u16);
                    units.push((rest % 0x400 + 0xdc00) as u16);
                }
            }
            Some(9)
        }
        '0' | '1' => {
            units.push(digits(0, 3, 8)? as u16);
            Some(3)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{LiteralSettings, without_comments};
    use crate::table::error::PlanResult;
    use sqlparser::tokenizer::{Token, TokenWithSpan};

    fn tokenize(sql: &str) -> PlanResult<Vec<TokenWithSpan>> {
        super::super::tokenize(sql, LiteralSettings::default())
    }

    /// The values of a statement's string tokens.
    fn texts(sql: &str) -> Vec<String> {
        let tokens = tokenize(sql).unwrap();
        let texts = tokens.into_iter().filter_map(|token| match token.token {
            Token::SingleQuotedString(text) | Token::DoubleQuotedString(text) => Some(text),
            _ => None,
        });
        texts.collect()
    }

    #[test]
    fn statements_end_at_semicolons_outside_of_quotes_and_comments() {
        for (text, ended, rest) in [
            ("SELECT 1; SELECT 2;", &["SELECT 1", "SELECT 2"][..], ""),
            ("SELECT ';'; x", &["SELECT ';'"], " x"),
            ("SELECT 'it''s;' ;", &["SELECT 'it''s;'"], ""),
            (r"SELECT '\';';", &[r"SELECT '\';'"], ""),
            (r"SELECT r'\';", &[r"SELECT r'\'"], ""),
            (r#"SELECT "a\";b";"#, &[r#"SELECT "a\";b""#], ""),
            ("SELECT `a;\\`;", &["SELECT `a;\\`"], ""),
            ("SELECT 1 -- no; end\n;", &["SELECT 1 -- no; end"], ""),
            ("/* a; /* b; */ c; */ SELECT 1;", &["/* a; /* b; */ c; */ SELECT 1"], ""),
            ("SELECT 'é客😀;'; SELECT é", &["SELECT 'é客😀;'"], " SELECT é"),
            ("SELECT x ';'; y", &["SELECT x ';'"], " y"),
            (";;", &[], ""),
            ("SELECT 'open;", &[], "SELECT 'open;"),
            ("SELECT `open;", &[], "SELECT `open;"),
            ("/* a /* b */;", &[], "/* a /* b */;"),
            ("/*/;", &[], "/*/;"),
        ] {
            let found = super::split(text, LiteralSettings::default());
            assert_eq!((found.ended.as_slice(), found.rest), (ended, rest), "{text}");
        }
        for text in ["", " \n", "-- a; b", "/* a /* b */ */ -- c\n", "/**/", "/*/**/*/"] {
            assert!(super::split(text, LiteralSettings::default()).is_rest_blank, "{text}");
        }
        for text in ["SELECT", "/* open", "/* a /* b */", "/*/", "- -", "'open", "; 'open"] {
            assert!(!super::split(text, LiteralSettings::default()).is_rest_blank, "{text}");
        }
    }

    #[test]
    fn escapes_mean_what_they_mean_in_spark() {
        for (sql, said) in [
            (r"'\u00e9\U0001F600'", "é😀"),
            (r"'\101\012x\18\200'", "A\nx18200"),
            (r"'\0\Z\b\a\f\v\e'", "\0\u{1a}\u{8}afve"),
            (r"'\u00g9\u12\U12'", "u00g9u12U12"),
            (r"'\uD83D\uDE00'", "😀"),
            (r"'\uD83D-\uDE00'", "?-?"),
            (r"'\U00110000'", "??"),
            (r"'\UFFFFFFFF'", "\u{d7bf}?"),
            (r#"'\%\_\x\"\'\\'"#, r#"\%\_x"'\"#),
            ("'a''b'", "a'b"),
            (r#""a""b\"""#, "a\"b\""),
            (r"r'a\d'", r"a\d"),
            (r"r'a\'", r"a\"),
            (r"R'it\n''\t''s'", "it\\n\t's"),
            ("'--' -- 'not this'", "--"),
            ("/* 'no' /* \" */ ' */ 'yes'", "yes"),
            ("`it's` 'yes'", "yes"),
            ("''", ""),
        ] {
            assert_eq!(texts(sql), [said], "{sql}");
        }
        assert_eq!(texts("SELECT bar'x', r 'y', r'z'r'\\'"), ["x", "y", "z", "\\"]);
    }

    #[test]
    fn a_setting_applies_to_the_literals_after_it() {
        let sql = r"SELECT '\n'; SET spark.sql.parser.escapedStringLiterals = true; SELECT '\n\'';
            SET spark.sql.parser.escapedStringLiterals=false; SELECT '\n'";
        assert_eq!(texts(sql), ["\n", r"\n\'", "\n"]);
        let sql = "SELECT 'a''b'; -- so\nSET spark.sql.legacy.consecutiveStringLiterals.enabled=true; \
             SELECT 'a''b'";
        assert_eq!(texts(sql), ["a'b", "ab"]);
    }

    #[test]
    fn a_reset_restores_how_literals_are_read() {
        const ESCAPES: &str = "spark.sql.parser.escapedStringLiterals";
        const QUOTES: &str = "spark.sql.legacy.consecutiveStringLiterals.enabled";
        let set = format!("SET {ESCAPES} = true; /* on */ SET\n{QUOTES} = true;");
        let query = r"SELECT '\n'";
        for (reset, said) in [
            ("RESET".to_string(), "\n"),
            ("reset -- all of them\n".to_string(), "\n"),
            (format!("/* a /* nested */ one */ RESET {ESCAPES}"), "\n"),
            (format!("RESET\t`spark`.{}", &ESCAPES[6..]), "\n"),
            (format!("RESET {QUOTES}"), r"\n"),
            ("RESET no.such.setting".to_string(), r"\n"),
            (format!("SELECT 1 AS reset, 2 AS `RESET {ESCAPES}`"), r"\n"),
        ] {
            assert_eq!(texts(&format!("{set}{reset};{query}")), [said], "{reset}");
        }
        let mut fixed = LiteralSettings::default();
        *fixed.setting(ESCAPES).unwrap() = true;
        fixed.fix(ESCAPES);
        let tokens = super::super::tokenize(&format!("RESET; {query}"), fixed).unwrap();
        assert!(tokens.iter().any(|t| t.token == Token::SingleQuotedString(r"\n".to_string())));
    }

    #[test]
    fn comments_are_dropped_reading_each_character_once() {
        let lines = 100_000;
        for comment in ["-- a comment\n", "/* a comment */\n", "/* /* ", "- / * \n"] {
            let text = format!("{}RESET", comment.repeat(lines));
            let mut read = 0;
            let code = without_comments(text.chars().inspect(|_| read += 1));
            assert_eq!(read, text.len(), "{comment}");
            let expected = match comment {
                "/* /* " => "",
                "- / * \n" => text.trim(),
                _ => "RESET",
            };
            assert_eq!(code, expected, "{comment}");
        }
    }

    #[test]
    fn without_escapes_quotes_stay_as_they_are_written() {
        let set = "SET spark.sql.parser.escapedStringLiterals = true; ";
        for (sql, said) in [
            (r"'x\y'", r"x\y"),
            (r"'x\'y'", r"x\'y"),
            ("'x''y'", "x''y"),
            (
                r"r'x
''y
'",
                r"'x
y
",
            ),
        ] {
            assert_eq!(texts(&format!("{set}SELECT {sql}")), [said], "{sql}");
            let both = "SET spark.sql.legacy.consecutiveStringLiterals.enabled = true;";
            assert_eq!(texts(&format!("{set}{both}SELECT {sql}")), [said], "{sql}");
        }
    }

    #[test]
    fn tokens_and_errors_keep_their_positions() {
        let tokens = tokenize("SELECT 'é\\n',\n  r'\\d''\nx' y").unwrap();
        let last = tokens.last().unwrap();
        assert_eq!((last.span.start.line, last.span.start.column), (3, 4));
        let error = tokenize("SELECT 1,\n 'abc").unwrap_err();
        assert_eq!((error.place.line, error.place.column), (2, 2));
    }
}
