use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::Receiver;

use super::fake::{BOMB, Fake, POISON, admitted};
use super::*;
use crate::request::{FinishReason, Usage};
use crate::text::fixture;

mod together;

const LIMITS: Limits = Limits {
    max_concurrent: 4,
    max_queue: 16,
    chunk: 8,
    prefix_bytes: 1 << 20,
    request_memory: usize::MAX,
    patience: Duration::from_secs(20),
};

fn start(model: Fake, limits: Limits) -> (Scheduler, Ended) {
    let tokenizer = Arc::new(fixture::tokenizer("tiny"));
    Scheduler::start(model, tokenizer, limits).expect("a thread")
}

fn all(mut events: Receiver<Event>) -> Vec<Event> {
    std::iter::from_fn(|| events.blocking_recv()).collect()
}

fn tokens(events: &[Event]) -> Vec<Token> {
    let token = |e: &Event| match e {
        Event::Delta { logprob, .. } => logprob.as_ref().map(|l| l.token),
        _ => None,
    };
    events.iter().filter_map(token).collect()
}

fn run(scheduler: &Scheduler, request: Admitted, events: Receiver<Event>) -> Vec<Event> {
    scheduler.push(request).expect("room");
    all(events)
}

/// Waits for something that another thread brings about.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(60), "never: {what}");
        std::thread::yield_now();
    }
}

#[test]
fn a_token_that_the_device_drew_is_taken_as_it_is_unless_somebody_looks_at_the_logits() {
    let said = |draws: bool, edit: fn(&mut Admitted)| {
        let counted = Arc::new(AtomicUsize::new(0));
        let draws = draws.then(|| counted.clone());
        let (scheduler, _) = start(
            Fake {
                draws,
                ..Fake::default()
            },
            LIMITS,
        );
        let (mut request, events) = admitted(1, &[1; 20]);
        (request.logprobs, request.sampling.temperature) = (None, 0.0);
        edit(&mut request);
        let events = run(&scheduler, request, events);
        let finished = events.into_iter().find_map(|e| match e {
            Event::Finished { tokens, .. } => Some(tokens),
            _ => None,
        });
        (finished.expect("an end"), counted.load(Relaxed))
    };
    let (here, _) = said(false, |_| ());
    // The prompt's last logits are for any number of answers.
    assert_eq!(said(true, |_| ()), (here.clone(), here.len() - 1));
    let looks = |request: &mut Admitted| request.logprobs = Some(2);
    assert_eq!(said(true, looks), (here.clone(), 0));
    let edits = |request: &mut Admitted| request.sampling.logit_bias = vec![(7, 0.0)];
    assert_eq!(said(true, edits), (here, 0));
}

#[test]
fn a_request_runs_to_its_limit_and_counts_what_it_did() {
    let (scheduler, _) = start(Fake::default(), LIMITS);
    let (request, events) = admitted(1, &[1; 20]);
    let events = run(&scheduler, request, events);
    assert_eq!(tokens(&events).len(), 4);
    let reason = FinishReason::Length;
    let usage = Usage {
        prompt_tokens: 20,
        cached_tokens: 0,
        completion_tokens: 4,
    };
    let (choice, stop) = (0, None);
    let end = Event::Finished {
        choice,
        reason,
        stop,
        tokens: tokens(&events),
    };
    assert_eq!(events[events.len() - 2], end);
    let Some(Event::Done(counted, took)) = events.last() else {
        panic!("{:?}", events.last());
    };
    assert_eq!(*counted, usage);
    assert!(
        took.reading > Duration::ZERO && took.answering > Duration::ZERO,
        "{took:?}"
    );
}

#[test]
fn what_a_request_says_does_not_depend_on_its_neighbours() {
    says_the_same_in_company(false);
    says_the_same_in_company(true);
}

