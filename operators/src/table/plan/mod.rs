//! The logical plan. SQL and the DataFrame API build it, `explain` prints it, and lowering
//! translates it to stages.

pub mod aggregate_function;
mod aggregate_names;
mod aggregate_types;
pub mod analyzer;
pub mod asof_join;
mod columns;
pub mod generator;
pub mod grouping;
pub mod input_file;
pub mod join;
pub mod limits;
pub mod live_table;
pub mod optimizer;
pub mod order_dependence;
pub mod over_groups;
pub mod shared_sources;
pub mod time_window;
mod window_frame;
pub mod window_function;
mod window_names;
pub mod within_group;
use super::error::{Place, PlanResult};
use super::expr::functions::with_seeds;
use super::expr::resolve::{Scope, ScopeColumn};
use super::expr::{Node, Resolved};
use super::types::{DataType, Field, Schema};
use super::value::Value;
use crate::table::arbitrary_state::node::StateOperator;
use crate::table::plan::aggregate_function::AggregateCall;
use crate::table::plan::generator::Generator;
use crate::table::plan::limits::{MAX_NESTING, too_complex};
use crate::table::plan::live_table::LiveTable;
use crate::table::plan::shared_sources::{SourceId, readers};
use crate::table::plan::window_function::Windows;
use columns::{
    column_of, computed_columns, emitted_columns, generated_columns, join_columns, union_columns,
    unqualified,
};
use smallvec::{SmallVec, smallvec};
use std::convert::Infallible;
use std::fmt::Write;
use std::iter;
use std::sync::Arc;

/// The maximum depth of operators. One level of query nesting takes a few operators.
const MAX_OPERATORS: usize = MAX_NESTING * 4;
/// The stack size in bytes that must be free for a traversal of the plan. If less is free, the
/// stack is extended by `MORE_STACK`.
const LEVEL_STACK: usize = 64 << 10;
const MORE_STACK: usize = 16 << 20;

/// The options of a source or sink, as written. Names are case-insensitive.
pub type Options = Vec<(String, String)>;

/// A source of rows in a plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Scan {
    /// The identity of the source. It distinguishes sources with equal options.
    pub id: SourceId,
    /// The name of the source in the query.
    pub name: String,
    /// Whether the source is a stream. If false, it is a table, which is read when the query
    /// starts; on one side of a join it may be read again ([`Join::live`]).
    pub streaming: bool,
    /// The format of the source, such as `json` or `socket`.
    pub format: String,
    /// The options of the source, as written.
    pub options: Options,
    /// The columns of the source's rows.
    pub schema: Schema,
    /// Whether the schema was inferred from the source's files.
    pub inferred: bool,
    /// Whether the rows come from files, so that the column [`METADATA`] is available.
    pub is_file_source: bool,
}

impl Scan {
    /// The number of partitions, each of which has its own tasklet. The option `numPartitions` sets
    /// it. 1 without the option, for a table, and for `rate-micro-batch`.
    pub fn partitions(&self) -> usize {
        let named = |(key, _): &&(String, String)| key.eq_ignore_ascii_case("numPartitions");
        let splits = self.streaming && self.format != "rate-micro-batch";
        let given = self.options.iter().find(named).filter(|_| splits);
        given.and_then(|(_, value)| value.parse().ok()).unwrap_or(1)
    }
}

/// The name of the column that describes the file from which a row was read.
pub const METADATA: &str = "_metadata";

/// The column `_metadata`, with the same type as in Spark.
pub fn metadata_field() -> Field {
    let field = |name: &str, data_type| Field::new(name, data_type, false);
    let fields = vec![
        field("file_path", DataType::String),
        field("file_name", DataType::String),
        field("file_size", DataType::Long),
        field("file_block_start", DataType::Long),
        field("file_block_length", DataType::Long),
        field("file_modification_time", DataType::Timestamp),
    ];
    Field::new(METADATA, DataType::Struct(fields), false)
}

