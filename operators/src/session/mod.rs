//! Sessions, in which tables and views are named and queries are started.
//!
//! ```
//! use millstream::session::{Session, Trigger};
//! use millstream::table::value::Value;
//!
//! let session = Session::new();
//! let lines = session.memory_stream("lines", "line STRING")?;
//! let counts = session.sql(
//!     "SELECT word, count(*) AS n FROM (SELECT explode(split(line, ' ')) AS word FROM lines) GROUP BY word",
//! )?;
//! let query = counts.write_stream().output_mode("update").format("memory").query_name("counts")
//!     .trigger(Trigger::AsSoonAsPossible).start()?;
//! lines.add([vec![Value::String("a b a".into())]]);
//! query.process_all_available()?;
//! let mut rows = session.table("counts").expect("the sink's table").rows();
//! rows.sort_by_key(|row| format!("{row:?}"));
//! assert_eq!(rows[0], [Value::String("a".into()), Value::Long(2)]);
//! query.stop()?;
//! # Ok::<(), millstream::session::QueryError>(())
//! ```

mod batch_writer;
mod catalog;
mod dataframe;
mod grouped_data;
mod job;
mod progress;
mod replaced_source;
mod result_text;
mod running_script;
mod session_tables;
mod settings;
mod static_tables;
mod stream_writer;
mod streaming_query;
mod table_changes;
#[cfg(feature = "kafka")]
mod transactional_sink;
mod trigger;

pub use crate::connect::console::only_showing;
use crate::session::catalog::SessionCatalog;
pub use crate::session::stream_writer::{SINK_FORMATS, StreamWriter};
pub use crate::session::streaming_query::{
    QueryError, RunState, Status, StreamingQuery, Totals, WaitingRows,
};
pub use crate::table::physical::LateRow;
pub use crate::table::sql::literals::StatementTexts;
use crate::table::sql::literals::split;
pub use batch_writer::BatchWriter;
pub use dataframe::DataFrame;
pub use grouped_data::{GroupedData, GroupedWithInitialState};
pub use job::{JobQuery, Overrides};
pub use millstream_engine::epoch::trigger::Trigger;
pub use progress::Progress;
pub use replaced_source::{JobSource, ReplacedSource, is_capture};
pub use result_text::{ConsoleFormat, RowFormat};
pub use running_script::Script;
use running_script::ScriptToken;
pub use settings::OnQueryFailure;
use settings::Settings;
pub use trigger::parse_trigger;

use crate::connect::capture::config::CaptureConfig;
use crate::connect::capture::pace::SendLag;
use crate::connect::file::{FileSourceConfig, SchemaOrigin, infer};
#[cfg(feature = "kafka")]
use crate::connect::kafka::options::KafkaSourceConfig;
use crate::connect::memory::{MemoryStream, MemoryTable};
use crate::connect::rate;
use crate::connect::rate::micro_batch;
use crate::connect::socket::options::SocketConfig;

use crate::table::error::{PlanError, PlanResult};
use crate::table::expr::Expr;
use crate::table::expr::resolve::did_you_mean;
use crate::table::expr::type_rules::Rules;
use crate::table::expr::user_function::{UserAggregate, UserFunction};
use crate::table::plan::shared_sources::SourceId;
use crate::table::plan::{Options, Plan, Scan};
use crate::table::sql::{self, Catalog};
use crate::table::types::Schema;
use crate::table::value::Value;
use millstream_engine::measure::latency::{NsHistogram, histogram};
use millstream_engine::runtime::job::JobEnd;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard};

/// Creates the writer that a console sink prints to.
type MakeConsole = Box<dyn Fn() -> Box<dyn Write + Send> + Send>;

struct Inner {
    /// The views by lower-case name, each with its name as written.
    views: BTreeMap<String, (String, Arc<Plan>)>,
    streams: BTreeMap<String, MemoryStream>,
    /// The tables in memory, by name: results of memory sinks and created tables.
    tables: BTreeMap<String, MemoryTable>,
    /// The lower-case names of the tables that statements have created.
    created_tables: BTreeSet<String>,
    functions: BTreeMap<String, Arc<UserFunction>>,
    aggregates: BTreeMap<String, Arc<UserAggregate>>,
    /// The names of started queries. `None` while a query is being started.
    active: Vec<(String, Option<JobEnd>)>,
    settings: Settings,
    /// The lower-case names of settings without effect that a notice was given for.
    told_settings: BTreeSet<String>,
    console: MakeConsole,
    console_format: ConsoleFormat,
    notice: fn(&str),
    /// The send lag of the capture sources of started queries: how much later than intended they
    /// emit records.
    pub(crate) send_lags: Vec<SendLag>,
    /// Replacements for the sources of jobs.
    replaced: Vec<ReplacedSource>,
    /// The sources named by jobs.
    job_sources: Vec<JobSource>,
    /// The scripts that have begun and not ended.
    scripts: Vec<Arc<ScriptToken>>,
}

