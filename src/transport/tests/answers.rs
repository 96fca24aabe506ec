//! What routes answer, whole and as a stream.

use super::*;

#[test]
fn models_are_listed_and_an_unknown_one_is_not_found() {
    let server = serve(setup());
    let (status, list) = server.get("/v1/models");
    assert_eq!((status, &list["data"][0]["id"]), (200, &json!("fake")));
    assert_eq!(server.get("/v1/models/fake").0, 200);
    let (status, error) = server.get("/v1/models/other");
    let code = &error["error"]["code"];
    assert_eq!((status, code), (404, &json!("model_not_found")));
}

#[test]
fn an_answer_says_how_much_of_its_prompt_was_kept_and_why_not_more() {
    let server = serve(Setup {
        // However loaded the machine is, a stream's head waits for it.
        http: CallLimits {
            ping: Duration::from_secs(60),
            ..CallLimits::default()
        },
        ..setup()
    });
    let kept = |messages: Value, stream: bool| {
        let body = json!({"messages": messages, "max_tokens": 2, "stream": stream});
        let (status, head, body) =
            server.exchange("POST", "/v1/chat/completions", &body.to_string());
        assert_eq!(status, 200, "{body}");
        let line = head
            .lines()
            .find_map(|l| l.strip_prefix("x-deltad-cache: "));
        line.unwrap_or_else(|| panic!("{head}")).to_owned()
    };
    let said = |role: &str, content: &str| json!({"role": role, "content": content});
    let (system, long) = (said("system", "be brief"), "why ".repeat(99));
    let first = json!([system, said("user", &long)]);
    assert_eq!(kept(first.clone(), false), "miss; empty");
    let again = kept(first, true);
    assert!(
        again.starts_with("hit; tokens=") && again.ends_with("; no-state"),
        "{again}"
    );
    let other = kept(json!([system, said("user", "who?")]), true);
    assert_eq!(other, "miss; diverged; message=1");
    let metrics = server.exchange("GET", "/metrics", "").2;
    for found in ["empty", "no_state", "diverged"] {
        let line = format!("deltad_looked_for_total{{found=\"{found}\"}} 1");
        assert!(metrics.contains(&line), "{metrics}");
    }
}

#[test]
fn a_streamed_chat_says_what_a_plain_one_says() {
    let server = serve(setup());
    let (status, whole) = server.post("/v1/chat/completions", hello());
    assert_eq!(status, 200, "{whole}");
    assert_eq!(whole["choices"][0]["finish_reason"], "length");
    assert_eq!(whole["usage"]["completion_tokens"], 6);
    let mut body = hello();
    body["stream_options"] = json!({"include_usage": true});
    let lines = server.stream("/v1/chat/completions", body);
    assert_eq!(lines.last().expect("lines"), "[DONE]");
    let chunks = lines[..lines.len() - 1].iter();
    let chunks: Vec<Value> = chunks
        .map(|l| serde_json::from_str(l).expect("JSON"))
        .collect();
    assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant");
    let text: String = chunks
        .iter()
        .filter_map(|c| c["choices"][0]["delta"]["content"].as_str())
        .collect();
    assert_eq!(whole["choices"][0]["message"]["content"], json!(text));
    let last = chunks.last().expect("chunks");
    assert_eq!(last["choices"], json!([]));
    assert_eq!(last["usage"]["completion_tokens"], 6);
    assert!(last["usage"]["prompt_tokens_details"]["cached_tokens"].is_u64());
}

#[test]
fn an_echoed_prompt_has_a_score_for_each_token_but_the_first() {
    let server = serve(setup());
    let prompt: Vec<u32> = (0..150).map(|i| i % 120).collect();
    let body = json!({"prompt": prompt, "echo": true, "max_tokens": 0, "logprobs": 3,
        "return_tokens_as_token_ids": true});
    let (status, whole) = server.post("/v1/completions", body);
    assert_eq!(status, 200, "{whole}");
    let scores = &whole["choices"][0]["logprobs"];
    let names: Vec<String> = prompt.iter().map(|t| format!("token_id:{t}")).collect();
    assert_eq!(scores["tokens"], json!(names));
    let values = scores["token_logprobs"].as_array().expect("values");
    assert!(values[0].is_null() && values[1..].iter().all(Value::is_f64));
    for (i, top) in scores["top_logprobs"]
        .as_array()
        .unwrap()
        .iter()
        .enumerate()
        .skip(1)
    {
        let top = top.as_object().expect("a table");
        assert!(top.len() == 3 || top.len() == 4);
        assert_eq!(top[&names[i]], values[i]);
    }
    assert_eq!(whole["usage"]["completion_tokens"], 0);
}

