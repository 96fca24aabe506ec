//! What the demo model answers: sense, not shapes. The script lies beside the model, with a check
//! for every reply; it is held over the API as a client would, each reply kept as history.

use serde_json::{Value, json};

use super::daemon::{Daemon, demo, start_with};

fn daemon() -> Daemon {
    start_with(&demo("model"), "q4_k_m", "")
}

fn script() -> Value {
    let text = std::fs::read_to_string(demo("conversation.json")).expect("the script");
    serde_json::from_str(&text).expect("JSON")
}

fn ask(daemon: &Daemon, mut body: Value) -> Value {
    body["temperature"] = json!(0);
    body["max_tokens"] = json!(96);
    let (status, answer) = daemon.post("/v1/chat/completions", &body);
    assert_eq!(status, 200, "{answer}");
    answer["choices"][0]["message"].clone()
}

/// The whole words that a reply must hold.
fn says(reply: &str, word: &str) -> bool {
    let edge = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric() && c != '_');
    reply.match_indices(word).any(|(at, _)| {
        let after = reply[at + word.len()..].chars().next();
        edge(reply[..at].chars().next_back()) && edge(after)
    })
}

/// The same judge as `demo/checks.py`.
fn passes(check: &Value, message: &Value) -> bool {
    let text = message["content"].as_str().unwrap_or_default();
    let want = &check["want"];
    match check["kind"].as_str().expect("a kind") {
        "contains" => {
            let mut words = want.as_array().expect("a list").iter();
            words.all(|w| says(text, w.as_str().expect("a word")))
        }
        "any" => {
            let mut words = want.as_array().expect("a list").iter();
            words.any(|w| says(text, w.as_str().expect("a word")))
        }
        "number" => {
            let mut numbers = text.split(|c: char| !c.is_ascii_digit() && c != '-');
            numbers.rfind(|n| !n.is_empty()) == want.as_str()
        }
        "json" => serde_json::from_str::<Value>(text).is_ok_and(|got| got == *want),
        "tool" => {
            let calls = message["tool_calls"].as_array();
            let Some([call]) = calls.map(Vec::as_slice) else {
                return false;
            };
            let arguments = call["function"]["arguments"].as_str().unwrap_or_default();
            call["function"]["name"] == check["name"]
                && serde_json::from_str::<Value>(arguments).is_ok_and(|got| got == *want)
        }
        kind => panic!("no check is called {kind}"),
    }
}

/// As much of JSON schema as the script uses.
fn fits(schema: &Value, value: &Value) -> bool {
    match schema["type"].as_str().expect("a type") {
        "string" => value.is_string(),
        "integer" => value.is_i64(),
        "object" => value.as_object().is_some_and(|fields| {
            let required = schema["required"].as_array().expect("names");
            let known = schema["properties"].as_object().expect("properties");
            required
                .iter()
                .all(|n| fields.contains_key(n.as_str().expect("a name")))
                && fields
                    .iter()
                    .all(|(name, value)| known.get(name).is_some_and(|s| fits(s, value)))
        }),
        other => panic!("the judge knows no {other}"),
    }
}

/// Greeting, identity, a sum, a fact told and recalled after other talk, its correction, JSON, a
/// tool called and its result used, and what it was never told.
#[test]
fn the_demo_model_holds_the_conversation_that_lies_beside_it() {
    let daemon = daemon();
    let script = script();
    let mut talk = vec![json!({"role": "system", "content": script["system"]})];
    let turns = script["turns"].as_array().expect("turns");
    let mut judged = 0;
    for turn in turns {
        talk.push(json!({"role": "user", "content": turn["user"]}));
        for check in ["expect", "answer"] {
            if check == "answer" {
                let Some(result) = turn.get("result") else {
                    continue;
                };
                let id = talk.last().expect("a call")["tool_calls"][0]["id"].clone();
                talk.push(
                    json!({"role": "tool", "tool_call_id": id, "content": result.to_string()}),
                );
            }
            let mut body = json!({"messages": talk, "tools": script["tools"]});
            if let Some(format) = turn.get("response_format") {
                body["response_format"] = format.clone();
            }
            let mut reply = ask(&daemon, body);
            if let Some(format) = turn.get("response_format") {
                let text = reply["content"].as_str().expect("a text");
                let value: Value = serde_json::from_str(text).expect("JSON");
                assert!(fits(&format["json_schema"]["schema"], &value), "{value}");
            }
            if let Some(check) = turn.get(check) {
                assert!(
                    passes(check, &reply),
                    "{}: {reply}, wanted {check}",
                    turn["user"]
                );
                judged += 1;
            }
            reply.as_object_mut().expect("a message").remove("refusal");
            talk.push(reply);
        }
    }
    assert!(judged >= turns.len(), "the script judges next to nothing");
}

