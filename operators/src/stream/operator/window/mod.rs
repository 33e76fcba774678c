//! Event-time windows over keyed streams: an aggregate of each window, or a function of all its
//! records.
//!
//! | module | noun |
//! |---|---|
//! | [`assigner`] | windows, and the assignment of records to them |
//! | [`open_windows`] | the open windows of all keys |
//! | [`fold`] | an aggregate over windows |
//! | [`collect`] | a function of all records of a window |
//! | [`recipe`] | how a flow builds window operators |

mod assigner;
mod collect;
mod fold;
mod open_windows;
mod recipe;

use crate::stream::keyed_input::{AsLeft, Either, OneInput, TwoInputs};
use crate::stream::keyed_stream::KeyedStream;
use crate::stream::operator::interval_join::TimeOffset;
use crate::stream::operator::two_input_processor::{ConnectedStreams, one_input};
use crate::stream::processor_state::Kept;
use crate::stream::recipe::Recipe;
use crate::stream::typed_stream::Stream;
use recipe::{CollectRecipe, Contents, Grouped, WindowRecipe};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::hash::Hash;
use std::marker::PhantomData;
use std::time::Duration;

pub use assigner::{
    AlignedWindows, Fold, FoldValue, FoldWindows, Merged, Sessions, Sliding, Tumbling, Unmerged,
    Window, Windows,
};
pub use collect::CoGroup;

/// The value of a windowed aggregate for one key and one window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WindowResult<K, V> {
    /// The key.
    pub key: K,
    /// The window.
    pub window: Window,
    /// The value.
    pub value: V,
}

/// Encodes the result as a tuple of key, window and value.
impl<K: Serialize, V: Serialize> Serialize for WindowResult<K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (&self.key, self.window, &self.value).serialize(serializer)
    }
}

impl<'de, K: Deserialize<'de>, V: Deserialize<'de>> Deserialize<'de> for WindowResult<K, V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (key, window, value) = Deserialize::deserialize(deserializer)?;
        Ok(Self { key, window, value })
    }
}

/// When the value of a window is emitted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WindowResults {
    /// Emits one result, when the watermark has reached the window's end and no record can change
    /// it.
    #[default]
    AtWatermark,
    /// Emits a result after each record that changes a window, and none when the window closes. If
    /// a session grows or merges, its new result replaces the earlier results of its parts.
    EachChange,
}

/// The result of an aggregate over windows.
pub type FoldResult<K, W, T, A> = WindowResult<K, FoldValue<W, T, A>>;

/// Drops a late record, for windows without a side output. The record is only counted.
fn drop_late<T>(_: T) {}

/// A keyed stream with event-time windows, from [`KeyedStream::tumbling_window`] and similar
/// methods.
#[must_use = "windows do nothing until they are aggregated"]
pub struct WindowedStream<R, F, C, W, Z> {
    stream: KeyedStream<R, F, C>,
    windows: W,
    results: WindowResults,
    late: Z,
}

/// Two keyed streams with the same event-time windows, from [`ConnectedStreams::tumbling_window`]
/// and similar methods.
#[must_use = "windows do nothing until a function is applied to them"]
pub struct ConnectedWindows<L, F, R, G, C, W, Z> {
    streams: ConnectedStreams<L, F, R, G, C>,
    windows: W,
    late: Z,
}

/// A windowed stream without a side output, which only counts late records.
type Windowed<R, F, C, W> = WindowedStream<R, F, C, W, fn(<R as Recipe>::Item)>;

/// Two windowed streams without a side output, which only count late records.
type Connected<L, F, R, G, C, W> =
    ConnectedWindows<L, F, R, G, C, W, fn(Either<<L as Recipe>::Item, <R as Recipe>::Item>)>;

