//! Rejects clauses that the parser accepts but Spark or Millstream does not support.
//!
//! The parser supports the SQL of many systems. The patterns of the supported syntax nodes name
//! every field, without `..`. If a later version of the parser adds a field to such a node, the
//! module does not compile until the field is handled.

use super::{Catalog, is_word, place};
use crate::table::error::{Place, PlanError, PlanResult};
use sqlparser::ast::{
    Cte, Distinct, Expr, Function, FunctionArguments, Join, JoinOperator, NullTreatment,
    OffsetRows, OrderBy, OrderByExpr, OrderByKind, OrderByOptions, OrderBySort, Query, Select,
    SelectFlavor, Spanned, TableAlias, TableAliasColumnDef, TableFactor, TableSample,
    TableSampleKind, TableSampleQuantity, Values, WildcardAdditionalOptions,
};
use sqlparser::tokenizer::TokenWithSpan;

/// Keywords of clauses that may be rejected.
pub(super) const WORDS: [&str; 16] = [
    "TOP",
    "INTO",
    "FETCH",
    "FOR",
    "PREWHERE",
    "CONNECT",
    "DISTINCT",
    "FORMAT",
    "SETTINGS",
    "MATERIALIZED",
    "WITH",
    "PARTITION",
    "TABLESAMPLE",
    "USING",
    "ROWS",
    "AS",
];

/// The error of a clause that Spark does not have.
fn unknown(clause: &str, fix: &str, at: Place) -> PlanError {
    PlanError::new("PARSE_SYNTAX_ERROR", format!("{clause} is not a clause of Spark SQL"), fix)
        .at(at)
}

/// The error of a clause of Spark that Millstream does not support.
fn not_built(clause: &str, fix: &str, at: Place) -> PlanError {
    let mut error = PlanError::not_yet(clause).at(at);
    if !fix.is_empty() {
        error.fix = fix.to_string();
    }
    error
}

/// Returns the error of the first pair whose condition is true.
fn first<const N: usize>(wrong: [(bool, &dyn Fn() -> PlanError); N]) -> PlanResult<()> {
    wrong.iter().find(|(found, _)| *found).map_or(Ok(()), |(_, error)| Err(error()))
}

/// Rejects the clauses of a SELECT that are not supported.
// This function is long because it names every clause of a SELECT.
pub(super) fn check_select(select: &Select, catalog: &dyn Catalog) -> PlanResult<()> {
    let Select {
        select_token,
        optimizer_hints: _, // Hints do not change the result.
        distinct,
        select_modifiers,
        top,
        top_before_distinct: _,
        projection: _,
        exclude,
        into,
        from: _,
        lateral_views: _,
        prewhere,
        selection: _,
        connect_by,
        group_by: _,
        cluster_by: _,
        distribute_by: _,
        sort_by,
        having: _,
        named_window: _,
        qualify: _,
        window_before_qualify: _,
        value_table_mode,
        flavor,
    } = select;
    let here = place(select_token.0.span.start);
    let at = |word: &str| catalog.clause(word, here);
    let limit = match top {
        Some(top) => top.to_string().replace("TOP ", "").replace(['(', ')'], ""),
        None => String::new(),
    };
    let by_where = "Write the condition in WHERE";
    first([
        (top.is_some(), &|| {
            let fix = match limit.parse::<u64>() {
                Ok(rows) => format!("Write LIMIT {rows} at the end of the query"),
                Err(_) => "Write LIMIT with a number of rows at the end of the query".to_string(),
            };
            unknown("`TOP`", &fix, at("TOP"))
        }),
        (matches!(distinct, Some(Distinct::On(_))), &|| {
            not_built(
                "`DISTINCT ON`",
                "Aggregate: SELECT key, max(x) … GROUP BY key",
                at("DISTINCT"),
            )
        }),
        (select_modifiers.is_some(), &|| unknown("a modifier of SELECT", "Leave it out", here)),
        (exclude.is_some(), &|| unknown("`EXCLUDE`", "Write * EXCEPT (a, b)", here)),
        (into.is_some(), &|| {
            let fix =
                "Write CREATE TEMPORARY VIEW name AS SELECT … or CREATE STREAMING TABLE name …";
            unknown("`INTO`", fix, at("INTO"))
        }),
        (prewhere.is_some(), &|| unknown("`PREWHERE`", by_where, at("PREWHERE"))),
        (!connect_by.is_empty(), &|| unknown("`CONNECT BY`", "Join the levels", at("CONNECT"))),
        (value_table_mode.is_some(), &|| unknown("`AS STRUCT`", "Write struct(a, b)", at("AS"))),
    ])?;
    sort_by.iter().try_for_each(|key| check_order_key(key, catalog))?;
    match flavor {
        SelectFlavor::Standard | SelectFlavor::FromFirst | SelectFlavor::FromFirstNoSelect => {
            Ok(())
        }
    }
}

