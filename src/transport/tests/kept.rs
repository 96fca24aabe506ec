//! Answers that are kept: gone on with, shown, forgotten, and whose they are.

use super::*;

const RESPONSES: &str = "/v1/responses";

fn asks(input: &str, more: Value) -> Value {
    let mut body = json!({"input": input, "max_output_tokens": 5, "temperature": 0});
    let fields = more.as_object().expect("an object").clone();
    body.as_object_mut().expect("an object").extend(fields);
    body
}

fn said(server: &Server, body: Value) -> Value {
    let (status, answer) = server.post(RESPONSES, body);
    assert_eq!(status, 200, "{answer}");
    answer
}

fn text(answer: &Value) -> &Value {
    &answer["output"][0]["content"][0]["text"]
}

#[test]
fn an_answer_goes_on_from_another_as_if_all_had_been_sent_again() {
    let server = serve(setup());
    let first = said(&server, asks("one", json!({})));
    let after = |id: &Value, input: &str| asks(input, json!({"previous_response_id": id}));
    let second = said(&server, after(&first["id"], "two"));
    assert_eq!(second["previous_response_id"], first["id"]);
    let turns = |answer: &Value| json!({"role": "assistant", "content": text(answer)});
    let whole = json!([{"role": "user", "content": "one"}, turns(&first),
        {"role": "user", "content": "two"}]);
    let stateless = said(&server, asks("", json!({"input": whole, "store": false})));
    assert_eq!(text(&second), text(&stateless));
    let usage = |answer: &Value| answer["usage"]["input_tokens"].clone();
    assert_eq!(usage(&second), usage(&stateless));
    let cached = &second["usage"]["input_tokens_details"]["cached_tokens"];
    let before = first["usage"]["input_tokens"].as_u64().expect("a count");
    assert!(cached.as_u64() > Some(before), "{cached} after {before}");
    // An old one is a fork: what was said since is not there.
    let fork = said(&server, after(&first["id"], "two"));
    assert_eq!(text(&fork), text(&second));
    assert_ne!(fork["id"], second["id"]);
    let streamed = server.stream(RESPONSES, after(&fork["id"], "three"));
    let last: Value = serde_json::from_str(streamed.last().expect("events")).expect("JSON");
    let third = said(&server, after(&second["id"], "three"));
    assert_eq!(text(&last["response"]), text(&third));
}

#[test]
fn an_item_of_a_kept_answer_can_be_named_by_its_id() {
    let server = serve(setup());
    let first = said(&server, asks("one", json!({})));
    let path = |id: &Value| format!("{RESPONSES}/{}/input_items", id.as_str().expect("an id"));
    let (_, asked) = server.get(&path(&first["id"]));
    let whole = json!([{"role": "user", "content": "one"},
        {"role": "assistant", "content": text(&first)}, {"role": "user", "content": "two"}]);
    let whole = said(&server, asks("", json!({"input": whole})));
    let named = json!([{"type": "item_reference", "id": asked["data"][0]["id"]},
        {"id": first["output"][0]["id"]}, {"role": "user", "content": "two"}]);
    let named = said(&server, asks("", json!({"input": named})));
    assert_eq!(text(&named), text(&whole));
    let tokens = |answer: &Value| answer["usage"]["input_tokens"].clone();
    assert_eq!(tokens(&named), tokens(&whole));
    // What it was asked stays told when the one that it names is forgotten.
    let id = first["id"].as_str().expect("an id");
    assert_eq!(
        server
            .exchange("DELETE", &format!("{RESPONSES}/{id}"), "")
            .0,
        200
    );
    let (_, asked) = server.get(&format!("{}?order=asc", path(&named["id"])));
    assert_eq!(asked["data"][1], first["output"][0]);
}

#[test]
fn an_item_that_is_not_kept_is_refused_by_its_name() {
    let server = serve(setup());
    let stateless = said(&server, asks("one", json!({"store": false})));
    let gone = said(&server, asks("one", json!({})));
    let id = gone["id"].as_str().expect("an id");
    assert_eq!(
        server
            .exchange("DELETE", &format!("{RESPONSES}/{id}"), "")
            .0,
        200
    );
    let mut ids = vec![
        json!("msg_"),
        json!("rs_0"),
        json!("x"),
        json!("m\u{e4}_\u{e4}\u{e4}\u{e4}"),
    ];
    ids.extend([&stateless, &gone].map(|answer| answer["output"][0]["id"].clone()));
    for id in ids {
        let items =
            json!([{"role": "user", "content": "two"}, {"type": "item_reference", "id": id}]);
        let (status, refused) = server.post(RESPONSES, asks("", json!({"input": items})));
        assert_eq!(
            (status, &refused["error"]["param"]),
            (400, &json!("input[1].id")),
            "{id}"
        );
        let why = refused["error"]["message"].as_str().expect("a text");
        assert!(why.contains("an answer that is kept"), "{why}");
    }
    let nameless = json!([{"type": "item_reference"}]);
    let (status, refused) = server.post(RESPONSES, asks("", json!({"input": nameless})));
    assert_eq!(
        (status, &refused["error"]["param"]),
        (400, &json!("input[0].id"))
    );
}

