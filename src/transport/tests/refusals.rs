//! What is refused, and how it is told; what fails, too.

use super::*;

#[test]
fn a_wrong_field_is_named_with_what_it_is_and_should_be() {
    let server = serve(setup());
    let completions = "/v1/completions";
    let chat = "/v1/chat/completions";
    let message = json!([{"role": "user", "content": "x"}]);
    let cases = [
        (completions, json!({}), "prompt"),
        (completions, json!({"prompt": {"a": 1}}), "prompt"),
        (completions, json!({"prompt": []}), "prompt"),
        (completions, json!({"prompt": [1, "x"]}), "prompt[1]"),
        (completions, json!({"prompt": [99999]}), "prompt"),
        (
            completions,
            json!({"prompt": "x", "temperature": "hot"}),
            "temperature",
        ),
        (
            completions,
            json!({"prompt": "x", "temperature": -1}),
            "temperature",
        ),
        (
            completions,
            json!({"prompt": "x", "temperature": 1e300}),
            "temperature",
        ),
        (
            completions,
            json!({"prompt": "x", "logprobs": 21}),
            "logprobs",
        ),
        (completions, json!({"prompt": "x", "n": 0}), "n"),
        (completions, json!({"prompt": "x", "suffix": "y"}), "suffix"),
        (completions, json!({"prompt": "x", "best_of": 3}), "best_of"),
        (
            completions,
            json!({"prompt": "x", "max_tokens": -1}),
            "max_tokens",
        ),
        (completions, json!({"prompt": "x", "stop": [1]}), "stop"),
        (
            completions,
            json!({"prompt": "x", "logit_bias": {"a": 1}}),
            "logit_bias",
        ),
        (completions, json!({"prompt": vec![1; 1001]}), "prompt"),
        (completions, json!([1]), "body"),
        (chat, json!({}), "messages"),
        (chat, json!({"messages": []}), "messages"),
        (
            chat,
            json!({"messages": [{"content": "x"}]}),
            "messages[0].role",
        ),
        (
            chat,
            json!({"messages": message, "functions": []}),
            "functions",
        ),
        (
            chat,
            json!({"messages": message, "top_logprobs": 2}),
            "top_logprobs",
        ),
        (
            chat,
            json!({"messages": message, "response_format": {"type": "xml"}}),
            "response_format.type",
        ),
        (
            chat,
            json!({"messages": message, "tool_choice": "required"}),
            "tool_choice",
        ),
        (
            chat,
            json!({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}),
            "messages[0].content[0].type",
        ),
    ];
    for (path, body, param) in cases {
        let (status, answer) = server.post(path, body.clone());
        let error = &answer["error"];
        assert_eq!(
            (status, &error["param"]),
            (400, &json!(param)),
            "{body}: {answer}"
        );
        assert_eq!(error["type"], "invalid_request_error");
        assert!(error["message"].as_str().is_some_and(|m| !m.is_empty()));
    }
}

#[test]
fn a_prompt_that_is_too_long_is_refused_before_its_grammar_is_compiled() {
    let server = serve(setup());
    let mut body = hello();
    body["response_format"] = json!({"type": "json_schema", "json_schema": {"name": "a",
        "schema": {"type": "nonsense"}}});
    let (status, answer) = server.post("/v1/chat/completions", body.clone());
    assert_eq!(
        (status, &answer["error"]["param"]),
        (400, &json!("response_format"))
    );
    body["messages"][0]["content"] = json!("x ".repeat(4000));
    let (status, answer) = server.post("/v1/chat/completions", body);
    assert_eq!(
        (status, &answer["error"]["code"]),
        (400, &json!("context_length_exceeded"))
    );
}

#[test]
fn unknown_routes_methods_and_bodies_get_an_envelope_too() {
    let server = serve(setup());
    assert_eq!(server.get("/nothing").0, 404);
    assert_eq!(server.get("/v1/completions").0, 405);
    let (status, _, body) = server.exchange("POST", "/v1/completions", "{not json");
    assert_eq!(status, 400);
    assert!(body.starts_with("{\"error\":"), "{body}");
    let deep = "[".repeat(100_000);
    assert_eq!(server.exchange("POST", "/v1/completions", &deep).0, 400);
}

#[test]
fn before_the_model_is_loaded_the_answer_is_503() {
    let mut setup = setup();
    setup.model = None;
    let server = serve(setup);
    assert_eq!(server.get("/health").0, 503);
    let (status, head, _) = server.exchange("POST", "/v1/chat/completions", &hello().to_string());
    assert_eq!(status, 503);
    assert!(head.to_lowercase().contains("retry-after: 1"), "{head}");
}

#[test]
fn a_failure_in_a_stream_is_told_in_the_stream() {
    let server = serve(setup());
    let lines = server.stream("/v1/completions", json!({"prompt": [1, POISON]}));
    assert_eq!(lines.len(), 1);
    assert!(lines[0].contains("poisoned"), "{lines:?}");
    let (status, _) = server.post("/v1/completions", json!({"prompt": [1, POISON]}));
    assert_eq!(status, 500);
    // Greedy, so that it does not poison itself.
    let sober = json!({"prompt": [1, 2], "temperature": 0});
    assert_eq!(server.post("/v1/completions", sober).0, 200);
}

#[test]
fn a_dead_engine_is_an_error_and_not_a_silence() {
    let server = serve(setup());
    let (status, error) = server.post("/v1/completions", json!({"prompt": [1, BOMB]}));
    assert_eq!(
        (status, &error["error"]["code"]),
        (500, &json!("engine_failed"))
    );
    assert_eq!(
        server.post("/v1/completions", json!({"prompt": [1]})).0,
        500
    );
}