impl<R: Recipe, F, C: 'static> KeyedStream<R, F, C> {
    fn in_windows<W>(self, windows: W) -> Windowed<R, F, C, W> {
        let (results, late) = (WindowResults::default(), drop_late::<R::Item> as fn(R::Item));
        WindowedStream { stream: self, windows, results, late }
    }

    /// Assigns the records of each key to tumbling windows: windows of a fixed size, without
    /// overlaps and gaps, that start at multiples of the size since 1970.
    ///
    /// The stream needs a watermark. A record is late if all its windows end at or before the
    /// watermark.
    ///
    /// ```
    /// use millstream::stream::{Count, Flow, Window};
    /// use millstream::{Config, WaitProfile};
    /// use std::time::Duration;
    ///
    /// const SECOND: i64 = 1_000_000;
    /// let flow = Flow::new("visits");
    /// let (mut visits, stream) = flow.channel::<(&'static str, i64)>();
    /// let (sink, mut output) = flow.output();
    /// stream
    ///     .with_watermark(|visit| visit.1, Duration::from_secs(5))
    ///     .key_by(|visit| visit.0.to_string())
    ///     .tumbling_window(Duration::from_secs(60))
    ///     .aggregate(Count)
    ///     .sink(sink);
    /// let query = flow.start(Config { wait: WaitProfile::Park, ..Config::default() })?;
    /// for (page, second) in [("a", 61), ("a", 110), ("a", 119), ("a", 130)] {
    ///     visits.push((page, second * SECOND))?;
    /// }
    /// query.process_all_available()?;
    /// let result = output.try_recv().unwrap();
    /// assert_eq!((result.key.as_str(), result.value), ("a", 3));
    /// assert_eq!(result.window, Window { start_us: 60 * SECOND, end_us: 120 * SECOND });
    /// query.stop()?;
    /// # Ok::<(), millstream::EngineError>(())
    /// ```
    pub fn tumbling_window(self, size: Duration) -> Windowed<R, F, C, Tumbling> {
        self.in_windows(Tumbling::new(size))
    }

    /// Assigns the records of each key to sliding windows: windows of a fixed size that start at
    /// multiples of `slide` since 1970. If `slide` is shorter than `size`, windows overlap and a
    /// record is in several. If it is longer, a record between two windows is in none and counts as
    /// late.
    pub fn sliding_window(self, size: Duration, slide: Duration) -> Windowed<R, F, C, Sliding> {
        self.in_windows(Sliding::new(size, slide))
    }

    /// Assigns the records of each key to sessions. A session ends at the time of its last record
    /// plus `gap`. Sessions that a new record connects are merged.
    pub fn session_window(self, gap: Duration) -> Windowed<R, F, C, Sessions> {
        self.in_windows(Sessions::new(gap))
    }
}

impl<R: Recipe, F, C: 'static, W: AlignedWindows, Z> WindowedStream<R, F, C, W, Z> {
    /// Shifts all windows. `TimeOffset::before(hours)` makes windows of a day start at midnight in
    /// a time zone whose offset from UTC is that number of hours.
    pub fn offset(self, offset: impl Into<TimeOffset>) -> Self {
        Self { windows: self.windows.moved(offset.into().micros()), ..self }
    }
}

