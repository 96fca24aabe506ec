//! Many requests and many answers in one pass.

use std::sync::{Mutex, PoisonError};

use super::*;

type Passes = Arc<Mutex<Vec<(usize, usize)>>>;

/// Passes long enough for a request to come while one runs.
fn slow() -> (Fake, Passes) {
    let model = Fake {
        pause: Duration::from_millis(2),
        ..Fake::default()
    };
    let passes = model.passes.clone();
    (model, passes)
}

fn seen(passes: &Passes) -> Vec<(usize, usize)> {
    let passes = passes.lock().unwrap_or_else(PoisonError::into_inner);
    passes.clone()
}

#[test]
fn answers_of_one_request_grow_side_by_side_and_say_what_each_says_alone() {
    let (model, passes) = slow();
    let (scheduler, _) = start(model, LIMITS);
    let ask = |n: usize, seed: u64| {
        let (mut request, events) = admitted(1, &[5; 30]);
        request.sampling.temperature = 1.5;
        (request.n, request.seed) = (n, seed);
        run(&scheduler, request, events)
    };
    let together = ask(3, 40);
    // Four pieces of the prompt, then three passes for the three last tokens of all.
    let lanes: Vec<usize> = seen(&passes).iter().map(|p| p.0).collect();
    assert_eq!(lanes, [1, 1, 1, 1, 3, 3, 3]);
    let alone: Vec<_> = (40..43).map(|seed| tokens(&ask(1, seed))).collect();
    let each: Vec<_> = (0..3).map(|i| tokens_of(&together, i)).collect();
    assert_eq!(each, alone);
    assert!(each[0] != each[1] || each[1] != each[2], "{each:?}");
}

#[test]
fn more_answers_than_lanes_hold_no_more_states_than_lanes() {
    let (model, passes) = slow();
    let (alive, most) = (model.alive.clone(), model.most_alive.clone());
    let (scheduler, _) = start(model, LIMITS);
    let (mut request, events) = admitted(1, &[5; 3]);
    request.n = 11;
    let events = run(&scheduler, request, events);
    for i in 0..11 {
        assert_eq!(tokens_of(&events, i), tokens_of(&events, 0));
        assert_eq!(tokens_of(&events, i).len(), 4);
    }
    assert!(seen(&passes).iter().all(|p| p.0 <= LIMITS.max_concurrent));
    assert_eq!(most.load(Relaxed), LIMITS.max_concurrent);
    until("all are freed", || alive.load(Relaxed) == 0);
}

#[test]
fn requests_share_passes() {
    let (model, passes) = slow();
    let (scheduler, _) = start(model, LIMITS);
    let asked: Vec<_> = (0..4)
        .map(|uid| {
            let (mut request, events) = admitted(uid, &[uid; 4]);
            request.max_tokens = 50;
            scheduler.push(request).expect("room");
            std::thread::spawn(|| all(events))
        })
        .collect();
    for events in asked {
        assert_eq!(tokens(&events.join().expect("events")).len(), 50);
    }
    let full = seen(&passes).iter().filter(|p| p.0 == 4).count();
    assert!(full >= 40, "{full} passes with all four");
    let counted = scheduler.stats().pass_lanes.clone();
    let mut text = String::new();
    let mut registry = prometheus_client::registry::Registry::default();
    registry.register("lanes", "", counted);
    prometheus_client::encoding::text::encode(&mut text, &registry).expect("text");
    let line = format!("lanes_count {}", seen(&passes).len());
    assert!(text.contains(&line), "{line}: {text}");
}

#[test]
fn a_neighbour_gets_a_token_in_every_pass_of_a_long_prompt() {
    let (model, passes) = slow();
    let limits = Limits {
        chunk: 512,
        ..LIMITS
    };
    let (scheduler, _) = start(model, limits);
    let (mut talker, mut heard) = admitted(1, &[1; 4]);
    talker.max_tokens = 1 << 30;
    scheduler.push(talker).expect("room");
    assert!(heard.blocking_recv().is_some());
    let reader = std::thread::spawn(move || while heard.blocking_recv().is_some() {});
    let (long, events) = admitted(2, &[2; 2000]);
    assert_eq!(tokens(&run(&scheduler, long, events)).len(), 4);
    let mixed = seen(&passes);
    let mixed: Vec<_> = mixed.iter().filter(|p| p.1 > 60).collect();
    assert!(mixed.len() >= 2000 / 64, "{mixed:?}");
    assert!(mixed.iter().all(|p| **p == (2, 65)), "{mixed:?}");
    scheduler.stop(Instant::now());
    reader.join().expect("no panic");
}

