use super::fixture;
use super::markup;
use super::tokenizer::{Specials, Tokenizer};
use super::tool_calls::*;
use crate::request::{Stop, Token, ToolCall};
use proptest::prelude::*;
use std::sync::LazyLock;

static TINY: LazyLock<Tokenizer> = LazyLock::new(|| fixture::tokenizer("tiny"));

fn calls() -> Expect {
    let markup = markup::of(&TINY, "").expect("Kimi's");
    Expect {
        calls: Some(Calls {
            markup,
            tools: [].into(),
            salt: 0,
        }),
        thinking: false,
    }
}

fn stop(strings: &[&str]) -> Stop {
    Stop {
        strings: strings.iter().map(|s| s.to_string()).collect(),
        ignore_eos: false,
    }
}

fn read(text: &str, stops: &[&str], expect: Expect) -> (WholeReply, ReplyReader, Vec<Delta>) {
    read_tokens(&TINY.encode(text, Specials::Parse), stops, expect)
}

fn read_tokens(
    tokens: &[Token],
    stops: &[&str],
    expect: Expect,
) -> (WholeReply, ReplyReader, Vec<Delta>) {
    let mut reader = ReplyReader::new(&TINY, &stop(stops), expect);
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
    let (whole, reader, deltas) = read(TWO, &[], calls());
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
    let (whole, reader, _) = read_tokens(&tokens, &[], calls());
    assert_eq!(whole.content, TWO);
    assert!(whole.tool_calls.is_empty() && !reader.calls_tools());
}

#[test]
fn without_tools_the_markup_is_dropped_and_its_text_is_content() {
    let expect = Expect::default();
    let (whole, reader, _) = read("a<|tool_call_begin|>b<|tool_call_end|>c", &[], expect);
    assert_eq!(whole.content, "abc");
    assert!(!reader.calls_tools());
}

#[test]
fn a_call_cut_short_is_not_a_finished_call() {
    let cut = r#"<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{"a": "#;
    let (whole, reader, _) = read(cut, &[], calls());
    assert_eq!(whole.tool_calls, [call("functions.f:0", "f", "{\"a\": ")]);
    assert!(!reader.calls_tools());
    let (whole, reader, _) = read("<|tool_call_begin|>functions.f", &[], calls());
    assert_eq!(whole.content, "functions.f");
    assert!(whole.tool_calls.is_empty() && !reader.calls_tools());
}

#[test]
fn a_header_that_names_nothing_is_text() {
    let odd = "<|tool_call_begin|>two words<|tool_call_argument_begin|>{}<|tool_call_end|>";
    let (whole, reader, _) = read(odd, &[], calls());
    assert_eq!(whole.content, "two words{}");
    assert!(whole.tool_calls.is_empty() && !reader.calls_tools());
}

#[test]
fn a_bare_name_gets_kimis_form_of_id() {
    let bare = "<|tool_call_begin|>f<|tool_call_argument_begin|>{}<|tool_call_end|>";
    let (whole, ..) = read(&bare.repeat(2), &[], calls());
    let want = [
        call("functions.f:0", "f", "{}"),
        call("functions.f:1", "f", "{}"),
    ];
    assert_eq!(whole.tool_calls, want);
}

#[test]
fn a_stop_string_ends_content_but_not_arguments() {
    let (whole, reader, _) = read(TWO, &["city", "xx"], calls());
    assert_eq!(whole.tool_calls.len(), 2);
    assert_eq!(reader.stopped(), None);
    let (whole, reader, _) = read(TWO, &["look"], calls());
    assert_eq!(whole.content, "Let me ");
    assert!(whole.tool_calls.is_empty());
    assert_eq!(reader.stopped(), Some(Stopped::By(0)));
}

#[test]
fn thinking_is_kept_apart_where_the_prompt_began_it() {
    let expect = Expect {
        thinking: true,
        ..calls()
    };
    let (whole, ..) = read("hmm<|tool_calls_section_begin|>ok", &[], expect);
    assert_eq!(
        (whole.reasoning.as_str(), whole.content.as_str()),
        ("hmm", "ok")
    );
}

#[test]
fn thinking_ends_at_its_token() {
    let meta = fixture::thinking("tiny");
    let tokenizer = Tokenizer::from_metadata(&meta).expect("a tokenizer");
    let mut reader = ReplyReader::new(&tokenizer, &stop(&[]), calls());
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
        let (whole, reader, deltas) = read_tokens(&tokens, &[], calls());
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
        let split: Vec<Token> = merged.iter().flat_map(|&t| if TINY.is_special(t) {
            vec![t]
        } else {
            // The first 256 ranks of the fixture are the bytes.
            TINY.token_bytes(t).iter().map(|&b| Token::from(b)).collect()
        }).collect();
        let (a, first, _) = read_tokens(&merged, &[&stop], calls());
        let (b, second, _) = read_tokens(&split, &[&stop], calls());
        prop_assert_eq!(a, b);
        prop_assert_eq!(first.stopped(), second.stopped());
    }
}
