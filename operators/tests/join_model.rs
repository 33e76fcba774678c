//! Random steps over two joined streams, with late rows, disorder and restarts with another
//! parallelism. In micro-batch mode every step must give the rows of a naive model, in continuous
//! mode all steps together.
#![cfg(feature = "sql")]

mod two_streams;

use millstream::session::Trigger;
use proptest::prelude::*;
use two_streams::{BATCHES, CONTINUOUS, Event, Run, Setup};

const DELAYS: [i64; 2] = [5, 8];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Inner,
    Left,
    Right,
    Full,
    Semi,
    /// LEFT ANTI JOIN, which runs in continuous mode only.
    Anti,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum On {
    /// The key, and the range of the right time in seconds after the left time.
    Range(i64, i64),
    /// The key, a range without its upper bound, and the left number smaller than the right one.
    RangeAndLess(i64, i64),
    /// The key and the time.
    Time,
    /// The key, with NULL equal to NULL, and a range.
    NullSafe(i64, i64),
}

#[derive(Clone, Debug)]
enum Step {
    Rows(Vec<Event>, Vec<Event>),
    Restart(usize),
}

impl Kind {
    fn sql(self) -> &'static str {
        match self {
            Self::Inner => "JOIN",
            Self::Left => "LEFT JOIN",
            Self::Right => "RIGHT JOIN",
            Self::Full => "FULL JOIN",
            Self::Semi => "LEFT SEMI JOIN",
            Self::Anti => "LEFT ANTI JOIN",
        }
    }
    fn preserves(self) -> [bool; 2] {
        [
            matches!(self, Self::Left | Self::Full | Self::Anti),
            matches!(self, Self::Right | Self::Full),
        ]
    }
    /// Whether a row of a side that cannot match is dropped before it can advance the watermark.
    fn drops(self) -> [bool; 2] {
        match self {
            Self::Inner | Self::Semi => [true, true],
            Self::Left | Self::Anti => [false, true],
            Self::Right => [true, false],
            Self::Full => [false, false],
        }
    }
}

impl On {
    fn sql(self) -> String {
        let range = |a: i64, b: i64, op: &str| {
            format!("r.t >= l.t + INTERVAL '{a}' SECOND AND r.t {op} l.t + INTERVAL '{b}' SECOND")
        };
        match self {
            Self::Range(a, b) => format!("l.k = r.k AND {}", range(a, b, "<=")),
            Self::RangeAndLess(a, b) => {
                format!("l.k = r.k AND l.v < r.v AND {}", range(a, b, "<"))
            }
            Self::Time => "l.k = r.k AND l.t = r.t".to_string(),
            Self::NullSafe(a, b) => format!("l.k <=> r.k AND {}", range(a, b, "<=")),
        }
    }
    fn matches(self, l: &Event, r: &Event) -> bool {
        let ((lk, Some(lt), lv), (rk, Some(rt), rv)) = (l, r) else { return false };
        let same = lk == rk && (lk.is_some() || matches!(self, Self::NullSafe(..)));
        same && match self {
            Self::Range(a, b) | Self::NullSafe(a, b) => (lt + a..=lt + b).contains(rt),
            Self::RangeAndLess(a, b) => (lt + a..lt + b).contains(rt) && lv < rv,
            Self::Time => lt == rt,
        }
    }
    /// Whether a row of a side has expired at a watermark; in whole seconds.
    fn expires(self, side: usize, time: i64, watermark: i64) -> bool {
        match (self, side) {
            (Self::Time, _) => time <= watermark,
            // The bound itself is included.
            (Self::Range(_, b) | Self::NullSafe(_, b), 0) => time < watermark - b,
            (Self::RangeAndLess(_, b), 0) => time <= watermark - b,
            (Self::Range(a, _) | Self::RangeAndLess(a, _) | Self::NullSafe(a, _), _) => {
                time < watermark + a
            }
        }
    }
}

fn sql(kind: Kind, on: On) -> String {
    let right =
        if matches!(kind, Kind::Semi | Kind::Anti) { "" } else { ", r.k, unix_seconds(r.t), r.v" };
    format!("SELECT l.k, unix_seconds(l.t), l.v{right} FROM l {} r ON {}", kind.sql(), on.sql())
}

fn shown(row: Option<&Event>) -> String {
    let long = |v: Option<i64>| v.map_or("-".to_string(), |v| v.to_string());
    match row {
        Some((k, t, v)) => format!("{} {} {v}", long(*k), long(*t)),
        None => "- - -".to_string(),
    }
}

/// A row that was not late, with two flags: whether it has had a match, and whether it has been
/// removed or can only match late rows.
struct Kept {
    row: Event,
    matched: bool,
    gone: bool,
}

/// A naive model of a join.
struct Model {
    kind: Kind,
    on: On,
    last: i64,
    next: i64,
    /// The watermark of each input in this run.
    inputs: [Option<i64>; 2],
    kept: [Vec<Kept>; 2],
}

