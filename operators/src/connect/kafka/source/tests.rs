//! A source's tasklets against librdkafka's mock cluster, with a simulated clock.

use super::*;
use millstream_engine::env::SimEnv;
use millstream_engine::event::Epoch;
use millstream_engine::runtime::stage::{FlushStatus, Stage};
use rdkafka::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use std::time::{Duration, Instant};

const TIMEOUT: Duration = Duration::from_secs(30);
const MS_NS: u64 = 1_000_000;

type Mock = MockCluster<'static, DefaultProducerContext>;

/// The end of a chain, which counts rows and keeps watermarks.
#[derive(Default)]
struct Counted {
    rows: usize,
    watermarks: Vec<i64>,
}

impl Stage for Counted {
    fn is_ready(&mut self) -> bool {
        true
    }
    fn watermark(&mut self, micros: i64) -> Result<(), EngineError> {
        self.watermarks.push(micros);
        Ok(())
    }
    fn marker(&mut self, _epoch: Epoch) -> Result<(), EngineError> {
        Ok(())
    }
    fn end(&mut self) -> Result<(), EngineError> {
        Ok(())
    }
    fn flush(&mut self) -> Result<FlushStatus, EngineError> {
        Ok(FlushStatus::Flushed)
    }
    fn next_timer_ns(&self) -> Option<u64> {
        None
    }
}

impl<'a> Push<Row<'a>> for Counted {
    fn push(&mut self, _row: Row<'a>, _ingest_ns: u64) -> Result<(), EngineError> {
        self.rows += 1;
        Ok(())
    }
}

/// A cluster with the topic `t` of two partitions, each with this many records.
fn cluster(records: usize) -> Mock {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("t", 2, 1).unwrap();
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", cluster.bootstrap_servers());
    let producer: BaseProducer = config.create().unwrap();
    for number in 0..2 * records {
        let record: BaseRecord<'_, str, str> = BaseRecord::to("t").payload("x");
        producer.send(record.partition(number as i32 % 2)).unwrap();
    }
    producer.flush(TIMEOUT).unwrap();
    cluster
}

fn open(cluster: &Mock, parts: usize, idle_ms: Option<u64>, env: &Arc<SimEnv>) -> Vec<KafkaSource> {
    let options = [
        ("kafka.bootstrap.servers", cluster.bootstrap_servers()),
        ("subscribe", "t".to_string()),
        ("startingOffsets", "earliest".to_string()),
    ];
    let options = options.map(|(key, value)| (key.to_string(), value));
    let setup = SourceSetup {
        config: KafkaSourceConfig::read(&options.into(), true).unwrap(),
        env: env.clone(),
        folder: None,
        notice: |_| {},
        parts,
        idle_after_ns: idle_ms.map(|ms| ms * MS_NS),
        needed: vec![true; 7],
    };
    let mut sources = setup.open().unwrap();
    // The test polls, so no one has to be woken.
    sources.iter_mut().for_each(|source| source.consumer.on_message(|| {}));
    sources
}

fn poll(source: &mut KafkaSource, down: &mut Counted, env: &SimEnv) -> Option<u64> {
    let mut cx = StepCx { env, budget: 1000, wake_at_ns: None };
    source.poll(down, &mut cx).unwrap();
    cx.wake_at_ns
}

fn poll_until(
    what: &str,
    (source, down, env): (&mut KafkaSource, &mut Counted, &SimEnv),
    reached: impl Fn(&KafkaSource, &Counted) -> bool,
) {
    let start = Instant::now();
    while !reached(source, down) {
        assert!(start.elapsed() < TIMEOUT, "never: {what}");
        poll(source, down, env);
        std::thread::yield_now();
    }
}

fn offsets(text: &str) -> ByPartition {
    ByPartition::parse(text).unwrap()
}

fn is_at_end(source: &KafkaSource, _: &Counted) -> bool {
    !source.partitions.is_empty()
        && source.partitions.iter().all(|known| known.at_end_ns.is_some())
        && source.taken.is_empty()
}

