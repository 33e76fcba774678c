//! Rows that are grouped by keys: aggregates and stateful operators with Spark's names.

use super::DataFrame;
use crate::stream::{Kept, Ttl};
use crate::table::arbitrary_state::group_state::{GroupFunction, StateOfRow};
use crate::table::arbitrary_state::node::{
    InitialState, StateMethod, StateOperator, keyed_state, keys_before_columns,
};
use crate::table::arbitrary_state::{
    GroupState, GroupStateTimeout, InputRows, StateDeclarations, StateError, StateOutput,
    StatefulProcessor, TimeMode,
};
use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::{Expr, col, deep};
use crate::table::plan::Plan;
use crate::table::plan::grouping::Grouping;
use crate::table::types::DataType;
use crate::table::value::Value;
use std::sync::Arc;

/// Grouped rows, to be aggregated.
#[derive(Clone)]
pub struct GroupedData {
    pub(super) of: DataFrame,
    pub(super) keys: Vec<Expr>,
    /// The grouping sets of a rollup or a cube, as indices of `keys`; `None` after `group_by`.
    pub(super) sets: Option<Vec<Vec<usize>>>,
}

impl GroupedData {
    /// Returns the keys and the given aggregates. Fails if an expression is neither a key nor
    /// computed from keys and aggregates.
    pub fn agg(&self, aggregates: impl IntoIterator<Item = Expr>) -> PlanResult<DataFrame> {
        let aggregates: Vec<_> = aggregates.into_iter().collect();
        deep::check(self.keys.iter().chain(&aggregates))?;
        let select: Vec<Expr> = self.keys.iter().cloned().chain(aggregates).collect();
        let input = self.of.owned();
        let plan = self.of.analyse(|| {
            let grouping = Grouping::with_sets(input, &self.keys, self.sets.clone(), &select)?;
            grouping.finish(&select, None)
        })?;
        Ok(self.of.with(plan))
    }

    /// Applies a processor with state and timers for each key. The processor emits rows with the
    /// columns of `output`. The keys are not added automatically. `make` declares the states and
    /// creates the processor that uses them.
    ///
    /// ```
    /// use millstream::session::{Session, Trigger};
    /// use millstream::stream::{Ttl, ValueState};
    /// use millstream::table::arbitrary_state::{
    ///     InputRows, StateError, StatefulProcessor, StatefulProcessorHandle, TimeMode,
    /// };
    /// use millstream::table::expr::col;
    /// use millstream::table::types::Schema;
    /// use millstream::table::value::Value;
    ///
    /// /// Numbers the rows of each key.
    /// #[derive(Clone)]
    /// struct Numbers {
    ///     last: ValueState<i64>,
    /// }
    ///
    /// impl StatefulProcessor for Numbers {
    ///     fn handle_input_rows(
    ///         &mut self,
    ///         key: &[Value],
    ///         rows: InputRows<'_>,
    ///         handle: &mut StatefulProcessorHandle<'_, '_>,
    ///     ) -> Result<(), StateError> {
    ///         for _ in rows {
    ///             let number = handle.value(self.last).copied().unwrap_or(0) + 1;
    ///             handle.update_value(self.last, number)?;
    ///             handle.emit(vec![key[0].clone(), Value::Long(number)])?;
    ///         }
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let session = Session::new();
    /// let words = session.memory_stream("words", "word STRING")?;
    /// let schema = Schema::parse_ddl("word STRING, number BIGINT")?;
    /// let numbered = session.view("words").unwrap().group_by([col("word")]).transform_with_state(
    ///     schema,
    ///     TimeMode::None,
    ///     |states| Ok(Numbers { last: states.value("last", Ttl::NONE)? }),
    /// )?;
    /// # drop((words, numbered));
    /// # Ok::<(), millstream::table::error::PlanError>(())
    /// ```
    pub fn transform_with_state<P: StatefulProcessor>(
        &self,
        output: impl Into<StateOutput>,
        mode: TimeMode,
        make: impl FnOnce(&mut StateDeclarations) -> PlanResult<P>,
    ) -> PlanResult<DataFrame> {
        let method = StateMethod::Transform;
        self.with_state(StateOperator::new(method, output.into(), mode, make)?)
    }

