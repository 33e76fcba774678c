//! Writes the verdict as JUnit XML, for CI systems.

use std::time::Duration;

/// The outcome of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Passed,
    Failed,
    /// Undecided, because the machine is not suitable.
    Invalid,
}

impl Verdict {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Passed => "pass",
            Self::Failed => "FAIL",
            Self::Invalid => "INVALID",
        }
    }
}

/// A check and its outcome.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub name: String,
    pub verdict: Verdict,
    pub text: String,
}

/// Escapes text for an attribute or an element.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // XML 1.0 does not allow most other control characters.
            c if c.is_control() && !['\n', '\t', '\r'].contains(&c) => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// The document of a job's checks.
pub(super) fn document(job: &str, cases: &[Case], elapsed: Duration) -> String {
    let count = |verdict| cases.iter().filter(|case| case.verdict == verdict).count();
    let (failed, invalid) = (count(Verdict::Failed), count(Verdict::Invalid));
    let (job, seconds) = (escaped(job), elapsed.as_secs_f64());
    let totals = format!(
        "tests=\"{}\" failures=\"{failed}\" errors=\"{invalid}\" skipped=\"0\" time=\"{seconds:.3}\"",
        cases.len()
    );
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites {totals}>\n  \
         <testsuite name=\"{job}\" {totals}>\n"
    );
    for case in cases {
        let (name, detail) = (escaped(&case.name), escaped(&case.text));
        let head = format!("    <testcase classname=\"{job}\" name=\"{name}\" time=\"0\"");
        let message = escaped(case.text.lines().next().unwrap_or_default());
        match case.verdict {
            Verdict::Passed => text.push_str(&format!("{head}/>\n")),
            Verdict::Failed => text.push_str(&format!(
                "{head}>\n      <failure message=\"{message}\">{detail}</failure>\n    \
                 </testcase>\n"
            )),
            Verdict::Invalid => text.push_str(&format!(
                "{head}>\n      <error type=\"INVALID\" message=\"{message}\">{detail}</error>\n    \
                 </testcase>\n"
            )),
        }
    }
    text.push_str("  </testsuite>\n</testsuites>\n");
    text
}
