//! Job files and scripts. Their statements are executed in order. The queries of a job file are
//! checked and returned; a script runs each of its queries in its turn.

use super::catalog::SessionCatalog;
use super::dataframe::DataFrame;
use super::progress::Progress;
use super::replaced_source::{JobSource, ReadSource, ReplacedSource};
use super::stream_writer::name_in_use;
use super::{Session, StreamReader, StreamWriter, check_kafka_schema};
use crate::connect::foreach::ForeachWriter;
use crate::connect::line_format::{LineFormat, LineOptions, LineWriter};
use crate::session::streaming_query::{QueryError, StreamingQuery};
use crate::table::error::{PlanError, PlanResult, counted};
use crate::table::physical::TableSignal;
use crate::table::plan::limits::on_large_stack;
use crate::table::plan::{Options, Plan};
use crate::table::row::{Row, encode};
use crate::table::sql::job::{OnExisting, Statement, Tokens, parse};
use crate::table::text::json::Style;
use crate::table::value::Value;
use millstream_engine::epoch::trigger::Trigger;
use millstream_engine::event::Epoch;
use std::collections::HashSet;
use std::path::PathBuf;

/// Command line options that override settings of the job.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// The trigger of every query.
    pub trigger: Option<Trigger>,
    /// Settings of every query, which take precedence over those of the job.
    pub settings: Vec<(String, String)>,
    /// The checkpoint folder, if the job has a single query. If it has several, the parent folder
    /// of their checkpoints.
    pub checkpoint: Option<PathBuf>,
    /// Whether the job is only explained, so that queries need no checkpoint.
    pub explains: bool,
}

/// A query of a job that has been checked but not started.
pub struct JobQuery {
    name: String,
    writer: StreamWriter,
}

impl JobQuery {
    /// The name of the table in `CREATE STREAMING TABLE`, even if the option `queryName` gives the
    /// query another one.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Formats the schema, the plan, and the tasklets of each worker.
    pub fn explain(&self) -> Result<String, QueryError> {
        self.writer.explain()
    }

    /// Sets a callback for every committed epoch; see [`StreamWriter::on_progress`].
    pub fn on_progress(self, call: impl FnMut(&Progress) + Send + 'static) -> Self {
        Self { writer: self.writer.on_progress(call), ..self }
    }

    /// Whether the query's output mode is complete.
    pub fn is_complete_mode(&self) -> bool {
        self.writer.is_complete_mode()
    }

    /// The column names of the query's result.
    pub fn columns(&self) -> Vec<String> {
        self.writer.schema().fields.into_iter().map(|field| field.name).collect()
    }

    /// Passes the result rows to `take` instead of the sink, with the number of their epoch. Each
    /// row is a JSON object with all columns; `None` says that in mode complete the result of the
    /// epoch is empty. The query keeps no checkpoint.
    pub fn take_rows(
        self,
        take: impl FnMut(Epoch, Option<&str>) + Send + 'static,
    ) -> PlanResult<Self> {
        let schema = self.writer.schema();
        let json = Style { nulls: true, ..Style::default() };
        let options = LineOptions { json, line_end: String::new(), ..LineOptions::default() };
        let lines = LineWriter::without(LineFormat::Json, options, &schema, &[])?;
        let table = self.writer.table_signal();
        let rows = JsonRows { lines, take, table, epoch: 0, is_empty: true, line: Vec::new() };
        Ok(Self { writer: self.writer.instead_of_sink(rows), ..self })
    }

    /// Opens the sources and the sink, and starts the query.
    pub fn start(self) -> Result<StreamingQuery, QueryError> {
        self.writer.start()
    }
}

/// Passes rows to a function as JSON.
struct JsonRows<F> {
    lines: LineWriter,
    take: F,
    table: TableSignal,
    epoch: Epoch,
    /// Whether the epoch has no rows so far.
    is_empty: bool,
    line: Vec<u8>,
}

