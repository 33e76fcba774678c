//! Splits a text into statements, before it is parsed: a shell must know whether the user's input
//! is complete.

/// The statements of a text that end with a semicolon, and the rest of the text.
pub(super) struct Split<'t> {
    pub statements: Vec<&'t str>,
    pub rest: &'t str,
}

/// Splits a text at the semicolons outside of quotes and comments. Statements are returned without
/// their semicolon; empty ones are left out.
pub(super) fn split(text: &str) -> Split<'_> {
    let bytes = text.as_bytes();
    let (mut statements, mut start, mut at) = (Vec::new(), 0, 0);
    while at < bytes.len() {
        at = match bytes[at] {
            b';' => {
                statements.push(text[start..at].trim());
                start = at + 1;
                start
            }
            quote @ (b'\'' | b'"' | b'`') => after_quoted(bytes, at, quote),
            b'-' if bytes[at..].starts_with(b"--") => after_line(bytes, at),
            b'/' if bytes[at..].starts_with(b"/*") => {
                after_comment(bytes, at).unwrap_or(bytes.len())
            }
            _ => at + 1,
        };
    }
    statements.retain(|statement| !is_blank(statement));
    Split { statements, rest: &text[start..] }
}

/// Whether a text has nothing but white space and comments.
pub(super) fn is_blank(text: &str) -> bool {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        at = match bytes[at] {
            byte if byte.is_ascii_whitespace() => at + 1,
            b'-' if bytes[at..].starts_with(b"--") => after_line(bytes, at),
            b'/' if bytes[at..].starts_with(b"/*") => match after_comment(bytes, at) {
                Some(end) => end,
                None => return false,
            },
            _ => return false,
        };
    }
    true
}

/// The index after a quoted text that begins at `at`, or the end of the text if it is not closed. A
/// doubled quote needs no care: it ends one text and begins another.
fn after_quoted(bytes: &[u8], at: usize, quote: u8) -> usize {
    let is_raw =
        at > 0 && bytes[at - 1].eq_ignore_ascii_case(&b'r') && !(at > 1 && is_word(bytes[at - 2]));
    let has_escapes = quote != b'`' && !is_raw;
    let mut next = at + 1;
    while next < bytes.len() {
        match bytes[next] {
            b'\\' if has_escapes => next += 2,
            byte if byte == quote => return next + 1,
            _ => next += 1,
        }
    }
    bytes.len()
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

fn after_line(bytes: &[u8], at: usize) -> usize {
    bytes[at..].iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |end| at + end + 1)
}

/// The index after a comment, in which comments may be nested. `None` if it is not closed.
fn after_comment(bytes: &[u8], at: usize) -> Option<usize> {
    let (mut depth, mut next) = (0, at);
    while next < bytes.len() {
        match (bytes[next], bytes.get(next + 1)) {
            (b'/', Some(b'*')) => (depth, next) = (depth + 1, next + 2),
            (b'*', Some(b'/')) => {
                (depth, next) = (depth - 1, next + 2);
                if depth == 0 {
                    return Some(next);
                }
            }
            _ => next += 1,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_end_at_semicolons_outside_of_quotes_and_comments() {
        for (text, statements, rest) in [
            ("SELECT 1; SELECT 2;", &["SELECT 1", "SELECT 2"][..], ""),
            ("SELECT ';'; x", &["SELECT ';'"], " x"),
            ("SELECT 'it''s;' ;", &["SELECT 'it''s;'"], ""),
            (r"SELECT '\';';", &[r"SELECT '\';'"], ""),
            (r"SELECT r'\';", &[r"SELECT r'\'"], ""),
            (r#"SELECT "a\";b";"#, &[r#"SELECT "a\";b""#], ""),
            ("SELECT `a;\\`;", &["SELECT `a;\\`"], ""),
            ("SELECT 1 -- no; end\n;", &["SELECT 1 -- no; end"], ""),
            ("/* a; /* b; */ c; */ SELECT 1;", &["/* a; /* b; */ c; */ SELECT 1"], ""),
            (";;", &[], ""),
            ("SELECT 'open;", &[], "SELECT 'open;"),
            ("/* a /* b */;", &[], "/* a /* b */;"),
            ("/*/;", &[], "/*/;"),
        ] {
            let split = split(text);
            assert_eq!((split.statements.as_slice(), split.rest), (statements, rest), "{text}");
        }
    }

    #[test]
    fn white_space_and_comments_are_blank() {
        for text in ["", " \n", "-- a; b", "/* a /* b */ */ -- c\n", "/**/", "/*/**/*/"] {
            assert!(is_blank(text), "{text}");
        }
        for text in ["SELECT", "/* open", "/* a /* b */", "/*/", "- -"] {
            assert!(!is_blank(text), "{text}");
        }
    }
}
