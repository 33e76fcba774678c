//! Glob patterns of paths, with Hadoop's syntax: `*`, `?`, `[a-z]`, `[!a]`, `{a,b}`, and `\` as the
//! escape character.
//!
//! Alternatives in braces are expanded first, so they may contain `/`. No other part of a pattern
//! matches `/`.

use std::io;
use std::path::{Path, PathBuf};

/// The maximum number of alternatives that one pattern may expand to.
const ALTERNATIVES_MAX: usize = 10_000;

/// Whether a path contains a special character of patterns.
pub fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '[', ']', '{', '}', '\\'])
}

/// A pattern for one component of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamePattern(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Char(char),
    /// `?`
    Any,
    /// `*`
    Many,
    Set {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

impl NamePattern {
    /// Parses a pattern without alternatives. The error describes the syntax error.
    fn parse(text: &str) -> Result<Self, String> {
        let (mut parts, mut chars) = (Vec::new(), text.chars());
        while let Some(c) = chars.next() {
            parts.push(match c {
                '\\' => Part::Char(chars.next().ok_or("nothing follows the last '\\'")?),
                '?' => Part::Any,
                '*' => Part::Many,
                '[' => set(&mut chars)?,
                other => Part::Char(other),
            });
        }
        Ok(Self(parts))
    }

    /// The only name that matches, if the pattern has no special character; `None` otherwise.
    fn name(&self) -> Option<String> {
        let char = |part: &Part| match part {
            Part::Char(c) => Some(*c),
            _ => None,
        };
        self.0.iter().map(char).collect()
    }

    /// Whether a name matches. Takes time of at most the product of both lengths.
    fn matches(&self, name: &str) -> bool {
        let name: Vec<char> = name.chars().collect();
        let (mut part, mut at) = (0, 0);
        // Where to resume if the match fails: the last `*` then matches one more character.
        let mut retry: Option<(usize, usize)> = None;
        while at < name.len() {
            match self.0.get(part) {
                Some(Part::Many) => {
                    retry = Some((part + 1, at + 1));
                    part += 1;
                }
                Some(other) if other.takes(name[at]) => (part, at) = (part + 1, at + 1),
                _ => match retry {
                    Some((after, next)) => {
                        (part, at) = (after, next);
                        retry = Some((after, next + 1));
                    }
                    None => return false,
                },
            }
        }
        self.0[part..].iter().all(|rest| *rest == Part::Many)
    }
}

impl Part {
    fn takes(&self, c: char) -> bool {
        match self {
            Self::Char(own) => *own == c,
            Self::Any => true,
            Self::Many => false,
            Self::Set { negated, ranges } => {
                ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != *negated
            }
        }
    }
}

/// Parses a character set after its `[`. A `]` as the first character is a member of the set.
fn set(chars: &mut std::str::Chars<'_>) -> Result<Part, String> {
    const OPEN: &str = "a '[' is not closed";
    let (mut negated, mut ranges) = (false, Vec::<(char, char)>::new());
    let (mut first, mut begun) = (true, None);
    loop {
        let c = chars.next().ok_or(OPEN)?;
        let starts = std::mem::take(&mut first);
        let member = match c {
            '!' | '^' if starts => {
                (negated, first) = (true, true);
                if chars.as_str().starts_with(['!', '^']) {
                    first = false;
                }
                continue;
            }
            ']' if !starts => break,
            '[' => return Err(OPEN.to_string()),
            '\\' => chars.next().ok_or(OPEN)?,
            '-' if !starts && begun.is_none() && !ranges.is_empty() => {
                // A `-` is a range, unless it is the last character of the set.
                if chars.as_str().starts_with(']') {
                    '-'
                } else {
                    begun = ranges.pop().map(|(low, _)| low);
                    continue;
                }
            }
            other => other,
        };
        match begun.take() {
            Some(low) if low > member => {
                return Err(format!("the range '{low}-{member}' is empty"));
            }
            Some(low) => ranges.push((low, member)),
            None => ranges.push((member, member)),
        }
    }
    Ok(Part::Set { negated, ranges })
}

/// Expands `a{b,c}d` to `abd` and `acd`. The error describes unbalanced braces, or more than
/// [`ALTERNATIVES_MAX`] alternatives.
fn alternatives(text: &str) -> Result<Vec<String>, String> {
    let mut pending = vec![text.to_string()];
    let mut done = Vec::new();
    while let Some(text) = pending.pop() {
        match first_group(&text)? {
            None => done.push(text),
            Some((open, commas, close)) => {
                let mut from = open + 1;
                let mut parts = Vec::new();
                for end in commas.into_iter().chain([close]) {
                    parts.push(format!(
                        "{}{}{}",
                        &text[..open],
                        &text[from..end],
                        &text[close + 1..]
                    ));
                    from = end + 1;
                }
                // The parts are pushed in reverse order, so that the first alternative is expanded
                // next.
                pending.extend(parts.into_iter().rev());
            }
        }
        if pending.len() + done.len() > ALTERNATIVES_MAX {
            return Err(format!("it has more than {ALTERNATIVES_MAX} alternatives"));
        }
    }
    Ok(done)
}

/// The positions of the first top-level group: its opening brace, its commas and its closing brace.
fn first_group(text: &str) -> Result<Option<(usize, Vec<usize>, usize)>, String> {
    let (mut open, mut commas, mut depth) = (None, Vec::new(), 0);
    let mut in_set = false;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => drop(chars.next()),
            ']' if in_set => in_set = false,
            _ if in_set => {}
            '[' if text[at..].contains(']') => in_set = true,
            '{' => {
                open = open.or(Some(at));
                depth += 1;
            }
            ',' if depth == 1 => commas.push(at),
            '}' if depth > 0 => {
                depth -= 1;
                if let (0, Some(open)) = (depth, open) {
                    return Ok(Some((open, commas, at)));
                }
            }
            _ => {}
        }
    }
    match open {
        Some(_) => Err("a '{' is not closed".to_string()),
        None => Ok(None),
    }
}

