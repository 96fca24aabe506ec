//! Everything between a caller's text and the model's numbers.

use std::path::Path;

use deltad::door::chat;
use deltad::request::{Message, Stop, Token, TokenMask, ToolChoice};
use deltad::text::{
    Calls, ChatTemplate, Constraint, Delta, Expect, Grammars, ReplyReader, Specials, Stopped,
    Tokenizer, encode_chat, markup,
};
use ggml_kernels::gguf::GgufFile;
use serde_json::Value;

use super::{Run, jsons, parts};
use crate::dice::Dice;
use crate::fixtures;

pub const WORDS: [&str; 26] = [
    "<|im_end|>",
    "<|im_user|>",
    "<|im_middle|>",
    "[BOS]",
    "[EOS]",
    "[EOT]",
    "<think>",
    "</think>",
    "<|tool_calls_section_begin|>",
    "<|tool_call_begin|>",
    "functions.f:0",
    "<|tool_call_argument_begin|>",
    "<|tool_call_end|>",
    "<|tool_calls_section_end|>",
    "role",
    "content",
    "type",
    "tool_calls",
    "a",
    " ",
    "'s",
    "\u{4f60}\u{597d}",
    "\u{301}",
    "1234567",
    "\u{e9}\u{1f642}",
    "\r\n\t",
];

fn vocabulary(dir: &Path) -> (Tokenizer, ChatTemplate) {
    let file = GgufFile::open(fixtures::tiny(dir)).expect("a model");
    let tokenizer = Tokenizer::from_metadata(file.metadata()).expect("a tokenizer");
    let template = ChatTemplate::from_metadata(file.metadata(), &tokenizer).expect("a template");
    (tokenizer, template)
}

/// Text survives its tokens, and plain text has no special ones.
pub fn tokenizer(dir: &Path) -> Run {
    let (tokenizer, _) = vocabulary(dir);
    let seeds = parts(include_str!("../seeds/texts.txt"));
    Box::new(move |dice| {
        let mut text = (*dice.pick(&seeds)).to_owned();
        for _ in 0..1 + dice.below(8) {
            dice.text(&mut text, &WORDS);
        }
        dice.made(&text);
        for specials in [Specials::Plain, Specials::Parse] {
            let tokens = tokenizer.encode(&text, specials);
            assert_eq!(tokenizer.decode(&tokens), text.as_bytes(), "{text:?}");
            let marked = tokens.iter().any(|&t| tokenizer.is_special(t));
            assert!(!marked || specials == Specials::Parse, "{text:?}");
        }
        let any: Vec<Token> = (0..dice.below(20)).map(|_| dice.next() as Token).collect();
        tokenizer.decode(&any);
    })
}

/// Calls are numbered in order, arguments belong to a call, and nothing is lost of plain content.
pub fn reply(dir: &Path) -> Run {
    let (tokenizer, _) = vocabulary(dir);
    let markup = markup::of(&tokenizer, "");
    let seeds = parts(include_str!("../seeds/texts.txt"));
    Box::new(move |dice| {
        let mut text = (*dice.pick(&seeds)).to_owned();
        for _ in 0..dice.below(10) {
            dice.text(&mut text, &WORDS);
        }
        let mut tokens = tokenizer.encode(&text, Specials::Parse);
        for _ in 0..dice.below(4) {
            let at = dice.below(tokens.len() + 1);
            tokens.insert(at, dice.below(tokenizer.n_vocab() + 2) as Token);
        }
        dice.made(tokenizer.decode(&tokens));
        let stops: Vec<String> = if dice.one_in(2) {
            Vec::new()
        } else {
            vec![WORDS[dice.below(WORDS.len())].to_owned(), "e".to_owned()]
        };
        let parses = dice.one_in(2);
        let calls = markup.clone().filter(|_| parses).map(|markup| Calls {
            markup,
            tools: [].into(),
            salt: 0,
        });
        let thinking = dice.one_in(4);
        let stop = Stop {
            strings: stops.clone(),
            ignore_eos: false,
        };
        let mut reader = ReplyReader::new(&tokenizer, &stop, Expect { calls, thinking });
        let mut deltas = Vec::new();
        for &token in &tokens {
            deltas.extend(reader.push(&tokenizer, token));
        }
        deltas.extend(reader.finish());
        let mut n_calls = 0;
        let mut content = String::new();
        for delta in deltas {
            match delta {
                Delta::Call { index, id, name } => {
                    assert_eq!(index, n_calls);
                    assert!(!id.is_empty() && !name.is_empty());
                    n_calls += 1;
                }
                Delta::Arguments { index, .. } => assert_eq!(index + 1, n_calls),
                Delta::Content(text) => content += &text,
                Delta::Reasoning(_) => {}
            }
        }
        assert!(n_calls == 0 || parses);
        let own = |stopped| matches!(stopped, Stopped::By(i) if i < stops.len());
        assert!(reader.stopped().is_none_or(own));
        let plain = tokens.iter().all(|&t| !tokenizer.is_special(t));
        if plain && stops.is_empty() && !thinking {
            assert_eq!(content, String::from_utf8_lossy(&tokenizer.decode(&tokens)));
        }
    })
}

