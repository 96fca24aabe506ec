//! Ling's calls.
//!
//! ```text
//! <tool_call>NAME
//! <arg_key>KEY</arg_key>
//! <arg_value>VALUE</arg_value> ...
//! </tool_call>
//! ```
//!
//! Strings stand raw between their tags, whatever is in them; all else is JSON. Which one a value is
//! says the tool's schema. A call begins and ends by its tokens; the tags inside are told by their
//! spelling, since vocabularies need not have a token for each. Blanks between tags mean nothing.

mod formats;
mod grammar;
mod value;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use serde_json::Value;

use super::schemas::{Types, resolved};
use super::{CallReader, CallStep, Markup, arguments};
use crate::request::Token;
use crate::text::tokenizer::Tokenizer;
use value::ValueReader;

const KEY: [&str; 2] = ["<arg_key>", "</arg_key>"];
const VALUE: [&str; 2] = ["<arg_value>", "</arg_value>"];

pub struct Ling {
    begin: Token,
    end: Token,
    /// The inner tags as a grammar writes them: a token where there is one, else text.
    tags: grammar::Tags,
    inner: Vec<Token>,
}

impl Ling {
    /// Other families share the outer tags; a template that has the inner ones is of this one.
    pub fn of(tokenizer: &Tokenizer, template: &str) -> Option<Ling> {
        if !template.contains(KEY[0]) || !template.contains(VALUE[0]) {
            return None;
        }
        let inner = [KEY, VALUE].concat();
        Some(Ling {
            begin: tokenizer.special_id("<tool_call>")?,
            end: tokenizer.special_id("</tool_call>")?,
            tags: grammar::Tags::of(tokenizer),
            inner: inner
                .iter()
                .filter_map(|t| tokenizer.special_id(t))
                .collect(),
        })
    }
}

impl Markup for Ling {
    fn opening(&self) -> Token {
        self.begin
    }

    fn tokens(&self) -> Vec<Token> {
        [&[self.begin, self.end], &self.inner[..]].concat()
    }

    fn grammar(&self, functions: &BTreeMap<&str, Value>, one: bool) -> Result<String, String> {
        grammar::calls([self.begin, self.end], &self.tags, functions, one)
    }

    fn reader(&self, tools: Arc<[Value]>, salt: u64) -> Box<dyn CallReader> {
        Box::new(Reader {
            begin: self.begin,
            end: self.end,
            inner: self.inner.clone(),
            tools,
            place: Place::Outside,
            seen: Vec::new(),
            salt,
            n_calls: 0,
        })
    }
}

struct Reader {
    begin: Token,
    end: Token,
    inner: Vec<Token>,
    tools: Arc<[Value]>,
    place: Place,
    /// Bytes of the call that are not understood yet.
    seen: Vec<u8>,
    salt: u64,
    n_calls: usize,
}

enum Place {
    Outside,
    /// After a call: blanks before the next one are nobody's.
    After,
    Name,
    /// It has no name that a function could have: text, to its end.
    NoCall,
    /// Where the next key may begin, after so many arguments.
    Between(Call),
    Key(Call),
    /// Between a key and its value.
    Before(Call, String),
    Value(Call, ValueReader),
}

/// A call that has begun.
#[derive(Clone)]
struct Call {
    name: String,
    n_arguments: usize,
}

impl CallReader for Reader {
    fn push(&mut self, tokenizer: &Tokenizer, token: Token) -> Option<Vec<CallStep>> {
        let mut out = Vec::new();
        if token == self.begin {
            // One that was not ended but could have been is whole.
            self.leave(&mut out);
            self.place = Place::Name;
            return Some(out);
        }
        let bytes = tokenizer.token_bytes(token);
        match &self.place {
            Place::Outside => return None,
            Place::After if bytes.iter().all(u8::is_ascii_whitespace) => return Some(out),
            Place::After if token == self.end => return Some(out),
            Place::After => {
                self.place = Place::Outside;
                return None;
            }
            _ if token == self.end => {
                self.leave(&mut out);
                self.place = Place::After;
                return Some(out);
            }
            // Other markup is no part of a call.
            _ if tokenizer.is_special(token) && !self.inner.contains(&token) => return Some(out),
            _ => {}
        }
        self.seen.extend_from_slice(bytes);
        while self.advance(&mut out) {}
        Some(out)
    }

    fn finish(&mut self) -> Vec<CallStep> {
        let mut out = Vec::new();
        match std::mem::replace(&mut self.place, Place::Outside) {
            Place::Name | Place::NoCall => {
                out.push(CallStep::Text(std::mem::take(&mut self.seen)));
            }
            Place::Value(_, value) => arguments(value.cut(&self.seen), &mut out),
            _ => {}
        }
        self.seen.clear();
        out
    }
}

