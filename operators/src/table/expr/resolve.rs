//! Name resolution and type checking: column names become indices, and Spark's implicit casts are
//! added.

use super::bind::{is_random, used_repeatedly};
use super::coercion::today_at;
pub use super::coercion::{expect_type, unify, widest as common_type};
use super::functions::{self, row_origin};
use super::{Expr, Node, Resolved, call, lower};
use crate::table::error::{Place, PlanError, PlanResult};
use crate::table::expr::type_rules::Rules;
use crate::table::plan::aggregate_function::AggregateFunction;
use crate::table::plan::limits::count_copies;
use crate::table::plan::time_window::Tag;
use crate::table::plan::window_function::is_window_only;
use crate::table::types::{DataType, Field};
use crate::table::value::Value;
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::OnceLock;

/// A column that an expression can refer to.
#[derive(Clone, Debug, PartialEq)]
pub struct ScopeColumn {
    /// The name of the column's relation; `None` if the relation has no name.
    pub qualifier: Option<String>,
    /// The column's name, in its original case.
    pub name: String,
    /// The column's type.
    pub data_type: DataType,
    /// Whether the column can contain NULL.
    pub nullable: bool,
    /// The role of the column in event time, such as the event-time column or a window.
    pub tag: Tag,
    /// Whether the column is omitted from an unqualified `*` and found only by a qualified name,
    /// such as a replaced key column of a USING join.
    pub hidden: bool,
}

/// The columns that an expression can refer to, in row order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scope {
    /// The columns. The index of a column here is its index in the row.
    pub columns: Vec<ScopeColumn>,
    /// The lambda variables in scope, outermost first.
    pub variables: Vec<Field>,
    by_name: ByName,
}

/// An index of a wide scope's columns by lower-case name, built on first use. A clone starts
/// without the index, because the columns of the clone may be changed.
#[derive(Debug, Default)]
struct ByName(OnceLock<HashMap<String, Vec<usize>>>);

impl Clone for ByName {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl PartialEq for ByName {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// The largest number of columns that are searched without an index.
const FEW_COLUMNS: usize = 32;

impl Scope {
    /// Creates a scope of columns.
    pub fn new(columns: Vec<ScopeColumn>) -> Self {
        Self { columns, ..Self::default() }
    }

    /// Resolves the first part of a name as a lambda variable. If several match, the innermost
    /// wins.
    fn variable(&self, parts: &[String]) -> Option<Resolved> {
        let first = parts.first()?;
        let named = |variable: &Field| variable.name.eq_ignore_ascii_case(first);
        let index = self.variables.iter().rposition(named)?;
        let Field { name, data_type, nullable, .. } = self.variables[index].clone();
        Some(Resolved { node: Node::Variable(index, name), data_type, nullable })
    }

    /// The column with an index.
    pub fn column_at(&self, index: usize) -> Resolved {
        let column = &self.columns[index];
        Resolved {
            node: Node::Column(index, column.name.clone()),
            data_type: column.data_type.clone(),
            nullable: column.nullable,
        }
    }

    /// Whether a name refers to a column or a lambda variable.
    fn has(&self, parts: &[String]) -> bool {
        self.variable(parts).is_some() || !self.find(parts).is_empty()
    }

