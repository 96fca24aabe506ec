//! Tools, by every wire format: a model that only guesses calls what it must, in the form that was
//! asked for, and what it called can be told back to it.

use serde_json::{Value, json};

use super::daemon::{Daemon, exchange, start};

fn weather() -> Value {
    json!({"type": "object", "properties": {"city": {"enum": ["Oslo", "Rome"]},
        "days": {"type": "integer", "minimum": 1, "maximum": 9}},
        "required": ["city", "days"], "additionalProperties": false})
}

fn functions() -> [Value; 2] {
    let time = json!({"type": "object", "properties": {}, "additionalProperties": false});
    [
        json!({"name": "get_weather", "description": "Weather of a city", "parameters": weather()}),
        json!({"name": "get_time", "parameters": time}),
    ]
}

fn chat_tools() -> Value {
    let of = |f: Value| json!({"type": "function", "function": f});
    functions().map(of).into_iter().collect()
}

fn valid(name: &str, arguments: &str) {
    let arguments: Value = serde_json::from_str(arguments).expect(arguments);
    match name {
        "get_time" => assert_eq!(arguments, json!({})),
        "get_weather" => {
            assert!(["Oslo", "Rome"].contains(&arguments["city"].as_str().expect("a city")));
            assert!((1..=9).contains(&arguments["days"].as_u64().expect("a number")));
        }
        other => panic!("nobody declared {other}"),
    }
}

/// The `data:` lines that are JSON.
fn stream(daemon: &Daemon, path: &str, body: &Value) -> Vec<Value> {
    let mut body = body.clone();
    body["stream"] = json!(true);
    let (status, text) = exchange(daemon.connect(), "POST", path, &body.to_string());
    assert_eq!(status, 200, "{text}");
    let data = text.lines().filter_map(|l| l.strip_prefix("data: "));
    data.filter_map(|d| serde_json::from_str(d).ok()).collect()
}

fn post(daemon: &Daemon, path: &str, body: &Value) -> Value {
    let (status, answer) = daemon.post(path, body);
    assert_eq!(status, 200, "{body}: {answer}");
    answer
}

/// Id, name and arguments.
type Call = (String, String, String);

fn text(value: &Value) -> String {
    value.as_str().expect("a string").to_owned()
}

fn chat_calls(message: &Value) -> Vec<Call> {
    let call = |c: &Value| {
        assert_eq!(c["type"], "function");
        let f = &c["function"];
        (text(&c["id"]), text(&f["name"]), text(&f["arguments"]))
    };
    message["tool_calls"]
        .as_array()
        .into_iter()
        .flatten()
        .map(call)
        .collect()
}

/// Put together as clients do, by index.
fn streamed_chat_calls(chunks: &[Value]) -> Vec<Call> {
    let mut calls: Vec<Call> = Vec::new();
    let deltas = chunks
        .iter()
        .map(|c| &c["choices"][0]["delta"]["tool_calls"]);
    for delta in deltas.filter_map(Value::as_array).flatten() {
        let index = delta["index"].as_u64().expect("an index") as usize;
        let function = &delta["function"];
        if index == calls.len() {
            let (id, name) = (text(&delta["id"]), text(&function["name"]));
            calls.push((id, name, String::new()));
        }
        calls[index].2 += function["arguments"].as_str().unwrap_or_default();
    }
    calls
}

fn ask(choice: Value, seed: u64) -> Value {
    json!({"messages": [{"role": "user", "content": "weather?"}], "tools": chat_tools(),
        "tool_choice": choice, "max_tokens": 400, "seed": seed})
}