/// A resolved key of ORDER BY.
#[derive(Clone, Debug, PartialEq)]
pub struct SortKey {
    /// The expression to sort by.
    pub expr: Resolved,
    /// Whether the largest value comes first.
    pub descending: bool,
    /// Whether NULLs come first.
    pub nulls_first: bool,
}

/// The type of a join: the rows that it emits for matches and for rows without a match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinKind {
    /// All matching pairs.
    Inner,
    /// All matching pairs, and left rows without a match, with NULLs.
    LeftOuter,
    /// All matching pairs, and right rows without a match, with NULLs.
    RightOuter,
    /// All matching pairs, and the rows of both sides without a match, with NULLs. This kind is
    /// only used for two streams; for tables, the analyser builds it from two other joins.
    FullOuter,
    /// The left rows with a match.
    LeftSemi,
    /// The left rows without a match.
    LeftAnti,
    /// Every left row, with a column that tells whether the row has a match.
    Exists,
    /// Every left row, with a column that tells whether its value is among the values of the
    /// matching right rows. The column is NULL if the answer depends on a NULL.
    In,
    /// Every left row with the right row's columns or NULLs. An error if two right rows match.
    ScalarSubquery,
}

impl JoinKind {
    /// The SQL name, or a descriptive name for joins without a SQL name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Inner => "INNER",
            Self::LeftOuter => "LEFT OUTER",
            Self::RightOuter => "RIGHT OUTER",
            Self::FullOuter => "FULL OUTER",
            Self::LeftSemi => "LEFT SEMI",
            Self::LeftAnti => "LEFT ANTI",
            Self::Exists => "EXISTS",
            Self::In => "IN",
            Self::ScalarSubquery => "SCALAR SUBQUERY",
        }
    }

    /// The name after its article, for messages: `an INNER`, `a LEFT OUTER`.
    pub(in crate::table) fn with_article(self) -> String {
        let name = self.name();
        let article = if name.starts_with(['A', 'E', 'I', 'O', 'U']) { "an" } else { "a" };
        format!("{article} {name}")
    }
}

/// The right row that an ASOF join selects among those that match a left row, by the compared
/// values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closest {
    /// `left >= right`: the row with the largest right value that is at most the left value.
    AtOrBefore,
    /// `left > right`: the row with the largest right value that is less than the left value.
    Before,
    /// `left <= right`: the row with the smallest right value that is at least the left value.
    AtOrAfter,
    /// `left < right`: the row with the smallest right value that is greater than the left value.
    After,
}

impl Closest {
    /// The comparison operator, with the left value as its left operand.
    pub fn operator(self) -> &'static str {
        match self {
            Self::AtOrBefore => ">=",
            Self::Before => ">",
            Self::AtOrAfter => "<=",
            Self::After => "<",
        }
    }

    /// The equivalent comparison with exchanged operands.
    pub fn flipped(self) -> Self {
        match self {
            Self::AtOrBefore => Self::AtOrAfter,
            Self::Before => Self::After,
            Self::AtOrAfter => Self::AtOrBefore,
            Self::After => Self::Before,
        }
    }
}

/// A join of streams, of a stream and a table, or of two tables.
#[derive(Clone, Debug, PartialEq)]
pub struct Join {
    /// The left input.
    pub left: Plan,
    /// The right input.
    pub right: Plan,
    /// The type of the join.
    pub kind: JoinKind,
    /// The join condition over the columns of both sides, left first; `None` if all pairs match.
    pub condition: Option<Resolved>,
    /// For `In` and for an ASOF join: the compared values of the left and of the right row, over
    /// the columns of both sides.
    pub in_operands: Option<(Resolved, Resolved)>,
    /// For an ASOF join: which of the matching right rows is selected.
    pub closest: Option<Closest>,
    /// The number of matching right rows to skip, and the maximum number to use after them; `None`
    /// to use all.
    pub match_range: Option<(u64, u64)>,
    /// The reader of the side that is a table, if its rows may change while the query runs.
    pub live: Option<LiveTable>,
    /// The position in the query text.
    pub place: Place,
}

