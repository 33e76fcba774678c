//! The exchange by key before a keyed operator.

use crate::stream::operator::stateless::Map;
use crate::stream::recipe::Recipe;
use millstream_engine::runtime::exchange::Exchange;
use millstream_engine::runtime::job::Job;
use millstream_engine::runtime::stage::Push;
use millstream_engine::runtime::tasklet::InboxTasklet;

/// Returns the workers of the instances of a keyed operator.
pub(in crate::stream) fn keyed_workers<R: Recipe>(
    up: &R,
    job: &Job,
    parallelism: usize,
) -> Vec<usize> {
    match up.places(job, 1) {
        // From one instance to one instance, no exchange is needed.
        place if parallelism == 1 && place.len() == 1 => place,
        _ => (0..parallelism).map(|i| i % job.workers()).collect(),
    }
}

/// Builds the instances of a keyed operator. An exchange by key precedes them, unless one upstream
/// instance feeds one instance. `pair` adds the key to a record, and `route` chooses the instance.
pub(in crate::stream) fn keyed<R, K, M, S>(
    up: R,
    job: &mut Job,
    parallelism: usize,
    name: &str,
    pair: M,
    route: impl FnMut(&(K, R::Item), usize) -> usize + Clone + Send + 'static,
    stages: Vec<S>,
) where
    R: Recipe,
    K: Send + 'static,
    M: FnMut(R::Item) -> (K, R::Item) + Clone + Send + 'static,
    S: Push<(K, R::Item)> + 'static,
{
    let mut stages = stages.into_iter();
    if parallelism == 1 && up.places(job, 1).len() == 1 {
        up.build(job, parallelism, &mut |_, _| match stages.next() {
            Some(down) => Map { f: pair.clone(), down },
            None => unreachable!("a recipe makes one chain per instance"),
        });
        return;
    }
    let places: Vec<usize> = (0..parallelism).map(|i| i % job.workers()).collect();
    let producers = up.places(job, parallelism);
    let (outboxes, inlets) = job.rings::<(K, R::Item)>(&producers, &places);
    for (i, (inlets, down)) in inlets.into_iter().zip(stages).enumerate() {
        let port = job.tasklet_port();
        let name = format!("{name} {i}");
        job.add_tasklet(places[i], Box::new(InboxTasklet::new(port, name, inlets, down)));
    }
    let mut outboxes = outboxes.into_iter();
    up.build(job, parallelism, &mut |_, _| match outboxes.next() {
        Some(outbox) => Map { f: pair.clone(), down: Exchange::new(outbox, route.clone()) },
        None => unreachable!("a recipe makes one chain per instance"),
    });
}
