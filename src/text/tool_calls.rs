//! A model's reply, token by token, to what a client sees: content, reasoning and tool calls. Owns
//! Kimi's call markup; recognises it by its tokens only, never by text that spells it. Never fails:
//! what is no call is text, and a call cut short says so.
//!
//! ```text
//! <|tool_calls_section_begin|>
//!   <|tool_call_begin|>functions.NAME:INDEX<|tool_call_argument_begin|>{json}<|tool_call_end|> ...
//! <|tool_calls_section_end|>
//! ```
//!
//! A call's id is `functions.NAME:INDEX`, as the model wrote it: Kimi's template prints ids back into
//! the next prompt, and the model was trained on this form.

use super::tokenizer::Tokenizer;
use super::utf8_stream::TextStream;
use crate::request::{Token, ToolCall};

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

/// The markup's tokens, where the vocabulary has them all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Markup {
    pub section_begin: Token,
    pub section_end: Token,
    pub call_begin: Token,
    pub argument_begin: Token,
    pub call_end: Token,
}

impl Markup {
    pub fn of(tokenizer: &Tokenizer) -> Option<Markup> {
        Some(Markup {
            section_begin: tokenizer.special_id("<|tool_calls_section_begin|>")?,
            section_end: tokenizer.special_id("<|tool_calls_section_end|>")?,
            call_begin: tokenizer.special_id("<|tool_call_begin|>")?,
            argument_begin: tokenizer.special_id("<|tool_call_argument_begin|>")?,
            call_end: tokenizer.special_id("<|tool_call_end|>")?,
        })
    }
}

/// What a reply may hold beside plain content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expect {
    /// Calls are parsed. Without this their markup is dropped and their text is content.
    pub tool_calls: bool,
    /// The prompt ended inside `<think>`.
    pub thinking: bool,
}

/// Reads one reply.
pub struct ReplyReader {
    markup: Option<Markup>,
    think: Option<(Token, Token)>,
    place: Place,
    content: TextStream,
    stops: Vec<String>,
    n_calls: usize,
    stopped: Option<usize>,
    cut_short: bool,
}

enum Place {
    Content,
    Reasoning(TextStream),
    /// Inside the section, between calls.
    Section,
    /// After a call's beginning: its name so far.
    Header(Vec<u8>),
    Arguments(TextStream),
}

impl ReplyReader {
    /// `stops` end the content; they are not looked for in reasoning or arguments.
    pub fn new(tokenizer: &Tokenizer, stops: &[String], expect: Expect) -> ReplyReader {
        let begin = tokenizer.special_id("<think>");
        ReplyReader {
            markup: Markup::of(tokenizer).filter(|_| expect.tool_calls),
            think: begin.zip(tokenizer.special_id("</think>")),
            place: if expect.thinking {
                Place::Reasoning(TextStream::new(&[]))
            } else {
                Place::Content
            },
            content: TextStream::new(stops),
            stops: stops.to_vec(),
            n_calls: 0,
            stopped: None,
            cut_short: false,
        }
    }

    /// What `token` makes certain. After a stop string there is nothing more.
    pub fn push(&mut self, tokenizer: &Tokenizer, token: Token) -> Vec<Delta> {
        let mut out = Vec::new();
        if self.stopped.is_some() {
            return out;
        }
        if let Some(m) = self.markup {
            if token == m.section_begin || token == m.section_end {
                self.leave(&mut out);
                self.place = if token == m.section_begin {
                    Place::Section
                } else {
                    Place::Content
                };
                return out;
            }
            if token == m.call_begin {
                self.leave(&mut out);
                self.place = Place::Header(Vec::new());
                return out;
            }
            if token == m.argument_begin {
                self.begin_arguments(&mut out);
                return out;
            }
            if token == m.call_end {
                let complete = matches!(self.place, Place::Arguments(_));
                self.leave(&mut out);
                if complete {
                    self.cut_short = false;
                }
                self.place = Place::Section;
                return out;
            }
        }
        if let Some((begin, end)) = self.think {
            let inside = matches!(self.place, Place::Reasoning(_));
            let outside = matches!(self.place, Place::Content);
            if (token == begin && outside) || (token == end && inside) {
                self.leave(&mut out);
                self.place = if token == begin {
                    Place::Reasoning(TextStream::new(&[]))
                } else {
                    Place::Content
                };
                return out;
            }
        }
        if !tokenizer.is_special(token) {
            self.push_bytes(tokenizer.token_bytes(token), &mut out);
        }
        out
    }

