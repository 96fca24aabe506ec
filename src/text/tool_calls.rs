//! A model's reply, token by token, to what a client sees: content, reasoning and tool calls. Which
//! markup calls have is `markup`'s. Never fails: what is no call is text, and a call cut short says so.

use std::sync::Arc;

use serde_json::Value;

use super::markup::{CallReader, CallStep, Markup};
use super::tokenizer::Tokenizer;
use super::utf8_stream::TextStream;
use crate::request::{Stop, Token, ToolCall};

/// A step of a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delta {
    Content(String),
    Reasoning(String),
    /// A call begins: the `index`-th of this reply, from 0. Its arguments follow.
    Call {
        index: usize,
        id: String,
        name: String,
    },
    /// More of the arguments of the call begun last.
    Arguments {
        index: usize,
        text: String,
    },
}

/// What a reply may hold beside plain content.
#[derive(Clone, Default)]
pub struct Expect {
    /// Calls are parsed. Without this their markup is dropped and their text is content.
    pub calls: Option<Calls>,
    /// The prompt ended inside `<think>`.
    pub thinking: bool,
}

/// In which form calls come, of which tools.
#[derive(Clone)]
pub struct Calls {
    pub markup: Arc<dyn Markup>,
    pub tools: Arc<[Value]>,
    /// Of the prompt: clients tell the calls of a conversation apart by their ids, and the same
    /// question gets the same answer.
    pub salt: u64,
}

/// What ended a reply before its last token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// The caller's stop string of that index.
    By(usize),
    /// The model spelled the end of its turn out in ordinary tokens.
    Spelled,
}

/// Reads one reply.
pub struct ReplyReader {
    calls: Option<Box<dyn CallReader>>,
    /// The token before was part of a call.
    in_calls: bool,
    think: Option<(Token, Token)>,
    /// Where text that is of no call goes: `None` is content.
    reasoning: Option<TextStream>,
    content: TextStream,
    /// Line breaks at the end of the content so far: before a call they are its markup's.
    held: String,
    /// The caller's, then what spells the end of a turn.
    stops: Vec<String>,
    n_own_stops: usize,
    n_calls: usize,
    stopped: Option<Stopped>,
    /// The call begun last has come to its end.
    is_whole: bool,
}

impl ReplyReader {
    /// The caller's strings end the content; they are not looked for in reasoning or arguments.
    pub fn new(tokenizer: &Tokenizer, stop: &Stop, expect: Expect) -> ReplyReader {
        let begin = tokenizer.special_id("<think>");
        let mut stops = stop.strings.clone();
        if !stop.ignore_eos {
            stops.extend(tokenizer.spelled_ends());
        }
        let mut reader = ReplyReader {
            calls: expect.calls.map(|c| c.markup.reader(c.tools, c.salt)),
            in_calls: false,
            think: begin.zip(tokenizer.special_id("</think>")),
            reasoning: None,
            content: TextStream::new(&stops),
            held: String::new(),
            n_own_stops: stop.strings.len(),
            stops,
            n_calls: 0,
            stopped: None,
            is_whole: false,
        };
        if expect.thinking {
            reader.begin_reasoning();
        }
        reader
    }

    /// What `token` makes certain. After a stop there is nothing more.
    pub fn push(&mut self, tokenizer: &Tokenizer, token: Token) -> Vec<Delta> {
        let mut out = Vec::new();
        if self.stopped.is_some() {
            return out;
        }
        let steps = self.calls.as_mut().and_then(|c| c.push(tokenizer, token));
        let entered = steps.is_some() && !self.in_calls;
        self.in_calls = steps.is_some();
        if entered {
            // A model may call while it thinks: that ends the thought.
            self.end_text(&mut out);
        }
        if let Some(steps) = steps {
            self.take(steps, &mut out);
            return out;
        }
        if let Some((begin, end)) = self.think {
            let inside = self.reasoning.is_some();
            if (token == begin && !inside) || (token == end && inside) {
                self.end_text(&mut out);
                if token == begin {
                    self.begin_reasoning();
                }
                return out;
            }
        }
        if !tokenizer.is_special(token) {
            self.push_text(tokenizer.token_bytes(token), &mut out);
        }
        out
    }

