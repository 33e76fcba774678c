//! The client of a registry: its cache, and the calls that wait for a request.

use super::http::{Attempt, Connections, Request};
use super::{Failure, Registered, RegistryOptions};
use crate::table::error::PlanResult;
use millstream_engine::runtime::worker;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// The maximum number of registries that the process remembers, with their schemas.
const REGISTRIES_MAX: usize = 32;

/// The maximum number of cached schemas of a registry, and of their bytes.
const SCHEMAS_MAX: usize = 4096;
const SCHEMA_BYTES_MAX: usize = 64 << 20;

/// The delay before the first retry. It doubles up to the maximum.
const DELAY_MIN: Duration = Duration::from_millis(100);
const DELAY_MAX: Duration = Duration::from_secs(5);

/// How often a waiting call checks whether its query has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// While a query is planned, a call takes at most this time: the user waits.
const PLANNING_MAX: Duration = Duration::from_secs(10);

/// How long a call that was asked to stop still waits for the first answer of the registry.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// A client of a registry.
pub struct Registry {
    connections: Connections,
    state: Mutex<State>,
    /// Wakes the calls that wait for a request when it is answered or given up, and the thread of
    /// the request when no call waits for it any more.
    changed: Condvar,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.connections.options().fmt(f)
    }
}

#[derive(Default)]
struct State {
    schemas: Schemas,
    /// The requests that are under way.
    flights: HashMap<Request, Flight>,
    flights_begun: u64,
}

/// The cached schemas. The oldest one is dropped first.
#[derive(Default)]
struct Schemas {
    by_id: HashMap<u32, Arc<Registered>>,
    order: VecDeque<u32>,
    bytes: usize,
}

impl Schemas {
    fn insert(&mut self, schema: Arc<Registered>) {
        let bytes_of = |schema: &Registered| {
            schema.text.len() + schema.references.iter().map(String::len).sum::<usize>()
        };
        let (id, bytes) = (schema.id, bytes_of(&schema));
        if self.by_id.insert(id, schema).is_some() {
            return;
        }
        self.order.push_back(id);
        self.bytes += bytes;
        while self.order.len() > SCHEMAS_MAX || self.bytes > SCHEMA_BYTES_MAX {
            let Some(oldest) = self.order.pop_front() else { break };
            if let Some(dropped) = self.by_id.remove(&oldest) {
                self.bytes -= bytes_of(&dropped);
            }
        }
    }
}

/// A request that is under way. Several calls may wait for it.
struct Flight {
    number: u64,
    began: Instant,
    waiting: usize,
    failures: usize,
    /// Why the last attempt at each address failed, and the time of the next attempt.
    retry: Option<(String, Instant)>,
    outcome: Option<Result<Arc<Registered>, Failure>>,
}

impl Flight {
    /// A request that one call waits for.
    fn begun(number: u64) -> Self {
        let began = Instant::now();
        Self { number, began, waiting: 1, failures: 0, retry: None, outcome: None }
    }
}

/// The thread of a request. If it panics, the request fails, so that no call waits forever.
struct Landing {
    registry: Arc<Registry>,
    request: Request,
    number: u64,
}

impl Drop for Landing {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let address = self.registry.connections.address();
            let reason = format!("the request to the schema registry at {address} panicked");
            self.registry.finish(&self.request, self.number, Err(Failure::Unavailable(reason)));
        }
    }
}

/// How long a call waits.
#[derive(Clone, Copy)]
struct Patience {
    /// The time for retries, which do not begin before an attempt at each address has failed.
    retry: Duration,
    /// The time for the whole call; `None` if each attempt may take its own time-out.
    whole: Option<Duration>,
}

