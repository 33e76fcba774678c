//! The logical plan node of an operator with arbitrary state.

use super::processor::{OutputRule, StateDeclarations, StatefulProcessor, TimeMode};
use crate::stream::States;
use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::functions::as_grouping_key;
use crate::table::expr::resolve::resolve;
use crate::table::expr::{Expr, Node, Resolved};
use crate::table::physical::BoxChain;
use crate::table::physical::arbitrary_state::{self as stage, InstanceParts};
use crate::table::plan::Plan;
use crate::table::plan::analyzer::{OutputMode, refuse_incomparable};
use crate::table::plan::time_window::has_watermark;
use crate::table::types::{DataType, Schema};
use crate::table::value::Value;
use millstream_engine::error::EngineError;
use std::fmt::{self, Debug, Formatter};
use std::sync::{Arc, Mutex};

/// The columns of the rows that an operator emits, their output mode and their event time.
#[derive(Clone, Debug)]
pub struct StateOutput {
    pub(crate) schema: Schema,
    pub(crate) mode: OutputMode,
    pub(crate) event_time: Option<String>,
}

impl StateOutput {
    /// Creates an output with these columns, in output mode append.
    pub fn new(schema: Schema) -> Self {
        Self { schema, mode: OutputMode::Append, event_time: None }
    }

    /// Sets the output mode: `append` or `update`. Any other mode is an error.
    pub fn output_mode(self, mode: &str) -> PlanResult<Self> {
        let mode = match mode.to_ascii_lowercase().as_str() {
            "append" => OutputMode::Append,
            "update" => OutputMode::Update,
            _ => {
                return Err(PlanError::new(
                    "STREAMING_OUTPUT_MODE.INVALID",
                    format!("an operator with arbitrary state has no output mode `{mode}`"),
                    "Use append or update",
                ));
            }
        };
        Ok(Self { mode, ..self })
    }

    /// Names the column that is the event time of the emitted rows, for stateful operators
    /// downstream. Emitting a row at or before the watermark is then an error.
    pub fn event_time(self, column: &str) -> Self {
        Self { event_time: Some(column.to_string()), ..self }
    }
}

impl From<Schema> for StateOutput {
    fn from(schema: Schema) -> Self {
        Self::new(schema)
    }
}

/// The API method that created an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateMethod {
    /// `transform_with_state`.
    Transform,
    /// `flat_map_groups_with_state`.
    FlatMapGroups,
    /// `map_groups_with_state`.
    MapGroups,
}

impl StateMethod {
    /// The operator's name in progress reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Transform => "transformWithState",
            Self::FlatMapGroups => "flatMapGroupsWithState",
            Self::MapGroups => "mapGroupsWithState",
        }
    }

    /// Whether the method calls a user's function with a key's rows and with a single state per
    /// key.
    pub fn is_of_groups(self) -> bool {
        matches!(self, Self::FlatMapGroups | Self::MapGroups)
    }
}

type Build = dyn Fn(InstanceParts, BoxChain) -> BoxChain + Send + Sync;

/// The initial state: rows from which the processor sets the state of their keys, before the first
/// rows of the input. They are not read in a run that continues from a committed epoch.
#[derive(Clone)]
pub(crate) struct InitialState {
    /// The types of the columns: those of the keys first, then those of the row.
    pub types: Vec<DataType>,
    /// Reads the rows of the initial state.
    pub read: Arc<dyn Fn() -> Result<Vec<Vec<Value>>, EngineError> + Send + Sync>,
}

/// An operator with arbitrary state: its output, and a function that builds its instances.
#[derive(Clone)]
pub struct StateOperator {
    pub(crate) method: StateMethod,
    pub(crate) output: StateOutput,
    pub(crate) mode: TimeMode,
    /// A description of the declared states, which the checkpoint stores.
    pub(crate) states: String,
    pub(crate) initial: Option<InitialState>,
    build: Arc<Build>,
}

impl PartialEq for StateOperator {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.build, &other.build)
    }
}

impl Debug for StateOperator {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.method.name(), self.states)
    }
}

impl StateOperator {
    /// Creates an operator. `make` declares the states and creates the processor that uses them.
    pub(crate) fn new<P: StatefulProcessor>(
        method: StateMethod,
        output: StateOutput,
        mode: TimeMode,
        make: impl FnOnce(&mut StateDeclarations) -> PlanResult<P>,
    ) -> PlanResult<Self> {
        let mut declarations = StateDeclarations::new(mode);
        let processor = Mutex::new(make(&mut declarations)?);
        let states: Arc<States> = Arc::new(declarations.states);
        let description = states.description();
        let build = move |parts: InstanceParts, down: BoxChain| {
            let processor = processor.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            stage::instance(processor.clone(), states.clone(), parts, down)
        };
        let (states, build) = (description, Arc::new(build));
        Ok(Self { method, output, mode, states, initial: None, build })
    }

    /// Gives keys an initial state, which the processor receives before the first rows of the key.
    pub(crate) fn with_initial_state(self, initial: InitialState) -> Self {
        Self { initial: Some(initial), ..self }
    }

