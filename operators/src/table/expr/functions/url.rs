//! The function `parse_url`: splits a URL into its parts like Java's `java.net.URI`.
//!
//! The grammar is that of RFC 2396, plus the non-ASCII characters that Java accepts. Browsers
//! accept more: here `http://a b` is an error, and `http://a_b/` has an authority but no host.

use super::regexp::{bad_pattern, runaway};
use super::registry::{Call, Function, Typed, called, text_or_null};
use crate::table::error::PlanResult;
use crate::table::expr::Resolved;
use crate::table::expr::cell::Cell;
use crate::table::expr::compile::{Compiled, EvalError, failed, from_cells, text_in};
use crate::table::text::regexp::{Matcher, PatternCache, Regex};
use crate::table::types::DataType;
use bumpalo::Bump;
use std::net::Ipv6Addr;

use DataType as T;

pub(super) static FUNCTIONS: &[Function] = &[called(
    "parse_url",
    "parse_url(url, 'HOST', 'PATH', 'QUERY' and their like[, key]): a part of it, \
     or a value of its query",
    (2, 3),
    resolve,
    compile,
)
.usage("2.0.0", "parse_url('http://example.org/path?k=v', 'QUERY', 'k')", "v")];

fn resolve(name: &str, args: Vec<Resolved>) -> PlanResult<Typed> {
    let args = args.into_iter().map(|arg| text_or_null(name, arg));
    Ok(Typed::new(args.collect::<PlanResult<_>>()?, T::String, true))
}

fn compile(args: Vec<Compiled>, call: Call) -> Compiled {
    let keys = PatternCache::default();
    from_cells(call.to.physical(), move |cx| {
        let mut texts: smallvec::SmallVec<[&str; 3]> = smallvec::SmallVec::new();
        for arg in &args {
            let cell = arg.cell(cx)?;
            if cell.is_null() {
                return Ok(Cell::Null);
            }
            texts.push(text_in(cell.bytes(), cx.arena));
        }
        let (text, part) = (texts[0], texts[1]);
        let url = match Url::parse(text) {
            Ok(url) => url,
            Err(reason) => return not_a_url(text, reason),
        };
        let Some(key) = texts.get(2) else {
            return Ok(url.part(part).map_or(Cell::Null, |part| Cell::Bytes(part.as_bytes())));
        };
        match url.query.filter(|_| part == "QUERY") {
            Some(query) => value_of(query, key, &keys, cx.arena),
            None => Ok(Cell::Null),
        }
    })
}

/// The value of a query parameter. As in Spark, the key is used as a regular expression.
fn value_of<'a>(
    query: &'a str,
    key: &str,
    keys: &PatternCache<Result<Regex, String>>,
    arena: &'a Bump,
) -> Result<Cell<'a>, Box<EvalError>> {
    let pattern = |key: &str| Regex::new(&format!("(&|^){key}=([^&]*)"));
    keys.with(key, pattern, |regex| match regex {
        Ok(regex) => {
            let subject = regex.subject(query);
            let mut matcher = Matcher::new(regex, &subject, true);
            if !matcher.find().map_err(runaway)? {
                return Ok(Cell::Null);
            }
            let value = matcher.group(2).map(|range| subject.part(range, arena));
            Ok(value.map_or(Cell::Null, |value| Cell::Bytes(value.as_bytes())))
        }
        Err(reason) => bad_pattern(key, reason),
    })
}

#[cold]
fn not_a_url<'a>(text: &str, reason: &str) -> Result<Cell<'a>, Box<EvalError>> {
    failed(
        "INVALID_URL",
        format!("'{text}' is not a URL: {reason}"),
        "Use try_parse_url to get NULL instead",
    )
}

