//! One answer, put together from the parts that came of it: a row of blocks, each of one kind. The only
//! place where that is done; who writes an answer out as it comes hears which block a part opens, goes on
//! with or closes.

use serde::{Deserialize, Serialize};

use crate::request::{Message, Part, ToolCall};

#[derive(Debug, Clone, PartialEq)]
pub enum Block {
    Text(String),
    Reasoning(String),
    Call(ToolCall),
}

/// What happened to the block of that number.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    Opened(usize),
    Grew(usize, String),
    Closed(usize),
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "Written", into = "Written")]
pub struct Answer {
    blocks: Vec<Block>,
    /// The last block still grows.
    open: bool,
}

/// As it lies on disk: the kinds apart, in the order in which models say them.
#[derive(Serialize, Deserialize)]
struct Written {
    text: String,
    reasoning: String,
    calls: Vec<ToolCall>,
}

impl From<Answer> for Written {
    fn from(answer: Answer) -> Written {
        Written {
            text: answer.text(),
            reasoning: answer.reasoning(),
            calls: answer.calls().cloned().collect(),
        }
    }
}

impl From<Written> for Answer {
    fn from(written: Written) -> Answer {
        let thought = Some(Block::Reasoning(written.reasoning));
        let text = Some(Block::Text(written.text));
        let said = thought.into_iter().chain(text);
        let said = said
            .filter(|block| !matches!(block, Block::Reasoning(t) | Block::Text(t) if t.is_empty()));
        Answer {
            blocks: said
                .chain(written.calls.into_iter().map(Block::Call))
                .collect(),
            open: false,
        }
    }
}

impl Answer {
    pub fn add(&mut self, part: Part) -> Vec<Step> {
        let mut steps = Vec::new();
        let goes_on = self.open
            && matches!(
                (self.blocks.last(), &part),
                (Some(Block::Text(_)), Part::Text(_))
                    | (Some(Block::Reasoning(_)), Part::Reasoning(_))
                    | (Some(Block::Call(_)), Part::Arguments { .. })
            );
        if !goes_on {
            let block = match &part {
                Part::Text(_) => Block::Text(String::new()),
                Part::Reasoning(_) => Block::Reasoning(String::new()),
                Part::Call { id, name, .. } => Block::Call(ToolCall {
                    id: id.clone(),
                    name: name.clone(),
                    arguments: String::new(),
                }),
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
            Block::Text(all) | Block::Reasoning(all) | Block::Call(ToolCall { arguments: all, .. }),
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

    /// What was said after it.
    pub fn append(&mut self, more: Answer) {
        for block in more.blocks {
            match (self.blocks.last_mut(), block) {
                (Some(Block::Text(all)), Block::Text(new))
                | (Some(Block::Reasoning(all)), Block::Reasoning(new)) => all.push_str(&new),
                (_, block) => self.blocks.push(block),
            }
        }
    }

    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    pub fn text(&self) -> String {
        let each = self.blocks.iter().filter_map(|block| match block {
            Block::Text(text) => Some(text.as_str()),
            _ => None,
        });
        each.collect()
    }

    pub fn reasoning(&self) -> String {
        let each = self.blocks.iter().filter_map(|block| match block {
            Block::Reasoning(text) => Some(text.as_str()),
            _ => None,
        });
        each.collect()
    }

    pub fn calls(&self) -> impl Iterator<Item = &ToolCall> {
        self.blocks.iter().filter_map(|block| match block {
            Block::Call(call) => Some(call),
            _ => None,
        })
    }

    /// Nothing that a conversation would repeat.
    pub fn is_empty(&self) -> bool {
        self.calls().next().is_none() && self.text().is_empty()
    }

    /// As a message of the conversation. Whether its reasoning is told to the model again is its
    /// template's affair.
    pub fn message(&self) -> Message {
        Message {
            role: "assistant".into(),
            content: self.text(),
            reasoning: Some(self.reasoning()).filter(|r| !r.is_empty()),
            tool_calls: self.calls().cloned().collect(),
            ..Message::default()
        }
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

    fn of(parts: impl IntoIterator<Item = Part>) -> Answer {
        let mut answer = Answer::default();
        for part in parts {
            answer.add(part);
        }
        answer.close();
        answer
    }

    #[test]
    fn parts_of_one_kind_grow_one_block_and_another_kind_closes_it() {
        let mut answer = Answer::default();
        let steps: Vec<Step> = [
            Part::Text("a".into()),
            Part::Text("b".into()),
            call(0),
            arguments(0, "{}"),
            call(1),
        ]
        .into_iter()
        .flat_map(|p| answer.add(p))
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
        assert_eq!(answer.close(), Some(Step::Closed(2)));
        assert_eq!(answer.close(), None);
        assert_eq!(answer.blocks().len(), 3);
    }

    #[test]
    fn it_comes_back_from_disk_as_it_was_with_its_kinds_apart() {
        let thought = Part::Reasoning("Hm.".into());
        let whole = of([
            thought,
            Part::Text("So.".into()),
            call(0),
            arguments(0, "{}"),
        ]);
        let written = serde_json::to_value(&whole).expect("JSON");
        assert_eq!(written["text"], "So.");
        assert_eq!(written["reasoning"], "Hm.");
        assert_eq!(written["calls"][0]["arguments"], "{}");
        let back: Answer = serde_json::from_value(written).expect("an answer");
        assert_eq!(back, whole);
        let mixed = of([
            call(0),
            Part::Text("a".into()),
            call(1),
            Part::Text("b".into()),
        ]);
        let back = serde_json::to_value(&mixed).and_then(serde_json::from_value::<Answer>);
        assert_eq!(back.expect("an answer").message(), mixed.message());
    }

    #[test]
    fn pieces_of_a_cut_answer_are_the_answer() {
        let mut all = of([Part::Reasoning("Hm".into())]);
        all.append(of([Part::Reasoning(".".into()), Part::Text("S".into())]));
        all.append(of([Part::Text("o.".into())]));
        assert_eq!(
            all,
            of([Part::Reasoning("Hm.".into()), Part::Text("So.".into())])
        );
    }
}
