//! `/v1/responses` and `/v1/messages`: what they say is what a chat says, in their own form.

use serde_json::{Value, json};

use super::{Fake, POISON, Server, hello, serve, setup};

const RESPONSES: &str = "/v1/responses";
const MESSAGES: &str = "/v1/messages";

impl Server {
    /// The named events of a stream; each says its own name.
    fn events(&self, path: &str, mut body: Value) -> Vec<Value> {
        body["stream"] = json!(true);
        let (status, _, text) = self.exchange("POST", path, &body.to_string());
        assert_eq!(status, 200, "{text}");
        let mut events = Vec::new();
        let mut name = "";
        for line in text.lines() {
            if let Some(found) = line.strip_prefix("event: ") {
                name = found;
            }
            if let Some(data) = line.strip_prefix("data: ") {
                let event: Value = serde_json::from_str(data).expect("JSON");
                assert_eq!(event["type"], name, "{event}");
                events.push(event);
            }
        }
        events
    }
}

fn types(events: &[Value]) -> Vec<&str> {
    events.iter().filter_map(|e| e["type"].as_str()).collect()
}

/// What `hello` is in each of the two, and what a chat says to it.
fn asked(server: &Server) -> (Value, Value, String) {
    let (status, chat) = server.post("/v1/chat/completions", hello());
    assert_eq!(status, 200, "{chat}");
    let said = chat["choices"][0]["message"]["content"].as_str();
    (
        json!({"input": "hello", "max_output_tokens": 6, "temperature": 0}),
        json!({"messages": hello()["messages"], "max_tokens": 6, "temperature": 0}),
        said.expect("text").to_owned(),
    )
}

#[test]
fn a_response_says_what_a_chat_says() {
    let server = serve(setup());
    let (body, _, said) = asked(&server);
    let (status, whole) = server.post(RESPONSES, body.clone());
    assert_eq!(status, 200, "{whole}");
    assert_eq!(whole["object"], "response");
    assert_eq!(whole["output"][0]["role"], "assistant");
    assert_eq!(whole["output"][0]["content"][0]["text"], json!(said));
    // Six tokens were all it might have.
    assert_eq!(whole["status"], "incomplete");
    assert_eq!(whole["incomplete_details"]["reason"], "max_output_tokens");
    assert_eq!(whole["usage"]["output_tokens"], 6);
    let events = server.events(RESPONSES, body);
    let numbers = events.iter().map(|e| e["sequence_number"].as_u64());
    assert!(numbers.eq((0..events.len() as u64).map(Some)));
    let names = types(&events);
    assert_eq!(
        names[..4],
        [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added"
        ]
    );
    assert_eq!(
        names[names.len() - 4..],
        [
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.incomplete"
        ]
    );
    let deltas = events.iter().filter_map(|e| e["delta"].as_str());
    assert_eq!(deltas.collect::<String>(), said);
    let last = &events[events.len() - 1]["response"];
    assert_eq!(last["output"][0]["content"], whole["output"][0]["content"]);
    assert_eq!(last["usage"]["output_tokens"], 6);
}

#[test]
fn a_message_says_what_a_chat_says() {
    let server = serve(setup());
    let (_, body, said) = asked(&server);
    let (status, whole) = server.post(MESSAGES, body.clone());
    assert_eq!(status, 200, "{whole}");
    let kinds = (&whole["type"], &whole["role"]);
    assert_eq!(kinds, (&json!("message"), &json!("assistant")));
    assert_eq!(whole["content"], json!([{"type": "text", "text": said}]));
    assert_eq!(whole["stop_reason"], "max_tokens");
    let usage = &whole["usage"];
    let read = usage["input_tokens"]
        .as_u64()
        .zip(usage["cache_read_input_tokens"].as_u64());
    let n_prompt = read.map(|(new, cached)| new + cached).expect("counts");
    assert_eq!(usage["output_tokens"], 6);
    let events = server.events(MESSAGES, body);
    let names = types(&events);
    assert_eq!(names[..2], ["message_start", "content_block_start"]);
    assert_eq!(
        names[names.len() - 3..],
        ["content_block_stop", "message_delta", "message_stop"]
    );
    assert_eq!(events[0]["message"]["content"], json!([]));
    let begun = &events[0]["message"]["usage"];
    let read = begun["cache_read_input_tokens"].as_u64();
    let new = begun["input_tokens"].as_u64().expect("a count");
    assert_eq!(read.map(|read| read + new), Some(n_prompt));
    let deltas = events.iter().filter_map(|e| e["delta"]["text"].as_str());
    assert_eq!(deltas.collect::<String>(), said);
    let last = &events[names.len() - 2];
    assert_eq!(last["delta"]["stop_reason"], "max_tokens");
    assert_eq!(last["usage"]["output_tokens"], 6);
}

