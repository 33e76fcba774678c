//! The list of error conditions in `docs/src/reference.md` contains every condition that the code
//! raises.
//!
//! A condition is a string literal of capital letters with an underscore. The literal ends after
//! it, or continues with a subcondition or with `: `. `error-conditions-of-spark.txt` lists the
//! literals that need no entry.

use regex::Regex;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Collects all Rust files below a folder, except tests and benches.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() && name != "bench" && name != "tests" && name != "testing" {
            sources(&path, found);
        } else if name.ends_with(".rs") && name != "tests.rs" && name != "testing.rs" {
            found.push(path);
        }
    }
}

/// The conditions in the code, each with a file that contains it.
fn raised() -> BTreeMap<String, PathBuf> {
    let literal = r#""([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)(?:\.[A-Z0-9_{}a-z]+)?(?:"|: )"#;
    let (literal, mut files, mut found) =
        (Regex::new(literal).unwrap(), Vec::new(), BTreeMap::new());
    for package in ["engine", "operators", "tools"] {
        sources(&root().join(package).join("src"), &mut files);
    }
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        for condition in literal.captures_iter(code) {
            found.entry(condition[1].to_string()).or_insert_with(|| file.clone());
        }
    }
    found
}

fn listed(text: &str) -> BTreeSet<String> {
    let name = Regex::new("`([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)`").unwrap();
    name.captures_iter(text).map(|name| name[1].to_string()).collect()
}

#[test]
fn the_reference_lists_the_conditions_that_the_code_raises() {
    let page = std::fs::read_to_string(root().join("docs/src/reference.md")).unwrap();
    let (_, errors) = page.split_once("\n## Errors\n").unwrap();
    let listed = listed(errors.split("\n## ").next().unwrap());
    let raised = raised();
    let others = include_str!("error-conditions-of-spark.txt");
    let others: BTreeSet<&str> =
        others.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    let missing: Vec<_> = raised
        .iter()
        .filter(|(name, _)| !listed.contains(*name) && !others.contains(name.as_str()))
        .collect();
    assert!(missing.is_empty(), "docs/src/reference.md lacks {missing:#?}");
    let stale: Vec<_> = listed.iter().filter(|name| !raised.contains_key(*name)).collect();
    assert!(stale.is_empty(), "docs/src/reference.md lists what no code raises: {stale:?}");
    let stale: Vec<_> = others.iter().filter(|name| !raised.contains_key(**name)).collect();
    assert!(stale.is_empty(), "error-conditions-of-spark.txt has what no code has: {stale:?}");
    let both: Vec<_> = others.iter().filter(|name| listed.contains(**name)).collect();
    assert!(both.is_empty(), "Spark's, and listed as if they were not: {both:?}");
}
