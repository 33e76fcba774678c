//! DataFrame: a query built by method calls, with Spark's names.
//!
//! ```
//! use millstream::session::Session;
//! use millstream::table::expr::{call, col};
//!
//! let session = Session::new();
//! let lines = session.read_stream().format("rate").load()?;
//! let counts = lines
//!     .filter(&col("value").gt(10))?
//!     .group_by([col("value").rem(7).alias("bucket")])
//!     .agg([call("count", [col("value")]).alias("n")])?;
//! assert_eq!(counts.schema().tree(), "root\n |-- bucket: long (nullable = true)\n |-- n: long (nullable = false)\n");
//! # Ok::<(), millstream::table::error::PlanError>(())
//! ```

use super::{BatchWriter, GroupedData, QueryError, Session, StreamWriter};
use crate::connect::console::only_showing;
use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::resolve::resolve;
use crate::table::expr::type_rules::Rules;
use crate::table::expr::{Expr, SortOrder, col, deep};
use crate::table::plan::Plan;
use crate::table::plan::analyzer;
use crate::table::plan::asof_join::{self, On};
use crate::table::plan::input_file::{calls_input_file, with_input_file};
use crate::table::plan::join;
use crate::table::plan::join::JoinType;
use crate::table::plan::limits::on_large_stack;
use crate::table::plan::order_dependence::OrderDependence;
use crate::table::plan::time_window;
use crate::table::types::Schema;
use crate::table::value::Value;
use std::sync::Arc;

fn named(name: &str) -> Expr {
    Expr::Column { parts: vec![name.to_string()], place: Default::default() }
}

/// A query that has not been started. Methods return new DataFrames.
#[derive(Clone)]
pub struct DataFrame {
    pub(crate) session: Session,
    /// The plan is shared, because DataFrames are cloned often and plans may be large.
    pub(crate) plan: Arc<Plan>,
}

impl DataFrame {
    pub(crate) fn new(session: Session, plan: impl Into<Arc<Plan>>) -> Self {
        Self { session, plan: plan.into() }
    }

    /// The plan, for benchmarks of parts of the engine.
    #[doc(hidden)]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// A copy of the plan, on which another plan is built.
    pub(super) fn owned(&self) -> Plan {
        Plan::clone(&self.plan)
    }

    pub(super) fn with(&self, plan: Plan) -> Self {
        Self::new(self.session.clone(), plan)
    }

    /// Runs an analysis under the type rules of the session's settings.
    pub(super) fn analyse<T>(&self, analysis: impl FnOnce() -> PlanResult<T>) -> PlanResult<T> {
        let semantics = self.session.lock().settings.semantics;
        on_large_stack(|| {
            self.plan.check_levels()?;
            Rules::of(semantics).apply(analysis)
        })
    }

    /// Selects columns or expressions. With an aggregate among them, the result is one row over the
    /// whole table.
    pub fn select(&self, exprs: impl IntoIterator<Item = Expr>) -> PlanResult<Self> {
        let exprs: Vec<_> = exprs.into_iter().collect();
        deep::check(&exprs)?;
        if exprs.iter().any(analyzer::has_aggregate) {
            return self.group_by([]).agg(exprs);
        }
        let plan = self.analyse(|| analyzer::project(self.owned(), &exprs))?;
        Ok(self.with(plan))
    }

    /// Keeps the rows for which a condition is true.
    pub fn filter(&self, condition: &Expr) -> PlanResult<Self> {
        deep::check([condition])?;
        let of_file = match calls_input_file(condition) {
            true => with_input_file(&self.plan)?,
            false => None,
        };
        let plan = if let Some(with) = of_file {
            self.analyse(|| analyzer::filter(with, condition))?
        } else {
            let plain = self.analyse(|| analyzer::filter(self.owned(), condition));
            let (Err(error), Some(with)) = (&plain, self.plan.with_metadata()) else {
                return plain.map(|plan| self.with(plan));
            };
            let Ok(plan) = self.analyse(|| analyzer::filter(with, condition)) else {
                return Err(error.clone());
            };
            plan
        };
        let columns: Vec<Expr> = self.columns().iter().map(|name| named(name)).collect();
        Ok(self.with(analyzer::project(plan, &columns)?))
    }

    /// Each column with its name. The expressions refer to columns by their index, because several
    /// columns may have one name, as after a join.
    fn named_columns(&self) -> impl Iterator<Item = (String, Expr)> {
        let columns = self.plan.scope().columns.into_iter().enumerate();
        columns.map(|(at, column)| {
            let expr = Expr::Position(at, vec![column.name.clone()]);
            (column.name, expr)
        })
    }

    /// Adds a column, or replaces all columns with that name, in any case.
    pub fn with_column(&self, name: &str, expr: Expr) -> PlanResult<Self> {
        self.with_columns([(name, expr)])
    }