#[test]
fn instructions_and_system_are_the_system_message() {
    let server = serve(setup());
    let messages =
        json!([{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}]);
    let chat = json!({"messages": messages, "max_tokens": 6, "temperature": 0});
    let (_, chat) = server.post("/v1/chat/completions", chat);
    let said = &chat["choices"][0]["message"]["content"];
    let parts =
        json!([{"type": "input_text", "text": "hel"}, {"type": "input_text", "text": "lo"}]);
    for body in [
        json!({"instructions": "be brief", "input": "hello"}),
        json!({"input": messages}),
        json!({"input": [{"role": "developer", "content": "be brief"},
            {"type": "message", "role": "user", "content": parts}]}),
    ] {
        let mut body = body;
        body["max_output_tokens"] = json!(6);
        body["temperature"] = json!(0);
        let (_, response) = server.post(RESPONSES, body.clone());
        assert_eq!(&response["output"][0]["content"][0]["text"], said, "{body}");
    }
    let blocks = json!([{"type": "text", "text": "be "}, {"type": "text", "text": "brief"}]);
    for system in [json!("be brief"), blocks] {
        let body = json!({"system": system, "messages": [{"role": "user", "content": "hello"}],
            "max_tokens": 6, "temperature": 0});
        let (_, message) = server.post(MESSAGES, body);
        assert_eq!(&message["content"][0]["text"], said);
    }
}

#[test]
fn a_response_of_a_schema_validates() {
    let server = serve(setup());
    let schema = json!({"type": "object", "properties": {"a": {"type": "boolean"}},
        "required": ["a"], "additionalProperties": false});
    let body = json!({"input": "hello", "text": {"format":
        {"type": "json_schema", "name": "a", "schema": schema, "strict": true}}});
    let (status, whole) = server.post(RESPONSES, body);
    assert_eq!((status, &whole["status"]), (200, &json!("completed")));
    let text = whole["output"][0]["content"][0]["text"].as_str();
    let value: Value = serde_json::from_str(text.expect("text")).expect("JSON");
    assert!(value["a"].is_boolean(), "{value}");
}

#[test]
fn what_a_translation_cannot_do_is_refused_by_name() {
    let server = serve(setup());
    let with = |path: &str, more: Value| {
        let mut body = match path {
            MESSAGES => json!({"messages": [{"role": "user", "content": "x"}], "max_tokens": 1}),
            _ => json!({"input": "x"}),
        };
        let more = more.as_object().expect("an object").clone();
        body.as_object_mut().expect("an object").extend(more);
        body
    };
    let image = json!([{"role": "user", "content": [{"type": "image"}]}]);
    let cases = [
        (RESPONSES, json!({"input": null}), "input"),
        (RESPONSES, json!({"input": 1}), "input"),
        (
            RESPONSES,
            json!({"input": image}),
            "input[0].content[0].type",
        ),
        (
            RESPONSES,
            json!({"input": [{"type": "computer_call"}]}),
            "input[0].type",
        ),
        (RESPONSES, json!({"conversation": 1}), "conversation"),
        (RESPONSES, json!({"prompt": {}}), "prompt"),
        (RESPONSES, json!({"store": "yes"}), "store"),
        (
            RESPONSES,
            json!({"background": true, "store": false}),
            "background",
        ),
        (RESPONSES, json!({"truncation": "auto"}), "truncation"),
        (
            RESPONSES,
            json!({"max_output_tokens": 0}),
            "max_output_tokens",
        ),
        (
            RESPONSES,
            json!({"tools": [{"type": "web_search"}]}),
            "tools[0].type",
        ),
        (
            RESPONSES,
            json!({"text": {"format": {"type": "xml"}}}),
            "text.format.type",
        ),
        (RESPONSES, json!({"tool_choice": "required"}), "tool_choice"),
        (MESSAGES, json!({"max_tokens": null}), "max_tokens"),
        (MESSAGES, json!({"messages": null}), "messages"),
        (MESSAGES, json!({"messages": []}), "messages"),
        (
            MESSAGES,
            json!({"messages": image}),
            "messages[0].content[0].type",
        ),
        (
            MESSAGES,
            json!({"messages": [{"role": "tool", "content": "x"}]}),
            "messages[0].role",
        ),
        (
            MESSAGES,
            json!({"thinking": {"type": "enabled"}}),
            "thinking.type",
        ),
        (MESSAGES, json!({"mcp_servers": []}), "mcp_servers"),
        (
            MESSAGES,
            json!({"tools": [{"type": "bash_20250124"}]}),
            "tools[0].type",
        ),
        (
            MESSAGES,
            json!({"tool_choice": {"type": "must"}}),
            "tool_choice.type",
        ),
        (MESSAGES, json!({"stop_sequences": [1]}), "stop_sequences"),
        (MESSAGES, json!({"temperature": 9}), "temperature"),
    ];
    for (path, more, param) in cases {
        let (status, answer) = server.post(path, with(path, more.clone()));
        let error = &answer["error"];
        let got = (status, &error["param"], &error["type"]);
        let want = (400, &json!(param), &json!("invalid_request_error"));
        assert_eq!(got, want, "{more}: {answer}");
        assert_eq!(answer.get("type").is_some(), path == MESSAGES, "{answer}");
    }
    for (path, pointer) in [
        ("/v1/responses/resp_1", "no answer \"resp_1\""),
        ("/v1/messages/count_tokens", "POST /tokenize"),
    ] {
        let (status, answer) = server.get(path);
        let message = answer["error"]["message"].as_str().expect("words");
        assert!(status == 404 && message.contains(pointer), "{answer}");
    }
}