/// A name filter with expanded alternatives.
#[derive(Clone, Debug)]
pub struct NameFilter(Vec<NamePattern>);

impl NameFilter {
    /// Parses a filter. The error describes the syntax error.
    pub fn parse(text: &str) -> Result<Self, String> {
        let patterns = alternatives(text)?;
        let patterns = patterns.iter().map(|text| NamePattern::parse(text));
        Ok(Self(patterns.collect::<Result<_, _>>()?))
    }

    /// Whether a name matches.
    pub fn matches(&self, name: &str) -> bool {
        self.0.iter().any(|pattern| pattern.matches(name))
    }
}

/// A path pattern with expanded alternatives.
#[derive(Clone, Debug)]
pub struct PathPattern {
    /// The folder that relative patterns start at. It is matched literally.
    base: PathBuf,
    alternatives: Vec<(String, Vec<NamePattern>)>,
}

impl PathPattern {
    /// Parses a pattern relative to a folder. The error describes the syntax error.
    pub fn parse(folder: &Path, text: &str) -> Result<Self, String> {
        let base = if text.starts_with('/') { Path::new("/") } else { folder };
        let mut patterns = Vec::new();
        for text in alternatives(text)? {
            let names = text.split('/').filter(|name| !matches!(*name, "" | "."));
            let names = names.map(NamePattern::parse).collect::<Result<Vec<_>, _>>()?;
            patterns.push((text, names));
        }
        Ok(Self { base: base.to_path_buf(), alternatives: patterns })
    }

    /// The expanded alternatives.
    pub fn texts(&self) -> impl Iterator<Item = String> {
        self.alternatives.iter().map(|(text, _)| self.base.join(text).display().to_string())
    }

    /// The longest folder without a special character that contains all matches.
    pub fn fixed(&self) -> PathBuf {
        let of = |names: &Vec<NamePattern>| {
            let mut folder = self.base.clone();
            // The last component may be a file, not a folder.
            let folders = &names[..names.len().saturating_sub(1)];
            folder.extend(folders.iter().map_while(NamePattern::name));
            folder
        };
        let mut folders = self.alternatives.iter().map(|(_, names)| of(names));
        let first = folders.next().unwrap_or_default();
        folders.fold(first, |common, other| {
            let shared = common.components().zip(other.components()).take_while(|(a, b)| a == b);
            shared.map(|(a, _)| a).collect()
        })
    }

    /// The matching paths, sorted and without duplicates.
    pub fn paths(&self) -> io::Result<Vec<PathBuf>> {
        let mut all = Vec::new();
        for (_, names) in &self.alternatives {
            let mut found = vec![self.base.clone()];
            for name in names {
                let mut below = Vec::new();
                for folder in found {
                    match name.name() {
                        Some(name) => below.push(folder.join(name)),
                        None => matching(&folder, name, &mut below)?,
                    }
                }
                found = below;
            }
            all.extend(found.into_iter().filter(|path| path.symlink_metadata().is_ok()));
        }
        all.sort();
        all.dedup();
        Ok(all)
    }

    /// Whether the pattern and `path` match up to the length of the shorter one: `path` lies below a
    /// match, or a match may lie below `path`. `resolve` is applied to the part of the pattern before
    /// its first special character.
    pub fn may_contain(&self, path: &Path, resolve: impl Fn(&Path) -> PathBuf) -> bool {
        let names: Vec<_> = path.components().collect();
        self.alternatives.iter().any(|(_, patterns)| {
            let fixed: Vec<_> = patterns.iter().map_while(NamePattern::name).collect();
            let folder = resolve(&fixed.iter().fold(self.base.clone(), |at, name| at.join(name)));
            let folder: Vec<_> = folder.components().collect();
            let rest = names.get(folder.len()..).unwrap_or_default();
            let mut pairs = rest.iter().zip(&patterns[fixed.len()..]);
            folder.iter().zip(&names).all(|(own, other)| own == other)
                && pairs.all(|(name, pattern)| pattern.matches(&name.as_os_str().to_string_lossy()))
        })
    }