    /// Gives the keys of a stateful operator an initial state: the rows of a table, which is
    /// grouped by keys of equal number and types. The table is read at the first start of the
    /// query, and not at a restart.
    pub fn with_initial_state(&self, initial: &GroupedData) -> PlanResult<GroupedWithInitialState> {
        if initial.of.plan.is_streaming() {
            return Err(PlanError::new(
                "STREAMING_INITIAL_STATE_UNSUPPORTED",
                "the initial state of a stateful operator is a stream",
                "Give it the rows of a table",
            ));
        }
        let of = |grouped: &GroupedData| {
            deep::check(&grouped.keys)?;
            grouped.of.analyse(|| keys_before_columns(grouped.of.owned(), &grouped.keys))
        };
        let (ours, theirs) = (of(self)?, of(initial)?);
        let types = |plan: &Plan, keys: usize| -> Vec<_> {
            let columns = plan.scope().columns.into_iter().take(keys);
            columns.map(|column| column.data_type).collect()
        };
        let wanted = types(&ours, self.keys.len());
        let given = types(&theirs, initial.keys.len());
        if wanted != given {
            let list = |types: &[DataType]| {
                types.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
            };
            return Err(PlanError::new(
                "INITIAL_STATE_KEY_MISMATCH",
                format!(
                    "the keys of the initial state have the types ({}), and those of the rows ({})",
                    list(&given),
                    list(&wanted)
                ),
                "Cast the keys of the initial state",
            ));
        }
        let types = theirs.scope().columns.into_iter().map(|column| column.data_type).collect();
        let frame = initial.of.with(theirs);
        let read = move || Ok(frame.collect()?);
        let initial = InitialState { types, read: Arc::new(read) };
        Ok(GroupedWithInitialState { of: self.clone(), initial })
    }

    /// Applies a function to the rows and the state of each key. The function returns rows with the
    /// columns of `output`. When a key times out, the function is called without rows.
    ///
    /// ```
    /// use millstream::session::Session;
    /// use millstream::table::arbitrary_state::{GroupState, GroupStateTimeout, InputRows};
    /// use millstream::table::expr::col;
    /// use millstream::table::types::Schema;
    /// use millstream::table::value::Value;
    ///
    /// let session = Session::new();
    /// let words = session.memory_stream("words", "word STRING")?;
    /// let counts = session
    ///     .view("words")
    ///     .unwrap()
    ///     .group_by([col("word")])
    ///     .flat_map_groups_with_state(
    ///         Schema::parse_ddl("word STRING, n BIGINT")?,
    ///         GroupStateTimeout::NoTimeout,
    ///         |key: &[Value], rows: InputRows<'_>, state: &mut GroupState<'_, i64>| {
    ///             let n = state.get().copied().unwrap_or(0) + rows.len() as i64;
    ///             state.update(n)?;
    ///             Ok(vec![vec![key[0].clone(), Value::Long(n)]])
    ///         },
    ///     )?;
    /// # drop((words, counts));
    /// # Ok::<(), millstream::table::error::PlanError>(())
    /// ```
    pub fn flat_map_groups_with_state<S, F>(
        &self,
        output: impl Into<StateOutput>,
        timeout: GroupStateTimeout,
        function: F,
    ) -> PlanResult<DataFrame>
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
        let output = output.into();
        let method = StateMethod::FlatMapGroups;
        self.with_state(group_operator(method, output, timeout, None, function)?)
    }

    /// Like [`flat_map_groups_with_state`](Self::flat_map_groups_with_state), with a function that
    /// returns one row per call. The query must use output mode update.
    pub fn map_groups_with_state<S, F>(
        &self,
        output: impl Into<StateOutput>,
        timeout: GroupStateTimeout,
        function: F,
    ) -> PlanResult<DataFrame>
    where
        S: Kept,
        F: FnMut(&[Value], InputRows<'_>, &mut GroupState<'_, S>) -> Result<Vec<Value>, StateError>
            + Clone
            + Send
            + 'static,
    {
        self.with_state(map_operator(output.into(), timeout, None, function)?)
    }

    /// Puts the keys before the other columns and adds the operator.
    fn with_state(&self, operator: StateOperator) -> PlanResult<DataFrame> {
        deep::check(&self.keys)?;
        let plan = self.of.analyse(|| keyed_state(self.of.owned(), &self.keys, operator))?;
        Ok(self.of.with(plan))
    }

    /// Returns the keys and the number of rows of each group, as `count`.
    pub fn count(&self) -> PlanResult<DataFrame> {
        self.agg([crate::table::expr::call("count", [Expr::Star(None)]).alias("count")])
    }

    fn each<'n>(
        &self,
        function: &str,
        columns: impl IntoIterator<Item = &'n str>,
    ) -> PlanResult<DataFrame> {
        let of = |column| crate::table::expr::call(function, [col(column)]);
        self.agg(columns.into_iter().map(of))
    }

    /// Returns the keys and the sum of each column.
    pub fn sum<'n>(&self, columns: impl IntoIterator<Item = &'n str>) -> PlanResult<DataFrame> {
        self.each("sum", columns)
    }

    /// Returns the keys and the average of each column.
    pub fn avg<'n>(&self, columns: impl IntoIterator<Item = &'n str>) -> PlanResult<DataFrame> {
        self.each("avg", columns)
    }

    /// Returns the keys and the smallest value of each column.
    pub fn min<'n>(&self, columns: impl IntoIterator<Item = &'n str>) -> PlanResult<DataFrame> {
        self.each("min", columns)
    }

    /// Returns the keys and the largest value of each column.
    pub fn max<'n>(&self, columns: impl IntoIterator<Item = &'n str>) -> PlanResult<DataFrame> {
        self.each("max", columns)
    }
}

