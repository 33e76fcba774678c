//! The trait of processors with state and timers for each key, and the handle that they use.

use crate::stream::{Context, Kept, ListState, MapState, States, Timer, Ttl, ValueState};
use crate::table::error::{PlanError, PlanResult, counted};
use crate::table::row::{Row, RowBuf, decode};
use crate::table::types::{DataType, Schema};
use crate::table::value::Value;
use millstream_engine::error::EngineError;
use std::any::Any;
use std::collections::HashSet;
use std::hash::Hash;
use std::time::Duration;

/// An error of a user's function. An [`EngineError`] is passed on unchanged; every error ends the
/// query.
pub type StateError = Box<dyn std::error::Error + Send + Sync>;

/// The kind of timers that a processor may set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeMode {
    /// No timers.
    None,
    /// Timers by processing time. State may have a time to live.
    ProcessingTime,
    /// Timers by event time. The rows need a watermark; late rows are dropped.
    EventTime,
}

impl TimeMode {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::ProcessingTime => "ProcessingTime",
            Self::EventTime => "EventTime",
        }
    }
}

/// A user-defined operator on rows that are grouped by keys, with state and timers for each key.
/// Each instance of the operator has its own clone of the processor.
pub trait StatefulProcessor: Clone + Send + 'static {
    /// Processes rows of one key: all rows that the key has in a batch, or one row at a time in
    /// continuous mode. An error ends the query.
    fn handle_input_rows(
        &mut self,
        key: &[Value],
        rows: InputRows<'_>,
        handle: &mut StatefulProcessorHandle<'_, '_>,
    ) -> Result<(), StateError>;

    /// Called with a row of the initial state
    /// ([`with_initial_state`](crate::session::GroupedData::with_initial_state)), before the first
    /// rows of its key, and also if its key never gets rows. It is not called in a run that
    /// continues from a committed epoch. A processor without this function cannot have an initial
    /// state.
    fn handle_initial_state(
        &mut self,
        key: &[Value],
        row: Vec<Value>,
        handle: &mut StatefulProcessorHandle<'_, '_>,
    ) -> Result<(), StateError> {
        let _ = (key, row, handle);
        Err(Box::new(EngineError::operator(
            "INITIAL_STATE_WITHOUT_HANDLER",
            "the processor has an initial state, and no function handle_initial_state",
            "Implement StatefulProcessor::handle_initial_state",
        )))
    }

    /// Called when a timer of the key has fired. `timer_ms` is the timer's time in milliseconds
    /// since 1970. The timer is already removed. If a timer that is set during the call is already
    /// due, that timer fires with the next batch; in continuous mode it fires without waiting.
    fn handle_expired_timer(
        &mut self,
        key: &[Value],
        timer_ms: i64,
        handle: &mut StatefulProcessorHandle<'_, '_>,
    ) -> Result<(), StateError> {
        let _ = (key, timer_ms, handle);
        Ok(())
    }
}

/// The rows of one key, in the order of arrival.
pub struct InputRows<'r> {
    pub(in crate::table) rows: std::slice::Iter<'r, RowBuf>,
    pub(in crate::table) types: &'r [DataType],
    /// The number of leading columns that are not part of the row: the keys.
    pub(in crate::table) skip: usize,
}

impl Iterator for InputRows<'_> {
    type Item = Vec<Value>;
    fn next(&mut self) -> Option<Vec<Value>> {
        let row = self.rows.next()?;
        let mut values = decode(Row(row), self.types.iter());
        values.drain(..self.skip);
        Some(values)
    }
    fn size_hint(&self) -> (usize, Option<usize>) {
        self.rows.size_hint()
    }
}

impl ExactSizeIterator for InputRows<'_> {}

/// Declares the states of a processor. All states are declared before the processor is created.
pub struct StateDeclarations {
    pub(super) states: States,
    mode: TimeMode,
    names: HashSet<String>,
}

impl StateDeclarations {
    pub(super) fn new(mode: TimeMode) -> Self {
        Self { states: States::default(), mode, names: HashSet::new() }
    }

