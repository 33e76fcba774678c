//! `millstream doctor`: how this machine affects latency, and whether it is fit for measuring it.

#[cfg(feature = "kafka")]
mod kafka;

use crate::failure::Failure;
use crate::latency_format::{median, time};
use crate::stdout::say;
use clap::Args as ClapArgs;
use hdrhistogram::Histogram;
use millstream_engine::cores;
use millstream_engine::measure::latency::histogram;
use std::fs::{self, File};
use std::hint::{black_box, spin_loop};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

#[derive(ClapArgs)]
#[command(after_help = "Examples:\n  \
    millstream doctor\n  \
    millstream doctor --dir /var/lib/wordcount      # where checkpoints will be\n  \
    millstream doctor --kafka localhost:9092        # also the cluster: reachability, round trip\n  \
    millstream doctor --kafka broker:9093 --kafka-option security.protocol=ssl\n\n\
    Exit codes: 0 fit for measuring, 1 not fit (a line marked NO), 2 invalid command line. The \
    check\n\
    takes a few seconds, spins on each core in turn, and writes 4 KiB into the folder.")]
pub(crate) struct Args {
    /// The folder of a checkpoint; by default the system's temporary folder
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Also examine a Kafka cluster: 200 records are sent to a topic of its own, which is deleted
    /// afterwards
    #[arg(long, value_name = "HOST:PORT")]
    kafka: Option<String>,
    /// An option of the Kafka client, such as `security.protocol=ssl`. May be repeated
    #[arg(long, value_name = "NAME=VALUE", requires = "kafka")]
    kafka_option: Vec<String>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    /// The finding is not judged: whether it is good depends on the use.
    Unjudged,
    Good,
    /// The finding increases latency, but measurements are valid for this machine.
    Costs,
    /// The finding makes measurements on this machine meaningless.
    Unfit,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Unjudged => "-",
            Self::Good => "ok",
            Self::Costs => "costs",
            Self::Unfit => "NO",
        }
    }

    fn of(unfit: bool, costs: bool) -> Self {
        match (unfit, costs) {
            (true, _) => Self::Unfit,
            (false, true) => Self::Costs,
            (false, false) => Self::Good,
        }
    }
}

/// The result of one check.
struct Finding {
    what: &'static str,
    found: String,
    verdict: Verdict,
    /// The effect on latency.
    means: String,
}

/// Creates a finding. `means` is its effect on latency.
fn finding(what: &'static str, found: String, verdict: Verdict, means: &str) -> Finding {
    Finding { what, found, verdict, means: means.to_string() }
}

/// Reads a small system file as one line.
fn read(path: impl AsRef<Path>) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_string())
}

fn usable_cores() -> Finding {
    let (allowed, usable) = (cores::allowed().len(), cores::usable());
    let quota = match read("/sys/fs/cgroup/cpu.max") {
        Some(quota) if !quota.starts_with("max") => format!(", cgroup quota {quota} us"),
        _ => String::new(),
    };
    let means = match usable {
        0 | 1 => "generator and worker share one core: jobs run, but nothing can be measured",
        2 => {
            "one core for a worker, and one for everything else (the generator, the driver): measure with one worker"
        }
        _ => "leave one core to the system; one for the generator when measuring",
    };
    let found = format!("{usable} usable of {allowed} allowed{quota}");
    let throttled = usable < allowed;
    finding("cores", found, Verdict::of(usable < 2, throttled), means)
}

/// Reports which cores are reserved for pinned workers, and by which processes and queries. A
/// warning if there are any, because they disturb the measurements.
fn held_cores() -> Finding {
    let holders = cores::holders();
    let holder = |held: &cores::Holder| {
        let process = held.process.map_or("another user".to_string(), |id| format!("process {id}"));
        match held.queries.as_str() {
            "" => format!("core {}: {process}", held.core),
            queries => format!("core {}: {queries} ({process})", held.core),
        }
    };
    let found = match holders.as_slice() {
        [] => "none".to_string(),
        all => all.iter().map(holder).collect::<Vec<_>>().join(", "),
    };
    let means = "running queries hold these cores: a new query is pinned to the other cores or \
    not at all, and the figures below include their load";
    finding("held cores", found, Verdict::of(false, !holders.is_empty()), means)
}

