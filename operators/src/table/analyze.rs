//! The analyser: builds plans from unresolved expressions by Spark's rules, and refuses what
//! Spark refuses.

use super::aggregates::{AggregateCall, AggregateFunction, LATER, resolve_call, resolve_user_call};
use super::error::{PlanError, PlanResult};
use super::expr::resolve::{Scope, common_type, expand_stars, expect_type, resolve, resolve_with};
use super::expr::{Expr, Node, Resolved, functions};
use super::generate::{Generator, Parts, is_generator};
use super::plan::{METADATA, Plan, SortKey};
use super::types::DataType;
use super::windows::{Window, event_key, has_watermark, session_key, tag, windowed};

/// What reaches the sink.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OutputMode {
    /// Rows that never change again, each once.
    #[default]
    Append,
    /// Rows that changed.
    Update,
    /// The whole result table, each epoch.
    Complete,
}

impl OutputMode {
    /// Reads Spark's word for it.
    pub fn parse(word: &str) -> PlanResult<Self> {
        match word.to_ascii_lowercase().as_str() {
            "append" => Ok(Self::Append),
            "update" => Ok(Self::Update),
            "complete" => Ok(Self::Complete),
            _ => Err(PlanError::new(
                "STREAMING_OUTPUT_MODE.INVALID",
                format!("'{word}' is not an output mode"),
                "Use append, update or complete",
            )),
        }
    }

    /// Spark's word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Append => "append",
            Self::Update => "update",
            Self::Complete => "complete",
        }
    }
}

/// `WHERE`.
pub fn filter(input: Plan, condition: &Expr) -> PlanResult<Plan> {
    if has_aggregate(condition) {
        return Err(PlanError::new(
            "INVALID_WHERE_CONDITION",
            format!("`WHERE` has an aggregate: `{condition}`"),
            "Use HAVING, or aggregate in a subquery",
        )
        .at(condition.place()));
    }
    let condition = boolean(resolve(condition, &input.scope())?, condition, "WHERE")?;
    Ok(Plan::Filter(Box::new(input), condition))
}

/// A condition, or why it is none.
pub fn boolean(resolved: Resolved, expr: &Expr, what: &str) -> PlanResult<Resolved> {
    if matches!(resolved.data_type, DataType::Boolean | DataType::Null) {
        return expect_type(resolved, &DataType::Boolean, what);
    }
    let condition = match what {
        "FILTER" => "INVALID_AGGREGATE_FILTER.NOT_BOOLEAN",
        "ON" => "JOIN_CONDITION_IS_NOT_BOOLEAN_TYPE",
        _ => "DATATYPE_MISMATCH.FILTER_NOT_BOOLEAN",
    };
    Err(PlanError::new(
        condition,
        format!("`{what}` needs BOOLEAN, but `{resolved}` is {}", resolved.data_type),
        "Compare it with something",
    )
    .at(expr.place()))
}

/// The input with the column that names the files, if an expression wants it.
fn with_metadata_for(input: Plan, exprs: &[Expr]) -> Plan {
    fn wants(expr: &Expr) -> bool {
        match expr {
            Expr::Column { parts, .. } => parts.iter().any(|p| p.eq_ignore_ascii_case(METADATA)),
            Expr::Call { args, filter, .. } => {
                args.iter().any(wants) || filter.as_deref().is_some_and(wants)
            }
            Expr::Cast { expr, .. } | Expr::Alias(expr, _) | Expr::Field(expr, _) => wants(expr),
            Expr::Star(Some(name)) => name.eq_ignore_ascii_case(METADATA),
            Expr::Case { branches, otherwise } => {
                branches.iter().any(|(a, b)| wants(a) || wants(b))
                    || otherwise.as_deref().is_some_and(wants)
            }
            _ => false,
        }
    }
    if !exprs.iter().any(wants) {
        return input;
    }
    input.with_metadata().unwrap_or(input)
}

