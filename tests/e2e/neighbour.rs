//! What llama.cpp tests of the OpenAI and Anthropic surface in its own server, as cases of ours: facts
//! about ids, counts, streams, refusals. `docs/http.md` says where the two differ, and why.

use serde_json::{Value, json};

use super::daemon::{Daemon, demo, exchange, start, start_with};

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";
const RESPONSES: &str = "/v1/responses";
const MESSAGES: &str = "/v1/messages";

fn post(daemon: &Daemon, path: &str, body: &Value) -> Value {
    let (status, answer) = daemon.post(path, body);
    assert_eq!(status, 200, "{body}: {answer}");
    answer
}

fn refusal(daemon: &Daemon, path: &str, body: &Value) -> Value {
    let (status, answer) = daemon.post(path, body);
    assert_eq!(status, 400, "{body}: {answer}");
    answer["error"].clone()
}

/// The `data:` lines of a stream that are JSON.
fn stream(daemon: &Daemon, path: &str, body: &Value) -> Vec<Value> {
    let mut body = body.clone();
    body["stream"] = json!(true);
    let (status, text) = exchange(daemon.connect(), "POST", path, &body.to_string());
    assert_eq!(status, 200, "{text}");
    let data = text.lines().filter_map(|l| l.strip_prefix("data: "));
    data.filter_map(|d| serde_json::from_str(d).ok()).collect()
}

fn book() -> Value {
    json!({"max_tokens": 8, "temperature": 0, "ignore_eos": true, "messages": [
        {"role": "system", "content": "Book"},
        {"role": "user", "content": "What is the best book"}]})
}

fn with(mut body: Value, more: Value) -> Value {
    for (name, value) in more.as_object().expect("fields") {
        body[name] = value.clone();
    }
    body
}

fn joined<'a>(texts: impl Iterator<Item = &'a Value>) -> String {
    texts.filter_map(Value::as_str).collect()
}

fn of<'a>(events: &'a [Value], kind: &str) -> Vec<&'a Value> {
    events.iter().filter(|e| e["type"] == kind).collect()
}

#[test]
fn a_chat_has_an_id_a_role_and_counts_and_parts_are_one_text() {
    let daemon = start("");
    let answer = post(&daemon, CHAT, &book());
    assert!(answer["id"].as_str().is_some_and(|id| id.contains("cmpl")));
    let choice = &answer["choices"][0];
    assert_eq!(choice["message"]["role"], "assistant");
    assert_eq!(choice["finish_reason"], "length");
    assert_eq!(answer["usage"]["completion_tokens"], 8);
    let mut parts = book();
    parts["messages"][1]["content"] = json!([{"type": "text", "text": "What is "},
        {"type": "text", "text": "the best book"}]);
    let same = post(&daemon, CHAT, &parts);
    assert_eq!(same["choices"], answer["choices"]);
    let prompt = |answer: &Value| answer["usage"]["prompt_tokens"].clone();
    assert_eq!(prompt(&same), prompt(&answer));
    let two = post(&daemon, CHAT, &with(book(), json!({"n": 2})));
    let two = two["choices"].as_array().expect("choices");
    assert_eq!(two.len(), 2);
    assert!(two.iter().all(|c| c["message"] == choice["message"]));
    let (timings, usage) = (&answer["timings"], &answer["usage"]);
    let cached = &usage["prompt_tokens_details"]["cached_tokens"];
    assert_eq!(&timings["cache_n"], cached);
    let read = timings["prompt_n"]
        .as_u64()
        .zip(cached.as_u64())
        .map(|(n, kept)| n + kept);
    assert_eq!(read, usage["prompt_tokens"].as_u64());
    assert_eq!(timings["predicted_n"], usage["completion_tokens"]);
    assert!(timings["prompt_ms"].as_f64() > Some(0.0), "{timings}");
    assert!(timings["predicted_ms"].as_f64() > Some(0.0), "{timings}");
    let (_, models) = daemon.get("/v1/models");
    assert_eq!(models["data"].as_array().map(Vec::len), Some(1));
}