impl Model {
    fn new(kind: Kind, on: On) -> Self {
        Self { kind, on, last: 0, next: 0, inputs: [None; 2], kept: [Vec::new(), Vec::new()] }
    }

    fn step(&mut self, l: &[Event], r: &[Event]) -> Vec<String> {
        let mut out = Vec::new();
        if !l.is_empty() || !r.is_empty() {
            self.batch([l, r], &mut out);
        }
        if self.next > self.last {
            self.batch([&[], &[]], &mut out);
        }
        out.sort();
        out
    }

    fn batch(&mut self, rows: [&[Event]; 2], out: &mut Vec<String>) {
        let watermark = self.next;
        for side in [0, 1] {
            for row in rows[side] {
                let by_key = !matches!(self.on, On::NullSafe(..));
                if self.kind.drops()[side] && by_key && row.0.is_none() {
                    continue;
                }
                let seen = row.1.unwrap_or(0) - DELAYS[side];
                self.inputs[side] = self.inputs[side].max(Some(seen));
                if row.1.is_some_and(|time| time <= self.last) {
                    continue;
                }
                self.take(side, *row, out);
            }
        }
        for side in [0, 1] {
            for kept in self.kept[side].iter_mut().filter(|kept| !kept.gone) {
                let Some(time) = kept.row.1 else { continue };
                if self.on.expires(side, time, watermark) {
                    kept.gone = true;
                    if self.kind.preserves()[side] && !kept.matched {
                        let (l, r) = (Some(&kept.row), None);
                        let (l, r) = if side == 0 { (l, r) } else { (r, l) };
                        match self.kind {
                            Kind::Anti => out.push(shown(l)),
                            _ => out.push(format!("{} {}", shown(l), shown(r))),
                        }
                    }
                }
            }
        }
        self.last = watermark;
        for input in &mut self.inputs {
            *input = Some(input.unwrap_or(0));
        }
        let least = self.inputs.iter().flatten().min().copied().unwrap_or(0);
        self.next = self.next.max(least);
    }

    fn take(&mut self, side: usize, row: Event, out: &mut Vec<String>) {
        let mut matched = false;
        let existence = matches!(self.kind, Kind::Semi | Kind::Anti);
        // A removed row could only match rows that are late.
        for other in &mut self.kept[1 - side] {
            let (l, r) = if side == 0 { (&row, &other.row) } else { (&other.row, &row) };
            if !self.on.matches(l, r) {
                continue;
            }
            if !existence {
                out.push(format!("{} {}", shown(Some(l)), shown(Some(r))));
            } else if self.kind == Kind::Semi
                && (side == 0 && !matched || side == 1 && !other.matched)
            {
                out.push(shown(Some(l)));
            }
            (matched, other.matched) = (true, true);
        }
        self.kept[side].push(Kept { row, matched, gone: false });
    }
}

/// Steps in which each row is at most `disorder` seconds behind the largest time of earlier steps
/// and of the earlier rows of its side.
fn steps(disorder: i64, nulls: bool) -> impl Strategy<Value = Vec<Step>> {
    let row = (0i64..4, 0..=disorder, 0u8..12, 0i64..3, 0i64..9);
    let rows = || proptest::collection::vec(row.clone(), 0..7);
    let step = prop_oneof![
        5 => (rows(), rows()).prop_map(Ok),
        2 => (1usize..4).prop_map(Err),
    ];
    proptest::collection::vec(step, 1..8).prop_map(move |steps| {
        let mut now = 1000;
        let mut made: Vec<Step> = Vec::new();
        for step in steps {
            let mut placed = |rows: Vec<(i64, i64, u8, i64, i64)>, from: i64| -> Vec<Event> {
                let mut at = from;
                let rows = rows.into_iter().map(|(ahead, behind, null, k, v)| {
                    at += ahead;
                    let (k, t) = match null {
                        0 if nulls => (None, Some(at - behind)),
                        1 if nulls => (Some(k), None),
                        _ => (Some(k), Some(at - behind)),
                    };
                    (k, t, v)
                });
                let rows = rows.collect();
                now = now.max(at);
                rows
            };
            made.push(match step {
                Err(parallelism) => Step::Restart(parallelism),
                Ok((l, r)) => {
                    let from = now_of(&made);
                    Step::Rows(placed(l, from), placed(r, from))
                }
            });
        }
        let end = now + 1000;
        made.push(Step::Rows(vec![(Some(7), Some(end), 0)], vec![(Some(8), Some(end), 0)]));
        made.push(Step::Rows(vec![(Some(7), Some(2 * end), 0)], vec![(Some(8), Some(2 * end), 0)]));
        made
    })
}