impl<R: Recipe, F, C: 'static, W: Windows, Z> WindowedStream<R, F, C, W, Z> {
    /// Sets when the values of an aggregate are emitted. Has no effect on [`apply`](Self::apply).
    pub fn results(self, results: WindowResults) -> Self {
        Self { results, ..self }
    }

    /// Sets a side output: `late` is called with each late record. It runs on the worker's thread.
    /// After a restart it is called again for records that are read again. Without a side output
    /// late records are only counted.
    pub fn late_records<Y>(self, late: Y) -> WindowedStream<R, F, C, W, Y>
    where
        Y: FnMut(R::Item) + Clone + Send + 'static,
    {
        let Self { stream, windows, results, .. } = self;
        WindowedStream { stream, windows, results, late }
    }

    /// Computes an aggregate over each window of each key. The event time of a result is the last
    /// microsecond of its window.
    ///
    /// The checkpoint stores the state of each open window and, with
    /// [`WindowResults::AtWatermark`], its value.
    pub fn aggregate<K, A>(
        self,
        aggregate: A,
    ) -> Stream<impl Recipe<Item = FoldResult<K, W, R::Item, A>>, C>
    where
        K: Kept + Hash + Eq + Clone,
        F: FnMut(&R::Item) -> K + Clone + Send + 'static,
        A: 'static,
        W: FoldWindows<R::Item, A>,
        W::Fold: Fold<R::Item, State: Kept, Output: Kept>,
        Z: FnMut(R::Item) + Clone + Send + 'static,
    {
        let Self { stream, windows, results, late } = self;
        let fold = W::fold(aggregate);
        let aggregate = std::any::type_name::<A>();
        one_input(stream, |input: OneInput<R, F, K>| WindowRecipe {
            input,
            windows,
            contents: Contents { fold, results, aggregate, types: PhantomData::<fn() -> A> },
            late,
        })
    }

    /// Applies a function to all records of each window when the window closes. The arguments are
    /// the key, the window, and the records ordered by event time and, for equal times, by arrival.
    ///
    /// Prefer an aggregate where possible, because it stores less.
    pub fn apply<K, I, J>(self, function: J) -> Stream<impl Recipe<Item = I::Item>, C>
    where
        K: Kept + Hash + Eq + Clone,
        R::Item: Kept,
        F: FnMut(&R::Item) -> K + Clone + Send + 'static,
        Z: FnMut(R::Item) + Clone + Send + 'static,
        I: IntoIterator<IntoIter: Send, Item: Send> + 'static,
        J: FnMut(&K, Window, &[&R::Item]) -> I + Clone + Send + 'static,
    {
        let Self { stream, windows, mut late, .. } = self;
        let mut function = function;
        let late = move |record: Either<R::Item, ()>| match record {
            Either::Left(record) => late(record),
            Either::Right(()) => {}
        };
        let apply =
            move |group: CoGroup<'_, K, R::Item, ()>| function(group.key, group.window, group.left);
        one_input_as_left(stream, |input: AsLeft<OneInput<R, F, K>>| CollectRecipe {
            input,
            windows,
            apply: Grouped(apply, PhantomData::<fn() -> I>),
            late,
            sides: PhantomData::<fn() -> (R::Item, ())>,
        })
    }
}

/// One keyed stream as the left input of a two-input operator.
fn one_input_as_left<R: Recipe, F, K, C: 'static, S: Recipe>(
    stream: KeyedStream<R, F, C>,
    recipe: impl FnOnce(AsLeft<OneInput<R, F, K>>) -> S,
) -> Stream<S, C> {
    let KeyedStream { up, key } = stream;
    up.with(|up| recipe(AsLeft(OneInput { up, key, types: PhantomData })))
}

impl<L: Recipe, F, R: Recipe, G, C: 'static> ConnectedStreams<L, F, R, G, C> {
    fn in_windows<W>(self, windows: W) -> Connected<L, F, R, G, C, W> {
        let late = drop_late::<Either<L::Item, R::Item>> as fn(Either<L::Item, R::Item>);
        ConnectedWindows { streams: self, windows, late }
    }

    /// Assigns the records of both streams to the same tumbling windows per key: see
    /// [`KeyedStream::tumbling_window`].
    pub fn tumbling_window(self, size: Duration) -> Connected<L, F, R, G, C, Tumbling> {
        self.in_windows(Tumbling::new(size))
    }

    /// Assigns the records of both streams to the same sliding windows per key: see
    /// [`KeyedStream::sliding_window`].
    pub fn sliding_window(
        self,
        size: Duration,
        slide: Duration,
    ) -> Connected<L, F, R, G, C, Sliding> {
        self.in_windows(Sliding::new(size, slide))
    }

    /// Assigns the records of both streams to the same sessions per key: see
    /// [`KeyedStream::session_window`].
    pub fn session_window(self, gap: Duration) -> Connected<L, F, R, G, C, Sessions> {
        self.in_windows(Sessions::new(gap))
    }
}