fn says_the_same_in_company(fixed_cut: bool) {
    let fake = || Fake {
        fixed_cut,
        ..Fake::default()
    };
    let prompts: Vec<Vec<Token>> = (1..9).map(|i| (0..i * 5).collect()).collect();
    let alone: Vec<Vec<Token>> = prompts
        .iter()
        .map(|prompt| {
            let (scheduler, _) = start(fake(), LIMITS);
            let (request, events) = admitted(1, prompt);
            tokens(&run(&scheduler, request, events))
        })
        .collect();
    let (scheduler, _) = start(fake(), LIMITS);
    let together: Vec<_> = (0..)
        .zip(&prompts)
        .map(|(uid, prompt)| {
            let (request, events) = admitted(uid % 3, prompt);
            scheduler.push(request).expect("room");
            events
        })
        .collect();
    let together: Vec<_> = together.into_iter().map(|e| tokens(&all(e))).collect();
    assert_eq!(together, alone);
}

fn tokens_of(events: &[Event], wanted: usize) -> Vec<Token> {
    let own = |e: &&Event| matches!(e, Event::Delta { choice, .. } if *choice == wanted);
    let own: Vec<Event> = events.iter().filter(own).cloned().collect();
    tokens(&own)
}

#[test]
fn a_prompts_scores_come_in_order_and_none_is_missing() {
    let (scheduler, _) = start(Fake::default(), LIMITS);
    let prompt: Vec<Token> = (0..200).collect();
    let (mut request, events) = admitted(1, &prompt);
    request.scores_prompt = true;
    request.max_tokens = 0;
    let events = run(&scheduler, request, events);
    let scored = events.iter().flat_map(|e| match e {
        Event::Prompt(scored) => scored.clone(),
        _ => Vec::new(),
    });
    let scored: Vec<_> = scored.collect();
    let order: Vec<Token> = scored.iter().map(|s| s.token).collect();
    assert_eq!(order, prompt);
    assert_eq!(scored[0].logprob, None);
    assert!(scored[1..].iter().all(|s| s.logprob.is_some()));
}

#[test]
fn a_client_that_leaves_frees_its_sequence() {
    let model = Fake {
        pause: Duration::from_millis(1),
        ..Fake::default()
    };
    let alive = model.alive.clone();
    let (scheduler, _) = start(model, LIMITS);
    let (mut request, mut events) = admitted(1, &[1; 4]);
    request.max_tokens = 1 << 30;
    scheduler.push(request).expect("room");
    assert!(events.blocking_recv().is_some());
    assert_eq!(alive.load(Relaxed), 1);
    drop(events);
    until("the sequence is freed", || alive.load(Relaxed) == 0);
}

#[test]
fn a_client_that_never_reads_is_parked_and_then_dropped_while_others_go_on() {
    let model = Fake::default();
    let alive = model.alive.clone();
    let limits = Limits {
        max_concurrent: 1,
        patience: Duration::from_millis(300),
        ..LIMITS
    };
    let (scheduler, _) = start(model, limits);
    let (mut deaf, kept) = admitted(1, &[1; 4]);
    deaf.max_tokens = 1 << 30;
    scheduler.push(deaf).expect("room");
    until("it runs", || alive.load(Relaxed) == 1);
    let (request, events) = admitted(2, &[2; 4]);
    assert_eq!(tokens(&run(&scheduler, request, events)).len(), 4);
    until("the deaf one is dropped", || alive.load(Relaxed) == 0);
    drop(kept);
}

#[test]
fn the_next_turn_goes_on_from_the_last_and_says_what_a_cold_one_says() {
    let style = Style::Chat(Expect::default());
    let turn = |scheduler: &Scheduler, uid, prompt: &[Token]| {
        let (mut request, events) = admitted(uid, prompt);
        request.style = style.clone();
        run(scheduler, request, events)
    };
    let cached = |events: &[Event]| match events.last() {
        Some(Event::Done(usage, _)) => usage.cached_tokens,
        other => panic!("{other:?}"),
    };
    let (scheduler, _) = start(Fake::default(), LIMITS);
    let first = turn(&scheduler, 1, &[1; 20]);
    let mut next = vec![1; 20];
    next.extend(tokens(&first));
    next.extend([9, 8, 7]);
    let warm = turn(&scheduler, 1, &next);
    assert_eq!(cached(&warm), 23, "all but the last token of the answer");
    let others = turn(&scheduler, 2, &next);
    assert_eq!(cached(&others), 0, "users share nothing");
    assert_eq!(tokens(&warm), tokens(&others));
}

