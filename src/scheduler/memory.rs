//! What a state takes, and what the states of one request may take at most, told before it waits. Pure.

use super::Model;
use crate::request::Refusal;

/// Bytes of a state by its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Of an empty sequence.
    pub fixed: usize,
    pub per_token: usize,
    /// Room for tokens is made for so many at a time.
    pub block: usize,
}

impl Size {
    pub fn new<M: Model>(model: &M) -> Size {
        let fixed = model.state_bytes(0);
        let grown = model.state_bytes(STRETCH).saturating_sub(fixed);
        let per_token = grown.div_ceil(STRETCH);
        let first = model.state_bytes(1).saturating_sub(fixed);
        Size {
            fixed,
            per_token,
            block: first.checked_div(per_token).unwrap_or(1).max(1),
        }
    }

    /// Of one sequence of so many tokens.
    pub fn of(&self, tokens: usize) -> usize {
        let room = tokens.checked_next_multiple_of(self.block);
        let rows = room.unwrap_or(tokens).saturating_mul(self.per_token);
        self.fixed.saturating_add(rows)
    }

    /// Tokens of the longest sequence in so many bytes.
    fn longest(&self, bytes: usize) -> usize {
        let rows = bytes.saturating_sub(self.fixed) / self.per_token.max(1);
        rows - rows % self.block
    }
}

#[derive(Debug, Clone, Copy)]
pub struct Memory {
    pub size: Size,
    /// Answers of one request that grow at once.
    lanes: usize,
    limit: usize,
}

/// A state's growth is measured over so many tokens.
const STRETCH: usize = 1 << 16;

impl Memory {
    pub fn new<M: Model>(model: &M, lanes: usize, limit: usize) -> Memory {
        Memory {
            size: Size::new(model),
            lanes,
            limit,
        }
    }

    /// Rows of a prompt that answers of it have in common: whole blocks.
    fn shared(&self, prompt: usize) -> usize {
        prompt - prompt % self.size.block
    }

    /// A prompt that `n` answers share, and each answer's own state.
    fn bytes(&self, prompt: usize, n: usize, answer: usize) -> usize {
        let shared = self.shared(prompt);
        let own = self.size.of((prompt - shared).saturating_add(answer));
        let rows = shared.saturating_mul(self.size.per_token);
        rows.saturating_add(n.min(self.lanes).saturating_mul(own))
    }

    /// How long each answer may grow: as long as was `asked`, or refused; where nothing was asked,
    /// as far as memory goes, at most `most`.
    pub fn fit(
        &self,
        prompt: usize,
        n: usize,
        asked: Option<usize>,
        most: usize,
    ) -> Result<usize, Refusal> {
        let least = asked.unwrap_or(1).min(most);
        let bytes = self.bytes(prompt, n, least);
        if bytes > self.limit {
            let limit = self.limit;
            return Err(Refusal::TooLarge { bytes, limit });
        }
        if asked.is_some() {
            return Ok(least);
        }
        let shared = self.shared(prompt);
        let rows = shared.saturating_mul(self.size.per_token);
        let each = (self.limit - rows) / n.min(self.lanes).max(1);
        let longest = self.size.longest(each) - (prompt - shared);
        Ok(most.min(longest))
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::Fake;
    use super::*;

    fn memory(limit: usize) -> Memory {
        // 1000 bytes and 10 for each token.
        Memory::new(&Fake::default(), 4, limit)
    }

    #[test]
    fn what_was_asked_fits_to_the_byte_or_is_refused_with_the_figures() {
        let needs = 50 * 10 + 1000 + 20 * 10;
        assert_eq!(memory(needs).fit(50, 1, Some(20), 99), Ok(20));
        let refused = memory(needs - 1).fit(50, 1, Some(20), 99);
        let (bytes, limit) = (needs, needs - 1);
        assert_eq!(refused, Err(Refusal::TooLarge { bytes, limit }));
    }

    #[test]
    fn an_answer_of_no_stated_length_goes_as_far_as_memory_does() {
        assert_eq!(memory(2000).fit(50, 1, None, 9999), Ok(50));
        assert_eq!(memory(2000).fit(50, 1, None, 30), Ok(30));
        assert_eq!(memory(usize::MAX).fit(50, 9, None, 9999), Ok(9999));
        assert!(memory(1400).fit(50, 1, None, 30).is_err());
    }

    #[test]
    fn answers_share_the_prompt_and_no_more_than_the_lanes_count() {
        let needs = 50 * 10 + 4 * (1000 + 20 * 10);
        assert_eq!(memory(needs).fit(50, 100, Some(20), 99), Ok(20));
        assert!(memory(needs - 1).fit(50, 4, Some(20), 99).is_err());
        assert!(memory(needs - 1).fit(50, 3, Some(20), 99).is_ok());
    }

    #[test]
    fn room_is_counted_as_it_is_made_in_whole_blocks() {
        let size = Size {
            fixed: 1000,
            per_token: 10,
            block: 64,
        };
        let of = |limit| Memory {
            size,
            lanes: 4,
            limit,
        };
        // One sequence is what it is told to take, wherever its prompt ends.
        for prompt in [1, 63, 64, 65, 130] {
            let needs = size.of(prompt + 20);
            assert_eq!(of(needs).fit(prompt, 1, Some(20), 99), Ok(20), "{prompt}");
            assert!(of(needs - 1).fit(prompt, 1, Some(20), 99).is_err());
        }
        // Each of three has the block that the prompt ends in, and one more.
        let needs = 64 * 10 + 3 * (1000 + 128 * 10);
        assert_eq!(of(needs).fit(100, 3, Some(60), 99), Ok(60));
        assert!(of(needs - 1).fit(100, 3, Some(60), 99).is_err());
        // As far as that block goes, and not a token further.
        assert_eq!(of(needs).fit(100, 3, None, 999), Ok(92));
        assert_eq!(of(needs + 3 * 640).fit(100, 3, None, 999), Ok(156));
    }

    #[test]
    fn a_prompt_that_is_only_scored_needs_no_answers_bytes() {
        assert_eq!(memory(1500).fit(50, 1, Some(0), 0), Ok(0));
    }
}
