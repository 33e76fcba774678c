//! Event-time windows, and the assignment of records to them.

use crate::stream::operator::aggregate::Aggregate;
use crate::stream::operator::combine::Combine;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::time::Duration;

/// A window: a range of event time, in microseconds since 1970. It includes the start and excludes
/// the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Window {
    /// The start, which is included.
    pub start_us: i64,
    /// The end, which is excluded.
    pub end_us: i64,
}

/// Encodes a window as the pair of its start and end.
impl Serialize for Window {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.start_us, self.end_us).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Window {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (start_us, end_us) = Deserialize::deserialize(deserializer)?;
        Ok(Self { start_us, end_us })
    }
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX).max(1)
}

/// A kind of windows.
pub trait Windows: Copy + Send + 'static {
    /// Whether overlapping windows are merged.
    const MERGES: bool;
    /// The name of the windows in the checkpoint manifest.
    fn name(&self) -> String;
    /// The windows that contain a time, the last one first.
    fn windows(&self, time_us: i64) -> impl Iterator<Item = Window>;
    /// The part of a window that is in no later window.
    fn own_times(&self, window: Window) -> Window;
}

/// Windows of a fixed size that neither overlap nor leave gaps.
#[derive(Clone, Copy, Debug)]
pub struct Tumbling {
    size_us: i64,
    offset_us: i64,
}

/// Windows of a fixed size that start at regular intervals and may overlap.
#[derive(Clone, Copy, Debug)]
pub struct Sliding {
    size_us: i64,
    slide_us: i64,
    offset_us: i64,
}

/// Windows that end after a gap without records.
#[derive(Clone, Copy, Debug)]
pub struct Sessions {
    gap_us: i64,
}

impl Tumbling {
    pub(super) fn new(size: Duration) -> Self {
        Self { size_us: micros(size), offset_us: 0 }
    }
}

impl Sliding {
    pub(super) fn new(size: Duration, slide: Duration) -> Self {
        Self { size_us: micros(size), slide_us: micros(slide), offset_us: 0 }
    }
}

impl Sessions {
    pub(super) fn new(gap: Duration) -> Self {
        Self { gap_us: micros(gap) }
    }
}

/// Windows whose start times can be shifted.
pub trait AlignedWindows: Windows {
    /// Shifts the windows, which are otherwise aligned with 1970-01-01 in UTC.
    fn moved(self, offset_us: i64) -> Self;
}

impl AlignedWindows for Tumbling {
    fn moved(self, offset_us: i64) -> Self {
        Self { offset_us, ..self }
    }
}

impl AlignedWindows for Sliding {
    fn moved(self, offset_us: i64) -> Self {
        Self { offset_us, ..self }
    }
}

/// The start of the last window that starts at or before a time.
#[inline]
fn last_start(time_us: i64, slide_us: i64, offset_us: i64) -> i64 {
    let since = (i128::from(time_us) - i128::from(offset_us)).rem_euclid(i128::from(slide_us));
    time_us.saturating_sub(since as i64)
}

impl Windows for Tumbling {
    const MERGES: bool = false;
    fn name(&self) -> String {
        format!("tumbling {} {}", self.size_us, self.offset_us)
    }
    #[inline]
    fn windows(&self, time_us: i64) -> impl Iterator<Item = Window> {
        let start_us = last_start(time_us, self.size_us, self.offset_us);
        std::iter::once(Window { start_us, end_us: start_us.saturating_add(self.size_us) })
    }
    fn own_times(&self, window: Window) -> Window {
        window
    }
}

impl Windows for Sliding {
    const MERGES: bool = false;
    fn name(&self) -> String {
        format!("sliding {} {} {}", self.size_us, self.slide_us, self.offset_us)
    }
    #[inline]
    fn windows(&self, time_us: i64) -> impl Iterator<Item = Window> {
        let Self { size_us, slide_us, offset_us } = *self;
        let mut next = Some(last_start(time_us, slide_us, offset_us));
        std::iter::from_fn(move || {
            let start_us = next?;
            let end_us = start_us.saturating_add(size_us);
            // If the slide is longer than the windows, a time may be in no window.
            if end_us <= time_us {
                return None;
            }
            next = start_us.checked_sub(slide_us);
            Some(Window { start_us, end_us })
        })
    }
    fn own_times(&self, window: Window) -> Window {
        let end_us = window.start_us.saturating_add(self.slide_us).min(window.end_us);
        Window { end_us, ..window }
    }
}

impl Windows for Sessions {
    const MERGES: bool = true;
    fn name(&self) -> String {
        format!("session {}", self.gap_us)
    }
    #[inline]
    fn windows(&self, time_us: i64) -> impl Iterator<Item = Window> {
        let end_us = time_us.saturating_add(self.gap_us);
        std::iter::once(Window { start_us: time_us, end_us })
    }
    fn own_times(&self, window: Window) -> Window {
        window
    }
}

