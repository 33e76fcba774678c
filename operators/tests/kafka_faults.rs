//! What a user sees when a broker fails or refuses, and that no record is lost: the table of faults
//! in `docs/src/kafka.md`. `cargo test` omits these tests (`test = false` in Cargo.toml), because
//! each starts a broker of its own with `tools/kafka/broker`, which needs Java and Maven:
//! `cargo test --workspace --features millstream/kafka-tls --test kafka_faults`. Without Java or
//! Maven a test prints `LEFT OUT`.

#![cfg(feature = "kafka")]

mod kafka_topics;

use futures_executor::block_on;
use kafka_topics::{CONTINUOUS, Fixture, Parts, TIMEOUT};
use millstream::session::{StreamingQuery, Trigger};
use rdkafka::ClientConfig;
use rdkafka::admin::AdminOptions;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use std::fs::File;
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const BATCHES: Trigger = Trigger::AsSoonAsPossible;

/// How long a broker is gone. The table of faults says what happens after longer times;
/// `MILLSTREAM_KAFKA_OUTAGE_S=60` tries one of them.
fn outage() -> Duration {
    let given = std::env::var("MILLSTREAM_KAFKA_OUTAGE_S").ok();
    Duration::from_secs(given.map_or(2, |seconds| seconds.parse().expect("a number of seconds")))
}

/// A broker of a test. One runs at a time.
struct Broker {
    home: PathBuf,
    port: u16,
    _one: MutexGuard<'static, ()>,
}

impl Broker {
    /// Starts a broker with further properties. Returns `None`, and says so, if the machine has no
    /// Java or no Maven. `{port}` stands for the port after those of broker and controller.
    fn start(properties: &str, format: &str) -> Option<Self> {
        Self::start_with(properties, format, |_| ())
    }

    /// `prepare` makes files in the broker's folder, for which `{home}` stands.
    fn start_with(properties: &str, format: &str, prepare: impl FnOnce(&Path)) -> Option<Self> {
        static ONE: Mutex<()> = Mutex::new(());
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("millstream-broker-{}-{number}", std::process::id());
        let broker = Self { home: std::env::temp_dir().join(name), port: free_port(), _one: one };
        std::fs::create_dir_all(&broker.home).unwrap();
        let home = broker.home.display().to_string();
        let port = |further: u16| (broker.port + further).to_string();
        let properties = properties.replace("{home}", &home).replace("{plain}", &port(0));
        let properties = properties.replace("{controller}", &port(1)).replace("{port}", &port(2));
        prepare(&broker.home);
        std::fs::write(broker.home.join("properties"), properties).unwrap();
        std::fs::write(broker.home.join("format"), format).unwrap();
        match broker.call(&["start", &broker.port.to_string()]) {
            started if started.status.code() == Some(3) => {
                println!("LEFT OUT: {}", String::from_utf8_lossy(&started.stderr));
                None
            }
            started => {
                assert!(started.status.success(), "{started:?}");
                Some(broker)
            }
        }
    }

    fn call(&self, args: &[&str]) -> Output {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tools/kafka/broker");
        let format = std::fs::read_to_string(self.home.join("format")).unwrap();
        Command::new(program)
            .args(args)
            .env("MILLSTREAM_KAFKA", &self.home)
            .env("MILLSTREAM_KAFKA_PROPERTIES", self.home.join("properties"))
            .env("MILLSTREAM_KAFKA_FORMAT", format)
            .output()
            .unwrap()
    }

    /// Runs a command of the program, which must succeed.
    fn control(&self, args: &[&str]) {
        let output = self.call(args);
        assert!(output.status.success(), "{args:?}: {output:?}");
    }

    fn restart(&self) {
        self.control(&["start", &self.port.to_string()]);
    }

    /// Whether the process of the broker runs.
    fn is_up(&self) -> bool {
        let pid = std::fs::read_to_string(self.home.join("pid")).unwrap_or_default();
        let state = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
        // Nobody waits for the process, so that it may remain as a zombie.
        state.is_ok_and(|state| !state.contains(") Z "))
    }