/// The parts of a URL, as written.
#[derive(Debug, Default, PartialEq)]
struct Url<'t> {
    scheme: Option<&'t str>,
    authority: Option<&'t str>,
    user_info: Option<&'t str>,
    host: Option<&'t str>,
    /// The path; `None` for an opaque URL such as `mailto:a@b`.
    path: Option<&'t str>,
    query: Option<&'t str>,
    fragment: Option<&'t str>,
    /// The path and the query, as one text.
    file: Option<&'t str>,
}

/// A parse result. The error tells what is malformed.
type Parsed<T> = Result<T, &'static str>;

const MARK: &str = "-_.!~*'()";

fn is_user_info(c: u8) -> bool {
    c.is_ascii_alphanumeric() || MARK.as_bytes().contains(&c) || b";:&=+$,".contains(&c)
}

fn is_path(c: u8) -> bool {
    c.is_ascii_alphanumeric() || MARK.as_bytes().contains(&c) || b":@&=+$,;/".contains(&c)
}

fn is_query(c: u8) -> bool {
    is_path(c) || b"?[]".contains(&c)
}

fn is_registry_name(c: u8) -> bool {
    c.is_ascii_alphanumeric() || MARK.as_bytes().contains(&c) || b"$,;:@&=+".contains(&c)
}

fn is_server(c: u8) -> bool {
    is_user_info(c) || b".:@[]%".contains(&c)
}

/// Whether a text consists only of legal characters, escapes and non-ASCII characters.
fn has_only(text: &str, is_legal: fn(u8) -> bool) -> Parsed<bool> {
    for (at, c) in text.char_indices() {
        if c.is_ascii() && is_legal(c as u8) {
            continue;
        }
        match c {
            '%' => {
                let hex = text.as_bytes().get(at + 1..at + 3);
                if !hex.is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit)) {
                    return Err("a % is not followed by two hexadecimal digits");
                }
            }
            c if c > '\u{80}' && !c.is_control() && !is_space(c) => {}
            _ => return Ok(false),
        }
    }
    Ok(true)
}

/// Java's `isSpaceChar` for non-ASCII characters: spaces, and separators of lines and paragraphs.
fn is_space(c: char) -> bool {
    matches!(
        c,
        '\u{a0}' | '\u{1680}' | '\u{2000}'
            ..='\u{200a}' | '\u{2028}' | '\u{2029}' | '\u{202f}' | '\u{205f}' | '\u{3000}'
    )
}

fn check(text: &str, is_legal: fn(u8) -> bool, reason: &'static str) -> Parsed<()> {
    if has_only(text, is_legal)? { Ok(()) } else { Err(reason) }
}

impl<'t> Url<'t> {
    fn parse(text: &'t str) -> Parsed<Self> {
        let mut url = Self::default();
        let stop = text.find([':', '/', '?', '#']);
        let rest = match stop.filter(|stop| text.as_bytes()[*stop] == b':') {
            Some(colon) => {
                let scheme = &text[..colon];
                let legal = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
                if !scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                    || !scheme.chars().all(legal)
                {
                    return Err("the scheme before ':' is not a name");
                }
                url.scheme = Some(scheme);
                &text[colon + 1..]
            }
            None => text,
        };
        let (rest, fragment) = match rest.split_once('#') {
            Some((rest, fragment)) => (rest, Some(fragment)),
            None => (rest, None),
        };
        if url.scheme.is_some() && !rest.starts_with('/') {
            if rest.is_empty() {
                return Err("nothing follows the scheme");
            }
            check(rest, is_query, "an illegal character after the scheme")?;
        } else {
            url.hierarchical(rest, fragment.is_some())?;
        }
        if let Some(fragment) = fragment {
            check(fragment, is_query, "an illegal character in the fragment")?;
        }
        url.fragment = fragment;
        Ok(url)
    }

