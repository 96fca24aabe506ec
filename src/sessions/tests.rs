use std::sync::Arc;

use serde_json::Value;

use super::*;
use crate::request::{FinishReason, Usage};

fn turn(id: &str, question: &str) -> Turn {
    Turn {
        id: id.into(),
        created: 1,
        input: vec![Message {
            role: "user".into(),
            content: question.into(),
            ..Message::default()
        }],
        answer: Answer {
            text: format!("to {question}"),
            ..Answer::default()
        },
        ending: Ending::Whole(FinishReason::Stop),
        usage: Usage::default(),
        tokens: vec![1],
        face: Value::Null,
    }
}

fn say(sessions: &Arc<Sessions>, after: Option<&str>, id: &str) {
    let origin = after.map_or(Origin::New, |id| Origin::Answer(id.into()));
    let claim = sessions.claim(1, &origin).expect("it is known");
    Sessions::settle(Some((claim, turn(id, id))));
}

fn words(sessions: &Arc<Sessions>, after: &str) -> Vec<String> {
    let claim = sessions.claim(1, &Origin::Answer(after.into()));
    let history = claim.expect("it is known").history();
    history.into_iter().map(|m| m.content).collect()
}

#[test]
fn an_answer_is_gone_on_with_and_an_old_one_is_a_fork() {
    let sessions = Arc::new(Sessions::default());
    say(&sessions, None, "a");
    say(&sessions, Some("a"), "b");
    say(&sessions, Some("a"), "c");
    say(&sessions, Some("c"), "d");
    assert_eq!(words(&sessions, "b"), ["a", "to a", "b", "to b"]);
    assert_eq!(
        words(&sessions, "d"),
        ["a", "to a", "c", "to c", "d", "to d"]
    );
    let place = |id| sessions.answer(1, id).expect("it is known").conversation;
    assert_eq!(place("a"), place("b"));
    assert_eq!(place("c"), place("d"));
    assert_ne!(place("b"), place("c"));
}

#[test]
fn two_who_go_on_at_once_from_one_answer_both_stay() {
    let sessions = Arc::new(Sessions::default());
    say(&sessions, None, "a");
    let claim = || {
        sessions
            .claim(1, &Origin::Answer("a".into()))
            .expect("known")
    };
    let (first, second) = (claim(), claim());
    Sessions::settle(Some((second, turn("second", "2"))));
    Sessions::settle(Some((first, turn("first", "1"))));
    assert_eq!(words(&sessions, "first"), ["a", "to a", "1", "to 1"]);
    assert_eq!(words(&sessions, "second"), ["a", "to a", "2", "to 2"]);
}

#[test]
fn a_forgotten_answer_is_gone_and_what_followed_it_keeps_its_history() {
    let sessions = Arc::new(Sessions::default());
    say(&sessions, None, "a");
    say(&sessions, Some("a"), "b");
    sessions.forget_answer(1, "a").expect("it was there");
    let unknown = Err(Refusal::NoSuchAnswer { id: "a".into() });
    assert_eq!(sessions.forget_answer(1, "a"), unknown);
    assert!(sessions.claim(1, &Origin::Answer("a".into())).is_err());
    assert_eq!(words(&sessions, "b"), ["a", "to a", "b", "to b"]);
}

#[test]
fn another_users_answer_is_as_unknown_as_one_that_never_was() {
    let sessions = Arc::new(Sessions::default());
    say(&sessions, None, "a");
    let refused = |uid, id: &str| sessions.answer(uid, id).map(drop).unwrap_err();
    assert_eq!(refused(2, "a"), Refusal::NoSuchAnswer { id: "a".into() });
    assert_eq!(refused(1, "z"), Refusal::NoSuchAnswer { id: "z".into() });
}

#[test]
fn the_oldest_goes_first_and_what_a_fork_shares_with_it_stays() {
    let sessions = Arc::new(Sessions::default());
    say(&sessions, None, "a");
    say(&sessions, Some("a"), "b");
    say(&sessions, Some("a"), "fork");
    say(&sessions, Some("a"), "third");
    for n in 0..1022 {
        // Used again and again, the fork stays.
        sessions
            .claim(1, &Origin::Answer("fork".into()))
            .expect("known");
        say(&sessions, None, &format!("other {n}"));
    }
    assert!(sessions.answer(1, "b").is_err());
    assert_eq!(words(&sessions, "fork"), ["a", "to a", "fork", "to fork"]);
    assert_eq!(words(&sessions, "a"), ["a", "to a"]);
}