/// `SELECT` without aggregates; generators may stand among the expressions.
pub fn project(input: Plan, exprs: &[Expr]) -> PlanResult<Plan> {
    // What is added for one is no column of `*`.
    let exprs = match exprs {
        exprs if exprs.iter().any(|e| matches!(e, Expr::Star(None))) => {
            let scope = input.scope();
            let one = |expr: &Expr| match expr {
                Expr::Star(None) => expand_stars(&scope, std::slice::from_ref(expr)),
                other => Ok(vec![other.clone()]),
            };
            exprs.iter().map(one).collect::<PlanResult<Vec<_>>>()?.concat()
        }
        exprs => exprs.to_vec(),
    };
    let input = with_metadata_for(input, &exprs);
    let (input, window) = windowed(input, &exprs)?;
    let exprs = match &window {
        Some(window) => exprs.iter().map(|expr| window.rewrite(expr)).collect(),
        None => exprs,
    };
    let exprs = expand_stars(&input.scope(), &exprs)?;
    let is_made = |expr: &Expr| is_generator(unaliased(expr));
    let width = input.width();
    let mut input = input;
    // With several generators, each row of one has all rows of the next.
    let mut ends = Vec::new();
    for generator in exprs.iter().filter(|expr| is_made(expr)) {
        let aliases = match generator {
            Expr::Alias(_, name) => vec![name.clone()],
            Expr::Aliases(_, names) => names.clone(),
            _ => Vec::new(),
        };
        input = generate(input, unaliased(generator), false, &aliases)?;
        ends.push(input.width());
    }
    let scope = input.scope();
    let (mut from, mut ends) = (width, ends.into_iter());
    let mut before = scope.clone();
    before.columns.truncate(width);
    let mut columns: Vec<(Resolved, String)> = Vec::new();
    for expr in &exprs {
        if is_made(expr) {
            let end = ends.next().unwrap_or(from);
            for (i, column) in scope.columns.iter().enumerate().take(end).skip(from) {
                let node = Node::Column(i, column.name.clone());
                let (data_type, nullable) = (column.data_type.clone(), column.nullable);
                columns.push((Resolved { node, data_type, nullable }, column.name.clone()));
            }
            from = end;
            continue;
        }
        columns.push((with_lateral_aliases(expr, &before, &exprs, 0)?, expr.output_name()));
    }
    Ok(Plan::Project(Box::new(input), columns))
}

/// Aliases of a SELECT list that may stand for one another.
const MOST_LATERAL: usize = 16;

/// Resolves an expression; a name that is no column may be an alias before it in the list.
fn with_lateral_aliases(
    expr: &Expr,
    scope: &Scope,
    list: &[Expr],
    depth: usize,
) -> PlanResult<Resolved> {
    let at = list.iter().position(|other| std::ptr::eq(other, expr));
    let before = at.map_or(list, |at| &list[..at]);
    let mut hook = |part: &Expr| -> PlanResult<Option<Resolved>> {
        let Expr::Column { parts, .. } = part else { return Ok(None) };
        if resolve(part, scope).is_ok() || depth == MOST_LATERAL {
            return Ok(None);
        }
        let named =
            |e: &&Expr| matches!(e, Expr::Alias(_, name) if name.eq_ignore_ascii_case(&parts[0]));
        let Some(Expr::Alias(inner, _)) = before.iter().rev().find(named) else { return Ok(None) };
        let of = with_lateral_aliases(inner, scope, before, depth + 1)?;
        let found = parts[1..].iter().try_fold(of, |of, field| functions::field_of(of, field))?;
        Ok(Some(found))
    };
    resolve_with(expr, scope, &mut hook)
}

/// The columns of a generator behind those of its input.
pub fn generate(input: Plan, call: &Expr, outer: bool, aliases: &[String]) -> PlanResult<Plan> {
    let generator = Generator::new(call, &input.scope(), outer, aliases)?;
    Ok(Plan::Generate(Box::new(input), generator))
}

/// `SELECT DISTINCT`: the keys of an aggregation without functions.
pub fn distinct(input: Plan) -> Plan {
    let columns = input.scope().columns.into_iter().enumerate();
    let keys = columns.map(|(i, c)| {
        let node = Node::Column(i, c.name.clone());
        (Resolved { node, data_type: c.data_type, nullable: c.nullable }, c.name)
    });
    Plan::Aggregate(Box::new(input), keys.collect(), Vec::new())
}

