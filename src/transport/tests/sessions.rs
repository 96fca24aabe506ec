//! `/v1/sessions` over a socket: what is said there stays, forks part, long texts are read once.

use super::*;

fn done(answer: (u16, Value)) -> Value {
    assert_eq!(answer.0, 200, "{}", answer.1);
    answer.1
}

fn create(server: &Server, body: Value) -> Value {
    done(server.post("/v1/sessions", body))
}

fn send(server: &Server, name: &str, content: &str) -> Value {
    let body = json!({"content": content, "max_tokens": 5, "temperature": 0});
    done(server.post(&format!("/v1/sessions/{name}/send"), body))
}

fn said(answer: &Value) -> &Value {
    &answer["choices"][0]["message"]["content"]
}

fn cached(answer: &Value) -> u64 {
    let cached = &answer["usage"]["prompt_tokens_details"]["cached_tokens"];
    cached.as_u64().expect("a count")
}

fn shown(server: &Server, name: &str) -> Value {
    done(server.get(&format!("/v1/sessions/{name}")))
}

#[test]
fn a_session_says_what_a_chat_of_all_its_messages_says() {
    let server = serve(setup());
    let system = json!({"role": "system", "content": "be kind"});
    create(&server, json!({"name": "talk", "messages": [system]}));
    let first = send(&server, "talk", "one");
    let second = send(&server, "talk", "two");
    let whole = json!({"max_tokens": 5, "temperature": 0, "messages": [system,
        {"role": "user", "content": "one"}, {"role": "assistant", "content": said(&first)},
        {"role": "user", "content": "two"}]});
    let whole = done(server.post("/v1/chat/completions", whole));
    assert_eq!(said(&second), said(&whole));
    let before = first["usage"]["prompt_tokens"].as_u64().expect("a count");
    assert!(cached(&second) > before, "{second}");
    let shown = shown(&server, "talk");
    assert_eq!(shown["message_count"], 5);
    assert_eq!(shown["messages"][0], system);
    assert_eq!(shown["messages"][4]["content"], *said(&second));
    let listed = done(server.get("/v1/sessions"));
    assert_eq!(listed["data"][0]["name"], "talk");
}

#[test]
fn a_session_is_gone_on_with_through_openais_routes_by_its_id_and_by_its_answers() {
    let server = serve(setup());
    let made = create(&server, json!({"name": "talk"}));
    send(&server, "talk", "one");
    let last = &shown(&server, "talk")["last_response_id"];
    for from in [
        json!({"conversation": made["id"]}),
        json!({"conversation": {"id": "talk"}}),
        json!({"previous_response_id": last}),
    ] {
        let mut body = json!({"input": "more", "max_output_tokens": 3});
        body.as_object_mut()
            .expect("an object")
            .extend(from.as_object().cloned().expect("one"));
        done(server.post("/v1/responses", body));
    }
    // The third went on from an older answer, and so beside it.
    assert_eq!(shown(&server, "talk")["message_count"], 6);
    let both = json!({"input": "x", "conversation": "talk", "previous_response_id": last});
    let (status, refused) = server.post("/v1/responses", both);
    assert_eq!(
        (status, &refused["error"]["param"]),
        (400, &json!("conversation"))
    );
}

#[test]
fn a_long_text_is_read_once_and_every_question_to_it_forks() {
    let server = serve(setup());
    let text = "all work and no play ".repeat(20);
    let body = json!({"name": "manual", "content": text, "fixed": true, "read": true});
    let events = server.stream("/v1/sessions", body);
    let events: Vec<Value> = events
        .iter()
        .map(|e| serde_json::from_str(e).expect("JSON"))
        .collect();
    let (made, told) = events.split_last().expect("events");
    assert_eq!(made["name"], "manual");
    let read: Vec<u64> = told.iter().filter_map(|e| e["read"].as_u64()).collect();
    assert!(read.len() > 2 && read.is_sorted(), "{read:?}");
    assert_eq!(read.last().copied(), told[0]["of"].as_u64());
    let answers: Vec<Value> = ["a", "b", "a"]
        .iter()
        .map(|q| send(&server, "manual", q))
        .collect();
    for answer in &answers {
        assert_eq!(cached(answer), read[read.len() - 1]);
    }
    assert_eq!(said(&answers[0]), said(&answers[2]));
    assert_eq!(shown(&server, "manual")["message_count"], 1);
}

