//! One case: read, run, judged.

use crate::compare::{same_rows, to_value, value_json};
use millstream::Config;
use millstream::WaitProfile;
use millstream::connect::memory::MemoryStream;
use millstream::session::{QueryError, Session, StreamingQuery, Trigger};
use millstream::table::types::{DataType, Schema};
use millstream::table::value::Value;
use serde_json::Value as Json;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// How a case ended.
pub enum Outcome {
    Passed,
    Failed(String),
    Skipped(String),
}

/// A case file.
pub struct Case(Json);

/// A condition that says "not built yet" rather than "refused".
const NOT_YET: &str = "NOT_YET_SUPPORTED";

impl Case {
    /// Reads a case.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
        serde_json::from_str(&text).map(Self).map_err(|error| error.to_string())
    }

    fn text(&self, key: &str) -> &str {
        self.0[key].as_str().unwrap_or_default()
    }

    fn sources(&self, session: &Session) -> Result<Vec<(String, MemoryStream)>, QueryError> {
        let mut streams = Vec::new();
        for (name, source) in self.0["sources"].as_object().into_iter().flatten() {
            let ddl = source["schema"].as_str().unwrap_or_default();
            streams.push((name.clone(), session.memory_stream(name, ddl)?));
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

    fn start(&self, session: &Session, checkpoint: &Path) -> Result<StreamingQuery, QueryError> {
        self.start_as(
            session,
            self.text("output_mode"),
            Trigger::AsSoonAsPossible,
            Some(checkpoint),
        )
    }

    fn start_as(
        &self,
        session: &Session,
        mode: &str,
        trigger: Trigger,
        checkpoint: Option<&Path>,
    ) -> Result<StreamingQuery, QueryError> {
        for view in self.0["views"].as_array().into_iter().flatten() {
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
        let config = Config { pin: false, wait: WaitProfile::Park, ..Config::default() };
        let writer = session.sql(self.text("query"))?.write_stream().output_mode(mode);
        let mut writer = writer.format("memory").query_name("result").config(config);
        if let Some(checkpoint) = checkpoint {
            writer = writer.option("checkpointLocation", checkpoint.display());
        }
        writer.trigger(trigger).start()
    }

    /// Whether the final answer is the same in continuous mode as in micro-batch mode: of a query
    /// in mode update, whose rows come one by one there, that of mode complete. `None` where there
    /// is nothing to compare.
    pub fn same_in_both_modes(&self) -> Option<Result<(), String>> {
        let fails = self.0["steps"].as_array().into_iter().flatten().any(|s| !s["error"].is_null());
        let watermark = |view: &Json| !view["watermark"].is_null();
        let timed = self.0["views"].as_array().into_iter().flatten().any(watermark);
        // Where rows come too late is not the same.
        if !self.0["error"].is_null() || fails || timed {
            return None;
        }
        let mode = match self.text("output_mode") {
            "update" => "complete",
            mode => mode,
        };
        let continuous = Trigger::Continuous { interval_ns: 5_000_000 };
        let micro_batch = match self.final_answer(mode, Trigger::AsSoonAsPossible) {
            Ok(answer) => answer,
            // Not every query has that mode.
            Err(_) => return None,
        };
        let ordered = self.0["ordered"].as_bool().unwrap_or(false);
        Some(self.final_answer(mode, continuous).and_then(|answer| {
            if same_rows(&micro_batch, &answer, ordered) {
                return Ok(());
            }
            let (a, b) = (Json::Array(micro_batch), Json::Array(answer));
            Err(format!("micro-batch mode gives {a}, continuous mode {b}"))
        }))
    }

    fn final_answer(&self, mode: &str, trigger: Trigger) -> Result<Vec<Json>, String> {
        let session = Session::new();
        for (key, value) in self.0["conf"].as_object().into_iter().flatten() {
            let value = value.as_str().map_or(value.to_string(), str::to_string);
            session.set(key, &value).map_err(|error| error.to_string())?;
        }
        self.tables(&session)?;
        let failed = |error: QueryError| error.to_string();
        let streams = self.sources(&session).map_err(failed)?;
        let query = self.start_as(&session, mode, trigger, None).map_err(failed)?;
        for step in self.0["steps"].as_array().into_iter().flatten() {
            add(step, &streams)?;
            query.process_all_available().map_err(|error| error.to_string())?;
        }
        query.stop().map_err(|error| error.to_string())?;
        let table = session.table("result").ok_or("the sink has no table")?;
        Ok(rows_json(&table.rows(), table.schema()))
    }

    /// Runs it.
    pub fn run(&self) -> Outcome {
        let (session, wanted) = (Session::new(), &self.0["error"]);
        let checkpoint = Scratch::new();
        for (key, value) in self.0["conf"].as_object().into_iter().flatten() {
            let value = value.as_str().map_or(value.to_string(), str::to_string);
            if let Err(error) = session.set(key, &value) {
                return Outcome::Skipped(format!("setting {key} = {value}: {error}"));
            }
        }
        if let Err(reason) = self.tables(&session) {
            return Outcome::Failed(reason);
        }
        let started = self.sources(&session).and_then(|streams| {
            let query = self.start(&session, &checkpoint.0)?;
            Ok((query, streams))
        });
        match started {
            Err(error) if error.condition() == NOT_YET => {
                Outcome::Skipped(error.to_string().replace('\n', " "))
            }
            Err(error) if !wanted.is_null() => {
                judge_error(wanted, error.condition(), &error.to_string())
            }
            Err(error) => Outcome::Failed(format!("refused: {error}")),
            Ok(_) if !wanted.is_null() => {
                Outcome::Failed(format!("started, but must be refused with {wanted}"))
            }
            Ok((query, streams)) => {
                self.steps(&session, query, &streams, &checkpoint.0).unwrap_or_else(Outcome::Failed)
            }
        }
    }

    fn steps(
        &self,
        session: &Session,
        mut query: StreamingQuery,
        streams: &[(String, MemoryStream)],
        checkpoint: &Path,
    ) -> Result<Outcome, String> {
        let complete = self.text("output_mode") == "complete";
        let ordered = self.0["ordered"].as_bool().unwrap_or(false);
        for (number, step) in self.0["steps"].as_array().into_iter().flatten().enumerate() {
            if step["restart"].as_bool() == Some(true) {
                query.stop().map_err(|error| format!("step {number}: {error}"))?;
                drop(query);
                let again = self.start(session, checkpoint);
                query = again.map_err(|error| format!("step {number}: restart: {error}"))?;
                continue;
            }
            let table = session.table("result").ok_or("the sink has no table")?;
            table.take();
            add(step, streams).map_err(|reason| format!("step {number}: {reason}"))?;
            let processed = query.process_all_available();
            if !step["error"].is_null() {
                return match processed {
                    Err(error) => {
                        Ok(judge_error(&step["error"], error.condition(), &error.to_string()))
                    }
                    Ok(()) => Err(format!("step {number}: no error, but {}", step["error"])),
                };
            }
            processed.map_err(|error| format!("step {number}: {error}"))?;
            let watermark = &step["watermark"];
            if let Some(wanted) = watermark.as_str()
                && wanted != query_watermark(&query)
            {
                let got = query_watermark(&query);
                return Err(format!("step {number}: watermark {got}, expected {wanted}"));
            }
            let got = rows_json(&table.rows(), table.schema());
            let expected = step["expect"].as_array().cloned().unwrap_or_default();
            if !same_rows(&expected, &got, ordered) {
                let (expected, got) = (Json::Array(expected), Json::Array(got));
                let mode = if complete { "complete" } else { "rows" };
                return Err(format!("step {number} ({mode}): expected {expected}, got {got}"));
            }
        }
        Ok(Outcome::Passed)
    }
}

/// The watermark that the next batch goes by.
fn query_watermark(query: &StreamingQuery) -> String {
    let micros = Value::Long(query.watermark_ms().unwrap_or(0) * 1000);
    value_json(&micros, &DataType::Timestamp).as_str().unwrap_or_default().to_string()
}

/// A folder that goes when the case is over.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("millstream-conformance-{}-{number}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // It may never have been made.
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// Adds a step's rows: to all sources while no batch is planned in between, as far as one call per
/// source can do that.
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

/// Conditions are compared; a catch-all or none passes under any stable name but "not built".
fn judge_error(wanted: &Json, condition: &str, text: &str) -> Outcome {
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