#[test]
fn states_are_given_back_while_a_pass_runs() {
    let model = Fake {
        pause: Duration::from_millis(500),
        ..Fake::default()
    };
    let passes = model.passes.clone();
    let (scheduler, _) = start(model, LIMITS);
    let (mut request, events) = admitted(1, &[1; 4]);
    request.style = Style::Chat(Expect::default());
    request.max_tokens = 1;
    run(&scheduler, request, events);
    let (mut long, _events) = admitted(1, &[2; 4]);
    long.max_tokens = 1 << 30;
    let count = || passes.lock().expect("nobody panicked").len();
    let before = count();
    scheduler.push(long).expect("room");
    until("it runs", || count() > before);
    let (during, kept) = (count(), || scheduler.stats().prefix_bytes.load(Relaxed));
    assert!(kept() > 0 && scheduler.saved(1, &[1; 4], false).is_some());
    scheduler.forget();
    assert_eq!(
        (kept(), count()),
        (0, during),
        "before the next pass is over"
    );
    assert!(scheduler.saved(1, &[1; 4], false).is_none());
}

#[test]
fn an_error_of_the_engine_ends_one_request_and_no_other() {
    let (scheduler, _) = start(Fake::default(), LIMITS);
    let (request, events) = admitted(1, &[1, POISON]);
    let events = run(&scheduler, request, events);
    assert!(
        matches!(events[..], [Event::Failed(Failure::Engine(_))]),
        "{events:?}"
    );
    let (request, events) = admitted(1, &[1, 2]);
    assert_eq!(tokens(&run(&scheduler, request, events)).len(), 4);
}

#[test]
fn a_panic_of_the_engine_is_told_and_nothing_hangs() {
    let (scheduler, ended) = start(Fake::default(), LIMITS);
    let (request, events) = admitted(1, &[1, BOMB]);
    assert_eq!(run(&scheduler, request, events), [], "the channel closes");
    let said = ended.blocking_recv().expect("an end");
    assert_eq!(said, Err("a token that explodes".to_owned()));
    let (request, _events) = admitted(1, &[1]);
    assert_eq!(scheduler.push(request), Err(Refusal::Broken));
}

#[test]
fn a_lost_model_ends_the_thread_and_everybody_is_told_why() {
    let model = Fake {
        pause: Duration::from_millis(1),
        ..Fake::default()
    };
    let lost = model.lost.clone();
    let (scheduler, ended) = start(model, LIMITS);
    let (mut long, mut events) = admitted(1, &[1; 4]);
    long.max_tokens = 1 << 30;
    scheduler.push(long).expect("room");
    assert!(matches!(events.blocking_recv(), Some(Event::Delta { .. })));
    lost.store(true, Relaxed);
    let why = "a test has taken the model away".to_owned();
    let told = Event::Failed(Failure::Engine(why.clone()));
    assert_eq!(all(events).last(), Some(&told));
    assert_eq!(ended.blocking_recv(), Ok(Err(why)));
    let (request, _events) = admitted(1, &[1]);
    assert_eq!(scheduler.push(request), Err(Refusal::Broken));
}

#[test]
fn stopping_lets_short_work_finish_and_cuts_long_work_with_a_word() {
    let model = Fake {
        pause: Duration::from_millis(1),
        ..Fake::default()
    };
    let (scheduler, ended) = start(model, LIMITS);
    let (short, short_events) = admitted(1, &[1; 4]);
    let (mut long, mut long_events) = admitted(2, &[2; 4]);
    long.max_tokens = 1 << 30;
    scheduler.push(short).expect("room");
    scheduler.push(long).expect("room");
    until("both run", || {
        scheduler.stats().running.load(Relaxed) == 2
            || scheduler.stats().requests.load(Relaxed) == 2
    });
    scheduler.stop(Instant::now() + Duration::from_secs(600));
    let short_events = all(short_events);
    assert!(matches!(short_events.last(), Some(Event::Done(..))));
    assert!(matches!(
        long_events.blocking_recv(),
        Some(Event::Delta { .. })
    ));
    scheduler.stop(Instant::now());
    // It reads on, so that the last word finds room.
    let long_events = all(long_events);
    assert_eq!(long_events.last(), Some(&Event::Failed(Failure::Stopped)));
    assert_eq!(ended.blocking_recv(), Ok(Ok(())));
}
