//! Other programs that do a job from Kafka to Kafka, as processes of their own.

use crate::bench::kafka::jobs::Job;
use crate::failure::Failure;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// The exit code of a program that does not do a job, or lacks what it needs.
const LEFT_OUT: i32 = 3;

/// A program to compare with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rival {
    pub name: String,
    /// The program and its first arguments, separated by spaces.
    command: String,
}

impl Rival {
    /// Reads `NAME=COMMAND`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (name, command) = text.split_once('=').ok_or("it has the form NAME=COMMAND")?;
        if name.trim().is_empty() || command.trim().is_empty() {
            return Err("the name and the command must not be empty".to_string());
        }
        Ok(Self { name: name.trim().to_string(), command: command.to_string() })
    }

    /// Starts the program, and waits until it reads the input. `None`: it does not do the job.
    pub(super) fn start(
        &self,
        servers: &str,
        job: Job,
        input: &str,
        output: &str,
    ) -> Result<Option<RunningRival>, Failure> {
        let mut words = self.command.split_whitespace();
        let program = words.next().unwrap_or_default();
        let failed = |reason: String| Failure::Failed(format!("{}: {reason}", self.name));
        let mut child = Command::new(program)
            .args(words)
            .args([servers, job.name(), input, output])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| failed(format!("cannot start {program}: {error}")))?;
        let out = child.stdout.take().map(BufReader::new);
        let mut running = RunningRival { name: self.name.clone(), child };
        for line in out.into_iter().flat_map(BufRead::lines) {
            if line.is_ok_and(|line| line == "ready") {
                return Ok(Some(running));
            }
        }
        // Its output has ended.
        let status = running.child.wait()?;
        match status.code() {
            Some(LEFT_OUT) => Ok(None),
            _ => Err(failed(format!("ended with {status} before it printed 'ready'"))),
        }
    }
}

/// A program that reads the input. It is killed when this is dropped.
pub(super) struct RunningRival {
    name: String,
    child: Child,
}

impl RunningRival {
    /// Ends the program. Returns why it had ended before, if it had.
    pub(super) fn end(mut self) -> Option<Failure> {
        match self.child.try_wait() {
            Ok(Some(status)) => {
                Some(Failure::Failed(format!("{}: ended with {status}", self.name)))
            }
            _ => {
                // Without its standard input it ends.
                drop(self.child.stdin.take());
                self.child.wait().err().map(Failure::from)
            }
        }
    }
}

impl Drop for RunningRival {
    fn drop(&mut self) {
        // Both fail if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::scratch::Scratch;

    #[test]
    fn a_rival_is_ready_does_not_do_the_job_or_fails() {
        let folder = Scratch::new("rival", None).unwrap();
        let script = |name: &str, body: &str| {
            let path = folder.path(name);
            std::fs::write(&path, body).unwrap();
            Rival::parse(&format!("{name}=sh {}", path.display())).unwrap()
        };
        let start = |rival: Rival| rival.start("server", Job::Count, "in", "out");
        let ready = r#"[ "$*" = "server count in out" ] && echo starting && echo ready && cat"#;
        let running = start(script("ready", ready)).unwrap().unwrap();
        assert!(running.end().is_none());
        assert!(start(script("left-out", "exit 3")).unwrap().is_none());
        let Err(Failure::Failed(reason)) = start(script("failed", "exit 1")) else {
            panic!("it has failed");
        };
        assert!(reason.contains("before it printed 'ready'"), "{reason}");
        assert!(Rival::parse("streams").is_err() && Rival::parse("a= ").is_err());
    }
}