#[test]
fn calls_that_must_come_do_and_validate_streamed_and_whole() {
    const CHAT: &str = "/v1/chat/completions";
    let daemon = start("");
    let mut most = 0;
    for seed in 0..8 {
        let body = ask(json!("required"), seed);
        let answer = post(&daemon, CHAT, &body);
        let choice = &answer["choices"][0];
        let calls = chat_calls(&choice["message"]);
        assert_eq!(choice["finish_reason"], "tool_calls", "{answer}");
        assert!(!calls.is_empty(), "{answer}");
        calls
            .iter()
            .for_each(|(_, name, arguments)| valid(name, arguments));
        let chunks = stream(&daemon, CHAT, &body);
        assert_eq!(streamed_chat_calls(&chunks), calls);
        let reasons = chunks
            .iter()
            .filter_map(|c| c["choices"][0]["finish_reason"].as_str());
        assert_eq!(reasons.collect::<Vec<_>>(), ["tool_calls"]);
        most = most.max(calls.len());

        let mut single = body.clone();
        single["parallel_tool_calls"] = json!(false);
        assert_eq!(
            chat_calls(&post(&daemon, CHAT, &single)["choices"][0]["message"]).len(),
            1
        );

        let named = json!({"type": "function", "function": {"name": "get_weather"}});
        let answer = post(&daemon, CHAT, &ask(named, seed));
        let calls = chat_calls(&answer["choices"][0]["message"]);
        assert_eq!(
            calls.iter().map(|c| &c.1).collect::<Vec<_>>(),
            ["get_weather"]
        );

        let answer = post(&daemon, CHAT, &ask(json!("none"), seed));
        assert_eq!(chat_calls(&answer["choices"][0]["message"]), []);
    }
    assert!(most > 1, "no answer had several calls");
}

#[test]
fn a_call_and_its_result_go_back_into_the_conversation() {
    const CHAT: &str = "/v1/chat/completions";
    let daemon = start("");
    let body = ask(json!("required"), 3);
    let message = post(&daemon, CHAT, &body)["choices"][0]["message"].clone();
    let calls = chat_calls(&message);
    let mut messages = body["messages"].as_array().expect("messages").clone();
    messages.push(message);
    for (id, ..) in &calls {
        messages.push(json!({"role": "tool", "tool_call_id": id, "content": "3 degrees"}));
    }
    let mut body = json!({"messages": messages, "tools": chat_tools(), "max_tokens": 8,
        "temperature": 0});
    let chat = post(&daemon, CHAT, &body);
    // The same conversation in the other forms has the same prompt.
    let n_prompt = chat["usage"]["prompt_tokens"].as_u64().expect("a count");
    let items = [json!({"role": "user", "content": "weather?"})].into_iter();
    let made = calls.iter().map(|(id, name, arguments)| {
        json!({"type": "function_call", "call_id": id, "name": name, "arguments": arguments})
    });
    let results = calls.iter().map(
        |(id, ..)| json!({"type": "function_call_output", "call_id": id, "output": "3 degrees"}),
    );
    body = json!({"input": items.chain(made).chain(results).collect::<Value>(),
        "tools": responses_tools(), "max_output_tokens": 8, "temperature": 0});
    let response = post(&daemon, "/v1/responses", &body);
    assert_eq!(response["usage"]["input_tokens"], n_prompt);
    let made = calls.iter().map(|(id, name, arguments)| {
        let input: Value = serde_json::from_str(arguments).expect("JSON");
        json!({"type": "tool_use", "id": id, "name": name, "input": input})
    });
    let results = calls
        .iter()
        .map(|(id, ..)| json!({"type": "tool_result", "tool_use_id": id, "content": "3 degrees"}));
    body = json!({"messages": [{"role": "user", "content": "weather?"},
            {"role": "assistant", "content": made.collect::<Value>()},
            {"role": "user", "content": results.collect::<Value>()}],
        "tools": messages_tools(), "max_tokens": 8, "temperature": 0});
    let message = post(&daemon, "/v1/messages", &body);
    let usage = &message["usage"];
    let read = ["input_tokens", "cache_read_input_tokens"].map(|k| usage[k].as_u64().expect(k));
    // Blanks between arguments may go on the way through objects.
    let spaces: usize = calls.iter().map(|c| c.2.len()).sum();
    assert!(read[0] + read[1] <= n_prompt && read[0] + read[1] + spaces as u64 > n_prompt);
}

fn responses_tools() -> Value {
    let of = |mut f: Value| {
        f["type"] = json!("function");
        f
    };
    functions().map(of).into_iter().collect()
}

