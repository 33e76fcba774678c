//! Compiles a pattern's letters to a list of items, which are parsed or formatted in order.

use super::{Direction, PatternError};

/// A field of a date or time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Era,
    YearOfEra,
    Year,
    Month,
    Day,
    DayOfYear,
    ModifiedJulianDay,
    AmPm,
    HourOfDay,
    ClockHourOfDay,
    HourOfAmPm,
    ClockHourOfAmPm,
    Minute,
    Second,
    Nano,
    Offset,
    // Fields that can only be formatted.
    Quarter,
    Weekday,
    WeekdayInMonth,
}

/// The number of fields that can be parsed. They come first in [`Field`].
pub(super) const READ_FIELDS: usize = Field::Offset as usize + 1;

/// When a number is written with a sign, as in Java's `SignStyle`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sign {
    /// The number has no sign.
    Never,
    /// A minus if the number is negative.
    Normal,
    /// A minus if the number is negative, and a plus if it has more digits than its padded width.
    ExceedsPad,
}

/// A compiled part of a pattern, which parses or formats one part of the text.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Item {
    Text(String),
    /// A number. If it starts a run of adjacent numbers without separators, `following` is the
    /// number of digits reserved for the fixed-width numbers after it.
    Number {
        field: Field,
        least: usize,
        most: usize,
        sign: Sign,
        following: usize,
    },
    /// The last two digits of a year. They are parsed as a year from 2000 to 2099. `following` is
    /// as for `Number`.
    TwoDigitYear {
        field: Field,
        following: usize,
    },
    Fraction {
        least: usize,
        most: usize,
    },
    Name {
        field: Field,
        full: bool,
    },
    /// A zone ID such as `Europe/Berlin` (`VV`).
    ZoneId,
    /// The English name of a zone.
    ZoneName {
        full: bool,
        generic: bool,
    },
    Offset(OffsetStyle),
    /// An offset from GMT such as `GMT+1`, or `GMT+01:00` if `full`.
    LocalizedOffset {
        full: bool,
    },
    Optional(Vec<Item>),
}

/// Whether all fields of a pattern are those of a time of day.
pub(super) fn is_of_time(items: &[Item]) -> bool {
    use Field as F;
    items.iter().all(|item| match item {
        Item::Text(_) | Item::Fraction { .. } => true,
        Item::Optional(part) => is_of_time(part),
        Item::Number { field, .. } | Item::Name { field, .. } => matches!(
            field,
            F::AmPm
                | F::HourOfDay
                | F::ClockHourOfDay
                | F::HourOfAmPm
                | F::ClockHourOfAmPm
                | F::Minute
                | F::Second
                | F::Nano
        ),
        Item::TwoDigitYear { .. }
        | Item::ZoneId
        | Item::ZoneName { .. }
        | Item::Offset(_)
        | Item::LocalizedOffset { .. } => false,
    })
}

/// The format of an offset from UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OffsetStyle {
    pub colon: bool,
    pub minutes: Need,
    pub seconds: Need,
    /// The text of an offset of zero.
    pub zero: &'static str,
}

/// Whether an offset includes its minutes or its seconds. With `Optional` they are left out when
/// they are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    Never,
    Optional,
    Always,
}

/// Week-based letters, which Spark refuses.
const WEEK_BASED: &str = "YWwuec";
/// Letters of Java's `DateTimeFormatter` that Spark refuses in every pattern.
const UNSUPPORTED: &str = "ABnNp";
/// Letters that only a pattern for formatting may have. Spark refuses them for parsing.
const ONLY_WRITTEN: &str = "EFqQ";
/// The longest runs of some letters that Spark allows. [`Builder::field`] limits the other letters.
const MOST: [(char, usize); 7] =
    [('G', 4), ('M', 4), ('L', 4), ('E', 4), ('Q', 4), ('q', 4), ('y', 6)];

const RECOGNITION: &str = "INCONSISTENT_BEHAVIOR_CROSS_VERSION.DATETIME_PATTERN_RECOGNITION";