    /// The indices of columns that may match a name, in row order.
    fn candidates(&self, parts: &[String]) -> Vec<usize> {
        if self.columns.len() <= FEW_COLUMNS {
            return (0..self.columns.len()).collect();
        }
        let by_name = self.by_name.0.get_or_init(|| {
            let mut by_name: HashMap<String, Vec<usize>> = HashMap::new();
            for (i, column) in self.columns.iter().enumerate() {
                by_name.entry(column.name.to_ascii_lowercase()).or_default().push(i);
            }
            by_name
        });
        let named = |part: &String| by_name.get(&part.to_ascii_lowercase());
        let mut found: Vec<usize> =
            parts.iter().take(2).filter_map(named).flatten().copied().collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    fn find(&self, parts: &[String]) -> Vec<(usize, usize)> {
        let mut found = Vec::new();
        for index in self.candidates(parts) {
            let column = &self.columns[index];
            let named = |part: &String| column.name.eq_ignore_ascii_case(part);
            let qualified = match (&column.qualifier, parts) {
                (Some(q), [table, name, ..]) => q.eq_ignore_ascii_case(table) && named(name),
                _ => false,
            };
            if qualified {
                found.push((index, 2));
            } else if !column.hidden && parts.first().is_some_and(named) {
                found.push((index, 1));
            }
        }
        // `t.c` is column c of table t, even if there is a column t with a field c.
        if found.iter().any(|(_, used)| *used == 2) {
            found.retain(|(_, used)| *used == 2);
        }
        found
    }

    fn column(&self, parts: &[String]) -> PlanResult<Resolved> {
        if let Some(variable) = self.variable(parts) {
            return parts[1..]
                .iter()
                .try_fold(variable, |of, field| functions::field_of(of, field));
        }
        let (index, used) = match self.find(parts).as_slice() {
            [one] => *one,
            [] => return Err(self.unknown(&parts.join("."))),
            several => return Err(self.ambiguous(parts, several)),
        };
        let mut resolved = self.column_at(index);
        for field in &parts[used..] {
            resolved = functions::field_of(resolved, field)?;
        }
        Ok(resolved)
    }

    fn ambiguous(&self, parts: &[String], found: &[(usize, usize)]) -> PlanError {
        let mut names: Vec<_> =
            found.iter().map(|(index, _)| self.columns[*index].qualified_name()).collect();
        names.sort_unstable();
        names.dedup();
        let fix = match names.len() == found.len() {
            true => format!("Qualify it: {}", names.join(" or ")),
            false => "Give the relations different aliases, and qualify it with one".to_string(),
        };
        let reason = format!("`{}` could be any of {} columns", parts.join("."), found.len());
        PlanError::new("AMBIGUOUS_REFERENCE", reason, fix)
    }

    fn unknown(&self, name: &str) -> PlanError {
        let shown = || self.columns.iter().filter(|c| !c.hidden);
        let mut relations: Vec<_> = shown().map(ScopeColumn::relation).collect();
        relations.sort_unstable();
        relations.dedup();
        // Columns of a single relation need no qualifier.
        let names: Vec<_> = match relations.len() {
            0 | 1 => shown().map(|column| column.name.clone()).collect(),
            _ => shown().map(ScopeColumn::qualified_name).collect(),
        };
        // A name without a qualifier is compared with the last part of each candidate.
        let part = |candidate: &str| match (name.contains('.'), candidate.rsplit_once('.')) {
            (false, Some((_, last))) => distance(name, last),
            _ => distance(name, candidate),
        };
        let mut near: Vec<_> = names.iter().map(|candidate| (part(candidate), candidate)).collect();
        near.sort_unstable();
        near.dedup();
        let near: Vec<_> = near.iter().take(5).map(|(_, name)| format!("`{name}`")).collect();
        let reason = format!("a column with name `{name}` cannot be resolved");
        if near.is_empty() {
            let condition = "UNRESOLVED_COLUMN.WITHOUT_SUGGESTION";
            return PlanError::new(condition, reason, "There are no columns here");
        }
        PlanError::new(
            "UNRESOLVED_COLUMN.WITH_SUGGESTION",
            reason,
            format!("Did you mean one of: {}", near.join(", ")),
        )
    }

    /// An expression over these columns as a query would write it, for messages: with qualified
    /// names, and with operators for the arithmetic of times.
    pub fn written(&self, expr: &Resolved) -> String {
        let text = self.as_written(expr.clone()).to_string();
        let inner = text.strip_prefix('(').and_then(|text| text.strip_suffix(')'));
        match (&expr.node, inner) {
            (Node::Call(name, _), Some(inner)) if functions::is_operator(name) => inner.to_string(),
            _ => text,
        }
    }

    fn as_written(&self, expr: Resolved) -> Resolved {
        let mut expr = expr.map_children(&mut |child| self.as_written(child));
        match &mut expr.node {
            Node::Column(index, name) => {
                if let Some(column) = self.columns.get(*index) {
                    *name = column.qualified_name();
                }
            }
            Node::Call(name @ ("datetime_add" | "interval_add"), _) => *name = "+",
            Node::Call(
                name @ ("datetime_subtract" | "datetime_between" | "interval_subtract"),
                _,
            ) => *name = "-",
            _ => {}
        }
        expr
    }
}

impl ScopeColumn {
    /// The relation that a query can qualify the column with.
    pub fn relation(&self) -> Option<&str> {
        // The generated qualifiers of windows contain spaces.
        self.qualifier.as_deref().filter(|relation| !relation.contains(' '))
    }

