//! Signals of the shell.

use crate::failure::Failure;

/// Calls a function for each Ctrl-C, on a thread of its own. SIGTERM and SIGHUP keep their actions,
/// usually to end the process: a shell that waits for input has nothing to finish.
pub(super) fn on_ctrl_c(act: impl FnMut() + Send + 'static) -> Result<(), Failure> {
    let catch = || {
        ctrlc::set_handler(act)
            .map_err(|error| Failure::Failed(format!("cannot catch Ctrl-C: {error}")))
    };
    keep_others(catch)
}

/// Calls a function that catches SIGINT, SIGTERM and SIGHUP, and restores the actions of the last
/// two.
#[cfg(unix)]
fn keep_others(catch: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
    use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    let set = |signal, action: &SigAction| {
        // SAFETY: the action is the default one, or the one that the process had at its start: no
        // code of this program runs in it.
        let before = unsafe { sigaction(signal, action) };
        before
            .map_err(|error| Failure::Failed(format!("cannot set the action of {signal}: {error}")))
    };
    let kept = [
        (Signal::SIGTERM, set(Signal::SIGTERM, &default)?),
        (Signal::SIGHUP, set(Signal::SIGHUP, &default)?),
    ];
    catch()?;
    kept.iter().try_for_each(|(signal, action)| set(*signal, action).map(drop))
}

/// Systems other than Unix have no such signals.
#[cfg(not(unix))]
fn keep_others(catch: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
    catch()
}