fn unaliased(expr: &Expr) -> &Expr {
    match expr {
        Expr::Alias(inner, _) | Expr::Aliases(inner, _) => unaliased(inner),
        other => other,
    }
}

/// Whether an expression contains an aggregate function.
pub fn has_aggregate(expr: &Expr) -> bool {
    match expr {
        Expr::Call { name, args, .. } => {
            let with_lambda = args.iter().any(|arg| matches!(arg, Expr::Lambda(..)));
            let of_sets = matches!(name.to_ascii_lowercase().as_str(), "grouping" | "grouping_id");
            of_sets
                || AggregateFunction::of(name).is_some() && !with_lambda
                || LATER.contains(&name.to_ascii_lowercase().as_str())
                || args.iter().any(has_aggregate)
        }
        Expr::Cast { expr, .. } | Expr::Alias(expr, _) => has_aggregate(expr),
        Expr::Aliases(expr, _) | Expr::Field(expr, _) | Expr::Lambda(_, expr) => {
            has_aggregate(expr)
        }
        Expr::Case { branches, otherwise } => {
            branches.iter().any(|(a, b)| has_aggregate(a) || has_aggregate(b))
                || otherwise.as_deref().is_some_and(has_aggregate)
        }
        Expr::User(_, args, _) => args.iter().any(has_aggregate),
        Expr::UserAggregate(..) => true,
        Expr::Column { .. }
        | Expr::Literal(..)
        | Expr::Star(_)
        | Expr::StarExcept(..)
        | Expr::Scalar(..) => false,
    }
}

/// Whether a call is one of an aggregate function, and no part of it is looked at.
fn has_aggregate_itself(expr: &Expr) -> bool {
    match expr {
        Expr::Call { name, args, .. } => {
            let with_lambda = args.iter().any(|arg| matches!(arg, Expr::Lambda(..)));
            let known = AggregateFunction::of(name).is_some()
                || LATER.contains(&name.to_ascii_lowercase().as_str());
            known && !with_lambda
        }
        _ => false,
    }
}

/// `GROUP BY`, with what stands in SELECT, HAVING and ORDER BY above it.
pub struct Grouping {
    input: Plan,
    scope: Scope,
    keys: Vec<(Resolved, String)>,
    calls: Vec<AggregateCall>,
    /// Of ROLLUP and its like: the keys that each set has. Then a last key, which stands for no
    /// expression, holds the set's number, a bit for each key that it has not.
    sets: Option<Vec<Vec<usize>>>,
    /// The window that it groups by.
    window: Option<Window>,
}

/// The name of the column of a grouping set's number.
const GROUPING_ID: &str = "spark_grouping_id";

/// A key as it was written: a number means that column of `select`, a name may be an alias in it.
fn written_key(scope: &Scope, key: &Expr, select: &[Expr]) -> PlanResult<Expr> {
    use super::value::Value;
    match key {
        Expr::Literal(Value::Long(position), DataType::Int) => {
            let at = usize::try_from(*position - 1).ok().and_then(|at| select.get(at));
            let found = at.ok_or_else(|| {
                PlanError::new(
                    "GROUP_BY_POS_OUT_OF_RANGE",
                    format!(
                        "`GROUP BY` {position}, but the SELECT list has {} columns",
                        select.len()
                    ),
                    "Count from 1",
                )
            })?;
            if has_aggregate(found) {
                return Err(PlanError::new(
                    "GROUP_BY_POS_AGGREGATE",
                    format!("`GROUP BY` {position} is an aggregate"),
                    "Group by another column",
                ));
            }
            Ok(found.clone())
        }
        Expr::Column { parts, .. } if resolve(key, scope).is_err() => {
            // Not a column of the input: perhaps an alias.
            let alias = select.iter().find(|e| {
                matches!((e, parts.as_slice()), (Expr::Alias(_, name), [part]) if name.eq_ignore_ascii_case(part))
            });
            Ok(alias.unwrap_or(key).clone())
        }
        other => Ok(other.clone()),
    }
}

impl Grouping {
    /// Groups by expressions; a number means that column of `select`, a name may be an alias
    /// in it.
    pub fn new(input: Plan, keys: &[Expr], select: &[Expr]) -> PlanResult<Self> {
        Self::with_sets(input, keys, None, select)
    }