    /// The name of the column after that of its relation, if it has one.
    pub fn qualified_name(&self) -> String {
        match self.relation() {
            Some(relation) => format!("{relation}.{}", self.name),
            None => self.name.clone(),
        }
    }
}

/// The names with their edit distances from a misspelt one, nearest first.
pub fn nearest<'n>(word: &str, names: impl IntoIterator<Item = &'n str>) -> Vec<(usize, &'n str)> {
    let mut near: Vec<_> = names.into_iter().map(|name| (distance(word, name), name)).collect();
    near.sort_unstable();
    near
}

/// The edit distance, ignoring case. Swapping two adjacent letters counts as one edit.
pub fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) =
        (a.to_lowercase().chars().collect(), b.to_lowercase().chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut next = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let substituted = row[j] + usize::from(x != y);
            let mut least = substituted.min(row[j + 1] + 1).min(next[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                least = least.min(before[j - 1] + 1);
            }
            next.push(least);
        }
        before = std::mem::replace(&mut row, next);
    }
    row[b.len()]
}

/// The name of a pseudo-function with two arguments, a column and a function call. It resolves to
/// the column if the scope has a column of this name, otherwise to the function.
pub const COLUMN_OR_FUNCTION: &str = "column or function";

/// The argument of a [`COLUMN_OR_FUNCTION`] that the scope selects: the column if there is one of
/// this name, the function otherwise. Any other expression is returned unchanged.
pub fn chosen<'e>(expr: &'e Expr, scope: &Scope) -> &'e Expr {
    match expr {
        Expr::Call { name, args, .. } if name == COLUMN_OR_FUNCTION => match args.as_slice() {
            [Expr::Column { parts, .. }, _] if scope.has(parts) => &args[0],
            [_, function] => function,
            _ => expr,
        },
        other => other,
    }
}

/// Like [`chosen`], for an owned expression.
pub fn into_chosen(expr: Expr, scope: &Scope) -> Expr {
    match expr {
        Expr::Call { ref name, .. } if name == COLUMN_OR_FUNCTION => chosen(&expr, scope).clone(),
        other => other,
    }
}

/// A hook of [`resolve_with`]. It returns a resolved expression, or `None` for the default
/// resolution.
pub type Hook<'h> = dyn FnMut(&Expr) -> PlanResult<Option<Resolved>> + 'h;

/// Resolves an expression that may not contain aggregates.
pub fn resolve(expr: &Expr, scope: &Scope) -> PlanResult<Resolved> {
    resolve_with(expr, scope, &mut |_| Ok(None))
}

/// Resolves an expression. `hook` is called for the expression and for each of its subexpressions
/// before the default resolution, but not for lambda variables.
pub fn resolve_with(expr: &Expr, scope: &Scope, hook: &mut Hook<'_>) -> PlanResult<Resolved> {
    let place = expr.place();
    resolve_parts(expr, scope, hook).map_err(|error| error.at(place))
}