/// Named inputs, views and settings. Clones share the same session.
#[derive(Clone)]
pub struct Session {
    inner: Arc<Mutex<Inner>>,
    /// The script that uses this handle; `None` outside of scripts.
    script: Option<Arc<ScriptToken>>,
}

impl Default for Session {
    fn default() -> Self {
        Self::new()
    }
}

impl Inner {
    /// A table in memory, with its name as written. A name in another case is found if no table has
    /// exactly this name.
    fn memory_table(&self, name: &str) -> Option<(&String, &MemoryTable)> {
        let in_any_case = || self.tables.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        self.tables.get_key_value(name).or_else(in_any_case)
    }

    fn insert_view(&mut self, name: &str, plan: impl Into<Arc<Plan>>) {
        let view = (name.to_string(), plan.into());
        self.views.insert(name.to_ascii_lowercase(), view);
    }

    /// Whether a query of this name is being started or has not ended yet.
    fn is_active(&self, name: &str) -> bool {
        let runs = |end: &Option<JobEnd>| !end.as_ref().is_some_and(JobEnd::has_ended);
        self.active.iter().any(|(active, end)| active == name && runs(end))
    }
}

impl Session {
    /// Creates a session with defaults: one pinned worker, balanced waiting, parallelism 1.
    pub fn new() -> Self {
        let settings = Settings::default();
        let inner = Inner {
            views: BTreeMap::new(),
            streams: BTreeMap::new(),
            tables: BTreeMap::new(),
            created_tables: BTreeSet::new(),
            functions: BTreeMap::new(),
            aggregates: BTreeMap::new(),
            active: Vec::new(),
            settings,
            told_settings: BTreeSet::new(),
            console: Box::new(|| Box::new(std::io::stdout())),
            console_format: ConsoleFormat::Tables,
            notice: |_| {},
            send_lags: Vec::new(),
            replaced: Vec::new(),
            job_sources: Vec::new(),
            scripts: Vec::new(),
        };
        Self { inner: Arc::new(Mutex::new(inner)), script: None }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Sets the writer of console sinks; the default is standard output.
    pub fn set_console(&self, make: impl Fn() -> Box<dyn Write + Send> + Send + 'static) {
        self.lock().console = Box::new(make);
    }

    /// Sets what console sinks print. A query in output mode complete is refused if it is to print
    /// lines, because its epochs could not be told apart.
    pub fn set_console_format(&self, format: ConsoleFormat) {
        self.lock().console_format = format;
    }

    /// Splits a text into statements, without parsing them.
    pub fn split_statements<'t>(&self, text: &'t str) -> StatementTexts<'t> {
        split(text, self.lock().settings.literals)
    }

    /// The views and tables of the session, each with the names of its columns.
    pub fn relations(&self) -> Vec<(String, Vec<String>)> {
        let inner = self.lock();
        let named = |name: &String, schema: &Schema| {
            (name.clone(), schema.fields.iter().map(|field| field.name.clone()).collect())
        };
        let views = inner.views.values().map(|(name, plan)| named(name, &plan.schema()));
        let tables = inner.tables.iter().map(|(name, table)| named(name, table.schema()));
        views.chain(tables).collect()
    }

    /// Sets a callback for notices, such as that a peer has disconnected.
    pub fn on_notice(&self, notice: fn(&str)) {
        self.lock().notice = notice;
    }

    /// Replaces sources of the jobs that are read after this call.
    pub fn replace_sources(&self, sources: impl IntoIterator<Item = ReplacedSource>) {
        self.lock().replaced.extend(sources);
    }

    /// The sources named by jobs, in order.
    pub fn job_sources(&self) -> Vec<JobSource> {
        self.lock().job_sources.clone()
    }

    /// How much later than intended the capture sources of the started queries have emitted their
    /// records. Sources with `speed 'max'` are not included, because they have no intended times.
    pub fn send_lag(&self) -> NsHistogram {
        let mut all = histogram();
        for lag in &self.lock().send_lags {
            let lag = lag.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            // Both histograms have the same bounds, so adding them cannot fail.
            let _ = all.add(&*lag);
        }
        all
    }

    /// Changes a setting. The reference lists all settings.
    ///
    /// A setting of Spark's that does not affect results is accepted. The first time, a notice says
    /// that it has no effect.
    pub fn set(&self, key: &str, value: &str) -> PlanResult<()> {
        let mut inner = self.lock();
        inner.settings.set(key, value)?;
        if settings::is_of_execution(key) && inner.told_settings.insert(key.to_lowercase()) {
            let notice = inner.notice;
            drop(inner);
            notice(&format!("the setting {key} has no effect here: it is about Spark's execution"));
        }
        Ok(())
    }

    /// The setting `millstream.onQueryFailure`: what happens to the other queries of a job when one
    /// query fails.
    pub fn on_query_failure(&self) -> OnQueryFailure {
        self.lock().settings.on_query_failure
    }

    /// Parses a DDL schema under the session's type rules.
    fn schema(&self, ddl: &str) -> PlanResult<Schema> {
        let rules = Rules::of(self.lock().settings.semantics);
        rules.apply(|| Schema::parse_ddl(ddl))
    }

    /// Registers a scalar function for SQL. The function overrides a built-in function of the same
    /// name. Returns the function, for use in the DataFrame API.
    pub fn register_function(&self, function: UserFunction) -> Arc<UserFunction> {
        let function = Arc::new(function);
        let name = function.name().to_ascii_lowercase();
        self.lock().functions.insert(name, function.clone());
        function
    }

    /// Registers an aggregate function, like [`register_function`](Self::register_function).
    pub fn register_aggregate(&self, function: UserAggregate) -> Arc<UserAggregate> {
        let function = Arc::new(function);
        let name = function.name().to_ascii_lowercase();
        self.lock().aggregates.insert(name, function.clone());
        function
    }

    /// Starts the configuration of a table: files or Kafka topics. The rows are read when a query
    /// over the table starts.
    pub fn read(&self) -> StreamReader {
        StreamReader { streaming: false, ..self.read_stream() }
    }

    /// Creates a table from rows.
    pub fn create_data_frame(&self, schema: Schema, rows: Vec<Vec<Value>>) -> DataFrame {
        DataFrame::new(self.clone(), Plan::Values(schema, rows))
    }

    /// Starts the configuration of a stream.
    pub fn read_stream(&self) -> StreamReader {
        StreamReader {
            session: self.clone(),
            streaming: true,
            is_view: false,
            format: String::new(),
            options: Options::new(),
            schema: None,
        }
    }

    /// Creates a named stream that the program pushes rows into. `ddl` is its schema. Fails if a
    /// table of the session has the name.
    pub fn memory_stream(&self, name: &str, ddl: &str) -> PlanResult<MemoryStream> {
        self.memory_stream_of(name, self.schema(ddl)?)
    }

    /// Like [`memory_stream`](Self::memory_stream), with a schema.
    pub fn memory_stream_of(&self, name: &str, schema: Schema) -> PlanResult<MemoryStream> {
        self.register_stream(name, MemoryStream::new(schema))
    }

    /// Like [`memory_stream`](Self::memory_stream), with several partitions. Rows are distributed
    /// round robin, and each partition is read by its own tasklet.
    pub fn memory_stream_in_parts(
        &self,
        name: &str,
        ddl: &str,
        parts: usize,
    ) -> PlanResult<MemoryStream> {
        let schema = self.schema(ddl)?;
        self.register_stream(name, MemoryStream::in_parts(schema, parts))
    }

    /// Registers a memory stream as a view. Fails if a table of the session has its name.
    fn register_stream(&self, name: &str, stream: MemoryStream) -> PlanResult<MemoryStream> {
        let parts = (stream.parts() > 1).then(|| stream.parts().to_string());
        let options = parts.map(|parts| ("numPartitions".to_string(), parts));
        let scan = Scan {
            id: SourceId::new(),
            name: name.to_string(),
            streaming: true,
            format: "memory".to_string(),
            options: options.into_iter().collect(),
            inferred: false,
            is_file_source: false,
            schema: stream.schema().clone(),
        };
        let mut inner = self.lock();
        inner.check_new_view(name, true)?;
        inner.streams.insert(name.to_string(), stream.clone());
        inner.insert_view(name, Plan::Scan(scan));
        Ok(stream)
    }

    /// Parses an expression in SQL, which may end with `AS name`.
    pub fn expr(&self, sql: &str) -> PlanResult<Expr> {
        sql::parse_expr(sql, &SessionCatalog(self))
    }

    /// Parses and plans a query in SQL. A syntax error or an unknown name is an error; nothing is
    /// opened.
    pub fn sql(&self, query: &str) -> PlanResult<DataFrame> {
        let plan = sql::parse_query(query, &SessionCatalog(self))?;
        Ok(DataFrame::new(self.clone(), plan))
    }

    /// A view, a memory stream or a table in memory by its name, which is case-insensitive; `None`
    /// if it does not exist.
    pub fn view(&self, name: &str) -> Option<DataFrame> {
        let plan = self.lock().relation(name)?;
        Some(DataFrame::new(self.clone(), plan))
    }

    /// A table in memory by its name, which is case-sensitive: the result of a memory sink, by the
    /// query's name, or a created table. `None` if it does not exist.
    pub fn table(&self, query_name: &str) -> Option<MemoryTable> {
        self.lock().tables.get(query_name).cloned()
    }

    pub(crate) fn register(&self, name: &str, plan: impl Into<Arc<Plan>>) {
        self.lock().insert_view(name, plan);
    }
}