    /// The same, each row in a group of each of some sets of keys.
    pub fn with_sets(
        input: Plan,
        keys: &[Expr],
        sets: Option<Vec<Vec<usize>>>,
        select: &[Expr],
    ) -> PlanResult<Self> {
        let mut input = with_metadata_for(input, select);
        let written: Vec<Expr> = keys
            .iter()
            .map(|key| written_key(&input.scope(), key, select))
            .collect::<PlanResult<_>>()?;
        let window;
        (input, window) = windowed(input, written.iter().chain(select))?;
        let scope = input.scope();
        let (keys, calls) = (Vec::new(), Vec::new());
        let mut grouping = Self { input, scope, keys, calls, sets: None, window };
        let mut places = Vec::new();
        for key in written {
            // A window is what its call says; a column of that name is another one.
            let key = match &grouping.window {
                Some(window) if !matches!(unaliased(&key), Expr::Column { .. }) => {
                    window.rewrite(&key)
                }
                _ => key,
            };
            let resolved = resolve(unaliased(&key), &grouping.scope)?;
            let same = grouping.keys.iter().position(|(other, _)| *other == resolved);
            places.push(same.unwrap_or(grouping.keys.len()));
            if same.is_none() {
                grouping.keys.push((resolved, key.output_name()));
            }
        }
        if let Some(sets) = sets {
            let placed = |set: Vec<usize>| set.into_iter().map(|key| places[key]).collect();
            grouping.sets = Some(sets.into_iter().map(placed).collect());
            let node = Node::Column(usize::MAX, GROUPING_ID.to_string());
            let number = Resolved { node, data_type: DataType::Long, nullable: false };
            grouping.keys.push((number, GROUPING_ID.to_string()));
        }
        Ok(grouping)
    }

    /// The input with a row for each set, its keys and the set's number behind the columns.
    fn expanded(input: Plan, keys: &[(Resolved, String)], sets: &[Vec<usize>]) -> PlanResult<Plan> {
        use super::value::Value;
        let count = keys.len() - 1;
        let mut rows = Vec::new();
        for set in sets {
            let mut number = 0i64;
            let mut fields = Vec::new();
            for (at, (key, _)) in keys[..count].iter().enumerate() {
                let name = Value::String(format!("k{at}"));
                fields.push(Resolved::literal(name, DataType::String));
                number = number << 1 | i64::from(!set.contains(&at));
                fields.push(if set.contains(&at) {
                    Resolved { nullable: true, ..key.clone() }
                } else {
                    Resolved::literal(Value::Null, key.data_type.clone())
                });
            }
            fields.push(Resolved::literal(Value::String("id".to_string()), DataType::String));
            fields.push(Resolved::literal(Value::Long(number), DataType::Long));
            rows.push(functions::resolve("named_struct", fields)?);
        }
        let generator = Generator {
            array: functions::resolve("array", rows)?,
            parts: Parts::Fields,
            with_position: false,
            outer: false,
            names: keys.iter().map(|(_, name)| name.clone()).collect(),
            name: "grouping_sets".to_string(),
        };
        Ok(Plan::Generate(Box::new(input), generator))
    }

    /// `grouping(key)` and `grouping_id()` as expressions over the groups.
    fn set_number(
        keys: &[(Resolved, String)],
        name: &str,
        args: &[Expr],
        scope: &Scope,
    ) -> PlanResult<Resolved> {
        use super::value::Value;
        let wrong = || {
            PlanError::new(
                "UNSUPPORTED_GROUPING_EXPRESSION",
                format!("`{name}` belongs to GROUP BY with ROLLUP, CUBE or GROUPING SETS"),
                "grouping(key) takes one of its keys",
            )
        };
        let at = keys.iter().position(|(_, name)| name == GROUPING_ID).ok_or_else(wrong)?;
        let node = Node::Column(at, GROUPING_ID.to_string());
        let number = Resolved { node, data_type: DataType::Long, nullable: false };
        if name == "grouping_id" {
            return Ok(number);
        }
        let [arg] = args else { return Err(wrong()) };
        let key = resolve(arg, scope)?;
        let key = keys[..at].iter().position(|(other, _)| *other == key).ok_or_else(wrong)?;
        let shift = Resolved::literal(Value::Long((at - 1 - key) as i64), DataType::Int);
        let one = Resolved::literal(Value::Long(1), DataType::Long);
        let bit = functions::resolve(
            "&",
            vec![functions::resolve("shiftright", vec![number, shift])?, one],
        )?;
        Ok(bit.coerce(&DataType::Byte))
    }