/// Each of two tasklets reads a partition. Within the time-out of the session, the tasklets ignore
/// each other, but other sources do not ignore them.
#[test]
fn a_source_is_idle_only_after_the_time_out_of_the_session() {
    let cluster = cluster(3);
    for idle_ms in [Some(10_000), None] {
        let env = Arc::new(SimEnv::new(0));
        for mut source in open(&cluster, 2, idle_ms, &env) {
            let mut down = Counted::default();
            poll_until("the end", (&mut source, &mut down, &env), is_at_end);
            assert_eq!((down.rows, &down.watermarks[..]), (3, &[][..]));
            let mut after = |ms: u64| {
                env.advance(ms * MS_NS);
                let wakes_ns = poll(&mut source, &mut down, &env);
                (std::mem::take(&mut down.watermarks), wakes_ns.map(|at_ns| at_ns - env.now_ns()))
            };
            assert_eq!(after(99), (vec![], Some(MS_NS)));
            let left_ns = idle_ms.map(|ms| (ms - 100) * MS_NS);
            assert_eq!(after(1), (vec![PARTITION_IDLE], left_ns), "{idle_ms:?}");
            assert_eq!(after(9_899).0, [0; 0], "{idle_ms:?}");
            let wanted = if idle_ms.is_some() { vec![IDLE] } else { vec![] };
            assert_eq!(after(1), (wanted, None), "{idle_ms:?}");
            assert_eq!(after(60_000), (vec![], None), "the mark is passed once");
        }
    }
}

/// One tasklet reads both partitions, so its watermark stage ignores idle ones by itself.
#[test]
fn a_single_tasklet_reports_only_that_its_source_is_idle() {
    let cluster = cluster(3);
    let env = Arc::new(SimEnv::new(0));
    let mut source = open(&cluster, 1, Some(10_000), &env).remove(0);
    let mut down = Counted::default();
    poll_until("the end", (&mut source, &mut down, &env), is_at_end);
    env.advance(100 * MS_NS);
    poll(&mut source, &mut down, &env);
    let idle = |partitions: &SourcePartitions| {
        let mut idle = Vec::new();
        partitions.copy_idle(&mut idle);
        idle
    };
    assert_eq!((idle(&source.shared), &down.watermarks[..]), (vec![true; 2], &[][..]));
    env.advance(9_900 * MS_NS);
    poll(&mut source, &mut down, &env);
    assert_eq!(down.watermarks, [IDLE]);
}