impl<F: FnMut(Epoch, Option<&str>) + Send + 'static> ForeachWriter for JsonRows<F> {
    fn open(&mut self, _partition: u64, epoch: Epoch) -> bool {
        (self.epoch, self.is_empty) = (epoch, true);
        true
    }

    fn close(&mut self, _error: Option<&str>) {
        if self.table.take() && self.is_empty {
            (self.take)(self.epoch, None);
        }
    }

    fn process(&mut self, row: &[Value]) -> Result<(), String> {
        self.is_empty = false;
        self.line.clear();
        self.lines.write(Row(&encode(row)), &mut self.line);
        let line = std::str::from_utf8(&self.line).map_err(|error| error.to_string())?;
        (self.take)(self.epoch, Some(line));
        Ok(())
    }
}

/// Renames the columns of a view's query to the names in the view's column list. Fails if their
/// numbers differ, or if a name is repeated in any case.
fn with_columns(plan: Plan, view: &str, names: Vec<String>) -> PlanResult<Plan> {
    let columns = plan.scope().columns;
    let (named, found) = (names.len(), columns.len());
    if named != found {
        let kind = if named < found { "TOO_MANY" } else { "NOT_ENOUGH" };
        return Err(PlanError::new(
            format!("CREATE_VIEW_COLUMN_ARITY_MISMATCH.{kind}_DATA_COLUMNS"),
            format!("view `{view}` names {}, and its query has {found}", counted(named, "column")),
            "Name each column of the query, or leave the list out",
        ));
    }
    let mut seen = HashSet::new();
    if let Some(twice) = names.iter().find(|name| !seen.insert(name.to_lowercase())) {
        return Err(PlanError::new(
            "COLUMN_ALREADY_EXISTS",
            format!("view `{view}` names the column `{twice}` twice"),
            "Give its columns different names",
        ));
    }
    Ok(plan.renamed(names))
}

impl Session {
    /// Executes a statement. Queries, `DESCRIBE` and streaming tables are returned instead.
    fn prepared(&self, statement: Statement) -> PlanResult<Option<Statement>> {
        match statement {
            Statement::Set { key, value, place } => {
                self.set(&key, &value).map_err(|error| error.at(place))?;
            }
            Statement::SourceView {
                name,
                schema,
                format,
                options,
                option_places,
                replace,
                place,
            } => {
                let check = self.lock().check_new_view(&name, replace);
                check.map_err(|error| error.at(place))?;
                // A file or topic source is a table unless it is read with STREAM.
                let lower = format.to_ascii_lowercase();
                let streaming = !super::has_batch_queries(&lower);
                let ReadSource { format, options, kafka_file } = self
                    .with_replacement(&name, format, options)
                    .map_err(|error| option_places.put_into(error, place))?;
                let mut schema = match schema {
                    Some((ddl, at)) => {
                        let given = self.schema(&ddl).map_err(|error| error.at(at))?;
                        if let Some(file) = &kafka_file {
                            check_kafka_schema(&given, &file.source_schema)
                                .map_err(|error| error.at(at))?;
                        }
                        Some(given)
                    }
                    None => None,
                };
                if let Some(file) = &kafka_file {
                    schema = Some(file.file_schema.clone());
                }
                let session = self.clone();
                let reader =
                    StreamReader { session, streaming, is_view: true, format, options, schema };
                let frame = reader.load_as(&name);
                let mut frame = frame.map_err(|error| option_places.put_into(error, place))?;
                if let Some(file) = kafka_file {
                    frame = frame.select_expr(file.columns)?;
                }
                let created = self.create_view(&name, frame.plan, replace);
                created.map_err(|error| error.at(place))?;
            }
            Statement::QueryView { name, columns, on_existing, place, query } => {
                if on_existing == OnExisting::Keep && self.lock().has_relation(&name) {
                    return Ok(None);
                }
                let replace = on_existing == OnExisting::Replace;
                let mut plan = query.plan(&SessionCatalog(self))?;
                if let Some((names, at)) = columns {
                    plan = with_columns(plan, &name, names).map_err(|error| error.at(at))?;
                }
                match self.create_view(&name, plan, replace) {
                    // Another thread has created a relation of this name meanwhile.
                    Err(_)
                        if on_existing == OnExisting::Keep && self.lock().has_relation(&name) => {}
                    created => created.map_err(|error| error.at(place))?,
                }
            }
            Statement::Table(change, place) => {
                self.change_tables(change).map_err(|error| error.at(place))?;
            }
            Statement::Reset(key, _) => self.lock().settings.reset(key.as_deref()),
            other => return Ok(Some(other)),
        }
        Ok(None)
    }

