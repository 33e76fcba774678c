//! The tables of a session, in memory: `CREATE TABLE`, `INSERT`, `TRUNCATE TABLE`, `DROP TABLE` and
//! `DROP VIEW`.

use super::catalog::SessionCatalog;
use super::dataframe::DataFrame;
use super::{Inner, Session};
use crate::connect::memory::MemoryTable;
use crate::session::streaming_query::QueryError;
use crate::table::error::{PlanError, PlanResult, counted};
use crate::table::expr::cast::ansi::is_storable;
use crate::table::expr::compile::{Semantics, evaluate};
use crate::table::expr::resolve::cast;
use crate::table::expr::type_rules::Rules;
use crate::table::expr::{Node, Resolved};
use crate::table::plan::Plan;
use crate::table::sql::job::{OnExisting, Tokens};
use crate::table::sql::query::unknown;
use crate::table::sql::table_statement::TableStatement;
use crate::table::types::{Field, Schema};
use crate::table::value::Value;
use millstream_engine::error::EngineError;
use std::collections::HashSet;
use std::sync::Arc;

type Rows = Vec<Vec<Value>>;

/// An error of a query that a statement runs, as an error of the statement.
fn of_statement(error: QueryError) -> PlanError {
    match error {
        QueryError::Plan(error) => error,
        QueryError::Run(EngineError::Operator { condition, reason, fix, .. }) => {
            PlanError::new(condition, reason, fix)
        }
        QueryError::Run(error) => PlanError::new(error.condition(), error.to_string(), ""),
    }
}

/// What a name of a session may stand for.
const TABLE: &str = "table";
const VIEW: &str = "view";
const RESULT: &str = "result of a query";

/// The error of a statement that creates a table although a table or view of its name exists.
fn already_exists(what: &str, name: &str) -> PlanError {
    PlanError::new(
        "TABLE_OR_VIEW_ALREADY_EXISTS",
        format!("the {what} `{name}` already exists"),
        match what {
            VIEW => "Give the table another name, or drop the view first",
            RESULT => "Give the table another name",
            _ => {
                "Give it another name, or write CREATE OR REPLACE TABLE or CREATE TABLE IF NOT EXISTS"
            }
        },
    )
}

/// Fails if two columns have the same name, in any case.
fn check_names(schema: &Schema) -> PlanResult<()> {
    let mut seen = HashSet::new();
    let names = schema.fields.iter().map(|field| &field.name);
    match names.into_iter().find(|name| !seen.insert(name.to_lowercase())) {
        Some(twice) => Err(PlanError::new(
            "COLUMN_ALREADY_EXISTS",
            format!("the table has the column `{twice}` twice"),
            "Give its columns different names",
        )),
        None => Ok(()),
    }
}

/// Moves a column of PARTITIONED BY to the end of a table, where Spark has it.
fn move_to_end(schema: &mut Schema, rows: &mut Rows, column: &str) -> PlanResult<()> {
    let is_it = |field: &Field| field.name.eq_ignore_ascii_case(column);
    let Some(at) = schema.fields.iter().position(is_it) else {
        return Err(PlanError::new(
            "COLUMN_NOT_DEFINED_IN_TABLE",
            format!("the table has no column `{column}` for PARTITIONED BY"),
            "Name one of its columns",
        ));
    };
    let field = schema.fields.remove(at);
    schema.fields.push(field);
    for row in rows {
        let value = row.remove(at);
        row.push(value);
    }
    Ok(())
}

/// Fails if PARTITION names a column that the table does not have.
fn check_partition<'n>(
    name: &str,
    table: &Schema,
    mut columns: impl Iterator<Item = &'n String>,
) -> PlanResult<()> {
    let has = |column: &String| table.fields.iter().any(|f| f.name.eq_ignore_ascii_case(column));
    match columns.find(|column| !has(column)) {
        Some(column) => Err(PlanError::new(
            "PARTITIONS_NOT_FOUND",
            format!("PARTITION names `{column}`, and `{name}` has no such column"),
            "Name columns of the table",
        )),
        None => Ok(()),
    }
}