    /// An expression as it was written, with the window that the groups have.
    fn rewritten(&self, expr: &Expr) -> Expr {
        self.window.as_ref().map_or_else(|| expr.clone(), |window| window.rewrite(expr))
    }

    /// The column of a call, which is computed once however often it stands there.
    fn placed(calls: &mut Vec<AggregateCall>, keys: usize, call: AggregateCall) -> Resolved {
        let same = |c: &AggregateCall| {
            (c.function, &c.user, &c.args, &c.filter, c.distinct)
                == (call.function, &call.user, &call.args, &call.filter, call.distinct)
        };
        let at = calls.iter().position(same).unwrap_or_else(|| {
            calls.push(call.clone());
            calls.len() - 1
        });
        Resolved {
            node: Node::Column(keys + at, call.name),
            data_type: call.data_type,
            nullable: call.function.is_nullable(),
        }
    }

    /// Resolves an expression over the groups: keys and aggregates become columns.
    pub fn resolve(&mut self, expr: &Expr) -> PlanResult<Resolved> {
        let (scope, keys, calls) = (self.scope.clone(), &self.keys, &mut self.calls);
        let has_sets = self.sets.is_some();
        let mut hook = |part: &Expr| -> PlanResult<Option<Resolved>> {
            if let Expr::Call { name, args, .. } = part
                && matches!(name.to_ascii_lowercase().as_str(), "grouping" | "grouping_id")
            {
                let name = name.to_ascii_lowercase();
                return Self::set_number(keys, &name, args, &scope).map(Some);
            }
            if let Expr::Call { name, .. } = part
                && has_aggregate_itself(part)
            {
                let lower = name.to_ascii_lowercase();
                if let Some(function) = AggregateFunction::of(&lower) {
                    let call = resolve_call(function, part, &scope)?;
                    return Ok(Some(Self::placed(calls, keys.len(), call)));
                }
                if LATER.contains(&lower.as_str()) {
                    return Err(PlanError::not_yet(format_args!("the aggregate `{lower}`")));
                }
            }
            if let Expr::UserAggregate(function, args, _) = part {
                let call = resolve_user_call(function, args, part, &scope)?;
                return Ok(Some(Self::placed(calls, keys.len(), call)));
            }
            if matches!(part, Expr::Literal(..) | Expr::Alias(..)) {
                return Ok(None);
            }
            if !has_aggregate(part)
                && let Ok(resolved) = resolve(part, &scope)
                && let Some(at) = keys.iter().position(|(key, _)| *key == resolved)
            {
                let node = Node::Column(at, keys[at].1.clone());
                let nullable = resolved.nullable || has_sets;
                return Ok(Some(Resolved { node, data_type: resolved.data_type, nullable }));
            }
            if let Expr::Column { parts, place } = part {
                // A field of a key.
                for end in (1..parts.len()).rev() {
                    let prefix = Expr::Column { parts: parts[..end].to_vec(), place: *place };
                    if let Ok(resolved) = resolve(&prefix, &scope)
                        && let Some(at) = keys.iter().position(|(key, _)| *key == resolved)
                    {
                        let node = Node::Column(at, keys[at].1.clone());
                        let key = Resolved { node, ..resolved };
                        let field = |of, name: &String| functions::field_of(of, name);
                        return parts[end..].iter().try_fold(key, field).map(Some);
                    }
                }
                // Unknown at all, or known but not grouped by.
                resolve(part, &scope)?;
                let condition =
                    if keys.is_empty() { "MISSING_GROUP_BY" } else { "MISSING_AGGREGATION" };
                return Err(PlanError::new(
                    condition,
                    format!(
                        "`{}` is neither grouped by nor inside an aggregate function",
                        parts.join(".")
                    ),
                    format!(
                        "Add it to GROUP BY, or take max({}) or another aggregate of it",
                        parts.join(".")
                    ),
                ));
            }
            Ok(None)
        };
        resolve_with(expr, &self.scope, &mut hook)
    }

