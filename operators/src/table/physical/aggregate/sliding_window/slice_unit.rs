//! The units of which a key's slices consist. Units are 64-bit words if all functions can be stored
//! in words, which is compact and fast to copy. Otherwise they are whole accumulators.

use crate::table::expr::compile::Cx;
use crate::table::physical::accumulator::{Accumulator, FixedWords, Function};
use crate::table::row::RowWriter;
use millstream_engine::error::EngineError;
use smallvec::SmallVec;

/// The accumulators of all functions, one after another, as units.
pub(super) type Values<U> = SmallVec<[U; 4]>;

/// A unit of a slice. A slice consists of one unit with its start time, then the accumulators of
/// all functions.
pub(super) trait Unit: Clone + Default + Send + 'static {
    /// Whether a unit may own heap memory.
    const OWNS: bool;
    /// The heap memory that the unit owns, in bytes.
    fn owned_bytes(&self) -> usize;
    /// Creates a unit that stores a time, in microseconds.
    fn of_time(micros: i64) -> Self;
    /// The time that [`of_time`](Self::of_time) has stored.
    fn time(&self) -> i64;
    /// The initial accumulators of all functions.
    fn start(functions: &[Function]) -> Values<Self>;
    /// Adds a row to the accumulators `to`.
    fn add(functions: &[Function], to: &mut [Self], cx: Cx<'_>) -> Result<(), EngineError>;
    /// Merges the accumulators `later` into `to`.
    fn merge(functions: &[Function], to: &mut [Self], later: &[Self]) -> Result<(), EngineError>;
    /// Appends accumulators in the encoding of checkpoints.
    fn encode(functions: &[Function], values: &[Self], out: &mut Vec<u8>);
    /// Decodes accumulators from the front of `bytes`; `None` if the bytes are damaged.
    fn decode(functions: &[Function], to: &mut [Self], bytes: &mut &[u8]) -> Option<()>;
    /// Writes the results of all functions into columns, starting at the index `first`.
    fn write(
        functions: &[Function],
        values: &[Self],
        writer: &mut RowWriter<'_, Vec<u8>>,
        first: usize,
    ) -> Result<(), EngineError>;
}

/// The heap memory of units, in bytes.
#[inline]
pub(super) fn owned<U: Unit>(units: &[U]) -> usize {
    if U::OWNS { units.iter().map(U::owned_bytes).sum() } else { 0 }
}

impl Unit for u64 {
    const OWNS: bool = false;
    #[inline]
    fn owned_bytes(&self) -> usize {
        0
    }
    #[inline]
    fn of_time(micros: i64) -> Self {
        micros as u64
    }
    #[inline]
    fn time(&self) -> i64 {
        *self as i64
    }
    fn start(functions: &[Function]) -> Values<Self> {
        SmallVec::from_elem(0, functions.iter().map(Function::words).sum())
    }
    #[inline]
    fn add(functions: &[Function], mut to: &mut [Self], cx: Cx<'_>) -> Result<(), EngineError> {
        for function in functions {
            let (words, rest) = std::mem::take(&mut to).split_at_mut(function.words());
            function.add_words(words, cx)?;
            to = rest;
        }
        Ok(())
    }
    #[inline]
    fn merge(
        functions: &[Function],
        mut to: &mut [Self],
        mut later: &[Self],
    ) -> Result<(), EngineError> {
        for function in functions {
            let (words, rest) = std::mem::take(&mut to).split_at_mut(function.words());
            function.merge_words(words, &later[..words.len()])?;
            (to, later) = (rest, &later[words.len()..]);
        }
        Ok(())
    }
    fn encode(functions: &[Function], mut values: &[Self], out: &mut Vec<u8>) {
        for function in functions {
            function.load(values).encode(out);
            values = &values[function.words()..];
        }
    }
    fn decode(functions: &[Function], mut to: &mut [Self], bytes: &mut &[u8]) -> Option<()> {
        for function in functions {
            let (words, rest) = std::mem::take(&mut to).split_at_mut(function.words());
            let mut accumulator = function.start();
            accumulator.decode(bytes)?;
            FixedWords::store(&accumulator, words);
            to = rest;
        }
        Some(())
    }
    #[inline]
    fn write(
        functions: &[Function],
        mut values: &[Self],
        writer: &mut RowWriter<'_, Vec<u8>>,
        first: usize,
    ) -> Result<(), EngineError> {
        for (i, function) in functions.iter().enumerate() {
            function.write(&function.load(values), writer, first + i)?;
            values = &values[function.words()..];
        }
        Ok(())
    }
}

impl Unit for Accumulator {
    const OWNS: bool = true;
    fn owned_bytes(&self) -> usize {
        Self::owned_bytes(self)
    }
    fn of_time(micros: i64) -> Self {
        Self::Count(micros)
    }
    fn time(&self) -> i64 {
        match self {
            Self::Count(micros) => *micros,
            _ => unreachable!("a slice begins with its time"),
        }
    }
    fn start(functions: &[Function]) -> Values<Self> {
        functions.iter().map(Function::start).collect()
    }
    fn add(functions: &[Function], to: &mut [Self], cx: Cx<'_>) -> Result<(), EngineError> {
        for (function, to) in functions.iter().zip(to) {
            function.add(to, cx)?;
        }
        Ok(())
    }
    fn merge(functions: &[Function], to: &mut [Self], later: &[Self]) -> Result<(), EngineError> {
        for (function, (to, later)) in functions.iter().zip(to.iter_mut().zip(later)) {
            function.merge(to, later)?;
        }
        Ok(())
    }
    fn encode(_: &[Function], values: &[Self], out: &mut Vec<u8>) {
        values.iter().for_each(|value| value.encode(out));
    }
    fn decode(_: &[Function], to: &mut [Self], bytes: &mut &[u8]) -> Option<()> {
        to.iter_mut().try_for_each(|value| value.decode(bytes))
    }
    fn write(
        functions: &[Function],
        values: &[Self],
        writer: &mut RowWriter<'_, Vec<u8>>,
        first: usize,
    ) -> Result<(), EngineError> {
        for (i, (function, value)) in functions.iter().zip(values).enumerate() {
            function.write(value, writer, first + i)?;
        }
        Ok(())
    }
}