// Resolves an expression, with one match arm for each form. The caller adds the position to an
// error.
fn resolve_parts(expr: &Expr, scope: &Scope, hook: &mut Hook<'_>) -> PlanResult<Resolved> {
    // Lambda variables take precedence, because hooks do not know the variables.
    if let Expr::Column { parts, .. } = expr
        && scope.variable(parts).is_some()
    {
        return scope.column(parts);
    }
    if let Some(resolved) = hook(expr)? {
        return Ok(resolved);
    }
    let either = chosen(expr, scope);
    if !std::ptr::eq(either, expr) {
        return resolve_with(either, scope, hook);
    }
    match expr {
        Expr::Column { parts, .. } => scope.column(parts),
        Expr::Position(index, _) => Ok(scope.column_at(*index)),
        Expr::Literal(value, data_type) => Ok(Resolved::literal(value.clone(), data_type.clone())),
        Expr::Alias(expr, _) | Expr::Aliases(expr, _) => resolve_with(expr, scope, hook),
        Expr::Field(of, field) => {
            resolve_with(of, scope, hook).and_then(|of| functions::field_of(of, field))
        }
        Expr::Lambda(..) => Err(PlanError::new(
            "INVALID_LAMBDA_FUNCTION_CALL.NON_HIGHER_ORDER_FUNCTION",
            "a lambda is used where a value is needed",
            "A lambda is an argument of transform, filter, exists, forall, aggregate and similar \
            functions",
        )),
        Expr::Scalar(plan, _) => {
            let data_type = plan
                .schema()
                .fields
                .first()
                .map_or(DataType::Null, |field| field.data_type.clone());
            Ok(Resolved { node: Node::Scalar(plan.clone()), data_type, nullable: true })
        }
        Expr::User(function, args, _) => {
            let args = args.iter().map(|arg| resolve_with(arg, scope, hook));
            crate::table::expr::user_function::resolve(function, args.collect::<PlanResult<_>>()?)
        }
        Expr::UserAggregate(function, ..) => Err(PlanError::new(
            "MISSING_GROUP_BY",
            format!("the aggregate `{}` is used where a value of a row is needed", function.name()),
            "Use it in the SELECT list or in HAVING",
        )),
        Expr::Star(_) | Expr::StarExcept(..) => Err(PlanError::new(
            "INVALID_USAGE_OF_STAR_OR_REGEX",
            "`*` is used where one value is needed",
            "Name the columns",
        )),
        Expr::WithinGroup(call, _) => Err(PlanError::new(
            "INVALID_SQL_SYNTAX.FUNCTION_WITH_UNSUPPORTED_SYNTAX",
            format!("`{call}` does not take WITHIN GROUP"),
            "WITHIN GROUP belongs to aggregates such as listagg and percentile_cont",
        )),
        Expr::Over(over) => Err(PlanError::new(
            "UNSUPPORTED_EXPR_FOR_OPERATOR",
            format!("the window function `{}` is used where there are no windows", over.call),
            "Use it in the SELECT list with a name, then ORDER BY that name; use QUALIFY to filter by it",
        )),
        Expr::Cast { expr, to, lenient } => {
            resolve_with(expr, scope, hook).and_then(|inner| cast(inner, to, *lenient))
        }
        Expr::Case { branches, otherwise } => {
            resolve_case(branches, otherwise.as_deref(), scope, hook)
        }
        Expr::Chain(chain) => super::chain::resolve(chain, scope, hook),
        Expr::Call { name, .. } if crate::table::plan::generator::is_generator(expr) => {
            Err(PlanError::new(
                "UNSUPPORTED_GENERATOR.NESTED_IN_EXPRESSIONS",
                format!("`{name}` generates rows and cannot be part of an expression"),
                "Use it as an item of the SELECT list, or in LATERAL VIEW",
            ))
        }
        Expr::Call { name, .. } if is_window_only(&lower(name)) => Err(PlanError::new(
            "WINDOW_FUNCTION_WITHOUT_OVER_CLAUSE",
            format!("`{expr}` is a window function and needs OVER"),
            format!("Write {name}(…) OVER (ORDER BY …)"),
        )),
        Expr::Call { name, args, .. }
            if AggregateFunction::of(name).is_some()
                && !args.iter().any(|arg| matches!(arg, Expr::Lambda(..))) =>
        {
            Err(PlanError::new(
                "UNSUPPORTED_EXPR_FOR_OPERATOR",
                format!("the aggregate function `{expr}` is used where there are no groups"),
                "Use it in the SELECT list, in HAVING, or in a subquery",
            ))
        }
        Expr::Call { name, args, distinct, filter, .. } => {
            if *distinct || filter.is_some() {
                if let [Expr::UserAggregate(..)] = args.as_slice() {
                    let what = format!("DISTINCT or FILTER of the user-defined function `{name}`");
                    return Err(PlanError::not_yet(what));
                }
                return Err(PlanError::new(
                    "INVALID_SQL_SYNTAX.FUNCTION_WITH_UNSUPPORTED_SYNTAX",
                    format!(
                        "`DISTINCT` and `FILTER` belong to aggregate functions, but `{name}` is \
                        not one"
                    ),
                    "",
                ));
            }
            resolve_call(name, args, scope, hook)
        }
    }
}