#[test]
fn a_streamed_chat_has_one_id_one_role_and_an_end_without_content() {
    let daemon = start("");
    let whole = post(&daemon, CHAT, &book());
    let options = json!({"stream_options": {"include_usage": true}});
    let chunks = stream(&daemon, CHAT, &with(book(), options));
    assert!(chunks.iter().all(|c| c["id"] == chunks[0]["id"]));
    let (usage, chunks) = chunks.split_last().expect("chunks");
    assert_eq!(usage["choices"], json!([]));
    assert!(
        usage["timings"]["prompt_ms"].as_f64() > Some(0.0),
        "{usage}"
    );
    let (told, counted) = (&usage["usage"], &whole["usage"]);
    assert_eq!(told["prompt_tokens"], counted["prompt_tokens"]);
    assert_eq!(told["completion_tokens"], 8);
    let choices: Vec<&Value> = chunks.iter().map(|c| &c["choices"][0]).collect();
    assert_eq!(choices[0]["delta"]["role"], "assistant");
    let later = &choices[1..];
    assert!(later.iter().all(|c| c["delta"].get("role").is_none()));
    let (end, before) = choices.split_last().expect("choices");
    assert_eq!(end["finish_reason"], "length");
    assert!(end["delta"].get("content").is_none());
    assert!(before.iter().all(|c| c["finish_reason"].is_null()));
    let text = joined(before.iter().map(|c| &c["delta"]["content"]));
    assert_eq!(whole["choices"][0]["message"]["content"], json!(text));
}

#[test]
fn messages_that_are_none_are_refused() {
    let daemon = start("");
    for messages in [
        json!(null),
        json!("string"),
        json!([123]),
        json!([{}]),
        json!([{"role": 123}]),
        json!([{"role": "system", "content": 123}]),
        json!([{"role": "system", "content": "test"}, {}]),
    ] {
        refusal(&daemon, CHAT, &json!({"messages": messages}));
    }
}

#[test]
fn an_answer_has_the_form_that_was_asked_for_or_the_form_is_refused() {
    let daemon = start("");
    let asked = |format: Value| {
        let more = json!({"response_format": format, "max_tokens": 60, "ignore_eos": false,
            "temperature": 1, "seed": 1});
        with(book(), more)
    };
    let said = |format: Value| {
        let answer = post(&daemon, CHAT, &asked(format));
        answer["choices"][0]["message"]["content"].clone()
    };
    let schema = json!({"type": "json_object", "schema": {"const": "42"}});
    assert_eq!(said(schema), "\"42\"");
    let schema = json!({"type": "json_schema", "json_schema": {"schema": {"const": "foooooo"}}});
    assert_eq!(said(schema), "\"foooooo\"");
    let free = said(json!({"type": "json_object"}));
    assert!(free.as_str().is_some_and(|t| t.starts_with('{')), "{free}");
    for format in [
        json!({"type": "sound"}),
        json!({"type": "json_object", "schema": 123}),
        json!({"type": "json_object", "schema": {"type": 123}}),
        json!({"type": "json_object", "schema": {"type": "hiccup"}}),
    ] {
        refusal(&daemon, CHAT, &asked(format));
    }
    for (name, value) in [
        ("grammar", json!("root ::= \"a\"")),
        ("json_schema", json!({"const": "42"})),
    ] {
        let mut body = book();
        body[name] = value;
        assert_eq!(refusal(&daemon, CHAT, &body)["param"], name);
    }
    let respond = |format: Value| json!({"input": "Write an example", "max_output_tokens": 60, "text": {"format": format}});
    let schema = json!({"type": "json_schema", "name": "test", "schema": {"const": "foooooo"}});
    let answer = post(&daemon, RESPONSES, &respond(schema));
    assert_eq!(answer["output"][0]["content"][0]["text"], "\"foooooo\"");
    post(&daemon, RESPONSES, &respond(json!({"type": "text"})));
    let without = json!({"type": "json_schema", "name": "test"});
    refusal(&daemon, RESPONSES, &respond(without));
}

#[test]
fn scored_tokens_are_the_text_and_barred_ones_do_not_come() {
    // A trained one: what a random model says is half markup, which is scored and not shown.
    let daemon = start_with(&demo("model"), "q4_k_m", "");
    let more = json!({"logprobs": true, "top_logprobs": 10, "max_tokens": 2, "ignore_eos": false});
    let asked = with(book(), more);
    let whole = post(&daemon, CHAT, &asked);
    let choice = &whole["choices"][0];
    let scores = choice["logprobs"]["content"].as_array().expect("scores");
    let mut bytes = Vec::new();
    for score in scores {
        assert!(score["logprob"].as_f64() <= Some(0.0));
        let top = score["top_logprobs"].as_array();
        assert_eq!(top.map(Vec::len), Some(10));
        let own = score["bytes"].as_array().expect("bytes");
        bytes.extend(own.iter().map(|b| b.as_u64().expect("a byte") as u8));
    }
    let text = String::from_utf8_lossy(&bytes);
    assert_eq!(choice["message"]["content"], json!(text));
    let chunks = stream(&daemon, CHAT, &asked);
    let told = chunks
        .iter()
        .map(|c| &c["choices"][0]["logprobs"]["content"]);
    let told = told.filter_map(Value::as_array).flatten();
    assert!(told.eq(scores));
    // The first token of the answer cannot come again.
    let first = &scores[0]["top_logprobs"][0];
    let content = json!({"content": first["token"]});
    let ids = post(&daemon, "/tokenize", &content)["tokens"].clone();
    let barred = json!({"logit_bias": {ids[0].to_string(): -100}});
    let other = post(&daemon, CHAT, &with(asked, barred));
    let other = &other["choices"][0]["logprobs"]["content"][0];
    assert_ne!(other["bytes"], scores[0]["bytes"]);
}