/// For each column of a table, the index of the column of an INSERT's query that gives its value.
/// `None`: the column gets NULL.
fn assignment(
    name: &str,
    table: &Schema,
    columns: Option<&[String]>,
    given: usize,
) -> PlanResult<Vec<Option<usize>>> {
    let wanted = columns.map_or(table.fields.len(), <[String]>::len);
    if wanted != given {
        let kind = if given < wanted { "NOT_ENOUGH" } else { "TOO_MANY" };
        return Err(PlanError::new(
            format!("INSERT_COLUMN_ARITY_MISMATCH.{kind}_DATA_COLUMNS"),
            format!(
                "`{name}` is written with {}, and the query has {given}",
                counted(wanted, "column")
            ),
            "Name the columns that the query gives: INSERT INTO t (a, b) SELECT …",
        ));
    }
    let Some(columns) = columns else { return Ok((0..wanted).map(Some).collect()) };
    let mut places = vec![None; table.fields.len()];
    for (from, column) in columns.iter().enumerate() {
        let is_it = |field: &Field| field.name.eq_ignore_ascii_case(column);
        let Some(to) = table.fields.iter().position(is_it) else {
            let names: Vec<_> = table.fields.iter().map(|field| field.name.as_str()).collect();
            return Err(PlanError::new(
                "UNRESOLVED_COLUMN.WITH_SUGGESTION",
                format!("`{name}` has no column `{column}`"),
                format!("Columns: {}", names.join(", ")),
            ));
        };
        if places[to].replace(from).is_some() {
            return Err(PlanError::new(
                "COLUMN_ALREADY_EXISTS",
                format!("the column `{column}` is named twice"),
                "Name each column once",
            ));
        }
    }
    Ok(places)
}

/// The expression that stores a column of an INSERT's query in a column of the table.
fn stored(field: &Field, from: Option<(usize, &Field)>) -> PlanResult<Resolved> {
    let Some((at, given)) = from else {
        if !field.nullable {
            return Err(PlanError::new(
                "NO_DEFAULT_COLUMN_VALUE_AVAILABLE",
                format!("the column `{}` is NOT NULL and gets no value", field.name),
                "Give it a value",
            ));
        }
        return Ok(Resolved::literal(Value::Null, field.data_type.clone()));
    };
    let node = Node::Column(at, given.name.clone());
    let column = Resolved { node, data_type: given.data_type.clone(), nullable: given.nullable };
    if !is_storable(&given.data_type, &field.data_type) {
        return Err(PlanError::new(
            "INCOMPATIBLE_DATA_FOR_TABLE.CANNOT_SAFELY_CAST",
            format!(
                "a value of type {} cannot be stored in the column `{}` of type {}",
                given.data_type, field.name, field.data_type
            ),
            format!("Cast it: CAST({} AS {})", given.name, field.data_type),
        ));
    }
    cast(column, &field.data_type, false)
}

/// The maximum number of values that are stored without starting a query for them.
const FEW_VALUES: usize = 1 << 8;

/// The value of an expression over the columns of a row.
fn value_of(expr: &Resolved, row: &[Value], semantics: Semantics) -> PlanResult<Value> {
    fn with_values(expr: Resolved, row: &[Value]) -> Resolved {
        match expr.node {
            Node::Column(at, _) => Resolved { node: Node::Literal(row[at].clone()), ..expr },
            _ => expr.map_children(&mut |child| with_values(child, row)),
        }
    }
    Ok(evaluate(&with_values(expr.clone(), row), semantics)?)
}

impl Inner {
    /// Whether a view, or a table that a statement has created, has this name.
    pub(super) fn has_relation(&self, name: &str) -> bool {
        let lower = name.to_ascii_lowercase();
        self.created_tables.contains(&lower) || self.views.contains_key(&lower)
    }

    /// Whether a statement is to create a table of this name: false if a table or view has the name
    /// and the statement says IF NOT EXISTS. Fails if one has the name and is not to be replaced.
    fn creates_table(&self, name: &str, on_existing: OnExisting) -> PlanResult<bool> {
        let lower = name.to_ascii_lowercase();
        let (is_table, is_view) =
            (self.created_tables.contains(&lower), self.views.contains_key(&lower));
        let is_result = !is_table && self.tables.keys().any(|key| key.eq_ignore_ascii_case(name));
        match on_existing {
            OnExisting::Keep if is_table || is_view => Ok(false),
            _ if is_view => Err(already_exists(VIEW, name)),
            OnExisting::Fail if is_table => Err(already_exists(TABLE, name)),
            _ if is_result => Err(already_exists(RESULT, name)),
            _ => Ok(true),
        }
    }

    /// Fails if a table has the name of a new view, or if another view has and `replace` is false.
    /// A table is one that a statement has created, or the result of a memory sink.
    pub(super) fn check_new_view(&self, name: &str, replace: bool) -> PlanResult<()> {
        let lower = name.to_ascii_lowercase();
        if self.tables.keys().any(|key| key.eq_ignore_ascii_case(name)) {
            return Err(PlanError::new(
                "TABLE_OR_VIEW_ALREADY_EXISTS",
                format!("the table `{name}` already exists, and a view cannot have its name"),
                match self.created_tables.contains(&lower) {
                    true => "Give the view another name, or drop the table first",
                    false => "Give the view another name: the table is the result of a query",
                },
            ));
        }
        if replace || !self.views.contains_key(&lower) {
            return Ok(());
        }
        Err(PlanError::new(
            "TEMP_TABLE_OR_VIEW_ALREADY_EXISTS",
            format!("the view `{name}` already exists"),
            "Give it another name, or write CREATE OR REPLACE TEMPORARY VIEW",
        ))
    }