    /// No more tokens will come.
    pub fn finish(&mut self) -> Vec<Delta> {
        let mut out = Vec::new();
        if self.stopped.is_none() {
            let steps = self.calls.as_mut().map(|calls| calls.finish());
            self.take(steps.unwrap_or_default(), &mut out);
            self.end_text(&mut out);
            content(std::mem::take(&mut self.held), &mut out);
        }
        out
    }

    /// What ended the reply, where it was not its last token.
    pub fn stopped(&self) -> Option<Stopped> {
        self.stopped
    }

    /// Whether the reply asks for tools and every call in it is whole: its finish is `tool_calls`.
    pub fn calls_tools(&self) -> bool {
        self.n_calls > 0 && self.is_whole
    }

    fn take(&mut self, steps: Vec<CallStep>, out: &mut Vec<Delta>) {
        for step in steps {
            match step {
                CallStep::Begun { id, name } => {
                    self.held.clear();
                    let index = self.n_calls;
                    self.n_calls += 1;
                    self.is_whole = false;
                    out.push(Delta::Call { index, id, name });
                }
                // They follow their call.
                CallStep::Arguments(text) => out.push(Delta::Arguments {
                    index: self.n_calls.saturating_sub(1),
                    text,
                }),
                CallStep::Whole => self.is_whole = true,
                CallStep::Text(bytes) => {
                    self.push_text(&bytes, out);
                    self.end_text(out);
                }
            }
        }
    }

    fn begin_reasoning(&mut self) {
        let ends = &self.stops[self.n_own_stops..];
        self.reasoning = Some(TextStream::new(ends));
    }

    fn push_text(&mut self, bytes: &[u8], out: &mut Vec<Delta>) {
        if self.stopped.is_some() {
            return;
        }
        if let Some(stream) = &mut self.reasoning {
            let piece = stream.push(bytes);
            self.stopped = piece.stopped.map(|_| Stopped::Spelled);
            reasoning(piece.text, out);
        } else {
            let piece = self.content.push(bytes);
            self.say(piece.text, piece.stopped, out);
        }
    }

    /// What the text held back is certain once markup follows: it ends characters and stop strings.
    fn end_text(&mut self, out: &mut Vec<Delta>) {
        if self.stopped.is_some() {
            return;
        }
        if let Some(mut stream) = self.reasoning.take() {
            reasoning(stream.finish().text, out);
            return;
        }
        let ended = TextStream::new(&self.stops);
        let piece = std::mem::replace(&mut self.content, ended).finish();
        self.say(piece.text, piece.stopped, out);
    }

    fn say(&mut self, text: String, stopped: Option<usize>, out: &mut Vec<Delta>) {
        self.stopped = stopped.map(|at| {
            if at < self.n_own_stops {
                Stopped::By(at)
            } else {
                Stopped::Spelled
            }
        });
        if self.calls.is_none() {
            content(text, out);
            return;
        }
        self.held.push_str(&text);
        let kept = match self.stopped {
            Some(_) => self.held.len(),
            None => self.held.trim_end_matches('\n').len(),
        };
        let rest = self.held.split_off(kept);
        content(std::mem::replace(&mut self.held, rest), out);
    }
}

fn content(text: String, out: &mut Vec<Delta>) {
    if !text.is_empty() {
        out.push(Delta::Content(text));
    }
}

fn reasoning(text: String, out: &mut Vec<Delta>) {
    if !text.is_empty() {
        out.push(Delta::Reasoning(text));
    }
}

/// A reply put together, for clients that do not stream.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct WholeReply {
    pub content: String,
    pub reasoning: String,
    pub tool_calls: Vec<ToolCall>,
}

impl WholeReply {
    pub fn add(&mut self, delta: Delta) {
        match delta {
            Delta::Content(text) => self.content += &text,
            Delta::Reasoning(text) => self.reasoning += &text,
            Delta::Call { id, name, .. } => self.tool_calls.push(ToolCall {
                id,
                name,
                arguments: String::new(),
            }),
            Delta::Arguments { index, text } => {
                if let Some(call) = self.tool_calls.get_mut(index) {
                    call.arguments += &text;
                }
            }
        }
    }
}
