//! Plans `range(…)` in FROM, as a query.

use super::Catalog;
use super::expr::convert_with;
use super::subquery::constants;
use super::views::Views;
use crate::table::error::{Place, PlanError, PlanResult, counted};
use crate::table::expr::compile::constant;
use crate::table::expr::resolve::{Scope, cast, resolve};
use crate::table::plan::Plan;
use crate::table::types::{DataType, Field, Schema};
use crate::table::value::Value;
use sqlparser::ast::{FunctionArg, FunctionArgExpr};

/// Number of rows of a range that are made at once.
const CHUNK: i128 = 1 << 14;

fn wrong(condition: &str, reason: String) -> PlanError {
    let fix = "Write range(end), range(start, end) or range(start, end, step)";
    PlanError::new(condition, reason, fix)
}

/// The value of an argument of `range`.
fn number(arg: &FunctionArg, catalog: &dyn Catalog) -> PlanResult<i64> {
    let FunctionArg::Unnamed(FunctionArgExpr::Expr(written)) = arg else {
        return Err(wrong(
            "UNRESOLVABLE_TABLE_VALUED_FUNCTION",
            format!("`{arg}` is not an argument of `range`"),
        ));
    };
    let expr = convert_with(written, &constants(catalog))?;
    let resolved = resolve(&expr, &Scope::default())?;
    let fits = resolved.data_type.is_numeric() || resolved.data_type == DataType::String;
    if !fits {
        let reason = format!("`{expr}` is {}, and `range` takes integers", resolved.data_type);
        return Err(wrong("UNEXPECTED_INPUT_TYPE", reason));
    }
    let resolved = cast(resolved, &DataType::Long, false)?;
    match constant(&resolved, catalog.semantics())? {
        Some(Value::Long(value)) => Ok(value),
        Some(_) => Err(wrong("UNEXPECTED_INPUT_TYPE", format!("`{expr}` in `range` is NULL"))),
        None => {
            let reason = format!("`{expr}` in `range` is no constant");
            Err(wrong("NON_FOLDABLE_ARGUMENT", reason))
        }
    }
}

/// Plans `range([start, ]end[, step[, partitions]])`, whose column is `id`.
pub(super) fn range(args: &[FunctionArg], catalog: &dyn Catalog, here: Place) -> PlanResult<Plan> {
    let numbers = args.iter().map(|arg| number(arg, catalog)).collect::<PlanResult<Vec<_>>>();
    let numbers = numbers.map_err(|error| error.at(here))?;
    let (start, end, step) = match numbers.as_slice() {
        [end] => (0, *end, 1),
        [start, end] => (*start, *end, 1),
        [start, end, step] | [start, end, step, _] => (*start, *end, *step),
        _ => {
            let reason = format!("`range` has {}", counted(args.len(), "argument"));
            return Err(wrong("WRONG_NUM_ARGS.WITHOUT_SUGGESTION", reason).at(here));
        }
    };
    if step == 0 {
        return Err(wrong("FAILED_FUNCTION_CALL", "the step of `range` is 0".to_string()).at(here));
    }
    let (wide_start, wide_step) = (i128::from(start), i128::from(step));
    let span = i128::from(end) - wide_start;
    let count = (span + wide_step - wide_step.signum()) / wide_step;
    if count <= 0 {
        let schema = Schema::new(vec![Field::new("id", DataType::Long, false)]);
        return Ok(Plan::Values(schema, Vec::new()));
    }
    let last = wide_start + (count - 1) * wide_step;
    let long = |number: i128| format!("bigint('{number}')");
    // A `sequence` is an array, so a long range is made in chunks.
    let sql = if count <= CHUNK {
        let (start, step) = (long(wide_start), long(wide_step));
        format!("SELECT explode(sequence({start}, {}, {step})) AS id", long(last))
    } else {
        let Ok(rows) = i64::try_from(count) else {
            return Err(wrong("FAILED_FUNCTION_CALL", format!("`range` has {count} rows")).at(here));
        };
        // The product may overflow although the sum does not.
        let id = match i64::try_from(span) {
            Ok(_) => format!("{} + i * {}", long(wide_start), long(wide_step)),
            Err(_) => format!("{start}BD + CAST(i AS DECIMAL(20, 0)) * {step}BD"),
        };
        let chunks = (count - 1) / CHUNK;
        format!(
            "SELECT {id} AS id FROM (SELECT explode(sequence(c * {CHUNK}L, \
             least(c * {CHUNK}L + {CHUNK}L, {rows}L) - 1L)) AS i \
             FROM (SELECT explode(sequence(0L, {chunks}L)) AS c))"
        )
    };
    let sql = format!("SELECT CAST(id AS BIGINT) AS id FROM ({sql})");
    Views::of_generated(catalog).plan_generated(&sql, here)
}
