//! A conformance case: parsing and preparation.

use crate::compare::{to_value, value_json};
use millstream::Config;
use millstream::WaitProfile;
use millstream::connect::memory::MemoryStream;
use millstream::session::{DataFrame, Progress, QueryError, Session, StreamingQuery, Trigger};
use millstream::table::types::{DataType, Schema};
use millstream::table::value::Value;
use serde_json::Value as Json;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The outcome of a case.
pub enum Outcome {
    Passed,
    Failed(String),
    Skipped(String),
}

/// A conformance case, as JSON.
pub struct Case(Json);

/// The error condition of features that are not built yet.
const NOT_YET: &str = "NOT_YET_SUPPORTED";

impl Case {
    /// Parses a case file.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
        serde_json::from_str(&text).map(Self).map_err(|error| error.to_string())
    }

    fn text(&self, key: &str) -> &str {
        self.0[key].as_str().unwrap_or_default()
    }

    /// The steps, in order.
    pub fn steps(&self) -> impl Iterator<Item = &Json> {
        self.0["steps"].as_array().into_iter().flatten()
    }

    /// The value of a setting. `None` if the case uses the default.
    pub fn setting(&self, key: &str) -> Option<&str> {
        self.0["conf"][key].as_str()
    }

    /// Whether the query is restarted in the case.
    pub fn has_restarts(&self) -> bool {
        self.steps().any(|step| step["restart"].as_bool() == Some(true))
    }

    /// The error with which the query must be rejected before it processes anything; NULL if none.
    pub fn error(&self) -> &Json {
        &self.0["error"]
    }

    /// The output mode.
    pub fn mode(&self) -> &str {
        self.text("output_mode")
    }

    /// Whether the order of the result matters.
    pub fn is_ordered(&self) -> bool {
        self.0["ordered"].as_bool().unwrap_or(false)
    }

    /// The SQL of the query and of the views below it.
    pub fn queries(&self) -> impl Iterator<Item = &str> {
        let views = self.views().filter_map(|view| view["sql"].as_str());
        views.chain([self.text("query")])
    }

    /// The views, in order.
    pub fn views(&self) -> impl Iterator<Item = &Json> {
        self.0["views"].as_array().into_iter().flatten()
    }

    fn sources(
        &self,
        session: &Session,
        parts: usize,
    ) -> Result<Vec<(String, MemoryStream)>, QueryError> {
        let mut streams = Vec::new();
        for (name, source) in self.0["sources"].as_object().into_iter().flatten() {
            let ddl = source["schema"].as_str().unwrap_or_default();
            streams.push((name.clone(), session.memory_stream_in_parts(name, ddl, parts)?));
        }
        Ok(streams)
    }

    /// The static inputs, as views.
    fn tables(&self, session: &Session) -> Result<(), String> {
        for (name, table) in self.0["tables"].as_object().into_iter().flatten() {
            let ddl = table["schema"].as_str().unwrap_or_default();
            let schema = Schema::parse_ddl(ddl).map_err(|error| error.to_string())?;
            let rows = table["rows"].as_array().into_iter().flatten().map(|row| {
                let fields = schema.fields.iter();
                fields.map(|field| to_value(&row[&field.name], &field.data_type)).collect()
            });
            let rows = rows.collect::<Result<Vec<_>, String>>()?;
            session.create_data_frame(schema.clone(), rows).create_temp_view(name);
        }
        Ok(())
    }

    /// A session with the case's settings, tables, sources and views.
    pub fn prepare(&self, parallelism: usize, parts: usize) -> Result<Prepared, Outcome> {
        let session = Session::new();
        let conf = self.0["conf"].as_object().into_iter().flatten();
        for (key, value) in conf {
            let value = value.as_str().map_or(value.to_string(), str::to_string);
            if let Err(error) = session.set(key, &value) {
                return Err(Outcome::Skipped(format!("setting {key} = {value}: {error}")));
            }
        }
        let set = session.set("millstream.parallelism", &parallelism.to_string());
        set.map_err(|error| Outcome::Failed(error.to_string()))?;
        self.tables(&session).map_err(Outcome::Failed)?;
        let made = self.sources(&session, parts).and_then(|streams| {
            let frame = self.frame(&session)?;
            Ok(Prepared { session, streams, frame })
        });
        made.map_err(|error| self.judge_refusal(&error))
    }

    /// Compares a rejection of the query before the first step with the expected error. Skipped if
    /// the query needs what is not built yet, failed if the case expects no error.
    pub fn judge_refusal(&self, error: &QueryError) -> Outcome {
        if error.condition() == NOT_YET {
            return Outcome::Skipped(error.to_string().replace('\n', " "));
        }
        match self.error() {
            Json::Null => Outcome::Failed(format!("refused: {error}")),
            wanted => judge_error(wanted, error.condition(), &error.to_string()),
        }
    }

    fn frame(&self, session: &Session) -> Result<DataFrame, QueryError> {
        for view in self.views() {
            let from = view["from"].as_str().unwrap_or_default();
            let mut frame = match view["sql"].as_str() {
                Some(sql) => session.sql(sql)?,
                None => session.sql(&format!("SELECT * FROM {from}"))?,
            };
            let names = |key: &str| {
                let names = view[key].as_array()?;
                Some(names.iter().filter_map(Json::as_str).collect::<Vec<_>>())
            };
            if let Some(column) = view["watermark"]["column"].as_str() {
                let delay = view["watermark"]["delay"].as_str().unwrap_or_default();
                frame = frame.with_watermark(column, delay)?;
            }
            if let Some(names) = names("drop_duplicates") {
                frame = frame.drop_duplicates(names)?;
            }
            if let Some(names) = names("drop_duplicates_within_watermark") {
                frame = frame.drop_duplicates_within_watermark(names)?;
            }
            frame.create_temp_view(view["name"].as_str().unwrap_or_default());
        }
        Ok(session.sql(self.text("query"))?)
    }
}