    fn remove_table(&mut self, name: &str) {
        if self.created_tables.remove(&name.to_ascii_lowercase()) {
            self.tables.retain(|key, _| !key.eq_ignore_ascii_case(name));
        }
    }
}

impl Session {
    /// Executes a statement that changes the tables of the session.
    pub(super) fn change_tables(&self, statement: TableStatement) -> PlanResult<()> {
        match statement {
            TableStatement::Create { name, schema, on_existing, partition_columns, query } => {
                if !self.lock().creates_table(&name, on_existing)? {
                    return Ok(());
                }
                let (mut schema, mut rows) = match (schema, query) {
                    (Some((ddl, at)), _) => {
                        (self.schema(&ddl).map_err(|error| error.at(at))?, Rows::new())
                    }
                    (None, Some(query)) => {
                        let (mut schema, rows) = self.rows_of(query)?;
                        schema.fields.iter_mut().for_each(|field| field.nullable = true);
                        (schema, rows)
                    }
                    (None, None) => (Schema::new(Vec::new()), Rows::new()),
                };
                check_names(&schema)?;
                for column in partition_columns {
                    move_to_end(&mut schema, &mut rows, &column)?;
                }
                let table = MemoryTable::new(schema);
                table.replace(rows);
                let mut inner = self.lock();
                // Meanwhile another thread may have created a table or view of this name.
                if inner.creates_table(&name, on_existing)? {
                    inner.remove_table(&name);
                    inner.created_tables.insert(name.to_ascii_lowercase());
                    inner.tables.insert(name, table);
                }
                Ok(())
            }
            TableStatement::Insert { name, columns, partition, overwrite, query } => {
                let table = self.created_table(&name)?;
                let named = partition.iter().map(|(column, _)| column);
                check_partition(&name, table.schema(), named)?;
                let (mut given, mut rows) = self.rows_of(query)?;
                let mut columns = columns;
                for (column, value) in partition {
                    let Some(value) = value else { continue };
                    let (of_value, values) = self.rows_of(value)?;
                    let value = values.into_iter().flatten().next().unwrap_or(Value::Null);
                    let named = columns.get_or_insert_with(|| {
                        table.schema().fields.iter().map(|field| field.name.clone()).collect()
                    });
                    named.retain(|name| !name.eq_ignore_ascii_case(&column));
                    named.push(column);
                    given.fields.extend(of_value.fields.into_iter().take(1));
                    rows.iter_mut().for_each(|row| row.push(value.clone()));
                }
                let columns = columns.as_deref();
                let places = assignment(&name, table.schema(), columns, given.fields.len())?;
                let rows = self.as_stored(table.schema(), given, rows, &places)?;
                self.store(&name, &table, rows, overwrite)
            }
            TableStatement::Truncate { name } => {
                self.created_table(&name)?.replace(Rows::new());
                Ok(())
            }
            TableStatement::Drop { name, is_view, if_exists } => {
                self.drop_relation(&name, is_view, if_exists)
            }
        }
    }

    /// Adds rows to a table, or replaces its rows. Fails if the table has been dropped or replaced
    /// since the statement has begun: the rows would be lost.
    fn store(&self, name: &str, to: &MemoryTable, rows: Rows, overwrite: bool) -> PlanResult<()> {
        let inner = self.lock();
        if !inner.tables.values().any(|table| table.is_same(to)) {
            return Err(PlanError::new(
                "TABLE_OR_VIEW_NOT_FOUND",
                format!("the table `{name}` has been dropped or replaced during the INSERT"),
                "Execute the INSERT again",
            ));
        }
        match overwrite {
            true => to.replace(rows),
            false => to.add(rows),
        }
        Ok(())
    }

    fn drop_relation(&self, name: &str, is_view: bool, if_exists: bool) -> PlanResult<()> {
        let lower = name.to_ascii_lowercase();
        let mut inner = self.lock();
        let is_table = inner.created_tables.contains(&lower);
        if !is_view && is_table {
            inner.remove_table(name);
            return Ok(());
        }
        // As in Spark, DROP TABLE also drops a temporary view.
        if inner.views.remove(&lower).is_some() {
            return Ok(());
        }
        if is_view && is_table {
            return Err(PlanError::new(
                "EXPECT_VIEW_NOT_TABLE.NO_ALTERNATIVE",
                format!("`{name}` is a table"),
                "Write DROP TABLE",
            ));
        }
        if if_exists { Ok(()) } else { Err(unknown(name, &*inner)) }
    }

