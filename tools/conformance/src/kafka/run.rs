//! Runs a case: a batch query, a write, or a stream, step by step.

use crate::case::{Outcome, Scratch, judge_error};
use crate::compare::{same_rows, to_value, value_json};
use crate::kafka::broker::Broker;
use millstream::session::{DataFrame, QueryError, Session, StreamingQuery, Trigger};
use millstream::table::types::{DataType, Schema};
use millstream::table::value::Value;
use millstream::{Config, WaitProfile};
use serde_json::{Map, Value as Json};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// The rows of each batch, by batch number.
type Batches = Arc<Mutex<BTreeMap<u64, Vec<Json>>>>;

/// Runs a case.
pub fn run(case: &Json, broker: &Broker) -> Result<Outcome, String> {
    broker.create_topics(&case["topics"])?;
    broker.produce(&case["produce"])?;
    broker.delete_records(&case["delete_records"])?;
    match case["kind"].as_str() {
        Some("batch") => Ok(batch(case, broker)),
        Some("write") => write(case, broker),
        _ => {
            let mut stream = Stream::new(case, broker);
            stream.run()
        }
    }
}

/// The options of a source or sink, with the servers unless the case tests their absence.
fn options(case: &Json, broker: &Broker, own: &Json) -> Vec<(String, String)> {
    let own = own.as_object().into_iter().flatten();
    let mut all: Vec<_> = own
        .map(|(key, value)| (key.clone(), value.as_str().map_or(value.to_string(), str::to_string)))
        .collect();
    if case["bootstrap"].as_bool() != Some(false) {
        all.push(("kafka.bootstrap.servers".to_string(), broker.servers.clone()));
    }
    all
}

fn load(
    case: &Json,
    broker: &Broker,
    session: &Session,
    own: &Json,
    is_stream: bool,
) -> Result<DataFrame, QueryError> {
    let mut reader = if is_stream { session.read_stream() } else { session.read() }.format("kafka");
    for (key, value) in options(case, broker, own) {
        reader = reader.option(&key, value);
    }
    if let Some(ddl) = case["reader_schema"].as_str() {
        reader = reader.schema(Schema::parse_ddl(ddl)?);
    }
    Ok(reader.load()?)
}

fn row_json(row: &[Value], schema: &Schema) -> Json {
    let fields = schema.fields.iter().zip(row);
    Json::Object(fields.map(|(f, v)| (f.name.clone(), value_json(v, &f.data_type))).collect())
}

fn judge(case_error: &Json, error: &QueryError) -> Outcome {
    if case_error.is_null() {
        return Outcome::Failed(format!("refused: {error}"));
    }
    if case_error["loose"].as_bool() == Some(true) && error.condition() != "NOT_YET_SUPPORTED" {
        return Outcome::Passed;
    }
    judge_error(case_error, error.condition(), &error.to_string())
}

fn batch(case: &Json, broker: &Broker) -> Outcome {
    let session = Session::new();
    let run = || -> Result<(Schema, Vec<Vec<Value>>), QueryError> {
        for (name, own) in case["sources"].as_object().into_iter().flatten() {
            load(case, broker, &session, own, false)?.create_temp_view(name);
        }
        let frame = session.sql(case["sql"].as_str().unwrap_or_default())?;
        Ok((frame.schema(), frame.collect()?))
    };
    match run() {
        Err(error) => judge(&case["error"], &error),
        Ok(_) if !case["error"].is_null() => {
            Outcome::Failed(format!("accepted, but must fail with {}", case["error"]))
        }
        Ok((schema, rows)) => {
            if let Some(wanted) = case["schema"].as_str() {
                let own = DataType::Struct(schema.fields.clone()).to_string().to_lowercase();
                let plain = |text: &str| text.to_lowercase().replace(' ', "");
                if plain(&own) != plain(wanted) {
                    return Outcome::Failed(format!("schema {own}, expected {wanted}"));
                }
            }
            let rows: Vec<_> = rows.iter().map(|row| row_json(row, &schema)).collect();
            compare(&case["expect"], &rows, "rows")
        }
    }
}

