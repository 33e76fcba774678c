//! Statistics of columns, by which readers skip stripes and files.

use crate::connect::columnar::orc::protobuf::Message;
use crate::table::value::decimal_text;

/// Bytes of the longest text that is kept as a bound.
const TEXT_BYTES: usize = 1024;

/// The least and the greatest value of a column.
#[derive(Clone, Debug, Default)]
pub enum Bounds {
    /// Of no value, or not known.
    #[default]
    None,
    /// Whole numbers.
    Long(i64, i64),
    /// Days.
    Day(i64, i64),
    /// Microseconds.
    Time(i64, i64),
    /// Floating-point numbers.
    Double(f64, f64),
    /// Unscaled decimals, with their scale.
    Decimal(i128, i128, u8),
    /// Texts.
    Text(String, String),
    /// How many values are true.
    True(u64),
    /// Of values among which one has no place in the order, or is too long.
    Unknown,
}

/// What is known of a column.
#[derive(Clone, Debug, Default)]
pub struct Statistics {
    /// Values that are not NULL.
    pub values: u64,
    /// Whether there is a NULL.
    pub nulls: bool,
    /// Its bounds.
    pub bounds: Bounds,
}

impl Bounds {
    /// Widens them by others.
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

    /// The bounds of texts.
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

    /// The bounds of numbers, which have none with a number that is none.
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
    /// Adds those of more rows.
    pub fn add(&mut self, other: &Self) {
        self.values += other.values;
        self.nulls |= other.nulls;
        self.bounds.add(other.bounds.clone());
    }

    /// Their message.
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
                // Milliseconds, local to the zone in which the file is written and in UTC.
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