fn changed(dice: &mut Dice, seeds: &[Value], words: &[&str]) -> Value {
    let mut value = dice.pick(seeds).clone();
    for _ in 0..1 + dice.below(4) {
        let other = dice.pick(seeds);
        dice.json(&mut value, other, words);
    }
    dice.made(value.to_string());
    value
}

/// Of a body's messages: whatever they say, the prompt has the markup that it has when they say
/// something harmless of the same kind.
pub fn chat(dir: &Path) -> Run {
    let (tokenizer, own) = vocabulary(dir);
    let seeds = jsons(include_str!("../seeds/chats.json"));
    let kimi = include_str!("../../fixtures/templates/kimi-k2.jinja");
    let llama = include_str!("../../fixtures/templates/llama.jinja");
    let load = |source| ChatTemplate::new(source, &tokenizer).expect("a template");
    let templates = [own, load(kimi), load(llama)];
    let harmless = |text: &str| {
        if text.is_empty() {
            String::new()
        } else {
            "x".to_owned()
        }
    };
    Box::new(move |dice| {
        let Ok(asked) = chat::chat(&changed(dice, &seeds, &WORDS)) else {
            return;
        };
        let deltad::request::Prompt::Chat {
            messages, tools, ..
        } = &asked.requests[0].prompt
        else {
            panic!("a chat is a chat");
        };
        let template = dice.pick(&templates);
        let Ok(prompt) = template.render(messages, tools, true) else {
            return;
        };
        let tokens = encode_chat(&tokenizer, &prompt);
        assert_eq!(tokenizer.decode(&tokens), prompt.to_text().as_bytes());
        let tame: Vec<Message> = messages
            .iter()
            .cloned()
            .map(|mut m| {
                m.content = harmless(m.content.trim());
                m
            })
            .collect();
        // A template may look into words, as the fixtures' do not.
        let Ok(prompt) = template.render(&tame, tools, true) else {
            return;
        };
        let marks = |tokens: &[Token]| tokens.iter().filter(|&&t| tokenizer.is_special(t)).count();
        assert_eq!(
            marks(&tokens),
            marks(&encode_chat(&tokenizer, &prompt)),
            "{messages:?}"
        );
    })
}