    fn check(&mut self, name: &str, ttl: Ttl) -> PlanResult<()> {
        if !self.names.insert(name.to_string()) {
            return Err(PlanError::new(
                "STATEFUL_PROCESSOR_DUPLICATE_STATE_VARIABLE_DEFINED",
                format!("the state `{name}` is declared twice"),
                "Give each state of a processor a name of its own",
            ));
        }
        match ttl.duration() {
            Some(_) if self.mode != TimeMode::ProcessingTime => Err(PlanError::new(
                "STATEFUL_PROCESSOR_INCORRECT_TIME_MODE_TO_ASSIGN_TTL",
                format!(
                    "the state `{name}` has a time to live, in the time mode {}",
                    self.mode.name()
                ),
                "Use TimeMode::ProcessingTime, or Ttl::NONE",
            )),
            Some(Duration::ZERO) => Err(PlanError::new(
                "STATEFUL_PROCESSOR_TTL_DURATION_MUST_BE_POSITIVE",
                format!("the state `{name}` has a time to live of zero"),
                "Use a longer one, or Ttl::NONE",
            )),
            _ => Ok(()),
        }
    }

    /// Declares a state with one value for each key. Each write restarts the value's time to live.
    pub fn value<V: Kept>(&mut self, name: &str, ttl: Ttl) -> PlanResult<ValueState<V>> {
        self.check(name, ttl)?;
        Ok(self.states.value(name, ttl))
    }

    /// Declares a state with a list for each key. Each element has its own time to live.
    pub fn list<V: Kept>(&mut self, name: &str, ttl: Ttl) -> PlanResult<ListState<V>> {
        self.check(name, ttl)?;
        Ok(self.states.list(name, ttl))
    }

    /// Declares a state with a map for each key. Each entry has its own time to live.
    pub fn map<K, V>(&mut self, name: &str, ttl: Ttl) -> PlanResult<MapState<K, V>>
    where
        K: Kept + Hash + Eq,
        V: Kept,
    {
        self.check(name, ttl)?;
        Ok(self.states.map(name, ttl))
    }
}

/// The requirements for the rows that an operator emits, checked for every row.
#[derive(Clone, Debug)]
pub(in crate::table) struct OutputRule {
    pub schema: Schema,
    /// The index of the event time column; `None` if the output names no event time.
    pub event_time: Option<usize>,
    pub mode: TimeMode,
    /// Whether the input rows have a watermark.
    pub timed: bool,
}

/// The operations of a processor during a call: it can read and write the key's state, set timers,
/// and emit rows.
pub struct StatefulProcessorHandle<'h, 'c> {
    pub(in crate::table) cx: &'h mut Context<'c, Vec<u8>>,
    pub(in crate::table) rule: &'h OutputRule,
}

fn null_value() -> EngineError {
    EngineError::operator(
        "ILLEGAL_STATE_STORE_VALUE.NULL_VALUE",
        "NULL was written to a state",
        "Clear the state instead",
    )
}

/// Rejects NULL as the value of a state.
fn check_value<V: 'static>(value: &V) -> Result<(), EngineError> {
    match (value as &dyn Any).downcast_ref::<Value>() {
        Some(Value::Null) => Err(null_value()),
        _ => Ok(()),
    }
}

/// Whether a value is valid for a type. NULL is valid for every type.
fn is_of_type(value: &Value, data_type: &DataType) -> bool {
    match (value, data_type) {
        (Value::Null, _) => true,
        (Value::Boolean(_), DataType::Boolean)
        | (Value::Double(_), DataType::Float | DataType::Double)
        | (Value::Decimal(_), DataType::Decimal(..))
        | (Value::Binary(_), DataType::Binary) => true,
        (Value::Binary(bytes), DataType::CalendarInterval) => {
            bytes.len() == crate::table::datetime::CalendarInterval::SIZE
        }
        (Value::Binary(bytes), DataType::Variant) => crate::table::variant::is_sound(bytes),
        (Value::Array(values), DataType::Array(element)) => {
            values.iter().all(|value| is_of_type(value, element))
        }
        (Value::Map(entries), DataType::Map(key, of)) => {
            entries.iter().all(|(k, v)| is_of_type(k, key) && is_of_type(v, of))
        }
        (Value::Struct(values), DataType::Struct(fields)) => {
            values.len() == fields.len()
                && values.iter().zip(fields).all(|(v, field)| is_of_type(v, &field.data_type))
        }
        (Value::Long(_), other) => other.physical() == crate::table::types::Physical::Long,
        (Value::String(_), other) => {
            other.physical() == crate::table::types::Physical::Bytes
                && !matches!(
                    other,
                    DataType::Binary
                        | DataType::Variant
                        | DataType::CalendarInterval
                        | DataType::Array(_)
                        | DataType::Map(..)
                        | DataType::Struct(_)
                )
        }
        _ => false,
    }
}