fn clock() -> Finding {
    const READS: u32 = 200_000;
    let source = read("/sys/devices/system/clocksource/clocksource0/current_clocksource");
    let source = source.unwrap_or_else(|| "unknown source".to_string());
    let cost = (0..5).map(|_| {
        let start = Instant::now();
        for _ in 0..READS {
            black_box(Instant::now());
        }
        start.elapsed().as_nanos() as u64 / u64::from(READS)
    });
    let ns = median(cost.collect());
    let means = "the clock is read once per drain; above 100 ns each read is a system call (no vDSO): \
        choose tsc";
    finding("clock", format!("{source}, {ns} ns a read"), Verdict::of(ns > 1_000, ns > 100), means)
}

fn timer_slack() -> Option<Finding> {
    let ns: u64 = read("/proc/self/timerslack_ns")?.parse().ok()?;
    let means = "sleeps end late by up to this; only triggers and idle time-outs are delayed, because no record waits for a timer";
    Some(finding("timer slack", time(ns), Verdict::of(false, ns > 100_000), means))
}

/// Measures the wake-up of a thread that blocks on another core.
fn wake_up() -> Finding {
    const WAKES: u64 = 300;
    let (base, seen) = (Instant::now(), AtomicU64::new(0));
    let mut late = histogram();
    std::thread::scope(|scope| {
        let sleeper = scope.spawn(|| {
            pin(cores::allowed().first().copied());
            for _ in 0..WAKES {
                while seen.load(Ordering::Acquire) != u64::MAX {
                    std::thread::park();
                }
                seen.store(base.elapsed().as_nanos() as u64, Ordering::Release);
            }
        });
        let sleeper = sleeper.thread().clone();
        // The measurement runs on another thread, because pinning changes the core of a thread.
        scope.spawn(|| {
            let sleeper = sleeper;
            pin(cores::allowed().last().copied());
            for _ in 0..WAKES {
                let pause = Instant::now();
                while pause.elapsed() < Duration::from_millis(1) {
                    spin_loop();
                }
                let rung = base.elapsed().as_nanos() as u64;
                seen.store(u64::MAX, Ordering::Release);
                sleeper.unpark();
                let woken = loop {
                    match seen.load(Ordering::Acquire) {
                        u64::MAX => spin_loop(),
                        ns => break ns,
                    }
                };
                late.saturating_record(woken.saturating_sub(rung).max(1));
            }
        });
    });
    let (p50, p99) = (late.value_at_quantile(0.5), late.value_at_quantile(0.99));
    let means = "a sleeping worker adds this to a record's latency; `spin` uses a whole core \
    instead, `balanced` spins for 60 us before it sleeps";
    let found = format!("p50 {}, p99 {}", time(p50), time(p99));
    finding("wake-up after 1 ms", found, Verdict::of(false, p50 > 30_000), means)
}

fn pin(core: Option<cores::Core>) {
    if let Some(core) = core {
        cores::pin(core);
    }
}

/// How long each of so many cores is watched: a second, or less if there are more than four cores.
fn watch_time(cores: usize) -> Duration {
    const ALL: Duration = Duration::from_secs(4);
    let each = ALL / cores.max(1) as u32;
    each.clamp(Duration::from_millis(100), Duration::from_secs(1))
}

