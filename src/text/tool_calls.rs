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
            place: match expect.thinking {
                true => Place::Reasoning(TextStream::new(&[])),
                false => Place::Content,
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
                self.place = match token == m.section_begin {
                    true => Place::Section,
                    false => Place::Content,
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
                self.place = match token == begin {
                    true => Place::Reasoning(TextStream::new(&[])),
                    false => Place::Content,
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
    let id = match numbered && header.starts_with("functions.") {
        true => header.to_owned(),
        false => format!("functions.{name}:{index}"),
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

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::super::tokenizer::Specials;
    use super::*;
    use proptest::prelude::*;
    use std::sync::LazyLock;

    static TINY: LazyLock<Tokenizer> = LazyLock::new(|| fixture::tokenizer("tiny"));
    const CALLS: Expect = Expect {
        tool_calls: true,
        thinking: false,
    };

    fn read(text: &str, stops: &[&str], expect: Expect) -> (WholeReply, ReplyReader, Vec<Delta>) {
        read_tokens(&TINY.encode(text, Specials::Parse), stops, expect)
    }

    fn read_tokens(
        tokens: &[Token],
        stops: &[&str],
        expect: Expect,
    ) -> (WholeReply, ReplyReader, Vec<Delta>) {
        let stops: Vec<String> = stops.iter().map(|s| s.to_string()).collect();
        let mut reader = ReplyReader::new(&TINY, &stops, expect);
        let mut deltas: Vec<Delta> = tokens.iter().flat_map(|&t| reader.push(&TINY, t)).collect();
        deltas.extend(reader.finish());
        let mut whole = WholeReply::default();
        deltas.iter().cloned().for_each(|d| whole.add(d));
        (whole, reader, deltas)
    }

    fn call(id: &str, name: &str, arguments: &str) -> ToolCall {
        ToolCall {
            id: id.into(),
            name: name.into(),
            arguments: arguments.into(),
        }
    }

    const TWO: &str = concat!(
        "Let me look. <|tool_calls_section_begin|>",
        r#"<|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>{"city": "Zürich 🙂"}<|tool_call_end|>"#,
        "\n",
        r#"<|tool_call_begin|>functions.get_time:1<|tool_call_argument_begin|>{}<|tool_call_end|>"#,
        "<|tool_calls_section_end|><|im_end|>",
    );

    #[test]
    fn parallel_calls_are_parsed_and_their_arguments_streamed() {
        let (whole, reader, deltas) = read(TWO, &[], CALLS);
        assert_eq!(whole.content, "Let me look. ");
        assert_eq!(
            whole.tool_calls,
            [
                call(
                    "functions.get_weather:0",
                    "get_weather",
                    r#"{"city": "Zürich 🙂"}"#
                ),
                call("functions.get_time:1", "get_time", "{}"),
            ]
        );
        assert!(reader.calls_tools());
        let pieces = deltas
            .iter()
            .filter(|d| matches!(d, Delta::Arguments { index: 0, .. }));
        assert!(pieces.count() > 3, "{deltas:?}");
    }

    #[test]
    fn text_that_spells_the_markup_is_text() {
        let tokens = TINY.encode(TWO, Specials::Plain);
        let (whole, reader, _) = read_tokens(&tokens, &[], CALLS);
        assert_eq!(whole.content, TWO);
        assert!(whole.tool_calls.is_empty() && !reader.calls_tools());
    }

    #[test]
    fn without_tools_the_markup_is_dropped_and_its_text_is_content() {
        let expect = Expect {
            tool_calls: false,
            ..CALLS
        };
        let (whole, reader, _) = read("a<|tool_call_begin|>b<|tool_call_end|>c", &[], expect);
        assert_eq!(whole.content, "abc");
        assert!(!reader.calls_tools());
    }

    #[test]
    fn a_call_cut_short_is_not_a_finished_call() {
        let cut = r#"<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{"a": "#;
        let (whole, reader, _) = read(cut, &[], CALLS);
        assert_eq!(whole.tool_calls, [call("functions.f:0", "f", "{\"a\": ")]);
        assert!(!reader.calls_tools());
        let (whole, reader, _) = read("<|tool_call_begin|>functions.f", &[], CALLS);
        assert_eq!(whole.content, "functions.f");
        assert!(whole.tool_calls.is_empty() && !reader.calls_tools());
    }

    #[test]
    fn a_header_that_names_nothing_is_text() {
        let odd = "<|tool_call_begin|>two words<|tool_call_argument_begin|>{}<|tool_call_end|>";
        let (whole, reader, _) = read(odd, &[], CALLS);
        assert_eq!(whole.content, "two words{}");
        assert!(whole.tool_calls.is_empty() && !reader.calls_tools());
    }

    #[test]
    fn a_bare_name_gets_kimis_form_of_id() {
        let bare = "<|tool_call_begin|>f<|tool_call_argument_begin|>{}<|tool_call_end|>";
        let (whole, ..) = read(&bare.repeat(2), &[], CALLS);
        let want = [
            call("functions.f:0", "f", "{}"),
            call("functions.f:1", "f", "{}"),
        ];
        assert_eq!(whole.tool_calls, want);
    }

    #[test]
    fn a_stop_string_ends_content_but_not_arguments() {
        let (whole, reader, _) = read(TWO, &["city", "xx"], CALLS);
        assert_eq!(whole.tool_calls.len(), 2);
        assert_eq!(reader.stopped(), None);
        let (whole, reader, _) = read(TWO, &["look"], CALLS);
        assert_eq!(whole.content, "Let me ");
        assert!(whole.tool_calls.is_empty());
        assert_eq!(reader.stopped(), Some(0));
    }

    #[test]
    fn thinking_is_kept_apart_where_the_prompt_began_it() {
        let expect = Expect {
            tool_calls: true,
            thinking: true,
        };
        let (whole, ..) = read("hmm<|tool_calls_section_begin|>ok", &[], expect);
        assert_eq!(
            (whole.reasoning.as_str(), whole.content.as_str()),
            ("hmm", "ok")
        );
    }

    #[test]
    fn thinking_ends_at_its_token() {
        let mut meta = fixture::metadata("tiny");
        let key = "tokenizer.ggml.tokens";
        let mut tokens = meta.strs(key).expect("tokens").to_vec();
        tokens[515] = "<think>".into();
        tokens[518] = "</think>".into();
        let tokens = ggml_kernels::gguf::Array::Str(tokens);
        meta.map
            .insert(key.into(), ggml_kernels::gguf::Value::Array(tokens));
        let tokenizer = Tokenizer::from_metadata(&meta).expect("a tokenizer");
        let mut reader = ReplyReader::new(&tokenizer, &[], CALLS);
        let mut whole = WholeReply::default();
        for token in tokenizer.encode("<think>a plan</think>an answer", Specials::Parse) {
            reader
                .push(&tokenizer, token)
                .into_iter()
                .for_each(|d| whole.add(d));
        }
        reader.finish().into_iter().for_each(|d| whole.add(d));
        assert_eq!(
            (whole.reasoning.as_str(), whole.content.as_str()),
            ("a plan", "an answer")
        );
    }

    proptest! {
        /// Markup in any order, text and bytes between: nothing panics, and no text is lost.
        #[test]
        fn any_tokens_are_read(tokens in prop::collection::vec(prop_oneof![0u32..510, 510u32..532, any::<u32>()], 0..60)) {
            let (whole, reader, deltas) = read_tokens(&tokens, &[], CALLS);
            prop_assert!(!reader.calls_tools() || !whole.tool_calls.is_empty());
            let begun = deltas.iter().filter(|d| matches!(d, Delta::Call { .. })).count();
            prop_assert_eq!(begun, whole.tool_calls.len());
            let plain: Vec<Token> = tokens.into_iter().filter(|&t| !TINY.is_special(t)).collect();
            if begun == 0 {
                // Blanks between calls may go, all else is content.
                let strip = |s: &str| s.chars().filter(|c| !c.is_whitespace() && *c != '\u{fffd}').count();
                let want = String::from_utf8_lossy(&TINY.decode(&plain)).into_owned();
                prop_assert!(strip(&whole.content) <= strip(&want));
            }
        }

        /// The same text cut into other tokens is the same reply.
        #[test]
        fn how_a_reply_is_cut_into_tokens_changes_nothing(stop in "[ o{}]{0,2}") {
            let merged = TINY.encode(TWO, Specials::Parse);
            let split: Vec<Token> = merged.iter().flat_map(|&t| match TINY.is_special(t) {
                true => vec![t],
                // The first 256 ranks of the fixture are the bytes.
                false => TINY.token_bytes(t).iter().map(|&b| Token::from(b)).collect(),
            }).collect();
            let (a, first, _) = read_tokens(&merged, &[&stop], CALLS);
            let (b, second, _) = read_tokens(&split, &[&stop], CALLS);
            prop_assert_eq!(a, b);
            prop_assert_eq!(first.stopped(), second.stopped());
        }
    }
}