/// The number of late rows in all runs of a query.
#[derive(Clone, Default)]
pub struct LateRows(Arc<AtomicU64>);

impl LateRows {
    fn count(&self, progress: &Progress) {
        let rows = progress.committed.state.iter().map(|state| state.late).sum();
        self.0.fetch_add(rows, Ordering::SeqCst);
    }

    /// The number of late rows.
    pub fn rows(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// A case that can be started any number of times.
pub struct Prepared {
    pub session: Session,
    pub streams: Vec<(String, MemoryStream)>,
    pub frame: DataFrame,
}

impl Prepared {
    /// Starts the query, optionally with a checkpoint.
    pub fn start(
        &self,
        mode: &str,
        trigger: Trigger,
        checkpoint: Option<&Path>,
        late: LateRows,
    ) -> Result<StreamingQuery, QueryError> {
        let config = Config { pin: false, wait: WaitProfile::Park, ..Config::default() };
        let writer = self.frame.write_stream().output_mode(mode).format("memory");
        let writer = writer.query_name("result").config(config);
        let writer = writer.on_progress(move |progress| late.count(progress));
        let writer = match checkpoint {
            Some(folder) => writer.option("checkpointLocation", folder.display()),
            None => writer,
        };
        writer.trigger(trigger).start()
    }

    /// The rows in the sink's table.
    pub fn rows(&self) -> Vec<Json> {
        let Some(table) = self.session.table("result") else { return Vec::new() };
        rows_json(&table.rows(), table.schema())
    }

    /// Removes and returns the rows of the sink's table.
    pub fn take_rows(&self) -> Vec<Json> {
        let Some(table) = self.session.table("result") else { return Vec::new() };
        let schema = table.schema().clone();
        rows_json(&table.take(), &schema)
    }

    /// Adds a step's rows.
    pub fn add(&self, step: &Json) -> Result<(), String> {
        add(step, &self.streams)
    }
}

/// The watermark of the next batch.
pub fn query_watermark(query: &StreamingQuery) -> String {
    let micros = Value::Long(query.watermark_ms().unwrap_or(0) * 1000);
    value_json(&micros, &DataType::Timestamp).as_str().unwrap_or_default().to_string()
}

/// A folder that is removed when the case ends.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("millstream-conformance-{}-{number}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // The folder may not exist.
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// Adds a step's rows to the sources that the step names. Fails if there is no source of a name, or
/// if a value does not fit its column. Then the sources named earlier have got their rows.
fn add(step: &Json, streams: &[(String, MemoryStream)]) -> Result<(), String> {
    for (name, rows) in step["add"].as_object().into_iter().flatten() {
        let found = streams.iter().find(|(stream, _)| stream == name);
        let (_, stream) = found.ok_or_else(|| format!("no source {name}"))?;
        let rows = rows.as_array().into_iter().flatten().map(|row| {
            let fields = stream.schema().fields.iter();
            fields.map(|field| to_value(&row[&field.name], &field.data_type)).collect()
        });
        stream.add(rows.collect::<Result<Vec<_>, String>>()?);
    }
    Ok(())
}

fn rows_json(rows: &[Vec<Value>], schema: &Schema) -> Vec<Json> {
    let object = |row: &Vec<_>| {
        let fields = schema.fields.iter().zip(row);
        Json::Object(fields.map(|(f, v)| (f.name.clone(), value_json(v, &f.data_type))).collect())
    };
    rows.iter().map(object).collect()
}

/// Compares error conditions. "Not built yet" skips the case. If the case expects a catch-all
/// condition or none, any other stable name passes, except that of a panic.
pub fn judge_error(wanted: &Json, condition: &str, text: &str) -> Outcome {
    if condition == NOT_YET {
        return Outcome::Skipped(text.replace('\n', " "));
    }
    match wanted["condition"].as_str() {
        Some(exact) if !exact.starts_with("_LEGACY_ERROR_TEMP") => {
            if exact == condition {
                Outcome::Passed
            } else {
                Outcome::Failed(format!("expected {exact}, got {text}"))
            }
        }
        _ if condition.is_empty() || condition == "OPERATOR_PANICKED" => {
            Outcome::Failed(format!("no proper error: {text}"))
        }
        _ => Outcome::Passed,
    }
}
