//! GROUP BY: keys, grouping sets, and the expressions in SELECT, HAVING and ORDER BY that refer to
//! groups.

mod clauses_above;

pub(in crate::table) use self::clauses_above::check_qualify_aggregates;
use crate::table::error::{PlanError, PlanResult, counted};
use crate::table::expr::common_subexpression::fingerprint;
use crate::table::expr::resolve::{Scope, resolve, resolve_with};
use crate::table::expr::type_rules::Rules;
use crate::table::expr::{Expr, Node, Resolved, functions, lower};
use crate::table::plan::Plan;
use crate::table::plan::aggregate_function::{
    AggregateCall, AggregateFunction, refuse_random, resolve_call, resolve_user_call,
};
use crate::table::plan::analyzer::{
    boolean, has_aggregate, has_aggregate_itself, order_position, unaliased, with_metadata_for,
};
use crate::table::plan::generator::{Generator, GeneratorOutput, is_generator};
use crate::table::plan::time_window::{Window, session_key, windowed};
use crate::table::plan::within_group;
use crate::table::types::DataType;
use crate::table::value::Value;
use std::borrow::Cow;
use std::collections::HashMap;

/// A `GROUP BY`, and the aggregate calls in the expressions that refer to its groups.
pub struct Grouping {
    input: Plan,
    scope: Scope,
    keys: Vec<(Resolved, String)>,
    calls: Calls,
    /// The key indices of each grouping set of ROLLUP, CUBE or GROUPING SETS. In addition to the
    /// user's keys there is a key with the ID of the set: a bit for each key that is not in the
    /// set. If some sets are equal, one more key is the index of the set.
    sets: Option<Vec<Vec<usize>>>,
    /// Whether there is one grouping set, and no keys. Then all rows are one group, which exists
    /// even without rows.
    is_total: bool,
    /// The window call in the keys or the SELECT list; `None` if there is none.
    window: Option<Window>,
}

/// The name of the column with the ID of a grouping set.
const GROUPING_ID: &str = "spark_grouping_id";
/// The name of the column with the index of a grouping set.
const GROUPING_PLACE: &str = "grouping_set_place";

