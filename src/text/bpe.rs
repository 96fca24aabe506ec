//! Byte-pair merging of one piece of text. Owns the table of pairs; knows nothing of where text is
//! cut into pieces, of special tokens or of files.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use crate::request::Token;

/// Which neighbours may merge, in what order of preference, into what.
pub(super) struct Merges {
    pairs: HashMap<(Token, Token), Merge>,
}

#[derive(Clone, Copy)]
struct Merge {
    /// Lower merges first.
    rank: u32,
    product: Token,
}

/// A piece in the middle of merging: a doubly linked list inside a vector.
struct Link {
    token: Token,
    prev: usize,
    next: usize,
}

const NONE: usize = usize::MAX;

impl Merges {
    /// tiktoken's rule: any two neighbours merge whose bytes together are a token, lowest token
    /// first. Every split of every token is a pair, so merging needs no bytes.
    pub(super) fn by_rank<'a>(
        tokens: impl Iterator<Item = (Token, &'a [u8])>,
        id_of: impl Fn(&[u8]) -> Option<Token>,
    ) -> Merges {
        let mut pairs = HashMap::new();
        for (product, bytes) in tokens {
            for cut in 1..bytes.len() {
                if let (Some(left), Some(right)) = (id_of(&bytes[..cut]), id_of(&bytes[cut..])) {
                    let rank = product;
                    pairs.insert((left, right), Merge { rank, product });
                }
            }
        }
        Merges { pairs }
    }

    /// The rule of listed merges: only these pairs, earliest first.
    pub(super) fn by_list(list: impl Iterator<Item = (Token, Token, Token)>) -> Merges {
        let mut pairs = HashMap::new();
        for (rank, (left, right, product)) in (0..).zip(list) {
            pairs
                .entry((left, right))
                .or_insert(Merge { rank, product });
        }
        Merges { pairs }
    }

    /// Merges `piece` (one token per byte at first) and appends the result to `out`.
    /// O(n log n) in the length of the piece.
    pub(super) fn merge(&self, piece: impl Iterator<Item = Token>, out: &mut Vec<Token>) {
        let mut links: Vec<Link> = piece
            .enumerate()
            .map(|(i, token)| Link {
                token,
                prev: i.wrapping_sub(1),
                next: i + 1,
            })
            .collect();
        let Some(last) = links.last_mut() else {
            return;
        };
        last.next = NONE;

        // (rank, left end, left token, right token): the leftmost of equal ranks merges first. An
        // entry is stale when its ends have changed since it was pushed.
        let mut queue = BinaryHeap::new();
        for i in 1..links.len() {
            self.consider(&links, i - 1, i, &mut queue);
        }
        while let Some(Reverse((_, at, left, right))) = queue.pop() {
            let next = links[at].next;
            if links[at].token != left || next == NONE || links[next].token != right {
                continue;
            }
            links[at].token = self.pairs[&(left, right)].product;
            let after = links[next].next;
            links[at].next = after;
            links[next].token = DEAD;
            if after != NONE {
                links[after].prev = at;
                self.consider(&links, at, after, &mut queue);
            }
            let before = links[at].prev;
            if before != NONE {
                self.consider(&links, before, at, &mut queue);
            }
        }
        let mut at = 0;
        while at != NONE {
            out.push(links[at].token);
            at = links[at].next;
        }
    }

    fn consider(&self, links: &[Link], left: usize, right: usize, queue: &mut Queue) {
        let (a, b) = (links[left].token, links[right].token);
        if let Some(merge) = self.pairs.get(&(a, b)) {
            queue.push(Reverse((merge.rank, left, a, b)));
        }
    }
}

type Queue = BinaryHeap<Reverse<(u32, usize, Token, Token)>>;

/// A link that its left neighbour swallowed: equal to no token of a vocabulary, whose size the
/// tokenizer keeps below this.
const DEAD: Token = Token::MAX;
