//! The state of `flat_map_groups_with_state`: one value and one time-out for each key.
//!
//! [`GroupFunction`] implements the operator as a [`StatefulProcessor`] with one value state. A
//! time-out is a timer that is set one millisecond later: a key times out after its time has
//! passed, whereas a timer fires when its time is reached.

use super::processor::{InputRows, StateError, StatefulProcessor, StatefulProcessorHandle};
use crate::stream::{Kept, ValueState};
use crate::table::value::Value;
use millstream_engine::error::EngineError;
use std::sync::Arc;
use std::time::Duration;

/// Whether keys time out, and whether by processing time or by event time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupStateTimeout {
    /// Keys do not time out.
    NoTimeout,
    /// Keys time out by processing time.
    ProcessingTimeTimeout,
    /// Keys time out by event time. The rows need a watermark; late rows are dropped.
    EventTimeTimeout,
}

/// The state of a key during a call of the function.
pub struct GroupState<'g, S> {
    access: &'g mut dyn StateAccess<S>,
    kind: GroupStateTimeout,
    timed_out: bool,
    timeout_ms: Option<i64>,
}

/// Access to a key's value, the watermark and the processing time, independent of the handle's
/// type.
trait StateAccess<S> {
    fn get(&self) -> Option<&S>;
    fn update(&mut self, value: S) -> Result<(), EngineError>;
    fn clear(&mut self);
    fn watermark_ms(&self) -> Option<i64>;
    fn processing_time_ms(&self) -> i64;
}

/// Access to the value state of the key that a handle is processing.
struct HandleValue<'g, 'h, 'c, S> {
    handle: &'g mut StatefulProcessorHandle<'h, 'c>,
    state: ValueState<S>,
}

impl<S: Kept> StateAccess<S> for HandleValue<'_, '_, '_, S> {
    fn get(&self) -> Option<&S> {
        self.handle.value(self.state)
    }
    fn update(&mut self, value: S) -> Result<(), EngineError> {
        self.handle.update_value(self.state, value)
    }
    fn clear(&mut self) {
        self.handle.clear_value(self.state);
    }
    fn watermark_ms(&self) -> Option<i64> {
        self.handle.current_watermark_ms()
    }
    fn processing_time_ms(&self) -> i64 {
        self.handle.current_processing_time_ms()
    }
}

fn invalid(condition: &'static str, reason: String, fix: &'static str) -> EngineError {
    EngineError::operator(condition, reason, fix)
}

impl<S: Kept> GroupState<'_, S> {
    /// Whether the key has a state. A removed state does not count.
    pub fn exists(&self) -> bool {
        self.get().is_some()
    }

    /// The state of the key; `None` if the key has no state.
    pub fn get(&self) -> Option<&S> {
        self.access.get()
    }

    /// Sets the state of the key. Fails for [`Value::Null`], and if the state cannot be encoded; it
    /// is encoded only if there is a checkpoint.
    pub fn update(&mut self, state: S) -> Result<(), EngineError> {
        self.access.update(state)
    }

    /// Removes the state of the key. A time-out that was set in this call stays set.
    pub fn remove(&mut self) {
        self.access.clear();
    }

    /// Whether this call was caused by the key's time-out. Then there are no rows.
    pub fn has_timed_out(&self) -> bool {
        self.timed_out
    }

    /// The watermark, in milliseconds since 1970; `None` if the rows have none.
    pub fn current_watermark_ms(&self) -> Option<i64> {
        self.access.watermark_ms()
    }

    /// The processing time, in milliseconds since 1970: in micro-batch mode the time of the batch,
    /// in continuous mode the time of the clock.
    pub fn current_processing_time_ms(&self) -> i64 {
        self.access.processing_time_ms()
    }

    /// Makes the key time out when the processing time has advanced by more than `duration`. A
    /// duration below one millisecond is an error, and so is the call if keys do not time out by
    /// processing time. Each call of the user's function clears the time-out, so the function must
    /// set the time-out again to keep one.
    pub fn set_timeout_duration(&mut self, duration: Duration) -> Result<(), EngineError> {
        if self.kind != GroupStateTimeout::ProcessingTimeTimeout {
            return Err(invalid(
                "_LEGACY_ERROR_TEMP_2203",
                "a duration was set as the time-out, but keys do not time out by processing time"
                    .to_string(),
                "Use GroupStateTimeout::ProcessingTimeTimeout",
            ));
        }
        let ms = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        if ms == 0 {
            return Err(invalid(
                "INVALID_TIMEOUT_DURATION",
                "a time-out of less than a millisecond was set".to_string(),
                "Set a longer one",
            ));
        }
        self.timeout_ms = Some(self.current_processing_time_ms().saturating_add(ms));
        Ok(())
    }

    /// Makes the key time out when the watermark has passed `timestamp_ms`, in milliseconds since
    /// 1970. A time that is before the watermark or not positive is an error, and so is the call if
    /// keys do not time out by event time. Each call of the user's function clears the time-out, so
    /// the function must set the time-out again to keep one.
    pub fn set_timeout_timestamp(&mut self, timestamp_ms: i64) -> Result<(), EngineError> {
        if self.kind != GroupStateTimeout::EventTimeTimeout {
            return Err(invalid(
                "_LEGACY_ERROR_TEMP_2205",
                "a time was set as the time-out, but keys do not time out by event time"
                    .to_string(),
                "Use GroupStateTimeout::EventTimeTimeout",
            ));
        }
        let watermark_ms = self.current_watermark_ms().unwrap_or(0);
        if timestamp_ms < watermark_ms.max(1) {
            return Err(invalid(
                "INVALID_TIMEOUT_TIMESTAMP",
                format!(
                    "the time-out {timestamp_ms} ms is before the watermark of {watermark_ms} ms"
                ),
                "Set one at or after state.current_watermark_ms()",
            ));
        }
        self.timeout_ms = Some(timestamp_ms);
        Ok(())
    }
}