    /// Adds or replaces several columns. All expressions refer to the columns of this table. Fails
    /// with `COLUMN_ALREADY_EXISTS` if a name is given twice, in any case, as in Spark.
    pub fn with_columns<'n>(
        &self,
        columns: impl IntoIterator<Item = (&'n str, Expr)>,
    ) -> PlanResult<Self> {
        let (names, mut exprs): (Vec<String>, Vec<Expr>) = self.named_columns().unzip();
        let mut given: Vec<&str> = Vec::new();
        for (name, expr) in columns {
            if given.iter().any(|other| other.eq_ignore_ascii_case(name)) {
                return Err(PlanError::new(
                    "COLUMN_ALREADY_EXISTS",
                    format!("with_columns: the column '{name}' is given twice"),
                    "Give each column once",
                ));
            }
            given.push(name);
            let made = expr.alias(name);
            let mut is_new = true;
            for (own, old) in names.iter().zip(&mut exprs) {
                if own.eq_ignore_ascii_case(name) {
                    (*old, is_new) = (made.clone(), false);
                }
            }
            if is_new {
                exprs.push(made);
            }
        }
        self.select(exprs)
    }

    /// Renames all columns with a name. If there is none, the table is unchanged.
    pub fn with_column_renamed(&self, from: &str, to: &str) -> PlanResult<Self> {
        self.select(self.named_columns().map(|(name, column)| {
            if name.eq_ignore_ascii_case(from) { column.alias(to) } else { column }
        }))
    }

