//! Sessions as files, and sessions that this model cannot go on with.

use super::*;

fn exported(sessions: &Arc<Sessions>, who: &str) -> Vec<u8> {
    let mut file = Vec::new();
    let outgoing = sessions.export(1, who).expect("it is on disk");
    outgoing.write(&mut file).expect("room");
    file
}

fn take(sessions: &Arc<Sessions>, file: &[u8], name: Option<&str>) -> Result<Summary, Refusal> {
    let mut incoming = sessions.receive(1).expect("a disk");
    incoming.write(file)?;
    sessions.import(incoming, name.map(str::to_owned), 100)
}

/// Sessions whose `talk` has one turn of tokens 1, 2, 3.
fn talked(dir: &std::path::Path) -> Arc<Sessions> {
    let sessions = on_disk(dir);
    let about = About {
        fixed: true,
        settings: serde_json::json!({"seed": 1}),
        ..lasting("talk")
    };
    sessions
        .create(1, lasting("talk"), user("before"))
        .expect("room");
    let claim = sessions.claim(1, &in_session("talk")).expect("it is free");
    let (turn, tokens) = (turn("a", "q"), vec![1, 2, 3]);
    Sessions::settle(Some(Ended {
        claim,
        turn,
        tokens,
    }));
    sessions
        .fork(
            1,
            "talk",
            None,
            About {
                name: Some("manual".into()),
                ..about
            },
        )
        .expect("a fork");
    sessions
}

#[test]
fn what_left_as_a_file_comes_in_with_its_words_its_answers_and_its_settings() {
    let (here, there) = (
        tempfile::tempdir().expect("one"),
        tempfile::tempdir().expect("two"),
    );
    let file = exported(&talked(here.path()), "manual");
    let sessions = on_disk(there.path());
    let made = take(&sessions, &file, None).expect("it is one of ours");
    assert_eq!(made.about.name.as_deref(), Some("manual"));
    assert!(made.about.fixed && made.about.held && made.durable);
    assert_eq!(made.about.settings["seed"], 1);
    assert_eq!(words(&sessions, "a"), ["before", "q", "to q"]);
    assert_eq!(sessions.tokens(1, "manual"), Ok(vec![1, 2, 3]));
    drop(sessions);
    assert_eq!(
        contents(&on_disk(there.path()), "manual"),
        ["before", "q", "to q"]
    );
}

#[test]
fn a_name_that_is_taken_stays_with_who_has_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let sessions = talked(dir.path());
    let file = exported(&sessions, "talk");
    let nameless = take(&sessions, &file, None).expect("it is one of ours");
    assert_eq!(nameless.about.name, None);
    let other = take(&sessions, &file, Some("other")).expect("it is free");
    assert_eq!(other.about.name.as_deref(), Some("other"));
    let taken = take(&sessions, &file, Some("talk")).map(drop);
    let name = "talk".to_owned();
    assert_eq!(taken, Err(Refusal::NameTaken { name }));
}

#[test]
fn a_strangers_file_is_refused_by_name_and_leaves_nothing() {
    let (here, there) = (
        tempfile::tempdir().expect("one"),
        tempfile::tempdir().expect("two"),
    );
    let file = exported(&talked(here.path()), "talk");
    let sessions = on_disk(there.path());
    let why = |file: &[u8], n_vocab| {
        let mut incoming = sessions.receive(1).expect("a disk");
        incoming.write(file).expect("room");
        match sessions.import(incoming, None, n_vocab) {
            Err(Refusal::SessionRefused { why }) => why,
            other => panic!("{other:?}"),
        }
    };
    assert!(why(&file[..file.len() - 1], 100).contains("ends in its head"));
    assert!(why(b"GGUF and more", 100).contains("its head is too long"));
    assert!(why(&file, 3).contains("it has token 3, and the model 3"));
    let mut incoming = sessions.receive(1).expect("a disk");
    let refused = incoming.expect(1 << 40);
    assert!(matches!(refused, Err(Refusal::SessionRefused { .. })));
    let refused = incoming.write(&vec![0; 5 << 20]);
    assert!(matches!(refused, Err(Refusal::SessionRefused { .. })));
    drop(incoming);
    assert_eq!(sessions.list(1).len(), 0);
    let left = std::fs::read_dir(there.path().join("1")).expect("a directory");
    assert_eq!(left.count(), 0);
}