/// Whether a format is a file format, which can be read as a stream and as a table.
pub(crate) fn is_files(format: &str) -> bool {
    ["text", "csv", "json", "parquet", "orc"].iter().any(|files| files.eq_ignore_ascii_case(format))
}

/// The error of a build without the feature `kafka`.
#[cfg(not(feature = "kafka"))]
fn without_kafka() -> PlanError {
    PlanError::new(
        "DATA_SOURCE_NOT_FOUND",
        "this build has no Kafka",
        "Build with the cargo feature `kafka`",
    )
}

/// Refuses a schema given for a Kafka source that is not the source's own.
fn check_kafka_schema(given: &Schema, own: &Schema) -> PlanResult<()> {
    if given == own {
        return Ok(());
    }
    Err(PlanError::new(
        "USER_SPECIFIED_AND_ACTUAL_SCHEMA_MISMATCH",
        format!("the source kafka has other columns than the schema given:\n{}", own.tree()),
        "Leave the schema out",
    ))
}

/// The formats of sources. `kafka` needs the feature `kafka`, `parquet` and `orc` the feature
/// `columnar`.
pub const SOURCE_FORMATS: &[&str] = &[
    "socket",
    "capture",
    "kafka",
    "text",
    "csv",
    "json",
    "parquet",
    "orc",
    "rate",
    "rate-micro-batch",
];

