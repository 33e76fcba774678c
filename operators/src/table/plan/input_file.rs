//! Gives the functions of a row's file, such as `input_file_name`, the column that they read: the
//! file metadata column of a source is passed on to where they are called.
//!
//! As in Spark, rows that were sorted, limited, grouped or deduplicated belong to no file any more.

use super::{METADATA, Plan, Qualifier, metadata_field};
use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::functions::row_origin::field_of_file;
use crate::table::expr::{Expr, Resolved};

/// Whether an expression calls a function of a row's file.
pub fn calls_input_file(expr: &Expr) -> bool {
    let mut found = matches!(expr, Expr::Call { name, args, .. } if args.is_empty() && field_of_file(name).is_some());
    expr.each_part(&mut |part| found = found || calls_input_file(part));
    found
}

/// An expression with the fields of [`METADATA`] in place of the functions of a row's file.
pub fn as_column(expr: &Expr) -> Expr {
    match expr {
        Expr::Call { name, args, place, .. } if args.is_empty() => match field_of_file(name) {
            Some(field) => {
                Expr::Column { parts: vec![METADATA.to_string(), field.to_string()], place: *place }
            }
            None => expr.clone(),
        },
        _ => expr.map_children(&mut as_column),
    }
}

/// A plan with the column [`METADATA`] behind its own. `None` if its rows come from no file. Fails
/// for a plan that rows of files reach in a way that does not pass on the column.
pub fn with_input_file(plan: &Plan) -> PlanResult<Option<Plan>> {
    let boxed = |input: &Plan| with_input_file(input).map(|with| with.map(Box::new));
    Ok(match plan {
        Plan::Scan(_) => plan.with_metadata(),
        Plan::Alias(input, name) => boxed(input)?.map(|with| Plan::Alias(with, name.clone())),
        Plan::Filter(input, condition) => {
            boxed(input)?.map(|with| Plan::Filter(with, condition.clone()))
        }
        Plan::QualifyFrom(input, from, name) => {
            boxed(input)?.map(|with| Plan::QualifyFrom(with, *from, name.clone()))
        }
        Plan::Qualified(input, names) => boxed(input)?.map(|with| {
            let hidden = Qualifier { relation: None, hidden: true };
            Plan::Qualified(with, names.iter().cloned().chain([hidden]).collect())
        }),
        &Plan::Watermark { ref input, column, delay_ms, skew_ms } => {
            boxed(input)?.map(|input| Plan::Watermark { input, column, delay_ms, skew_ms })
        }
        Plan::Project(input, exprs) => boxed(input)?.and_then(|with| {
            let mut exprs = exprs.clone();
            exprs.push((metadata_of(&with)?, METADATA.to_string()));
            Some(Plan::Project(with, exprs))
        }),
        Plan::Union(inputs) => of_union(inputs)?,
        Plan::Generate(..) | Plan::Window(..) | Plan::Join(_) => {
            refuse_files(plan)?;
            None
        }
        _ => None,
    })
}

/// The last column of a plan that describes the file of a row.
fn metadata_of(plan: &Plan) -> Option<Resolved> {
    let (scope, wanted) = (plan.scope(), metadata_field());
    let at = scope.columns.iter().rposition(|column| column.data_type == wanted.data_type)?;
    Some(scope.column_at(at))
}

fn of_union(inputs: &[Plan]) -> PlanResult<Option<Plan>> {
    let with = inputs.iter().map(with_input_file).collect::<PlanResult<Vec<_>>>()?;
    if with.iter().all(Option::is_none) {
        return Ok(None);
    }
    match with.into_iter().collect::<Option<Vec<_>>>() {
        Some(with) => Ok(Some(Plan::Union(with))),
        None => Err(not_yet("a union of rows of files and other rows")),
    }
}

/// Fails if rows of files reach an operator.
fn refuse_files(plan: &Plan) -> PlanResult<()> {
    let mut files = 0;
    for input in plan.inputs() {
        files += usize::from(with_input_file(input)?.is_some());
    }
    match (files, plan) {
        (0, _) => Ok(()),
        (1, Plan::Join(_)) => Err(not_yet("a join")),
        (1, _) => Err(not_yet("a generator or a window function")),
        _ => Err(PlanError::new(
            "MULTI_SOURCES_UNSUPPORTED_FOR_EXPRESSION",
            "a row of several sources of files does not belong to one file",
            FIX,
        )),
    }
}

const FIX: &str =
    "Call the function in a subquery over one source, or use its `_metadata.file_path`";

fn not_yet(above: &str) -> PlanError {
    let mut error =
        PlanError::not_yet(format_args!("the file of a row (`input_file_name`) above {above}"));
    error.fix = FIX.to_string();
    error
}