impl Join {
    /// Whether both sides are streams.
    pub fn is_of_streams(&self) -> bool {
        self.left.is_streaming() && self.right.is_streaming()
    }

    /// The join without its inputs, for `explain`.
    fn line(&self) -> String {
        let condition = self.condition.as_ref().map(|c| format!(" ON {c}"));
        let in_operands = self.in_operands.as_ref().map(|(a, b)| format!(" {a} IN {b}"));
        let asof = self
            .closest
            .zip(self.in_operands.as_ref())
            .map(|(closest, (left, right))| format!(" ASOF {left} {} {right}", closest.operator()));
        let condition = condition.unwrap_or_default();
        let in_operands = asof.or(in_operands).unwrap_or_default();
        format!("Join {}{condition}{in_operands}", self.kind.name())
    }
}

/// How a column can be referred to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Qualifier {
    /// The relation that the column belongs to; `None` if it has no name.
    pub relation: Option<String>,
    /// Whether the column is left out of `*` and found only by a qualified name. A USING join hides
    /// columns in this way.
    pub hidden: bool,
}

/// A query plan: a tree of relational operators.
#[derive(Clone, Debug, PartialEq)]
pub enum Plan {
    /// The rows of a source.
    Scan(Scan),
    /// Computes the columns of a new row from each row.
    Project(Box<Plan>, Vec<(Resolved, String)>),
    /// The rows for which the condition is true.
    Filter(Box<Plan>, Resolved),
    /// The input's columns and those of a generator, one row per element. With OUTER, an input row
    /// without elements gives one row, with NULLs.
    Generate(Box<Plan>, Generator),
    /// The input's columns and those of window functions.
    Window(Box<Plan>, Box<Windows>),
    /// Groups rows by keys, and computes aggregates for each group.
    Aggregate(Box<Plan>, Vec<(Resolved, String)>, Vec<AggregateCall>),
    /// All rows of all inputs, which have the same types.
    Union(Vec<Plan>),
    /// Sorts the rows by keys.
    Sort(Box<Plan>, Vec<SortKey>),
    /// Passes on only the first rows, of the given number.
    Limit(Box<Plan>, u64),
    /// Qualifies all columns with a relation name.
    Alias(Box<Plan>, String),
    /// Qualifies the columns from an index onward with a relation name.
    QualifyFrom(Box<Plan>, usize, String),
    /// Qualifies each column by its own qualifier.
    Qualified(Box<Plan>, Vec<Qualifier>),
    /// Drops the first rows, of the given number.
    Offset(Box<Plan>, u64),
    /// Constant rows.
    Values(Schema, Vec<Vec<Value>>),
    /// A join of two inputs.
    Join(Box<Join>),
    /// Declares a column as the event time of the rows.
    Watermark {
        /// The input.
        input: Box<Plan>,
        /// The event time column: a timestamp or a window.
        column: usize,
        /// The delay of the watermark behind the largest event time, in milliseconds.
        delay_ms: i64,
        /// The maximum distance of an event time ahead of the clock, in milliseconds. `None` for
        /// the limit of the session.
        skew_ms: Option<i64>,
    },
    /// Passes on only the first of the rows that are equal in some columns.
    Deduplicate {
        /// The input.
        input: Box<Plan>,
        /// The indices of the compared columns.
        keys: Vec<usize>,
        /// Whether a key is forgotten when the watermark reaches the event time of its first row
        /// plus the delay (`dropDuplicatesWithinWatermark`).
        within: bool,
    },
    /// A user-defined operator with state for each key.
    ArbitraryState {
        /// The input. Its rows have the keys first, then the columns that the processor receives.
        input: Box<Plan>,
        /// The number of key columns.
        keys: usize,
        /// The operator that processes the rows.
        operator: StateOperator,
    },
}

