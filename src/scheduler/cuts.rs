//! Where the reading of a prompt stops for a moment so that its state can be kept: where messages
//! end, where others went another way, and where the caller says. Pure.

/// Tokens between two stops that nobody asked for. One costs a pass, which is as long as about
/// sixteen tokens of a prompt take.
const APART: usize = 256;
/// Tokens before a stop that is likely to be of use.
const WORTH: usize = 64;

/// What is known of a prompt when its reading begins.
pub struct Known<'a> {
    /// So many tokens are read.
    pub done: usize,
    pub len: usize,
    /// Where its messages end.
    pub ends: &'a [usize],
    /// So many tokens others have begun with, too.
    pub shared: usize,
    /// Where its caller wants a state.
    pub marks: &'a [usize],
}

/// Ascending; the prompt's end is none of them: a state is kept there anyway.
pub fn cuts(known: &Known) -> Vec<usize> {
    let &Known { done, len, .. } = known;
    let open = |at: &usize| (done + 1..len).contains(at);
    let mut cuts: Vec<usize> = known.marks.iter().copied().filter(open).collect();
    let ends: Vec<usize> = known.ends.iter().copied().filter(open).collect();
    // The newest message is the likeliest to be put otherwise, or to be asked again.
    let newest = ends.iter().nth_back(1).copied();
    let shared = Some(known.shared).filter(open);
    for at in newest.into_iter().chain(shared) {
        if room(&cuts, done, at) >= WORTH {
            cuts.push(at);
        }
    }
    for &at in ends.iter().rev() {
        if room(&cuts, done, at) >= APART {
            cuts.push(at);
        }
    }
    cuts.sort_unstable();
    cuts.dedup();
    cuts
}

/// Tokens to the nearest state on either side.
fn room(cuts: &[usize], done: usize, at: usize) -> usize {
    let others = cuts.iter().map(|cut| cut.abs_diff(at));
    others.chain([at - done]).min().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(done: usize, ends: &[usize], shared: usize, marks: &[usize]) -> Vec<usize> {
        let len = ends.last().map_or(0, |last| last + 3);
        cuts(&Known {
            done,
            len,
            ends,
            shared,
            marks,
        })
    }

    #[test]
    fn what_may_be_gone_back_to_is_kept() {
        // Tools, a system message, a short question.
        assert_eq!(at(0, &[900, 1500, 1520], 0, &[]), [900, 1500]);
        // A long question: asked again it is not read again.
        assert_eq!(at(0, &[900, 1500, 1900], 0, &[]), [900, 1500, 1900]);
        // Short messages are read again rather than stopped at.
        assert_eq!(at(0, &[20, 40, 60], 0, &[]), [0; 0]);
        // Where an answer ended a state is already, one token before.
        assert_eq!(at(1600, &[900, 1500, 1520, 1601, 1650], 1600, &[]), [0; 0]);
        // A result, and a word behind it that may stand elsewhere next time.
        assert_eq!(at(1600, &[1601, 1800, 1830], 1600, &[]), [1800]);
    }

    #[test]
    fn where_others_went_another_way_and_where_the_caller_says_is_a_stop() {
        assert_eq!(at(0, &[900, 920], 500, &[]), [500, 900]);
        assert_eq!(at(0, &[900, 920], 890, &[]), [900]);
        assert_eq!(at(0, &[900, 920], 30, &[7, 920]), [7, 920]);
        assert_eq!(at(900, &[900, 920], 0, &[7, 900, 920, 923]), [920]);
    }
}