impl OutputRule {
    /// Checks that a row matches the output schema and is not late, and encodes the row. The event
    /// time, if the output has one, must be after the watermark.
    fn encode(&self, row: &[Value], watermark_us: i64) -> Result<Vec<u8>, EngineError> {
        let fields = &self.schema.fields;
        if row.len() != fields.len() {
            return Err(EngineError::operator(
                "STATEFUL_OUTPUT_SCHEMA_MISMATCH",
                format!(
                    "a row with {} was emitted, but the output has {}",
                    counted(row.len(), "value"),
                    counted(fields.len(), "column")
                ),
                "Emit a value for each column of the output schema",
            ));
        }
        for (value, field) in row.iter().zip(fields) {
            if *value == Value::Null && !field.nullable {
                return Err(EngineError::operator(
                    "NOT_NULL_ASSERT_VIOLATION",
                    format!(
                        "NULL was emitted for the column `{}`, which is not nullable",
                        field.name
                    ),
                    "Emit a value, or declare the column as nullable",
                ));
            }
            if !is_of_type(value, &field.data_type) {
                return Err(EngineError::operator(
                    "STATEFUL_OUTPUT_SCHEMA_MISMATCH",
                    format!(
                        "{value:?} was emitted for the column `{}` of type {}",
                        field.name, field.data_type
                    ),
                    "Emit values of the types of the output schema",
                ));
            }
        }
        if let Some(Value::Long(time_us)) = self.event_time.map(|at| &row[at])
            && *time_us <= watermark_us
        {
            return Err(EngineError::operator(
                "EMITTING_ROWS_OLDER_THAN_WATERMARK_NOT_ALLOWED",
                format!(
                    "a row was emitted with the event time {} ms, which the watermark of {} ms has passed",
                    time_us.div_euclid(1000),
                    watermark_us.div_euclid(1000)
                ),
                "Emit rows with an event time after handle.current_watermark_ms()",
            ));
        }
        Ok(crate::table::row::encode(row))
    }
}

impl StatefulProcessorHandle<'_, '_> {
    /// Emits a row, with a value for each column of the output schema.
    pub fn emit(&mut self, row: Vec<Value>) -> Result<(), EngineError> {
        let watermark_us = self.cx.watermark_us();
        let bytes = self.rule.encode(&row, watermark_us)?;
        self.cx.emit(bytes)
    }

    /// The processing time, in milliseconds since 1970: in micro-batch mode the time of the batch,
    /// in continuous mode the time of the clock.
    pub fn current_processing_time_ms(&self) -> i64 {
        self.cx.processing_time_us().div_euclid(1000)
    }

    /// The watermark, in milliseconds since 1970; `None` if the rows have none.
    pub fn current_watermark_ms(&self) -> Option<i64> {
        self.rule.timed.then(|| self.cx.watermark_us().div_euclid(1000))
    }

    /// Creates a timer for a time in milliseconds, in the processor's time mode. Fails in
    /// [`TimeMode::None`]; `operation` is the caller's name in the error.
    fn timer(&self, operation: &str, ms: i64) -> Result<Timer, EngineError> {
        let us = ms.saturating_mul(1000);
        match self.rule.mode {
            TimeMode::ProcessingTime => Ok(Timer::ProcessingTime(us)),
            TimeMode::EventTime => Ok(Timer::EventTime(us)),
            TimeMode::None => Err(EngineError::operator(
                "STATEFUL_PROCESSOR_CANNOT_PERFORM_OPERATION_WITH_INVALID_TIME_MODE",
                format!("{operation} was called in the time mode None"),
                "Use TimeMode::ProcessingTime or TimeMode::EventTime",
            )),
        }
    }

    /// Sets a timer of the key, in milliseconds since 1970. The timer fires when the processing
    /// time or the watermark has reached its time. A key has at most one timer per time. Fails in
    /// [`TimeMode::None`].
    pub fn register_timer(&mut self, timer_ms: i64) -> Result<(), EngineError> {
        let timer = self.timer("register_timer", timer_ms)?;
        self.cx.set_timer(timer)
    }

