//! The types that a query returns to a service can be named with the crate `millstream` alone. The
//! lint `unnameable_types` checks the crate's own types.

use millstream::stream::{
    Count, Flow, Input, Output, PushError, Query, RecvError, RecvTimeoutError,
};
use millstream::{
    CommittedEpoch, Config, EngineError, EventTimeStats, Offset, OperatorState, Percentiles, Stall,
    StallCause,
};

/// A service that stores in its fields what a query returns.
struct Service {
    input: Input<u64>,
    output: Output<(u64, u64)>,
    query: Query,
    epoch: Option<CommittedEpoch>,
    latency: Percentiles,
    slowest: Vec<Stall>,
}

impl Service {
    fn start() -> Result<Self, EngineError> {
        let flow = Flow::new("service");
        let (input, numbers) = flow.channel();
        let (sink, output) = flow.output();
        numbers.key_by(|n: &u64| n % 2).aggregate(Count).sink(sink);
        let query = flow.start(Config { pin: false, ..Config::default() })?;
        let (latency, slowest) = (query.latency(), query.slowest());
        Ok(Self { input, output, epoch: query.last_epoch(), query, latency, slowest })
    }

    fn push(&mut self, n: u64) -> Result<(), PushError<u64>> {
        self.input.push(n)
    }

    fn first(&mut self) -> Result<(u64, u64), RecvError> {
        self.output.recv()
    }

    fn next(&mut self) -> Result<(u64, u64), RecvTimeoutError> {
        self.output.recv_timeout(std::time::Duration::from_secs(60))
    }

    fn offsets(&self) -> &[Offset] {
        self.epoch.as_ref().map_or(&[], |epoch| &epoch.offsets)
    }

    fn states(&self) -> &[OperatorState] {
        self.epoch.as_ref().map_or(&[], |epoch| &epoch.state)
    }

    fn event_times(&self) -> &[EventTimeStats] {
        self.epoch.as_ref().map_or(&[], |epoch| &epoch.event_times)
    }

    fn causes(&self) -> Vec<StallCause> {
        self.slowest.iter().map(|stall| stall.cause()).collect()
    }
}

/// A function over a type of the runtime, as user-defined operators may need.
fn is_marker<T>(event: &millstream::engine::event::Event<T>) -> bool {
    matches!(event, millstream::engine::event::Event::Marker(_))
}

#[test]
fn public_types_can_be_stored_in_fields_of_a_service() {
    let mut service = Service::start().unwrap();
    service.push(1).unwrap();
    assert_eq!(service.first().unwrap(), (1, 1));
    service.push(1).unwrap();
    assert_eq!(service.next().unwrap(), (1, 2));
    service.query.process_all_available().unwrap();
    service.epoch = service.query.last_epoch();
    service.latency = service.query.latency();
    assert_eq!(service.offsets(), [Offset("2".to_string())]);
    assert_eq!(service.latency.count, 2);
    assert!(service.states().is_empty() && service.event_times().is_empty());
    assert!(service.causes().len() <= 3);
    assert!(!is_marker(&millstream::engine::event::Event::<u64>::End));
}