#[test]
fn instructions_are_of_one_answer_alone() {
    let server = serve(setup());
    let plain = said(&server, asks("one", json!({"instructions": "be kind"})));
    let next = said(
        &server,
        asks("two", json!({"previous_response_id": plain["id"]})),
    );
    assert_eq!(next["instructions"], Value::Null);
    let turns = json!([{"role": "user", "content": "one"},
        {"role": "assistant", "content": text(&plain)}, {"role": "user", "content": "two"}]);
    let alone = said(&server, asks("", json!({"input": turns})));
    assert_eq!(text(&next), text(&alone));
}

#[test]
fn a_kept_answer_is_shown_as_it_was_given_until_it_is_forgotten() {
    let server = serve(setup());
    let more = json!({"metadata": {"a": "b"}, "instructions": "short"});
    let given = said(&server, asks("one", more));
    let id = given["id"].as_str().expect("an id");
    let path = format!("{RESPONSES}/{id}");
    assert_eq!(server.get(&path), (200, given.clone()));
    let (status, items) = server.get(&format!("{path}/input_items"));
    assert_eq!(status, 200, "{items}");
    assert_eq!(items["data"][0]["content"][0]["text"], "one");
    assert_eq!(items["first_id"], items["data"][0]["id"]);
    let delete = || server.exchange("DELETE", &path, "");
    let (status, _, body) = delete();
    assert_eq!(status, 200, "{body}");
    assert!(body.contains("\"deleted\":true"), "{body}");
    assert_eq!(server.get(&path).0, 404);
    assert_eq!(delete().0, 404);
    let (status, refused) = server.post(RESPONSES, asks("x", json!({"previous_response_id": id})));
    let error = &refused["error"];
    assert_eq!(
        (status, &error["code"], &error["param"]),
        (
            404,
            &json!("previous_response_not_found"),
            &json!("previous_response_id")
        )
    );
}

#[test]
fn what_is_not_to_be_stored_is_not_there_afterwards() {
    let server = serve(setup());
    let given = said(&server, asks("one", json!({"store": false})));
    assert_eq!(given["store"], false);
    let id = given["id"].as_str().expect("an id");
    assert_eq!(server.get(&format!("{RESPONSES}/{id}")).0, 404);
}

#[test]
fn items_come_in_pages_in_either_order() {
    let server = serve(setup());
    let items: Vec<Value> = (0..3)
        .map(|n| json!({"role": "user", "content": n.to_string()}))
        .collect();
    let given = said(&server, asks("", json!({"input": items})));
    let path = format!(
        "{RESPONSES}/{}/input_items",
        given["id"].as_str().expect("an id")
    );
    let page = |query: &str| server.get(&format!("{path}?{query}"));
    let words = |list: &Value| -> Vec<String> {
        let items = list["data"].as_array().expect("a list").iter();
        items
            .map(|i| i["content"].as_str().expect("words").to_owned())
            .collect()
    };
    let (_, first) = page("order=asc&limit=2");
    assert_eq!(
        (words(&first), &first["has_more"]),
        (vec!["0".into(), "1".into()], &json!(true))
    );
    let after = first["last_id"].as_str().expect("an id");
    let (_, rest) = page(&format!("order=asc&after={after}"));
    assert_eq!(
        (words(&rest), &rest["has_more"]),
        (vec!["2".into()], &json!(false))
    );
    assert_eq!(words(&page("").1), ["2", "1", "0"]);
    for wrong in ["limit=0", "limit=x", "order=up", "after=in_x"] {
        assert_eq!(page(wrong).0, 400, "{wrong}");
    }
}

#[test]
fn an_answer_that_its_caller_left_is_kept_as_far_as_it_came() {
    let mut slow = setup();
    slow.model = Some(Fake {
        pause: Duration::from_millis(5),
        ..Fake::default()
    });
    let server = serve(slow);
    let mut client = server.connect();
    let body = json!({"input": "tell me", "stream": true, "temperature": 0}).to_string();
    let n = body.len();
    let head = format!("POST {RESPONSES} HTTP/1.1\r\nHost: x\r\nContent-Length: {n}\r\n\r\n");
    client
        .write_all((head + &body).as_bytes())
        .expect("it reads");
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(client)).map_while(Result::ok);
    let created = lines.find(|l| l.starts_with("data: ")).expect("events");
    let created: Value = serde_json::from_str(&created["data: ".len()..]).expect("JSON");
    let id = created["response"]["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    lines
        .find(|l| l.contains("output_text.delta"))
        .expect("words");
    drop(lines);
    let start = std::time::Instant::now();
    let kept = loop {
        let (status, kept) = server.get(&format!("{RESPONSES}/{id}"));
        if status == 200 {
            break kept;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "never kept");
        std::thread::sleep(Duration::from_millis(2));
    };
    assert_eq!(kept["status"], "incomplete");
    assert_eq!(kept["incomplete_details"]["reason"], "interrupted");
    assert_ne!(text(&kept), "");
}