/// Whether a source of a format can be read as a table.
fn has_batch_queries(format: &str) -> bool {
    is_files(format) || cfg!(feature = "kafka") && format == "kafka"
}

/// The configuration of a source, which is read as a stream or as a table.
#[must_use = "nothing is read before `load`"]
pub struct StreamReader {
    session: Session,
    streaming: bool,
    /// Whether the source is a view, which each query reads as a stream or as a table.
    #[cfg_attr(not(feature = "kafka"), expect(dead_code, reason = "only topics are both"))]
    is_view: bool,
    format: String,
    options: Options,
    schema: Option<Schema>,
}

impl StreamReader {
    /// Sets the format, one of [`SOURCE_FORMATS`].
    pub fn format(mut self, format: &str) -> Self {
        self.format = format.to_string();
        self
    }

    /// Sets an option. Option names are case-insensitive.
    pub fn option(mut self, key: &str, value: impl ToString) -> Self {
        self.options.push((key.to_string(), value.to_string()));
        self
    }

    /// Sets the schema, for formats that have none of their own.
    pub fn schema(mut self, schema: Schema) -> Self {
        self.schema = Some(schema);
        self
    }

    /// Returns the source as a DataFrame. Files are listed now, and may be read to infer their
    /// schema. Other sources are not opened before a query over the DataFrame starts.
    pub fn load(self) -> PlanResult<DataFrame> {
        let name = self.format.clone();
        let plan = self.load_as(&name)?;
        Ok(plan)
    }