fn resolve_case(
    branches: &[(Expr, Expr)],
    otherwise: Option<&Expr>,
    scope: &Scope,
    hook: &mut Hook<'_>,
) -> PlanResult<Resolved> {
    let mut resolved = Vec::new();
    for (when, then) in branches {
        let when = resolve_with(when, scope, hook)?;
        let when = expect_type(when, &DataType::Boolean, "`CASE`")?;
        let then = Rules::for_some_rows(|| resolve_with(then, scope, hook))?;
        resolved.push((when, then));
    }
    let otherwise =
        otherwise.map(|otherwise| Rules::for_some_rows(|| resolve_with(otherwise, scope, hook)));
    case(resolved, otherwise.transpose()?)
}

fn resolve_call(
    name: &str,
    args: &[Expr],
    scope: &Scope,
    hook: &mut Hook<'_>,
) -> PlanResult<Resolved> {
    let has_lambda = args.iter().any(|arg| matches!(arg, Expr::Lambda(..)));
    if has_lambda || functions::takes_lambda(name, args) {
        return functions::resolve_lambda(name, args, scope, hook);
    }
    // `nullif` reads its first argument twice. As in Spark, `decode` is a CASE, which evaluates its
    // operand for each branch.
    if let ("nullif", [value, other]) = (&*lower(name), args)
        && is_random(value)
    {
        let bound = used_repeatedly(value.clone(), |value| call(name, [value, other.clone()]));
        return resolve_with(&bound, scope, hook);
    }
    if let (true, Some(resolved)) = (args.is_empty(), row_origin::input_file(name, scope)) {
        return resolved;
    }
    // A misspelt function name is reported before errors in its arguments.
    functions::check_name(name)?;
    let args = without_stars(scope, args)?;
    let mut resolved = Vec::with_capacity(args.len());
    for (i, arg) in args.iter().enumerate() {
        resolved.push(if functions::may_leave_out(name, i) {
            Rules::for_some_rows(|| resolve_with(arg, scope, hook))?
        } else {
            resolve_with(arg, scope, hook)?
        });
    }
    functions::resolve(name, resolved)
}

/// Expands each `*` in a list of expressions; borrows the list if it has none.
pub fn without_stars<'e>(scope: &Scope, exprs: &'e [Expr]) -> PlanResult<Cow<'e, [Expr]>> {
    let is_star = |expr: &Expr| matches!(expr, Expr::Star(_) | Expr::StarExcept(..));
    if exprs.iter().any(is_star) {
        return expand_stars(scope, exprs).map(Cow::Owned);
    }
    Ok(Cow::Borrowed(exprs))
}

