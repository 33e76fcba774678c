//! Configures the sink of a query and starts the query.

mod batch_query;
mod explanation;
mod prepared_query;
mod progress_reporter;
mod query_sink;
mod query_sources;
mod query_start;

use crate::connect::foreach::{BatchFunction, ForeachWriter};
use crate::connect::socket::source::IntendedTimes;
use crate::session::Settings;
use crate::session::dataframe::DataFrame;
use crate::session::progress::Progress;
pub(in crate::session) use crate::session::stream_writer::query_sources::file_config;
use crate::table::error::PlanError;
use crate::table::physical::{LateOutput, LateRow, TableSignal};
use crate::table::plan::Options;
use crate::table::types::Schema;
use crate::table::value::Value;
use millstream_engine::env::Env;
use millstream_engine::epoch::trigger::Trigger;
use millstream_engine::event::Epoch;
use millstream_engine::runtime::job::Config;
use std::sync::{Arc, Mutex};

/// The formats of sinks. `kafka` needs the feature `kafka`, `parquet` and `orc` the feature
/// `columnar`.
pub const SINK_FORMATS: &[&str] =
    &["console", "text", "csv", "json", "parquet", "orc", "memory", "socket", "kafka", "noop"];

/// Options of the query rather than of the sink's format.
const QUERY_OPTIONS: [&str; 4] = ["outputMode", "trigger", "checkpointLocation", "queryName"];

/// Configures the sink and the trigger of a query. Call `start` to run it.
#[must_use = "nothing runs before `start`"]
pub struct StreamWriter {
    frame: DataFrame,
    /// The settings at the query's position in a job file. If `None`, the session's settings at the
    /// start of the query are used.
    settings: Option<Settings>,
    format: String,
    options: Options,
    mode: Option<String>,
    trigger: Option<Trigger>,
    name: Option<String>,
    foreach: Option<Box<dyn ForeachWriter>>,
    foreach_batch: Option<BatchFunction>,
    on_progress: Option<OnProgress>,
    late: Option<LateOutput>,
    config: Option<Config>,
    cores: Option<Vec<usize>>,
    replay: Option<Replay>,
    /// Tells the sink in mode complete that the whole result was emitted.
    table: TableSignal,
    /// Whether the query is only explained and never started.
    explained: bool,
    /// Whether a console sink prints the query's name above each table.
    names_tables: bool,
}

/// A callback on the driver's thread for every committed epoch.
type OnProgress = Box<dyn FnMut(&Progress) + Send>;

/// The clock of a replay, and the intended send time of each line of its socket source.
type Replay = (Arc<dyn Env>, IntendedTimes);

impl StreamWriter {
    pub(crate) fn new(frame: DataFrame) -> Self {
        Self {
            frame,
            settings: None,
            format: String::new(),
            options: Options::new(),
            mode: None,
            trigger: None,
            name: None,
            foreach: None,
            foreach_batch: None,
            on_progress: None,
            late: None,
            config: None,
            cores: None,
            replay: None,
            table: TableSignal::default(),
            explained: false,
            names_tables: false,
        }
    }

    /// Whether the sink is a console.
    pub(crate) fn prints_tables(&self) -> bool {
        self.format.eq_ignore_ascii_case("console")
    }

    /// Makes a console sink print the query's name above each table.
    pub(crate) fn name_tables(&mut self) {
        self.names_tables = true;
    }

    /// Sets the output mode: `append` (default), `update` or `complete`.
    pub fn output_mode(mut self, mode: &str) -> Self {
        self.mode = Some(mode.to_string());
        self
    }

    /// Sets the sink's format, one of [`SINK_FORMATS`].
    pub fn format(mut self, format: &str) -> Self {
        self.format = format.to_string();
        self
    }

    /// Sets an option of the sink, or `outputMode`, `trigger`, `queryName`, `checkpointLocation`.
    pub fn option(mut self, key: &str, value: impl ToString) -> Self {
        self.options.push((key.to_string(), value.to_string()));
        self
    }