/// Adds records to the state of a window.
pub trait Fold<T>: Clone + Send + 'static {
    /// The state of a window.
    type State: Default + Send + 'static;
    /// The value of a window.
    type Output: Send + 'static;
    /// Adds a record to the state of a window. Returns the window's new value.
    fn add(&self, state: &mut Self::State, record: T) -> Self::Output;
    /// Adds the state of another window that is merged into this one. Returns the new value; `None`
    /// if windows of this kind are never merged.
    fn merge(&self, state: &mut Self::State, other: Self::State) -> Option<Self::Output>;
}

/// An aggregate over windows that are never merged.
#[derive(Clone)]
pub struct Unmerged<A>(A);

impl<T, A: Aggregate<T>> Fold<T> for Unmerged<A> {
    type State = A::State;
    type Output = A::Output;
    #[inline]
    fn add(&self, state: &mut A::State, record: T) -> A::Output {
        self.0.add(state, record)
    }
    fn merge(&self, _: &mut A::State, _: A::State) -> Option<A::Output> {
        None
    }
}

/// Wraps an aggregate for session windows: when sessions merge, its states are combined.
#[derive(Clone)]
pub struct Merged<A>(A);

impl<T, A: Combine<T>> Fold<T> for Merged<A> {
    type State = A::State;
    type Output = A::Output;
    #[inline]
    fn add(&self, state: &mut A::State, record: T) -> A::Output {
        self.0.add(state, record)
    }
    fn merge(&self, state: &mut A::State, other: A::State) -> Option<A::Output> {
        Some(self.0.merge(state, other))
    }
}

/// Windows over which an aggregate of type `A` can be computed. Tumbling windows take any
/// [`Aggregate`], sliding windows too if records can be cloned. Sessions take a [`Combine`],
/// because sessions are merged.
#[diagnostic::on_unimplemented(
    message = "`{A}` cannot be computed over such windows of `{T}`",
    note = "sliding windows need records that are `Clone`, sessions an aggregate that is `Combine`"
)]
pub trait FoldWindows<T, A>: Windows {
    /// How records are added to a window.
    type Fold: Fold<T>;
    /// Converts an aggregate to its fold.
    fn fold(aggregate: A) -> Self::Fold;
    /// Copies a record for one of several windows; `None` for the kinds of windows where a record
    /// is in one window only.
    fn copy(record: &T) -> Option<T>;
}

impl<T, A: Aggregate<T>> FoldWindows<T, A> for Tumbling {
    type Fold = Unmerged<A>;
    fn fold(aggregate: A) -> Unmerged<A> {
        Unmerged(aggregate)
    }
    fn copy(_: &T) -> Option<T> {
        None
    }
}

impl<T: Clone, A: Aggregate<T>> FoldWindows<T, A> for Sliding {
    type Fold = Unmerged<A>;
    fn fold(aggregate: A) -> Unmerged<A> {
        Unmerged(aggregate)
    }
    #[inline]
    fn copy(record: &T) -> Option<T> {
        Some(record.clone())
    }
}

impl<T, A: Combine<T>> FoldWindows<T, A> for Sessions {
    type Fold = Merged<A>;
    fn fold(aggregate: A) -> Merged<A> {
        Merged(aggregate)
    }
    fn copy(_: &T) -> Option<T> {
        None
    }
}

/// The state of an aggregate over windows.
pub(super) type FoldState<W, T, A> = <<W as FoldWindows<T, A>>::Fold as Fold<T>>::State;

/// The value of an aggregate over windows.
pub type FoldValue<W, T, A> = <<W as FoldWindows<T, A>>::Fold as Fold<T>>::Output;

#[cfg(test)]
mod tests {
    use super::*;

    fn starts(windows: impl Windows, time_us: i64) -> Vec<i64> {
        windows.windows(time_us).map(|window| window.start_us).collect()
    }

    #[test]
    fn a_time_is_in_all_its_windows() {
        let us = Duration::from_micros;
        assert_eq!(starts(Tumbling::new(us(10)), 19), [10]);
        assert_eq!(starts(Tumbling::new(us(10)), 20), [20]);
        assert_eq!(starts(Tumbling::new(us(10)), -1), [-10]);
        assert_eq!(starts(Tumbling::new(us(10)).moved(3), 12), [3]);
        assert_eq!(starts(Tumbling::new(us(10)).moved(-3), 7), [7]);
        assert_eq!(starts(Sliding::new(us(10), us(5)), 12), [10, 5]);
        assert_eq!(starts(Sliding::new(us(10), us(3)), 10), [9, 6, 3]);
        assert_eq!(starts(Sliding::new(us(3), us(5)), 12), [10]);
        assert!(starts(Sliding::new(us(3), us(5)), 13).is_empty());
        assert_eq!(starts(Sessions::new(us(10)), 12), [12]);
    }

    #[test]
    fn times_at_the_end_of_time_do_not_overflow() {
        for time in [i64::MIN, i64::MIN + 1, -1, 0, i64::MAX - 1, i64::MAX] {
            let size = Duration::from_secs(3600);
            starts(Tumbling::new(size), time);
            starts(Sliding::new(size, size / 4).moved(i64::MAX), time);
            starts(Sessions::new(Duration::MAX), time);
        }
    }
}