#[test]
fn forks_part_and_an_ended_session_is_gone() {
    let server = serve(setup());
    create(
        &server,
        json!({"name": "talk", "options": {"max_tokens": 3}}),
    );
    send(&server, "talk", "one");
    done(server.post("/v1/sessions/talk/fork", json!({"name": "other"})));
    done(server.post(
        "/v1/sessions/other/append",
        json!({"content": "more", "read": true}),
    ));
    assert_eq!(shown(&server, "talk")["message_count"], 2);
    assert_eq!(shown(&server, "other")["message_count"], 3);
    assert_eq!(shown(&server, "other")["options"], json!({"max_tokens": 3}));
    let (status, _, _) = server.exchange("DELETE", "/v1/sessions/talk", "");
    assert_eq!(status, 200);
    let (status, refused) = server.get("/v1/sessions/talk");
    let code = &refused["error"]["code"];
    assert_eq!((status, code), (404, &json!("session_not_found")));
    assert_eq!(shown(&server, "other")["message_count"], 3);
}

#[test]
fn sizes_are_told_in_tokens_and_bytes() {
    let server = serve(setup());
    create(&server, json!({"name": "talk"}));
    let answer = send(&server, "talk", "one");
    let usage = |name: &str| answer["usage"][name].as_u64().expect("a count");
    let measured = done(server.post(
        "/v1/sessions/talk/measure",
        json!({"content": "more words"}),
    ));
    let tokens = measured["tokens"].as_u64().expect("a count");
    let added = measured["added"].as_u64().expect("a count");
    assert!(
        tokens - added >= usage("prompt_tokens") && added > 2,
        "{measured}"
    );
    // A fake state takes 1000 bytes and 10 for each token.
    assert_eq!(measured["bytes"], 1000 + 10 * tokens);
    let told = done(server.post("/v1/sessions/estimate", json!({"tokens": 7})));
    assert_eq!(
        (
            &told["bytes"],
            &told["bytes_per_token"],
            &told["block_tokens"]
        ),
        (&json!(1070), &json!(10), &json!(1))
    );
}

#[test]
fn what_a_session_cannot_do_is_refused_by_name() {
    let server = serve(setup());
    create(&server, json!({"name": "talk"}));
    let cases = [
        ("/v1/sessions", json!({"name": "a b"}), 400, json!("name")),
        (
            "/v1/sessions",
            json!({"name": "talk"}),
            409,
            json!("name_taken"),
        ),
        (
            "/v1/sessions",
            json!({"options": {"top_k": "x"}}),
            400,
            json!("top_k"),
        ),
        (
            "/v1/sessions",
            json!({"content": "a", "messages": []}),
            400,
            json!("content"),
        ),
        (
            "/v1/sessions/talk/send",
            json!({"content": "a", "n": 2}),
            400,
            json!("n"),
        ),
        (
            "/v1/sessions/talk/append",
            json!({}),
            400,
            json!("messages"),
        ),
        ("/v1/sessions/estimate", json!({}), 400, json!("tokens")),
        (
            "/v1/sessions/none/send",
            json!({"content": "a"}),
            404,
            json!("session_not_found"),
        ),
        (
            "/v1/sessions/talk/fork",
            json!({"response_id": "r"}),
            404,
            json!("previous_response_not_found"),
        ),
    ];
    for (path, body, status, named) in cases {
        let (got, refused) = server.post(path, body);
        let error = &refused["error"];
        assert_eq!(got, status, "{path}: {refused}");
        assert!(
            error["param"] == named || error["code"] == named,
            "{path}: {refused}"
        );
    }
}