#[test]
fn a_prompt_beyond_the_context_is_refused_streamed_or_not() {
    let daemon = start("context = 256\n");
    let message = json!({"role": "user", "content": "What is the best book"});
    let many: Vec<&Value> = std::iter::repeat_n(&message, 400).collect();
    for streamed in [false, true] {
        let body = json!({"messages": many, "stream": streamed});
        let error = refusal(&daemon, CHAT, &body);
        assert_eq!(error["code"], "context_length_exceeded");
    }
    let long = json!({"prompt": "I believe the meaning of life is".repeat(400)});
    let error = refusal(&daemon, COMPLETIONS, &long);
    assert_eq!(error["code"], "context_length_exceeded");
}

#[test]
fn a_completion_is_one_thing_streamed_whole_seeded_and_as_tokens() {
    let daemon = start("");
    let life = "I believe the meaning of life is";
    let body = json!({"prompt": life, "max_tokens": 8, "temperature": 0, "ignore_eos": true});
    let text = |body: &Value| post(&daemon, COMPLETIONS, body)["choices"][0]["text"].clone();
    let whole = text(&body);
    let chunks = stream(&daemon, COMPLETIONS, &body);
    let streamed = joined(chunks.iter().map(|c| &c["choices"][0]["text"]));
    assert_eq!(whole, json!(streamed));
    let warm = |seed: u64| with(body.clone(), json!({"temperature": 1, "seed": seed}));
    assert_eq!(text(&warm(42)), text(&warm(42)));
    let others = (0..4).map(|seed| text(&warm(seed)).to_string());
    let others: std::collections::BTreeSet<String> = others.collect();
    assert_eq!(others.len(), 4);
    let ids = json!({"content": life, "add_special": true});
    let ids = post(&daemon, "/tokenize", &ids)["tokens"].clone();
    assert_eq!(text(&with(body.clone(), json!({"prompt": ids}))), whole);
    for prompts in [json!([ids, ids]), json!([ids, life]), json!([life, life])] {
        let several = with(body.clone(), json!({"prompt": prompts}));
        let answer = post(&daemon, COMPLETIONS, &several);
        let choices = answer["choices"].as_array().expect("choices");
        assert_eq!(choices.len(), 2);
        assert!(choices.iter().all(|c| c["text"] == whole), "{answer}");
    }
    refusal(&daemon, COMPLETIONS, &json!({"prompt": [1, 2, life, 3]}));
}

#[test]
fn the_items_of_a_streamed_response_keep_their_ids() {
    let daemon = start("");
    let body = json!({"input": book()["messages"], "max_output_tokens": 8, "temperature": 0});
    let whole = post(&daemon, RESPONSES, &body);
    let begins = |id: &Value, with: &str| id.as_str().is_some_and(|id| id.starts_with(with));
    let item = &whole["output"][0];
    assert!(begins(&whole["id"], "resp_") && begins(&item["id"], "msg_"));
    let events = stream(&daemon, RESPONSES, &body);
    let response = &events[0]["response"]["id"];
    let added = of(&events, "response.output_item.added");
    let id = &added[0]["item"]["id"];
    for event in &events {
        let is = |got: &Value, wanted: &Value| got.is_null() || got == wanted;
        assert!(is(&event["response"]["id"], response), "{event}");
        assert!(
            is(&event["item_id"], id) && is(&event["item"]["id"], id),
            "{event}"
        );
    }
    let deltas = of(&events, "response.output_text.delta");
    let text = json!(joined(deltas.iter().map(|e| &e["delta"])));
    assert_eq!(text, item["content"][0]["text"]);
    let last = events.last().expect("events");
    assert_eq!(last["response"]["output"][0]["content"][0]["text"], text);
}

fn hello(more: Value) -> Value {
    let hello = json!([{"role": "user", "content": "Say hello"}]);
    with(json!({"max_tokens": 30, "messages": hello}), more)
}