    /// Partitions the sink's files by columns, whose values become folder names.
    pub fn partition_by<'c>(self, columns: impl IntoIterator<Item = &'c str>) -> Self {
        let columns: Vec<_> = columns.into_iter().collect();
        self.option("partitionBy", columns.join(","))
    }

    /// Sets the trigger; the default is continuous with an epoch per second.
    pub fn trigger(mut self, trigger: Trigger) -> Self {
        self.trigger = Some(trigger);
        self
    }

    /// Sets the query's name, which is also the name of a memory sink's table.
    pub fn query_name(mut self, name: &str) -> Self {
        self.name = Some(name.to_string());
        self
    }

    /// Passes the rows to a writer instead of a sink of a format.
    pub fn foreach(mut self, writer: impl ForeachWriter) -> Self {
        self.foreach = Some(Box::new(writer));
        self
    }

    /// Passes the rows of each micro-batch and the batch number to a function, instead of a sink of
    /// a format. A continuous trigger is refused.
    pub fn foreach_batch(
        mut self,
        function: impl FnMut(&[Vec<Value>], Epoch) -> Result<(), String> + Send + 'static,
    ) -> Self {
        self.foreach_batch = Some(Box::new(function));
        self
    }

    /// Sets a callback for every committed epoch. It runs on the thread that commits, so it delays
    /// the next epoch.
    pub fn on_progress(mut self, call: impl FnMut(&Progress) + Send + 'static) -> Self {
        self.on_progress = Some(Box::new(call));
        self
    }

    /// Sets a callback for rows that are dropped as late or as too far ahead of the clock. It runs
    /// on the worker's thread. If an epoch is repeated after a failure, its rows are passed again.
    pub fn on_late(mut self, call: impl FnMut(&LateRow<'_>) + Send + 'static) -> Self {
        self.late = Some(Arc::new(Mutex::new(Box::new(call))));
        self
    }

    /// Overrides the session's workers, pinning, cores and waiting. The trigger of `config` is
    /// ignored.
    pub fn config(mut self, config: Config) -> Self {
        self.config = Some(config);
        self
    }

    /// Pins the query's workers to the given cores, unless pinning is off. If none of them is free,
    /// they are shared. By default workers are pinned to free cores, if there are any.
    pub fn cores(mut self, cores: impl IntoIterator<Item = usize>) -> Self {
        self.cores = Some(cores.into_iter().collect());
        self
    }

    /// Measures latency from the intended send time of each line of a socket source instead of its
    /// arrival. `times` returns that time for line 0, 1, 2 …, on the clock of `env`.
    pub fn replay(mut self, env: Arc<dyn Env>, times: IntendedTimes) -> Self {
        self.replay = Some((env, times));
        self
    }

    /// Sets whether the query is only explained, so that it needs no checkpoint.
    pub(super) fn explain_only(mut self, explained: bool) -> Self {
        self.explained = explained;
        self
    }

    /// Whether every epoch writes the whole result.
    pub(super) fn is_complete_mode(&self) -> bool {
        let mode = self.mode.as_deref().or(self.query_option("outputMode"));
        mode.is_some_and(|mode| mode.eq_ignore_ascii_case("complete"))
    }

    /// Set in each epoch whose whole result was emitted, in mode complete.
    pub(super) fn table_signal(&self) -> TableSignal {
        self.table.clone()
    }

    /// The columns of the result.
    pub(super) fn schema(&self) -> Schema {
        self.frame.schema()
    }

    /// Passes the result rows to a function instead of the sink, without a checkpoint.
    pub(super) fn instead_of_sink(mut self, rows: impl ForeachWriter) -> Self {
        let name = self.name().map(str::to_string);
        let kept = ["outputMode", "trigger"];
        self.options.retain(|(key, _)| kept.iter().any(|name| name.eq_ignore_ascii_case(key)));
        (self.name, self.explained) = (name, false);
        self.foreach(rows)
    }

    /// Fixes the current settings of the session for this query.
    pub(super) fn with_current_settings(mut self) -> Self {
        self.settings = Some(self.settings());
        self
    }

    pub(in crate::session::stream_writer) fn settings(&self) -> Settings {
        self.settings.clone().unwrap_or_else(|| self.frame.session.lock().settings.clone())
    }

    /// The query's name, if it was set.
    pub(super) fn name(&self) -> Option<&str> {
        self.name.as_deref().or(self.query_option("queryName"))
    }

    pub(in crate::session::stream_writer) fn query_option(&self, name: &str) -> Option<&str> {
        let found = self.options.iter().rev().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

/// The error for two active queries with the same name.
pub(super) fn name_in_use(reason: String, fix: &str) -> PlanError {
    PlanError::new("QUERY_NAME_IN_USE", reason, fix)
}