/// Replaces a key that is an ordinal or an alias by the expression of `select` to which it refers,
/// if the session's settings allow it. Any other key is returned unchanged. A column of the input
/// takes precedence over an alias. An ordinal out of range, or of an aggregate, is an error.
fn written_key(scope: &Scope, key: &Expr, select: &[Expr]) -> PlanResult<Expr> {
    let naming = Rules::current().naming;
    match key {
        Expr::Literal(Value::Long(position), DataType::Int) if naming.group_by_ordinal => {
            let at = usize::try_from(*position - 1).ok().and_then(|at| select.get(at));
            let found = at.ok_or_else(|| {
                PlanError::new(
                    "GROUP_BY_POS_OUT_OF_RANGE",
                    format!(
                        "`GROUP BY` {position}, but the SELECT list has {}",
                        counted(select.len(), "column")
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
        key if naming.group_by_aliases => Ok(without_aliases(key, scope, select)),
        other => Ok(other.clone()),
    }
}

/// Replaces each name in a key that is not a column of the input by the expression of `select` with
/// this alias or output name. The names in a lambda are not replaced.
fn without_aliases(key: &Expr, scope: &Scope, select: &[Expr]) -> Expr {
    match key {
        Expr::Column { parts, .. } if resolve(key, scope).is_err() => {
            let [name] = parts.as_slice() else { return key.clone() };
            let is_column = |e: &&Expr| matches!(e, Expr::Column { .. } | Expr::Position(..));
            let mut named = select.iter().filter(|e| e.output_name().eq_ignore_ascii_case(name));
            let alias = named.find(|e| !is_column(e));
            alias.unwrap_or(key).clone()
        }
        Expr::Lambda(..) => key.clone(),
        _ => key.map_children(&mut |part| without_aliases(part, scope, select)),
    }
}

/// The aggregate calls in order of appearance, each once.
#[derive(Default)]
struct Calls {
    all: Vec<AggregateCall>,
    by_fingerprint: HashMap<u64, Vec<usize>>,
}

impl Calls {
    /// The index of a call. The call is added unless an equal call exists.
    fn place(&mut self, call: AggregateCall) -> usize {
        let parts = call.args.iter().chain(&call.filter).map(fingerprint);
        let place = parts.fold(0, |all: u64, part| all.rotate_left(1) ^ part);
        let same = |c: &AggregateCall| {
            (c.function, &c.user, &c.args, &c.filter, c.distinct, &c.order)
                == (call.function, &call.user, &call.args, &call.filter, call.distinct, &call.order)
        };
        let places = self.by_fingerprint.entry(place).or_default();
        if let Some(at) = places.iter().find(|at| same(&self.all[**at])) {
            return *at;
        }
        places.push(self.all.len());
        self.all.push(call);
        self.all.len() - 1
    }
}

impl Grouping {
    /// Groups by expressions. A key may be the ordinal or an alias of a column of `select`.
    pub fn new(input: Plan, keys: &[Expr], select: &[Expr]) -> PlanResult<Self> {
        Self::with_sets(input, keys, None, select)
    }

    /// Like [`Self::new`], with grouping sets: each row belongs to one group per set.
    pub fn with_sets(
        input: Plan,
        keys: &[Expr],
        sets: Option<Vec<Vec<usize>>>,
        select: &[Expr],
    ) -> PlanResult<Self> {
        let mut input = with_metadata_for(input, select)?;
        let written: Vec<Expr> = keys
            .iter()
            .map(|key| written_key(&input.scope(), key, select))
            .collect::<PlanResult<_>>()?;
        let window;
        (input, window) = windowed(input, written.iter().chain(select))?;
        let scope = input.scope();
        let (keys, calls) = (Vec::new(), Calls::default());
        let mut grouping = Self { input, scope, keys, calls, sets: None, is_total: false, window };
        let mut places = Vec::new();
        for key in written {
            // Only a call is replaced by the window's column; a column named `window` is another
            // key.
            let key = match &grouping.window {
                Some(window) if !matches!(unaliased(&key), Expr::Column { .. }) => {
                    window.rewrite(&key)
                }
                _ => key,
            };
            if has_aggregate(&key) {
                return Err(PlanError::new(
                    "GROUP_BY_AGGREGATE",
                    format!("`GROUP BY` has an aggregate: `{key}`"),
                    "Aggregate in a subquery",
                )
                .at(key.place()));
            }
            let resolved = resolve(unaliased(&key), &grouping.scope)?;
            check_key(&resolved).map_err(|error| error.at(key.place()))?;
            let same = grouping.keys.iter().position(|(other, _)| same(other, &resolved));
            places.push(same.unwrap_or(grouping.keys.len()));
            if same.is_none() {
                grouping.keys.push((resolved, key.output_name()));
            }
        }
        if let Some(sets) = sets {
            let placed = |set: Vec<usize>| {
                let mut set: Vec<_> = set.into_iter().map(|key| places[key]).collect();
                set.sort_unstable();
                set.dedup();
                set
            };
            let sets: Vec<Vec<usize>> = sets.into_iter().map(placed).collect();
            grouping.is_total = sets.len() == 1 && grouping.keys.is_empty();
            if !grouping.is_total {
                let mut add = |name: &str| {
                    let node = Node::Column(usize::MAX, name.to_string());
                    let key = Resolved { node, data_type: DataType::Long, nullable: false };
                    grouping.keys.push((key, name.to_string()));
                };
                add(GROUPING_ID);
                if (1..sets.len()).any(|i| sets[..i].contains(&sets[i])) {
                    add(GROUPING_PLACE);
                }
                grouping.sets = Some(sets);
            }
        }
        Ok(grouping)
    }

    /// Emits each input row once per grouping set. The keys and the ID of the set are added after
    /// the columns of the input.
    fn expanded(input: Plan, keys: &[(Resolved, String)], sets: &[Vec<usize>]) -> PlanResult<Plan> {
        let count = keys.iter().position(|(_, name)| name == GROUPING_ID).unwrap_or(keys.len());
        let mut rows = Vec::new();
        for (place, set) in sets.iter().enumerate() {
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
            for (name, value) in [("id", number), ("place", place as i64)] {
                fields.push(Resolved::literal(Value::String(name.to_string()), DataType::String));
                fields.push(Resolved::literal(Value::Long(value), DataType::Long));
            }
            // The index of the set is dropped if it is not a key.
            fields.truncate(2 * keys.len());
            rows.push(functions::resolve("named_struct", fields)?);
        }
        let generator = Generator {
            array: functions::resolve("array", rows)?,
            output: GeneratorOutput::Fields,
            with_position: false,
            outer: false,
            names: keys.iter().map(|(_, name)| name.clone()).collect(),
            name: "grouping_sets".to_string(),
        };
        Ok(Plan::Generate(Box::new(input), generator))
    }

    /// Resolves `grouping(key)` and `grouping_id()` to expressions over the columns of the groups.
    fn set_number(
        keys: &[(Resolved, String)],
        is_total: bool,
        name: &str,
        args: &[Expr],
        scope: &Scope,
    ) -> PlanResult<Resolved> {
        let at = keys.iter().position(|(_, name)| name == GROUPING_ID);
        let Some(at) = at.or(is_total.then_some(0)) else {
            return Err(PlanError::new(
                "UNSUPPORTED_GROUPING_EXPRESSION",
                format!("`{name}` belongs to GROUP BY with ROLLUP, CUBE or GROUPING SETS"),
                "grouping(key) takes one of its keys",
            ));
        };
        let resolved =
            args.iter().map(|arg| resolve(arg, scope)).collect::<PlanResult<Vec<_>>>()?;
        let node = Node::Column(at, GROUPING_ID.to_string());
        let number = Resolved { node, data_type: DataType::Long, nullable: false };
        if name == "grouping_id" {
            if !args.is_empty() && !resolved.iter().eq(keys[..at].iter().map(|(key, _)| key)) {
                return Err(PlanError::new(
                    "GROUPING_ID_COLUMN_MISMATCH",
                    "the arguments of `grouping_id` are not the keys of GROUP BY in their order",
                    "Write grouping_id() for all of them",
                ));
            }
            let none = || Resolved::literal(Value::Long(0), DataType::Long);
            return Ok(if is_total { none() } else { number });
        }
        let key = match resolved.as_slice() {
            [key] => keys[..at].iter().position(|(other, _)| same(other, key)),
            _ => None,
        };
        let key = key.ok_or_else(|| {
            PlanError::new(
                "GROUPING_COLUMN_MISMATCH",
                "the argument of `grouping` is none of the keys of GROUP BY",
                "grouping(key) takes one of its keys",
            )
        })?;
        let shift = Resolved::literal(Value::Long((at - 1 - key) as i64), DataType::Int);
        let one = Resolved::literal(Value::Long(1), DataType::Long);
        let bit = functions::resolve(
            "&",
            vec![functions::resolve("shiftright", vec![number, shift])?, one],
        )?;
        Ok(bit.coerce(&DataType::Byte))
    }

    /// Replaces window calls in an expression by the column of the window.
    fn rewritten<'e>(&self, expr: &'e Expr) -> Cow<'e, Expr> {
        match &self.window {
            Some(window) => Cow::Owned(window.rewrite(expr)),
            None => Cow::Borrowed(expr),
        }
    }

    /// The column of an aggregate call. Equal calls share one column.
    fn placed(calls: &mut Calls, keys: usize, call: AggregateCall) -> Resolved {
        // Equal calls may be written differently; each reference keeps the name of its own call.
        let node = |at, name| Node::Column(keys + at, name);
        let (data_type, nullable) = (call.data_type.clone(), call.function.is_nullable());
        let name = call.name.clone();
        Resolved { node: node(calls.place(call), name), data_type, nullable }
    }

    /// Resolves an expression over the groups: keys and aggregate calls become columns.
    pub fn resolve(&mut self, expr: &Expr) -> PlanResult<Resolved> {
        let (scope, keys, calls) = (&self.scope, &self.keys, &mut self.calls);
        let (has_sets, is_total) = (self.sets.is_some(), self.is_total);
        let mut hook = |part: &Expr| -> PlanResult<Option<Resolved>> {
            if let Expr::Call { name, args, .. } = part
                && matches!(&*lower(name), "grouping" | "grouping_id")
            {
                let name = lower(name);
                return Self::set_number(keys, is_total, &name, args, scope).map(Some);
            }
            if let (Expr::Call { name, .. }, _) = within_group::parts(part)
                && has_aggregate_itself(part)
            {
                let lower = lower(name);
                if let Some(function) = AggregateFunction::of(&lower) {
                    let call = refuse_random(resolve_call(function, part, scope)?)?;
                    return Ok(Some(Self::placed(calls, keys.len(), call)));
                }
            }
            if let Expr::UserAggregate(function, args, _) = part {
                let call = refuse_random(resolve_user_call(function, args, part, scope)?)?;
                return Ok(Some(Self::placed(calls, keys.len(), call)));
            }
            // With grouping sets, a constant may be a key, which is NULL in the sets that do not
            // contain it.
            if matches!(part, Expr::Literal(..)) && !has_sets || matches!(part, Expr::Alias(..)) {
                return Ok(None);
            }
            if !has_aggregate(part)
                && let Ok(resolved) = resolve(part, scope)
                && let Some(at) = keys.iter().position(|(key, _)| same(key, &resolved))
            {
                let node = Node::Column(at, keys[at].1.clone());
                let nullable = resolved.nullable || has_sets;
                return Ok(Some(Resolved { node, data_type: resolved.data_type, nullable }));
            }
            if let Expr::Position(_, parts) = part {
                return Err(not_grouped(parts, keys.is_empty()));
            }
            if let Expr::Column { parts, place } = part {
                // The name may refer to a field of a key: a prefix of its parts is the key.
                for end in (1..parts.len()).rev() {
                    let prefix = Expr::Column { parts: parts[..end].to_vec(), place: *place };
                    if let Ok(resolved) = resolve(&prefix, scope)
                        && let Some(at) = keys.iter().position(|(key, _)| *key == resolved)
                    {
                        let node = Node::Column(at, keys[at].1.clone());
                        let key = Resolved { node, ..resolved };
                        let field = |of, name: &String| functions::field_of(of, name);
                        return parts[end..].iter().try_fold(key, field).map(Some);
                    }
                }
                // An unknown column has its own error; any other column is not a grouping key.
                resolve(part, scope)?;
                return Err(not_grouped(parts, keys.is_empty()));
            }
            Ok(None)
        };
        resolve_with(expr, &self.scope, &mut hook)
    }

    /// Builds the aggregation, then HAVING and the output columns.
    pub fn finish(self, select: &[Expr], having: Option<&Expr>) -> PlanResult<Plan> {
        self.finish_ordered(select, having, &[]).map(|(plan, _)| plan)
    }

    /// Like [`Self::finish`], with ORDER BY. Also returns the column index of each ORDER BY key.
    /// Keys that are not in the SELECT list become additional columns.
    pub fn finish_ordered(
        mut self,
        select: &[Expr],
        having: Option<&Expr>,
        order: &[&Expr],
    ) -> PlanResult<(Plan, Vec<usize>)> {
        let mut columns = Vec::new();
        let rewritten: Vec<Expr>;
        let select = match &self.window {
            Some(window) => {
                rewritten = select.iter().map(|expr| window.rewrite(expr)).collect();
                &rewritten
            }
            None => select,
        };
        let having = having.map(|expr| self.rewritten(expr));
        let having = having.as_deref();
        for expr in select {
            self.check_numbers(expr)?;
        }
        for expr in select {
            if is_generator(unaliased(expr)) {
                return Err(PlanError::new(
                    "UNSUPPORTED_GENERATOR.NESTED_IN_EXPRESSIONS",
                    "a generator cannot be used together with aggregates",
                    "Explode in a subquery: FROM (SELECT explode(…) AS x FROM …)",
                )
                .at(unaliased(expr).place()));
            }
            columns.push((self.resolve(expr)?, expr.output_name()));
        }
        let having = match having {
            Some(having) => {
                let resolved = self.resolve_above(having, select)?;
                Some(boolean(resolved, having, "HAVING")?)
            }
            None => None,
        };
        let having_adds = having.as_ref().is_some_and(|having| {
            self.window.is_none() && self.sets.is_none() && reads_beyond(having, &columns)
        });
        let mut places = Vec::new();
        for key in order {
            let key = self.rewritten(key);
            places.push(self.order_place(&key, select, &mut columns, having_adds)?);
        }
        let (mut input, mut keys) = (self.input, self.keys);
        if let Some(sets) = &self.sets {
            let width = input.width();
            input = Self::expanded(input, &keys, sets)?;
            for (at, (key, name)) in keys.iter_mut().enumerate() {
                let node = Node::Column(width + at, name.clone());
                *key = Resolved { node, data_type: key.data_type.clone(), nullable: true };
            }
        }
        // Sessions may merge, but the accumulators of a user-defined function cannot be merged.
        let calls = self.calls.all;
        if session_key(&input, &keys).is_some()
            && let Some(call) = calls.iter().find(|call| call.user.is_some())
        {
            let what = format!("`{}`, a user-defined function, over a session window,", call.name);
            return Err(PlanError::not_yet(what).at(call.place));
        }
        let mut plan = Plan::Aggregate(Box::new(input), keys, calls);
        if let Some(having) = having {
            plan = Plan::Filter(Box::new(plan), having);
        }
        Ok((Plan::Project(Box::new(plan), columns), places))
    }

    /// Checks the arguments of `grouping` and `grouping_id`, so that their errors are reported
    /// first.
    fn check_numbers(&self, expr: &Expr) -> PlanResult<()> {
        if let Expr::Call { name, args, place, .. } = expr
            && matches!(&*lower(name), "grouping" | "grouping_id")
        {
            let name = lower(name);
            let made = Self::set_number(&self.keys, self.is_total, &name, args, &self.scope);
            return made.map(|_| ()).map_err(|error| error.at(*place));
        }
        let mut checked = Ok(());
        expr.each_part(&mut |part| {
            if checked.is_ok() {
                checked = self.check_numbers(part);
            }
        });
        checked
    }

    /// Resolves an expression of HAVING or ORDER BY, which may use aliases of the SELECT list.
    fn resolve_above(&mut self, expr: &Expr, select: &[Expr]) -> PlanResult<Resolved> {
        // As in Spark, `grouping` is not supported here if some grouping sets are equal.
        let repeated = self.keys.iter().any(|(_, name)| name == GROUPING_PLACE);
        if repeated && has_grouping_function(expr) {
            return Err(PlanError::new(
                "UNSUPPORTED_GROUPING_EXPRESSION",
                "HAVING or ORDER BY has `grouping` or `grouping_id`, and some grouping sets are \
                equal",
                "Select them",
            )
            .at(expr.place()));
        }
        check_aliases(expr, select, &self.scope)?;
        let with_aliases = substitute(expr, select, &self.scope);
        self.resolve(&with_aliases).map_err(|error| match error.condition.as_str() {
            // In HAVING and ORDER BY, Spark reports a column that is not grouped by as unknown.
            "MISSING_AGGREGATION" | "MISSING_GROUP_BY" => {
                let condition = "UNRESOLVED_COLUMN.WITH_SUGGESTION".to_string();
                PlanError { condition, ..error }
            }
            _ => error,
        })
    }

    /// The index of the output column for an ORDER BY key. The column is added if it does not
    /// exist.
    fn order_place(
        &mut self,
        key: &Expr,
        select: &[Expr],
        columns: &mut Vec<(Resolved, String)>,
        having_adds: bool,
    ) -> PlanResult<usize> {
        if let Some(at) = order_position(key, select.len()) {
            return at;
        }
        if let Expr::Column { parts, .. } = key
            && let [name] = parts.as_slice()
        {
            let named = |(_, other): &(Resolved, String)| other.eq_ignore_ascii_case(name);
            let found: Vec<usize> = (0..select.len()).filter(|at| named(&columns[*at])).collect();
            match found.as_slice() {
                [] => {}
                [only] => return Ok(*only),
                [first, rest @ ..]
                    if rest.iter().all(|at| columns[*at].0 == columns[*first].0)
                        && found.iter().all(|at| {
                            matches!(select[*at], Expr::Column { .. } | Expr::Position(..))
                        }) =>
                {
                    return Ok(*first);
                }
                // The name is ambiguous in the SELECT list, but is a column of the input.
                _ if resolve(key, &self.scope).is_ok() => {}
                _ => {
                    return Err(PlanError::new(
                        "UNRESOLVED_COLUMN.WITH_SUGGESTION",
                        format!("`{name}` could be any of {} columns", found.len()),
                        "Give them different names",
                    )
                    .at(key.place()));
                }
            }
        }
        if having_adds {
            self.check_key_above(key, select)?;
        }
        let key = &with_outputs(key, select);
        let resolved = self.resolve_above(key, select)?;
        Ok(columns.iter().position(|(other, _)| *other == resolved).unwrap_or_else(|| {
            columns.push((resolved, key.output_name()));
            columns.len() - 1
        }))
    }
}

/// Whether a condition over the groups reads a column that is not in the SELECT list.
fn reads_beyond(condition: &Resolved, columns: &[(Resolved, String)]) -> bool {
    match &condition.node {
        Node::Column(..) => !columns.iter().any(|(column, _)| column.node == condition.node),
        _ => condition.children().into_iter().any(|child| reads_beyond(child, columns)),
    }
}

/// Collects the column references of an expression, without the parameters of lambdas.
pub(in crate::table) fn named_columns<'e>(expr: &'e Expr, out: &mut Vec<&'e Expr>) {
    match expr {
        Expr::Column { .. } | Expr::Position(..) => out.push(expr),
        Expr::Lambda(names, body) => {
            let from = out.len();
            named_columns(body, out);
            let is_parameter = |expr: &Expr| match expr {
                Expr::Column { parts, .. } => {
                    names.iter().any(|name| name.eq_ignore_ascii_case(&parts[0]))
                }
                _ => false,
            };
            let free: Vec<_> = out.drain(from..).filter(|expr| !is_parameter(expr)).collect();
            out.extend(free);
        }
        _ => expr.each_part(&mut |part| named_columns(part, out)),
    }
}

/// Replaces unambiguous aliases of output columns by their expressions, except inside of
/// aggregates, grouping functions and lambdas.
fn with_outputs(expr: &Expr, select: &[Expr]) -> Expr {
    match expr {
        Expr::Column { parts, .. } if parts.len() == 1 => {
            let named = |item: &&Expr| item.output_name().eq_ignore_ascii_case(&parts[0]);
            let mut named = select.iter().filter(named);
            match (named.next(), named.next()) {
                (Some(Expr::Alias(inner, _)), None) => (**inner).clone(),
                _ => expr.clone(),
            }
        }
        Expr::Call { .. } if has_aggregate_itself(expr) || has_grouping_function(expr) => {
            expr.clone()
        }
        Expr::UserAggregate(..) | Expr::Lambda(..) | Expr::WithinGroup(..) => expr.clone(),
        _ => expr.map_children(&mut |part| with_outputs(part, select)),
    }
}

/// Fails if values of a key cannot be compared.
fn check_key(key: &Resolved) -> PlanResult<()> {
    if !key.data_type.has_variant() {
        return Ok(());
    }
    Err(PlanError::new(
        "GROUP_EXPRESSION_TYPE_IS_NOT_ORDERABLE",
        format!("`{key}` is {}, whose values cannot be compared", key.data_type),
        "Group by CAST(x AS STRING), or by a part that variant_get casts",
    ))
}

fn has_grouping_function(expr: &Expr) -> bool {
    let mut found = matches!(
        expr, Expr::Call { name, .. } if matches!(&*lower(name), "grouping" | "grouping_id")
    );
    expr.each_part(&mut |part| found = found || has_grouping_function(part));
    found
}

/// Whether two expressions are equal, regardless of the order of commutative operands.
fn same(a: &Resolved, b: &Resolved) -> bool {
    a == b || a.data_type == b.data_type && in_order(a.clone()) == in_order(b.clone())
}

/// Sorts the operands of commutative operators such as `+` and `=`, and turns `>` and `>=` around,
/// so that such equivalent expressions become equal. The result is only for comparing expressions,
/// because it may compute in another order.
fn in_order(expr: Resolved) -> Resolved {
    fn operands(expr: Resolved, name: &str, out: &mut Vec<Resolved>) {
        match expr.node {
            Node::Call(other, args) if other == name => {
                args.into_iter().for_each(|arg| operands(arg, name, out));
            }
            node => out.push(Resolved { node, ..expr }),
        }
    }
    let expr = match expr.node {
        // A run has the operands of the operator calls inside it.
        Node::Run(_, inner) => return in_order(*inner),
        node => Resolved { node, ..expr }.map_children(&mut in_order),
    };
    match expr.node {
        Node::Call(name @ ("+" | "*" | "&" | "|" | "^" | "and" | "or"), args) => {
            let mut all = Vec::new();
            args.into_iter().for_each(|arg| operands(arg, name, &mut all));
            all.sort_by_key(|operand| format!("{operand:?}"));
            Resolved { node: Node::Call(name, all), ..expr }
        }
        Node::Call(name @ (">" | ">="), mut args) => {
            args.reverse();
            let turned = if name == ">" { "<" } else { "<=" };
            Resolved { node: Node::Call(turned, args), ..expr }
        }
        Node::Call(name @ ("=" | "<=>"), mut args) => {
            args.sort_by_key(|operand| format!("{operand:?}"));
            Resolved { node: Node::Call(name, args), ..expr }
        }
        node => Resolved { node, ..expr },
    }
}

/// The error of a column that is neither a grouping key nor inside an aggregate.
fn not_grouped(parts: &[String], without_keys: bool) -> PlanError {
    let name = parts.join(".");
    PlanError::new(
        if without_keys { "MISSING_GROUP_BY" } else { "MISSING_AGGREGATION" },
        format!("`{name}` is neither grouped by nor inside an aggregate function"),
        format!("Add it to GROUP BY, or take max({name}) or another aggregate of it"),
    )
}

/// Fails if a name is not a column but an alias of several columns of the SELECT list.
fn check_aliases(expr: &Expr, select: &[Expr], scope: &Scope) -> PlanResult<()> {
    let mut names = Vec::new();
    named_columns(expr, &mut names);
    names.into_iter().try_for_each(|column| match column {
        Expr::Column { parts, place } if resolve(column, scope).is_err() => {
            let named = |item: &&Expr| matches!(item, Expr::Alias(_, name) if name.eq_ignore_ascii_case(&parts[0]));
            match select.iter().filter(named).count() {
                0 | 1 => Ok(()),
                several => Err(PlanError::new(
                    "AMBIGUOUS_REFERENCE",
                    format!("`{}` could be any of {several} columns", parts[0]),
                    "Give them different names",
                )
                .at(*place)),
            }
        }
        _ => Ok(()),
    })
}

/// Whether an expression has a name of which a part passes the test.
pub(super) fn mentions(expr: &Expr, test: &dyn Fn(&String) -> bool) -> bool {
    let mut found = matches!(expr, Expr::Column { parts, .. } if parts.iter().any(test));
    expr.each_part(&mut |part| found |= mentions(part, test));
    found
}

/// Replaces names that are not columns of the scope by the expressions of the SELECT list that have
/// these aliases. Other names are returned unchanged.
pub(in crate::table) fn substitute(expr: &Expr, select: &[Expr], scope: &Scope) -> Expr {
    match expr {
        Expr::Column { parts, .. } if resolve(expr, scope).is_err() => {
            let Some((first, fields)) = parts.split_first() else { return expr.clone() };
            let alias = select.iter().find_map(|e| match e {
                Expr::Alias(inner, name) if name.eq_ignore_ascii_case(first) => Some(&**inner),
                _ => None,
            });
            let Some(alias) = alias else { return expr.clone() };
            let field = |of: Expr, name: &String| Expr::Field(Box::new(of), name.clone());
            fields.iter().fold(alias.clone(), field)
        }
        Expr::Lambda(names, _) => {
            // A parameter hides an alias of the same name. An alias whose expression has a column
            // of that name is not found either: the parameter would take the column's place.
            let is_parameter =
                |word: &String| names.iter().any(|name| name.eq_ignore_ascii_case(word));
            let is_visible = |item: &&Expr| match item {
                Expr::Alias(inner, alias) => {
                    !is_parameter(alias) && !mentions(inner, &is_parameter)
                }
                _ => true,
            };
            let visible: Vec<Expr> = select.iter().filter(is_visible).cloned().collect();
            expr.map_children(&mut |body| substitute(body, &visible, scope))
        }
        _ => expr.map_children(&mut |part| substitute(part, select, scope)),
    }
}