    /// The aggregation, with the given conditions (HAVING) and output columns over it.
    pub fn finish(mut self, select: &[Expr], having: Option<&Expr>) -> PlanResult<Plan> {
        let mut columns = Vec::new();
        let select: Vec<Expr> = select.iter().map(|expr| self.rewritten(expr)).collect();
        let having = having.map(|expr| self.rewritten(expr));
        let (select, having) = (select.as_slice(), having.as_ref());
        for expr in select {
            if is_generator(unaliased(expr)) {
                return Err(PlanError::new(
                    "UNSUPPORTED_GENERATOR.NESTED_IN_EXPRESSIONS",
                    "explode cannot stand beside aggregates",
                    "Explode in a subquery: FROM (SELECT explode(…) AS x FROM …)",
                )
                .at(unaliased(expr).place()));
            }
            columns.push((self.resolve(expr)?, expr.output_name()));
        }
        let having = match having {
            Some(having) => {
                let with_aliases = substitute(having, select, &self.scope);
                let resolved = self.resolve(&with_aliases)?;
                Some(boolean(resolved, having, "HAVING")?)
            }
            None => None,
        };
        let (mut input, mut keys) = (self.input, self.keys);
        if let Some(sets) = &self.sets {
            let width = input.width();
            input = Self::expanded(input, &keys, sets)?;
            for (at, (key, name)) in keys.iter_mut().enumerate() {
                let node = Node::Column(width + at, name.clone());
                *key = Resolved { node, data_type: key.data_type.clone(), nullable: true };
            }
        }
        let mut plan = Plan::Aggregate(Box::new(input), keys, self.calls);
        if let Some(having) = having {
            plan = Plan::Filter(Box::new(plan), having);
        }
        Ok(Plan::Project(Box::new(plan), columns))
    }
}

/// Replaces names that are no columns but aliases of the SELECT list.
fn substitute(expr: &Expr, select: &[Expr], scope: &Scope) -> Expr {
    match expr {
        Expr::Column { parts, .. } if parts.len() == 1 && resolve(expr, scope).is_err() => {
            let alias = select.iter().find_map(|e| match e {
                Expr::Alias(inner, name) if name.eq_ignore_ascii_case(&parts[0]) => Some(&**inner),
                _ => None,
            });
            alias.unwrap_or(expr).clone()
        }
        Expr::Call { name, args, distinct, filter, place } => Expr::Call {
            name: name.clone(),
            args: args.iter().map(|arg| substitute(arg, select, scope)).collect(),
            distinct: *distinct,
            filter: filter.clone(),
            place: *place,
        },
        other => other.clone(),
    }
}

/// `UNION ALL`: columns by position, brought to common types.
pub fn union(left: Plan, right: Plan) -> PlanResult<Plan> {
    let (a, b) = (left.scope().columns, right.scope().columns);
    if a.len() != b.len() {
        return Err(PlanError::new(
            "NUM_COLUMNS_MISMATCH",
            format!("`UNION` needs equally many columns, but has {} and {}", a.len(), b.len()),
            "",
        ));
    }
    let mut types = Vec::new();
    for (x, y) in a.iter().zip(&b) {
        let common = common_type(&x.data_type, &y.data_type).ok_or_else(|| {
            PlanError::new(
                "INCOMPATIBLE_COLUMN_TYPE",
                format!(
                    "`{}` is {} on one side and {} on the other",
                    x.name, x.data_type, y.data_type
                ),
                "Cast one of them",
            )
        })?;
        types.push(common);
    }
    let widen = |plan: Plan| {
        let columns = plan.scope().columns;
        if columns.iter().zip(&types).all(|(c, t)| c.data_type == *t) {
            return plan;
        }
        let exprs = columns.into_iter().enumerate().zip(&types).map(|((i, c), to)| {
            let node = Node::Column(i, c.name.clone());
            let column = Resolved { node, data_type: c.data_type, nullable: c.nullable };
            (column.coerce(to), c.name)
        });
        Plan::Project(Box::new(plan), exprs.collect())
    };
    let mut inputs = match widen(left) {
        Plan::Union(inputs) => inputs,
        other => vec![other],
    };
    inputs.push(widen(right));
    Ok(Plan::Union(inputs))
}