/// The largest time so far.
fn now_of(steps: &[Step]) -> i64 {
    let times = steps.iter().flat_map(|step| match step {
        Step::Rows(l, r) => l.iter().chain(r).filter_map(|row| row.1).collect::<Vec<_>>(),
        Step::Restart(_) => Vec::new(),
    });
    times.max().unwrap_or(1000)
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        Just(Kind::Inner),
        Just(Kind::Left),
        Just(Kind::Right),
        Just(Kind::Full),
        Just(Kind::Semi)
    ]
}

fn on() -> impl Strategy<Value = On> {
    let range = || (-12i64..12, 0i64..15).prop_map(|(a, more)| (a, a + more));
    prop_oneof![
        4 => range().prop_map(|(a, b)| On::Range(a, b)),
        2 => range().prop_map(|(a, b)| On::RangeAndLess(a, b)),
        2 => Just(On::Time),
        1 => range().prop_map(|(a, b)| On::NullSafe(a, b)),
    ]
}

fn run(kind: Kind, on: On, parts: usize, trigger: Trigger) -> Run {
    let setup = Setup { delays: DELAYS.map(Some), parts, ..Setup::new(&sql(kind, on), 0, trigger) };
    setup.start().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn each_step_gives_the_rows_of_the_model(
        kind in kind(), on in on(), steps in steps(20, true), parts in 1usize..3,
    ) {
        let (mut model, mut run) = (Model::new(kind, on), run(kind, on, parts, BATCHES));
        for (number, step) in steps.iter().enumerate() {
            let (expected, got) = match step {
                Step::Restart(parallelism) => {
                    run.restart(*parallelism).unwrap();
                    model.inputs = [None; 2];
                    (Vec::new(), run.take())
                }
                Step::Rows(l, r) => (model.step(l, r), run.step(l, r)),
            };
            prop_assert_eq!(got, expected, "step {}: {:?}", number, step);
        }
    }

    /// With disorder below the delay no row is late. Continuous mode emits each pair and each row
    /// without a match once, also with restarts.
    #[test]
    fn continuous_mode_gives_the_same_through_restarts(
        kind in prop_oneof![5 => kind(), 1 => Just(Kind::Anti)], on in on(),
        steps in steps(DELAYS[0] - 1, false),
    ) {
        let (mut model, mut run) = (Model::new(kind, on), run(kind, on, 1, CONTINUOUS));
        let (mut expected, mut got) = (Vec::new(), Vec::new());
        for step in &steps {
            match step {
                Step::Restart(parallelism) => {
                    got.extend(run.take());
                    run.restart(*parallelism).unwrap();
                }
                Step::Rows(l, r) => {
                    expected.extend(model.step(l, r));
                    got.extend(run.step(l, r));
                }
            }
        }
        expected.sort();
        prop_assert_eq!(run.wait_for(got, expected.len()), expected);
    }
}

/// The output of steps, in order. `parallelism` is also the number of workers. In continuous mode
/// the rows of the right side are added after those of the left, because otherwise thread
/// scheduling decides their order.
fn sequence(
    (kind, on): (Kind, On),
    steps: &[Step],
    trigger: Trigger,
    (parallelism, wanted): (usize, usize),
) -> Vec<String> {
    let setup = Setup { delays: DELAYS.map(Some), ..Setup::new(&sql(kind, on), 0, trigger) };
    let mut run = Setup { parallelism, workers: parallelism, ..setup }.ordered().start().unwrap();
    let mut got = Vec::new();
    for step in steps {
        match step {
            Step::Restart(_) => run.restart(parallelism).unwrap(),
            Step::Rows(l, r) if trigger == BATCHES => run.add(l, r),
            Step::Rows(l, r) => {
                run.add(l, &[]);
                run.query().process_all_available().unwrap();
                run.add(&[], r);
            }
        }
        run.query().process_all_available().unwrap();
        got.extend(run.take_in_order());
    }
    let begun = std::time::Instant::now();
    while got.len() < wanted && begun.elapsed().as_secs() < 20 {
        std::thread::yield_now();
        got.extend(run.take_in_order());
    }
    got
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// With the setting `ordered`, the same input gives the same sequence with 1, 2 and 4 workers.
    #[test]
    fn an_ordered_join_gives_one_sequence(
        kind in kind(), on in on(), steps in steps(DELAYS[0] - 1, false), batches in any::<bool>(),
    ) {
        let trigger = if batches { BATCHES } else { CONTINUOUS };
        let mut model = Model::new(kind, on);
        let mut wanted = 0;
        for step in &steps {
            if let Step::Rows(l, r) = step {
                wanted += model.step(l, r).len();
            }
        }
        let [one, two, four] =
            [1, 2, 4].map(|workers| sequence((kind, on), &steps, trigger, (workers, wanted)));
        prop_assert_eq!(one.len(), wanted);
        prop_assert_eq!(&two, &one, "2 workers");
        prop_assert_eq!(&four, &one, "4 workers");
    }
}
