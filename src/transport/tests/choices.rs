//! What callers may ask of an answer: how many, how chosen, how scored, what is thought and said.

use serde_json::{Value, json};

use super::{Fake, Tokenizer, fixture, hello, serve, setup};
use crate::service::Specials;

#[test]
fn several_prompts_and_choices_are_numbered_through() {
    let server = serve(setup());
    let body = json!({"prompt": [[1, 2], [3, 4, 5]], "n": 2, "max_tokens": 2, "seed": 5});
    let (status, whole) = server.post("/v1/completions", body);
    assert_eq!(status, 200, "{whole}");
    let indices = whole["choices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["index"].as_u64());
    assert_eq!(
        indices.collect::<Vec<_>>(),
        [Some(0), Some(1), Some(2), Some(3)]
    );
    assert_eq!(whole["usage"]["prompt_tokens"], 5);
    assert_eq!(whole["usage"]["completion_tokens"], 8);
}

#[test]
fn a_stop_string_ends_the_text_and_is_not_in_it() {
    let server = serve(setup());
    let body = json!({"prompt": "abc", "max_tokens": 12, "temperature": 0});
    let (_, whole) = server.post("/v1/completions", body.clone());
    let text = whole["choices"][0]["text"]
        .as_str()
        .expect("text")
        .to_owned();
    let stop: String = text.chars().skip(3).take(2).collect();
    let mut body = body;
    body["stop"] = json!(stop);
    let (_, stopped) = server.post("/v1/completions", body);
    let before = text.split(&stop).next().expect("a beginning");
    assert_eq!(stopped["choices"][0]["text"], json!(before));
    assert_eq!(stopped["choices"][0]["finish_reason"], "stop");
}

#[test]
fn the_same_seed_gives_the_same_text() {
    let server = serve(setup());
    let ask = |seed: u64| {
        let body = json!({"prompt": "abc", "max_tokens": 24, "temperature": 2, "seed": seed});
        server.post("/v1/completions", body).1["choices"][0]["text"].clone()
    };
    assert_eq!(ask(7), ask(7));
    assert_ne!(ask(7), ask(8));
}

#[test]
fn several_answers_streamed_are_the_several_whole_ones() {
    const CHAT: &str = "/v1/chat/completions";
    let server = serve(setup());
    let mut body = hello();
    body["n"] = json!(3);
    body["seed"] = json!(5);
    body["temperature"] = json!(2);
    let (status, whole) = server.post(CHAT, body.clone());
    assert_eq!(status, 200, "{whole}");
    let said = |i: usize| {
        whole["choices"][i]["message"]["content"]
            .as_str()
            .expect("text")
    };
    assert!(
        said(0) != said(1) || said(1) != said(2),
        "three of a kind: {whole}"
    );
    let mut texts = vec![String::new(); 3];
    for line in server.stream(CHAT, body) {
        let chunk: Value = serde_json::from_str(&line).unwrap_or_default();
        for choice in chunk["choices"].as_array().into_iter().flatten() {
            let index = choice["index"].as_u64().expect("an index") as usize;
            texts[index] += choice["delta"]["content"].as_str().unwrap_or_default();
        }
    }
    assert_eq!(texts, [said(0), said(1), said(2)]);
}

#[test]
fn a_bias_decides_and_scores_are_those_without_it() {
    let server = serve(setup());
    let ask = |bias: Value| {
        let body = json!({"prompt": [1, 2], "max_tokens": 1, "temperature": 0, "logprobs": 20,
            "return_tokens_as_token_ids": true, "logit_bias": bias});
        let (status, whole) = server.post("/v1/completions", body);
        assert_eq!(status, 200, "{whole}");
        whole["choices"][0]["logprobs"].clone()
    };
    let free = ask(json!({}));
    let wanted = ask(json!({"42": 100}));
    assert_eq!(wanted["tokens"], json!(["token_id:42"]));
    let favourite = free["tokens"][0].as_str().expect("a name");
    assert_ne!(favourite, "token_id:42");
    // The distribution is the model's own, whatever was chosen from it.
    let of = |scores: &Value| scores["top_logprobs"][0][favourite].clone();
    assert_eq!(of(&wanted), of(&free));
    let banned = json!({favourite.trim_start_matches("token_id:"): -100});
    assert_ne!(ask(banned)["tokens"], free["tokens"]);
}

#[test]
fn every_token_of_a_chat_has_its_score_streamed_and_whole() {
    const CHAT: &str = "/v1/chat/completions";
    let server = serve(setup());
    let mut body = hello();
    body["logprobs"] = json!(true);
    body["top_logprobs"] = json!(2);
    let (_, whole) = server.post(CHAT, body.clone());
    let scores = whole["choices"][0]["logprobs"]["content"]
        .as_array()
        .expect("scores");
    assert_eq!(scores.len(), 6);
    for score in scores {
        assert_eq!(score["top_logprobs"].as_array().map(Vec::len), Some(2));
        // Greedy: the chosen one is the best.
        assert_eq!(score["logprob"], score["top_logprobs"][0]["logprob"]);
    }
    let streamed = server.stream(CHAT, body).into_iter().flat_map(|line| {
        let chunk: Value = serde_json::from_str(&line).unwrap_or_default();
        let scores = chunk["choices"][0]["logprobs"]["content"].as_array();
        scores.cloned().unwrap_or_default()
    });
    assert!(streamed.eq(scores.iter().cloned()));
}

#[test]
fn what_is_thought_is_told_apart_from_what_is_said_in_every_form() {
    const TEMPLATE: &str = "{{ messages[0]['content'] }}<think>";
    let meta = fixture::thinking("tiny");
    let tokenizer = Tokenizer::from_metadata(&meta).expect("a tokenizer");
    let n_prompt = tokenizer.encode("x<think>", Specials::Parse).len();
    let reply = tokenizer.encode("hm</think>yes", Specials::Parse);
    let mut setup = setup();
    setup.thinks = Some(TEMPLATE);
    setup.model = Some(Fake {
        script: (n_prompt..).zip(reply.iter().copied()).collect(),
        ..Fake::default()
    });
    let server = serve(setup);
    let messages = json!([{"role": "user", "content": "x"}]);
    let n = reply.len();
    let body = json!({"messages": messages, "max_tokens": n, "temperature": 0});
    let (_, chat) = server.post("/v1/chat/completions", body.clone());
    let message = &chat["choices"][0]["message"];
    assert_eq!(
        (&message["reasoning_content"], &message["content"]),
        (&json!("hm"), &json!("yes"))
    );
    let (mut thought, mut said) = (String::new(), String::new());
    for line in server.stream("/v1/chat/completions", body.clone()) {
        let chunk: Value = serde_json::from_str(&line).unwrap_or_default();
        let delta = &chunk["choices"][0]["delta"];
        thought += delta["reasoning_content"].as_str().unwrap_or_default();
        said += delta["content"].as_str().unwrap_or_default();
    }
    assert_eq!((&*thought, &*said), ("hm", "yes"));
    let (_, message) = server.post("/v1/messages", body);
    assert_eq!(message["content"][0]["thinking"], "hm");
    assert_eq!(message["content"][1]["text"], "yes");
    let body = json!({"input": "x", "max_output_tokens": n, "temperature": 0});
    let (_, response) = server.post("/v1/responses", body);
    assert_eq!(response["output"][0]["type"], "reasoning");
    assert_eq!(response["output"][0]["content"][0]["text"], "hm");
    assert_eq!(response["output"][1]["content"][0]["text"], "yes");
}