    /// Returns a source of the job, or its replacement: the one for this view, or else the one for
    /// all sockets and captures. Fails if the replacement does not fit the source.
    fn with_replacement(
        &self,
        view: &str,
        format: String,
        options: Options,
    ) -> PlanResult<ReadSource> {
        let mut inner = self.lock();
        let own = |replaced: &&ReplacedSource| replaced.is_of(view, &format);
        let named = inner.replaced.iter().filter(|replaced| replaced.view.is_some());
        let replaced = named.chain(&inner.replaced).find(own).cloned();
        let read = match &replaced {
            Some(replaced) => replaced.apply(view, &format, &options)?,
            None => ReadSource::new(format.clone(), options),
        };
        let ends = read.format.eq_ignore_ascii_case("capture");
        let (view, replaced_by) = (view.to_string(), replaced.map(|replaced| replaced.path));
        inner.job_sources.push(JobSource { view, format, replaced_by, ends });
        Ok(read)
    }

    /// Executes a script. A streaming table must have a trigger that ends its query. The results of
    /// the queries over tables and of `DESCRIBE` are passed to `show`, one after another. Stops at
    /// the first error, also of `show`, and when it is [cancelled](Self::cancel_script).
    pub fn script(
        &self,
        text: &str,
        show: &mut dyn FnMut(DataFrame) -> Result<(), QueryError>,
    ) -> Result<(), QueryError> {
        self.begin_script().run(text, show)
    }

    /// Executes the statements of a script, on the handle that carries its token.
    pub(super) fn statements(
        &self,
        text: &str,
        show: &mut dyn FnMut(DataFrame) -> Result<(), QueryError>,
    ) -> Result<(), QueryError> {
        let reading = self.lock().settings.literals;
        for statement in parse(text, reading)? {
            self.begin_statement()?;
            match self.prepared(statement)? {
                None => {}
                Some(Statement::Query(query, _)) => {
                    let plan = query.plan(&SessionCatalog(self))?;
                    show(DataFrame::new(self.clone(), plan))?;
                }
                Some(Statement::Describe(described, _)) => {
                    let (schema, rows) = described.rows(&SessionCatalog(self))?;
                    show(self.create_data_frame(schema, rows))?;
                }
                Some(Statement::StreamingTable {
                    name,
                    format,
                    options,
                    option_places,
                    query,
                    place,
                }) => {
                    let writer = self.streaming_table(&name, &format, options, query)?;
                    let trigger = writer.check();
                    let trigger = trigger.map_err(|error| option_places.put_into(error, place))?;
                    if !matches!(trigger, Trigger::Once | Trigger::AvailableNow) {
                        return Err(PlanError::new(
                            "STREAMING_TABLE_IN_SCRIPT",
                            "`CREATE STREAMING TABLE` starts a query that may have no end",
                            "Give it option trigger 'available-now' or 'once', or put it into a \
                             job file and start it with `millstream run`",
                        )
                        .at(place)
                        .into());
                    }
                    let query = writer.start()?;
                    let ended = self.wait_for(&query.running, &query.counters, &query.stopping);
                    query.report_bad_records();
                    ended?;
                }
                Some(_) => unreachable!("`prepared` has carried it out"),
            }
        }
        Ok(())
    }