/// Replaces each `*` by columns.
pub fn expand_stars(scope: &Scope, exprs: &[Expr]) -> PlanResult<Vec<Expr>> {
    let mut out = Vec::new();
    for expr in exprs {
        match expr {
            Expr::StarExcept(table, dropped, place) => {
                out.extend(star_except(scope, table.clone(), dropped, *place)?);
            }
            Expr::Star(table) => {
                out.extend(expand_star(scope, table.as_deref(), expr.place())?);
            }
            other => out.push(other.clone()),
        }
    }
    Ok(out)
}

/// Expands `*` or `table.*` to columns, or `struct.*` to the fields of the struct.
fn expand_star(scope: &Scope, table: Option<&str>, place: Place) -> PlanResult<Vec<Expr>> {
    let mut out = Vec::new();
    let position = |(i, column): (usize, &ScopeColumn)| {
        let parts = column.qualifier.iter().cloned().chain([column.name.clone()]);
        Expr::Position(i, parts.collect())
    };
    count_copies(2 * scope.columns.len())?;
    let columns = || scope.columns.iter().enumerate();
    let Some(table) = table else {
        out.extend(columns().filter(|(_, c)| !c.hidden).map(position));
        return Ok(out);
    };
    let of_table =
        |c: &ScopeColumn| c.qualifier.as_ref().is_some_and(|name| name.eq_ignore_ascii_case(table));
    // The hidden key columns of a USING join come first.
    for hidden in [true, false] {
        let wanted = columns().filter(|(_, c)| c.hidden == hidden && of_table(c));
        out.extend(wanted.map(position));
    }
    if out.is_empty() {
        let parts: Vec<String> = table.split('.').map(str::to_string).collect();
        let column = Expr::Column { parts, place };
        if let Ok(Resolved { data_type: DataType::Struct(fields), .. }) = resolve(&column, scope) {
            let field = |f: &Field| Expr::Field(Box::new(column.clone()), f.name.clone());
            out.extend(fields.iter().map(field));
        }
    }
    if out.is_empty() {
        return Err(PlanError::new(
            "CANNOT_RESOLVE_STAR_EXPAND",
            format!("`{table}` of `{table}.*` is not a table of the query"),
            "Use the table's alias, or `*`",
        ));
    }
    Ok(out)
}

/// Expands `* EXCEPT (…)` to columns.
fn star_except(
    scope: &Scope,
    table: Option<String>,
    dropped: &[String],
    place: Place,
) -> PlanResult<Vec<Expr>> {
    let all = expand_stars(scope, &[Expr::Star(table)])?;
    let is_named = |e: &Expr, name: &String| e.output_name().eq_ignore_ascii_case(name);
    let is_repeated = |(i, name): (usize, &String)| {
        dropped[..i].iter().any(|before| before.eq_ignore_ascii_case(name))
    };
    if dropped.iter().enumerate().any(is_repeated) {
        return Err(PlanError::new(
            "EXCEPT_OVERLAPPING_COLUMNS",
            format!("`EXCEPT ({})` names a column twice", dropped.join(", ")),
            "Name it once",
        )
        .at(place));
    }
    let count = |name: &String| all.iter().filter(|e| is_named(e, name)).count();
    if let Some(name) = dropped.iter().find(|name| count(name) > 1) {
        return Err(PlanError::new(
            "AMBIGUOUS_REFERENCE",
            format!("`EXCEPT ({name})` could mean any of {} columns", count(name)),
            "Name the columns to keep",
        )
        .at(place));
    }
    if let Some(name) = dropped.iter().find(|name| count(name) == 0) {
        let parts = vec![name.clone()];
        resolve(&Expr::Column { parts, place }, scope)?;
    }
    let stays = |e: &Expr| !dropped.iter().any(|name| is_named(e, name));
    Ok(all.into_iter().filter(stays).collect())
}