fn compare(expected: &Json, rows: &[Json], what: &str) -> Outcome {
    let expected = expected.as_array().cloned().unwrap_or_default();
    if same_rows(&expected, rows, false) {
        return Outcome::Passed;
    }
    let shown = |rows: &[Json]| Json::Array(rows.to_vec()).to_string();
    Outcome::Failed(format!("{what} {}, expected {}", shown(rows), shown(&expected)))
}

/// Compares the records that were added to topics with those of the case.
fn compare_topics(
    expected: &Json,
    broker: &Broker,
    before: &HashMap<String, HashMap<i32, i64>>,
) -> Result<Outcome, String> {
    for (topic, wanted) in expected.as_object().into_iter().flatten() {
        let none = HashMap::new();
        let got = broker.records(topic, before.get(topic).unwrap_or(&none))?;
        let mut rest: Vec<&Json> = got.iter().collect();
        let wanted = wanted.as_array().cloned().unwrap_or_default();
        let mut order = HashMap::new();
        for record in &wanted {
            let fits = |got: &&Json| {
                let absent = |key: &str| record[key] == Json::Null && got[key] == Json::Null;
                ["key", "value", "headers"]
                    .iter()
                    .all(|key| absent(key) || got[*key] == record[*key])
                    && (record["partition"].is_null() || got["partition"] == record["partition"])
            };
            let Some(at) = rest.iter().position(fits) else {
                let got = Json::from(got.clone());
                return Ok(Outcome::Failed(format!("topic {topic} has {got}, not {record}")));
            };
            let found = rest.remove(at);
            // Records with the same partition and the same key, unless it is NULL, must be in the
            // case's order.
            let place = got.iter().position(|other| std::ptr::eq(other, found));
            let key = (record["key"].to_string(), found["partition"].to_string());
            if let Some(last) = order.insert(key, place)
                && !record["key"].is_null()
                && last > place
            {
                return Ok(Outcome::Failed(format!("topic {topic}: {record} came too early")));
            }
        }
        if !rest.is_empty() {
            let rest = Json::from(rest.into_iter().cloned().collect::<Vec<_>>());
            return Ok(Outcome::Failed(format!("topic {topic} has more: {rest}")));
        }
    }
    Ok(Outcome::Passed)
}

fn config() -> Config {
    Config { pin: false, wait: WaitProfile::Park, ..Config::default() }
}

fn write(case: &Json, broker: &Broker) -> Result<Outcome, String> {
    let session = Session::new();
    let schema = Schema::parse_ddl(case["schema"].as_str().unwrap_or_default()).map_err(text)?;
    let rows = case["rows"].as_array().into_iter().flatten().map(|row| {
        let fields = schema.fields.iter();
        fields.map(|field| to_value(&row[&field.name], &field.data_type)).collect()
    });
    let rows = rows.collect::<Result<Vec<_>, String>>()?;
    let before = case["expect_topics"].as_object().into_iter().flatten();
    let before = before.map(|(topic, _)| Ok((topic.clone(), broker.ends(topic)?)));
    let before = before.collect::<Result<_, String>>()?;
    let run = || -> Result<(), QueryError> {
        let frame = session.create_data_frame(schema.clone(), rows.clone());
        let mut writer = frame.write().format("kafka");
        writer = writer.mode(case["save_mode"].as_str().unwrap_or("append"));
        for (key, value) in options(case, broker, &case["options"]) {
            writer = writer.option(&key, value);
        }
        writer.save()
    };
    match run() {
        Err(error) => Ok(judge(&case["error"], &error)),
        Ok(()) if !case["error"].is_null() => {
            Ok(Outcome::Failed(format!("accepted, but must fail with {}", case["error"])))
        }
        Ok(()) => compare_topics(&case["expect_topics"], broker, &before),
    }
}

/// The state of a stream case.
struct Stream<'c> {
    case: &'c Json,
    broker: &'c Broker,
    checkpoint: Scratch,
    /// The options of each source, as the steps have changed them.
    sources: Map<String, Json>,
    batches: Batches,
    query: Option<StreamingQuery>,
}