    /// The index of the output's event time column; `None` if the output names no event time. Fails
    /// if the named column does not exist or is not a timestamp.
    pub(crate) fn event_time(&self) -> PlanResult<Option<usize>> {
        let Some(name) = &self.output.event_time else { return Ok(None) };
        let fields = &self.output.schema.fields;
        let at = fields.iter().position(|field| field.name.eq_ignore_ascii_case(name));
        let is_time = |at: &usize| {
            matches!(fields[*at].data_type, DataType::Timestamp | DataType::TimestampNtz)
        };
        match at {
            None => Err(PlanError::new(
                "UNRESOLVED_COLUMN.WITH_SUGGESTION",
                format!("the event time `{name}` is not a column of the output"),
                "Name a column of the output schema",
            )),
            Some(at) if !is_time(&at) => Err(PlanError::new(
                "EVENT_TIME_IS_NOT_ON_TIMESTAMP_TYPE",
                format!("the event time `{name}` has the type {}", fields[at].data_type),
                "Name a column of type TIMESTAMP",
            )),
            at => Ok(at),
        }
    }

    pub(in crate::table) fn rule(&self, event_time: Option<usize>, timed: bool) -> OutputRule {
        OutputRule { schema: self.output.schema.clone(), event_time, mode: self.mode, timed }
    }

    /// Builds an instance of the operator, which emits into `down`.
    pub(in crate::table) fn build(&self, parts: InstanceParts, down: BoxChain) -> BoxChain {
        (self.build)(parts, down)
    }
}

/// Plans an operator over rows that are grouped by keys. The key columns come first in its input.
pub(crate) fn keyed_state(input: Plan, keys: &[Expr], operator: StateOperator) -> PlanResult<Plan> {
    operator.event_time()?;
    let input = Box::new(keys_before_columns(input, keys)?);
    Ok(Plan::ArbitraryState { input, keys: keys.len(), operator })
}

/// Adds the keys as columns before the columns of `input`.
pub(crate) fn keys_before_columns(input: Plan, keys: &[Expr]) -> PlanResult<Plan> {
    let scope = input.scope();
    let key = |(i, key): (usize, &Expr)| {
        let key = resolve(key, &scope)?;
        Ok((as_grouping_key(key), format!("key{i}")))
    };
    let mut columns = keys.iter().enumerate().map(key).collect::<PlanResult<Vec<_>>>()?;
    columns.extend(scope.columns.iter().enumerate().map(|(i, column)| {
        let node = Node::Column(i, column.name.clone());
        let (data_type, nullable) = (column.data_type.clone(), column.nullable);
        (Resolved { node, data_type, nullable }, column.name.clone())
    }));
    let of_keys = Plan::Project(Box::new(input.clone()), columns[..keys.len()].to_vec());
    refuse_incomparable(&of_keys)?;
    Ok(Plan::Project(Box::new(input), columns))
}

/// Rejects uses of an operator with arbitrary state that are not supported on a stream. `query` is
/// the output mode of the query.
pub(crate) fn check(plan: &Plan, query: OutputMode) -> PlanResult<()> {
    if let Plan::ArbitraryState { input, operator, .. } = plan {
        check_operator(input, operator, query)?;
    }
    if is_stateful(plan) {
        check_below(plan)?;
    }
    plan.inputs().into_iter().try_for_each(|input| check(input, query))
}

fn check_operator(input: &Plan, operator: &StateOperator, query: OutputMode) -> PlanResult<()> {
    let name = operator.method.name();
    if operator.mode == TimeMode::EventTime && !has_watermark(input) {
        return Err(PlanError::new(
            "STREAMING_STATE_WITHOUT_WATERMARK",
            format!(
                "{name} by event time is not supported without a watermark: event time would \
            not advance"
            ),
            "Declare one first: with_watermark(\"time\", \"10 minutes\")",
        ));
    }
    if operator.output.mode == OutputMode::Update && input.has_aggregate()
        || query == OutputMode::Update && input.has_aggregate()
    {
        return Err(PlanError::new(
            "STREAMING_STATEFUL_CHAIN_UNSUPPORTED",
            format!("{name} in output mode update is not supported after a running aggregation"),
            "Use output mode append, with a watermark",
        ));
    }
    let is_group = operator.method.is_of_groups();
    if is_group && query != operator.output.mode {
        return Err(PlanError::new(
            "STREAMING_OUTPUT_MODE.UNSUPPORTED_OPERATION",
            format!(
                "output mode {} is not supported for {name} in output mode {}",
                query.name(),
                operator.output.mode.name()
            ),
            "Use one output mode for both: StateOutput::new(schema).output_mode(..)",
        ));
    }
    Ok(())
}

/// Whether a plan node keeps state.
fn is_stateful(plan: &Plan) -> bool {
    match plan {
        Plan::Aggregate(..) | Plan::Deduplicate { .. } | Plan::ArbitraryState { .. } => true,
        Plan::Join(join) => join.is_of_streams(),
        _ => false,
    }
}

/// Rejects operators below a stateful operator whose output no stateful operator may read.
fn check_below(plan: &Plan) -> PlanResult<()> {
    for input in plan.inputs() {
        if let Plan::ArbitraryState { operator, .. } = input {
            let is_group = operator.method.is_of_groups();
            let refused = match (is_group, operator.mode, operator.output.mode) {
                (true, TimeMode::EventTime, _) => Some("with a time-out by event time"),
                (true, _, OutputMode::Update) => Some("in output mode update"),
                _ => None,
            };
            if let Some(what) = refused {
                return Err(PlanError::new(
                    "STREAMING_STATEFUL_CHAIN_UNSUPPORTED",
                    format!(
                        "{} {what} is not supported before another stateful operator",
                        operator.method.name()
                    ),
                    "Use transform_with_state with StateOutput::event_time, or write to a stream \
                     between both",
                ));
            }
        }
        check_below(input)?;
    }
    Ok(())
}