/// Rejects the clauses of a query that are not supported.
pub(super) fn check_query(query: &Query, here: Place, catalog: &dyn Catalog) -> PlanResult<()> {
    let Query {
        with: _,
        body: _,
        order_by,
        limit_clause: _,
        fetch,
        locks,
        for_clause,
        settings,
        format_clause,
        pipe_operators,
    } = query;
    let at = |word: &str| catalog.clause(word, here);
    first([
        (fetch.is_some(), &|| {
            let rows = fetch.as_ref().and_then(|fetch| fetch.quantity.as_ref());
            let fix = match rows {
                Some(rows) => format!("Write LIMIT {rows}"),
                None => "Write LIMIT 1".to_string(),
            };
            unknown("`FETCH`", &fix, at("FETCH"))
        }),
        (!locks.is_empty() || for_clause.is_some(), &|| {
            unknown("`FOR` after a query", "Leave it out", at("FOR"))
        }),
        (settings.is_some(), &|| unknown("`SETTINGS`", "Write SET key = value;", at("SETTINGS"))),
        (format_clause.is_some(), &|| {
            unknown(
                "`FORMAT`",
                "A sink has the format: CREATE STREAMING TABLE t USING csv",
                at("FORMAT"),
            )
        }),
        (!pipe_operators.is_empty(), &|| not_built("pipe syntax", "Write a subquery", here)),
    ])?;
    let Some(OrderBy { kind, interpolate }) = order_by else { return Ok(()) };
    if interpolate.is_some() {
        return Err(unknown("`INTERPOLATE`", "Leave it out", here));
    }
    match kind {
        OrderByKind::All(options) => check_order_options(options, here, catalog),
        OrderByKind::Expressions(keys) => {
            keys.iter().try_for_each(|key| check_order_key(key, catalog))
        }
    }
}

fn check_order_key(key: &OrderByExpr, catalog: &dyn Catalog) -> PlanResult<()> {
    let OrderByExpr { expr, options, with_fill } = key;
    let here = place(expr.span().start);
    if with_fill.is_some() {
        return Err(unknown("`WITH FILL`", "Leave it out", here));
    }
    check_order_options(options, here, catalog)
}

fn check_order_options(
    options: &OrderByOptions,
    here: Place,
    catalog: &dyn Catalog,
) -> PlanResult<()> {
    let OrderByOptions { sort, nulls_first: _ } = options;
    match sort {
        None | Some(OrderBySort::Asc | OrderBySort::Desc) => Ok(()),
        Some(OrderBySort::Using(_)) => {
            Err(unknown("`USING` in ORDER BY", "Write ASC or DESC", catalog.clause("USING", here)))
        }
    }
}

/// Rejects the keyword after the number in `OFFSET 2 ROWS`.
pub(super) fn check_offset(rows: OffsetRows, here: Place, catalog: &dyn Catalog) -> PlanResult<()> {
    match rows {
        OffsetRows::None => Ok(()),
        OffsetRows::Row | OffsetRows::Rows => {
            let fix = "Write OFFSET and the number alone";
            Err(unknown("`ROWS` after OFFSET", fix, catalog.clause("ROWS", here)))
        }
    }
}

