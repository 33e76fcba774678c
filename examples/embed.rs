//! A query inside a service: the service pushes requests and reads answers in the same process.
//!
//! `cargo run --release -p millstream-examples --example embed`
//!
//! The service scores payments: for each payment it computes the number and the sum of the
//! customer's payments so far, including this one.

use millstream::stream::{Flow, Reduce};
use millstream::{Config, EngineError};
use std::time::Duration;

struct Payment {
    customer: u32,
    cents: i64,
}

#[derive(Default, Clone)]
struct Seen {
    count: u64,
    cents: i64,
}

fn main() -> Result<(), EngineError> {
    let flow = Flow::new("payments");
    let (mut requests, payments) = flow.channel::<Payment>();
    let (sink, mut answers) = flow.output();
    payments
        .filter(|payment| payment.cents > 0)
        .key_by(|payment| payment.customer)
        .aggregate(Reduce::new(|seen: &mut Seen, payment: Payment| {
            seen.count += 1;
            seen.cents += payment.cents;
            seen.clone()
        }))
        .sink(sink);
    let query = flow.start(Config::default())?;

    // The service's loop: push a request, read its answer.
    let mut last = Seen::default();
    for request in 0..10_000u32 {
        let payment = Payment { customer: request % 7, cents: i64::from(request % 100) + 1 };
        requests.push(payment)?;
        let answer = answers.recv_timeout(Duration::from_secs(10));
        let (customer, seen) = answer?;
        last = seen.clone();
        if request % 2_500 == 0 {
            println!("customer {customer}: {} payments, {} cents", seen.count, seen.cents);
        }
    }
    query.process_all_available()?;
    assert_eq!((last.count, last.cents), (1_429, 72_158));
    let latency = query.latency();
    println!(
        "{} answers; push to answer: p50 {} ns, p99 {} ns, max {} ns",
        latency.count, latency.p50_ns, latency.p99_ns, latency.max_ns
    );
    query.stop()
}