    fn servers(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn topics(&self) -> Fixture {
        Fixture::at(self.servers())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        drop(self.call(&["kill"]));
        drop(self.call(&["clean"]));
        drop(std::fs::remove_dir_all(&self.home));
    }
}

/// A port that is free, as are the two after it.
fn free_port() -> u16 {
    loop {
        let first = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = first.local_addr().unwrap().port();
        let is_free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
        if port < u16::MAX - 2 && is_free(port + 1) && is_free(port + 2) {
            return port;
        }
    }
}

fn wait_until(what: &str, query: &StreamingQuery, mut reached: impl FnMut() -> bool) {
    let start = Instant::now();
    while !reached() {
        let ended = query.exception();
        assert!(start.elapsed() < TIMEOUT && ended.is_none(), "never: {what}; {ended:?}");
    }
}

/// The error with which a query ends.
fn failure(query: &StreamingQuery) -> String {
    query.await_termination().expect_err("the query must end").to_string()
}

fn check(found: &str, parts: &[&str]) {
    for part in parts {
        assert!(found.contains(part), "'{part}' is not in: {found}");
    }
}

const SHORT: (&str, &str) = ("kafka.default.api.timeout.ms", "1000");

#[test]
fn without_a_broker_a_query_says_where_it_looked() {
    let fixture = Fixture::without_broker("127.0.0.1:1".to_string());
    let short = || vec![(SHORT.0, SHORT.1.to_string())];
    for trigger in [CONTINUOUS, BATCHES] {
        let parts = Parts { source: short(), is_transactional: false, ..Parts::default() };
        let query = fixture.start_with(trigger, &fixture.checkpoint(), &parts).unwrap();
        let error = failure(&query);
        check(
            &error,
            &["KAFKA_FAILED", "source kafka", "127.0.0.1:1", "Check that the broker runs"],
        );
    }
    let parts = Parts {
        sink: vec![
            (SHORT.0, SHORT.1.to_string()),
            ("kafka.transaction.timeout.ms", "11000".into()),
        ],
        ..Parts::default()
    };
    let error = fixture.start_with(CONTINUOUS, &fixture.checkpoint(), &parts).err().unwrap();
    check(&error, &["KAFKA_FAILED", "sink kafka", "127.0.0.1:1", "Check that the broker runs"]);
}

#[test]
fn a_broker_that_is_gone_for_a_while_loses_nothing() {
    let Some(broker) = Broker::start("", "") else { return };
    for trigger in [CONTINUOUS, BATCHES] {
        for is_transactional in [false, true] {
            let fixture = broker.topics();
            let parts = Parts { is_transactional, ..Parts::default() };
            fixture.produce(0..100);
            let query = fixture.start_with(trigger, &fixture.checkpoint(), &parts).unwrap();
            wait_until("the first records", &query, || fixture.written().len() >= 100);
            // The last records may be read, but not be written, when the broker ends.
            fixture.produce(100..200);
            broker.control(&["kill"]);
            std::thread::sleep(outage());
            broker.restart();
            fixture.produce(200..300);
            let kind = format!("{trigger:?}, transactional {is_transactional}");
            wait_until(&kind, &query, || fixture.written().len() >= 300);
            query.stop().unwrap();
            assert_eq!(fixture.written(), (0..300).collect::<Vec<_>>(), "{kind}");
        }
    }
}

/// A file system of 256 MB in memory, which is unmounted when this is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Returns `None`, and says so, if this user may not mount a file system.
    fn mount() -> Option<Self> {
        let folder = std::env::temp_dir().join(format!("millstream-disk-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=256m", "tmpfs"]).arg(&folder);
        match mount.output() {
            Ok(mounted) if mounted.status.success() => Some(Self(folder)),
            refused => {
                println!("LEFT OUT: a small disk cannot be mounted: {refused:?}");
                None
            }
        }
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }

    /// Uses all space that is left.
    fn fill(&self) {
        let mut filler = File::create(self.filler()).unwrap();
        let block = vec![7; 1 << 16];
        while filler.write_all(&block).is_ok() {}
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).output());
        drop(std::fs::remove_dir(&self.0));
    }
}

