//! Answers in the background: they outlive who asked, and are read from where a reader was.

use super::*;

/// An answer of so many tokens that its end is not near.
const ENDLESS: usize = 900;

fn slow() -> Server {
    let model = Fake {
        pause: Duration::from_millis(5),
        ..Fake::default()
    };
    serve(Setup {
        model: Some(model),
        ..setup()
    })
}

fn begin(server: &Server, tokens: usize) -> Value {
    let body =
        json!({"input": "go", "background": true, "max_output_tokens": tokens, "temperature": 0});
    let (status, begun) = server.post("/v1/responses", body);
    assert_eq!(status, 200, "{begun}");
    assert_eq!(begun["background"], true);
    begun
}

fn path(answer: &Value) -> String {
    format!("/v1/responses/{}", answer["id"].as_str().expect("an id"))
}

fn until(server: &Server, answer: &Value, status: &str) -> Value {
    let start = std::time::Instant::now();
    loop {
        let (code, shown) = server.get(&path(answer));
        assert_eq!(code, 200, "{shown}");
        if shown["status"] == status {
            return shown;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "{shown}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn events(server: &Server, path: &str) -> Vec<Value> {
    let (status, _, text) = server.exchange("GET", path, "");
    assert_eq!(status, 200, "{text}");
    let data = text.lines().filter_map(|l| l.strip_prefix("data: "));
    data.map(|d| serde_json::from_str(d).expect("JSON"))
        .collect()
}

#[test]
fn an_answer_in_the_background_is_given_whoever_stays() {
    let server = serve(setup());
    let begun = begin(&server, 5);
    assert!(
        ["queued", "in_progress", "completed", "incomplete"]
            .contains(&begun["status"].as_str().expect("a status"))
    );
    let shown = until(&server, &begun, "incomplete");
    assert_eq!(shown["incomplete_details"]["reason"], "max_output_tokens");
    let at_once = json!({"input": "go", "max_output_tokens": 5, "temperature": 0});
    let (_, at_once) = server.post("/v1/responses", at_once);
    assert_eq!(
        shown["output"][0]["content"],
        at_once["output"][0]["content"]
    );
    // What lasts is the same without the events.
    server
        .door
        .background
        .forget(shown["id"].as_str().expect("an id"));
    let (_, stored) = server.get(&path(&begun));
    assert_eq!(stored["output"], shown["output"]);
    let (status, refused) = server.get(&format!("{}?stream=true", path(&begun)));
    assert_eq!(
        (status, &refused["error"]["param"]),
        (400, &json!("stream"))
    );
}

#[test]
fn its_events_are_read_from_where_a_reader_was() {
    let server = serve(setup());
    let begun = begin(&server, 6);
    let all = events(&server, &format!("{}?stream=true", path(&begun)));
    let kinds: Vec<&str> = all
        .iter()
        .map(|e| e["type"].as_str().expect("a type"))
        .collect();
    assert_eq!(
        kinds[..3],
        [
            "response.created",
            "response.queued",
            "response.in_progress"
        ]
    );
    assert_eq!(all[1]["response"]["status"], "queued");
    assert_eq!(*kinds.last().expect("an end"), "response.incomplete");
    let numbers: Vec<u64> = all
        .iter()
        .filter_map(|e| e["sequence_number"].as_u64())
        .collect();
    assert_eq!(numbers, (0..all.len() as u64).collect::<Vec<_>>());
    let later = events(
        &server,
        &format!("{}?stream=true&starting_after=3", path(&begun)),
    );
    assert_eq!(later, all[4..]);
    let last = all.len() - 1;
    let none = events(
        &server,
        &format!("{}?stream=true&starting_after={last}", path(&begun)),
    );
    assert_eq!(none, Vec::<Value>::new());
    let body = json!({"input": "go", "background": true, "max_output_tokens": 6, "temperature": 0});
    let streamed = server.stream("/v1/responses", body);
    assert_eq!(streamed.len(), all.len(), "the asker reads the same");
}

#[test]
fn a_cancelled_one_says_so_and_what_was_said_stays() {
    let server = slow();
    let begun = begin(&server, ENDLESS);
    let mut stream = server.connect();
    let request = format!(
        "GET {}?stream=true HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        path(&begun)
    );
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut seen = Vec::new();
    let mut piece = [0; 1024];
    while !String::from_utf8_lossy(&seen).contains("output_text.delta") {
        let n = stream.read(&mut piece).expect("events");
        assert!(n > 0, "no words came");
        seen.extend_from_slice(&piece[..n]);
    }
    let (status, cancelled) = server.post(&format!("{}/cancel", path(&begun)), json!({}));
    assert_eq!(
        (status, &cancelled["status"]),
        (200, &json!("cancelled")),
        "{cancelled}"
    );
    stream.read_to_end(&mut seen).expect("an end");
    assert!(String::from_utf8_lossy(&seen).contains("event: response.incomplete"));
    let words = cancelled["output"][0]["content"][0]["text"]
        .as_str()
        .expect("words");
    assert!(!words.is_empty());
    // It is so afterwards, too, and a second time changes nothing.
    server
        .door
        .background
        .forget(cancelled["id"].as_str().expect("an id"));
    let (_, stored) = server.get(&path(&begun));
    assert_eq!(stored["status"], "cancelled");
    assert_eq!(stored["output"][0]["content"][0]["text"], words);
    let (status, again) = server.post(&format!("{}/cancel", path(&begun)), json!({}));
    assert_eq!((status, &again["status"]), (200, &json!("cancelled")));
    let on = json!({"input": "and", "previous_response_id": begun["id"], "max_output_tokens": 2});
    assert_eq!(server.post("/v1/responses", on).0, 200);
}

#[test]
fn so_many_of_a_user_are_on_their_way_and_no_more() {
    let server = slow();
    let all: Vec<Value> = (0..8).map(|_| begin(&server, ENDLESS)).collect();
    let body = json!({"input": "go", "background": true});
    let (status, refused) = server.post("/v1/responses", body);
    let code = &refused["error"]["code"];
    assert_eq!((status, code), (429, &json!("too_many_in_background")));
    let (status, _, _) = server.exchange("DELETE", &path(&all[7]), "");
    assert_eq!(status, 400, "it is on its way");
    for answer in all.iter().rev() {
        let (status, cancelled) = server.post(&format!("{}/cancel", path(answer)), json!({}));
        assert_eq!(status, 200, "{cancelled}");
        assert!(
            ["cancelled", "incomplete"].contains(&cancelled["status"].as_str().expect("a status"))
        );
    }
    until(&server, &begin(&server, 2), "incomplete");
}

#[test]
fn what_cannot_be_in_the_background_is_refused_by_name() {
    let server = serve(setup());
    let body = json!({"input": "go", "background": true, "store": false});
    let (status, refused) = server.post("/v1/responses", body);
    assert_eq!(
        (status, &refused["error"]["param"]),
        (400, &json!("background"))
    );
    let (_, plain) = server.post(
        "/v1/responses",
        json!({"input": "go", "max_output_tokens": 2}),
    );
    let (status, refused) = server.post(&format!("{}/cancel", path(&plain)), json!({}));
    assert_eq!((status, &refused["error"]["param"]), (400, &json!("id")));
    let (status, refused) = server.get(&format!("{}?stream=true&starting_after=-1", path(&plain)));
    assert_eq!((status, &refused["error"]["param"]), (400, &json!("query")));
    for (method, path) in [
        ("GET", "/v1/responses/resp_0"),
        ("POST", "/v1/responses/resp_0/cancel"),
    ] {
        assert_eq!(server.exchange(method, path, "{}").0, 404, "{path}");
    }
}

#[test]
fn a_failure_is_told_to_whoever_comes_back() {
    let model = Fake {
        script: (1..1000).map(|n| (n, POISON)).collect(),
        ..Fake::default()
    };
    let server = serve(Setup {
        model: Some(model),
        ..setup()
    });
    let begun = begin(&server, 5);
    let shown = until(&server, &begun, "failed");
    assert_eq!(shown["error"]["code"], "server_error");
    let all = events(&server, &format!("{}?stream=true", path(&begun)));
    assert_eq!(all.last().expect("an end")["type"], "response.failed");
}
