//! What an answer repeats of its body, with what was left out as it then is.

use serde_json::{Value, json};

pub fn echo(body: &Value, keep: bool) -> Value {
    let given = |name: &str, or: Value| match body.get(name) {
        Some(value) if !value.is_null() => value.clone(),
        _ => or,
    };
    let part = |name: &str, inner: &str| body[name].get(inner).cloned().unwrap_or_default();
    let tools = match given("tools", json!([])) {
        Value::Array(tools) => {
            let all = [
                ("description", Value::Null),
                ("parameters", Value::Null),
                ("strict", Value::Null),
            ];
            tools.into_iter().map(|tool| filled(tool, &all)).collect()
        }
        other => other,
    };
    let mut text = filled(
        given("text", json!({})),
        &[("format", json!({"type": "text"}))],
    );
    if text["format"]["type"] == "json_schema" {
        let all = [("description", Value::Null), ("strict", json!(false))];
        text["format"] = filled(text["format"].take(), &all);
    }
    json!({
        "background": given("background", json!(false)),
        "conversation": match given("conversation", Value::Null) {
            Value::String(id) => json!({"id": id}),
            other => other,
        },
        "frequency_penalty": 0.0,
        "instructions": given("instructions", Value::Null),
        "max_output_tokens": given("max_output_tokens", Value::Null),
        "max_tool_calls": given("max_tool_calls", Value::Null),
        "metadata": given("metadata", json!({})),
        "parallel_tool_calls": given("parallel_tool_calls", json!(true)),
        "presence_penalty": 0.0,
        "previous_response_id": given("previous_response_id", Value::Null),
        "prompt_cache_key": given("prompt_cache_key", Value::Null),
        "reasoning": {"effort": part("reasoning", "effort"), "summary": part("reasoning", "summary")},
        "safety_identifier": given("safety_identifier", Value::Null),
        "service_tier": "default",
        "temperature": given("temperature", json!(1.0)),
        "text": text,
        "tool_choice": given("tool_choice", json!("auto")),
        "tools": tools,
        "top_p": given("top_p", json!(1.0)),
        "top_logprobs": given("top_logprobs", json!(0)),
        "truncation": "disabled",
        "store": keep,
    })
}

/// What is told has all of its fields, also those that were left out.
fn filled(mut object: Value, all: &[(&str, Value)]) -> Value {
    if let Value::Object(fields) = &mut object {
        for (name, value) in all {
            fields.entry(*name).or_insert_with(|| value.clone());
        }
    }
    object
}
