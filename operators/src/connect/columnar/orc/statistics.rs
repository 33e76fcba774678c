//! Column statistics: readers use them to skip stripes and files.

use crate::connect::columnar::orc::protobuf::Message;
use crate::table::value::decimal_text;

/// The longest string, in bytes, that is stored as a bound.
const TEXT_BYTES: usize = 1024;

/// The minimum and the maximum of a column.
#[derive(Clone, Debug, Default)]
pub enum Bounds {
    /// There are no values, or the type has no bounds.
    #[default]
    None,
    /// Integers.
    Long(i64, i64),
    /// Days since 1970-01-01.
    Day(i64, i64),
    /// Microseconds since 1970.
    Time(i64, i64),
    /// Floating-point numbers.
    Double(f64, f64),
    /// Unscaled decimals and their scale.
    Decimal(i128, i128, u8),
    /// Strings.
    Text(String, String),
    /// For booleans, which have no bounds: the number of true values.
    True(u64),
    /// No bounds are written: a value is NaN or too long, or timestamps are not in UTC.
    Unknown,
}

/// The statistics of a column.
#[derive(Clone, Debug, Default)]
pub struct Statistics {
    /// The number of non-NULL values.
    pub values: u64,
    /// Whether the column has a NULL.
    pub nulls: bool,
    /// The minimum and the maximum.
    pub bounds: Bounds,
}

impl Bounds {
    /// Extends the bounds to include `other`.
    pub fn add(&mut self, other: Self) {
        let own = std::mem::take(self);
        *self = match (own, other) {
            (Self::None, other) | (other, Self::None) => other,
            (Self::Long(a, b), Self::Long(c, d)) => Self::Long(a.min(c), b.max(d)),
            (Self::Day(a, b), Self::Day(c, d)) => Self::Day(a.min(c), b.max(d)),
            (Self::Time(a, b), Self::Time(c, d)) => Self::Time(a.min(c), b.max(d)),
            (Self::Double(a, b), Self::Double(c, d)) => Self::Double(a.min(c), b.max(d)),
            (Self::Decimal(a, b, s), Self::Decimal(c, d, _)) => {
                Self::Decimal(a.min(c), b.max(d), s)
            }
            (Self::Text(a, b), Self::Text(c, d)) => Self::Text(a.min(c), b.max(d)),
            (Self::True(a), Self::True(b)) => Self::True(a + b),
            _ => Self::Unknown,
        };
    }

    /// The bounds of strings. `Unknown` if a string is longer than [`TEXT_BYTES`], `None` if there
    /// are no strings.
    pub fn of_texts<'t>(values: impl Iterator<Item = &'t str>) -> Self {
        let mut bounds: Option<(&str, &str)> = None;
        for value in values {
            if value.len() > TEXT_BYTES {
                return Self::Unknown;
            }
            let (least, most) = bounds.unwrap_or((value, value));
            bounds = Some((least.min(value), most.max(value)));
        }
        bounds.map_or(Self::None, |(a, b)| Self::Text(a.to_string(), b.to_string()))
    }

    /// The bounds of floating-point numbers. Unknown if one is NaN.
    pub fn of_doubles(values: impl Iterator<Item = f64>) -> Self {
        let mut bounds = Self::None;
        for value in values {
            if value.is_nan() {
                return Self::Unknown;
            }
            bounds = match bounds {
                Self::Double(a, b) => Self::Double(a.min(value), b.max(value)),
                _ => Self::Double(value, value),
            };
        }
        bounds
    }
}

impl Statistics {
    /// Adds the statistics of more rows.
    pub fn add(&mut self, other: &Self) {
        self.values += other.values;
        self.nulls |= other.nulls;
        self.bounds.add(other.bounds.clone());
    }

    /// Encodes the statistics for the footer.
    pub fn message(&self) -> Message {
        let mut all = Message::default();
        all.number(1, self.values);
        let mut part = Message::default();
        let field = match &self.bounds {
            Bounds::None | Bounds::Unknown => None,
            Bounds::Long(a, b) | Bounds::Day(a, b) => {
                part.signed(1, *a);
                part.signed(2, *b);
                Some(if matches!(self.bounds, Bounds::Long(..)) { 2 } else { 7 })
            }
            Bounds::Time(a, b) => {
                // Fields 1 and 2 are the bounds in the writer's local time, 3 and 4 in UTC, all in
                // milliseconds. They are equal here, because bounds are kept for UTC only.
                let bounds = [a.div_euclid(1000), b.div_euclid(1000)];
                for (field, millis) in (1..).zip(bounds.into_iter().chain(bounds)) {
                    part.signed(field, millis);
                }
                Some(9)
            }
            Bounds::Double(a, b) => {
                part.double(1, *a);
                part.double(2, *b);
                Some(3)
            }
            Bounds::Decimal(a, b, scale) => {
                part.bytes(1, decimal_text(*a, *scale).as_bytes());
                part.bytes(2, decimal_text(*b, *scale).as_bytes());
                Some(6)
            }
            Bounds::Text(a, b) => {
                part.bytes(1, a.as_bytes());
                part.bytes(2, b.as_bytes());
                Some(4)
            }
            Bounds::True(count) => {
                let mut packed = Message::default();
                packed.varint(*count);
                part.bytes(1, &packed.0);
                Some(5)
            }
        };
        if let Some(field) = field {
            all.bytes(field, &part.0);
        }
        all.number(10, u64::from(self.nulls));
        all
    }
}
