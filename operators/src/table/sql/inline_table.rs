//! Plans VALUES. Its values are constants that are evaluated while it is planned, except those that
//! read the clock, such as `now()`: a projection evaluates them when the query runs. So a view over
//! VALUES has the time of each query that reads it.

use super::expr::convert_with;
use super::query::plain;
use super::subquery::constants;
use super::{Catalog, refused};
use crate::table::error::{Place, PlanError, PlanResult};
use crate::table::expr::coercion::{unify_as, widest_without_text};
use crate::table::expr::compile::{Semantics, evaluate, fold};
use crate::table::expr::resolve::{Scope, resolve};
use crate::table::expr::type_rules::Rules;
use crate::table::expr::{Expr, Node, Resolved, functions};
use crate::table::plan::Plan;
use crate::table::types::{DataType, Field, Schema};
use crate::table::value::Value;
use sqlparser::ast;

/// Evaluates an expression of VALUES. Fails if the expression is not constant or its evaluation
/// fails.
fn constant_value(expr: Resolved, semantics: Semantics) -> PlanResult<Value> {
    let foldable = expr.is_foldable();
    let folded = fold(expr, semantics);
    if let Node::Literal(value) = folded.node {
        return Ok(value);
    }
    let kind = |kind: &str, reason: &str, fix: &str| {
        let condition = format!("INVALID_INLINE_TABLE.{kind}");
        PlanError::new(condition, format!("`VALUES` holds {reason}"), fix)
    };
    if !foldable {
        let reason = "an expression that is not a constant";
        return Err(kind("CANNOT_EVALUATE_EXPRESSION_IN_INLINE_TABLE", reason, ""));
    }
    evaluate(&folded, semantics).map_err(|error| {
        let reason = format!("an expression that fails: {}: {}", error.condition, error.reason);
        kind("FAILED_SQL_EXPRESSION_EVALUATION", &reason, error.fix)
    })
}

/// The columns of a row in VALUES that is written as a single value: `(struct(a, b))` and `((a,
/// b))` both mean the row `(a, b)`.
fn fields_of(written: &ast::Expr, mut converted: Expr) -> Vec<Expr> {
    let mut written = written;
    while let ast::Expr::Nested(inner) = written {
        written = inner;
    }
    let is_row = match written {
        ast::Expr::Tuple(_) | ast::Expr::Struct { .. } => true,
        ast::Expr::Function(function) => plain(&function.name).eq_ignore_ascii_case("struct"),
        _ => false,
    };
    match &mut converted {
        Expr::Call { name, args, .. } if is_row && name == "struct" => std::mem::take(args),
        // The arguments of `named_struct` alternate between names and values.
        Expr::Call { name, args, .. } if is_row && name == "named_struct" => {
            std::mem::take(args).into_iter().skip(1).step_by(2).collect()
        }
        _ => vec![converted],
    }
}

/// The distinct expressions of a column of VALUES that read the clock.
#[derive(Default)]
struct ClockColumn {
    exprs: Vec<Resolved>,
    /// For each row, the number of its expression, from 1 on; 0 for a row with a constant.
    numbers: Vec<usize>,
}

impl ClockColumn {
    /// The column as an expression over its constants, in the column `at`, and `numbers`, in the
    /// column `number_at`.
    fn over(self, field: &Field, at: usize, number_at: usize) -> PlanResult<Resolved> {
        let column = |at: usize, name: &str, data_type: &DataType, nullable| {
            let node = Node::Column(at, name.to_string());
            Resolved { node, data_type: data_type.clone(), nullable }
        };
        let mut branches = Vec::with_capacity(self.exprs.len());
        for (number, expr) in (1..).zip(self.exprs) {
            let own = column(number_at, "number", &DataType::Long, false);
            let wanted = Resolved::literal(Value::Long(number), DataType::Long);
            branches.push((functions::resolve("=", vec![own, wanted])?, expr));
        }
        let constant = Box::new(column(at, &field.name, &field.data_type, true));
        let node = Node::Case(branches, Some(constant));
        Ok(Resolved { node, data_type: field.data_type.clone(), nullable: field.nullable })
    }
}

