//! A user-defined operator that reports orders which are not paid within a minute of event time.
//!
//! `cargo run -p millstream-examples --example processor_timers`

use millstream::stream::{Context, Flow, Processor, Timer, Ttl, ValueState};
use millstream::{Config, EngineError, WaitProfile};
use std::time::Duration;

const MINUTE_US: i64 = 60_000_000;

struct Event {
    order: u64,
    time_us: i64,
    is_payment: bool,
}

#[derive(Clone)]
struct Unpaid {
    placed_us: ValueState<i64>,
}

impl Processor<u64, Event> for Unpaid {
    type Output = u64;

    fn record(
        &mut self,
        _order: &u64,
        event: Event,
        cx: &mut Context<'_, u64>,
    ) -> Result<(), EngineError> {
        if !event.is_payment {
            cx.set_value(self.placed_us, event.time_us)?;
            return cx.set_timer(Timer::EventTime(event.time_us + MINUTE_US));
        }
        if let Some(placed_us) = cx.value(self.placed_us).copied() {
            cx.clear_timer(Timer::EventTime(placed_us + MINUTE_US));
            cx.clear_value(self.placed_us);
        }
        Ok(())
    }

    fn timer(
        &mut self,
        order: &u64,
        _timer: Timer,
        cx: &mut Context<'_, u64>,
    ) -> Result<(), EngineError> {
        cx.clear_value(self.placed_us);
        cx.emit(*order)
    }
}

fn main() -> Result<(), EngineError> {
    let flow = Flow::new("orders");
    let (mut events, stream) = flow.channel::<Event>();
    let (sink, mut unpaid) = flow.output();
    stream
        .with_watermark(|event| event.time_us, Duration::ZERO)
        .key_by(|event| event.order)
        .process("unpaid", |states| Unpaid { placed_us: states.value("placed", Ttl::NONE) })
        .sink(sink);
    let query = flow.start(Config { wait: WaitProfile::Park, ..Config::default() })?;

    let placed = |order, time_us| Event { order, time_us, is_payment: false };
    events.push(placed(1, 1_000_000))?;
    events.push(placed(2, 2_000_000))?;
    events.push(Event { order: 1, time_us: 3_000_000, is_payment: true })?;
    // Moves the watermark past the timer of order 2.
    events.push(placed(3, 70_000_000))?;

    let order = unpaid.recv_timeout(Duration::from_secs(10))?;
    println!("order {order} is not paid");
    assert_eq!(order, 2);
    query.stop()
}