    fn hierarchical(&mut self, text: &'t str, has_fragment: bool) -> Parsed<()> {
        let mut rest = text;
        if let Some(behind) = text.strip_prefix("//") {
            let end = behind.find(['/', '?']).unwrap_or(behind.len());
            let authority = &behind[..end];
            rest = &behind[end..];
            if !authority.is_empty() {
                self.authority(authority)?;
            } else if rest.is_empty() && !has_fragment {
                return Err("nothing follows '//'");
            }
        }
        let (path, query) = match rest.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (rest, None),
        };
        check(path, is_path, "an illegal character in the path")?;
        if let Some(query) = query {
            check(query, is_query, "an illegal character in the query")?;
        }
        (self.path, self.query, self.file) = (Some(path), query, Some(rest));
        Ok(())
    }

    /// Parses user, host and port. If the text has a different form, it is a registry-based
    /// authority.
    fn authority(&mut self, text: &'t str) -> Parsed<()> {
        let is_name = has_only(text, is_registry_name)?;
        let server = match has_only(text, is_server)? {
            true => Server::parse(text),
            false => Err("an illegal character in the authority"),
        };
        match (server, is_name) {
            (Ok(server), _) => (self.user_info, self.host) = (server.user_info, Some(server.host)),
            (Err(_), true) => {}
            (Err(reason), _) => return Err(reason),
        }
        self.authority = Some(text);
        Ok(())
    }

    fn part(&self, name: &str) -> Option<&'t str> {
        match name {
            "HOST" => self.host,
            "PATH" => self.path,
            "QUERY" => self.query,
            "REF" => self.fragment,
            "PROTOCOL" => self.scheme,
            "FILE" => self.file,
            "AUTHORITY" => self.authority,
            "USERINFO" => self.user_info,
            _ => None,
        }
    }
}

struct Server<'t> {
    user_info: Option<&'t str>,
    host: &'t str,
}

impl<'t> Server<'t> {
    fn parse(text: &'t str) -> Parsed<Self> {
        let (user_info, rest) = match text.split_once('@') {
            Some((user, rest)) => (Some(user), rest),
            None => (None, text),
        };
        if let Some(user) = user_info {
            check(user, is_user_info, "an illegal character in the user")?;
        }
        let end = match rest.strip_prefix('[') {
            Some(inner) => {
                let length = inner.find(']').ok_or("a '[' is not closed")?;
                let (address, scope) =
                    inner[..length].split_once('%').unwrap_or((&inner[..length], "0"));
                let legal = |c: char| c.is_ascii_alphanumeric() || "_.%".contains(c);
                if address.parse::<Ipv6Addr>().is_err()
                    || scope.is_empty()
                    || !scope.chars().all(legal)
                {
                    return Err("the text in brackets is not an IPv6 address");
                }
                length + 2
            }
            None => rest.find(':').unwrap_or(rest.len()),
        };
        let (host, port) = rest.split_at(end);
        if !rest.starts_with('[') && !is_ipv4(host) {
            hostname(host)?;
        }
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => "",
            None => return Err("an illegal character after the host"),
            Some(port) => port,
        };
        if !port.is_empty() && port.parse::<i32>().is_err() || port.starts_with(['+', '-']) {
            return Err("the port is not a number");
        }
        Ok(Self { user_info, host })
    }
}

fn is_ipv4(host: &str) -> bool {
    let byte = |part: &str| {
        part.bytes().all(|b| b.is_ascii_digit()) && part.parse::<i32>().is_ok_and(|n| n <= 255)
    };
    host.split('.').count() == 4 && host.split('.').all(byte)
}

/// Checks a host name: labels of letters, digits and inner hyphens. If there are several labels,
/// the last starts with a letter.
fn hostname(host: &str) -> Parsed<()> {
    let labels = host.strip_suffix('.').unwrap_or(host);
    for label in labels.split('.') {
        let inner = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if label.is_empty()
            || label.starts_with('-')
            || label.ends_with('-')
            || !label.chars().all(inner)
        {
            return Err("the host is not a name");
        }
    }
    match labels.rsplit_once('.') {
        Some((_, last)) if !last.starts_with(|c: char| c.is_ascii_alphabetic()) => {
            Err("the last label of the host begins with a digit")
        }
        _ => Ok(()),
    }
}
