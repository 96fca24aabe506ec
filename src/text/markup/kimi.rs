//! Kimi's calls, told by their tokens only, never by text that spells them.
//!
//! ```text
//! <|tool_calls_section_begin|>
//!   <|tool_call_begin|>functions.NAME:INDEX<|tool_call_argument_begin|>{json}<|tool_call_end|> ...
//! <|tool_calls_section_end|>
//! ```
//!
//! A call's id is `functions.NAME:INDEX`, as the model wrote it: Kimi's template prints ids back into
//! the next prompt, and the model was trained on this form.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::{CallReader, CallStep, Markup, arguments};
use crate::request::Token;
use crate::text::constraint::bounded;
use crate::text::tokenizer::Tokenizer;
use crate::text::utf8_stream::TextStream;

/// The markup's tokens.
#[derive(Debug, Clone, Copy)]
pub struct Kimi {
    section_begin: Token,
    section_end: Token,
    call_begin: Token,
    argument_begin: Token,
    call_end: Token,
}

impl Kimi {
    pub fn of(tokenizer: &Tokenizer) -> Option<Kimi> {
        Some(Kimi {
            section_begin: tokenizer.special_id("<|tool_calls_section_begin|>")?,
            section_end: tokenizer.special_id("<|tool_calls_section_end|>")?,
            call_begin: tokenizer.special_id("<|tool_call_begin|>")?,
            argument_begin: tokenizer.special_id("<|tool_call_argument_begin|>")?,
            call_end: tokenizer.special_id("<|tool_call_end|>")?,
        })
    }
}

impl Markup for Kimi {
    fn opening(&self) -> Token {
        self.section_begin
    }

    fn tokens(&self) -> Vec<Token> {
        let Kimi {
            section_begin,
            section_end,
            call_begin,
            argument_begin,
            call_end,
        } = *self;
        vec![
            section_begin,
            section_end,
            call_begin,
            argument_begin,
            call_end,
        ]
    }

    fn grammar(&self, functions: &BTreeMap<&str, Value>, one: bool) -> Result<String, String> {
        let calls = if one { "call" } else { "call+" };
        let mut lark = format!(
            "start: <[{}]> {calls} <[{}]>\n",
            self.section_begin, self.section_end
        );
        let names: Vec<String> = (0..functions.len()).map(|i| format!("call_{i}")).collect();
        lark += &format!("call: {}\n", names.join(" | "));
        for (i, (name, parameters)) in functions.iter().enumerate() {
            lark += &format!(
                "call_{i}: <[{}]> \"functions.{name}:\" INDEX <[{}]> args_{i} <[{}]>\nargs_{i}: %json {}\n",
                self.call_begin,
                self.argument_begin,
                self.call_end,
                bounded(parameters),
            );
        }
        Ok(lark + "INDEX: /0|[1-9][0-9]?/\n")
    }

    fn reader(&self, _: Arc<[Value]>, _: u64) -> Box<dyn CallReader> {
        Box::new(Reader {
            markup: *self,
            place: Place::Outside,
            n_calls: 0,
        })
    }
}

struct Reader {
    markup: Kimi,
    place: Place,
    n_calls: usize,
}

enum Place {
    Outside,
    /// Inside the section, between calls.
    Section,
    /// After a call's beginning: its name so far.
    Header(Vec<u8>),
    Arguments(TextStream),
}

impl CallReader for Reader {
    fn push(&mut self, tokenizer: &Tokenizer, token: Token) -> Option<Vec<CallStep>> {
        let mut out = Vec::new();
        let m = self.markup;
        if token == m.section_begin || token == m.section_end {
            self.leave(&mut out);
            if token == m.section_begin {
                self.place = Place::Section;
            }
            return Some(out);
        }
        if token == m.call_begin {
            self.leave(&mut out);
            self.place = Place::Header(Vec::new());
            return Some(out);
        }
        if token == m.argument_begin {
            self.begin_arguments(&mut out);
            return Some(out);
        }
        if token == m.call_end {
            let is_whole = matches!(self.place, Place::Arguments(_));
            self.leave(&mut out);
            if is_whole {
                out.push(CallStep::Whole);
            }
            self.place = Place::Section;
            return Some(out);
        }
        let bytes = tokenizer.token_bytes(token);
        match &mut self.place {
            Place::Outside => return None,
            _ if tokenizer.is_special(token) => {}
            // Models put line breaks between calls; other words there are words.
            Place::Section if bytes.iter().all(u8::is_ascii_whitespace) => {}
            Place::Section => {
                self.place = Place::Outside;
                return None;
            }
            Place::Header(name) => name.extend_from_slice(bytes),
            Place::Arguments(stream) => arguments(stream.push(bytes).text, &mut out),
        }
        Some(out)
    }

    fn finish(&mut self) -> Vec<CallStep> {
        let mut out = Vec::new();
        self.leave(&mut out);
        out
    }
}

impl Reader {
    /// Ends what is being read, whatever it is: a header without arguments is text, and arguments
    /// without an end are of a call that is not whole.
    fn leave(&mut self, out: &mut Vec<CallStep>) {
        match std::mem::replace(&mut self.place, Place::Outside) {
            Place::Outside | Place::Section => {}
            Place::Header(name) => out.push(CallStep::Text(name)),
            Place::Arguments(mut stream) => arguments(stream.finish().text, out),
        }
    }

    fn begin_arguments(&mut self, out: &mut Vec<CallStep>) {
        let Place::Header(header) = &self.place else {
            // Markup where no call is: dropped, as any special token.
            return;
        };
        let header = String::from_utf8_lossy(header).trim().to_owned();
        let Some((id, name)) = parse_header(&header, self.n_calls) else {
            self.leave(out);
            return;
        };
        self.n_calls += 1;
        out.push(CallStep::Begun { id, name });
        self.place = Place::Arguments(TextStream::new(&[]));
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