impl<'c> Stream<'c> {
    fn new(case: &'c Json, broker: &'c Broker) -> Self {
        let sources = case["sources"].as_object().cloned().unwrap_or_default();
        let (checkpoint, batches) = (Scratch::new(), Batches::default());
        Self { case, broker, checkpoint, sources, batches, query: None }
    }

    fn is_available_now(&self) -> bool {
        self.case["trigger"].as_str() == Some("available-now")
    }

    fn start(&mut self) -> Result<StreamingQuery, QueryError> {
        let session = Session::new();
        for (name, own) in &self.sources {
            load(self.case, self.broker, &session, own, true)?.create_temp_view(name);
        }
        for (name, own) in self.case["static_sources"].as_object().into_iter().flatten() {
            load(self.case, self.broker, &session, own, false)?.create_temp_view(name);
        }
        for view in self.case["views"].as_array().into_iter().flatten() {
            let from = view["from"].as_str().unwrap_or_default();
            let mut frame = session.sql(&format!("SELECT * FROM {from}"))?;
            if let Some(column) = view["watermark"]["column"].as_str() {
                let delay = view["watermark"]["delay"].as_str().unwrap_or_default();
                frame = frame.with_watermark(column, delay)?;
            }
            frame.create_temp_view(view["name"].as_str().unwrap_or_default());
        }
        let frame = session.sql(self.case["sql"].as_str().unwrap_or_default())?;
        let schema = frame.schema();
        let mode = self.case["output_mode"].as_str().unwrap_or("append");
        let trigger = match self.is_available_now() {
            true => Trigger::AvailableNow,
            false => Trigger::AsSoonAsPossible,
        };
        let mut writer = frame.write_stream().output_mode(mode).trigger(trigger).config(config());
        writer = writer.option("checkpointLocation", self.checkpoint.0.display());
        if self.case["sink"].is_object() {
            writer = writer.format("kafka");
            for (key, value) in options(self.case, self.broker, &self.case["sink"]) {
                writer = writer.option(&key, value);
            }
        } else {
            let batches = self.batches.clone();
            writer = writer.foreach_batch(move |rows, batch| {
                let rows = rows.iter().map(|row| row_json(row, &schema)).collect();
                batches.lock().map_err(text)?.insert(batch, rows);
                Ok(())
            });
        }
        writer.start()
    }

    /// Starts the query unless it is running, and processes all available data.
    fn process(&mut self) -> Result<(), QueryError> {
        if self.is_available_now() {
            return Ok(self.start()?.await_termination()?);
        }
        if self.query.is_none() {
            self.query = Some(self.start()?);
        }
        match &self.query {
            Some(query) => Ok(query.process_all_available()?),
            None => Ok(()),
        }
    }

    fn run(&mut self) -> Result<Outcome, String> {
        let steps = self.case["steps"].as_array().cloned().unwrap_or_default();
        if steps.is_empty() {
            return Ok(match self.process() {
                Err(error) => judge(&self.case["error"], &error),
                Ok(()) => Outcome::Failed(format!("accepted, must fail: {}", self.case["error"])),
            });
        }
        for (at, step) in steps.iter().enumerate() {
            let outcome = self.step(step)?;
            let outcome = match outcome {
                Outcome::Failed(why) => Outcome::Failed(format!("step {at}: {why}")),
                other => other,
            };
            if !matches!(outcome, Outcome::Passed) {
                return Ok(outcome);
            }
        }
        if let Some(query) = self.query.take() {
            query.stop().map_err(text)?;
        }
        Ok(Outcome::Passed)
    }

