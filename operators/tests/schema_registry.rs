//! `from_avro` and `to_avro` with a schema registry: schemas of writers and readers, bad records,
//! and outages of the registry, which are never taken for bad records.

#![cfg(feature = "sql")]

#[cfg(feature = "schema-registry")]
mod registry;

use millstream::session::{QueryError, Session};
use millstream::table::value::Value;

fn rows(session: &Session, sql: &str) -> Result<Vec<Vec<Value>>, QueryError> {
    session.sql(sql)?.collect()
}

fn error(session: &Session, sql: &str) -> String {
    match rows(session, sql) {
        Ok(rows) => panic!("{sql}: {rows:?}"),
        Err(error) => error.to_string(),
    }
}

#[cfg(not(feature = "schema-registry"))]
#[test]
fn without_the_feature_the_error_names_it() {
    let sql = "SELECT from_avro(X'00', 'orders-value', 'http://localhost:8081')";
    let error = error(&Session::new(), sql);
    assert!(error.contains("UNSUPPORTED_OPTION") && error.contains("`schema-registry`"), "{error}");
}

#[cfg(feature = "schema-registry")]
mod with_registry {
    use super::registry::{FakeRegistry, Fault};
    use super::{error, rows};
    use millstream::session::{QueryError, Session, StreamingQuery, Trigger};
    use millstream::table::value::Value;
    use millstream::{Config, WaitProfile};
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::{Duration, Instant};