impl Registry {
    /// The client for these options. All calls with the same options get the same one.
    pub fn shared(_: &str, options: &RegistryOptions) -> PlanResult<Arc<Self>> {
        static ALL: Mutex<VecDeque<Arc<Registry>>> = Mutex::new(VecDeque::new());
        let mut all = ALL.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(found) = all.iter().find(|known| known.connections.options() == options) {
            return Ok(found.clone());
        }
        let made = Arc::new(Self {
            connections: Connections::new(options.clone()),
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        all.push_back(made.clone());
        if all.len() > REGISTRIES_MAX {
            all.pop_front();
        }
        Ok(made)
    }

    /// The schema of an id. The schemas are cached; each is requested once.
    pub fn by_id(self: &Arc<Self>, id: u32) -> Result<Arc<Registered>, Failure> {
        self.call(Request::Id(id), self.patience())
    }

    /// The latest schema of a subject. It is requested with every call.
    pub fn latest(self: &Arc<Self>, subject: &str) -> Result<Arc<Registered>, Failure> {
        self.call(Request::Latest(subject.to_string()), self.patience())
    }

    /// How long a call of this thread waits while the registry does not answer.
    fn patience(&self) -> Patience {
        let whole = (!worker::is_worker()).then_some(PLANNING_MAX);
        Patience { retry: self.connections.options().retry, whole }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Waits for the outcome of a request. Begins it unless it is under way already.
    fn call(
        self: &Arc<Self>,
        request: Request,
        patience: Patience,
    ) -> Result<Arc<Registered>, Failure> {
        let mut state = self.lock();
        if let Request::Id(id) = &request
            && let Some(found) = state.schemas.by_id.get(id)
        {
            return Ok(found.clone());
        }
        match state.flights.get_mut(&request) {
            Some(flight) => flight.waiting += 1,
            None => self.begin(&mut state, &request)?,
        }
        let began = Instant::now();
        loop {
            let Some(flight) = state.flights.get_mut(&request) else {
                return Err(Failure::Canceled("the request was given up".to_string()));
            };
            let outcome = flight.outcome.clone();
            let outcome =
                outcome.or_else(|| self.given_up(flight, began, patience)).or_else(|| {
                    let has_waited = flight.failures > 0 || began.elapsed() > STOP_GRACE;
                    let is_canceled =
                        worker::check_running().is_err() || has_waited && worker::is_stopping();
                    is_canceled.then(|| Err(self.canceled()))
                });
            if let Some(outcome) = outcome {
                flight.waiting -= 1;
                if flight.waiting == 0 {
                    state.flights.remove(&request);
                    self.changed.notify_all();
                }
                return outcome;
            }
            let waited = self.changed.wait_timeout(state, LOOK_AGAIN);
            state = waited.unwrap_or_else(|poisoned| poisoned.into_inner()).0;
        }
    }

    #[cold]
    fn canceled(&self) -> Failure {
        let address = self.connections.address();
        Failure::Canceled(format!(
            "the query was stopped while the schema registry at {address} did not answer"
        ))
    }

    /// The error of a call whose time is over; `None` if it waits on. A call does not wait for an
    /// attempt that would begin too late.
    fn given_up(
        &self,
        flight: &Flight,
        began: Instant,
        patience: Patience,
    ) -> Option<Result<Arc<Registered>, Failure>> {
        let waited = began.elapsed();
        let next_attempt = flight.retry.as_ref().map(|(_, next)| *next);
        let until_next = next_attempt.map(|next| next.saturating_duration_since(began).max(waited));
        let has_no_retry = until_next.is_some_and(|until| until > patience.retry);
        let is_over =
            patience.whole.is_some_and(|whole| until_next.unwrap_or(waited).max(waited) > whole);
        (has_no_retry || is_over).then(|| {
            let seconds = flight.began.elapsed().as_secs_f64();
            let reason = flight.retry.as_ref().map_or("no response", |(reason, _)| reason);
            Err(Failure::Unavailable(format!(
                "the schema registry at {} did not answer for {seconds:.1} s: {reason}",
                self.connections.address()
            )))
        })
    }

    /// Begins a request on a thread of its own.
    fn begin(self: &Arc<Self>, state: &mut State, request: &Request) -> Result<(), Failure> {
        let number = state.flights_begun;
        let landing = Landing { registry: self.clone(), request: request.clone(), number };
        let thread = std::thread::Builder::new()
            .name("schema-registry".to_string())
            .spawn(move || landing.registry.run(&landing.request, number));
        if let Err(error) = thread {
            let reason = format!("no thread for a request to a schema registry: {error}");
            return Err(Failure::Unavailable(reason));
        }
        state.flights_begun += 1;
        state.flights.insert(request.clone(), Flight::begun(number));
        Ok(())
    }

    /// Runs in the thread of a request. Sends the request again until the registry has answered it,
    /// or no call waits for it.
    fn run(&self, request: &Request, number: u64) {
        let mut delay = DELAY_MIN;
        let addresses = self.connections.options().addresses.len();
        for attempt in 0.. {
            let (reason, wait) = match self.connections.attempt(request, attempt) {
                Ok(schema) => return self.finish(request, number, Ok(Arc::new(schema))),
                Err(Attempt::Failed(failure)) => {
                    return self.finish(request, number, Err(failure));
                }
                Err(Attempt::Retry(reason, wait)) => (reason, wait),
            };
            let is_last_address = (attempt + 1) % addresses == 0;
            let mut pause = None;
            if is_last_address {
                pause = Some((reason, wait.unwrap_or_default().max(delay)));
                delay = (delay * 2).min(DELAY_MAX);
            }
            if !self.pause(request, number, pause) {
                return;
            }
        }
    }

    /// Waits before the next attempt, if the attempts at all addresses failed for the given reason.
    /// Returns whether calls still wait for the request.
    fn pause(&self, request: &Request, number: u64, pause: Option<(String, Duration)>) -> bool {
        let mut until = Instant::now();
        let mut state = self.lock();
        match state.flights.get_mut(request) {
            Some(flight) if flight.number == number => {
                flight.failures += 1;
                if let Some((reason, wait)) = pause {
                    until += wait;
                    flight.retry = Some((reason, until));
                    self.changed.notify_all();
                }
            }
            _ => return false,
        }
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(|poisoned| poisoned.into_inner()).0;
            if state.flights.get(request).is_none_or(|flight| flight.number != number) {
                return false;
            }
        }
    }

    fn finish(&self, request: &Request, number: u64, outcome: Result<Arc<Registered>, Failure>) {
        let mut state = self.lock();
        if let Ok(schema) = &outcome {
            state.schemas.insert(schema.clone());
        }
        if let Some(flight) = state.flights.get_mut(request)
            && flight.number == number
        {
            flight.outcome = Some(outcome);
        }
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::schema_registry::fake::{FakeRegistry, Fault};

    const PATIENT: Patience = Patience { retry: Duration::from_secs(3600), whole: None };

    fn client(server: &FakeRegistry) -> Arc<Registry> {
        let addresses = vec![server.address.clone()];
        let options = RegistryOptions { addresses, authorization: None, retry: PATIENT.retry };
        Registry::shared("test", &options).unwrap()
    }

    /// A response that does not come takes longer than the call, whose time counts before the first
    /// attempt has failed. So does a wait that the response asks for.
    #[test]
    fn the_time_for_a_whole_call_is_bounded() {
        for fault in [Fault::Silence, Fault::Page("3600"), Fault::Status(500)] {
            let server = FakeRegistry::start();
            server.set_down(Some(fault));
            let (registry, began) = (client(&server), Instant::now());
            let limit = Some(Duration::from_millis(150));
            let outcome = registry.call(Request::Id(1), Patience { whole: limit, ..PATIENT });
            assert!(matches!(outcome, Err(Failure::Unavailable(_))), "{outcome:?}");
            assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        }
        let planning = client(&FakeRegistry::start()).patience();
        assert_eq!(planning.whole, Some(PLANNING_MAX), "this thread is no worker");
    }

    /// A caller of little patience gives up although the request of another one is repeated.
    #[test]
    fn each_call_waits_as_long_as_its_own_patience() {
        let server = FakeRegistry::start();
        server.register("s", 1, "\"int\"");
        server.set_down(Some(Fault::Status(500)));
        let registry = client(&server);
        std::thread::scope(|scope| {
            let patient = scope.spawn(|| registry.call(Request::Id(1), PATIENT));
            server.wait_for_requests(1);
            let hasty = registry
                .call(Request::Id(1), Patience { retry: Duration::from_millis(1), ..PATIENT });
            assert!(matches!(hasty, Err(Failure::Unavailable(_))), "{hasty:?}");
            server.set_down(None);
            assert_eq!(patient.join().unwrap().unwrap().id, 1);
        });
    }

    #[test]
    fn a_request_whose_thread_panics_fails() {
        let server = FakeRegistry::start();
        let (registry, request) = (client(&server), Request::Id(7));
        registry.lock().flights.insert(request.clone(), Flight::begun(5));
        let landing = Landing { registry: registry.clone(), request: request.clone(), number: 5 };
        let thread = std::thread::spawn(move || {
            let _landing = landing;
            panic!("as a test");
        });
        thread.join().unwrap_err();
        let outcome = registry.call(request, PATIENT);
        assert!(matches!(outcome, Err(Failure::Unavailable(_))), "{outcome:?}");
    }
}
