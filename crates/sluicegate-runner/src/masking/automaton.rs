//! Finds many texts at once (Aho and Corasick, 1975). Its memory is overwritten when it goes.

use std::hint::black_box;

pub(super) const ROOT: u32 = 0;

/// No node: the root is nobody's child.
const NONE: u32 = 0;

/// Texts that are looked for.
pub(super) struct Automaton {
    nodes: Vec<Node>,
    /// The root's children by their bytes; the root where there is none.
    first: [u32; 256],
}

/// A beginning of a form.
#[derive(Clone, Copy, Default)]
struct Node {
    byte: u8,
    is_form: bool,
    depth: u32,
    child: u32,
    sibling: u32,
    /// The longest other beginning with which this one ends.
    fallback: u32,
    /// Bytes of the longest form with which this one ends.
    covers: u32,
    /// This one if a form goes on from it, else the longest such fallback: nothing else needs to be held back.
    rest: u32,
}

impl Automaton {
    pub(super) fn new() -> Self {
        Self { nodes: vec![Node::default()], first: [NONE; 256] }
    }

    pub(super) fn insert(&mut self, form: impl Iterator<Item = u8>) {
        let mut at = ROOT;
        for byte in form {
            at = match self.child(at, byte) {
                NONE => self.add(at, byte),
                child => child,
            };
        }
        self.nodes[at as usize].is_form = at != ROOT;
    }

    fn add(&mut self, parent: u32, byte: u8) -> u32 {
        // The limit of all secrets together keeps this far below 2^32.
        let index = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
        let above = &mut self.nodes[parent as usize];
        let node = Node { byte, depth: above.depth + 1, sibling: above.child, ..Node::default() };
        above.child = index;
        if parent == ROOT {
            self.first[usize::from(byte)] = index;
        }
        self.nodes.push(node);
        index
    }

    /// Finds the fallbacks, those of short beginnings first.
    pub(super) fn connect(&mut self) {
        let mut order = Vec::with_capacity(self.nodes.len());
        order.push(ROOT);
        let mut next = 0;
        while let Some(parent) = order.get(next).copied() {
            next += 1;
            let mut child = self.nodes[parent as usize].child;
            while child != NONE {
                let Node { byte, sibling, .. } = self.nodes[child as usize];
                let fallback = match parent {
                    ROOT => ROOT,
                    _ => self.advance(self.nodes[parent as usize].fallback, byte),
                };
                let Node { covers, rest, .. } = self.nodes[fallback as usize];
                let node = &mut self.nodes[child as usize];
                node.fallback = fallback;
                node.covers = if node.is_form { node.depth } else { covers };
                node.rest = if node.child == NONE { rest } else { child };
                order.push(child);
                child = sibling;
            }
        }
    }

    /// The state after one more byte, and how many of the last bytes are an occurrence.
    pub(super) fn step(&self, state: u32, byte: u8) -> (u32, u32) {
        let node = &self.nodes[self.advance(state, byte) as usize];
        (node.rest, node.covers)
    }

    /// Bytes of the beginning that a state stands for.
    pub(super) fn depth(&self, state: u32) -> u32 {
        self.nodes[state as usize].depth
    }

    /// The longest beginning of whole units with which this state ends.
    pub(super) fn whole_units(&self, mut state: u32, unit: u32) -> u32 {
        while !self.depth(state).is_multiple_of(unit) {
            state = self.nodes[state as usize].fallback;
        }
        state
    }

    /// The state of the next shorter beginning with which this one ends.
    pub(super) fn shorter(&self, state: u32) -> u32 {
        self.nodes[self.nodes[state as usize].fallback as usize].rest
    }

    pub(super) fn is_empty(&self) -> bool {
        self.nodes.len() == 1
    }

    fn advance(&self, mut state: u32, byte: u8) -> u32 {
        loop {
            match self.child(state, byte) {
                NONE if state == ROOT => return ROOT,
                NONE => state = self.nodes[state as usize].fallback,
                child => return child,
            }
        }
    }

    fn child(&self, parent: u32, byte: u8) -> u32 {
        if parent == ROOT {
            return self.first[usize::from(byte)];
        }
        let mut child = self.nodes[parent as usize].child;
        while child != NONE && self.nodes[child as usize].byte != byte {
            child = self.nodes[child as usize].sibling;
        }
        child
    }
}

impl Drop for Automaton {
    fn drop(&mut self) {
        self.nodes.fill(Node::default());
        black_box(&self.nodes);
    }
}