    const OLD: &str =
        r#"{"type": "record", "name": "R", "fields": [{"name": "a", "type": "int"}]}"#;
    const NEW: &str = r#"{"type": "record", "name": "R", "fields": [
        {"name": "a", "type": "long"}, {"name": "b", "type": "string", "default": "none"}]}"#;
    /// A record of each schema: a = 2, and a = 3 with b = 'x'.
    const OLD_RECORD: &str = "X'000000000104'";
    const NEW_RECORD: &str = "X'0000000002060278'";

    fn registry() -> FakeRegistry {
        let registry = FakeRegistry::start();
        registry.register("orders-value", 1, OLD);
        registry.register("orders-value", 2, NEW);
        registry
    }

    fn text(text: &str) -> Value {
        Value::String(text.to_string())
    }

    /// A query that decodes records, with further options.
    fn decoding(registry: &FakeRegistry, records: &[&str], options: &str) -> String {
        let records: Vec<_> = records.iter().map(|record| format!("({record})")).collect();
        let options = if options.is_empty() { String::new() } else { format!(", map({options})") };
        format!(
            "SELECT o.* FROM (SELECT from_avro(v, 'orders-value', '{}'{options}) AS o FROM VALUES {} AS t(v))",
            registry.address,
            records.join(", "),
        )
    }

    #[test]
    fn each_record_is_read_with_its_writers_schema_which_is_requested_once() {
        let registry = registry();
        let sql = decoding(&registry, &[OLD_RECORD, NEW_RECORD, OLD_RECORD, NEW_RECORD], "");
        let old = vec![Value::Long(2), text("none")];
        let new = vec![Value::Long(3), text("x")];
        let expected = vec![old.clone(), new.clone(), old, new];
        for _ in 0..2 {
            assert_eq!(rows(&Session::new(), &sql).unwrap(), expected);
        }
        let requests = registry.requests();
        let of_id =
            |id| requests.iter().filter(|path| **path == format!("/schemas/ids/{id}")).count();
        assert_eq!((of_id(1), of_id(2)), (1, 0), "2 came with the subject: {requests:?}");
    }

    #[test]
    fn a_schema_given_as_json_is_the_readers() {
        let registry = registry();
        let sql = format!(
            "SELECT from_avro({NEW_RECORD}, '{OLD}', map('schema.registry.address', '{}')) AS o",
            registry.address,
        );
        let error = error(&Session::new(), &sql);
        assert!(error.contains("MALFORMED_AVRO_MESSAGE"), "a long is no int: {error}");
        let found = rows(&Session::new(), &sql.replace(NEW_RECORD, OLD_RECORD)).unwrap();
        assert_eq!(found, [[Value::Struct(vec![Value::Long(2)])]]);
        let latest = registry.requests().iter().filter(|path| path.contains("subjects")).count();
        assert_eq!(latest, 0, "no subject is needed");
    }

    #[test]
    fn requests_of_several_queries_for_one_schema_are_one_request() {
        let registry = registry();
        // The subject is looked up by each query; the first answers are slow for nobody.
        let barrier = Barrier::new(8);
        let sql = format!(
            "SELECT from_avro({OLD_RECORD}, '{OLD}', map('schema.registry.address', '{}')) AS o",
            registry.address,
        );
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    barrier.wait();
                    rows(&Session::new(), &sql).unwrap();
                });
            }
        });
        assert_eq!(registry.requests(), ["/schemas/ids/1"]);
    }

    #[test]
    fn bad_records_follow_the_mode_and_give_their_reason() {
        let registry = registry();
        registry.answer("/schemas/ids/3", 200, r#"{"schemaType": "PROTOBUF", "schema": "x"}"#);
        registry.answer("/schemas/ids/4", 200, r#"{"schema": "{\"type\": \"nothing\"}"}"#);
        let bad = [
            ("X''", "shorter than the header"),
            ("X'00000000'", "shorter than the header"),
            ("X'7B22'", "does not begin with the zero"),
            ("X'0000000009'", "has no schema 9"),
            ("X'000000000304'", "is not Avro but PROTOBUF"),
            ("X'000000000404'", "there is no type `nothing`"),
            ("X'00000000020604'", "the data ends within a value"),
        ];
        let records: Vec<_> = bad.iter().map(|(record, _)| *record).chain([OLD_RECORD]).collect();
        let permissive = "'mode', 'PERMISSIVE', 'columnNameOfError', '_error'";
        let sql = decoding(&registry, &records, permissive);
        let found = rows(&Session::new(), &sql).unwrap();
        for ((record, wanted), row) in bad.iter().zip(&found) {
            assert_eq!(row[..2], [Value::Null, Value::Null], "{record}");
            let Value::String(reason) = &row[2] else { panic!("{record}: {row:?}") };
            assert!(reason.contains(wanted), "{record}: {reason}");
            let sql = decoding(&registry, &[record], "");
            let error = error(&Session::new(), &sql);
            assert!(error.contains("MALFORMED_AVRO_MESSAGE") && error.contains(wanted), "{error}");
        }
        assert_eq!(found[bad.len()], [Value::Long(2), text("none"), Value::Null]);
        let of_unknown = registry.requests().iter().filter(|path| path.ends_with("/9")).count();
        assert!(of_unknown <= 4, "an unknown schema is not requested for every record");
    }

    #[test]
    fn an_outage_is_waited_for_and_is_no_bad_record() {
        let registry = registry();
        let sql = decoding(&registry, &[OLD_RECORD], "'mode', 'PERMISSIVE'");
        registry.fail_next(&[Fault::Status(500), Fault::Close, Fault::Status(429)]);
        let frame = Session::new().sql(&sql).unwrap();
        // The registry is known now, so that a bare 404 is no wrong address.
        registry.fail_next(&[Fault::Status(404), Fault::Page("0"), Fault::Status(503)]);
        assert_eq!(frame.collect().unwrap(), [[Value::Long(2), text("none")]]);
    }

    #[test]
    fn an_outage_that_lasts_ends_the_query_with_the_address() {
        // A bare 404 of a known registry says nothing about the schema.
        let bare = Fault::Status(404);
        for fault in [Fault::Status(500), Fault::Status(429), bare, Fault::Close] {
            let registry = registry();
            let options = "'mode', 'PERMISSIVE', 'schema.registry.retry.ms', '250'";
            let sql = decoding(&registry, &[OLD_RECORD], options);
            let frame = Session::new().sql(&sql).unwrap();
            registry.set_down(Some(fault));
            let error = frame.collect().unwrap_err().to_string();
            let is_named = error.contains("SCHEMA_REGISTRY_UNAVAILABLE");
            assert!(is_named && error.contains(&registry.address), "{error}");
            let asked = registry.requests().iter().filter(|path| path.ends_with("/1")).count();
            assert!(asked > 1, "it is asked again");
        }
        // Nothing listens there.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let sql = format!(
            "SELECT from_avro(X'00', 's', 'http://{address}', map('schema.registry.retry.ms', '1'))"
        );
        let error = error(&Session::new(), &sql);
        let is_named = error.contains("SCHEMA_REGISTRY_UNAVAILABLE");
        assert!(is_named && error.contains(&address.to_string()), "{error}");
    }

    #[test]
    fn a_second_address_is_used_when_the_first_is_down() {
        let (down, up) = (registry(), registry());
        down.set_down(Some(Fault::Status(503)));
        let sql = format!(
            "SELECT from_avro({OLD_RECORD}, 'orders-value', '{},{}/')",
            down.address, up.address,
        );
        let expected = Value::Struct(vec![Value::Long(2), text("none")]);
        assert_eq!(rows(&Session::new(), &sql).unwrap(), [[expected]]);
    }

    #[test]
    fn a_refusal_and_another_server_end_the_query_at_once() {
        for (status, body) in [(401, "{}"), (403, "{}"), (404, "<html>nginx</html>"), (404, "")] {
            let registry = FakeRegistry::start();
            registry.answer("/schemas/ids/1", status, body);
            let options =
                format!("'mode', 'PERMISSIVE', 'schema.registry.address', '{}'", registry.address);
            let sql = format!("SELECT from_avro({OLD_RECORD}, '{OLD}', map({options}))");
            let error = error(&Session::new(), &sql);
            let is_named = error.contains("SCHEMA_REGISTRY_FAILED");
            assert!(is_named && error.contains(&registry.address), "{error}");
        }
    }

    /// The first address has answered; a bare 404 of the second one is still that of a wrong address.
    #[test]
    fn a_wrong_second_address_is_refused() {
        let registry = registry();
        let wrong = FakeRegistry::start();
        wrong.answer("/schemas/ids/1", 404, "");
        let sql = format!(
            "SELECT from_avro({OLD_RECORD}, 'orders-value', '{},{}', map('mode', 'PERMISSIVE'))",
            registry.address, wrong.address,
        );
        let frame = Session::new().sql(&sql).unwrap();
        registry.set_down(Some(Fault::Status(503)));
        let error = frame.collect().unwrap_err().to_string();
        assert!(
            error.contains("SCHEMA_REGISTRY_FAILED") && error.contains(&wrong.address),
            "{error}"
        );
    }

    /// The query has no time for a wait of 30 s, to which the values are limited. Values that are no
    /// number of seconds count as none.
    #[test]
    fn a_wait_that_a_page_asks_for_is_bounded() {
        let values = ["18446744073709551615", "99999999999999999999999", "-1", "", "soon", "1e9"];
        let date = "Wed, 21 Oct 2099 07:28:00 GMT";
        for value in values.into_iter().chain([date]) {
            let registry = registry();
            let options = "'mode', 'PERMISSIVE', 'schema.registry.retry.ms', '250'";
            let frame = Session::new().sql(&decoding(&registry, &[OLD_RECORD], options)).unwrap();
            registry.set_down(Some(Fault::Page(value)));
            let error = frame.collect().unwrap_err().to_string();
            assert!(error.contains("SCHEMA_REGISTRY_UNAVAILABLE"), "{value}: {error}");
        }
    }

    #[test]
    fn credentials_are_sent_and_not_shown() {
        let registry = registry();
        let user = "'confluent.schema.registry.basic.auth.user.info', 'key:s3cret'";
        let sql = decoding(&registry, &[OLD_RECORD], user);
        let frame = Session::new().sql(&sql).unwrap();
        let plan = frame.explain();
        assert!(plan.contains("from_avro") && !plan.contains("s3cret"), "{plan}");
        // In any case, and in the name of a column without an alias.
        let named = format!(
            "SELECT from_avro({OLD_RECORD}, 'orders-value', '{}', map({}))",
            registry.address,
            user.replace("auth.user", "Auth.USER"),
        );
        let named = Session::new().sql(&named).unwrap();
        let shown = format!("{} {}", named.explain(), named.schema().fields[0].name);
        assert!(shown.contains("redacted") && !shown.contains("s3cret"), "{shown}");
        frame.collect().unwrap();
        assert!(registry.authorizations().iter().all(|sent| sent == "Basic a2V5OnMzY3JldA=="));
        let token = "'confluent.schema.registry.bearer.auth.token', 't0ken'";
        rows(&Session::new(), &decoding(&registry, &[OLD_RECORD], token)).unwrap();
        assert_eq!(registry.authorizations().last().unwrap(), "Bearer t0ken");
        for options in [user.replace("key:s3cret", "s3cret"), format!("{user}, {token}")] {
            let error = error(&Session::new(), &decoding(&registry, &[OLD_RECORD], &options));
            assert!(error.contains("INVALID_OPTION_VALUE") && !error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn records_are_written_with_the_subjects_schema_and_its_id() {
        let registry = registry();
        let sql = format!(
            "SELECT hex(to_avro(named_struct('a', 3L, 'b', 'x'), 'orders-value', '{}'))",
            registry.address,
        );
        assert_eq!(rows(&Session::new(), &sql).unwrap(), [[text("0000000002060278")]]);
        let refused = error(&Session::new(), &sql.replace("3L", "'y'"));
        assert!(refused.contains("INVALID_SCHEMA"), "{refused}");
        for option in ["mode", "columnNameOfError", "avroSchema"] {
            let sql = sql.replace("'))", &format!("', map('{option}', 'PERMISSIVE')))"));
            let error = error(&Session::new(), &sql);
            assert!(error.contains("NOT_YET_SUPPORTED") && error.contains(option), "{error}");
        }
    }

    #[test]
    fn schemas_that_refer_to_others_are_read_with_them() {
        let registry = registry();
        let inner = r#"{"type": "enum", "name": "x.Color", "symbols": ["RED", "BLUE"]}"#;
        let outer =
            r#"{"type": "record", "name": "P", "fields": [{"name": "c", "type": "x.Color"}]}"#;
        let inner = serde_json::json!({ "id": 5, "schema": inner });
        registry.answer("/subjects/colors%2Fv1/versions/3", 200, inner.to_string());
        let outer = serde_json::json!({
            "id": 6,
            "schema": outer,
            "references": [{ "name": "x.Color", "subject": "colors/v1", "version": 3 }],
        });
        registry.answer("/schemas/ids/6", 200, outer.to_string());
        registry.answer("/subjects/paints/versions/latest", 200, outer.to_string());
        let sql = format!("SELECT from_avro(X'000000000602', 'paints', '{}')", registry.address);
        let expected = Value::Struct(vec![text("BLUE")]);
        assert_eq!(rows(&Session::new(), &sql).unwrap(), [[expected]]);
    }

    #[test]
    fn in_the_evolution_mode_restart_a_new_schema_ends_the_query() {
        let registry = registry();
        registry.register("orders-value", 1, OLD);
        let sql = decoding(&registry, &[NEW_RECORD], "'avroSchemaEvolutionMode', 'restart'");
        let old = Session::new().sql(&sql).unwrap();
        registry.register("orders-value", 2, NEW);
        let error = old.collect().unwrap_err().to_string();
        assert!(error.contains("AVRO_SCHEMA_CHANGED"), "{error}");
        let restarted = Session::new().sql(&sql).unwrap();
        assert_eq!(restarted.collect().unwrap(), [[Value::Long(3), text("x")]]);
    }

    fn folder() -> std::path::PathBuf {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("millstream-registry-{}-{number}", std::process::id());
        std::env::temp_dir().join(name)
    }

    fn try_start(
        session: &Session,
        sql: &str,
        mode: &str,
        folder: &std::path::Path,
    ) -> Result<StreamingQuery, QueryError> {
        let config = Config { pin: false, wait: WaitProfile::Park, ..Config::default() };
        let writer = session.sql(sql)?.write_stream().format("memory").query_name("out");
        let writer = writer.output_mode(mode).option("checkpointLocation", folder.display());
        writer.config(config).trigger(Trigger::Continuous { interval_ns: 5_000_000 }).start()
    }

    fn start(session: &Session, sql: &str, folder: &std::path::Path) -> StreamingQuery {
        try_start(session, sql, "append", folder).unwrap()
    }

    /// With a back-off of ten minutes, a stop does not wait for it. The record is read after the
    /// restart.
    #[test]
    fn a_query_that_waits_for_the_registry_stops_and_resumes_at_its_checkpoint() {
        let folder = folder();
        let registry = registry();
        let session = Session::new();
        let stream = session.memory_stream("input", "v BINARY").unwrap();
        let sql = format!(
            "SELECT from_avro(v, 'orders-value', '{}', map('mode', 'PERMISSIVE', 'schema.registry.retry.ms', '600000')) AS o FROM input",
            registry.address,
        );
        for fault in [Fault::Status(500), Fault::Silence] {
            let query = start(&session, &sql, &folder);
            registry.set_down(Some(fault));
            let before = registry.requests().len();
            stream.add([vec![Value::Binary(vec![0, 0, 0, 0, 1, 4])]]);
            registry.wait_for_requests(before + if fault == Fault::Silence { 1 } else { 2 });
            let began = Instant::now();
            let stopped = query.stop().map_err(|error| error.to_string());
            // It waits at most 2 s for the first answer, not 10 s for the end of the request.
            assert!(began.elapsed() < Duration::from_secs(8), "{stopped:?}");
            registry.set_down(None);
        }
        let query = start(&session, &sql, &folder);
        query.process_all_available().unwrap();
        query.stop().unwrap();
        let expected = Value::Struct(vec![Value::Long(2), text("none")]);
        let found = session.table("out").unwrap().rows();
        assert_eq!(found, [[expected.clone()], [expected]]);
        drop(std::fs::remove_dir_all(&folder));
    }

    /// A restart reads with the subject's latest schema. It is refused only if the state has another
    /// type then. The earlier schema, given as an option, continues the query.
    #[test]
    fn a_restart_with_a_new_schema_is_refused_only_if_the_state_has_another_type() {
        let with_default = r#"{"type": "record", "name": "R", "fields": [
            {"name": "a", "type": "int"}, {"name": "b", "type": "string", "default": "none"}]}"#;
        let counted = "SELECT o.a AS a, count(*) AS n FROM t GROUP BY o.a";
        let inline = "SELECT count(*) AS n FROM input GROUP BY <from_avro>.a";
        for (sql, mode, newer, expected) in [
            ("SELECT o.* FROM t", "append", NEW, Ok(vec![Value::Long(2), text("none")])),
            (counted, "update", with_default, Ok(vec![Value::Long(2), Value::Long(2)])),
            (inline, "update", with_default, Ok(vec![Value::Long(2)])),
            (counted, "update", NEW, Err("INT): count(*)] and is [aggregate by")),
            (inline, "update", NEW, Err("INT): count(*)] and is [aggregate by")),
        ] {
            let folder = folder();
            let registry = FakeRegistry::start();
            let session = Session::new();
            let stream = session.memory_stream("input", "v BINARY").unwrap();
            let run = |options: &str| {
                let call = format!(
                    "from_avro(v, 's', '{}', map('avroSchemaEvolutionMode', 'restart'{options}))",
                    registry.address
                );
                let view = format!("SELECT {call} AS o FROM input");
                session.sql(&view).unwrap().create_temp_view("t");
                let sql = sql.replace("<from_avro>", &call);
                stream.add([vec![Value::Binary(vec![0, 0, 0, 0, 1, 4])]]);
                let query = try_start(&session, &sql, mode, &folder)?;
                query.process_all_available()?;
                query.stop()?;
                Ok::<_, QueryError>(session.table("out").unwrap().rows())
            };
            registry.register("s", 1, OLD);
            run("").unwrap();
            registry.register("s", 2, newer);
            match (run(""), expected) {
                (Ok(rows), Ok(last)) => assert_eq!(rows.last(), Some(&last), "{sql}"),
                (Err(error), Err(part)) => {
                    assert_eq!(error.condition(), "CHECKPOINT_QUERY_CHANGED", "{error}");
                    assert!(error.to_string().contains(part), "{sql}: {error}");
                    let rows = run(&format!(", 'avroSchema', '{OLD}'")).unwrap();
                    assert_eq!(rows.last().unwrap().last(), Some(&Value::Long(3)), "{sql}");
                }
                (found, _) => panic!("{sql}: {found:?}"),
            }
            drop(std::fs::remove_dir_all(&folder));
        }
    }

    #[test]
    fn options_are_checked() {
        let cases = [
            ("'orders-value', 'localhost:8081'", "INVALID_OPTION_VALUE"),
            ("'orders-value', 'http://'", "INVALID_OPTION_VALUE"),
            ("'orders-value', 'http://user:password@host'", "INVALID_OPTION_VALUE"),
            ("'\"int\"', map('schema.registry.subject', 's')", "MISSING_OPTION"),
            ("'\"int\"', map('schema.registry.adress', 'http://h')", "NOT_YET_SUPPORTED"),
            ("'s', 'http://h', map('schema.registry.retry.ms', 'x')", "INVALID_OPTION_VALUE"),
            (
                "'s', 'http://h', map('avroSchemaEvolutionMode', 'x', 'avroSchema', '\"int\"')",
                "INVALID_OPTION_VALUE",
            ),
            (
                "'\"int\"', map('mode', 'PERMISSIVE', 'columnNameOfError', 'e')",
                "INVALID_OPTION_VALUE",
            ),
        ];
        for (args, condition) in cases {
            let error = error(&Session::new(), &format!("SELECT from_avro(X'00', {args})"));
            assert!(error.contains(condition) && !error.contains("password@"), "{args}: {error}");
        }
    }
}