impl Reader {
    /// Takes one step through what was seen; false where more must come.
    fn advance(&mut self, out: &mut Vec<CallStep>) -> bool {
        match std::mem::replace(&mut self.place, Place::Outside) {
            Place::Name => match self.name() {
                Some(name) => {
                    self.begin_call(name, out);
                    true
                }
                None => {
                    self.place = Place::Name;
                    false
                }
            },
            Place::NoCall => {
                out.push(CallStep::Text(std::mem::take(&mut self.seen)));
                self.place = Place::NoCall;
                false
            }
            Place::Between(call) => match self.past(KEY[0]) {
                Some(()) => {
                    self.place = Place::Key(call);
                    true
                }
                None => {
                    self.place = Place::Between(call);
                    false
                }
            },
            Place::Key(call) => match self.through(KEY[1]) {
                Some(key) => {
                    let key = String::from_utf8_lossy(&key).trim().to_owned();
                    self.place = Place::Before(call, key);
                    true
                }
                None => {
                    self.place = Place::Key(call);
                    false
                }
            },
            Place::Before(call, key) => match self.past(VALUE[0]) {
                Some(()) => {
                    let types = self.types(&call.name, &key);
                    let comma = if call.n_arguments > 0 { ", " } else { "" };
                    let key = Value::String(key);
                    arguments(format!("{comma}{key}: "), out);
                    self.place = Place::Value(call, ValueReader::of(types));
                    true
                }
                None => {
                    self.place = Place::Before(call, key);
                    false
                }
            },
            Place::Value(mut call, mut value) => match self.through(VALUE[1]) {
                Some(rest) => {
                    arguments(value.end(&rest), out);
                    call.n_arguments += 1;
                    self.place = Place::Between(call);
                    true
                }
                None => {
                    let sure = self.seen.len() - beginning(&self.seen, VALUE[1].as_bytes());
                    let sure: Vec<u8> = self.seen.drain(..sure).collect();
                    arguments(value.push(&sure), out);
                    self.place = Place::Value(call, value);
                    false
                }
            },
            outside @ (Place::Outside | Place::After) => {
                self.place = outside;
                false
            }
        }
    }

    /// A name up to its line's end or the first key, once one of them is there.
    fn name(&mut self) -> Option<String> {
        let blank = self.seen.iter().take_while(|b| b.is_ascii_whitespace());
        let blank = blank.count();
        let key = find(&self.seen, KEY[0].as_bytes());
        let line = find(&self.seen[blank..], b"\n").map(|at| at + blank);
        let end = match (key, line) {
            (Some(key), Some(line)) => key.min(line),
            (one, other) => one.or(other)?,
        };
        let name: Vec<u8> = self.seen.drain(..end).collect();
        Some(String::from_utf8_lossy(&name).trim().to_owned())
    }

    fn begin_call(&mut self, name: String, out: &mut Vec<CallStep>) {
        if name.is_empty() || name.contains(|c: char| c.is_whitespace() || "<>{}\"".contains(c)) {
            out.push(CallStep::Text(name.into_bytes()));
            self.place = Place::NoCall;
            return;
        }
        let mut id = DefaultHasher::new();
        (self.salt, self.n_calls).hash(&mut id);
        let id = format!("call_{:016x}", id.finish());
        self.n_calls += 1;
        out.push(CallStep::Begun {
            id,
            name: name.clone(),
        });
        arguments("{".into(), out);
        self.place = Place::Between(Call {
            name,
            n_arguments: 0,
        });
    }

    /// What was seen before a tag, which goes with it; `None` where it has not come.
    fn through(&mut self, tag: &str) -> Option<Vec<u8>> {
        let at = find(&self.seen, tag.as_bytes())?;
        let before = self.seen[..at].to_vec();
        self.seen.drain(..at + tag.len());
        Some(before)
    }

    /// The same where what came before means nothing; it is forgotten as it comes.
    fn past(&mut self, tag: &str) -> Option<()> {
        let found = self.through(tag).map(drop);
        if found.is_none() {
            let kept = beginning(&self.seen, tag.as_bytes());
            self.seen.drain(..self.seen.len() - kept);
        }
        found
    }

    /// Ends a call where its end came, or the next one's beginning. A value without its tag is
    /// taken as it stands; a key without a value is no argument.
    fn leave(&mut self, out: &mut Vec<CallStep>) {
        let seen = std::mem::take(&mut self.seen);
        match std::mem::replace(&mut self.place, Place::Outside) {
            Place::Outside | Place::After => {}
            Place::NoCall => out.push(CallStep::Text(seen)),
            Place::Name => {
                let name = String::from_utf8_lossy(&seen).trim().to_owned();
                self.begin_call(name, out);
                if let Place::Between(_) = self.place {
                    end_call(out);
                }
            }
            Place::Value(_, mut value) => {
                arguments(value.end(&seen), out);
                end_call(out);
            }
            Place::Between(_) | Place::Key(_) | Place::Before(..) => end_call(out),
        }
        self.place = Place::Outside;
    }

    /// Of a parameter; all where nobody says.
    fn types(&self, function: &str, key: &str) -> Types {
        let named = |tool: &&Value| tool["function"]["name"] == function;
        let Some(tool) = self.tools.iter().find(named) else {
            return Types::ALL;
        };
        let root = &tool["function"]["parameters"];
        let parameters = resolved(root, root);
        let others = &parameters["additionalProperties"];
        Types::of(root, parameters["properties"].get(key).unwrap_or(others))
    }
}

fn end_call(out: &mut Vec<CallStep>) {
    arguments("}".into(), out);
    out.push(CallStep::Whole);
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|w| w == what)
}

/// Length of the longest end of `bytes` that is a proper beginning of `tag`.
fn beginning(bytes: &[u8], tag: &[u8]) -> usize {
    let longest = bytes.len().min(tag.len() - 1);
    let fits = |&n: &usize| bytes[bytes.len() - n..] == tag[..n];
    (1..=longest).rev().find(fits).unwrap_or(0)
}