    /// Cancels a timer of the key, if it is set. Fails in [`TimeMode::None`].
    pub fn delete_timer(&mut self, timer_ms: i64) -> Result<(), EngineError> {
        let timer = self.timer("delete_timer", timer_ms)?;
        self.cx.clear_timer(timer);
        Ok(())
    }

    /// The timers of the key, in milliseconds since 1970 and in time order. Fails in
    /// [`TimeMode::None`].
    pub fn list_timers(&self) -> Result<Vec<i64>, EngineError> {
        self.timer("list_timers", 0)?;
        let ms = |timer| match timer {
            Timer::EventTime(us) | Timer::ProcessingTime(us) => us / 1000,
        };
        Ok(self.cx.timers().map(ms).collect())
    }

    /// The value that the key has in a value state; `None` if it has no value.
    pub fn value<V: Kept>(&self, state: ValueState<V>) -> Option<&V> {
        self.cx.value(state)
    }

    /// Sets the value that the key has in a value state. NULL is an error.
    pub fn update_value<V: Kept>(
        &mut self,
        state: ValueState<V>,
        value: V,
    ) -> Result<(), EngineError> {
        check_value(&value)?;
        self.cx.set_value(state, value)
    }

    /// Removes the value that the key has in a value state.
    pub fn clear_value<V: Kept>(&mut self, state: ValueState<V>) {
        self.cx.clear_value(state);
    }

    /// The elements of the key's list, in the order in which they were written.
    pub fn list<V: Kept>(&self, state: ListState<V>) -> impl Iterator<Item = &V> {
        self.cx.list(state)
    }

    /// Replaces the key's list. An empty list and a NULL element are errors.
    pub fn put_list<V: Kept>(
        &mut self,
        state: ListState<V>,
        values: impl IntoIterator<Item = V>,
    ) -> Result<(), EngineError> {
        let mut values = values.into_iter().peekable();
        if values.peek().is_none() {
            return Err(EngineError::operator(
                "ILLEGAL_STATE_STORE_VALUE.EMPTY_LIST_VALUE",
                "an empty list was written to a state",
                "Use clear_list",
            ));
        }
        self.cx.clear_list(state);
        values.try_for_each(|value| self.append(state, value))
    }

    /// Appends a value to the key's list. NULL is an error.
    pub fn append<V: Kept>(&mut self, state: ListState<V>, value: V) -> Result<(), EngineError> {
        check_value(&value)?;
        self.cx.push(state, value)
    }

    /// Removes all elements of the key's list.
    pub fn clear_list<V: Kept>(&mut self, state: ListState<V>) {
        self.cx.clear_list(state);
    }

    /// The value of an entry in the key's map; `None` if there is no such entry.
    pub fn map_value<K, V>(&self, state: MapState<K, V>, key: &K) -> Option<&V>
    where
        K: Kept + Hash + Eq,
        V: Kept,
    {
        self.cx.get(state, key)
    }

    /// The entries of the key's map, in no particular order.
    pub fn map<K, V>(&self, state: MapState<K, V>) -> impl Iterator<Item = (&K, &V)>
    where
        K: Kept + Hash + Eq,
        V: Kept,
    {
        self.cx.map(state)
    }

    /// Sets the value of an entry in the key's map. A NULL key or value is an error.
    pub fn update_map<K, V>(
        &mut self,
        state: MapState<K, V>,
        key: K,
        value: V,
    ) -> Result<(), EngineError>
    where
        K: Kept + Hash + Eq,
        V: Kept,
    {
        check_value(&key)?;
        check_value(&value)?;
        self.cx.insert(state, key, value)
    }

    /// Removes an entry from the key's map.
    pub fn remove_map_key<K, V>(
        &mut self,
        state: MapState<K, V>,
        key: &K,
    ) -> Result<(), EngineError>
    where
        K: Kept + Hash + Eq,
        V: Kept,
    {
        self.cx.remove(state, key)
    }

    /// Removes all entries of the key's map.
    pub fn clear_map<K, V>(&mut self, state: MapState<K, V>) -> Result<(), EngineError>
    where
        K: Kept + Hash + Eq,
        V: Kept,
    {
        self.cx.clear_map(state)
    }
}