    pub(crate) fn load_as(mut self, name: &str) -> PlanResult<DataFrame> {
        let format = self.format.to_ascii_lowercase();
        let is_file_source = is_files(&format);
        let (schema, origin) = match is_file_source {
            true => self.file_schema(&format)?,
            false => (self.source_schema(&format)?, SchemaOrigin::User),
        };
        let inferred = origin == SchemaOrigin::Files;
        if self.schema.is_some() {
            return Err(PlanError::new(
                "UNSUPPORTED_USER_SPECIFIED_SCHEMA",
                format!("the source {format} has its own schema and takes none"),
                "Leave the schema out",
            ));
        }
        if !self.streaming && !has_batch_queries(&format) {
            return Err(PlanError::new(
                "UNSUPPORTED_BATCH_DATASOURCE",
                format!("the source {format} is a stream and has no end"),
                "Use read_stream() instead of read()",
            ));
        }
        let (name, streaming) = (name.to_string(), self.streaming);
        let options = self.options;
        let id = SourceId::new();
        let scan = Scan { id, name, streaming, format, options, schema, inferred, is_file_source };
        Ok(DataFrame::new(self.session, Plan::Scan(scan)))
    }

    /// The schema of files, and whether it was inferred from them. Consumes the schema that the
    /// user has given. Without one it is inferred, except for text. Fails for wrong options, for a
    /// path that does not exist, for a table's pattern that matches nothing, and if no schema can
    /// be inferred.
    fn file_schema(&mut self, format: &str) -> PlanResult<(Schema, SchemaOrigin)> {
        let settings = self.session.lock().settings.formats.clone();
        let given = self.schema.take();
        let inferred = given.is_none() && format != "text";
        let schema = match inferred {
            true => {
                let made = infer(format, &self.options, &settings);
                let mut made = made.map_err(|error| self.missing(format).unwrap_or(error))?;
                made.fields.iter_mut().for_each(|field| field.nullable = true);
                Some(made)
            }
            false => given,
        };
        let origin = if inferred { SchemaOrigin::Files } else { SchemaOrigin::User };
        let schema = schema.map(|schema| (schema, origin));
        let config = FileSourceConfig::read(format, &self.options, schema, &settings)?;
        if self.streaming {
            config.check_stream()?;
        } else {
            config.check_exists()?;
        }
        Ok((config.schema(), origin))
    }

    /// The error of a table whose path does not exist, or whose pattern matches nothing.
    fn missing(&self, format: &str) -> Option<PlanError> {
        let settings = self.session.lock().settings.formats.clone();
        let schema = Some((Schema::default(), SchemaOrigin::User));
        let config = FileSourceConfig::read(format, &self.options, schema, &settings).ok();
        config.filter(|_| !self.streaming)?.check_exists().err()
    }

    /// The schema of a source other than files. Fails for an unknown format and for wrong options.
    fn source_schema(&mut self, format: &str) -> PlanResult<Schema> {
        match format {
            "socket" => Ok(SocketConfig::read(&self.options)?.schema()),
            "capture" => Ok(CaptureConfig::read(&self.options)?.schema()),
            "rate" => rate::read(&self.options).map(|_| rate::schema()),
            "rate-micro-batch" => micro_batch::Config::read(&self.options).map(|_| rate::schema()),
            #[cfg(feature = "kafka")]
            "kafka" => self.kafka_schema(),
            #[cfg(not(feature = "kafka"))]
            "kafka" => Err(without_kafka()),
            "" => Err(PlanError::new(
                "DATA_SOURCE_NOT_FOUND",
                "no format was given",
                format!("Source formats: {}", SOURCE_FORMATS.join(", ")),
            )),
            _ => Err(PlanError::new(
                "DATA_SOURCE_NOT_FOUND",
                format!("there is no source format '{format}'"),
                format!(
                    "{}Source formats: {}",
                    did_you_mean(format, SOURCE_FORMATS.iter().copied()),
                    SOURCE_FORMATS.join(", ")
                ),
            )),
        }
    }

    /// The schema of Kafka records. Consumes the schema that the user has given. An error if that
    /// schema differs.
    #[cfg(feature = "kafka")]
    fn kafka_schema(&mut self) -> PlanResult<Schema> {
        let config = match self.is_view {
            true => KafkaSourceConfig::read_view(&self.options)?,
            false => KafkaSourceConfig::read(&self.options, self.streaming)?,
        };
        let schema = config.schema();
        if let Some(given) = self.schema.take() {
            check_kafka_schema(&given, &schema)?;
        }
        Ok(schema)
    }
}