/// Grouped rows for a stateful operator whose keys have an initial state; see
/// [`GroupedData::with_initial_state`].
pub struct GroupedWithInitialState {
    of: GroupedData,
    initial: InitialState,
}

impl GroupedWithInitialState {
    /// Like [`GroupedData::transform_with_state`]. The processor's
    /// [`handle_initial_state`](StatefulProcessor::handle_initial_state) is called with each row of
    /// the initial state, before the first rows of its key.
    pub fn transform_with_state<P: StatefulProcessor>(
        &self,
        output: impl Into<StateOutput>,
        mode: TimeMode,
        make: impl FnOnce(&mut StateDeclarations) -> PlanResult<P>,
    ) -> PlanResult<DataFrame> {
        let method = StateMethod::Transform;
        let operator = StateOperator::new(method, output.into(), mode, make)?;
        self.of.with_state(operator.with_initial_state(self.initial.clone()))
    }

    /// Like [`GroupedData::flat_map_groups_with_state`]. `state` creates the state of a key from
    /// the key's row of the initial state. A key must have at most one such row. At the first
    /// start, the function is called for every key of the initial state, also for keys without
    /// input rows.
    pub fn flat_map_groups_with_state<S, F>(
        &self,
        output: impl Into<StateOutput>,
        timeout: GroupStateTimeout,
        state: impl Fn(Vec<Value>) -> Result<S, StateError> + Send + Sync + 'static,
        function: F,
    ) -> PlanResult<DataFrame>
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
        let method = StateMethod::FlatMapGroups;
        let state: Option<StateOfRow<S>> = Some(Arc::new(state));
        let operator = group_operator(method, output.into(), timeout, state, function)?;
        self.of.with_state(operator.with_initial_state(self.initial.clone()))
    }

    /// Like [`GroupedData::map_groups_with_state`], with the initial state of
    /// [`flat_map_groups_with_state`](Self::flat_map_groups_with_state).
    pub fn map_groups_with_state<S, F>(
        &self,
        output: impl Into<StateOutput>,
        timeout: GroupStateTimeout,
        state: impl Fn(Vec<Value>) -> Result<S, StateError> + Send + Sync + 'static,
        function: F,
    ) -> PlanResult<DataFrame>
    where
        S: Kept,
        F: FnMut(&[Value], InputRows<'_>, &mut GroupState<'_, S>) -> Result<Vec<Value>, StateError>
            + Clone
            + Send
            + 'static,
    {
        let state: Option<StateOfRow<S>> = Some(Arc::new(state));
        let operator = map_operator(output.into(), timeout, state, function)?;
        self.of.with_state(operator.with_initial_state(self.initial.clone()))
    }
}

/// Creates the operator of a function that returns one row per call.
fn map_operator<S, F>(
    output: StateOutput,
    timeout: GroupStateTimeout,
    initial: Option<StateOfRow<S>>,
    mut function: F,
) -> PlanResult<StateOperator>
where
    S: Kept,
    F: FnMut(&[Value], InputRows<'_>, &mut GroupState<'_, S>) -> Result<Vec<Value>, StateError>
        + Clone
        + Send
        + 'static,
{
    let function = move |key: &[Value], rows: InputRows<'_>, state: &mut GroupState<'_, S>| {
        Ok(vec![function(key, rows, state)?])
    };
    let output = output.output_mode("update")?;
    group_operator(StateMethod::MapGroups, output, timeout, initial, function)
}

/// Creates the operator of a function that gets a key's rows and state.
fn group_operator<S, F>(
    method: StateMethod,
    output: StateOutput,
    timeout: GroupStateTimeout,
    initial: Option<StateOfRow<S>>,
    function: F,
) -> PlanResult<StateOperator>
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
    let mode = match timeout {
        GroupStateTimeout::NoTimeout => TimeMode::None,
        GroupStateTimeout::ProcessingTimeTimeout => TimeMode::ProcessingTime,
        GroupStateTimeout::EventTimeTimeout => TimeMode::EventTime,
    };
    let make = |states: &mut StateDeclarations| {
        let state = states.value("state", Ttl::NONE)?;
        Ok(GroupFunction { state, kind: timeout, initial, function })
    };
    StateOperator::new(method, output, mode, make)
}