    /// Builds the query of a CREATE STREAMING TABLE. Without a stream among its inputs, its tables
    /// are read as streams. The option `queryName` takes precedence over the table's name.
    fn streaming_table(
        &self,
        name: &str,
        format: &str,
        options: Options,
        query: Tokens,
    ) -> PlanResult<StreamWriter> {
        let mut plan = query.plan(&SessionCatalog(self))?;
        if !plan.is_streaming() {
            plan = plan.into_stream();
        }
        let mut writer = DataFrame::new(self.clone(), plan).write_stream().format(format);
        if !options.iter().any(|(key, _)| key.eq_ignore_ascii_case("queryName")) {
            writer = writer.query_name(name);
        }
        for (key, value) in options {
            writer = writer.option(&key, value);
        }
        Ok(writer.with_current_settings())
    }

    /// Executes the statements of a job file. Returns its queries, checked but not started.
    pub fn job(&self, text: &str, overrides: &Overrides) -> PlanResult<Vec<JobQuery>> {
        on_large_stack(|| self.queries(text, overrides))
    }

    fn queries(&self, text: &str, overrides: &Overrides) -> PlanResult<Vec<JobQuery>> {
        let mut queries: Vec<JobQuery> = Vec::new();
        let mut names = HashSet::new();
        // These settings take precedence over those of the file, also while it is parsed.
        for (key, value) in &overrides.settings {
            self.set(key, value)?;
        }
        let mut reading = self.lock().settings.literals;
        overrides.settings.iter().for_each(|(key, _)| reading.fix(key));
        let statements = parse(text, reading)?;
        let tables = statements.iter().filter(|s| matches!(s, Statement::StreamingTable { .. }));
        let several = tables.count() > 1;
        for statement in statements {
            let is_setting = matches!(&statement, Statement::Set { .. } | Statement::Reset(..));
            match self.prepared(statement)? {
                None => {
                    for (key, value) in overrides.settings.iter().filter(|_| is_setting) {
                        self.set(key, value)?;
                    }
                }
                Some(Statement::Query(_, place) | Statement::Describe(_, place)) => {
                    return Err(PlanError::new(
                        "QUERY_WITHOUT_SINK",
                        "a query of the job has no sink",
                        "Write CREATE STREAMING TABLE t USING console OPTIONS (…) AS SELECT …; \
                         `millstream sql` shows the result of a query over files",
                    )
                    .at(place));
                }
                Some(Statement::StreamingTable {
                    name,
                    format,
                    options,
                    option_places,
                    query,
                    place,
                }) => {
                    let named = |error: PlanError| match several {
                        true => {
                            let reason = format!("query {name}: {}", error.reason);
                            PlanError { reason, ..error }
                        }
                        false => error,
                    };
                    let made = self.streaming_table(&name, &format, options, query);
                    let mut writer = made.map_err(named)?;
                    if let Some(trigger) = overrides.trigger {
                        writer = writer.trigger(trigger);
                    }
                    if let Some(folder) = &overrides.checkpoint {
                        let own = if several { folder.join(&name) } else { folder.clone() };
                        writer = writer.option("checkpointLocation", own.display());
                    }
                    writer = writer.explain_only(overrides.explains);
                    writer.check().map_err(|error| named(option_places.put_into(error, place)))?;
                    let query = writer.name().unwrap_or(&name).to_string();
                    if !names.insert(query.clone()) {
                        let reason = format!("two queries of the job have the name '{query}'");
                        let fix = "Name each table of the job differently";
                        return Err(name_in_use(reason, fix).at(place));
                    }
                    queries.push(JobQuery { name, writer });
                }
                Some(_) => unreachable!("`prepared` has carried it out"),
            }
        }
        if queries.iter().filter(|query| query.writer.prints_tables()).count() > 1 {
            queries.iter_mut().for_each(|query| query.writer.name_tables());
        }
        if queries.is_empty() {
            return Err(PlanError::new(
                "NO_QUERY_IN_JOB",
                "the job starts no query",
                "Add: CREATE STREAMING TABLE t USING console OPTIONS (outputMode 'update') AS SELECT …",
            ));
        }
        Ok(queries)
    }
}
