//! What one user's prompts and answers were, as a radix tree over tokens: what began alike is there
//! once. States hang at its nodes. Knows no budget and no clock.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::request::Token;

const ROOT: usize = 0;

pub struct Tree<S> {
    /// The root first. Places that are free are used again.
    nodes: Vec<Node<S>>,
    free: Vec<usize>,
    /// Bytes of a state that another one, above it, does not hold too.
    held: fn(&S, Option<&S>) -> usize,
    bytes: usize,
}

struct Node<S> {
    parent: usize,
    /// From the parent's end to its own.
    edge: Vec<Token>,
    depth: usize,
    children: BTreeMap<Token, usize>,
    kept: Option<Kept<S>>,
    /// A state was here and had to go.
    gone: bool,
    used: u64,
}

pub struct Kept<S> {
    pub snapshot: S,
    /// What other threads know it by.
    pub key: u64,
    pub pinned: Option<Instant>,
    /// Bytes that nothing above it holds.
    own: usize,
}

/// How far some tokens follow what is known.
pub struct Walk {
    /// Nodes whose ends they reach, the deepest last.
    path: Vec<usize>,
    pub matched: usize,
    /// What is known goes on, and otherwise.
    pub parts: bool,
}

impl<S> Node<S> {
    fn new(parent: usize, edge: Vec<Token>, depth: usize) -> Node<S> {
        Node {
            parent,
            edge,
            depth,
            children: BTreeMap::new(),
            kept: None,
            gone: false,
            used: 0,
        }
    }
}

impl<S> Tree<S> {
    pub fn new(held: fn(&S, Option<&S>) -> usize) -> Tree<S> {
        Tree {
            nodes: vec![Node::new(ROOT, Vec::new(), 0)],
            free: Vec::new(),
            held,
            bytes: 0,
        }
    }