/// Measures for each core, one after another, how long a thread that only reads the clock is
/// interrupted. Reports the worst core, and the stolen time meanwhile if the system does.
fn interruptions() -> Vec<Finding> {
    const GAP: Duration = Duration::from_micros(10);
    let mut worst = (Duration::ZERO, Duration::ZERO, 0u64);
    let steal_before = steal();
    let watched = cores::allowed();
    let time_each = watch_time(watched.len());
    for core in watched.iter().copied() {
        let watch = move || {
            pin(Some(core));
            let (start, mut last) = (Instant::now(), Instant::now());
            let (mut most, mut sum, mut gaps) = (Duration::ZERO, Duration::ZERO, 0);
            while start.elapsed() < time_each {
                let now = Instant::now();
                let gap = now - last;
                if gap > GAP {
                    (most, sum, gaps) = (most.max(gap), sum + gap, gaps + 1);
                }
                last = now;
            }
            (most, sum, gaps)
        };
        let (most, sum, gaps) = std::thread::spawn(watch).join().unwrap_or_default();
        worst = (worst.0.max(most), worst.1.max(sum), worst.2.max(gaps));
    }
    let (most, sum, gaps) = worst;
    let share = sum.as_secs_f64() / time_each.as_secs_f64() * 100.0;
    let found = format!(
        "{share:.2}% in {gaps} gaps, longest {}; the worst of {} cores, {} ms each",
        time(most.as_nanos() as u64),
        watched.len(),
        time_each.as_millis()
    );
    let verdict = Verdict::of(share > 20.0, share > 1.0 || most > Duration::from_millis(1));
    let means = "a spinning thread was off its core: tails are at least as long as the longest \
    gap; isolate cores (isolcpus, nohz_full), move other load away";
    let mut found = vec![finding("interruptions", found, verdict, means)];
    if let (Some((stolen, all)), Some((stolen_before, all_before))) = (steal(), steal_before) {
        let share = (stolen - stolen_before) as f64 / (all - all_before).max(1) as f64 * 100.0;
        let means =
            "the hypervisor ran another machine, which lengthens every tail; use a dedicated host";
        let verdict = Verdict::of(share > 10.0, share > 0.1);
        found.push(finding("stolen time", format!("{share:.2}%"), verdict, means));
    }
    found
}

/// The number of stolen ticks and of all ticks since the machine started.
fn steal() -> Option<(u64, u64)> {
    parse_steal(&fs::read_to_string("/proc/stat").ok()?)
}

fn parse_steal(stat: &str) -> Option<(u64, u64)> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = line.split_whitespace().map_while(|word| word.parse().ok()).collect();
    // User time already includes guest time.
    Some((*ticks.get(7)?, ticks.iter().take(8).sum()))
}

fn huge_pages() -> Option<Finding> {
    let setting = read("/sys/kernel/mm/transparent_hugepage/enabled")?;
    let chosen = setting.split(['[', ']']).nth(1)?.to_string();
    let means = "with `always` the kernel may stop a thread to merge pages; with `madvise` only \
    programs that ask for it are affected";
    let verdict = Verdict::of(false, chosen == "always");
    Some(finding("huge pages", chosen, verdict, means))
}

fn frequency() -> Option<Finding> {
    let governor = read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")?;
    let means = "with a governor other than `performance` a core is slow after it was idle";
    let verdict = Verdict::of(false, governor != "performance");
    Some(finding("frequency governor", governor, verdict, means))
}

fn system() -> Finding {
    let version = read("/proc/version").unwrap_or_default();
    let release = version.split(' ').nth(2).unwrap_or("unknown kernel").to_string();
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let is_guest = info.lines().any(|l| l.starts_with("flags") && l.contains(" hypervisor"));
    let isolated = read("/sys/devices/system/cpu/isolated").unwrap_or_default();
    let mut found = release;
    found.push_str(if is_guest { ", a virtual machine" } else { ", no virtual machine seen" });
    if !isolated.is_empty() {
        found.push_str(&format!(", isolated cores {isolated}"));
    }
    let means = "in a virtual machine the wake-up of an idle core costs tens of microseconds, \
    and tails are caused by the host";
    finding("system", found, Verdict::of(false, is_guest), means)
}