/// Rejects everything in a view of a WITH clause except its name, columns and query.
pub(super) fn check_cte(cte: &Cte, catalog: &dyn Catalog) -> PlanResult<()> {
    let Cte { alias, query: _, from, materialized, closing_paren_token: _ } = cte;
    let here = place(alias.name.span.start);
    check_alias(alias)?;
    first([
        (materialized.is_some(), &|| {
            unknown("`MATERIALIZED`", "Leave it out", catalog.clause("MATERIALIZED", here))
        }),
        (from.is_some(), &|| unknown("`FROM` after a view of WITH", "Leave it out", here)),
    ])
}

/// Rejects everything in an alias except the name and the column names.
pub(super) fn check_alias(alias: &TableAlias) -> PlanResult<()> {
    let TableAlias { explicit: _, name, columns, at } = alias;
    if at.is_some() {
        return Err(unknown("`AT` in an alias", "Leave it out", place(name.span.start)));
    }
    columns.iter().try_for_each(|column| {
        let TableAliasColumnDef { name, data_type } = column;
        match data_type {
            None => Ok(()),
            Some(data_type) => Err(unknown(
                &format!("the type `{data_type}` in an alias"),
                "Name the column alone, and cast it: SELECT CAST(a AS INT)",
                place(name.span.start),
            )),
        }
    })
}

/// Rejects the properties of a relation in FROM that are not supported.
pub(super) fn check_relation(
    factor: &TableFactor,
    here: Place,
    catalog: &dyn Catalog,
) -> PlanResult<()> {
    let at = |word: &str| catalog.clause(word, here);
    match factor {
        TableFactor::Table {
            name: _,
            alias: _,
            args: _,       // The caller rejects table functions.
            with_hints: _, // The options of files; the caller rejects others.
            version,
            with_ordinality,
            partitions,
            json_path,
            sample: _,
            index_directives,
            inheritance,
        } => first([
            (version.is_some(), &|| {
                PlanError::new(
                    "UNSUPPORTED_FEATURE.TIME_TRAVEL",
                    "a view has one version",
                    "Leave the version out",
                )
                .at(here)
            }),
            (*with_ordinality, &|| unknown("`WITH ORDINALITY`", "Use posexplode", at("WITH"))),
            (!partitions.is_empty(), &|| {
                unknown("`PARTITION` after a table", "Write a condition in WHERE", at("PARTITION"))
            }),
            (json_path.is_some(), &|| unknown("a path after a table", "Leave it out", here)),
            (!index_directives.is_empty(), &|| unknown("a hint of an index", "Leave it out", here)),
            (inheritance.is_some(), &|| unknown("`ONLY`", "Leave it out", here)),
        ]),
        TableFactor::Derived { lateral: _, subquery: _, alias: _, sample: _ }
        | TableFactor::NestedJoin { table_with_joins: _, alias: _ } => Ok(()),
        // The caller plans these kinds of relations, or rejects them.
        TableFactor::TableFunction { .. }
        | TableFactor::Function { .. }
        | TableFactor::UNNEST { .. }
        | TableFactor::JsonTable { .. }
        | TableFactor::OpenJsonTable { .. }
        | TableFactor::Pivot { .. }
        | TableFactor::Unpivot { .. }
        | TableFactor::UnpivotExpr { .. }
        | TableFactor::MatchRecognize { .. }
        | TableFactor::XmlTable { .. }
        | TableFactor::SemanticView { .. } => Ok(()),
    }
}

/// Rejects `WITH (…)` after a relation that is not of files.
pub(super) fn check_hints(hints: &[Expr], here: Place, catalog: &dyn Catalog) -> PlanResult<()> {
    if hints.is_empty() {
        return Ok(());
    }
    let fix = "Leave it out: readers take no locks, and a view has the options of its source";
    Err(unknown("`WITH (…)` after a table", fix, catalog.clause("WITH", here)))
}

