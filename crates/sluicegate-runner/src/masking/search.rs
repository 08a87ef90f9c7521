//! Looks for all forms in one stream, byte by byte.

use std::{collections::VecDeque, ops::Range};

use super::{
    automaton::{Automaton, ROOT},
    spellings::Family,
};

/// Bytes between two digits that belong to no form; with more, they are no longer of one number.
const MAX_GAP: u32 = 64;

/// What has fewer digits when a line ends is given out with it. Every tenth line ends like the beginning of some form; a reader is not to
/// wait for their ends, and two digits tell no more than what a form's own neighbours do.
const MIN_HELD: u32 = 3;

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

/// A stream's state in each lane.
pub(super) struct Search {
    states: [State; Family::ALL.len()],
    /// Bytes that were read.
    read: u64,
}

#[derive(Default)]
struct State {
    node: u32,
    /// Where in the stream the bytes stand that led to the node.
    places: VecDeque<u64>,
    /// Bytes that were passed over since the last of them.
    gap: u32,
    /// Whether a line end is among those.
    line_began: bool,
    /// Nothing before it is held back or found any more.
    floor: u64,
}

impl Search {
    pub(super) fn new() -> Self {
        Self { states: std::array::from_fn(|_| State::default()), read: 0 }
    }

    pub(super) fn read(&self) -> u64 {
        self.read
    }

    /// Takes one byte; where in the stream the longest occurrence stands that ends with it.
    pub(super) fn take(&mut self, lanes: &[Lane], byte: u8) -> Option<Range<u64>> {
        let at = self.read;
        self.read += 1;
        let starts = self.states.iter_mut().zip(lanes).filter_map(|(state, lane)| state.take(lane, byte, at));
        starts.min().map(|start| start..at + 1)
    }

    /// Where the longest beginning of a form starts with which the stream ends so far.
    pub(super) fn undecided(&self) -> u64 {
        let starts = self.states.iter().filter_map(|state| Some((*state.places.front()?).max(state.floor)));
        starts.min().unwrap_or(self.read)
    }
}

impl State {
    fn take(&mut self, lane: &Lane, byte: u8, at: u64) -> Option<u64> {
        let Lane { family, automaton } = lane;
        if self.node != ROOT && family.passes_over(byte, self.line_began) {
            self.pass_over(lane, byte, at);
            return None;
        }
        let byte = if family.folds() { byte.to_ascii_lowercase() } else { byte };
        let (node, covers) = automaton.step(self.node, byte);
        (self.gap, self.line_began) = (0, false);
        if node == ROOT && covers == 0 {
            self.forget();
            return None;
        }
        self.places.push_back(at);
        let first = self.places.len().checked_sub(covers as usize).filter(|_| covers > 0);
        let start = first.and_then(|first| self.places.get(first)).map(|place| (*place).max(self.floor));
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