/// Checks a pattern by Spark's rules and compiles it to items.
pub(super) fn compile(text: &str, direction: Direction) -> Result<Vec<Item>, PatternError> {
    checked(text, direction).and_then(|era| build(text, direction, era)).map_err(|error| {
        if !legacy_takes(text) {
            return error;
        }
        PatternError { condition: RECOGNITION, reason: error.reason }
    })
}

fn refused(condition: &'static str, reason: String) -> PatternError {
    PatternError { condition, reason }
}

fn malformed(reason: impl Into<String>) -> PatternError {
    refused("INVALID_DATETIME_PATTERN.WITH_SUGGESTION", reason.into())
}

/// Whether Java's `SimpleDateFormat`, which Spark 2.4 used, accepts a pattern.
fn legacy_takes(text: &str) -> bool {
    let mut parts = text.split('\'');
    let unquoted: Vec<&str> = parts.by_ref().step_by(2).collect();
    let balanced = text.matches('\'').count().is_multiple_of(2);
    balanced
        && unquoted.iter().all(|part| {
            let known = |c: char| !c.is_ascii_alphabetic() || "GyYMLwWDdFEuaHkKhmsSzZX".contains(c);
            part.chars().all(known) && !part.contains("XXXX")
        })
}

/// Applies Spark's own checks to the unquoted parts. Returns whether the pattern has an era.
fn checked(text: &str, direction: Direction) -> Result<bool, PatternError> {
    for part in text.split('\'').step_by(2) {
        if let Some(c) = part.chars().find(|c| WEEK_BASED.contains(*c)) {
            return Err(refused(
                "INCONSISTENT_BEHAVIOR_CROSS_VERSION.DATETIME_WEEK_BASED_PATTERN",
                format!(
                    "'{c}' is a week-based field, which is not supported: the year is y and the \
                     day of the month d, as in yyyy-MM-dd; use EXTRACT for weeks"
                ),
            ));
        }
        let illegal = |c: &char| {
            UNSUPPORTED.contains(*c) || direction == Direction::Read && ONLY_WRITTEN.contains(*c)
        };
        if let Some(c) = part.chars().find(illegal) {
            return Err(refused(
                "INVALID_DATETIME_PATTERN.ILLEGAL_CHARACTER",
                format!("the letter '{c}' is not allowed"),
            ));
        }
        for (c, most) in MOST {
            if part.contains(&c.to_string().repeat(most + 1)) {
                return Err(refused(
                    "INVALID_DATETIME_PATTERN.LENGTH",
                    format!("'{c}' occurs more than {most} times"),
                ));
            }
        }
    }
    Ok(text.split('\'').step_by(2).any(|part| part.contains('G')))
}

/// The items of one nesting level of `[…]`. `adjacent` is the index of the number that starts the
/// current run of adjacent numbers.
#[derive(Default)]
struct Level {
    items: Vec<Item>,
    adjacent: Option<usize>,
}

struct Builder {
    levels: Vec<Level>,
    /// Whether the letter `y` means the year of era.
    era: bool,
    /// Whether a fraction may have fewer digits than letters.
    short_fractions: bool,
}

impl Builder {
    fn level(&mut self) -> &mut Level {
        if self.levels.is_empty() {
            self.levels.push(Level::default());
        }
        let last = self.levels.len() - 1;
        &mut self.levels[last]
    }

    fn push(&mut self, item: Item) {
        let level = self.level();
        level.adjacent = None;
        match (level.items.last_mut(), item) {
            (Some(Item::Text(before)), Item::Text(text)) => before.push_str(&text),
            (_, item) => level.items.push(item),
        }
    }

    fn text(&mut self, text: &str) {
        if !text.is_empty() {
            self.push(Item::Text(text.to_string()));
        }
    }