/// Kafka ends its process when it cannot write its log.
#[test]
fn a_broker_whose_disk_is_full_loses_nothing_once_it_has_space() {
    let Some(disk) = SmallDisk::mount() else { return };
    // The last `log.dirs` counts. The broker is dropped before the disk.
    let properties = format!("log.dirs={}/data\nlog.segment.bytes=1048576\n", disk.0.display());
    let Some(broker) = Broker::start(&properties, "") else { return };
    for (trigger, is_transactional) in [(CONTINUOUS, true), (BATCHES, false)] {
        let fixture = broker.topics();
        let parts = Parts { is_transactional, ..Parts::default() };
        fixture.produce(0..100);
        let query = fixture.start_with(trigger, &fixture.checkpoint(), &parts).unwrap();
        wait_until("the first records", &query, || fixture.written().len() >= 100);
        disk.fill();
        // Enough records that the log needs another page.
        let producer = fixture.send_to(0, 100..2_000);
        wait_until("the broker has ended", &query, || !broker.is_up());
        std::fs::remove_file(disk.filler()).unwrap();
        broker.restart();
        producer.flush(TIMEOUT).unwrap();
        let kind = format!("{trigger:?}, transactional {is_transactional}");
        wait_until(&kind, &query, || fixture.written().len() >= 2_000);
        query.stop().unwrap();
        assert_eq!(fixture.written(), (0..2_000).collect::<Vec<_>>(), "{kind}");
    }
}

#[test]
fn a_query_that_starts_before_its_broker_waits_for_it() {
    let Some(broker) = Broker::start("", "") else { return };
    let fixture = broker.topics();
    fixture.produce(0..100);
    for (trigger, name) in [(CONTINUOUS, "continuous"), (BATCHES, "batches")] {
        broker.control(&["kill"]);
        let parts = Parts { is_transactional: false, ..Parts::default() };
        let query = fixture.start_with(trigger, &fixture.folder.join(name), &parts).unwrap();
        broker.restart();
        query.process_all_available().unwrap();
        query.stop().unwrap();
    }
    let twice: Vec<_> = (0..100).chain(0..100).collect();
    assert_eq!(fixture.written(), twice);
}

fn delete(fixture: &Fixture, topic: &str) {
    let deleted = block_on(fixture.admin().delete_topics(&[topic], &AdminOptions::new())).unwrap();
    deleted.into_iter().for_each(|deleted| drop(deleted.unwrap()));
}

#[test]
fn a_topic_that_is_deleted_while_it_is_read_is_lost_data() {
    let Some(broker) = Broker::start("auto.create.topics.enable=false\n", "") else { return };
    for trigger in [CONTINUOUS, BATCHES] {
        for fails_on_data_loss in [true, false] {
            let fixture = broker.topics();
            fixture.produce(0..10);
            let parts = Parts { is_transactional: false, fails_on_data_loss, ..Parts::default() };
            let query = fixture.start_with(trigger, &fixture.checkpoint(), &parts).unwrap();
            wait_until("the records", &query, || fixture.written().len() >= 10);
            delete(&fixture, &fixture.input);
            if fails_on_data_loss {
                let error = failure(&query);
                check(&error, &["KAFKA_DATA_LOSS.PARTITIONS_DELETED", &fixture.input]);
            } else {
                fixture.create_topic(&fixture.input);
                fixture.produce(10..30);
                // If the source looks at the topic while it is shorter than the old one, it begins at
                // its end; otherwise at the old offset.
                let last: Vec<_> = (20..30).collect();
                wait_until("the new topic", &query, || fixture.written().ends_with(&last));
                query.stop().unwrap();
                let mut once = fixture.written();
                once.dedup();
                assert_eq!(once, fixture.written());
            }
        }
    }
}