    /// The table that a statement has created under a name.
    fn created_table(&self, name: &str) -> PlanResult<MemoryTable> {
        let inner = self.lock();
        let lower = name.to_ascii_lowercase();
        let mut tables = inner.tables.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
        if inner.created_tables.contains(&lower)
            && let Some((_, table)) = tables.next()
        {
            return Ok(table.clone());
        }
        let exists = inner.views.contains_key(&lower) || tables.next().is_some();
        if exists {
            return Err(PlanError::new(
                "UNSUPPORTED_INSERT.NOT_ALLOWED",
                format!("`{name}` is a view or the result of a query, not a table to write to"),
                "Create a table: CREATE TABLE t (a INT, b STRING). A file or a stream is written \
                 by CREATE STREAMING TABLE",
            ));
        }
        Err(unknown(name, &*inner))
    }

    /// Adds the result table of a memory sink. Fails if a statement has created a table of its name,
    /// or if a view has its name: the view would hide the rows.
    pub(super) fn add_result(&self, name: &str, table: MemoryTable) -> PlanResult<()> {
        let mut inner = self.lock();
        let lower = name.to_ascii_lowercase();
        if inner.created_tables.contains(&lower) {
            return Err(already_exists(TABLE, name));
        }
        if inner.views.contains_key(&lower) {
            return Err(already_exists(VIEW, name));
        }
        inner.tables.insert(name.to_string(), table);
        Ok(())
    }

    /// Creates or replaces a view, which a statement has planned. Fails if a table has its name, or
    /// if another view has and `replace` is false.
    pub(super) fn create_view(
        &self,
        name: &str,
        plan: impl Into<Arc<Plan>>,
        replace: bool,
    ) -> PlanResult<()> {
        let mut inner = self.lock();
        inner.check_new_view(name, replace)?;
        inner.insert_view(name, plan);
        Ok(())
    }

    fn rows_of(&self, query: Tokens) -> PlanResult<(Schema, Rows)> {
        let plan = query.plan(&SessionCatalog(self))?;
        if plan.is_streaming() {
            return Err(PlanError::new(
                "UNSUPPORTED_INSERT.NOT_ALLOWED",
                "a table in memory cannot be filled from a stream",
                "Write CREATE STREAMING TABLE t USING memory AS SELECT …",
            ));
        }
        // The rows of VALUES need no query.
        if let Plan::Values(schema, rows) = plan {
            return Ok((schema, rows));
        }
        let frame = DataFrame::new(self.clone(), plan);
        let rows = frame.collect().map_err(of_statement)?;
        Ok((frame.schema(), rows))
    }

    /// The rows of an INSERT's query as the table stores them: cast to its types, under ANSI rules
    /// whatever the session's.
    fn as_stored(
        &self,
        table: &Schema,
        given: Schema,
        rows: Rows,
        places: &[Option<usize>],
    ) -> PlanResult<Rows> {
        let strict = Session { script: self.script.clone(), ..Session::new() };
        let mut settings = self.lock().settings.clone();
        settings.semantics.ansi = true;
        let semantics = settings.semantics;
        let rules = Rules::of(semantics);
        strict.lock().settings = settings;
        let from = |place: &Option<usize>| place.map(|at| (at, &given.fields[at]));
        let exprs = rules.apply(|| {
            let fields = table.fields.iter().zip(places);
            fields
                .map(|(field, place)| Ok((stored(field, from(place))?, field.name.clone())))
                .collect::<PlanResult<Vec<_>>>()
        })?;
        let rows = if rows.len() * exprs.len() <= FEW_VALUES {
            let each = rows.into_iter().map(|row| {
                let values = exprs.iter().map(|(expr, _)| value_of(expr, &row, semantics));
                values.collect::<PlanResult<Vec<_>>>()
            });
            each.collect::<PlanResult<Rows>>()
        } else {
            let plan = Plan::Project(Box::new(Plan::Values(given.clone(), rows)), exprs);
            DataFrame::new(strict, plan).collect().map_err(of_statement)
        };
        let rows = rows.map_err(|error| match error.condition.as_str() {
            "CAST_OVERFLOW" | "NUMERIC_VALUE_OUT_OF_RANGE" => {
                PlanError { condition: "CAST_OVERFLOW_IN_TABLE_INSERT".to_string(), ..error }
            }
            _ => error,
        })?;
        for (at, field) in table.fields.iter().enumerate().filter(|(_, field)| !field.nullable) {
            if rows.iter().any(|row| row[at] == Value::Null) {
                return Err(PlanError::new(
                    "NOT_NULL_ASSERT_VIOLATION",
                    format!("the column `{}` is NOT NULL, and a row has NULL", field.name),
                    "Give it a value",
                ));
            }
        }
        Ok(rows)
    }
}