    /// The prefix of `path` that the pattern matches, or `path` itself if no prefix matches.
    pub fn root_of(&self, path: &Path) -> PathBuf {
        let base = self.base.components().count();
        let names: Vec<_> = path.components().collect();
        let root = |patterns: &Vec<NamePattern>| {
            let names = names.get(base..base + patterns.len())?;
            let pairs = || names.iter().zip(patterns);
            let is_match = |(name, pattern): (&std::path::Component<'_>, &NamePattern)| {
                pattern.matches(&name.as_os_str().to_string_lossy())
            };
            pairs().all(is_match).then_some(base + patterns.len())
        };
        match self.alternatives.iter().find_map(|(_, patterns)| root(patterns)) {
            Some(count) => names[..count].iter().collect(),
            None => path.to_path_buf(),
        }
    }
}

/// Collects the entries of a folder whose names match. A path that does not exist or is not a
/// folder has none. A folder that cannot be read is an error.
fn matching(folder: &Path, pattern: &NamePattern, found: &mut Vec<PathBuf>) -> io::Result<()> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => {
            return match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Ok(()),
                _ => Err(error),
            };
        }
    };
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if pattern.matches(&name) {
            found.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Names for which Spark's matches were recorded.
    const NAMES: [&str; 17] = [
        "a b", "a!b", "a$b", "a(b", "a*b", "a,b", "a-b", "a.b", "a?b", "a[b", "a\\b", "a]b", "a^b",
        "ab", "axb", "a{b", "a}b",
    ];

    fn matched(pattern: &str) -> String {
        match NameFilter::parse(pattern) {
            Ok(filter) => NAMES.into_iter().filter(|name| filter.matches(name)).collect(),
            Err(_) => "refused".to_string(),
        }
    }

    #[test]
    fn patterns_match_as_in_hadoop() {
        for (pattern, names) in [
            (r"a\*b", "a*b"),
            (r"a\?b", "a?b"),
            ("a[*]b", "a*b"),
            ("a[x-z]b", "axb"),
            (r"a\[b", "a[b"),
            (r"a\{b", "a{b"),
            ("a{x,-}b", "a-baxb"),
            ("{ab,axb}", "abaxb"),
            ("a{,x}b", "abaxb"),
            ("a{x,{-,.}}b", "a-ba.baxb"),
            (r"a\\b", r"a\b"),
            ("a}b", "a}b"),
            ("a]b", "a]b"),
            ("a[]]b", "a]b"),
            (r"a{x,\,}b", "a,baxb"),
            (r"{a\*b,ab}", "a*bab"),
            (r"a[\*]b", "a*b"),
            (r"a[\^x]b", "a^baxb"),
            ("a[!!-z]b", "a ba{ba}b"),
            ("a[b", "refused"),
            ("a{b", "refused"),
            ("a[[]b", "refused"),
            ("a[z-a]b", "refused"),
            ("ab\\", "refused"),
        ] {
            assert_eq!(matched(pattern), names, "{pattern}");
        }
        assert_eq!(matched("a[!x]b").matches("axb").count(), 0);
        assert_eq!(matched("a[^x]b"), matched("a[!x]b"));
        assert_eq!(matched("a*b").len(), NAMES.concat().len());
    }

    #[test]
    fn the_root_of_partitions_is_the_matched_path() {
        let pattern = PathPattern::parse(Path::new("/w"), "/d/{x/y,z}/p=*").unwrap();
        let root = |path: &str| pattern.root_of(Path::new(path)).display().to_string();
        assert_eq!(root("/d/x/y/p=1/q=2/a.csv"), "/d/x/y/p=1");
        assert_eq!(root("/d/z/p=1/a.csv"), "/d/z/p=1");
        assert_eq!(pattern.fixed(), Path::new("/d"));
        let relative = PathPattern::parse(Path::new("/w[1]"), "a/*.csv").unwrap();
        assert_eq!(relative.fixed(), Path::new("/w[1]/a"));
        assert_eq!(relative.root_of(Path::new("/w[1]/a/b.csv")), Path::new("/w[1]/a/b.csv"));
    }

    proptest! {
        #[test]
        fn no_pattern_panics(pattern in "[a\\\\*?\\[\\]{},!^-]{0,12}", name in "[ab]{0,6}") {
            if let Ok(filter) = NameFilter::parse(&pattern) {
                filter.matches(&name);
            }
        }
    }
}