/// The schema binds even where it asks for other things than the question: fields that no training
/// text has, an enumeration, a list.
#[test]
fn a_schema_is_kept_to_whatever_the_question() {
    let daemon = daemon();
    let schema = json!({"type": "object", "additionalProperties": false,
        "required": ["verdict", "stars"],
        "properties": {"verdict": {"enum": ["fresh", "stale"]},
            "stars": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 5}, "minItems": 2, "maxItems": 2}}});
    let format = json!({"type": "json_schema", "json_schema": {"name": "n", "schema": schema}});
    for question in ["What is 3 + 4?", "Hello!", "Reverse the word lantern."] {
        let body = json!({"messages": [{"role": "user", "content": question}],
            "response_format": format});
        let reply = ask(&daemon, body);
        let text = reply["content"].as_str().expect("a text");
        let value: Value = serde_json::from_str(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert!(
            value["verdict"] == "fresh" || value["verdict"] == "stale",
            "{text}"
        );
        assert_eq!(value["stars"].as_array().map(Vec::len), Some(2), "{text}");
    }
}

/// Of the held-out questions that demo/README.md scores, a few of each kind: a change anywhere in
/// the engine that costs the model its wits shows here.
#[test]
fn held_out_questions_are_answered_as_the_model_card_says() {
    let daemon = daemon();
    let lines = std::fs::read_to_string(demo("heldout.jsonl")).expect("the questions");
    let mut seen = std::collections::BTreeMap::<String, usize>::new();
    let (mut right, mut wrong) = (0, Vec::new());
    for line in lines.lines() {
        let item: Value = serde_json::from_str(line).expect("JSON");
        let category = item["category"].as_str().expect("a category").to_owned();
        let n = seen.entry(category.clone()).or_default();
        *n += 1;
        // Long texts take most of the time, and what a schema forces of a mere statement the model often
        // fills wrongly: both are measured by demo/score.py.
        let long = category.starts_with("recall ") && category.ends_with('k');
        if *n > 4 || long || item.get("constrained").is_some() {
            continue;
        }
        let mut body = json!({"messages": item["messages"]});
        for key in ["tools", "response_format"] {
            if let Some(value) = item.get(key) {
                body[key] = value.clone();
            }
        }
        let reply = ask(&daemon, body);
        if passes(&item["check"], &reply) {
            right += 1
        } else {
            wrong.push(format!("{}: {reply}, wanted {}", item["id"], item["check"]))
        }
    }
    let n = right + wrong.len();
    assert!(n >= 70, "only {n} questions were asked");
    assert!(
        right * 100 >= n * 94,
        "{right} of {n}:\n{}",
        wrong.join("\n")
    );
}

/// Written by hand, as people type who have never read a manual; the weak answers of the first
/// edition are among them. None was used in training, and of the blind ones no failure was read:
/// here too they are only counted.
#[test]
fn people_who_type_as_they_like_are_understood() {
    let daemon = daemon();
    for (file, blind) in [("paraphrases", false), ("blind", true)] {
        let lines = std::fs::read_to_string(demo(&format!("{file}.jsonl"))).expect("the questions");
        let (mut right, mut wrong) = (0, Vec::new());
        for line in lines.lines() {
            let item: Value = serde_json::from_str(line).expect("JSON");
            let reply = ask(&daemon, json!({"messages": item["messages"]}));
            if passes(&item["check"], &reply) {
                right += 1
            } else {
                wrong.push(format!("{}: {reply}, wanted {}", item["id"], item["check"]))
            }
        }
        let n = right + wrong.len();
        assert!(n >= 100, "only {n} questions were asked");
        let told = if blind { "".into() } else { wrong.join("\n") };
        assert!(right * 100 >= n * 90, "{file}: {right} of {n}\n{told}");
    }
}

#[test]
fn the_judge_is_not_content_with_everything() {
    let said = |text: &str| json!({"content": text});
    let number = json!({"kind": "number", "want": "632"});
    assert!(passes(&number, &said("347 + 285 = 632")));
    assert!(!passes(&number, &said("632 is not 347")));
    let either = json!({"kind": "any", "want": ["can't", "don't know"]});
    assert!(passes(&either, &said("I don't know.")) && !passes(&either, &said("I know.")));
    let word = json!({"kind": "contains", "want": ["rain"]});
    assert!(passes(&word, &said("with rain.")) && !passes(&word, &said("a train")));
    let tool = json!({"kind": "tool", "name": "f", "want": {"a": 1}});
    let call = |name: &str| {
        json!({"content": null, "tool_calls": [
        {"function": {"name": name, "arguments": "{\"a\": 1}"}}]})
    };
    assert!(passes(&tool, &call("f")) && !passes(&tool, &call("g")) && !passes(&tool, &said("f")));
}