/// Returns the row count of `TABLESAMPLE (n ROWS)`, and rejects every other kind of sample.
pub(super) fn sample_rows<'s>(
    sample: &'s TableSampleKind,
    here: Place,
    catalog: &dyn Catalog,
) -> PlanResult<&'s Expr> {
    let (TableSampleKind::BeforeTableAlias(sample) | TableSampleKind::AfterTableAlias(sample)) =
        sample;
    let TableSample { modifier, name, quantity, seed, bucket, offset } = &**sample;
    let here = catalog.clause("TABLESAMPLE", here);
    let by_rows = "Write TABLESAMPLE (10 ROWS) or LIMIT 10";
    first([
        (matches!(modifier, sqlparser::ast::TableSampleModifier::Sample), &|| {
            unknown("`SAMPLE`", by_rows, here)
        }),
        (name.is_some(), &|| unknown("a method of `TABLESAMPLE`", by_rows, here)),
        (seed.is_some() || bucket.is_some(), &|| {
            not_built("`TABLESAMPLE` by anything other than rows", by_rows, here)
        }),
        (offset.is_some(), &|| unknown("`OFFSET` in TABLESAMPLE", by_rows, here)),
    ])?;
    match quantity {
        Some(TableSampleQuantity {
            parenthesized: true,
            value,
            unit: Some(sqlparser::ast::TableSampleUnit::Rows),
        }) => Ok(value),
        _ => Err(not_built("`TABLESAMPLE` by anything other than rows", by_rows, here)),
    }
}

/// Rejects everything in a join except the relation, the operator and the condition.
pub(super) fn check_join(join: &Join) -> PlanResult<()> {
    let Join { relation, global, join_operator: _ } = join;
    if *global {
        return Err(unknown("`GLOBAL`", "Leave it out", place(relation.span().start)));
    }
    Ok(())
}

/// The error of a kind of join that Spark does not have.
pub(super) fn unknown_join(operator: &JoinOperator) -> PlanError {
    let lateral = "Write JOIN LATERAL (SELECT …)";
    let explode = "Write LATERAL VIEW explode(array) t AS element";
    let (name, fix) = match operator {
        JoinOperator::RightSemi(_) => ("RIGHT SEMI JOIN", "Swap the sides: b LEFT SEMI JOIN a"),
        JoinOperator::RightAnti(_) => ("RIGHT ANTI JOIN", "Swap the sides: b LEFT ANTI JOIN a"),
        JoinOperator::CrossApply => ("CROSS APPLY", lateral),
        JoinOperator::OuterApply => ("OUTER APPLY", "Write LEFT JOIN LATERAL (SELECT …)"),
        JoinOperator::StraightJoin(_) => ("a STRAIGHT_JOIN b", "Write a JOIN b"),
        JoinOperator::ArrayJoin | JoinOperator::LeftArrayJoin | JoinOperator::InnerArrayJoin => {
            ("ARRAY JOIN", explode)
        }
        _ => ("this join", "Write INNER, LEFT, RIGHT, FULL, LEFT SEMI or LEFT ANTI JOIN"),
    };
    unknown(&format!("`{name}`"), fix, Place::default())
}

/// Rejects `RIGHT` and `FULL` before `SEMI`, `ANTI` and `ASOF`. The error has the position of the
/// second word, as in Spark.
pub(super) fn check_join_words(tokens: &[TokenWithSpan]) -> PlanResult<()> {
    let is = |token: &TokenWithSpan, words: &[&'static str]| {
        words.iter().find(|word| is_word(&token.token, word)).copied()
    };
    for [outer, kind, join] in tokens.array_windows() {
        let (Some(outer), Some(word)) =
            (is(outer, &["RIGHT", "FULL"]), is(kind, &["SEMI", "ANTI", "ASOF"]))
        else {
            continue;
        };
        if !is_word(&join.token, "JOIN") {
            continue;
        }
        let swapped = match outer {
            "RIGHT" => format!("Swap the sides: b LEFT {word} JOIN a …"),
            _ => format!("Write a LEFT {word} JOIN b …"),
        };
        let here = place(kind.span.start);
        return Err(unknown(&format!("`{outer} {word} JOIN`"), &swapped, here));
    }
    Ok(())
}