/// The plan of rows whose columns may have expressions that read the clock.
fn with_clock(
    schema: Schema,
    mut rows: Vec<Vec<Value>>,
    clocks: Vec<ClockColumn>,
) -> PlanResult<Plan> {
    if clocks.iter().all(|clock| clock.exprs.is_empty()) {
        return Ok(Plan::Values(schema, rows));
    }
    let mut stored = schema.clone();
    stored.fields.iter_mut().for_each(|field| field.nullable = true);
    let mut columns = Vec::with_capacity(schema.fields.len());
    for (at, (field, clock)) in schema.fields.into_iter().zip(clocks).enumerate() {
        let number_at = stored.fields.len();
        if !clock.exprs.is_empty() {
            stored.fields.push(Field::new("number", DataType::Long, false));
            for (row, number) in rows.iter_mut().zip(&clock.numbers) {
                row.push(Value::Long(*number as i64));
            }
        }
        columns.push((clock.over(&field, at, number_at)?, field.name));
    }
    Ok(Plan::Project(Box::new(Plan::Values(stored, rows)), columns))
}

/// Plans `VALUES (1, 'a'), (2, 'b')`, whose columns are named col1, col2 ….
pub(super) fn inline_table(
    values: &ast::Values,
    catalog: &dyn Catalog,
    here: Place,
) -> PlanResult<Plan> {
    refused::check_values(values, here)?;
    let semantics = catalog.semantics();
    let convert = |expr: &ast::Expr| convert_with(expr, &constants(catalog));
    let scope = Scope::default();
    let mut columns: Vec<Vec<Resolved>> = Vec::new();
    for row in &values.rows {
        let row = match row.content.as_slice() {
            [one] => fields_of(one, convert(one)?),
            several => several.iter().map(convert).collect::<PlanResult<Vec<_>>>()?,
        };
        let row = row.iter().map(|value| resolve(value, &scope));
        let row = row.collect::<PlanResult<Vec<_>>>()?;
        if columns.is_empty() {
            columns = vec![Vec::new(); row.len()];
        }
        if row.len() != columns.len() {
            return Err(PlanError::new(
                "INVALID_INLINE_TABLE.NUM_COLUMNS_MISMATCH",
                format!("a row has {} values, another {}", row.len(), columns.len()),
                "",
            )
            .at(here));
        }
        columns.iter_mut().zip(row).for_each(|(column, value)| column.push(value));
    }
    let mut fields = Vec::new();
    let mut rows = vec![Vec::new(); values.rows.len()];
    let mut clocks = Vec::new();
    for (i, column) in columns.into_iter().enumerate() {
        let condition = "INVALID_INLINE_TABLE.INCOMPATIBLE_TYPES_IN_INLINE_TABLE";
        // As in Spark, the common types are those of legacy mode, except that strings are not cast.
        let rules = Rules { ansi: false, ..Rules::current() };
        let unify = || {
            unify_as(condition, "`VALUES`", column, |all| {
                let mut types = all.iter().map(|value| &value.data_type);
                types.try_fold(DataType::Null, |common, next| widest_without_text(&common, next))
            })
        };
        let column = rules.apply(unify).map_err(|error| error.at(here))?;
        let data_type = column.first().map_or(DataType::Null, |first| first.data_type.clone());
        let nullable = column.iter().any(|value| value.nullable);
        fields.push(Field::new(format!("col{}", i + 1), data_type, nullable));
        let mut clock = ClockColumn::default();
        for (row, value) in rows.iter_mut().zip(column) {
            if value.is_foldable() && value.reads_clock() {
                let known = clock.exprs.iter().position(|expr| *expr == value);
                clock.numbers.push(1 + known.unwrap_or(clock.exprs.len()));
                clock.exprs.extend(known.is_none().then_some(value));
                row.push(Value::Null);
                continue;
            }
            clock.numbers.push(0);
            row.push(constant_value(value, semantics).map_err(|error| error.at(here))?);
        }
        clocks.push(clock);
    }
    with_clock(Schema::new(fields), rows, clocks).map_err(|error| error.at(here))
}