    /// Of states, each part counted once, and of tokens: short states of long texts are not free.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn is_empty(&self) -> bool {
        self.nodes[ROOT].children.is_empty()
    }

    pub fn walk(&self, tokens: &[Token]) -> Walk {
        let (mut at, mut matched, mut path) = (ROOT, 0, Vec::new());
        loop {
            let next = tokens.get(matched);
            let Some(&child) = next.and_then(|t| self.nodes[at].children.get(t)) else {
                let parts = next.is_some() && !self.nodes[at].children.is_empty();
                return Walk {
                    path,
                    matched,
                    parts,
                };
            };
            let edge = &self.nodes[child].edge;
            let same = edge.iter().zip(&tokens[matched..]);
            let n = same.take_while(|(a, b)| a == b).count();
            matched += n;
            if n < edge.len() {
                let parts = matched < tokens.len();
                return Walk {
                    path,
                    matched,
                    parts,
                };
            }
            path.push(child);
            at = child;
        }
    }

    /// The deepest state on the way with at most `most` tokens, and how many those are.
    pub fn deepest(&self, walk: &Walk, most: usize) -> Option<(usize, usize)> {
        let mut up = walk.path.iter().rev().map(|&at| (at, &self.nodes[at]));
        let found = up.find(|(_, node)| node.kept.is_some() && node.depth <= most);
        found.map(|(at, node)| (at, node.depth))
    }

    /// Whether a state deeper than `depth` was on the way and had to go.
    pub fn lost(&self, walk: &Walk, depth: usize) -> bool {
        let mut way = walk.path.iter().map(|&at| &self.nodes[at]);
        way.any(|node| node.gone && node.depth > depth)
    }

    /// The state after exactly these tokens.
    pub fn at(&self, tokens: &[Token]) -> Option<usize> {
        let walk = self.walk(tokens);
        let (at, depth) = self.deepest(&walk, tokens.len())?;
        (depth == tokens.len()).then_some(at)
    }

    pub fn kept(&self, at: usize) -> Option<&Kept<S>> {
        self.nodes.get(at)?.kept.as_ref()
    }

    pub fn touch(&mut self, at: usize, now: u64) {
        self.nodes[at].used = now;
    }

    /// `until`: it is to stay so long, or as long as it was to stay anyway.
    pub fn pin(&mut self, at: usize, until: Option<Instant>) {
        if let Some(kept) = &mut self.nodes[at].kept {
            kept.pinned = kept.pinned.max(until);
        }
    }

    pub fn unpin(&mut self, at: usize) {
        if let Some(kept) = &mut self.nodes[at].kept {
            kept.pinned = None;
        }
    }

    /// Hangs a state after `tokens`; where one is already, it stays.
    pub fn keep(&mut self, tokens: &[Token], key: u64, snapshot: S, now: u64) -> usize {
        let at = self.insert(tokens);
        self.touch(at, now);
        if self.nodes[at].kept.is_none() {
            self.nodes[at].gone = false;
            self.nodes[at].kept = Some(Kept {
                snapshot,
                key,
                pinned: None,
                own: 0,
            });
            self.weigh(at);
            self.below(at).into_iter().for_each(|b| self.weigh(b));
        }
        at
    }

    /// Takes a state away. That it was there is remembered.
    pub fn take(&mut self, at: usize) -> Option<Kept<S>> {
        let kept = self.nodes[at].kept.take()?;
        self.nodes[at].gone = true;
        self.bytes -= kept.own;
        self.below(at).into_iter().for_each(|b| self.weigh(b));
        Some(kept)
    }

    /// Every state: its node, tokens since the next one above it, bytes that would be free without
    /// it, when it was used, and until when it is to stay.
    pub fn each(&self) -> impl Iterator<Item = (usize, usize, usize, u64, Option<Instant>)> {
        let kept = self.nodes.iter().enumerate();
        kept.filter_map(|(at, node)| {
            let kept = node.kept.as_ref()?;
            let above = self.above(at);
            let since = above.map_or(0, |a| self.nodes[a].depth);
            let from = above.and_then(|a| self.kept(a)).map(|k| &k.snapshot);
            // What is below it would hold more of its own.
            let below = self.below(at).into_iter().filter_map(|b| self.kept(b));
            let more = below.map(|b| (self.held)(&b.snapshot, from) - b.own);
            let freed = kept.own.saturating_sub(more.sum());
            Some((at, node.depth - since, freed, node.used, kept.pinned))
        })
    }

    /// Ends of lines that have no state any more: their nodes, when they were used, and how many
    /// tokens are theirs alone.
    pub fn bare(&self) -> impl Iterator<Item = (usize, u64, usize)> {
        let nodes = self.nodes.iter().enumerate().skip(1);
        let bare = |n: &Node<S>| !n.edge.is_empty() && n.children.is_empty() && n.kept.is_none();
        let bare = nodes.filter(move |(_, n)| bare(n));
        bare.map(|(at, n)| (at, n.used, n.edge.len()))
    }

    /// Forgets a line's end that has no state, as far as no other line has it.
    pub fn cut(&mut self, mut at: usize) {
        loop {
            let parent = self.nodes[at].parent;
            let first = self.nodes[at].edge[0];
            self.nodes[parent].children.remove(&first);
            self.release(at);
            at = parent;
            let node = &self.nodes[at];
            if at == ROOT || node.kept.is_some() || node.gone || !node.children.is_empty() {
                break;
            }
        }
        self.join(at);
    }

    /// The nearest state above.
    fn above(&self, at: usize) -> Option<usize> {
        let up = std::iter::successors(Some(at), |&at| Some(self.nodes[at].parent));
        let mut up = up.skip(1).take_while(|&at| at != ROOT);
        up.find(|&at| self.nodes[at].kept.is_some())
    }

    /// The nearest states below, each on its own way.
    fn below(&self, at: usize) -> Vec<usize> {
        let mut open: Vec<usize> = self.nodes[at].children.values().copied().collect();
        let mut found = Vec::new();
        while let Some(at) = open.pop() {
            if self.nodes[at].kept.is_some() {
                found.push(at);
            } else {
                open.extend(self.nodes[at].children.values());
            }
        }
        found
    }

    /// States on the way, the deepest first.
    pub fn on(&self, walk: &Walk) -> Vec<usize> {
        let up = walk.path.iter().rev().copied();
        up.filter(|&at| self.nodes[at].kept.is_some()).collect()
    }

    fn weigh(&mut self, at: usize) {
        let from = self.above(at).and_then(|a| self.kept(a));
        let from = from.map(|k| &k.snapshot);
        let Some(own) = self.kept(at).map(|k| (self.held)(&k.snapshot, from)) else {
            return;
        };
        if let Some(kept) = &mut self.nodes[at].kept {
            self.bytes = self.bytes - kept.own + own;
            kept.own = own;
        }
    }

    fn insert(&mut self, tokens: &[Token]) -> usize {
        let walk = self.walk(tokens);
        let mut at = walk.path.last().copied().unwrap_or(ROOT);
        let reached = self.nodes[at].depth;
        if walk.matched > reached {
            at = self.split(at, &tokens[reached..walk.matched]);
        }
        let rest = &tokens[walk.matched..];
        if rest.is_empty() {
            return at;
        }
        self.bytes += size_of_val(rest);
        self.place(Node::new(at, rest.to_vec(), tokens.len()))
    }

    /// A node in the middle of the edge below `parent` that begins with `head`.
    fn split(&mut self, parent: usize, head: &[Token]) -> usize {
        let child = self.nodes[parent].children[&head[0]];
        let depth = self.nodes[parent].depth + head.len();
        let middle = self.place(Node::new(parent, head.to_vec(), depth));
        let lower = &mut self.nodes[child];
        lower.edge.drain(..head.len());
        lower.parent = middle;
        let first = lower.edge[0];
        self.nodes[middle].children.insert(first, child);
        middle
    }

    /// A node that nothing happens at and that one line goes through is none.
    fn join(&mut self, at: usize) {
        let node = &self.nodes[at];
        if at == ROOT || node.kept.is_some() || node.gone || node.children.len() != 1 {
            return;
        }
        let (parent, mut edge) = (node.parent, node.edge.clone());
        let Some(&child) = node.children.values().next() else {
            return;
        };
        self.nodes[parent].children.insert(edge[0], child);
        edge.append(&mut self.nodes[child].edge);
        self.nodes[child].edge = edge;
        self.nodes[child].parent = parent;
        self.bytes += size_of_val(self.nodes[at].edge.as_slice());
        self.release(at);
    }

    /// Puts a node below its parent.
    fn place(&mut self, node: Node<S>) -> usize {
        let (parent, first) = (node.parent, node.edge[0]);
        let at = match self.free.pop() {
            Some(at) => {
                self.nodes[at] = node;
                at
            }
            None => {
                self.nodes.push(node);
                self.nodes.len() - 1
            }
        };
        self.nodes[parent].children.insert(first, at);
        at
    }

    fn release(&mut self, at: usize) {
        self.bytes -= size_of_val(self.nodes[at].edge.as_slice());
        self.nodes[at] = Node::new(ROOT, Vec::new(), 0);
        self.free.push(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A state of so many bytes that shares nothing.
    fn tree() -> Tree<usize> {
        Tree::new(|own, _| *own)
    }

    #[test]
    fn lines_that_began_alike_share_their_beginning_and_find_their_deepest_state() {
        let mut tree = tree();
        tree.keep(&[1, 2, 3, 4], 0, 10, 1);
        tree.keep(&[1, 2, 5, 6], 0, 20, 2);
        // Four tokens, two more, and both states.
        assert_eq!(tree.bytes(), 6 * size_of::<Token>() + 30);
        tree.keep(&[1, 2], 0, 5, 3);
        let found = |tokens: &[Token], most| {
            let walk = tree.walk(tokens);
            let deepest = tree.deepest(&walk, most);
            let state = deepest.and_then(|(at, _)| tree.kept(at));
            (walk.matched, walk.parts, state.map(|k| k.snapshot))
        };
        assert_eq!(found(&[1, 2, 3, 4, 9], 5), (4, false, Some(10)));
        assert_eq!(found(&[1, 2, 3, 4], 3), (4, false, Some(5)));
        assert_eq!(found(&[1, 2, 5, 7], 4), (3, true, Some(5)));
        assert_eq!(found(&[1, 9], 2), (1, true, None));
        assert_eq!(found(&[7], 1), (0, true, None));
        assert!(tree.at(&[1, 2]).is_some());
        assert_eq!(tree.at(&[1, 2, 3]), None);
    }

    #[test]
    fn a_state_that_went_is_remembered_until_its_line_is_cut() {
        let mut tree = tree();
        tree.keep(&[1, 2], 0, 5, 1);
        let at = tree.keep(&[1, 2, 3, 4], 0, 10, 2);
        assert_eq!(tree.take(at).map(|k| k.snapshot), Some(10));
        let walk = tree.walk(&[1, 2, 3, 4, 5]);
        assert!(tree.lost(&walk, 2) && !tree.lost(&walk, 4));
        assert_eq!(tree.bare().collect::<Vec<_>>(), [(at, 2, 2)]);
        tree.cut(at);
        assert_eq!(tree.walk(&[1, 2, 3, 4, 5]).matched, 2);
        assert_eq!(tree.bytes(), 2 * size_of::<Token>() + 5);
        let at = tree.at(&[1, 2]).expect("it stays");
        tree.take(at);
        tree.cut(at);
        assert!(tree.is_empty() && tree.bytes() == 0);
    }

    #[test]
    fn rows_are_counted_once_whoever_holds_them() {
        // A state of n tokens: 100 bytes, and ten for each token that nobody above it has.
        let mut tree = Tree::new(|n: &usize, above| 100 + 10 * (n - above.unwrap_or(&0)));
        let states = |tree: &Tree<usize>| tree.bytes() - size_of::<[Token; 8]>();
        tree.keep(&[1, 1, 1, 1, 1, 1, 1, 1], 0, 8, 1);
        assert_eq!(states(&tree), 180);
        let middle = tree.keep(&[1, 1, 1, 1], 0, 4, 2);
        assert_eq!(states(&tree), 280);
        let freed: Vec<_> = tree
            .each()
            .map(|(_, since, freed, ..)| (since, freed))
            .collect();
        assert_eq!(freed, [(4, 140), (4, 100)]);
        tree.take(middle);
        assert_eq!(states(&tree), 180);
    }

    /// Whatever is kept, taken and cut, a tree says what a list of the same would say.
    #[test]
    fn a_tree_and_a_list_agree() {
        let mut tree = tree();
        let mut list: Vec<Vec<Token>> = Vec::new();
        let mut seed = 1u32;
        let mut dice = |n: u32| {
            seed = seed.wrapping_mul(1664525).wrapping_add(1013904223);
            (seed >> 16) % n
        };
        for step in 0..4000 {
            let n = 1 + dice(6);
            let tokens: Vec<Token> = (0..n).map(|_| dice(2)).collect();
            if dice(3) == 0 && !list.is_empty() {
                let gone = list.swap_remove(dice(8) as usize % list.len());
                let at = tree.at(&gone).expect("a state");
                tree.take(at);
            } else if !list.contains(&tokens) {
                tree.keep(&tokens, 0, 1, step);
                list.push(tokens.clone());
            }
            if step % 16 == 0 {
                let bare: Vec<_> = tree.bare().map(|(at, ..)| at).collect();
                bare.into_iter().for_each(|at| tree.cut(at));
            }
            let walk = tree.walk(&tokens);
            let deepest = tree
                .deepest(&walk, tokens.len())
                .map_or(0, |(_, depth)| depth);
            let fits = list.iter().filter(|l| tokens.starts_with(l));
            assert_eq!(deepest, fits.map(Vec::len).max().unwrap_or(0), "{step}");
            assert_eq!(tree.each().count(), list.len());
        }
        for gone in list {
            let at = tree.at(&gone).expect("a state");
            tree.take(at);
        }
        while let Some((at, ..)) = { tree.bare().next() } {
            tree.cut(at);
        }
        // States that went in the middle of others' lines are ends now.
        assert!(tree.is_empty() && tree.bytes() == 0);
    }
}