#[test]
fn one_file_of_a_user_is_on_its_way_at_a_time() {
    let dir = tempfile::tempdir().expect("a directory");
    let sessions = talked(dir.path());
    let first = sessions.export(1, "talk").expect("it is on disk");
    assert_eq!(sessions.receive(1).map(drop), Err(Refusal::Carrying));
    sessions.receive(2).expect("another user's");
    drop(first);
    sessions.receive(1).expect("the first is done");
}

#[test]
fn another_models_session_is_told_of_and_its_words_are_had_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let sessions = talked(dir.path());
    let ids = ["talk", "manual"].map(|who| sessions.summary(1, who).expect("there").id);
    drop(sessions);
    let sessions = of_model(dir.path(), 8);
    assert_eq!(sessions.list(1).len(), 0);
    let untaken = sessions.untaken(1);
    assert_eq!(untaken.len(), 2);
    assert!(
        untaken.iter().all(|u| u.why.contains("another model")),
        "{untaken:?}"
    );
    // Whoever names it is told both models' names, and so is whoever names one of its answers.
    let refused = |refusal: Refusal| match refusal {
        Refusal::SessionRefused { why } => {
            let names = why.contains("\"model-7\" (07070707)") && why.contains("\"model-8\"");
            assert!(names && why.contains("rebuild"), "{why}");
        }
        other => panic!("{other:?}"),
    };
    let claim = |origin: Origin| sessions.claim(1, &origin).map(drop);
    refused(claim(in_session("talk")).expect_err("another model's"));
    refused(claim(in_session(&ids[1])).expect_err("another model's"));
    refused(claim(Origin::Answer("a".into())).expect_err("another model's"));
    refused(sessions.messages(1, "manual").expect_err("another model's"));
    refused(
        sessions
            .fork(1, "talk", None, named("fork"))
            .map(drop)
            .expect_err("another model's"),
    );
    let unknown = claim(in_session("nobody"));
    assert!(matches!(unknown, Err(Refusal::NoSuchSession { .. })));
    // What was said in it comes back as text: nothing of it is here, and it is known why.
    let said = [user("before"), user("q")].concat();
    let answer = turn("a", "q").answer.expect("it answers").message();
    let whole = [said, vec![answer]].concat();
    let keys = sessions.replays.keys(1, &Default::default(), &[], &whole);
    let strange = keys.iter().map(|key| sessions.replays.is_strange(1, *key));
    assert_eq!(strange.collect::<Vec<_>>(), [false, false, false, true]);
    assert!(!sessions.replays.is_strange(2, keys[3]));
    let made = sessions.rebuild(1, "talk").expect("it is readable");
    assert_eq!(made.about.name.as_deref(), Some("talk"));
    assert_eq!(contents(&sessions, "talk"), ["before", "q", "to q"]);
    assert_eq!(
        sessions.tokens(1, "talk"),
        Ok(Vec::new()),
        "another's tokens"
    );
    let none = sessions.rebuild(1, "nobody").map(drop);
    assert!(matches!(none, Err(Refusal::NoSuchSession { .. })));
    exported(&sessions, &ids[1]);
    sessions
        .delete(1, &ids[1])
        .expect("it is there, taken up or not");
    drop(sessions);
    // The first model is back: what it had is as it was.
    let sessions = on_disk(dir.path());
    assert_eq!(sessions.tokens(1, &ids[0]), Ok(vec![1, 2, 3]));
    assert!(sessions.summary(1, &ids[1]).is_err());
}
