//! The memory of state in progress reports includes the heap memory of strings, lists and maps. It
//! decreases when they are removed, and it is the same after a restart.

use millstream::stream::{
    Checkpointed, Context, Flow, Input, ListState, MapState, Processor, Query, Reduce,
    StateBackend, Timer, Ttl, ValueState,
};
use millstream::{Config, EngineError, Trigger, WaitProfile};
use std::path::{Path, PathBuf};

const LONG: usize = 10_000;

#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
enum Do {
    Set,
    Append,
    Insert,
    Remove,
    Clear,
}

#[derive(Clone)]
struct Holds {
    value: ValueState<String>,
    list: ListState<Vec<String>>,
    map: MapState<String, u64>,
}

impl Processor<u64, (u64, Do)> for Holds {
    type Output = ();

    fn record(
        &mut self,
        _: &u64,
        (_, action): (u64, Do),
        cx: &mut Context<'_, ()>,
    ) -> Result<(), EngineError> {
        let long = "x".repeat(LONG);
        match action {
            Do::Set => cx.set_value(self.value, long),
            Do::Append => cx.push(self.list, vec![long]),
            Do::Insert => cx.insert(self.map, long, 1),
            Do::Remove => cx.remove(self.map, &long),
            Do::Clear => {
                cx.clear_value(self.value);
                cx.clear_list(self.list);
                cx.clear_map(self.map)
            }
        }
    }

    fn timer(&mut self, _: &u64, _: Timer, _: &mut Context<'_, ()>) -> Result<(), EngineError> {
        Ok(())
    }
}

fn start<C: StateBackend<u64, u64> + 'static>(flow: Flow<C>) -> (Input<(u64, Do)>, Query) {
    let (input, actions) = flow.channel::<(u64, Do)>();
    let make = |states: &mut millstream::stream::States| Holds {
        value: states.value("value", Ttl::NONE),
        list: states.list("list", Ttl::NONE),
        map: states.map("map", Ttl::NONE),
    };
    actions.key_by(|(key, _)| *key).process("holds", make).sink(|()| {});
    let config = Config { pin: false, wait: WaitProfile::Park, ..Config::default() };
    let trigger = Trigger::Continuous { interval_ns: 3_600_000_000_000 };
    (input, flow.start(Config { trigger, ..config }).unwrap())
}

fn memory(query: &Query) -> usize {
    query.process_all_available().unwrap();
    query.last_epoch().unwrap().state[0].memory_bytes as usize
}

/// The state's memory after each action, in strings of 10,000 bytes: a tenth of a string is added,
/// then it is rounded down.
fn strings(query: &Query, actions: &[Do], input: &mut Input<(u64, Do)>) -> Vec<usize> {
    let counts = actions.iter().map(|action| {
        input.push((1, *action)).unwrap();
        (memory(query) + LONG / 10) / LONG
    });
    counts.collect()
}

fn folder(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("memory-{name}-{}", std::process::id()))
}

#[test]
fn the_reported_state_of_a_processor_includes_heap_memory() {
    let actions = [
        Do::Set,
        Do::Set,
        Do::Append,
        Do::Append,
        Do::Insert,
        Do::Insert,
        Do::Remove,
        Do::Insert,
        Do::Clear,
        Do::Append,
    ];
    let owned = [1, 1, 2, 3, 4, 4, 3, 4, 0, 1];
    let (mut input, query) = start(Flow::new("memory"));
    assert_eq!(strings(&query, &actions, &mut input), owned);
    query.stop().unwrap();

    let folder = folder("processor");
    let (mut input, query) = start(Flow::new("memory").checkpoint(&folder));
    assert_eq!(strings(&query, &actions, &mut input), owned);
    assert_eq!(strings(&query, &[Do::Set, Do::Insert], &mut input), [2, 3]);
    let before = memory(&query);
    query.stop().unwrap();
    let (mut input, query) = start(Flow::new("memory").checkpoint(&folder));
    assert_eq!(memory(&query), before, "the same after a restart");
    assert_eq!(strings(&query, &[Do::Set, Do::Clear], &mut input), [3, 0]);
    query.stop().unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
}

fn concatenate(folder: &Path) -> (Input<String>, Query) {
    let flow: Flow<Checkpointed> = Flow::new("texts").checkpoint(folder);
    let (input, texts) = flow.channel::<String>();
    let append = |all: &mut String, text: String| all.push_str(&text);
    texts.key_by(|_| "key".to_string()).aggregate(Reduce::new(append)).sink(|_| {});
    let config = Config { pin: false, wait: WaitProfile::Park, ..Config::default() };
    let trigger = Trigger::Continuous { interval_ns: 3_600_000_000_000 };
    (input, flow.start(Config { trigger, ..config }).unwrap())
}

#[test]
fn the_reported_state_of_an_aggregate_includes_heap_memory() {
    let folder = folder("aggregate");
    let (mut input, query) = concatenate(&folder);
    let mut lengths = Vec::new();
    for _ in 0..5 {
        input.push("x".repeat(LONG)).unwrap();
        lengths.push((memory(&query) + LONG / 10) / LONG);
    }
    assert_eq!(lengths, [1, 2, 3, 4, 5]);
    let before = memory(&query);
    query.stop().unwrap();
    let (_, query) = concatenate(&folder);
    assert_eq!(memory(&query), before, "the same after a restart");
    query.stop().unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
}