    /// Adds a number. If the number has a fixed width and follows another number, the width is
    /// reserved for it in the number that starts the run.
    fn number(&mut self, item: Item, fixed: Option<usize>) {
        let level = self.level();
        let mut adjacent = level.items.len();
        if let (Some(width), Some(at)) = (fixed, level.adjacent)
            && let Some(Item::Number { following, .. } | Item::TwoDigitYear { following, .. }) =
                level.items.get_mut(at)
        {
            *following += width;
            adjacent = at;
        }
        level.items.push(item);
        level.adjacent = Some(adjacent);
    }

    fn value(&mut self, field: Field, least: usize, most: usize, sign: Sign) {
        let fixed = (least == most && sign == Sign::Never).then_some(most);
        self.number(Item::Number { field, least, most, sign, following: 0 }, fixed);
    }

    /// Adds a number: of any width for a single letter, otherwise as wide as the run of letters.
    fn short_value(&mut self, field: Field, count: usize) {
        match count {
            1 => self.value(field, 1, 19, Sign::Normal),
            _ => self.value(field, count, count, Sign::Never),
        }
    }

    fn optional_end(&mut self) -> Result<(), PatternError> {
        if self.levels.len() < 2 {
            return Err(malformed("']' without '['"));
        }
        if let Some(inner) = self.levels.pop()
            && !inner.items.is_empty()
        {
            self.push(Item::Optional(inner.items));
        }
        Ok(())
    }

    /// Handles an unquoted character that is not a letter.
    fn sign(&mut self, c: char) -> Result<(), PatternError> {
        match c {
            '[' => {
                self.level().adjacent = None;
                self.levels.push(Level::default());
            }
            ']' => self.optional_end()?,
            '{' | '}' | '#' => return Err(malformed(format!("'{c}' is reserved"))),
            c => self.text(c.encode_utf8(&mut [0; 4])),
        }
        Ok(())
    }

    fn field(&mut self, c: char, count: usize) -> Result<(), PatternError> {
        let too_many = || Err(malformed(format!("'{c}' cannot occur {count} times")));
        let year = if self.era { Field::YearOfEra } else { Field::Year };
        match (c, count) {
            ('y', 2) => self.number(Item::TwoDigitYear { field: year, following: 0 }, Some(2)),
            ('y', 1 | 3) => self.value(year, count, 19, Sign::Normal),
            ('y', 4..=6) => self.value(year, count, 19, Sign::ExceedsPad),
            ('M' | 'L', 1 | 2) => self.short_value(Field::Month, count),
            ('M' | 'L', 3 | 4) => self.push(Item::Name { field: Field::Month, full: count == 4 }),
            ('Q' | 'q', 1 | 2) => self.short_value(Field::Quarter, count),
            ('Q' | 'q', 3 | 4) => {
                self.push(Item::Name { field: Field::Quarter, full: count == 4 });
            }
            ('E', 1..=4) => self.push(Item::Name { field: Field::Weekday, full: count == 4 }),
            ('G', 1..=4) => self.push(Item::Name { field: Field::Era, full: count == 4 }),
            ('a', 1) => self.push(Item::Name { field: Field::AmPm, full: false }),
            ('F', 1) => self.short_value(Field::WeekdayInMonth, 1),
            ('d', 1 | 2) => self.short_value(Field::Day, count),
            ('H', 1 | 2) => self.short_value(Field::HourOfDay, count),
            ('k', 1 | 2) => self.short_value(Field::ClockHourOfDay, count),
            ('K', 1 | 2) => self.short_value(Field::HourOfAmPm, count),
            ('h', 1 | 2) => self.short_value(Field::ClockHourOfAmPm, count),
            ('m', 1 | 2) => self.short_value(Field::Minute, count),
            ('s', 1 | 2) => self.short_value(Field::Second, count),
            ('D', 1) => self.short_value(Field::DayOfYear, 1),
            ('D', 2 | 3) => self.value(Field::DayOfYear, count, 3, Sign::Never),
            ('g', 1..=19) => self.value(Field::ModifiedJulianDay, count, 19, Sign::Normal),
            ('S', 1..=9) => {
                let least = if self.short_fractions { 1 } else { count };
                let item = Item::Fraction { least, most: count };
                if least == count {
                    self.number(item, Some(count));
                } else {
                    self.push(item);
                }
            }
            ('z', 1..=4) => self.push(Item::ZoneName { full: count == 4, generic: false }),
            ('v', 1 | 4) => self.push(Item::ZoneName { full: count == 4, generic: true }),
            ('V', 2) => self.push(Item::ZoneId),
            ('O', 1 | 4) | ('Z', 4) => self.push(Item::LocalizedOffset { full: count == 4 }),
            ('X' | 'x', 1..=5) | ('Z', 1..=3 | 5) => self.push(Item::Offset(offset(c, count))),
            ('y' | 'M' | 'L' | 'Q' | 'q' | 'E' | 'G' | 'a' | 'F' | 'd' | 'H' | 'k' | 'K', _)
            | ('h' | 'm' | 's' | 'D' | 'g' | 'S' | 'z' | 'v' | 'V' | 'O' | 'X' | 'x' | 'Z', _) => {
                return too_many();
            }
            _ => return Err(malformed(format!("there is no field '{c}'"))),
        }
        Ok(())
    }