/// Rejects everything in VALUES except rows.
pub(super) fn check_values(values: &Values, here: Place) -> PlanResult<()> {
    let Values { explicit_row, value_keyword, rows: _ } = values;
    if *explicit_row || *value_keyword {
        let written = if *explicit_row { "`ROW` in VALUES" } else { "`VALUE`" };
        return Err(unknown(written, "Write VALUES (1, 'a'), (2, 'b')", here));
    }
    Ok(())
}

/// Rejects modifiers of `*` other than EXCEPT.
pub(super) fn check_star(options: &WildcardAdditionalOptions, here: Place) -> PlanResult<()> {
    let WildcardAdditionalOptions {
        wildcard_token: _,
        opt_ilike,
        opt_exclude,
        opt_except: _,
        opt_replace,
        opt_rename,
        opt_alias,
    } = options;
    let except = "Write * EXCEPT (a, b), and name the other columns";
    first([
        (opt_alias.is_some(), &|| {
            PlanError::new(
                "INVALID_USAGE_OF_STAR_OR_REGEX",
                "`*` stands for several columns and cannot have an alias",
                "Write * alone, or struct(*) AS name",
            )
            .at(here)
        }),
        (opt_ilike.is_some(), &|| unknown("`ILIKE` behind *", except, here)),
        (opt_exclude.is_some(), &|| unknown("`EXCLUDE`", except, here)),
        (opt_replace.is_some(), &|| unknown("`REPLACE` behind *", except, here)),
        (opt_rename.is_some(), &|| unknown("`RENAME` behind *", except, here)),
    ])
}

/// Functions whose results depend on IGNORE NULLS. `collect_list` and `array_agg` accept it too,
/// but always ignore NULLs.
const IGNORING_NULLS: [&str; 5] = ["first", "first_value", "last", "last_value", "any_value"];

/// Rejects the properties of a call that are not supported. Returns whether IGNORE NULLS changes
/// the result of the call.
pub(super) fn check_call(function: &Function, name: &str, here: Place) -> PlanResult<bool> {
    let Function {
        name: _,
        uses_odbc_syntax,
        parameters,
        args: _,
        within_group: _,
        filter: _,
        null_treatment,
        over,
    } = function;
    // NULL treatment is not checked for a call with OVER, which is an error of its own.
    let ignores = match null_treatment {
        Some(NullTreatment::IgnoreNulls) => true,
        Some(NullTreatment::RespectNulls) | None => false,
    };
    let collects = ["collect_list", "array_agg"].contains(&name);
    first([
        (*uses_odbc_syntax, &|| unknown("`{fn …}`", "Write the call alone", here)),
        (!matches!(parameters, FunctionArguments::None), &|| {
            unknown("a second list of arguments", "Write one list", here)
        }),
        (over.is_none() && null_treatment.is_some() && collects && !ignores, &|| {
            let fix = "Leave it out, and replace NULL: collect_list(coalesce(x, 0))";
            not_built(&format!("`RESPECT NULLS` of `{name}`"), fix, here)
        }),
        (over.is_none() && ignores && !collects && !IGNORING_NULLS.contains(&name), &|| {
            PlanError::new(
                "INVALID_SQL_SYNTAX.FUNCTION_WITH_UNSUPPORTED_SYNTAX",
                format!("`{name}` does not take IGNORE NULLS"),
                "Write FILTER (WHERE x IS NOT NULL) after an aggregate",
            )
            .at(here)
        }),
    ])?;
    Ok(ignores && !collects)
}