/// `ORDER BY`: over the output columns.
pub fn sort(input: Plan, keys: &[(Expr, bool, Option<bool>)]) -> PlanResult<Plan> {
    use super::value::Value;
    let scope = input.scope();
    let keys = keys.iter().map(|(expr, descending, nulls_first)| {
        let expr = match expr {
            Expr::Literal(Value::Long(position), DataType::Int) => {
                let at = usize::try_from(position - 1).ok().filter(|at| *at < scope.columns.len());
                let at = at.ok_or_else(|| {
                    PlanError::new(
                        "ORDER_BY_POS_OUT_OF_RANGE",
                        format!("`ORDER BY` {position}"),
                        "Count from 1",
                    )
                })?;
                let column = &scope.columns[at];
                Resolved {
                    node: Node::Column(at, column.name.clone()),
                    data_type: column.data_type.clone(),
                    nullable: column.nullable,
                }
            }
            expr => resolve(expr, &scope)?,
        };
        // Spark: NULLs first when ascending, last when descending.
        let nulls_first = nulls_first.unwrap_or(!descending);
        Ok(SortKey { expr, descending: *descending, nulls_first })
    });
    let keys = keys.collect::<PlanResult<_>>()?;
    Ok(Plan::Sort(Box::new(input), keys))
}

/// Refuses combinations of operators and output mode that have no meaning on a stream.
pub fn check_output_mode(plan: &Plan, mode: OutputMode) -> PlanResult<()> {
    let unsupported = |operation: &str, fix: &str| {
        Err(PlanError::new(
            "STREAMING_OUTPUT_MODE.UNSUPPORTED_OPERATION",
            format!("output mode {} is not supported for {operation}", mode.name()),
            fix,
        ))
    };
    check_distinct(plan)?;
    check_order(plan, mode)?;
    if mode == OutputMode::Complete && !plan.has_aggregate() {
        return unsupported(
            "queries without streaming aggregations: the whole table would have to be kept",
            "Use append or update, or GROUP BY something",
        );
    }
    if mode == OutputMode::Append
        && !all_aggregates(plan, &|input, keys| event_key(input, keys).is_some())
    {
        return unsupported(
            "streaming aggregations without a watermark: a count is never final",
            "Group by an event time with a watermark or a window of it, use update to see changes, \
             or complete to see the table",
        );
    }
    let no_session = |input: &Plan, keys: &[_]| session_key(input, keys).is_none();
    if mode == OutputMode::Update && !all_aggregates(plan, &no_session) {
        return unsupported(
            "session window streaming aggregations: a session that grows takes others back",
            "Use append with a watermark to see sessions that are over, or complete",
        );
    }
    check_deduplication(plan)?;
    check_event_times(plan)?;
    check_sessions(plan)?;
    if mode != OutputMode::Append && aggregates_over_aggregates(plan) {
        return Err(PlanError::new(
            "STREAMING_STATEFUL_CHAIN_UNSUPPORTED",
            format!(
                "an aggregation over a running aggregation cannot be kept right in output mode {}",
                mode.name()
            ),
            "Aggregate once",
        ));
    }
    Ok(())
}

/// A condition on the input and the keys of an aggregation.
type Holds<'h> = dyn Fn(&Plan, &[(Resolved, String)]) -> bool + 'h;

/// Whether a condition holds for all aggregations.
fn all_aggregates(plan: &Plan, holds: &Holds<'_>) -> bool {
    let own = match plan {
        Plan::Aggregate(input, keys, _) => holds(input, keys),
        _ => true,
    };
    own && plan.inputs().into_iter().all(|input| all_aggregates(input, holds))
}

/// What two sessions have kept must become one when they do.
fn check_sessions(plan: &Plan) -> PlanResult<()> {
    if let Plan::Aggregate(input, keys, calls) = plan
        && session_key(input, keys).is_some()
        && let Some(call) = calls.iter().find(|call| call.user.is_some())
    {
        let what =
            format!("`{}`, a function of the program's own, over a session window,", call.name);
        return Err(PlanError::not_yet(what).at(call.place));
    }
    plan.inputs().into_iter().try_for_each(check_sessions)
}

