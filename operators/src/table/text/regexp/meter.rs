//! The cost of finding one match after the other with the linear engine.
//!
//! The engine takes time linear in the text for a search, and each match begins a new one. A pattern
//! that looks far ahead for a long match, and takes a short one, looks at all of the text again for
//! each match: `.*[^A-Z]|[A-Z]` in a text of capital letters. The engine does not say how far it
//! looked. So the searches of a text are first counted as if each looked at all of the rest. Only when
//! that is more than the limit of steps, the automaton of the pattern is run over what each search
//! looks at, and that is what counts.

use crate::table::text::regexp::linear::Linear;
use crate::table::text::regexp::machine::StepLimitExceeded;
use regex_automata::hybrid::dfa::{Cache, DFA};
use regex_automata::{Input, MatchKind, nfa::thompson};

/// Bytes that all searches of a text look at, to which some are added for each byte of the text: a few
/// seconds.
const STEPS: usize = if cfg!(test) { 1_000_000 } else { 100_000_000 };
const STEPS_A_BYTE: usize = 30;
/// The part of them up to which nothing is measured.
const UNMEASURED: usize = 4;

/// Builds the automaton that [`Meter`] runs.
pub(super) fn automaton(pattern: &str, size: usize) -> Option<DFA> {
    let nfa = thompson::Config::new()
        .which_captures(thompson::WhichCaptures::None)
        .nfa_size_limit(Some(size));
    let config = DFA::config().match_kind(MatchKind::LeftmostFirst).skip_cache_capacity_check(true);
    DFA::builder().thompson(nfa).configure(config).build(pattern).ok()
}

/// Counts the steps of the searches of a text.
pub(super) struct Meter {
    /// What is left of them.
    steps: usize,
    /// What is left of them where each search looks at all of the rest.
    unmeasured: usize,
    cache: Option<Box<Cache>>,
}

impl Meter {
    pub fn new(length: usize) -> Self {
        let steps = length.saturating_mul(STEPS_A_BYTE).saturating_add(STEPS);
        Self { steps, unmeasured: steps / UNMEASURED, cache: None }
    }

    /// Counts the search from a place on.
    #[inline]
    pub fn count(
        &mut self,
        linear: &Linear,
        text: &str,
        from: usize,
    ) -> Result<(), StepLimitExceeded> {
        match self.unmeasured.checked_sub(text.len() - from) {
            Some(left) => {
                self.unmeasured = left;
                Ok(())
            }
            None => self.measure(linear, text, from),
        }
    }

    #[cold]
    fn measure(
        &mut self,
        linear: &Linear,
        text: &str,
        from: usize,
    ) -> Result<(), StepLimitExceeded> {
        let cost = match linear.automaton() {
            Some(dfa) => {
                let cache = self.cache.get_or_insert_with(|| Box::new(dfa.create_cache()));
                reach(dfa, cache, text, from)
            }
            None => text.len() - from,
        };
        self.steps = self.steps.checked_sub(cost).ok_or(StepLimitExceeded)?;
        Ok(())
    }
}

/// How many bytes a search from a place on looks at.
fn reach(dfa: &DFA, cache: &mut Cache, text: &str, from: usize) -> usize {
    let rest = &text.as_bytes()[from..];
    let Ok(mut state) = dfa.start_state_forward(cache, &Input::new(text).range(from..)) else {
        return rest.len();
    };
    for (at, byte) in rest.iter().enumerate() {
        match dfa.next_state(cache, state, *byte) {
            // It can match no more.
            Ok(next) if next.is_dead() || next.is_quit() => return at + 1,
            Ok(next) => state = next,
            Err(_) => return rest.len(),
        }
    }
    rest.len()
}