/// librdkafka fails a record once its topic has been unknown for 30 s. The records that were lost
/// with the topic are not written again.
#[test]
fn a_topic_that_is_deleted_while_it_is_written_ends_the_query() {
    let Some(broker) = Broker::start("auto.create.topics.enable=false\n", "") else { return };
    for is_transactional in [false, true] {
        let fixture = broker.topics();
        let parts = Parts { is_transactional, ..Parts::default() };
        let start = || fixture.start_with(CONTINUOUS, &fixture.checkpoint(), &parts).unwrap();
        fixture.produce(0..10);
        let query = start();
        wait_until("the records", &query, || fixture.written().len() >= 10);
        delete(&fixture, &fixture.output);
        fixture.produce(10..20);
        check(&failure(&query), &["KAFKA_WRITE_FAILED", "sink kafka", &fixture.output]);
        fixture.create_topic(&fixture.output);
        let query = start();
        wait_until("the rest", &query, || fixture.written().len() >= 10);
        query.stop().unwrap();
        assert_eq!(fixture.written(), (10..20).collect::<Vec<_>>());
    }
}

const ACLS: &str = "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n\
                    allow.everyone.if.no.acl.found=true\nauto.create.topics.enable=false\n";

/// The permission is missing at the start, or is withdrawn while the query runs. With the permission
/// it continues.
#[test]
fn a_refused_permission_ends_the_query_and_names_the_topic() {
    let Some(broker) = Broker::start(ACLS, "") else { return };
    let deny = |action: &[&str], operation: &str, topic: &str| {
        let servers = broker.servers();
        let class = "org.apache.kafka.tools.AclCommand";
        let args = ["run", class, "--bootstrap-server", &servers, "--deny-principal", "User:*"];
        let what = ["--operation", operation, "--topic", topic];
        broker.control(&[&args, action, &what].concat());
    };
    for is_transactional in [false, true] {
        for (operation, is_input) in [("Read", true), ("Write", false)] {
            for at_start in [true, false] {
                let fixture = broker.topics();
                let topic = if is_input { &fixture.input } else { &fixture.output };
                let parts = Parts { is_transactional, ..Parts::default() };
                let start = || fixture.start_with(CONTINUOUS, &fixture.checkpoint(), &parts);
                fixture.produce(0..10);
                let error = if at_start {
                    deny(&["--add"], operation, topic);
                    start().map_or_else(|error| error, |query| failure(&query))
                } else {
                    let query = start().unwrap();
                    wait_until("the records", &query, || fixture.written().len() >= 10);
                    deny(&["--add"], operation, topic);
                    if !is_input {
                        fixture.produce(10..20);
                    }
                    failure(&query)
                };
                let condition = if is_input { "KAFKA_FAILED" } else { "KAFKA_WRITE_FAILED" };
                check(&error, &[condition, "Topic authorization failed"]);
                deny(&["--remove", "--force"], operation, topic);
                // A topic that has a rule refuses all that no rule allows, writing too.
                if is_input && !at_start {
                    fixture.produce(10..20);
                }
                let query = start().unwrap();
                let count = if at_start { 10 } else { 20 };
                wait_until("the rest", &query, || fixture.written().len() >= count as usize);
                query.stop().unwrap();
                assert_eq!(fixture.written(), (0..count).collect::<Vec<_>>(), "{error}");
            }
        }
    }
}

/// Sends a record of 10 MB to the input.
fn produce_large(fixture: &Fixture) {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &fixture.servers)
        .set("message.max.bytes", "20000000")
        .create()
        .unwrap();
    let value = vec![b'7'; 10_000_000];
    let record: BaseRecord<'_, str, [u8]> = BaseRecord::to(&fixture.input).payload(&value);
    producer.send(record).map_err(|(error, _)| error).unwrap();
    producer.flush(TIMEOUT).unwrap();
}

#[test]
fn a_large_record_is_read_and_needs_an_option_to_be_written() {
    let Some(broker) = Broker::start("message.max.bytes=20000000\n", "") else { return };
    for trigger in [CONTINUOUS, BATCHES] {
        let fixture = broker.topics();
        produce_large(&fixture);
        let start = |sink: Vec<(&'static str, String)>| {
            let parts = Parts { is_transactional: false, sink, ..Parts::default() };
            fixture.start_with(trigger, &fixture.checkpoint(), &parts).unwrap()
        };
        let error = failure(&start(Vec::new()));
        check(&error, &["KAFKA_WRITE_FAILED", "sink kafka", &fixture.output, "too large"]);
        let query = start(vec![("kafka.max.request.size", "20000000".to_string())]);
        query.process_all_available().unwrap();
        query.stop().unwrap();
        let lengths: Vec<_> =
            fixture.read("read_uncommitted").into_iter().map(|(_, v)| v.unwrap().len()).collect();
        assert_eq!(lengths, [10_000_000]);
    }
}