#[test]
fn failures_have_each_wire_formats_own_form() {
    let mut failing = setup();
    failing.model = Some(Fake {
        script: (1..1000).map(|n| (n, POISON)).collect(),
        ..Fake::default()
    });
    let server = serve(failing);
    let response = json!({"input": "x", "temperature": 0});
    let message =
        json!({"messages": [{"role": "user", "content": "x"}], "max_tokens": 4, "temperature": 0});
    let (status, answer) = server.post(RESPONSES, response.clone());
    assert_eq!(
        (status, &answer["error"]["type"]),
        (500, &json!("server_error"))
    );
    let events = server.events(RESPONSES, response);
    let last = events.last().expect("events");
    assert_eq!(
        (&last["type"], &last["code"]),
        (&json!("error"), &json!("engine_failed"))
    );
    let (status, answer) = server.post(MESSAGES, message.clone());
    let kinds = (&answer["type"], &answer["error"]["type"]);
    assert_eq!(
        (status, kinds),
        (500, (&json!("error"), &json!("api_error")))
    );
    let events = server.events(MESSAGES, message.clone());
    assert_eq!(events.last().expect("events")["error"]["type"], "api_error");
    let mut loading = setup();
    loading.model = None;
    let (status, answer) = serve(loading).post(MESSAGES, message);
    let kind = &answer["error"]["type"];
    assert_eq!((status, kind), (503, &json!("overloaded_error")));
}

#[test]
fn a_message_that_a_stop_sequence_ends_says_which() {
    let server = serve(setup());
    let (_, mut body, said) = asked(&server);
    let (_, free) = server.post(MESSAGES, body.clone());
    assert_eq!(free["stop_sequence"], Value::Null);
    let middle = said.char_indices().nth(said.chars().count() / 2);
    let (start, stop) = middle.expect("more than a character");
    let first = said.find(stop).expect("it is there");
    body["stop_sequences"] = json!(["never said", stop.to_string()]);
    let (status, whole) = server.post(MESSAGES, body.clone());
    assert_eq!(status, 200, "{whole}");
    assert_eq!(whole["stop_reason"], "stop_sequence", "{whole}");
    assert_eq!(whole["stop_sequence"], json!(stop.to_string()));
    assert!(first <= start);
    if first > 0 {
        assert_eq!(whole["content"][0]["text"], json!(said[..first]));
    }
    let events = server.events(MESSAGES, body);
    let delta = events.iter().find(|e| e["type"] == "message_delta");
    let delta = &delta.expect("an end")["delta"];
    assert_eq!(delta["stop_reason"], "stop_sequence");
    assert_eq!(delta["stop_sequence"], json!(stop.to_string()));
}