#[test]
fn a_short_request_is_answered_within_two_passes_beside_long_prompts() {
    let (model, passes) = slow();
    let (scheduler, _) = start(model, LIMITS);
    let (long, _long_events) = admitted(1, &[2; 4000]);
    let (other, _other_events) = admitted(2, &[3; 4000]);
    scheduler.push(long).expect("room");
    scheduler.push(other).expect("room");
    until("both are being read", || seen(&passes).len() > 10);
    for uid in 1..4 {
        let (short, mut events) = admitted(uid, &[4; 4]);
        scheduler.push(short).expect("room");
        let before = seen(&passes).len();
        assert!(events.blocking_recv().is_some());
        let took = seen(&passes).len() - before;
        // One may be under way when it comes, and one may begin before this thread looks.
        assert!(took <= 3, "{took} passes");
    }
}

#[test]
fn a_refused_lane_ends_its_own_request_and_the_pass_is_run_for_the_others() {
    let (mut model, _) = slow();
    // What the second one says is what the model refuses to be fed.
    model.script = [(7, POISON)].into();
    let (scheduler, _) = start(model, LIMITS);
    let (mut long, events) = admitted(1, &[1; 20]);
    long.max_tokens = 40;
    let (mut second, second_events) = admitted(2, &[2; 5]);
    second.max_tokens = 40;
    scheduler.push(long).expect("room");
    scheduler.push(second).expect("room");
    let second = std::thread::spawn(|| all(second_events));
    assert_eq!(tokens(&all(events)).len(), 40);
    let second = second.join().expect("events");
    assert!(
        matches!(second.last(), Some(Event::Failed(Failure::Engine(_)))),
        "{second:?}"
    );
    assert_eq!(tokens(&second).len(), 3);
}

#[test]
fn a_pass_that_fails_ends_those_in_it_and_the_next_ones_are_served() {
    let (mut model, _) = slow();
    model.fails = Some(6);
    let alive = model.alive.clone();
    let (scheduler, _) = start(model, LIMITS);
    let asked: Vec<_> = (1..3)
        .map(|uid| {
            let (mut request, events) = admitted(uid, &[uid; 4]);
            request.max_tokens = 30;
            scheduler.push(request).expect("room");
            events
        })
        .collect();
    for events in asked {
        let events = all(events);
        let last = events.last();
        let words = "the pass failed for all who were in it: not enough memory";
        assert!(
            matches!(last, Some(Event::Failed(Failure::Engine(e))) if e.starts_with(words)),
            "{events:?}"
        );
    }
    until("both are freed", || alive.load(Relaxed) == 0);
    let (request, events) = admitted(1, &[1, 2]);
    assert_eq!(tokens(&run(&scheduler, request, events)).len(), 4);
}

#[test]
fn who_leaves_in_the_middle_of_a_batch_moves_nobody() {
    let alone = {
        let (scheduler, _) = start(Fake::default(), LIMITS);
        let (mut request, events) = admitted(1, &[9; 9]);
        request.max_tokens = 60;
        tokens(&run(&scheduler, request, events))
    };
    let (model, _) = slow();
    let (scheduler, _) = start(model, LIMITS);
    let (mut request, events) = admitted(1, &[9; 9]);
    request.max_tokens = 60;
    scheduler.push(request).expect("room");
    let stays = std::thread::spawn(|| all(events));
    for round in 0..6 {
        let (mut request, mut events) = admitted(2, &[round; 20]);
        (request.n, request.max_tokens) = (2, 1 << 30);
        scheduler.push(request).expect("room");
        assert!(events.blocking_recv().is_some());
    }
    assert_eq!(tokens(&stays.join().expect("events")), alone);
}

#[test]
fn a_parked_caller_goes_on_as_soon_as_it_reads() {
    let (scheduler, _) = start(Fake::default(), LIMITS);
    let (mut request, mut events) = admitted(1, &[1; 4]);
    request.max_tokens = 2000;
    scheduler.push(request).expect("room");
    let began = Instant::now();
    let mut n = 0;
    while let Some(event) = events.blocking_recv() {
        n += tokens(&[event]).len();
        // It falls behind now and then: the channel holds eight.
        if n % 100 == 0 {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    assert_eq!(n, 2000);
    // Half a second for each wait that nobody ends.
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
}