    /// Compiles a pattern with quoted text, in which a doubled quote is one quote.
    fn quoted(&mut self, mut text: &str) -> Result<(), PatternError> {
        while let Some((part, rest)) = text.split_once('\'') {
            self.unquoted(part)?;
            let mut literal = String::new();
            text = rest;
            loop {
                let Some((part, rest)) = text.split_once('\'') else {
                    return Err(malformed("a quote is not closed"));
                };
                literal.push_str(part);
                match rest.strip_prefix('\'') {
                    Some(rest) => (literal, text) = (literal + "'", rest),
                    None => {
                        text = rest;
                        break;
                    }
                }
            }
            self.text(if literal.is_empty() { "'" } else { &literal });
        }
        self.unquoted(text)
    }

    /// Compiles a pattern with a fraction, for parsing. As in Spark, the pattern is split at its
    /// quotes, even at unclosed ones, and quotes at its end are dropped.
    fn cut_at_quotes(&mut self, text: &str) -> Result<(), PatternError> {
        for (i, part) in text.trim_end_matches('\'').split('\'').enumerate() {
            match i % 2 {
                _ if part.is_empty() && i > 0 => self.text("'"),
                0 => self.unquoted(part)?,
                _ => self.text(part),
            }
        }
        Ok(())
    }

    /// Compiles an unquoted part.
    fn unquoted(&mut self, part: &str) -> Result<(), PatternError> {
        let mut chars = part.chars().peekable();
        while let Some(c) = chars.next() {
            if !c.is_ascii_alphabetic() {
                self.sign(c)?;
                continue;
            }
            let mut count = 1;
            while chars.next_if_eq(&c).is_some() {
                count += 1;
            }
            self.field(c, count)?;
        }
        Ok(())
    }
}

fn offset(c: char, count: usize) -> OffsetStyle {
    let (minutes, seconds) = match (c, count) {
        ('X' | 'x', 1) => (Need::Optional, Need::Never),
        ('X' | 'x', 4 | 5) | ('Z', 5) => (Need::Always, Need::Optional),
        _ => (Need::Always, Need::Never),
    };
    let colon = matches!((c, count), ('X' | 'x', 3 | 5) | ('Z', 5));
    let zero = match (c, count) {
        ('X', _) | ('Z', 5) => "Z",
        ('x', 1) => "+00",
        ('x', 3 | 5) => "+00:00",
        _ => "+0000",
    };
    OffsetStyle { colon, minutes, seconds, zero }
}

fn build(text: &str, direction: Direction, era: bool) -> Result<Vec<Item>, PatternError> {
    let cut = direction == Direction::Read && text.contains('S');
    let mut builder = Builder { levels: vec![Level::default()], era, short_fractions: cut };
    if cut {
        builder.cut_at_quotes(text)?;
    } else {
        builder.quoted(text)?;
    }
    while builder.levels.len() > 1 {
        builder.optional_end()?;
    }
    Ok(builder.levels.pop().map(|level| level.items).unwrap_or_default())
}