#[test]
fn a_message_has_blocks_a_reason_and_counts_of_its_own() {
    let daemon = start("");
    let answer = post(&daemon, MESSAGES, &hello(json!({"model": "test"})));
    assert_eq!(answer["type"], "message");
    assert_eq!(answer["role"], "assistant");
    assert!(answer.get("timings").is_none() && answer.get("object").is_none());
    let reason = answer["stop_reason"].as_str().expect("a reason");
    assert!(["end_turn", "max_tokens"].contains(&reason), "{answer}");
    for count in ["cache_read_input_tokens", "input_tokens", "output_tokens"] {
        assert!(answer["usage"][count].is_u64(), "{answer}");
    }
    for more in [
        json!({"system": "You are a helpful assistant."}),
        json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "What is"},
            {"type": "text", "text": " the answer?"}]}]}),
        json!({"messages": [{"role": "user", "content": "Hello"},
            {"role": "assistant", "content": "Hi there!"},
            {"role": "user", "content": "How are you?"}]}),
        json!({"stop_sequences": ["\n", "END"]}),
        json!({"temperature": 0.5, "top_p": 0.9, "top_k": 40}),
        json!({"metadata": {"user_id": "test_user_123"}}),
    ] {
        assert_eq!(post(&daemon, MESSAGES, &hello(more))["type"], "message");
    }
    for wrong in [
        json!({"messages": null}),
        json!({"messages": []}),
        json!({"thinking": {"type": "enabled", "budget_tokens": 50}}),
        json!({"messages": [{"role": "user", "content": [{"type": "image", "source":
            {"type": "base64", "media_type": "image/png", "data": "AAAA"}}]}]}),
    ] {
        let error = refusal(&daemon, MESSAGES, &hello(wrong));
        assert!(error["message"].is_string());
    }
    let counted = daemon.post("/v1/messages/count_tokens", &hello(json!({})));
    assert_eq!(counted.0, 404);
}

#[test]
fn every_block_of_a_streamed_message_begins_and_ends_in_order() {
    let daemon = start("");
    let tool = json!([{"name": "test_tool", "description": "A test tool", "input_schema":
        {"type": "object", "properties": {"param": {"enum": ["a", "b"]}}, "required": ["param"]}}]);
    let calls = json!({"tools": tool, "tool_choice": {"type": "any"}, "max_tokens": 400});
    for more in [json!({}), calls] {
        let events = stream(&daemon, MESSAGES, &hello(more));
        let start = &of(&events, "message_start")[0]["message"];
        assert_eq!(start["role"], "assistant");
        assert_eq!(start["content"], json!([]));
        assert!(start["usage"]["input_tokens"].as_u64() > Some(0));
        let indices = |kind: &str| {
            let each = of(&events, kind).into_iter().map(|e| e["index"].as_u64());
            each.collect::<Vec<_>>()
        };
        let begun = indices("content_block_start");
        assert!(!begun.is_empty());
        assert!(begun.iter().copied().eq((0..begun.len() as u64).map(Some)));
        assert_eq!(begun, indices("content_block_stop"));
        let delta = of(&events, "message_delta")[0];
        assert!(delta["delta"]["stop_reason"].is_string());
        assert!(delta["usage"]["output_tokens"].as_u64() > Some(0));
        assert_eq!(of(&events, "message_stop").len(), 1);
    }
}

#[test]
fn a_tools_result_comes_back_alone_with_words_or_as_an_error() {
    let daemon = start("");
    let result = json!({"type": "tool_result", "tool_use_id": "test123", "content": "Sunny"});
    let words = json!({"type": "text", "text": "Here are the results:"});
    let failed = with(result.clone(), json!({"is_error": true}));
    for content in [json!([result]), json!([words, result]), json!([failed])] {
        let messages = json!([{"role": "user", "content": "What's the weather?"},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "test123",
                "name": "get_weather", "input": {"location": "Paris"}}]},
            {"role": "user", "content": content}]);
        let answer = post(&daemon, MESSAGES, &hello(json!({"messages": messages})));
        assert_eq!(answer["type"], "message");
    }
}

#[test]
fn text_becomes_tokens_and_comes_back() {
    let daemon = start("");
    for content in ["What is the capital of France ?", "unicode 媽 and emoji 🤗"] {
        let tokens = post(&daemon, "/tokenize", &json!({"content": content}));
        assert!(tokens["tokens"].as_array().is_some_and(|t| t.len() > 5));
        let back = post(&daemon, "/detokenize", &tokens);
        assert_eq!(back["content"], content);
    }
    for own in ["/props", "/slots", "/models", "/completion"] {
        assert_eq!(daemon.get(own).0, 404, "{own}");
    }
}