fn durability(dir: &Path) -> Result<Finding, Failure> {
    const WRITES: usize = 50;
    let path = dir.join(format!(".millstream-doctor-{}", std::process::id()));
    let failed = |error: std::io::Error| {
        Failure::Wrong(format!(
            "{}: {error}. Name a folder that exists and may be written to with --dir",
            dir.display()
        ))
    };
    let mut took = histogram();
    let outcome = write_durably(&path, WRITES, &mut took);
    drop(fs::remove_file(&path));
    outcome.map_err(failed)?;
    let (p50, most) = (took.value_at_quantile(0.5), took.max());
    let means = "an epoch with a checkpoint takes four to six fsyncs; records do not wait for \
    them, but `acknowledge` and exactly-once results do";
    let found = format!("p50 {}, max {} in {}", time(p50), time(most), dir.display());
    // Below 20 us, no data can have reached a disk.
    let verdict = Verdict::of(false, !(20_000..=10_000_000).contains(&p50));
    let means = if p50 < 20_000 { "too fast for a disk: data is not durable here" } else { means };
    Ok(finding("fsync", found, verdict, means))
}

fn write_durably(path: &Path, times: usize, took: &mut Histogram<u64>) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    for _ in 0..times {
        file.write_all(&[7; 4096])?;
        let start = Instant::now();
        file.sync_all()?;
        took.saturating_record(start.elapsed().as_nanos().max(1) as u64);
    }
    Ok(())
}

#[cfg(feature = "kafka")]
fn cluster(servers: &str, options: &[String]) -> Result<Vec<Finding>, Failure> {
    kafka::findings(servers, options)
}

#[cfg(not(feature = "kafka"))]
fn cluster(_: &str, _: &[String]) -> Result<Vec<Finding>, Failure> {
    let reason = "this program was built without the feature kafka";
    Err(Failure::Wrong(format!("--kafka: {reason}. Build it with `--features kafka`")))
}

/// Runs all checks and prints the results.
pub(crate) fn run(args: &Args) -> Result<(), Failure> {
    let dir = args.dir.clone().unwrap_or_else(std::env::temp_dir);
    let mut all = vec![system(), usable_cores(), held_cores(), clock()];
    all.extend(timer_slack());
    all.push(wake_up());
    all.extend(interruptions());
    all.extend(huge_pages());
    all.extend(frequency());
    all.push(durability(&dir)?);
    if let Some(servers) = &args.kafka {
        all.extend(cluster(servers, &args.kafka_option)?);
    }
    let worst = all.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Good);
    if args.json {
        let json = |finding: &Finding| {
            serde_json::json!({
                "what": finding.what, "found": finding.found, "verdict": finding.verdict.word(),
                "means": finding.means,
            })
        };
        let findings: Vec<_> = all.iter().map(json).collect();
        let fit = worst < Verdict::Unfit;
        say!("{}", serde_json::json!({ "fit": fit, "findings": findings }));
    } else {
        for Finding { what, found, verdict, means } in &all {
            say!("{:<6}{what:<20}{found}", verdict.word());
            if *verdict > Verdict::Good {
                say!("{:26}{means}", "");
            }
        }
        say!(
            "{}",
            match worst {
                Verdict::Unjudged | Verdict::Good => "fit for measuring",
                Verdict::Costs => "fit for measuring; the lines marked `costs` raise latencies",
                Verdict::Unfit => "not fit for measuring",
            }
        );
    }
    if worst == Verdict::Unfit {
        let unfit = all.iter().filter(|finding| finding.verdict == Verdict::Unfit);
        let names: Vec<_> = unfit.map(|finding| finding.what).collect();
        return Err(Failure::Failed(format!("not fit for measuring: {}", names.join(", "))));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_core_is_watched_for_a_bounded_time() {
        assert_eq!(watch_time(1), Duration::from_secs(1));
        assert_eq!(watch_time(4), Duration::from_secs(1));
        assert_eq!(watch_time(8), Duration::from_millis(500));
        assert_eq!(watch_time(256), Duration::from_millis(100));
    }

    #[test]
    fn stolen_time_is_the_eighth_number() {
        let stat = "cpu  10 1 5 100 2 0 3 29 7 0\ncpu0 5 0 2 50 1 0 1 14 3 0\n";
        assert_eq!(parse_steal(stat), Some((29, 150)));
        assert_eq!(parse_steal("intr 1"), None);
    }
}
