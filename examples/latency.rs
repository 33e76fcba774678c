//! The latency of each record from push to result, and the reasons why the slowest were slow.
//!
//! `cargo run --release -p millstream-examples --example latency`

use millstream::stream::{Count, Flow};
use millstream::{Config, EngineError, WaitProfile};
use std::time::Duration;

const RECORDS: u64 = 10_000;

fn main() -> Result<(), EngineError> {
    let flow = Flow::new("visits");
    let (mut visits, stream) = flow.channel::<u64>();
    let (sink, mut counts) = flow.output();
    stream.key_by(|user| *user).aggregate(Count).sink(sink);
    // `Park` sleeps as soon as there is no work, which uses the least CPU. `Spin` has the lowest
    // latency and occupies a core. The default spins briefly and then sleeps.
    let query = flow.start(Config { wait: WaitProfile::Park, ..Config::default() })?;
    for visit in 0..RECORDS {
        visits.push(visit % 100)?;
        counts.recv_timeout(Duration::from_secs(10))?;
    }
    query.process_all_available()?;

    let latency = query.latency();
    for (name, ns) in [("p50", latency.p50_ns), ("p99", latency.p99_ns), ("max", latency.max_ns)] {
        println!("{name} {ns} ns");
    }
    for stall in query.slowest() {
        println!("{stall}");
    }
    assert_eq!(latency.count, RECORDS, "each result has its latency");
    assert!(latency.p50_ns <= latency.p99_ns && latency.p99_ns <= latency.max_ns);
    query.stop()
}