    fn step(&mut self, step: &Json) -> Result<Outcome, String> {
        if step["restart"].as_bool() == Some(true)
            && let Some(query) = self.query.take()
        {
            query.stop().map_err(text)?;
        }
        // A running query may process records as soon as they are sent.
        self.batches.lock().map_err(text)?.clear();
        let broker = self.broker;
        broker.delete_topics(&step["delete_topics"])?;
        broker.create_topics(&step["create_topics"])?;
        broker.add_partitions(&step["add_partitions"])?;
        broker.produce(&step["produce"])?;
        broker.delete_records(&step["delete_records"])?;
        if let Some(ms) = step["wait_ms"].as_u64() {
            let until = Instant::now() + Duration::from_millis(ms);
            while Instant::now() < until {
                std::thread::yield_now();
            }
        }
        for (view, changed) in step["sources"].as_object().into_iter().flatten() {
            let Some(own) = self.sources.get_mut(view).and_then(Json::as_object_mut) else {
                continue;
            };
            own.extend(changed.as_object().cloned().unwrap_or_default());
        }
        let topics = step["expect_topics"].as_object().into_iter().flatten();
        let before = topics.map(|(topic, _)| Ok((topic.clone(), broker.ends(topic)?)));
        let before = before.collect::<Result<_, String>>()?;
        let done = self.process();
        if !step["error"].is_null() {
            return Ok(match done {
                Err(error) => judge(&step["error"], &error),
                Ok(()) => Outcome::Failed(format!("accepted, must fail: {}", step["error"])),
            });
        }
        done.map_err(text)?;
        let outcomes = [
            self.rows(step)?,
            compare_topics(&step["expect_topics"], broker, &before)?,
            self.offsets(step)?,
            self.watermark(step),
        ];
        let failed = outcomes.into_iter().find(|outcome| !matches!(outcome, Outcome::Passed));
        Ok(failed.unwrap_or(Outcome::Passed))
    }

    fn rows(&self, step: &Json) -> Result<Outcome, String> {
        let batches: Vec<Vec<Json>> =
            self.batches.lock().map_err(text)?.values().cloned().collect();
        if let Some(wanted) = step["batches"].as_array() {
            if wanted.len() != batches.len() {
                let got = Json::from(batches.into_iter().map(Json::from).collect::<Vec<_>>());
                return Ok(Outcome::Failed(format!("batches {got}, expected {wanted:?}")));
            }
            for (number, (wanted, got)) in wanted.iter().zip(&batches).enumerate() {
                if let Outcome::Failed(why) = compare(wanted, got, "rows") {
                    return Ok(Outcome::Failed(format!("batch {number}: {why}")));
                }
            }
        }
        if step["expect"].is_null() {
            return Ok(Outcome::Passed);
        }
        let rows = match self.case["output_mode"].as_str() {
            Some("complete") => batches.last().cloned().unwrap_or_default(),
            _ => batches.concat(),
        };
        Ok(compare(&step["expect"], &rows, "rows"))
    }

    fn offsets(&self, step: &Json) -> Result<Outcome, String> {
        if step["offsets"].is_null() {
            return Ok(Outcome::Passed);
        }
        let found = newest(&self.checkpoint.0.join("offsets"))?;
        let found: Json = serde_json::from_str(&found).map_err(|_| format!("offsets: {found}"))?;
        if found == step["offsets"] {
            return Ok(Outcome::Passed);
        }
        Ok(Outcome::Failed(format!("offsets {found}, expected {}", step["offsets"])))
    }

    fn watermark(&self, step: &Json) -> Outcome {
        let (Some(wanted), Some(query)) = (step["watermark"].as_str(), &self.query) else {
            return Outcome::Passed;
        };
        let micros = Value::Long(query.watermark_ms().unwrap_or(0) * 1000);
        let own = value_json(&micros, &DataType::Timestamp);
        if own == wanted {
            return Outcome::Passed;
        }
        Outcome::Failed(format!("watermark {own}, expected {wanted}"))
    }
}

/// The last line of the newest file of a log.
fn newest(folder: &Path) -> Result<String, String> {
    let mut newest: Option<(u64, std::path::PathBuf)> = None;
    for entry in std::fs::read_dir(folder).map_err(text)? {
        let path = entry.map_err(text)?.path();
        let number = path.file_name().and_then(|name| name.to_str()?.parse().ok());
        if let Some(number) = number
            && newest.as_ref().is_none_or(|(last, _)| number > *last)
        {
            newest = Some((number, path));
        }
    }
    let (_, path) = newest.ok_or("no offsets were written")?;
    let text = std::fs::read_to_string(path).map_err(text)?;
    let line = text.lines().rev().find(|line| line.starts_with('{') && line.contains('}'));
    Ok(line.unwrap_or_default().to_string())
}
