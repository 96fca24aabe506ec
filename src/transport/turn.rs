//! An answer as a row of blocks, each of one kind, for the wire formats that speak of items or
//! content blocks: which block a part opens, goes on with or closes. Writes no format itself.

use crate::request::Part;

#[derive(Debug, Clone, PartialEq)]
pub enum Block {
    Text(String),
    Reasoning(String),
    Call {
        id: String,
        name: String,
        arguments: String,
    },
}

/// What happened to the block of that number.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    Opened(usize),
    Grew(usize, String),
    Closed(usize),
}

#[derive(Debug, Default)]
pub struct Turn {
    pub blocks: Vec<Block>,
    /// The last block still grows.
    open: bool,
}

impl Turn {
    pub fn push(&mut self, part: Part) -> Vec<Step> {
        let mut steps = Vec::new();
        let goes_on = self.open
            && matches!(
                (self.blocks.last(), &part),
                (Some(Block::Text(_)), Part::Text(_))
                    | (Some(Block::Reasoning(_)), Part::Reasoning(_))
                    | (Some(Block::Call { .. }), Part::Arguments { .. })
            );
        if !goes_on {
            let block = match &part {
                Part::Text(_) => Block::Text(String::new()),
                Part::Reasoning(_) => Block::Reasoning(String::new()),
                Part::Call { id, name, .. } => Block::Call {
                    id: id.clone(),
                    name: name.clone(),
                    arguments: String::new(),
                },
                // Arguments follow their call.
                Part::Arguments { .. } => return steps,
            };
            steps.extend(self.close());
            self.blocks.push(block);
            self.open = true;
            steps.push(Step::Opened(self.blocks.len() - 1));
        }
        let at = self.blocks.len() - 1;
        if let (
            Block::Text(all) | Block::Reasoning(all) | Block::Call { arguments: all, .. },
            Part::Text(new) | Part::Reasoning(new) | Part::Arguments { text: new, .. },
        ) = (&mut self.blocks[at], part)
        {
            all.push_str(&new);
            steps.push(Step::Grew(at, new));
        }
        steps
    }

    /// Nothing more belongs to the last block.
    pub fn close(&mut self) -> Option<Step> {
        let was_open = std::mem::take(&mut self.open);
        was_open.then(|| Step::Closed(self.blocks.len() - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(index: usize) -> Part {
        Part::Call {
            index,
            id: format!("functions.f:{index}"),
            name: "f".into(),
        }
    }

    fn arguments(index: usize, text: &str) -> Part {
        let text = text.into();
        Part::Arguments { index, text }
    }

    #[test]
    fn parts_of_one_kind_grow_one_block_and_another_kind_closes_it() {
        let mut turn = Turn::default();
        let steps: Vec<Step> = [
            Part::Text("a".into()),
            Part::Text("b".into()),
            call(0),
            arguments(0, "{}"),
            call(1),
        ]
        .into_iter()
        .flat_map(|p| turn.push(p))
        .chain(None)
        .collect();
        let grew = |i, t: &str| Step::Grew(i, t.into());
        assert_eq!(
            steps,
            [
                Step::Opened(0),
                grew(0, "a"),
                grew(0, "b"),
                Step::Closed(0),
                Step::Opened(1),
                grew(1, "{}"),
                Step::Closed(1),
                Step::Opened(2),
            ]
        );
        assert_eq!(turn.close(), Some(Step::Closed(2)));
        assert_eq!(turn.close(), None);
        assert_eq!(turn.blocks.len(), 3);
    }
}