#[test]
fn paused_partitions_are_read_again_after_a_move_and_after_a_batch() {
    let cluster = cluster(5);
    let env = Arc::new(SimEnv::new(0));
    for moves in [true, false] {
        let mut source = open(&cluster, 1, None, &env).remove(0);
        let mut down = Counted::default();
        source.go_to(&offsets(r#"{"t":{"0":0,"1":0}}"#)).unwrap();
        source.pause(0).unwrap();
        if moves {
            source.go_to(&offsets(r#"{"t":{"0":1,"1":1}}"#)).unwrap();
        }
        let wanted = if moves { 8 } else { 10 };
        let all = |_: &KafkaSource, down: &Counted| down.rows == wanted;
        poll_until("all records", (&mut source, &mut down, &env), all);
    }
}

/// librdkafka ends the process if an assignment is replaced again before the first replacement has
/// stopped its partitions.
#[test]
fn a_source_that_moves_several_times_and_ends_at_once_does_not_end_the_process() {
    let cluster = cluster(5);
    let env = Arc::new(SimEnv::new(0));
    for _ in 0..5 {
        let mut source = open(&cluster, 1, None, &env).remove(0);
        for _ in 0..200 {
            source.go_to(&offsets(r#"{"t":{"0":4,"1":4}}"#)).unwrap();
            source.go_to(&offsets(r#"{"t":{"0":1,"1":1}}"#)).unwrap();
        }
    }
}

#[test]
fn a_source_reads_from_the_last_of_several_moves() {
    let cluster = cluster(5);
    let env = Arc::new(SimEnv::new(0));
    // With fewer partitions, with the same, and with more than before.
    let moves = [(r#"{"t":{"1":4}}"#, 1), (r#"{"t":{"1":3}}"#, 2), (r#"{"t":{"0":1,"1":2}}"#, 7)];
    for round in 0..4 {
        let mut source = open(&cluster, 1, None, &env).remove(0);
        let mut down = Counted::default();
        source.go_to(&offsets(r#"{"t":{"0":0,"1":0}}"#)).unwrap();
        if round % 2 == 1 {
            poll_until("all records", (&mut source, &mut down, &env), |_, down| down.rows == 10);
        }
        for (to, wanted) in moves {
            source.go_to(&offsets(to)).unwrap();
            if round % 4 > 1 {
                down.rows = 0;
                poll_until("the rest", (&mut source, &mut down, &env), |_, down| {
                    down.rows == wanted
                });
            }
        }
        if round % 4 < 2 {
            down.rows = 0;
            poll_until("the rest", (&mut source, &mut down, &env), |_, down| down.rows == 7);
        }
    }
}

/// A partition that was added later is behind the others in the list until it is sorted.
#[test]
fn each_partition_goes_back_to_its_own_end_of_a_batch() {
    let cluster = cluster(10);
    let env = Arc::new(SimEnv::new(0));
    let mut source = open(&cluster, 1, None, &env).remove(0);
    source.go_to(&offsets(r#"{"t":{"1":9}}"#)).unwrap();
    source.add(&offsets(r#"{"t":{"0":9}}"#)).unwrap();
    let ends = offsets(r#"{"t":{"0":5,"1":3}}"#);
    source.begin_batch(&ends).unwrap();
    assert_eq!(source.offsets(), ends);
}

#[test]
fn a_reported_loss_is_an_error_although_later_looks_found_partitions() {
    let cluster = cluster(0);
    let mut source = open(&cluster, 1, None, &Arc::new(SimEnv::new(0))).remove(0);
    let (sender, found) = std::sync::mpsc::channel();
    source.discovered = Some(found);
    sender.send(Err(EngineError::operator("LOST", "", ""))).unwrap();
    sender.send(Ok(Partitions::new())).unwrap();
    let error = source.take_discovered().unwrap_err();
    assert_eq!(error.condition(), "LOST");
}

#[test]
fn a_drain_does_not_wait_for_the_records_of_a_partition_that_is_deleted() {
    let cluster = cluster(3);
    let env = Arc::new(SimEnv::new(0));
    let mut source = open(&cluster, 1, None, &env).remove(0);
    source.loss.is_error = false;
    let mut down = Counted::default();
    poll_until("the end", (&mut source, &mut down, &env), is_at_end);
    <KafkaSource as Source<Counted>>::begin_drain(&mut source);
    // Records that were there when the drain began, and that nobody will ever read.
    source.drain = Some(Drain::To(offsets(r#"{"t":{"0":3,"1":9}}"#)));
    let (sender, found) = std::sync::mpsc::channel();
    source.discovered = Some(found);
    poll(&mut source, &mut down, &env);
    assert!(!<KafkaSource as Source<Counted>>::is_drained(&mut source));
    sender.send(Ok(Partitions::from([("t".to_string(), 0)]))).unwrap();
    poll(&mut source, &mut down, &env);
    assert!(<KafkaSource as Source<Counted>>::is_drained(&mut source));
}

#[test]
fn a_drain_fails_if_the_cluster_does_not_tell_the_latest_offsets() {
    let cluster = cluster(3);
    let env = Arc::new(SimEnv::new(0));
    let mut source = open(&cluster, 1, None, &env).remove(0);
    let mut down = Counted::default();
    poll_until("the end", (&mut source, &mut down, &env), is_at_end);
    let refused = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
    cluster.request_errors(RDKafkaApiKey::ListOffsets, &[refused; 10]);
    <KafkaSource as Source<Counted>>::begin_drain(&mut source);
    let start = Instant::now();
    let error = loop {
        assert!(start.elapsed() < TIMEOUT, "never: an error");
        let mut cx = StepCx { env: &*env, budget: 1000, wake_at_ns: None };
        if let Err(error) = source.poll(&mut down, &mut cx) {
            break error;
        }
        assert!(!<KafkaSource as Source<Counted>>::is_drained_when_idle(&mut source));
        std::thread::yield_now();
    };
    assert_eq!(error.condition(), "KAFKA_FAILED", "{error}");
}