fn messages_tools() -> Value {
    let of = |f: Value| {
        let mut tool = json!({"name": f["name"], "input_schema": f["parameters"]});
        if let Some(description) = f.get("description") {
            tool["description"] = description.clone();
        }
        tool
    };
    functions().map(of).into_iter().collect()
}

#[test]
fn a_response_calls_what_a_chat_calls_streamed_and_whole() {
    let daemon = start("");
    let body = json!({"input": "weather?", "tools": responses_tools(), "tool_choice": "required",
        "max_output_tokens": 400, "temperature": 0});
    let mut chat = ask(json!("required"), 0);
    chat["temperature"] = json!(0);
    let wanted = post(&daemon, "/v1/chat/completions", &chat);
    let wanted = chat_calls(&wanted["choices"][0]["message"]);
    let calls = |output: &Value| -> Vec<Call> {
        let items = output.as_array().expect("items").iter();
        let items = items.filter(|i| i["type"] == "function_call");
        let call = |i: &Value| (text(&i["call_id"]), text(&i["name"]), text(&i["arguments"]));
        items.map(call).collect()
    };
    let whole = post(&daemon, "/v1/responses", &body);
    assert_eq!(whole["status"], "completed");
    assert_eq!(calls(&whole["output"]), wanted);
    let events = stream(&daemon, "/v1/responses", &body);
    let of = |kind: &'static str| events.iter().filter(move |e| e["type"] == kind).cloned();
    let done: Value = of("response.output_item.done")
        .map(|e| e["item"].clone())
        .collect();
    assert_eq!(calls(&done), wanted);
    let mut grown = vec![String::new(); done.as_array().expect("items").len()];
    for event in of("response.function_call_arguments.delta") {
        let index = event["output_index"].as_u64().expect("an index") as usize;
        grown[index] += event["delta"].as_str().expect("text");
    }
    grown.retain(|g| !g.is_empty());
    assert!(grown.iter().eq(wanted.iter().map(|c| &c.2)), "{grown:?}");
    let last = of("response.completed").next().expect("an end");
    assert_eq!(calls(&last["response"]["output"]), wanted);
}

#[test]
fn a_message_uses_the_tools_that_a_chat_calls_streamed_and_whole() {
    let daemon = start("");
    let messages = json!([{"role": "user", "content": "weather?"}]);
    let body = json!({"messages": messages, "tools": messages_tools(),
        "tool_choice": {"type": "any"}, "max_tokens": 400, "temperature": 0});
    let mut chat = ask(json!("required"), 0);
    chat["temperature"] = json!(0);
    let wanted = post(&daemon, "/v1/chat/completions", &chat);
    let wanted = chat_calls(&wanted["choices"][0]["message"]);
    let wanted: Vec<Value> = wanted
        .into_iter()
        .map(|(id, name, arguments)| {
            let input: Value = serde_json::from_str(&arguments).expect("JSON");
            json!({"type": "tool_use", "id": id, "name": name, "input": input})
        })
        .collect();
    let whole = post(&daemon, "/v1/messages", &body);
    assert_eq!(whole["stop_reason"], "tool_use");
    let used = whole["content"].as_array().expect("blocks").iter();
    assert!(
        used.filter(|b| b["type"] == "tool_use").eq(&wanted),
        "{whole}"
    );
    let events = stream(&daemon, "/v1/messages", &body);
    let mut blocks: Vec<(Value, String)> = Vec::new();
    for event in &events {
        match event["type"].as_str() {
            Some("content_block_start") => {
                assert_eq!(event["index"], blocks.len());
                blocks.push((event["content_block"].clone(), String::new()));
            }
            Some("content_block_delta") => {
                let index = event["index"].as_u64().expect("an index") as usize;
                blocks[index].1 += event["delta"]["partial_json"].as_str().unwrap_or_default();
            }
            _ => {}
        }
    }
    blocks.retain(|(block, _)| block["type"] == "tool_use");
    let put = blocks.into_iter().map(|(mut block, text)| {
        block["input"] = serde_json::from_str(&text).expect("JSON");
        block
    });
    assert!(put.eq(wanted), "{events:?}");
}
