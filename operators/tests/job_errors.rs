//! The error messages for wrong jobs, one per kind of mistake (`job_errors/jobs.txt`).
//! `job_errors/seen.txt` records them for review. `UPDATE=1 cargo test -p millstream --test
//! job_errors` updates it.
#![cfg(feature = "sql")]

use millstream::session::{Overrides, Session};

#[test]
fn wrong_jobs_give_position_reason_and_fix() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/job_errors");
    let (mut seen, mut kinds, mut accepted) = (String::new(), 0, Vec::new());
    for block in include_str!("job_errors/jobs.txt").split("-- ").filter(|block| !block.is_empty())
    {
        let (kind, job) = block.split_once('\n').expect("a kind and a job");
        let session = Session::new();
        let ddl = "word STRING, n INT, t TIMESTAMP, xs ARRAY<INT>, s STRUCT<x: INT>";
        session.memory_stream("events", ddl).unwrap();
        match session.job(job, &Overrides::default()) {
            Ok(_) => accepted.push(kind),
            Err(error) => {
                assert!(!error.reason.is_empty(), "{kind}");
                seen.push_str(&format!("-- {kind}\n{job}{error}\n\n"));
            }
        }
        kinds += 1;
    }
    assert!(kinds >= 40);
    // This job is accepted, because its error can only be detected when a record is processed.
    assert_eq!(accepted, ["division by a constant zero, found when a record needs it"]);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(format!("{folder}/seen.txt"), &seen).unwrap();
    }
    let expected = std::fs::read_to_string(format!("{folder}/seen.txt")).unwrap_or_default();
    let differ: Vec<_> = seen.lines().filter(|line| !expected.contains(line)).collect();
    assert!(seen == expected, "run with UPDATE=1 if this is better:\n{}", differ.join("\n"));
}