    /// No more tokens will come.
    pub fn finish(&mut self) -> Vec<Delta> {
        let mut out = Vec::new();
        if self.stopped.is_none() {
            self.leave(&mut out);
            self.place = Place::Content;
            self.flush_content(&mut out);
        }
        out
    }

    /// Index of the stop string that ended the content.
    pub fn stopped(&self) -> Option<usize> {
        self.stopped
    }

    /// Whether the reply asks for tools and every call in it is whole: its finish is `tool_calls`.
    pub fn calls_tools(&self) -> bool {
        self.n_calls > 0 && !self.cut_short
    }

    fn push_bytes(&mut self, bytes: &[u8], out: &mut Vec<Delta>) {
        match &mut self.place {
            Place::Content => {
                let piece = self.content.push(bytes);
                self.stopped = piece.stopped;
                content(piece.text, out);
            }
            // Models put line breaks between calls; other words there are words.
            Place::Section if bytes.iter().all(u8::is_ascii_whitespace) => {}
            Place::Section => {
                self.place = Place::Content;
                self.push_bytes(bytes, out);
            }
            Place::Reasoning(stream) => reasoning(stream.push(bytes).text, out),
            Place::Header(name) => name.extend_from_slice(bytes),
            Place::Arguments(stream) => {
                let text = stream.push(bytes).text;
                arguments(self.n_calls - 1, text, out);
            }
        }
    }

    /// Ends what is being read, whatever it is: a header without arguments is text, and arguments
    /// without an end are a call cut short.
    fn leave(&mut self, out: &mut Vec<Delta>) {
        match std::mem::replace(&mut self.place, Place::Content) {
            Place::Content => self.flush_content(out),
            Place::Section => {}
            Place::Reasoning(mut stream) => reasoning(stream.finish().text, out),
            Place::Header(name) => {
                self.push_bytes(&name, out);
                self.flush_content(out);
            }
            Place::Arguments(mut stream) => {
                arguments(self.n_calls - 1, stream.finish().text, out);
                self.cut_short = true;
            }
        }
    }

    /// What content held back is certain once markup follows: it ends characters and stop strings.
    fn flush_content(&mut self, out: &mut Vec<Delta>) {
        if self.stopped.is_none() {
            let piece = self.content.finish();
            self.stopped = piece.stopped;
            content(piece.text, out);
            self.content = TextStream::new(&self.stops);
        }
    }

    fn begin_arguments(&mut self, out: &mut Vec<Delta>) {
        let Place::Header(header) = &self.place else {
            // Markup where no call is: dropped, as any special token.
            return;
        };
        let header = String::from_utf8_lossy(header).trim().to_owned();
        let Some((id, name)) = parse_header(&header, self.n_calls) else {
            self.leave(out);
            return;
        };
        let index = self.n_calls;
        self.n_calls += 1;
        out.push(Delta::Call { index, id, name });
        self.place = Place::Arguments(TextStream::new(&[]));
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

fn arguments(index: usize, text: String, out: &mut Vec<Delta>) {
    if !text.is_empty() {
        out.push(Delta::Arguments { index, text });
    }
}

/// Id and name from `functions.NAME:INDEX`; a bare or unnumbered name gets the rest.
fn parse_header(header: &str, index: usize) -> Option<(String, String)> {
    let name = header.strip_prefix("functions.").unwrap_or(header);
    let number = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    let (name, numbered) = match name.rsplit_once(':') {
        Some((name, n)) if number(n) => (name, true),
        _ => (name, false),
    };
    if name.is_empty() || name.contains(char::is_whitespace) {
        return None;
    }
    let id = if numbered && header.starts_with("functions.") {
        header.to_owned()
    } else {
        format!("functions.{name}:{index}")
    };
    Some((id, name.to_owned()))
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
