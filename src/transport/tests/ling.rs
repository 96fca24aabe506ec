//! A model of Ling's kind behind every door: its thoughts, its calls and the switch.

use serde_json::{Value, json};

use super::{Fake, Server, serve, setup};
use crate::request::{Message, TemplateOptions, Token};
use crate::text::{ChatTemplate, Specials, Tokenizer, encode_chat, fixture};

const CHAT: &str = "/v1/chat/completions";

fn parameters() -> Value {
    let properties = json!({"city": {"type": "string"}, "days": {"type": "integer"}});
    json!({"type": "object", "properties": properties, "required": ["city"]})
}

fn function() -> Value {
    json!({"name": "get_weather", "parameters": parameters()})
}

/// Says `reply` to one word of a user, asked with these tools and this wish about thinking.
fn says(reply: &[Token], tools: &[Value], thinking: Option<bool>) -> Server {
    let meta = fixture::ling(true);
    let tokenizer = Tokenizer::from_metadata(&meta).expect("a tokenizer");
    let template = ChatTemplate::from_metadata(&meta, &tokenizer).expect("a template");
    let options = TemplateOptions {
        thinking,
        ..TemplateOptions::default()
    };
    let word = Message {
        role: "user".into(),
        content: "x".into(),
        ..Message::default()
    };
    let prompt = template.render_with(&options, &[word], tools, true);
    let n_prompt = encode_chat(&tokenizer, &prompt.expect("a prompt")).len();
    let mut setup = setup();
    setup.vocabulary = meta;
    setup.model = Some(Fake {
        script: (n_prompt..).zip(reply.iter().copied()).collect(),
        ..Fake::default()
    });
    serve(setup)
}

fn tokens(text: &str, specials: Specials) -> Vec<Token> {
    let tokenizer = Tokenizer::from_metadata(&fixture::ling(true)).expect("a tokenizer");
    tokenizer.encode(text, specials)
}

fn asked(more: Value) -> Value {
    let mut body = json!({"messages": [{"role": "user", "content": "x"}], "max_tokens": 300, "temperature": 0});
    for (name, value) in more.as_object().expect("fields") {
        body[name] = value.clone();
    }
    body
}

#[test]
fn a_call_of_several_arguments_comes_whole_and_streamed_through_every_door() {
    let reply = concat!(
        "hm</think>Let me look.\n<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>a \"b\"</arg_value>\n",
        "<arg_key>days</arg_key>\n<arg_value>3</arg_value>\n</tool_call><|role_end|>"
    );
    let tool = json!({"type": "function", "function": function()});
    let server = says(
        &tokens(reply, Specials::Parse),
        std::slice::from_ref(&tool),
        None,
    );
    let arguments = r#"{"city": "a \"b\"", "days": 3}"#;
    let body = asked(json!({"tools": [tool]}));
    let (status, chat) = server.post(CHAT, body.clone());
    assert_eq!(status, 200, "{chat}");
    let choice = &chat["choices"][0];
    assert_eq!(choice["finish_reason"], "tool_calls", "{chat}");
    assert_eq!(choice["message"]["reasoning_content"], "hm");
    assert_eq!(choice["message"]["content"], "Let me look.");
    let call = &choice["message"]["tool_calls"][0];
    assert_eq!(
        call["function"],
        json!({"name": "get_weather", "arguments": arguments})
    );

    let (mut thought, mut said, mut given, mut pieces) =
        (String::new(), String::new(), String::new(), 0);
    for line in server.stream(CHAT, body) {
        let chunk: Value = serde_json::from_str(&line).unwrap_or_default();
        let delta = &chunk["choices"][0]["delta"];
        thought += delta["reasoning_content"].as_str().unwrap_or_default();
        said += delta["content"].as_str().unwrap_or_default();
        let call = &delta["tool_calls"][0]["function"];
        given += call["arguments"].as_str().unwrap_or_default();
        pieces += usize::from(call["arguments"].is_string());
    }
    assert_eq!(
        (&*thought, &*said, &*given),
        ("hm", "Let me look.", arguments)
    );
    assert!(pieces > 5, "a string is told as it comes: {pieces}");

    let mut tool = function();
    tool["input_schema"] = tool["parameters"].take();
    let (status, message) = server.post("/v1/messages", asked(json!({"tools": [tool]})));
    assert_eq!(status, 200, "{message}");
    let input = json!({"city": "a \"b\"", "days": 3});
    assert_eq!(message["stop_reason"], "tool_use");
    assert_eq!(message["content"][0]["thinking"], "hm");
    assert_eq!(message["content"][1]["text"], "Let me look.");
    assert_eq!(message["content"][2]["input"], input);

    let mut tool = function();
    tool["type"] = json!("function");
    let body = json!({"input": "x", "max_output_tokens": 300, "temperature": 0, "tools": [tool]});
    let (status, response) = server.post("/v1/responses", body);
    assert_eq!(status, 200, "{response}");
    assert_eq!(response["output"][0]["content"][0]["text"], "hm");
    assert_eq!(response["output"][2]["type"], "function_call");
    assert_eq!(response["output"][2]["arguments"], arguments);
}