#[test]
fn a_response_gives_the_scores_that_a_chat_gives() {
    let server = serve(setup());
    let (mut body, _, said) = asked(&server);
    let (_, plain) = server.post(RESPONSES, body.clone());
    assert_eq!(plain["output"][0]["content"][0]["logprobs"], json!([]));
    let mut chat = hello();
    chat["logprobs"] = json!(true);
    chat["top_logprobs"] = json!(3);
    let (_, chat) = server.post("/v1/chat/completions", chat);
    let wanted = &chat["choices"][0]["logprobs"]["content"];
    assert_eq!(wanted.as_array().map(Vec::len), Some(6));
    body["top_logprobs"] = json!(3);
    let (status, whole) = server.post(RESPONSES, body.clone());
    assert_eq!(status, 200, "{whole}");
    assert_eq!(whole["top_logprobs"], 3);
    assert_eq!(&whole["output"][0]["content"][0]["logprobs"], wanted);
    let events = server.events(RESPONSES, body.clone());
    let of = |kind: &str| {
        events
            .iter()
            .filter(|e| e["type"] == kind)
            .collect::<Vec<_>>()
    };
    let done = of("response.output_text.done");
    assert_eq!(
        (&done[0]["text"], &done[0]["logprobs"]),
        (&json!(said), wanted)
    );
    let deltas = of("response.output_text.delta");
    let scores = deltas.iter().filter_map(|e| e["logprobs"].as_array());
    let told: Vec<&Value> = scores.flatten().collect();
    let wanted: Vec<&Value> = wanted.as_array().expect("scores").iter().collect();
    assert!(!told.is_empty() && wanted.starts_with(&told), "{told:?}");
    // Asked for by name alone: the scores without alternatives.
    body["top_logprobs"] = Value::Null;
    body["include"] = json!([
        "reasoning.encrypted_content",
        "message.output_text.logprobs"
    ]);
    let (_, named) = server.post(RESPONSES, body.clone());
    let scores = &named["output"][0]["content"][0]["logprobs"];
    assert_eq!(scores.as_array().map(Vec::len), Some(6));
    assert_eq!(scores[0]["top_logprobs"], json!([]));
    body["top_logprobs"] = json!(21);
    let (status, refused) = server.post(RESPONSES, body);
    assert_eq!(
        (status, &refused["error"]["param"]),
        (400, &json!("top_logprobs"))
    );
}

#[test]
fn what_a_message_marks_is_written_once_and_read_then() {
    let server = serve(setup());
    let body = |control: Value, question: &str| {
        let system = json!([{"type": "text", "text": "be brief ".repeat(40),
            "cache_control": control}]);
        let messages = json!([{"role": "user", "content": question}]);
        json!({"max_tokens": 2, "system": system, "messages": messages})
    };
    let marked = |control, question: &str| server.post(MESSAGES, body(control, question));
    let usage = |control: Value, question: &str| {
        let (status, answer) = marked(control, question);
        assert_eq!(status, 200, "{answer}");
        let count = |at: &str| answer["usage"].pointer(at).and_then(Value::as_u64);
        [
            "/input_tokens",
            "/cache_read_input_tokens",
            "/cache_creation_input_tokens",
            "/cache_creation/ephemeral_5m_input_tokens",
            "/cache_creation/ephemeral_1h_input_tokens",
        ]
        .map(|at| count(at).expect(at))
    };
    let [new, read, written, short, long] = usage(json!({"type": "ephemeral"}), "why?");
    assert_eq!((read, short, long), (0, written, 0));
    assert!(new > 0 && written > new, "{written} of {new}");
    let hour = || json!({"type": "ephemeral", "ttl": "1h"});
    let [new, read, again, ..] = usage(hour(), "who are you?");
    assert_eq!((read, again), (written, 0));
    assert!(new > 0);
    // A stream tells it with its first event, as with its last.
    let events = server.events(MESSAGES, body(hour(), "are you sure?"));
    let begun = &events[0]["message"]["usage"];
    assert_eq!(begun["cache_read_input_tokens"], written);
    assert_eq!(begun["cache_creation_input_tokens"], 0);
    let mut last = events[events.len() - 2]["usage"].clone();
    last["output_tokens"] = json!(0);
    assert_eq!(&last, begun);
    for wrong in [
        json!({"type": "lasting"}),
        json!({"type": "ephemeral", "ttl": "2h"}),
        json!(1),
    ] {
        assert_eq!(marked(wrong, "why?").0, 400);
    }
    let tool = json!({"name": "f", "cache_control": hour()});
    let many = json!({"max_tokens": 2, "tools": vec![tool; 5],
        "messages": [{"role": "user", "content": "why?"}]});
    assert_eq!(server.post(MESSAGES, many).0, 400);
}