#[cfg(feature = "kafka-tls")]
mod security {
    use super::{BATCHES, Broker, CONTINUOUS, Parts, check, failure};
    use std::path::Path;
    use std::process::Command;

    /// Makes a certificate authority, and a key store with a certificate for 127.0.0.1.
    fn make_certificates(folder: &Path) {
        let steps = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test-ca -keyout ca.key -out ca.pem
            openssl req -newkey rsa:2048 -nodes -subj /CN=localhost -keyout server.key -out server.csr
            printf 'subjectAltName=IP:127.0.0.1,DNS:localhost' > names
            openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out server.pem
            openssl pkcs12 -export -in server.pem -inkey server.key -certfile ca.pem -passout pass:keystore -out server.p12
            openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=other-ca -keyout other.key -out other.pem";
        let made = Command::new("sh").args(["-ec", steps]).current_dir(folder).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    }

    const PROPERTIES: &str = "\
        listeners=PLAINTEXT://127.0.0.1:{plain},CONTROLLER://127.0.0.1:{controller},SASL_SSL://127.0.0.1:{port}\n\
        advertised.listeners=PLAINTEXT://127.0.0.1:{plain},SASL_SSL://127.0.0.1:{port}\n\
        listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL\n\
        sasl.enabled.mechanisms=SCRAM-SHA-512\n\
        listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;\n\
        ssl.keystore.type=PKCS12\nssl.keystore.location={home}/server.p12\n\
        ssl.keystore.password=keystore\n";

    #[test]
    fn records_are_read_and_written_over_tls_with_scram() {
        let user = "--add-scram SCRAM-SHA-512=[name=reader,password=s3cret]";
        let Some(broker) = Broker::start_with(PROPERTIES, user, make_certificates) else { return };
        let options = |ca: &str, password: &str| {
            vec![
                ("kafka.bootstrap.servers", format!("127.0.0.1:{}", broker.port + 2)),
                ("kafka.security.protocol", "SASL_SSL".to_string()),
                ("kafka.ssl.ca.location", broker.home.join(ca).display().to_string()),
                ("kafka.sasl.mechanism", "SCRAM-SHA-512".to_string()),
                ("kafka.sasl.username", "reader".to_string()),
                ("kafka.sasl.password", password.to_string()),
                ("kafka.default.api.timeout.ms", "5000".to_string()),
            ]
        };
        for (trigger, is_transactional) in [(CONTINUOUS, true), (BATCHES, false)] {
            let fixture = broker.topics();
            fixture.produce(0..100);
            let (source, sink) = (options("ca.pem", "s3cret"), options("ca.pem", "s3cret"));
            let parts = Parts { is_transactional, source, sink, ..Parts::default() };
            let query = fixture.start_with(trigger, &fixture.checkpoint(), &parts).unwrap();
            query.process_all_available().unwrap();
            query.stop().unwrap();
            assert_eq!(fixture.written(), (0..100).collect::<Vec<_>>());
        }
        // librdkafka tries again, and writes the reason into its log.
        for (ca, password) in [("ca.pem", "wr0ng"), ("other.pem", "s3cret")] {
            let fixture = broker.topics();
            let source = options(ca, password);
            let parts = Parts { is_transactional: false, source, ..Parts::default() };
            let query = fixture.start_with(CONTINUOUS, &fixture.checkpoint(), &parts).unwrap();
            let error = failure(&query);
            check(&error, &["KAFKA_FAILED", "the options kafka.ssl.… and kafka.sasl.…"]);
            assert!(!error.contains(password), "{error}");
        }
    }
}