/// Adapts a user's function of a key, its rows and its state to a [`StatefulProcessor`].
pub(crate) struct GroupFunction<S, F> {
    pub state: ValueState<S>,
    pub kind: GroupStateTimeout,
    /// Makes a key's initial state; `None` if the query has no initial states.
    pub initial: Option<StateOfRow<S>>,
    pub function: F,
}

/// Converts a row of the initial state to the state of the row's key.
pub(crate) type StateOfRow<S> = Arc<dyn Fn(Vec<Value>) -> Result<S, StateError> + Send + Sync>;

impl<S, F: Clone> Clone for GroupFunction<S, F> {
    fn clone(&self) -> Self {
        let Self { state, kind, initial, function } = self;
        let (initial, function) = (initial.clone(), function.clone());
        Self { state: *state, kind: *kind, initial, function }
    }
}

impl<S, F> GroupFunction<S, F>
where
    S: Kept,
    F: FnMut(
            &[Value],
            InputRows<'_>,
            &mut GroupState<'_, S>,
        ) -> Result<Vec<Vec<Value>>, StateError>
        + Clone
        + Send
        + 'static,
{
    fn call(
        &mut self,
        key: &[Value],
        rows: InputRows<'_>,
        timed_out: bool,
        handle: &mut StatefulProcessorHandle<'_, '_>,
    ) -> Result<(), StateError> {
        let (state, kind) = (self.state, self.kind);
        let mut access = HandleValue { handle, state };
        let mut group = GroupState { access: &mut access, kind, timed_out, timeout_ms: None };
        let out = (self.function)(key, rows, &mut group)?;
        let timeout_ms = group.timeout_ms;
        if kind != GroupStateTimeout::NoTimeout {
            for timer_ms in handle.list_timers()? {
                handle.delete_timer(timer_ms)?;
            }
            if let Some(timeout_ms) = timeout_ms {
                // A timer fires when its time is reached, but a key times out after its time has
                // passed.
                handle.register_timer(timeout_ms.saturating_add(1))?;
            }
        }
        out.into_iter().try_for_each(|row| handle.emit(row))?;
        Ok(())
    }
}

impl<S, F> StatefulProcessor for GroupFunction<S, F>
where
    S: Kept,
    F: FnMut(
            &[Value],
            InputRows<'_>,
            &mut GroupState<'_, S>,
        ) -> Result<Vec<Vec<Value>>, StateError>
        + Clone
        + Send
        + 'static,
{
    fn handle_input_rows(
        &mut self,
        key: &[Value],
        rows: InputRows<'_>,
        handle: &mut StatefulProcessorHandle<'_, '_>,
    ) -> Result<(), StateError> {
        self.call(key, rows, false, handle)
    }

    fn handle_initial_state(
        &mut self,
        _: &[Value],
        row: Vec<Value>,
        handle: &mut StatefulProcessorHandle<'_, '_>,
    ) -> Result<(), StateError> {
        let Some(initial) = &self.initial else { return Ok(()) };
        if handle.value(self.state).is_some() {
            let error = invalid(
                "INITIAL_STATE_DUPLICATE_KEY",
                "a key has several rows in the initial state".to_string(),
                "Give each key one row, for example by drop_duplicates",
            );
            return Err(error.into());
        }
        Ok(handle.update_value(self.state, initial(row)?)?)
    }

    fn handle_expired_timer(
        &mut self,
        key: &[Value],
        _: i64,
        handle: &mut StatefulProcessorHandle<'_, '_>,
    ) -> Result<(), StateError> {
        let rows = InputRows { rows: [].iter(), types: &[], skip: 0 };
        self.call(key, rows, true, handle)
    }
}