#[test]
fn the_token_that_ends_a_turn_has_a_score_and_no_text() {
    let end = fixture::tokenizer("tiny").end_tokens()[0];
    // The model's vocabulary here is smaller than the tokenizer's: any token may end by id.
    assert!(end >= 256);
    let server = serve(setup());
    let body = json!({"prompt": [1, 2, 3], "max_tokens": 1, "logprobs": 20, "temperature": 0});
    let (_, whole) = server.post("/v1/completions", body);
    let scores = &whole["choices"][0]["logprobs"];
    assert_eq!(scores["tokens"].as_array().map(Vec::len), Some(1));
    assert_eq!(
        scores["top_logprobs"][0].as_object().map(|t| t.len()),
        Some(20)
    );
}

#[test]
fn text_goes_to_tokens_and_back() {
    let server = serve(setup());
    let (_, tokens) = server.post("/tokenize", json!({"content": "hello, wörld"}));
    let (_, text) = server.post("/detokenize", tokens);
    assert_eq!(text, json!({"content": "hello, wörld"}));
}

#[test]
fn a_long_prefill_is_not_silent() {
    let mut setup = setup();
    setup.http.ping = Duration::from_millis(5);
    setup.model = Some(Fake {
        pause: Duration::from_millis(30),
        ..Fake::default()
    });
    let server = serve(setup);
    let body = json!({"prompt": vec![1; 160], "max_tokens": 1, "stream": true});
    let (_, _, text) = server.exchange("POST", "/v1/completions", &body.to_string());
    let ping = text.find(": ping").expect("a ping");
    assert!(ping < text.find("data: ").expect("data"));
}

#[test]
fn a_client_that_hangs_up_frees_its_sequence() {
    for stream in [true, false] {
        let mut setup = setup();
        let model = Fake {
            pause: Duration::from_millis(5),
            ..Fake::default()
        };
        let (alive, fed) = (model.alive.clone(), model.fed.clone());
        setup.model = Some(model);
        let server = serve(setup);
        let mut client = server.connect();
        let body = json!({"prompt": "x", "max_tokens": 900, "ignore_eos": true, "stream": stream});
        let (n, body) = (body.to_string().len(), body);
        write!(
            client,
            "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {n}\r\n\r\n{body}"
        )
        .unwrap();
        let alive = || alive.load(std::sync::atomic::Ordering::Relaxed);
        while alive() == 0 {
            std::thread::yield_now();
        }
        drop(client);
        while alive() > 0 {
            std::thread::yield_now();
        }
        let fed = fed.load(std::sync::atomic::Ordering::Relaxed);
        assert!(fed < 900, "it ran to its end, stream: {stream}");
    }
}

#[test]
fn counters_are_told_to_prometheus() {
    let server = serve(setup());
    server.post("/v1/chat/completions", hello());
    let (status, _, text) = server.exchange("GET", "/metrics", "");
    assert_eq!(status, 200);
    let uid = rustix::process::getuid().as_raw();
    let wanted = [
        "deltad_completion_tokens_total 6".to_owned(),
        "deltad_first_token_seconds_count 1".to_owned(),
        "deltad_between_tokens_seconds_count 5".to_owned(),
        format!("deltad_caller_requests_total{{uid=\"{uid}\"}} 1"),
        format!("deltad_caller_completion_tokens_total{{uid=\"{uid}\"}} 6"),
    ];
    for line in wanted {
        assert!(text.contains(&line), "no {line} in {text}");
    }
}

#[test]
fn constrained_answers_and_forced_calls_are_what_was_asked_for() {
    let server = serve(Setup {
        model: Some(Fake::default()),
        ..setup()
    });
    assert!(server.door.service.get().is_some());
    let mut body = hello();
    body["response_format"] = json!({"type": "json_schema", "json_schema": {"name": "a",
        "schema": {"type": "object", "properties": {"a": {"type": "boolean"}},
            "required": ["a"], "additionalProperties": false}}});
    body["max_tokens"] = json!(200);
    let (status, whole) = server.post("/v1/chat/completions", body);
    assert_eq!(status, 200, "{whole}");
    let text = whole["choices"][0]["message"]["content"]
        .as_str()
        .expect("text");
    let value: Value = serde_json::from_str(text).expect("JSON");
    assert!(value["a"].is_boolean(), "{text}");
    assert_eq!(whole["choices"][0]["finish_reason"], "stop");
}