impl Plan {
    /// Renames all columns of the plan.
    pub fn renamed(self, names: Vec<String>) -> Self {
        let columns = self.scope().columns.into_iter().enumerate().map(|(at, column)| {
            let node = Node::Column(at, column.name);
            Resolved { node, data_type: column.data_type, nullable: column.nullable }
        });
        Self::Project(Box::new(self), columns.zip(names).collect())
    }

    /// The direct inputs, from left to right. Sources and constant rows have none.
    pub fn inputs(&self) -> SmallVec<[&Plan; 2]> {
        match self {
            Self::Scan(_) | Self::Values(..) => SmallVec::new(),
            Self::Project(input, _)
            | Self::Filter(input, _)
            | Self::Generate(input, _)
            | Self::Window(input, _)
            | Self::Aggregate(input, ..)
            | Self::Sort(input, _)
            | Self::Limit(input, _)
            | Self::Alias(input, _)
            | Self::QualifyFrom(input, ..)
            | Self::Qualified(input, _)
            | Self::Offset(input, _)
            | Self::Watermark { input, .. }
            | Self::ArbitraryState { input, .. }
            | Self::Deduplicate { input, .. } => smallvec![&**input],
            Self::Union(inputs) => inputs.iter().collect(),
            Self::Join(join) => smallvec![&join.left, &join.right],
        }
    }