impl<L: Recipe, F, R: Recipe, G, C: 'static, W: AlignedWindows, Z>
    ConnectedWindows<L, F, R, G, C, W, Z>
{
    /// Shifts all windows: see [`WindowedStream::offset`].
    pub fn offset(self, offset: impl Into<TimeOffset>) -> Self {
        Self { windows: self.windows.moved(offset.into().micros()), ..self }
    }
}

impl<L: Recipe, F, R: Recipe, G, C: 'static, W: Windows, Z> ConnectedWindows<L, F, R, G, C, W, Z> {
    /// Sets a side output: see [`WindowedStream::late_records`].
    pub fn late_records<Y>(self, late: Y) -> ConnectedWindows<L, F, R, G, C, W, Y>
    where
        Y: FnMut(Either<L::Item, R::Item>) + Clone + Send + 'static,
    {
        let Self { streams, windows, .. } = self;
        ConnectedWindows { streams, windows, late }
    }

    /// Applies a function to all records of each window, of both streams, when the window closes.
    /// The function is also called for a window in which only one stream has records.
    ///
    /// ```
    /// use millstream::stream::{CoGroup, Flow};
    /// use millstream::{Config, WaitProfile};
    /// use std::time::Duration;
    ///
    /// const SECOND: i64 = 1_000_000;
    /// let flow = Flow::new("parcels");
    /// let (mut sent, left) = flow.channel::<(u32, i64)>();
    /// let (mut received, right) = flow.channel::<(u32, i64)>();
    /// let (sink, mut output) = flow.output();
    /// let left = left.with_watermark(|parcel| parcel.1, Duration::ZERO).key_by(|parcel| parcel.0);
    /// let right = right.with_watermark(|parcel| parcel.1, Duration::ZERO).key_by(|parcel| parcel.0);
    /// left.connect(right)
    ///     .tumbling_window(Duration::from_secs(60))
    ///     .co_group(|group: CoGroup<'_, u32, (u32, i64), (u32, i64)>| {
    ///         Some((*group.key, group.left.len(), group.right.len()))
    ///     })
    ///     .sink(sink);
    /// let query = flow.start(Config { wait: WaitProfile::Park, ..Config::default() })?;
    /// sent.push((7, 61 * SECOND))?;
    /// sent.push((7, 62 * SECOND))?;
    /// received.push((7, 63 * SECOND))?;
    /// query.process_all_available()?;
    /// sent.push((8, 120 * SECOND))?;
    /// received.push((8, 121 * SECOND))?;
    /// query.process_all_available()?;
    /// assert_eq!(output.try_recv(), Some((7, 2, 1)));
    /// query.stop()?;
    /// # Ok::<(), millstream::EngineError>(())
    /// ```
    pub fn co_group<K, I, J>(self, function: J) -> Stream<impl Recipe<Item = I::Item>, C>
    where
        K: Kept + Hash + Eq + Clone,
        L::Item: Kept,
        R::Item: Kept,
        F: FnMut(&L::Item) -> K + Clone + Send + 'static,
        G: FnMut(&R::Item) -> K + Clone + Send + 'static,
        Z: FnMut(Either<L::Item, R::Item>) + Clone + Send + 'static,
        I: IntoIterator<IntoIter: Send, Item: Send> + 'static,
        J: FnMut(CoGroup<'_, K, L::Item, R::Item>) -> I + Clone + Send + 'static,
    {
        let Self { streams, windows, late } = self;
        streams.into_input(|input: TwoInputs<OneInput<L, F, K>, OneInput<R, G, K>>| CollectRecipe {
            input,
            windows,
            apply: Grouped(function, PhantomData::<fn() -> I>),
            late,
            sides: PhantomData::<fn() -> (L::Item, R::Item)>,
        })
    }
}