#[test]
fn thinking_is_turned_off_by_every_name_that_it_has() {
    let server = says(
        &tokens("yes<|role_end|>", Specials::Parse),
        &[],
        Some(false),
    );
    for how in [
        json!({"enable_thinking": false}),
        json!({"reasoning_effort": "none"}),
        json!({"chat_template_kwargs": {"enable_thinking": false}}),
        json!({"chat_template_kwargs": {"thinking_option": "off"}}),
        json!({"enable_thinking": false, "reasoning_effort": "high"}),
        json!({"enable_thinking": true, "chat_template_kwargs": {"enable_thinking": false, "unknown": [1]}}),
    ] {
        let (status, chat) = server.post(CHAT, asked(how.clone()));
        assert_eq!(status, 200, "{how}: {chat}");
        let message = &chat["choices"][0]["message"];
        assert_eq!(message["content"], "yes", "{how}: {chat}");
        assert_eq!(message.get("reasoning_content"), None, "{how}");
        assert_eq!(chat["choices"][0]["finish_reason"], "stop");
    }
    let (_, message) = server.post(
        "/v1/messages",
        asked(json!({"thinking": {"type": "disabled"}})),
    );
    assert_eq!(message["content"][0]["text"], "yes", "{message}");
    let body = json!({"input": "x", "temperature": 0, "max_output_tokens": 300, "reasoning": {"effort": "none"}});
    let (_, response) = server.post("/v1/responses", body);
    assert_eq!(
        response["output"][0]["content"][0]["text"], "yes",
        "{response}"
    );
}

#[test]
fn thinking_is_on_unless_it_is_turned_off_and_a_model_says_that_it_has_the_switch() {
    let server = says(
        &tokens("hm</think>yes<|role_end|>", Specials::Parse),
        &[],
        None,
    );
    for how in [
        json!({}),
        json!({"enable_thinking": true}),
        json!({"reasoning_effort": "low"}),
        json!({"enable_thinking": null, "chat_template_kwargs": null}),
    ] {
        let (_, chat) = server.post(CHAT, asked(how.clone()));
        let message = &chat["choices"][0]["message"];
        assert_eq!(message["reasoning_content"], "hm", "{how}: {chat}");
        assert_eq!(message["content"], "yes", "{how}");
    }
    let enabled = json!({"thinking": {"type": "enabled", "budget_tokens": 1024}});
    let (_, message) = server.post("/v1/messages", asked(enabled));
    assert_eq!(message["content"][0]["thinking"], "hm", "{message}");
    let (_, _, text) = server.exchange("GET", "/v1/models", "");
    let models: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(models["data"][0]["thinking_switch"], true);
    for (wrong, param) in [
        (json!({"enable_thinking": "no"}), "enable_thinking"),
        (json!({"reasoning_effort": 3}), "reasoning_effort"),
        (json!({"chat_template_kwargs": []}), "chat_template_kwargs"),
        (
            json!({"chat_template_kwargs": {"messages": []}}),
            "messages",
        ),
    ] {
        let (status, refused) = server.post(CHAT, asked(wrong));
        assert_eq!(
            (status, &refused["error"]["param"]),
            (400, &json!(param)),
            "{refused}"
        );
    }
}