    /// The expressions of this operator, without those of its inputs.
    pub fn exprs(&self) -> Box<dyn Iterator<Item = &Resolved> + '_> {
        match self {
            Self::Project(_, exprs) => Box::new(exprs.iter().map(|(expr, _)| expr)),
            Self::Filter(_, condition) => Box::new(iter::once(condition)),
            Self::Generate(_, generator) => Box::new(iter::once(&generator.array)),
            Self::Window(_, windows) => Box::new(windows.exprs().into_iter()),
            Self::Aggregate(_, keys, calls) => {
                let of_calls = calls.iter().flat_map(|call| call.args.iter().chain(&call.filter));
                Box::new(keys.iter().map(|(key, _)| key).chain(of_calls))
            }
            Self::Sort(_, keys) => Box::new(keys.iter().map(|key| &key.expr)),
            Self::Join(join) => {
                let in_operands = join.in_operands.iter().flat_map(|(left, right)| [left, right]);
                Box::new(join.condition.iter().chain(in_operands))
            }
            _ => Box::new(iter::empty()),
        }
    }

    /// The scalar subqueries in the expressions of this operator, each once, without those of its
    /// inputs.
    pub(crate) fn scalar_subqueries(&self) -> Vec<Arc<Plan>> {
        fn collect(expr: &Resolved, found: &mut Vec<Arc<Plan>>) {
            match &expr.node {
                Node::Scalar(plan) if !found.contains(plan) => found.push(plan.clone()),
                _ => expr.children().into_iter().for_each(|child| collect(child, found)),
            }
        }
        let mut found = Vec::new();
        self.exprs().for_each(|expr| collect(expr, &mut found));
        found
    }

    /// A measure of the plan's size: operators, columns and, with less weight, constant rows.
    pub fn size(&self) -> usize {
        let own = match self {
            Self::Scan(scan) => scan.schema.fields.len(),
            Self::Project(_, exprs) => exprs.len(),
            Self::Aggregate(_, keys, calls) => keys.len() + calls.len(),
            Self::Window(_, windows) => windows.calls.len(),
            Self::Values(_, rows) => rows.len() / 16,
            _ => 0,
        };
        1 + own + self.inputs().into_iter().map(Plan::size).sum::<usize>()
    }

    /// Fails if operators are nested too deeply.
    pub fn check_levels(&self) -> PlanResult<()> {
        fn levels(plan: &Plan) -> usize {
            1 + plan.inputs().into_iter().map(levels).max().unwrap_or(0)
        }
        if levels(self) > MAX_OPERATORS {
            let reason = format!("the plan is more than {MAX_OPERATORS} operators deep");
            return Err(too_complex(reason, Place::default()));
        }
        Ok(())
    }

    /// Replaces each direct input by the result of `change`.
    pub fn map_inputs<E>(self, change: &mut dyn FnMut(Plan) -> Result<Plan, E>) -> Result<Plan, E> {
        let mut boxed = |input: Box<Plan>| change(*input).map(Box::new);
        Ok(match self {
            Self::Project(input, exprs) => Self::Project(boxed(input)?, exprs),
            Self::Filter(input, condition) => Self::Filter(boxed(input)?, condition),
            Self::Generate(input, generator) => Self::Generate(boxed(input)?, generator),
            Self::Window(input, windows) => Self::Window(boxed(input)?, windows),
            Self::Aggregate(input, keys, calls) => Self::Aggregate(boxed(input)?, keys, calls),
            Self::Sort(input, keys) => Self::Sort(boxed(input)?, keys),
            Self::Limit(input, most) => Self::Limit(boxed(input)?, most),
            Self::Alias(input, name) => Self::Alias(boxed(input)?, name),
            Self::Watermark { input, column, delay_ms, skew_ms } => {
                Self::Watermark { input: boxed(input)?, column, delay_ms, skew_ms }
            }
            Self::Deduplicate { input, keys, within } => {
                Self::Deduplicate { input: boxed(input)?, keys, within }
            }
            Self::ArbitraryState { input, keys, operator } => {
                Self::ArbitraryState { input: boxed(input)?, keys, operator }
            }
            Self::QualifyFrom(input, from, name) => Self::QualifyFrom(boxed(input)?, from, name),
            Self::Qualified(input, names) => Self::Qualified(boxed(input)?, names),
            Self::Offset(input, rows) => Self::Offset(boxed(input)?, rows),
            Self::Union(inputs) => {
                Self::Union(inputs.into_iter().map(change).collect::<Result<_, E>>()?)
            }
            Self::Join(join) => {
                let (left, right) = (change(join.left)?, change(join.right)?);
                Self::Join(Box::new(Join { left, right, ..*join }))
            }
            leaf @ (Self::Scan(_) | Self::Values(..)) => leaf,
        })
    }

    /// Replaces each expression of this operator by the result of `change`. The inputs are
    /// unchanged.
    pub fn map_exprs<E>(
        self,
        change: &mut dyn FnMut(Resolved) -> Result<Resolved, E>,
    ) -> Result<Plan, E> {
        let mut named = |exprs: Vec<(Resolved, String)>| {
            let one = |(expr, name)| Ok((change(expr)?, name));
            exprs.into_iter().map(one).collect::<Result<Vec<_>, E>>()
        };
        Ok(match self {
            Self::Project(input, exprs) => Self::Project(input, named(exprs)?),
            Self::Filter(input, condition) => Self::Filter(input, change(condition)?),
            Self::Generate(input, generator) => {
                let array = change(generator.array)?;
                Self::Generate(input, Generator { array, ..generator })
            }
            Self::Window(input, windows) => {
                Self::Window(input, Box::new(windows.map_exprs(change)?))
            }
            Self::Aggregate(input, keys, calls) => {
                let keys = named(keys)?;
                let mut changed = Vec::with_capacity(calls.len());
                for mut call in calls {
                    let args = std::mem::take(&mut call.args).into_iter();
                    call.args = args.map(&mut *change).collect::<Result<_, E>>()?;
                    call.filter = call.filter.map(&mut *change).transpose()?;
                    changed.push(call);
                }
                Self::Aggregate(input, keys, changed)
            }
            Self::Sort(input, keys) => {
                let one = |key: SortKey| Ok(SortKey { expr: change(key.expr)?, ..key });
                Self::Sort(input, keys.into_iter().map(one).collect::<Result<_, E>>()?)
            }
            Self::Join(mut join) => {
                join.condition = join.condition.map(&mut *change).transpose()?;
                if let Some((left, right)) = join.in_operands.take() {
                    join.in_operands = Some((change(left)?, change(right)?));
                }
                Self::Join(join)
            }
            other => other,
        })
    }

    /// Fixes the seeds of random functions, so that each evaluation of the plan uses the same
    /// random numbers.
    pub fn with_seeds(self) -> Plan {
        fn seeded(expr: Resolved) -> Resolved {
            match expr.node {
                Node::Scalar(plan) => {
                    let plan = Arc::unwrap_or_clone(plan).with_seeds();
                    Resolved { node: Node::Scalar(Arc::new(plan)), ..expr }
                }
                _ => expr.map_children(&mut seeded),
            }
        }
        let plan = self.map_inputs(&mut |input| Ok::<_, Infallible>(input.with_seeds()));
        let made = plan.and_then(|plan| plan.map_exprs(&mut |expr| Ok(with_seeds(seeded(expr)))));
        match made {
            Ok(plan) => plan,
        }
    }

    /// Adds the column [`METADATA`] to a file source, also below aliases and filters. `None` for
    /// any other plan.
    pub fn with_metadata(&self) -> Option<Plan> {
        let boxed = |input: &Plan| input.with_metadata().map(Box::new);
        Some(match self {
            Self::Scan(scan) if scan.is_file_source => {
                let mut scan = scan.clone();
                if scan.schema.fields.last() != Some(&metadata_field()) {
                    scan.schema.fields.push(metadata_field());
                }
                Self::Scan(scan)
            }
            Self::Alias(input, name) => Self::Alias(boxed(input)?, name.clone()),
            Self::Filter(input, condition) => Self::Filter(boxed(input)?, condition.clone()),
            _ => return None,
        })
    }

    /// Whether the plan reads a stream.
    pub fn is_streaming(&self) -> bool {
        match self {
            Self::Scan(scan) => scan.streaming,
            _ => self.inputs().into_iter().any(Plan::is_streaming),
        }
    }

    /// Makes every source a stream, except those in the right inputs of joins.
    pub fn into_stream(self) -> Plan {
        let always = |made: Result<Plan, std::convert::Infallible>| match made {
            Ok(plan) => plan,
        };
        match self {
            Self::Scan(scan) => Self::Scan(Scan { streaming: true, ..scan }),
            // The right input stays as it is: a stream is joined with a table.
            Self::Join(mut join) => {
                join.left = join.left.into_stream();
                Self::Join(join)
            }
            other => always(other.map_inputs(&mut |input| Ok(input.into_stream()))),
        }
    }

    /// All scans, from left to right. A source that the plan reads several times has one scan per
    /// use; [`sources`](crate::table::plan::shared_sources::sources) has each shared source once.
    pub fn scans(&self) -> Vec<&Scan> {
        fn collect<'p>(plan: &'p Plan, scans: &mut Vec<&'p Scan>) {
            match plan {
                Plan::Scan(scan) => scans.push(scan),
                _ => plan.inputs().into_iter().for_each(|input| collect(input, scans)),
            }
        }
        let mut scans = Vec::new();
        collect(self, &mut scans);
        scans
    }

    /// The columns that an expression over this plan can refer to.
    pub fn scope(&self) -> Scope {
        // The caller's thread may have a small stack, and the recursion is as deep as the plan.
        stacker::maybe_grow(LEVEL_STACK, MORE_STACK, || self.columns())
    }

    fn columns(&self) -> Scope {
        let columns = match self {
            Self::Scan(scan) => {
                let mut columns: Vec<_> = scan.schema.fields.iter().map(column_of).collect();
                for column in &mut columns {
                    column.qualifier = Some(scan.name.clone());
                }
                columns
            }
            Self::Values(schema, _) => schema.fields.iter().map(column_of).collect(),
            Self::Project(input, exprs) => computed_columns(input, exprs),
            Self::Watermark { input, column, delay_ms, .. } => {
                let mut columns = input.scope().columns;
                columns[*column].tag.delay_ms = Some(*delay_ms);
                columns
            }
            Self::Deduplicate { input, .. }
            | Self::Filter(input, _)
            | Self::Sort(input, _)
            | Self::Limit(input, _)
            | Self::Offset(input, _) => input.scope().columns,
            Self::Generate(input, generator) => generated_columns(input, generator),
            Self::Window(input, windows) => {
                let mut columns = input.scope().columns;
                for (at, call) in windows.calls.iter().enumerate() {
                    let name = windows.column_name(at);
                    let column = unqualified(&name, &call.data_type, call.nullable);
                    let qualifier = Some(Windows::RELATION.to_string());
                    columns.push(ScopeColumn { qualifier, hidden: true, ..column });
                }
                columns
            }
            Self::Aggregate(input, keys, calls) => {
                let call = |c: &AggregateCall| {
                    unqualified(&c.name, &c.data_type, c.function.is_nullable())
                };
                computed_columns(input, keys).into_iter().chain(calls.iter().map(call)).collect()
            }
            Self::Union(inputs) => union_columns(inputs),
            Self::ArbitraryState { input, operator, .. } => emitted_columns(input, operator),
            Self::Join(join) => join_columns(join),
            Self::QualifyFrom(input, from, name) => {
                let mut columns = input.scope().columns;
                for column in columns.iter_mut().skip(*from) {
                    column.qualifier = Some(name.clone());
                }
                columns
            }
            Self::Qualified(input, names) => {
                let mut columns = input.scope().columns;
                for (column, name) in columns.iter_mut().zip(names) {
                    (column.qualifier, column.hidden) = (name.relation.clone(), name.hidden);
                }
                columns
            }
            Self::Alias(input, name) => {
                let mut columns = input.scope().columns;
                for column in &mut columns {
                    column.qualifier = Some(name.clone());
                }
                columns
            }
        };
        Scope::new(columns)
    }

    /// The output columns.
    pub fn schema(&self) -> Schema {
        let columns = self.scope().columns.into_iter();
        Schema::new(columns.map(|c| Field::new(c.name, c.data_type, c.nullable)).collect())
    }

    /// The number of output columns.
    pub fn width(&self) -> usize {
        match self {
            Self::Scan(scan) => scan.schema.fields.len(),
            Self::Values(schema, _) => schema.fields.len(),
            Self::Project(_, exprs) => exprs.len(),
            Self::Aggregate(_, keys, calls) => keys.len() + calls.len(),
            Self::ArbitraryState { operator, .. } => operator.output.schema.fields.len(),
            Self::Union(inputs) => inputs.first().map_or(0, Plan::width),
            Self::Generate(input, generator) => input.width() + generator.columns().len(),
            Self::Window(input, windows) => input.width() + windows.calls.len(),
            Self::Join(join) => {
                join.left.width()
                    + match join.kind {
                        JoinKind::LeftSemi | JoinKind::LeftAnti => 0,
                        JoinKind::Exists | JoinKind::In => 1,
                        _ => join.right.width(),
                    }
            }
            Self::Filter(input, _)
            | Self::Sort(input, _)
            | Self::Limit(input, _)
            | Self::Alias(input, _)
            | Self::QualifyFrom(input, ..)
            | Self::Qualified(input, _)
            | Self::Offset(input, _)
            | Self::Watermark { input, .. }
            | Self::Deduplicate { input, .. } => input.width(),
        }
    }

    /// Whether the plan contains an aggregation.
    pub fn has_aggregate(&self) -> bool {
        matches!(self, Self::Aggregate(..)) || self.inputs().iter().any(|p| p.has_aggregate())
    }

    /// Formats the plan as a tree, for `explain`.
    pub fn tree(&self) -> String {
        let mut out = String::new();
        self.write_tree(self, &mut out, 0);
        out
    }

    fn write_tree(&self, whole: &Plan, out: &mut String, depth: usize) {
        let named = |exprs: &[(Resolved, String)]| {
            let one = |(e, name): &(Resolved, String)| {
                let text = e.to_string();
                if text == *name { text } else { format!("{text} AS {name}") }
            };
            exprs.iter().map(one).collect::<Vec<_>>().join(", ")
        };
        let line = match self {
            Self::Scan(scan) => {
                let columns: Vec<_> = scan.schema.fields.iter().map(|f| f.name.as_str()).collect();
                let what = if scan.streaming { "Scan" } else { "Table" };
                let columns = columns.join(", ");
                let once = match readers(whole, scan) {
                    0 | 1 => String::new(),
                    readers => format!(", read once for {readers} branches"),
                };
                format!("{what} {} USING {} [{columns}]{once}", scan.name, scan.format)
            }
            Self::Project(_, exprs) => format!("Project [{}]", named(exprs)),
            Self::Filter(_, condition) => format!("Filter {condition}"),
            Self::Generate(_, g) => {
                let outer = if g.outer && !g.name.ends_with("_outer") { " OUTER" } else { "" };
                format!("Generate{outer} {}({}) AS {}", g.name, g.array, g.names.join(", "))
            }
            Self::Aggregate(_, keys, calls) => {
                let calls: Vec<_> = calls.iter().map(|c| c.name.as_str()).collect();
                format!("Aggregate keys [{}], functions [{}]", named(keys), calls.join(", "))
            }
            Self::Window(_, windows) => {
                let calls: Vec<_> = windows.calls.iter().map(|call| call.name.as_str()).collect();
                format!("Window [{}]", calls.join(", "))
            }
            Self::ArbitraryState { operator, .. } => format!("State {operator:?}"),
            Self::Union(_) => "Union".to_string(),
            Self::Sort(_, keys) => {
                let one =
                    |k: &SortKey| format!("{}{}", k.expr, if k.descending { " DESC" } else { "" });
                format!("Sort [{}]", keys.iter().map(one).collect::<Vec<_>>().join(", "))
            }
            Self::Limit(_, n) => format!("Limit {n}"),
            Self::Alias(_, name) | Self::QualifyFrom(_, _, name) => format!("Alias {name}"),
            Self::Qualified(_, names) => {
                let one = |name: &Qualifier| name.relation.clone().unwrap_or_default();
                let mut names: Vec<_> = names.iter().map(one).collect();
                names.dedup();
                format!("Alias {}", names.join(", "))
            }
            Self::Offset(_, n) => format!("Offset {n}"),
            Self::Values(_, rows) => format!("Values, {} rows", rows.len()),
            Self::Watermark { input, column, delay_ms, skew_ms } => {
                let name = input.scope().columns[*column].name.clone();
                let ahead = match skew_ms {
                    Some(skew_ms) => format!(", at most {skew_ms} ms ahead of the clock"),
                    None => String::new(),
                };
                format!("Watermark {name}, {delay_ms} ms behind{ahead}")
            }
            Self::Deduplicate { input, keys, within } => {
                let columns = input.scope().columns;
                let names: Vec<_> = keys.iter().map(|i| columns[*i].name.clone()).collect();
                let within = if *within { " within the watermark" } else { "" };
                format!("Deduplicate [{}]{within}", names.join(", "))
            }
            Self::Join(join) => join.line(),
        };
        let lead =
            if depth == 0 { String::new() } else { format!("{}+- ", "   ".repeat(depth - 1)) };
        // Writing to a string does not fail.
        let _ = writeln!(out, "{lead}{line}");
        for subquery in self.scalar_subqueries() {
            let _ = writeln!(out, "{}+- Scalar subquery", "   ".repeat(depth));
            subquery.write_tree(&subquery, out, depth + 2);
        }
        for input in self.inputs() {
            input.write_tree(whole, out, depth + 1);
        }
    }
}