fn check_deduplication(plan: &Plan) -> PlanResult<()> {
    if let Plan::Deduplicate { input, within: true, .. } = plan
        && !input.scope().columns.iter().any(|column| column.tag.delay_ms.is_some())
    {
        return Err(PlanError::new(
            "STREAMING_DEDUPLICATION_WITHOUT_WATERMARK",
            "drop_duplicates_within_watermark is not supported without a watermark: nothing says \
             when a key may be forgotten",
            "Declare one first: with_watermark(\"time\", \"10 minutes\")",
        ));
    }
    plan.inputs().into_iter().try_for_each(check_deduplication)
}

/// An operator with state goes by one event time, whose watermark is declared once.
fn check_event_times(plan: &Plan) -> PlanResult<()> {
    let mut times: Vec<String> = match plan {
        Plan::Aggregate(input, keys, _) => {
            let scope = input.scope();
            let timed = keys.iter().filter(|(key, _)| tag(key, &scope).delay_ms.is_some());
            timed.map(|(_, name)| name.clone()).collect()
        }
        Plan::Deduplicate { input, .. } => {
            let columns = input.scope().columns;
            columns.into_iter().filter(|c| c.tag.delay_ms.is_some()).map(|c| c.name).collect()
        }
        other => return other.inputs().into_iter().try_for_each(check_event_times),
    };
    times.sort_unstable();
    times.dedup_by(|a, b| a.eq_ignore_ascii_case(b));
    if times.len() > 1 {
        return Err(PlanError::new(
            "MULTIPLE_EVENT_TIME_COLUMNS",
            format!(
                "an aggregation or deduplication has several event times ({}), and could go by \
                 either",
                times.join(", ")
            ),
            "Keep one of them: a window or a time, not both. CAST(time AS STRING) is a value \
             like others",
        ));
    }
    if plan.inputs().into_iter().any(redefines_watermark) {
        return Err(PlanError::new(
            "WATERMARK_REDEFINED",
            "Redefining watermark is disallowed: below this aggregation or deduplication a \
             watermark is declared over a table that already has one",
            "Declare it once, with the longest delay that is needed",
        ));
    }
    plan.inputs().into_iter().try_for_each(check_event_times)
}

/// Whether a watermark is declared above another one.
fn redefines_watermark(plan: &Plan) -> bool {
    match plan {
        Plan::Watermark { input, .. } => has_watermark(input),
        other => other.inputs().into_iter().any(redefines_watermark),
    }
}

fn check_distinct(plan: &Plan) -> PlanResult<()> {
    if let Plan::Aggregate(_, _, calls) = plan
        && let Some(call) = calls.iter().find(|call| call.distinct)
    {
        return Err(PlanError::new(
            "STREAMING_DISTINCT_AGGREGATION_UNSUPPORTED",
            "distinct aggregates need every value of a stream to be kept for ever",
            "Use approx_count_distinct() for a count, or collect_set()",
        )
        .at(call.place));
    }
    plan.inputs().into_iter().try_for_each(check_distinct)
}

fn aggregates_over_aggregates(plan: &Plan) -> bool {
    match plan {
        Plan::Aggregate(input, ..) => input.has_aggregate(),
        other => other.inputs().into_iter().any(aggregates_over_aggregates),
    }
}

/// Sorts and limits stand only where the result table is whole.
fn check_order(plan: &Plan, mode: OutputMode) -> PlanResult<()> {
    let whole_table = mode == OutputMode::Complete && plan.has_aggregate();
    match plan {
        Plan::Sort(..) if !whole_table => Err(PlanError::new(
            "STREAMING_SORT_UNSUPPORTED",
            "an unbounded table cannot be sorted",
            "Sort an aggregation in output mode complete",
        )),
        Plan::Limit(..) if mode == OutputMode::Update => Err(PlanError::new(
            "STREAMING_LIMIT_UNSUPPORTED",
            "the first rows of changing rows have no meaning in output mode update",
            "Use output mode complete, with ORDER BY",
        )),
        other => other.inputs().into_iter().try_for_each(|input| check_order(input, mode)),
    }
}
