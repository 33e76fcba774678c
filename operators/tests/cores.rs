//! Pinned workers keep their cores reserved as long as their query runs, however it ends. All
//! queries of a process share the list of reserved cores, so this is a single test.

use millstream::stream::Flow;
use millstream::{Config, WaitProfile};
use millstream_engine::cores;

#[test]
fn cores_of_a_query_are_reserved_until_it_has_ended() {
    let first = cores::allowed()[0].id;
    let config = Config { cores: Some(vec![first]), wait: WaitProfile::Park, ..Config::default() };
    let start = |config: &Config| {
        let flow = Flow::new("holder");
        let (input, stream) = flow.channel::<u64>();
        stream.map(|n| if n == 13 { panic!("on purpose") } else { n }).sink(|_| {});
        (input, flow.start(config.clone()).unwrap())
    };
    // Two queries run on one listed core: both are pinned, and the second one has a notice.
    let (_one_input, one) = start(&config);
    let (_other_input, other) = start(&config);
    assert_eq!(cores::held(), [first]);
    assert!(other.core_notice().unwrap().contains("pinned workers share"));
    one.stop().unwrap();
    assert_eq!(cores::held(), [first], "the other one still holds it");
    other.stop().unwrap();
    assert!(cores::held().is_empty());
    // A query releases its core after a panic of an operator.
    let (mut input, failing) = start(&config);
    assert_eq!(cores::held(), [first]);
    input.try_push(13).unwrap();
    assert_eq!(failing.await_termination().unwrap_err().condition(), "OPERATOR_PANICKED");
    assert!(cores::held().is_empty());
    // A query releases its core when its handle is dropped.
    let (_input, dropped) = start(&config);
    assert_eq!(cores::held(), [first]);
    drop(dropped);
    assert!(cores::held().is_empty());
    // An unpinned query reserves no core. A core that the process must not use is an error.
    let (_input, floating) = start(&Config { pin: false, ..config.clone() });
    assert!(cores::held().is_empty() && floating.core_notice().is_none());
    floating.stop().unwrap();
    let flow = Flow::new("wrong");
    let (_input, stream) = flow.channel::<u64>();
    stream.sink(|_| {});
    let error = flow.start(Config { cores: Some(vec![8000]), ..config }).err().unwrap();
    assert_eq!(error.condition(), "CORES_NOT_ALLOWED");
}