/// Returns `Did you mean …?` for a misspelt name, or an empty text if no candidate is similar.
pub fn did_you_mean<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> String {
    let near = candidates.into_iter().map(|known| (distance(word, known), known)).min();
    match near {
        Some((off, known)) if off <= 1 || off * 3 <= word.len() + 1 => {
            format!("Did you mean '{known}'? ")
        }
        _ => String::new(),
    }
}

/// Resolves an explicit cast (`lenient`: TRY_CAST), or fails where Spark rejects it. A cast to the
/// same type is dropped, except of an integer constant. Words such as `'today'` become times.
pub fn cast(inner: Resolved, to: &DataType, lenient: bool) -> PlanResult<Resolved> {
    if inner.data_type == *to && to.is_integral() && matches!(inner.node, Node::Literal(_)) {
        // The cast remains even for a literal: in decimal arithmetic, a literal counts with its
        // actual digits, a cast with the digits of its type.
        let nullable = inner.nullable;
        let node = Node::Cast(Box::new(inner), lenient);
        return Ok(Resolved { node, data_type: to.clone(), nullable });
    }
    if inner.data_type == *to || inner.is_null_literal() {
        return Ok(inner.coerce(to));
    }
    if to.is_datetime()
        && let Some(word) = inner.literal_text().and_then(crate::table::datetime::special)
    {
        return functions::time_of_word(word, to);
    }
    if let (DataType::Time(_), DataType::Timestamp | DataType::TimestampNtz) =
        (&inner.data_type, to)
    {
        return Ok(today_at(inner, to));
    }
    let ansi = Rules::current().ansi;
    let older = super::cast::is_allowed_without_ansi(&inner.data_type, to);
    if older && !ansi && !lenient && inner.data_type == DataType::Date {
        // With ANSI mode off, the cast of a date to a number is NULL instead of an error.
        return Ok(Resolved::literal(Value::Null, to.clone()));
    }
    let allowed = older && !ansi && !lenient || super::cast::is_allowed(&inner.data_type, to);
    if !allowed {
        let from = &inner.data_type;
        let strict = ansi || lenient;
        let (kind, fix) = match (from, to) {
            (from, DataType::Date) if from.is_numeric() && strict => {
                ("FUNC", "Use date_from_unix_date")
            }
            (DataType::Date, to) if to.is_numeric() => ("FUNC", "Use unix_date"),
            (_, DataType::Binary) if older && !lenient => ("CONF", "Use hex or encode"),
            _ if older && !lenient => ("CONF", "Compare it with a constant"),
            _ => ("", ""),
        };
        let condition = match kind {
            "" => "DATATYPE_MISMATCH.CAST_WITHOUT_SUGGESTION".to_string(),
            kind => format!("DATATYPE_MISMATCH.CAST_WITH_{kind}_SUGGESTION"),
        };
        let reason = format!("`{inner}` of type {from} cannot be cast to {to}");
        return Err(PlanError::new(condition, reason, fix));
    }
    // JSON's null becomes NULL.
    let is_from_variant = inner.data_type == DataType::Variant;
    let nullable = inner.nullable || lenient || is_from_variant;
    Ok(Resolved { node: Node::Cast(Box::new(inner), lenient), data_type: to.clone(), nullable })
}

fn case(branches: Vec<(Resolved, Resolved)>, otherwise: Option<Resolved>) -> PlanResult<Resolved> {
    let (whens, mut values): (Vec<_>, Vec<_>) = branches.into_iter().unzip();
    let otherwise = otherwise.unwrap_or_else(|| Resolved::literal(Value::Null, DataType::Null));
    values.push(otherwise);
    let mut values = unify("`CASE`", values)?;
    let nullable = values.iter().any(|v| v.nullable);
    let Some(otherwise) = values.pop() else { unreachable!("the ELSE was pushed") };
    let data_type = otherwise.data_type.clone();
    let branches = whens.into_iter().zip(values).collect();
    Ok(Resolved { node: Node::Case(branches, Some(Box::new(otherwise))), data_type, nullable })
}