/// The memory of SQL aggregates includes the strings of a key, for every kind of grouping.
#[cfg(feature = "sql")]
#[test]
fn the_reported_state_of_sql_aggregates_includes_heap_memory() {
    use millstream::session::Session;
    use millstream::table::value::Value;
    for keys in ["k", "k, session_window(t, '3 seconds')", "k, window(t, '3 seconds')"] {
        let session = Session::new();
        let stream = session.memory_stream("rows", "k BIGINT, s STRING, t TIMESTAMP").unwrap();
        let sql = format!("SELECT k, max(s) AS m, max_by(s, k) AS b FROM rows GROUP BY {keys}");
        let writer = session.sql(&sql).unwrap().write_stream().output_mode("complete");
        let config = Config { pin: false, wait: WaitProfile::Park, ..Config::default() };
        let writer = writer.format("memory").query_name("out").config(config);
        let query = writer.trigger(Trigger::AsSoonAsPossible).start().unwrap();
        let strings = |text: &str| {
            let row = vec![Value::Long(1), Value::String(text.to_string()), Value::Long(0)];
            stream.add(vec![row]);
            query.process_all_available().unwrap();
            let progress = query.last_progress().unwrap().to_json();
            let bytes = progress["stateOperators"][0]["memoryUsedBytes"].as_u64().unwrap();
            (bytes as usize + LONG / 10) / LONG
        };
        assert_eq!(strings("a"), 0, "{keys}");
        let long = "b".repeat(LONG);
        // Each of the two functions keeps one string.
        assert!((2..=4).contains(&strings(&long)), "{keys}");
        query.stop().unwrap();
    }
}

/// The memory of windows with growing values, with and without a checkpoint. After a window has
/// closed, its memory is no longer reported.
#[cfg(feature = "sql")]
#[test]
fn the_reported_state_of_windows_includes_heap_memory() {
    use millstream::session::Session;
    use millstream::table::value::Value;
    let windows = [
        "window(t, '60 seconds')",
        "window(t, '60 seconds', '20 seconds')",
        "session_window(t, '60 seconds')",
    ];
    let functions = [
        "max(s)",
        "collect_list(s)",
        "collect_set(s)",
        "listagg(s)",
        "max_by(s, k)",
        "count(DISTINCT s)",
    ];
    for (window, function) in windows.iter().flat_map(|w| functions.map(|f| (w, f))) {
        for has_checkpoint in [false, true] {
            let what = format!("{function} by {window}, checkpoint: {has_checkpoint}");
            let folder = folder("windows");
            let session = Session::new();
            let stream = session.memory_stream("rows", "k BIGINT, s STRING, t TIMESTAMP").unwrap();
            let sql = format!(
                "SELECT k, {function} AS v FROM rows WATERMARK t DELAY OF INTERVAL 1 SECOND \
                 GROUP BY k, {window}"
            );
            let frame = match session.sql(&sql) {
                Ok(frame) => frame,
                // Spark does not support this function over a stream.
                Err(_) if function.contains("DISTINCT") => continue,
                Err(error) => panic!("{what}: {error}"),
            };
            let mut writer = frame.write_stream().output_mode("append").format("noop");
            let config = Config { pin: false, wait: WaitProfile::Park, ..Config::default() };
            if has_checkpoint {
                writer = writer.option("checkpointLocation", folder.display());
            }
            let writer = writer.config(config).trigger(Trigger::AsSoonAsPossible);
            let query = match writer.start() {
                Ok(query) => query,
                Err(_) if function.contains("DISTINCT") => continue,
                Err(error) => panic!("{what}: {error}"),
            };
            let strings = |text: &str, second: i64| {
                let time = Value::Long(second * 1_000_000);
                stream.add(vec![vec![Value::Long(1), Value::String(text.to_string()), time]]);
                query.process_all_available().unwrap();
                let progress = query.last_progress().unwrap().to_json();
                let bytes = progress["stateOperators"][0]["memoryUsedBytes"].as_u64().unwrap();
                (bytes as usize + LONG / 10) / LONG
            };
            let long = |letter: &str| letter.repeat(LONG);
            assert_eq!(strings("", 1), 0, "{what}");
            let mut before = 0;
            for letter in ["a", "b", "c"] {
                let now = strings(&long(letter), 2);
                let grows = function.contains("collect") || function.contains("agg");
                // Up to three windows contain the value, in lists with spare capacity.
                let added = if grows || before == 0 { 1..=8 } else { 0..=1 };
                assert!(added.contains(&(now - before)), "{what}: {before}, then {now}");
                before = now;
            }
            // The watermark passes the window in the batch after the one that moves the watermark.
            strings("", 1_000);
            assert_eq!(strings("", 1_001), 0, "{what}");
            query.stop().unwrap();
            if has_checkpoint {
                std::fs::remove_dir_all(&folder).unwrap();
            }
        }
    }
}
