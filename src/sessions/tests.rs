use std::sync::Arc;

use serde_json::Value;

use super::*;
use crate::request::{FinishReason, Message, Origin, Part, Refusal, TemplateOptions, Usage};

mod carry;

fn said(text: &str) -> Answer {
    let mut answer = Answer::default();
    answer.add(Part::Text(text.into()));
    answer.close();
    answer
}

fn turn(id: &str, question: &str) -> Turn {
    Turn {
        id: id.into(),
        created: 1,
        ended: Some(2),
        input: vec![Message {
            role: "user".into(),
            content: question.into(),
            ..Message::default()
        }],
        answer: Some(said(&format!("to {question}"))),
        ending: Ending::Whole(FinishReason::Stop),
        usage: Usage::default(),
        before: Vec::new(),
        tools: Vec::new(),
        options: TemplateOptions::default(),
        face: Value::Null,
    }
}

fn ends(claim: Claim, turn: Turn) {
    let tokens = vec![1];
    Sessions::settle(Some(Ended {
        claim,
        turn,
        tokens,
    }));
}

fn say(sessions: &Arc<Sessions>, after: Option<&str>, id: &str) {
    let origin = after.map_or(Origin::New, |id| Origin::Answer(id.into()));
    let claim = sessions.claim(1, &origin).expect("it is known");
    ends(claim, turn(id, id));
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
    ends(second, turn("second", "2"));
    ends(first, turn("first", "1"));
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

fn named(name: &str) -> About {
    About {
        name: Some(name.into()),
        ..About::default()
    }
}

fn user(words: &str) -> Vec<Message> {
    turn("", words).input
}

fn in_session(who: &str) -> Origin {
    let (who, alone) = (who.into(), true);
    Origin::Session { who, alone }
}

fn contents(sessions: &Sessions, who: &str) -> Vec<String> {
    let messages = sessions.messages(1, who).expect("it is there");
    messages.into_iter().map(|m| m.content).collect()
}

#[test]
fn a_session_is_found_by_name_and_by_id_and_answers_one_at_a_time() {
    let sessions = Arc::new(Sessions::default());
    let made = sessions
        .create(1, named("talk"), user("before"))
        .expect("room");
    let claim = sessions.claim(1, &in_session("talk")).expect("it is free");
    let busy = sessions.claim(1, &in_session(&made.id)).map(drop);
    assert_eq!(
        busy,
        Err(Refusal::SessionBusy {
            who: made.id.clone()
        })
    );
    ends(claim, turn("a", "q"));
    drop(sessions.claim(1, &in_session("talk")).expect("free again"));
    drop(sessions.claim(1, &in_session("talk")).expect("free again"));
    assert_eq!(contents(&sessions, &made.id), ["before", "q", "to q"]);
    let summary = sessions.summary(1, "talk").expect("it is there");
    assert_eq!((summary.messages, summary.last.as_deref()), (3, Some("a")));
    assert_eq!(sessions.list(2).len(), 0);
    assert_eq!(sessions.delete(1, "talk"), Ok(made.id));
    assert!(sessions.claim(1, &Origin::Answer("a".into())).is_err());
}

#[test]
fn an_answer_in_a_session_that_ended_meanwhile_is_not_kept() {
    let sessions = Arc::new(Sessions::default());
    sessions
        .create(1, named("talk"), user("before"))
        .expect("room");
    let claim = sessions.claim(1, &in_session("talk")).expect("it is free");
    sessions.delete(1, "talk").expect("it was there");
    ends(claim, turn("a", "q"));
    assert!(sessions.answer(1, "a").is_err());
}

#[test]
fn a_fork_goes_its_own_way_from_the_end_or_from_an_answer() {
    let sessions = Arc::new(Sessions::default());
    sessions
        .create(1, named("talk"), user("before"))
        .expect("room");
    for id in ["a", "b"] {
        let claim = sessions.claim(1, &in_session("talk")).expect("it is free");
        ends(claim, turn(id, id));
    }
    sessions
        .fork(1, "talk", None, named("end"))
        .expect("a fork");
    sessions
        .fork(1, "talk", Some("a"), named("early"))
        .expect("a fork");
    sessions
        .append(1, "early", user("more"))
        .expect("it is free");
    assert_eq!(contents(&sessions, "end"), contents(&sessions, "talk"));
    assert_eq!(
        contents(&sessions, "early"),
        ["before", "a", "to a", "more"]
    );
    let taken = sessions.fork(1, "talk", None, named("end")).map(drop);
    assert_eq!(taken, Err(Refusal::NameTaken { name: "end".into() }));
    // At an answer that it has from another.
    sessions
        .fork(1, "end", Some("a"), named("inherited"))
        .expect("a fork");
    assert_eq!(contents(&sessions, "inherited"), ["before", "a", "to a"]);
    let absent = sessions
        .fork(1, "early", Some("b"), named("absent"))
        .map(drop);
    assert_eq!(absent, Err(Refusal::NoSuchAnswer { id: "b".into() }));
}

#[test]
fn questions_to_what_is_fixed_leave_it_as_it_is_and_wait_for_nobody() {
    let sessions = Arc::new(Sessions::default());
    let fixed = About {
        fixed: true,
        ..named("manual")
    };
    sessions
        .create(1, fixed, user("a long text"))
        .expect("room");
    let first = sessions.claim(1, &in_session("manual")).expect("free");
    let second = sessions.claim(1, &in_session("manual")).expect("free");
    ends(first, turn("a", "q"));
    ends(second, turn("b", "r"));
    assert_eq!(contents(&sessions, "manual"), ["a long text"]);
    assert_eq!(words(&sessions, "b"), ["a long text", "r", "to r"]);
    assert!(sessions.append(1, "manual", user("more")).is_err());
}

#[test]
fn a_user_holds_so_many_sessions_and_names_are_checked() {
    let sessions = Arc::new(Sessions::default());
    for wrong in ["", "sess_1", "a/b", "a b", ".a", &"x".repeat(65)] {
        let refused = sessions.create(1, named(wrong), Vec::new()).map(drop);
        assert!(matches!(refused, Err(Refusal::Invalid { .. })), "{wrong}");
    }
    for _ in 0..MAX_HELD {
        sessions
            .create(1, About::default(), Vec::new())
            .expect("room");
    }
    let limit = MAX_HELD;
    let refused = sessions.create(1, About::default(), Vec::new()).map(drop);
    assert_eq!(refused, Err(Refusal::TooManySessions { limit }));
    sessions
        .create(2, About::default(), Vec::new())
        .expect("room for others");
}

fn on_disk(dir: &std::path::Path) -> Arc<Sessions> {
    of_model(dir, 7)
}

fn of_model(dir: &std::path::Path, model: u8) -> Arc<Sessions> {
    let digest = store::Digest([7; 32]);
    Arc::new(Sessions::new(Some(Lasting {
        place: Place::Disk(dir.to_owned()),
        quota: store::Quota {
            disk: 1 << 20,
            floor: 0,
        },
        identity: store::Identity {
            model: store::Digest([model; 32]),
            tokenizer: digest,
            template: digest,
            cache: "f16".into(),
        },
        model: format!("model-{model}"),
    })))
}

fn lasting(name: &str) -> About {
    About {
        lasting: true,
        ..named(name)
    }
}

#[test]
fn what_is_to_last_is_there_in_the_next_process_and_what_was_deleted_is_not() {
    let dir = tempfile::tempdir().expect("a directory");
    let sessions = on_disk(dir.path());
    sessions
        .create(1, lasting("talk"), user("before"))
        .expect("room");
    sessions
        .create(1, lasting("gone"), user("before"))
        .expect("room");
    sessions
        .create(1, named("passing"), user("before"))
        .expect("room");
    let claim = sessions.claim(1, &in_session("talk")).expect("it is free");
    let (turn, tokens) = (turn("a", "q"), vec![1, 2, 3]);
    let receipt = Sessions::settle(Some(Ended {
        claim,
        turn,
        tokens,
    }));
    assert!(receipt.is_durable());
    say(&sessions, Some("a"), "b");
    say(&sessions, Some("a"), "fork");
    say(&sessions, None, "c");
    sessions
        .fork(1, "talk", Some("a"), lasting("early"))
        .expect("a fork");
    sessions.forget_answer(1, "b").expect("it was there");
    sessions.forget_answer(1, "c").expect("it was there");
    sessions.delete(1, "gone").expect("it was there");
    drop(sessions);
    let sessions = on_disk(dir.path());
    assert_eq!(
        contents(&sessions, "talk"),
        ["before", "q", "to q", "b", "to b"]
    );
    assert_eq!(contents(&sessions, "early"), ["before", "q", "to q"]);
    assert_eq!(
        words(&sessions, "fork"),
        ["before", "q", "to q", "fork", "to fork"]
    );
    for forgotten in ["b", "c"] {
        assert!(sessions.answer(1, forgotten).is_err(), "{forgotten}");
    }
    let names: Vec<_> = sessions
        .list(1)
        .into_iter()
        .filter_map(|s| s.about.name)
        .collect();
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(sessions.list(1).iter().all(|s| s.durable));
    // Another user's are another directory's.
    assert_eq!(sessions.list(2).len(), 0);
    assert_eq!(sessions.users_on_disk().len(), 2);
}

#[test]
fn pieces_of_an_answer_that_a_kill_cut_off_are_a_turn_afterwards() {
    let dir = tempfile::tempdir().expect("a directory");
    let sessions = on_disk(dir.path());
    sessions
        .create(1, lasting("talk"), Vec::new())
        .expect("room");
    let claim = sessions.claim(1, &in_session("talk")).expect("it is free");
    let piece = |input: Vec<Message>, text: &str| Turn {
        input,
        answer: Some(said(text)),
        ..turn("a", "")
    };
    claim.partial(&piece(user("q"), "one "), true);
    claim.partial(&piece(Vec::new(), "two"), false);
    // As a kill would have it: neither settled nor dropped.
    std::mem::forget(claim);
    drop(sessions);
    let killed = tempfile::tempdir().expect("a directory");
    copy(dir.path(), killed.path());
    let sessions = on_disk(killed.path());
    assert_eq!(contents(&sessions, "talk"), ["q", "one two"]);
    let found = sessions.answer(1, "a").expect("it is kept");
    assert_eq!(found.turn.ending, Ending::Cut);
    drop(sessions);
    assert_eq!(contents(&on_disk(killed.path()), "talk"), ["q", "one two"]);
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    for entry in std::fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            use std::os::unix::fs::DirBuilderExt;
            std::fs::DirBuilder::new()
                .mode(0o700)
                .create(&target)
                .expect("a directory");
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), &target).expect("a file");
        }
    }
}