#[test]
fn an_end_that_the_model_spells_out_ends_the_answer() {
    let reply = [
        tokens("hm</think>yes", Specials::Parse),
        tokens("<|role_end|>no", Specials::Plain),
    ];
    let server = says(&reply.concat(), &[], None);
    let (_, chat) = server.post(CHAT, asked(json!({})));
    assert_eq!(chat["choices"][0]["message"]["content"], "yes", "{chat}");
    assert_eq!(chat["choices"][0]["finish_reason"], "stop");
    let (_, message) = server.post("/v1/messages", asked(json!({})));
    assert_eq!(message["stop_reason"], "end_turn", "{message}");
}

#[test]
fn a_history_of_calls_is_told_in_the_models_form_or_refused_by_name() {
    let server = says(&[], &[], None);
    let with = |arguments: Value| {
        let call = json!({"id": "a", "type": "function", "function": {"name": "f", "arguments": arguments}});
        let messages = json!([
            {"role": "user", "content": "x"},
            {"role": "assistant", "content": null, "reasoning_content": "hm", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "a", "content": "3"},
        ]);
        let body = json!({"messages": messages, "max_tokens": 1});
        server.post(CHAT, body)
    };
    for good in [json!("{\"a\": 1}"), json!({"a": 1}), json!("")] {
        assert_eq!(with(good).0, 200);
    }
    let (status, refused) = with(json!("[1]"));
    assert_eq!(status, 400);
    let why = refused["error"]["message"].as_str().expect("a reason");
    assert!(
        why.contains("messages[1].tool_calls[0].function.arguments"),
        "{why}"
    );
}

#[test]
fn a_call_that_comes_back_by_its_id_alone_is_the_one_that_was_drawn() {
    let reply = concat!(
        "hm</think>Let me look.\n<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>a</arg_value>\n",
        "<arg_key>days</arg_key>\n<arg_value>3</arg_value>\n</tool_call><|role_end|>"
    );
    let tool = json!({"type": "function", "function": function()});
    let (told, reply) = (std::slice::from_ref(&tool), tokens(reply, Specials::Parse));
    let server = says(&reply, told, None);
    let (status, chat) = server.post(CHAT, asked(json!({"tools": [tool]})));
    assert_eq!(status, 200, "{chat}");
    let n_prompt = chat["usage"]["prompt_tokens"].as_u64().expect("a count");
    let id = &chat["choices"][0]["message"]["tool_calls"][0]["id"];
    let cached = |id: &Value, content: &str, arguments: &str| {
        let call = json!({"id": id, "type": "function",
            "function": {"name": "get_weather", "arguments": arguments}});
        let messages = json!([
            {"role": "user", "content": "x"},
            {"role": "assistant", "content": content, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": id, "content": "rain"},
        ]);
        let body = asked(json!({"messages": messages, "tools": [tool], "max_tokens": 1}));
        let (status, answer) = server.post(CHAT, body);
        assert_eq!(status, 200, "{answer}");
        let cached = &answer["usage"]["prompt_tokens_details"]["cached_tokens"];
        cached.as_u64().expect("a count")
    };
    let all = n_prompt + reply.len() as u64 - 1;
    // Neither its thought nor its words come back, and its arguments are spelled anew.
    let again = r#"{"days":3.0,"city":"a"}"#;
    assert!(cached(id, "", again) >= all, "all of {all}");
    assert!(cached(id, "Let me look.", again) >= all);
    // Other words, other arguments and another's id are other text.
    assert!(cached(id, "I looked.", again) < all);
    assert!(cached(id, "", r#"{"days":4,"city":"a"}"#) < all);
    assert!(cached(&json!("call_1"), "", again) < all);
}
