//! Looks for all forms in one stream, byte by byte.

use std::{collections::VecDeque, ops::Range};

use sluicegate_types::Styling;

use super::{
    automaton::{Automaton, ROOT},
    spellings::Family,
};

/// Bytes between two digits that belong to no form; with more, they are no longer of one number.
const MAX_GAP: u32 = 64;

/// What has fewer digits when a line ends is given out with it. Every tenth line ends like the beginning of some form; a reader is not to
/// wait for their ends, and two digits tell no more than what a form's own neighbours do.
const MIN_HELD: u32 = 3;

/// Bytes within one occurrence that only style it. A line that is shown is shorter, so that nothing is put together by showing it.
pub(super) const MAX_STYLING: u64 = 64 * 1024;

/// The forms of one family.
pub(super) struct Lane {
    pub(super) family: Family,
    pub(super) automaton: Automaton,
}

impl Lane {
    pub(super) fn insert(&mut self, form: &[u8]) {
        let folds = self.family.folds();
        self.automaton.insert(form.iter().map(|byte| if folds { byte.to_ascii_lowercase() } else { *byte }));
    }
}

/// A stream's state in each lane, read in two ways: as it is, for a secret may hold what styles text elsewhere, and as it is shown, without
/// that.
pub(super) struct Search {
    written: States,
    /// None where both ways lead to the same state.
    shown: Option<States>,
    styling: Styling,
    /// Bytes that were read.
    read: u64,
    /// How many of them only style.
    styled: u64,
}

type States = [State; Family::ALL.len()];

#[derive(Clone, Default)]
struct State {
    node: u32,
    /// Where in the stream the bytes stand that led to the node.
    places: VecDeque<Place>,
    /// Bytes that were passed over since the last of them.
    gap: u32,
    /// Whether a line end is among those.
    line_began: bool,
    /// Nothing before it is held back or found any more.
    floor: u64,
}

/// Where a byte stands.
#[derive(Clone, Copy)]
struct Place {
    at: u64,
    /// Bytes before it that only style.
    styled: u64,
}

impl Search {
    pub(super) fn new() -> Self {
        let written = std::array::from_fn(|_| State::default());
        Self { written, shown: None, styling: Styling::default(), read: 0, styled: 0 }
    }

    pub(super) fn read(&self) -> u64 {
        self.read
    }

    /// Takes one byte, and tells where in the stream the longest occurrences stand that are known to end by it.
    pub(super) fn take(&mut self, lanes: &[Lane], byte: u8, found: &mut dyn FnMut(Range<u64>)) {
        let Self { written, shown, styling, read, styled } = self;
        let place = Place { at: *read, styled: *styled };
        *read += 1;
        if Styling::may_begin_with(byte) && shown.is_none() {
            // What is copied was led to by as many bytes, and will be again before the next copy.
            *shown = Some(written.clone());
        }
        all_take(written, lanes, byte, place, found);
        let Some(states) = shown else { return };
        // What did not become a sequence is text from its first byte on.
        let mut at = place.at - styling.begun() as u64;
        let left_out = styling.push(byte, &mut |byte| {
            all_take(states, lanes, byte, Place { at, ..place }, found);
            at += 1;
        });
        if left_out > 0 {
            *styled += left_out as u64;
            states.iter_mut().zip(lanes).for_each(|(state, lane)| state.shorten(&lane.automaton, *styled));
        }
        let idle = |states: &States| states.iter().all(|state| state.node == ROOT);
        if styling.begun() == 0 && idle(states) && idle(written) {
            *shown = None;
        }
    }

    /// The stream has ended: tells of what is an occurrence for want of more.
    pub(super) fn finish(&mut self, lanes: &[Lane], found: &mut dyn FnMut(Range<u64>)) {
        let Self { shown: Some(states), styling, read, styled, .. } = self else { return };
        let mut at = *read - styling.begun() as u64;
        styling.finish(&mut |byte| {
            all_take(states, lanes, byte, Place { at, styled: *styled }, found);
            at += 1;
        });
    }

    /// Where the longest beginning of a form starts with which the stream ends so far.
    pub(super) fn undecided(&self) -> u64 {
        let states = self.written.iter().chain(self.shown.iter().flatten());
        let starts = states.filter_map(|state| Some(state.places.front()?.at.max(state.floor)));
        starts.min().unwrap_or(self.read)
    }
}

fn all_take(states: &mut States, lanes: &[Lane], byte: u8, place: Place, found: &mut dyn FnMut(Range<u64>)) {
    let starts = states.iter_mut().zip(lanes).filter_map(|(state, lane)| state.take(lane, byte, place));
    if let Some(start) = starts.min() {
        found(start..place.at + 1);
    }
}

impl State {
    fn take(&mut self, lane: &Lane, byte: u8, place: Place) -> Option<u64> {
        let Lane { family, automaton } = lane;
        if self.node != ROOT && family.passes_over(byte, self.line_began) {
            self.pass_over(lane, byte, place.at);
            return None;
        }
        let byte = if family.folds() { byte.to_ascii_lowercase() } else { byte };
        let (node, covers) = automaton.step(self.node, byte);
        (self.gap, self.line_began) = (0, false);
        if node == ROOT && covers == 0 {
            self.forget();
            return None;
        }
        self.places.push_back(place);
        let first = self.places.len().checked_sub(covers as usize).filter(|_| covers > 0);
        let start = first.and_then(|first| self.places.get(first)).map(|place| place.at.max(self.floor));
        self.go_to(automaton, node);
        start
    }

    fn pass_over(&mut self, lane: &Lane, byte: u8, at: u64) {
        let node = lane.automaton.whole_units(self.node, lane.family.unit());
        self.go_to(&lane.automaton, node);
        self.gap += 1;
        self.line_began |= byte == b'\n';
        if self.gap > MAX_GAP {
            self.forget();
        } else if byte == b'\n' && lane.automaton.depth(self.node) < MIN_HELD {
            self.floor = at + 1;
        }
    }

    /// Gives beginnings up within which too much only styles, the longest first.
    fn shorten(&mut self, automaton: &Automaton, styled: u64) {
        while self.places.front().is_some_and(|first| styled - first.styled > MAX_STYLING) {
            self.go_to(automaton, automaton.shorter(self.node));
        }
    }

    fn go_to(&mut self, automaton: &Automaton, node: u32) {
        if node == ROOT {
            return self.forget();
        }
        self.node = node;
        let surplus = self.places.len().saturating_sub(automaton.depth(node) as usize);
        self.places.drain(..surplus);
    }

    fn forget(&mut self) {
        self.node = ROOT;
        self.places.clear();
        (self.gap, self.line_began) = (0, false);
    }
}