    /// Removes columns. Unknown names are ignored.
    pub fn drop<'n>(&self, names: impl IntoIterator<Item = &'n str>) -> PlanResult<Self> {
        let dropped: Vec<&str> = names.into_iter().collect();
        let kept = |name: &str| !dropped.iter().any(|d| d.eq_ignore_ascii_case(name));
        self.select(self.named_columns().filter(|(name, _)| kept(name)).map(|(_, column)| column))
    }

    /// Selects columns given as SQL text, such as `upper(word) AS w`.
    pub fn select_expr<'s>(&self, exprs: impl IntoIterator<Item = &'s str>) -> PlanResult<Self> {
        let exprs = exprs.into_iter().map(|sql| self.session.expr(sql));
        self.select(exprs.collect::<PlanResult<Vec<_>>>()?)
    }

    /// Keeps the rows for which a condition in SQL is true.
    pub fn filter_expr(&self, condition: &str) -> PlanResult<Self> {
        self.filter(&self.session.expr(condition)?)
    }

    /// Joins two tables on a condition. `how` is `inner`, `left`, `right`, `full`, `left_semi` or
    /// `left_anti`. A join of two streams needs an equality condition. An outer, semi or anti join
    /// of two streams also needs watermarks. If both tables have columns of the same name, qualify
    /// them with [`alias`](Self::alias).
    pub fn join(&self, other: &Self, on: &Expr, how: &str) -> PlanResult<Self> {
        let written = JoinType::parse(how)?;
        deep::check([on])?;
        let scope = join::both(&self.plan.scope(), &other.plan.scope());
        let condition = self.analyse(|| analyzer::boolean(resolve(on, &scope)?, on, "ON"))?;
        let (left, right) = (self.owned(), other.owned());
        Ok(self.with(join::join(left, right, written, Some(condition))?))
    }

    /// Joins each row with the closest row of the other table (`ASOF JOIN`). `closest` compares a
    /// value of each side, such as `col("l.time").ge(col("r.time"))`; `on` is an additional join
    /// condition. `how` is `inner` or `left`. The setting `spark.sql.join.asofJoin.enabled` must be
    /// on.
    pub fn asof_join(
        &self,
        other: &Self,
        closest: &Expr,
        on: Option<&Expr>,
        how: &str,
    ) -> PlanResult<Self> {
        self.asof_joined(other, closest, &on.map_or(On::All, On::Condition), how)
    }

    /// Like [`asof_join`](Self::asof_join), on equality of the named columns, which appear once in
    /// the result. Fails if a side lacks one of them.
    pub fn asof_join_using<'n>(
        &self,
        other: &Self,
        closest: &Expr,
        names: impl IntoIterator<Item = &'n str>,
        how: &str,
    ) -> PlanResult<Self> {
        let names: Vec<String> = names.into_iter().map(str::to_string).collect();
        let joined = self.asof_joined(other, closest, &On::Columns(&names), how)?;
        let plan = join::shown(joined.owned());
        Ok(joined.with(plan))
    }

    fn asof_joined(
        &self,
        other: &Self,
        closest: &Expr,
        on: &On<'_>,
        how: &str,
    ) -> PlanResult<Self> {
        if !self.session.lock().settings.asof_join {
            return Err(asof_join::not_enabled());
        }
        deep::check([closest])?;
        let is_left = match JoinType::parse(how)? {
            JoinType::Inner => false,
            JoinType::LeftOuter => true,
            _ => {
                return Err(PlanError::new(
                    "UNSUPPORTED_JOIN_TYPE",
                    format!("an ASOF join is inner or left, not '{how}'"),
                    "Use inner or left",
                ));
            }
        };
        let condition = asof_join::MatchCondition::of(closest)?;
        let (left, right) = (self.owned(), other.owned());
        let plan = self.analyse(|| asof_join::asof_join(left, right, is_left, on, &condition))?;
        Ok(self.with(plan))
    }

    /// Joins on equality of the named columns, which appear once in the result. `how` is Spark's
    /// name of the kind of join. Fails for another name, and if a column is missing on a side.
    pub fn join_using<'n>(
        &self,
        other: &Self,
        names: impl IntoIterator<Item = &'n str>,
        how: &str,
    ) -> PlanResult<Self> {
        let names: Vec<String> = names.into_iter().map(str::to_string).collect();
        let (left, right) = (self.owned(), other.owned());
        let how = JoinType::parse(how)?;
        let plan = self.analyse(|| join::join_using(left, right, how, &names))?;
        Ok(self.with(join::shown(plan)))
    }

    /// Joins every row of this table with every row of the other.
    pub fn cross_join(&self, other: &Self) -> PlanResult<Self> {
        let (left, right) = (self.owned(), other.owned());
        Ok(self.with(join::join(left, right, JoinType::Inner, None)?))
    }

    /// Appends the rows of another table, whose columns are matched by name. Fails if one of the
    /// tables has a column that the other does not have.
    pub fn union_by_name(&self, other: &Self) -> PlanResult<Self> {
        let own = self.columns();
        let is_own = |name: &String| own.iter().any(|own| own.eq_ignore_ascii_case(name));
        // Further columns follow, so that the union is rejected.
        let more = other.columns().into_iter().filter(|name| !is_own(name));
        let names = own.iter().cloned().chain(more);
        self.union(&other.select(names.map(|name| named(&name)))?)
    }

    /// The column names.
    pub fn columns(&self) -> Vec<String> {
        self.plan.scope().columns.into_iter().map(|column| column.name).collect()
    }

    /// Whether the query reads a stream.
    pub fn is_streaming(&self) -> bool {
        self.plan.is_streaming()
    }

    /// Runs a query over tables and returns its number of rows.
    pub fn count(&self) -> Result<usize, QueryError> {
        self.collect().map(|rows| rows.len())
    }

    /// Appends the rows of another table, whose columns are matched by position and cast to common
    /// types. Fails if the numbers of columns differ, or if two columns have no common type.
    pub fn union(&self, other: &Self) -> PlanResult<Self> {
        let union = || analyzer::union(self.owned(), other.owned());
        Ok(self.with(self.analyse(union)?))
    }

    /// Groups by expressions; see [`GroupedData::agg`].
    pub fn group_by(&self, keys: impl IntoIterator<Item = Expr>) -> GroupedData {
        GroupedData { of: self.clone(), keys: keys.into_iter().collect(), sets: None }
    }

    /// Groups by all keys, by all but the last one, and so on down to no keys (ROLLUP).
    pub fn rollup(&self, keys: impl IntoIterator<Item = Expr>) -> GroupedData {
        let keys: Vec<Expr> = keys.into_iter().collect();
        let sets = (0..=keys.len()).rev().map(|n| (0..n).collect()).collect();
        GroupedData { of: self.clone(), keys, sets: Some(sets) }
    }

    /// Groups by every subset of the keys (CUBE). There may be at most 8 keys.
    pub fn cube(&self, keys: impl IntoIterator<Item = Expr>) -> PlanResult<GroupedData> {
        let keys: Vec<Expr> = keys.into_iter().collect();
        let n = keys.len();
        if n > 8 {
            return Err(PlanError::new(
                "GROUPING_SIZE_LIMIT_EXCEEDED",
                format!("a cube of {n} keys has {} sets", 1u128 << n.min(100)),
                "Use at most 8 keys: each row belongs to a group of each set",
            ));
        }
        let chosen = |bits: usize| (0..n).filter(|i| bits >> (n - 1 - i) & 1 == 0).collect();
        let sets = Some((0..1usize << n).map(chosen).collect());
        Ok(GroupedData { of: self.clone(), keys, sets })
    }

    /// Sorts the rows. Only for tables, and for aggregations in output mode complete; other streams
    /// are refused when the query starts. Keys that contain a map are an error. See [`Expr::desc`].
    pub fn order_by<K: Into<SortOrder>>(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> PlanResult<Self> {
        let key = |key: SortOrder| (key.expr, key.descending, key.nulls_first);
        let keys: Vec<_> = keys.into_iter().map(|k| key(k.into())).collect();
        deep::check(keys.iter().map(|(expr, ..)| expr))?;
        Ok(self.with(self.analyse(|| analyzer::sort(self.owned(), &keys))?))
    }

    /// Keeps the first `n` rows. A stream with a limit is refused in output mode update when the
    /// query starts.
    pub fn limit(&self, n: u64) -> Self {
        self.with(Plan::Limit(Box::new(self.owned()), n))
    }

    /// Gives the table a name, with which its columns can be qualified.
    pub fn alias(&self, name: &str) -> Self {
        self.with(Plan::Alias(Box::new(self.owned()), name.to_string()))
    }

    /// The output columns.
    pub fn schema(&self) -> Schema {
        self.plan.schema()
    }

    /// Prints the schema as a tree.
    pub fn print_schema(&self) {
        println!("{}", self.schema().tree());
    }

    /// Formats the schema and the logical plan.
    pub fn explain(&self) -> String {
        format!("== Schema ==\n{}\n== Logical Plan ==\n{}", self.schema().tree(), self.plan.tree())
    }

    /// How the result depends on the order of the input rows.
    pub fn order_dependence(&self) -> OrderDependence {
        OrderDependence::of(&self.plan)
    }

    /// Registers this query as a view, so that SQL can read it. It takes precedence over a table of
    /// the same name.
    pub fn create_temp_view(&self, name: &str) {
        self.session.register(name, self.plan.clone());
    }

    /// Runs a query over bounded tables, and returns all rows. Files are read with their current
    /// content. A query over a stream is an error.
    pub fn collect(&self) -> Result<Vec<Vec<Value>>, QueryError> {
        self.write_stream().collect()
    }

    /// Runs the query to its end and formats its first rows like Spark's `show`. `truncate` shortens
    /// long values. An error of any row is an error, also of one that is not shown.
    pub fn show(&self, rows: usize, truncate: bool) -> Result<String, QueryError> {
        let mut all = self.collect()?;
        let more = all.len() > rows;
        all.truncate(rows);
        let mut text = self.table_of(&all, truncate);
        if more {
            text.push_str(&only_showing(rows));
            text.push('\n');
        }
        Ok(text)
    }

    /// Declares a column as the event time. The watermark is the largest event time minus a delay
    /// such as `10 minutes`. Rows at or before the watermark may be dropped as late. Has no effect
    /// on tables.
    pub fn with_watermark(&self, column: &str, delay: &str) -> PlanResult<Self> {
        Ok(self.with(time_window::with_watermark(self.owned(), &col(column), delay)?))
    }

    /// Limits how far ahead of the clock event times may be, such as `1 hour`. Call it on the
    /// result of [`with_watermark`](Self::with_watermark). A row beyond the limit is dropped and
    /// does not advance the watermark. It is counted and passed to
    /// [`on_late`](StreamWriter::on_late).
    pub fn with_max_future_skew(&self, skew: &str) -> PlanResult<Self> {
        Ok(self.with(time_window::with_max_future_skew(self.owned(), skew)?))
    }

    /// Keeps the first of the rows that are equal in the given columns, or in all columns if none
    /// are given. If an event time is among the columns, a key is removed when the watermark has
    /// reached the key's time. Otherwise keys are never removed.
    pub fn drop_duplicates<'n>(
        &self,
        columns: impl IntoIterator<Item = &'n str>,
    ) -> PlanResult<Self> {
        let names: Vec<&str> = columns.into_iter().collect();
        Ok(self.with(time_window::deduplicate(self.owned(), &names, false)?))
    }

    /// Like [`drop_duplicates`](Self::drop_duplicates), but a key is removed when the watermark has
    /// reached the time of its first row plus the watermark's delay.
    pub fn drop_duplicates_within_watermark<'n>(
        &self,
        columns: impl IntoIterator<Item = &'n str>,
    ) -> PlanResult<Self> {
        let names: Vec<&str> = columns.into_iter().collect();
        Ok(self.with(time_window::deduplicate(self.owned(), &names, true)?))
    }

    /// Keeps distinct rows: [`drop_duplicates`](Self::drop_duplicates) by all columns.
    pub fn distinct(&self) -> PlanResult<Self> {
        self.drop_duplicates([])
    }

    /// Starts the configuration of a sink for the rows of a query over bounded tables.
    pub fn write(&self) -> BatchWriter {
        BatchWriter::new(self.clone())
    }

    /// Starts the configuration of a sink and a query.
    pub fn write_stream(&self) -> StreamWriter {
        StreamWriter::new(self.clone())
    }
}
