//! A converted checkpoint of Ling's layout, served: what a model that only guesses must do, it does.

use serde_json::{Value, json};

use super::daemon::{Daemon, exchange, fixture, start_with};

const CHAT: &str = "/v1/chat/completions";

fn daemon() -> Daemon {
    start_with(&fixture("ling_tiny"), "f32", "")
}

fn asked(more: Value) -> Value {
    let mut body =
        json!({"messages": [{"role": "user", "content": "Weather?"}], "max_tokens": 600});
    for (name, value) in more.as_object().expect("fields") {
        body[name] = value.clone();
    }
    body
}

fn post(daemon: &Daemon, path: &str, body: &Value) -> Value {
    let (status, answer) = daemon.post(path, body);
    assert_eq!(status, 200, "{body}: {answer}");
    answer
}

fn function() -> Value {
    let properties = json!({
        "city": {"type": "string", "maxLength": 6},
        "days": {"type": "integer", "minimum": 1, "maximum": 9},
        "unit": {"enum": ["C", "F"]},
    });
    json!({"name": "get_weather", "parameters": {"type": "object", "properties": properties,
        "required": ["city", "days", "unit"], "additionalProperties": false}})
}

fn valid(arguments: &Value) {
    assert!(
        arguments["city"]
            .as_str()
            .is_some_and(|c| c.chars().count() <= 6),
        "{arguments}"
    );
    assert!(
        arguments["days"]
            .as_u64()
            .is_some_and(|d| (1..=9).contains(&d)),
        "{arguments}"
    );
    assert!(["C", "F"].contains(&arguments["unit"].as_str().expect("a unit")));
    assert_eq!(arguments.as_object().map(|a| a.len()), Some(3));
}

/// Reasoning, and the first call's id, name and arguments, put together as clients do.
fn streamed(daemon: &Daemon, body: &Value) -> (String, [String; 3]) {
    let mut body = body.clone();
    body["stream"] = json!(true);
    let (status, text) = exchange(daemon.connect(), "POST", CHAT, &body.to_string());
    assert_eq!(status, 200, "{text}");
    let (mut thought, mut call) = (String::new(), [const { String::new() }; 3]);
    for data in text.lines().filter_map(|l| l.strip_prefix("data: ")) {
        let chunk: Value = serde_json::from_str(data).unwrap_or_default();
        let delta = &chunk["choices"][0]["delta"];
        thought += delta["reasoning_content"].as_str().unwrap_or_default();
        let given = &delta["tool_calls"][0];
        call[0] += given["id"].as_str().unwrap_or_default();
        call[1] += given["function"]["name"].as_str().unwrap_or_default();
        call[2] += given["function"]["arguments"].as_str().unwrap_or_default();
    }
    (thought, call)
}

#[test]
fn a_call_that_must_come_does_with_and_without_thought_and_validates_everywhere() {
    let daemon = daemon();
    let tools = json!([{"type": "function", "function": function()}]);
    for seed in 0..4 {
        for effort in ["none", "high"] {
            let body = asked(
                json!({"tools": tools, "tool_choice": "required", "seed": seed,
                "parallel_tool_calls": false, "reasoning_effort": effort}),
            );
            let answer = post(&daemon, CHAT, &body);
            let choice = &answer["choices"][0];
            assert_eq!(choice["finish_reason"], "tool_calls", "{answer}");
            let message = &choice["message"];
            assert_eq!(message["content"], Value::Null, "{answer}");
            let thought = message["reasoning_content"].as_str().unwrap_or_default();
            assert!(effort == "high" || thought.is_empty(), "{answer}");
            let call = &message["tool_calls"][0];
            let function = &call["function"];
            let text = |v: &Value| v.as_str().expect("a string").to_owned();
            let whole = [&call["id"], &function["name"], &function["arguments"]].map(text);
            valid(&serde_json::from_str(&whole[2]).expect("JSON"));
            assert_eq!(streamed(&daemon, &body), (thought.to_owned(), whole));
        }
    }
    let mut tool = function();
    tool["input_schema"] = tool["parameters"].take();
    let choice = json!({"type": "any", "disable_parallel_tool_use": true});
    let body = asked(json!({"tools": [tool], "tool_choice": choice}));
    let message = post(&daemon, "/v1/messages", &body);
    assert_eq!(message["stop_reason"], "tool_use", "{message}");
    let content = message["content"].as_array().expect("blocks");
    valid(&content.last().expect("a block")["input"]);

    let mut tool = function();
    tool["type"] = json!("function");
    let body = json!({"input": "Weather?", "tools": [tool], "tool_choice": "required",
        "parallel_tool_calls": false, "max_output_tokens": 600});
    let response = post(&daemon, "/v1/responses", &body);
    let output = response["output"].as_array().expect("items");
    let call = output.last().expect("an item");
    assert_eq!(call["type"], "function_call", "{response}");
    let arguments = call["arguments"].as_str().expect("text");
    valid(&serde_json::from_str(arguments).expect("JSON"));
}

#[test]
fn json_that_must_come_does_after_a_thought() {
    let daemon = daemon();
    let schema = json!({"type": "object", "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 9}},
        "required": ["n"], "additionalProperties": false});
    let format = json!({"type": "json_schema", "json_schema": {"name": "n", "schema": schema}});
    for seed in 0..3 {
        let body = asked(json!({"response_format": format, "seed": seed, "max_tokens": 100}));
        let answer = post(&daemon, CHAT, &body);
        let content = answer["choices"][0]["message"]["content"].as_str();
        let said: Value = serde_json::from_str(content.expect("text")).expect("JSON");
        assert!(said["n"].as_u64().is_some_and(|n| n <= 9), "{answer}");
    }
}

#[test]
fn a_prompt_has_the_references_length_and_the_model_says_that_it_can_think() {
    let daemon = daemon();
    assert_eq!(
        daemon.get("/v1/models").1["data"][0]["thinking_switch"],
        true
    );
    let goldens = std::fs::read(fixture("tokenizer/ling").join("golden_chat.json"));
    let goldens: Vec<Value> = serde_json::from_slice(&goldens.expect("a file")).expect("JSON");
    for case in goldens
        .iter()
        .filter(|c| c["add_generation_prompt"] != false)
    {
        let body = json!({"messages": case["messages"], "tools": case["tools"], "max_tokens": 1,
            "enable_thinking": case["enable_thinking"]});
        let n_prompt = post(&daemon, CHAT, &body)["usage"]["prompt_tokens"].clone();
        assert_eq!(n_prompt, case["ids"].as_array().expect("ids").len());
    }
}
