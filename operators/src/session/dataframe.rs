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

use super::{QueryError, Session, StreamWriter};
use crate::connect::console;
use crate::table::analyze::{self, Grouping};
use crate::table::error::PlanResult;
use crate::table::expr::{Expr, col};
use crate::table::plan::Plan;
use crate::table::types::Schema;
use crate::table::value::Value;

/// A query over unbounded tables that has not been started.
#[derive(Clone)]
pub struct DataFrame {
    pub(crate) session: Session,
    pub(crate) plan: Plan,
}

impl DataFrame {
    pub(crate) fn new(session: Session, plan: Plan) -> Self {
        Self { session, plan }
    }

    fn with(&self, plan: Plan) -> Self {
        Self::new(self.session.clone(), plan)
    }

    /// These columns.
    pub fn select(&self, exprs: impl IntoIterator<Item = Expr>) -> PlanResult<Self> {
        let exprs: Vec<_> = exprs.into_iter().collect();
        if exprs.iter().any(analyze::has_aggregate) {
            return self.group_by([]).agg(exprs);
        }
        Ok(self.with(analyze::project(self.plan.clone(), &exprs)?))
    }

    /// The rows for which the condition is true.
    pub fn filter(&self, condition: &Expr) -> PlanResult<Self> {
        Ok(self.with(analyze::filter(self.plan.clone(), condition)?))
    }

    /// All columns and one more, or one replaced.
    pub fn with_column(&self, name: &str, expr: Expr) -> PlanResult<Self> {
        let named = expr.alias(name);
        let mut exprs = Vec::new();
        let mut replaced = false;
        for column in self.plan.scope().columns {
            if column.name.eq_ignore_ascii_case(name) {
                replaced = true;
                exprs.push(named.clone());
            } else {
                exprs.push(Expr::Column { parts: vec![column.name], place: Default::default() });
            }
        }
        if !replaced {
            exprs.push(named);
        }
        self.select(exprs)
    }

    /// All rows of both.
    pub fn union(&self, other: &Self) -> PlanResult<Self> {
        Ok(self.with(analyze::union(self.plan.clone(), other.plan.clone())?))
    }

    /// Groups by expressions; see [`GroupedData::agg`].
    pub fn group_by(&self, keys: impl IntoIterator<Item = Expr>) -> GroupedData {
        GroupedData { of: self.clone(), keys: keys.into_iter().collect() }
    }

    /// Sorted by columns, smallest first; for aggregations in output mode complete.
    pub fn order_by(&self, keys: impl IntoIterator<Item = Expr>) -> PlanResult<Self> {
        let keys: Vec<_> = keys.into_iter().map(|key| (key, false, None)).collect();
        Ok(self.with(analyze::sort(self.plan.clone(), &keys)?))
    }

    /// The first rows.
    pub fn limit(&self, n: u64) -> Self {
        self.with(Plan::Limit(Box::new(self.plan.clone()), n))
    }

    /// The same under a name, to qualify columns with.
    pub fn alias(&self, name: &str) -> Self {
        self.with(Plan::Alias(Box::new(self.plan.clone()), name.to_string()))
    }

    /// The output columns.
    pub fn schema(&self) -> Schema {
        self.plan.schema()
    }

    /// Prints the schema as a tree.
    pub fn print_schema(&self) {
        println!("{}", self.schema().tree());
    }

    /// The schema and the logical plan as text.
    pub fn explain(&self) -> String {
        format!("== Schema ==\n{}\n== Logical Plan ==\n{}", self.schema().tree(), self.plan.tree())
    }

    /// Names this query, so that SQL can read it.
    pub fn create_temp_view(&self, name: &str) {
        self.session.register(name, self.plan.clone());
    }

    /// The whole result of a query over bounded tables: files as they are now, and constants.
    /// One over a stream is refused.
    pub fn collect(&self) -> Result<Vec<Vec<Value>>, QueryError> {
        self.write_stream().collect()
    }

    /// The first rows of the whole result as a table, as Spark's `show` prints it.
    pub fn show(&self, rows: usize, truncate: bool) -> Result<String, QueryError> {
        let mut all = self.collect()?;
        let more = all.len() > rows;
        all.truncate(rows);
        let zone = self.session.lock().settings.semantics.zone;
        let mut text = console::table(&self.schema(), &all, truncate, zone);
        if more {
            let noun = if rows == 1 { "row" } else { "rows" };
            text.push_str(&format!("only showing top {rows} {noun}\n"));
        }
        Ok(text)
    }

    /// Each row once.
    pub fn distinct(&self) -> Self {
        self.with(analyze::distinct(self.plan.clone()))
    }

    /// Where the result goes, and how.
    pub fn write_stream(&self) -> StreamWriter {
        StreamWriter::new(self.clone())
    }
}

/// Grouped rows, to be aggregated.
pub struct GroupedData {
    of: DataFrame,
    keys: Vec<Expr>,
}

impl GroupedData {
    /// The keys and these aggregates.
    pub fn agg(&self, aggregates: impl IntoIterator<Item = Expr>) -> PlanResult<DataFrame> {
        let aggregates: Vec<_> = aggregates.into_iter().collect();
        let select: Vec<Expr> = self.keys.iter().cloned().chain(aggregates).collect();
        let grouping = Grouping::new(self.of.plan.clone(), &self.keys, &select)?;
        Ok(self.of.with(grouping.finish(&select, None)?))
    }

    /// The keys and the number of rows of each, as `count`.
    pub fn count(&self) -> PlanResult<DataFrame> {
        self.agg([crate::table::expr::call("count", [Expr::Star(None)]).alias("count")])
    }

    /// The keys and the sum of a column.
    pub fn sum(&self, column: &str) -> PlanResult<DataFrame> {
        self.agg([crate::table::expr::call("sum", [col(column)])])
    }
}