/// A template is a program from a stranger: it ends, or is stopped.
pub fn template(dir: &Path) -> Run {
    let (tokenizer, _) = vocabulary(dir);
    let seeds = [
        include_str!("../../fixtures/templates/kimi-k2.jinja"),
        include_str!("../../fixtures/templates/llama.jinja"),
        "{% macro f(x) %}{{ x }}{% endmacro %}{{ f(messages[0]['content']) }}{% set ns = namespace(a=1) %}{{ 'x' * 3 }}",
    ];
    const JINJA: [&str; 34] = [
        "{%",
        "%}",
        "{{",
        "}}",
        "{#",
        "-",
        "(",
        "[",
        "{% for m in messages %}",
        "{% endfor %}",
        "{% if ",
        "{% endif %}",
        "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}",
        "{% set x = ",
        "messages",
        "range(1000000000)",
        "'x' * 1000000000",
        "[0] * 1000000000",
        "|tojson",
        "|trim",
        "|join",
        "|list",
        "|replace('', 'xxxxxxxx')",
        ".split()",
        "~",
        "**",
        "9999999999",
        "strftime_now('%Y%q')",
        "{% generation %}",
        "{% filter upper %}",
        "{% call f() %}",
        "|string * 99999999",
        "|batch(1)|list",
        "{% set x = x ~ x %}",
    ];
    let content = "hello";
    let messages = [Message {
        role: "user".into(),
        content: content.into(),
        ..Message::default()
    }];
    Box::new(move |dice| {
        let mut source = (*dice.pick(&seeds)).to_owned();
        for _ in 0..1 + dice.below(6) {
            dice.text(&mut source, &JINJA);
        }
        dice.made(&source);
        if let Ok(template) = ChatTemplate::new(&source, &tokenizer)
            && let Ok(prompt) = template.render(&messages, &[], true)
        {
            encode_chat(&tokenizer, &prompt);
        }
    })
}

/// Whatever grammar is taken: there is always a token to go on with, none that was allowed is
/// refused, and what ends is JSON.
pub fn schema(dir: &Path) -> Run {
    let (tokenizer, _) = vocabulary(dir);
    let grammars = Grammars::new(&tokenizer, markup::of(&tokenizer, "")).expect("grammars");
    let schemas = jsons(include_str!("../seeds/schemas.json"));
    let bodies = jsons(include_str!("../seeds/chats.json"));
    const KEYWORDS: [&str; 24] = [
        "type",
        "object",
        "array",
        "string",
        "integer",
        "number",
        "properties",
        "required",
        "items",
        "enum",
        "const",
        "anyOf",
        "allOf",
        "oneOf",
        "$ref",
        "#/$defs/a",
        "#",
        "pattern",
        "(a+)+$",
        "minLength",
        "maxItems",
        "minimum",
        "additionalProperties",
        "format",
    ];
    Box::new(move |dice| {
        let (constraint, wants_json) = if dice.one_in(3) {
            let Ok(asked) = chat::chat(&changed(dice, &bodies, &KEYWORDS)) else {
                return;
            };
            let deltad::request::Prompt::Chat { tools, .. } = &asked.requests[0].prompt else {
                panic!("a chat is a chat");
            };
            (
                grammars.tool_calls(tools, &ToolChoice::Required, dice.one_in(2)),
                false,
            )
        } else {
            (
                grammars.json_schema(&changed(dice, &schemas, &KEYWORDS)),
                true,
            )
        };
        if let Ok(constraint) = constraint {
            follow(dice, &tokenizer, constraint, wants_json);
        }
    })
}

fn follow(dice: &mut Dice, tokenizer: &Tokenizer, mut constraint: Constraint, wants_json: bool) {
    let mut reply = Vec::new();
    for _ in 0..40 {
        // A grammar may grow beyond the limits that are set for it: an error, no more.
        let Ok(mask) = constraint.mask() else {
            return;
        };
        let allowed: Vec<Token> = mask.iter().flat_map(TokenMask::tokens).collect();
        assert!(
            !allowed.is_empty(),
            "nothing can follow {:?}",
            String::from_utf8_lossy(&tokenizer.decode(&reply))
        );
        let ends = allowed.iter().find(|&&t| tokenizer.is_end(t));
        let token = ends.copied().unwrap_or_else(|| *dice.pick(&allowed));
        if constraint.accept(token).is_err() {
            return;
        }
        if tokenizer.is_end(token) {
            let text = tokenizer.decode(&reply);
            assert!(
                !wants_json || super::is_json(&text),
                "{:?}",
                String::from_utf8_lossy(&text)
            );
            return;
        }
        reply.push(token);
    }
}
