use std::time::Duration;

use super::*;

/// Every state takes ten bytes and shares none.
fn prefixes<S>(budget: usize) -> Prefixes<S> {
    Prefixes::new(budget, Arc::default(), |_, _| 10)
}

fn keep<S>(prefixes: &mut Prefixes<S>, uid: u32, tokens: &[Token], state: S) {
    prefixes.keep(uid, tokens, state, None);
}

fn found<S: Clone>(
    prefixes: &mut Prefixes<S>,
    tokens: &[Token],
) -> (Option<(S, usize)>, Option<Miss>) {
    let found = prefixes.find(1, tokens);
    (found.state.map(|(s, n)| (s.clone(), n)), found.miss)
}

/// The bytes of a state and of so many tokens.
const fn room(states: usize, tokens: usize) -> usize {
    10 * states + size_of::<Token>() * tokens
}

#[test]
fn the_longest_kept_beginning_is_found_and_one_token_is_left() {
    let mut prefixes = prefixes(1 << 20);
    keep(&mut prefixes, 1, &[1, 2], "short");
    keep(&mut prefixes, 1, &[1, 2, 3], "long");
    assert_eq!(
        found(&mut prefixes, &[1, 2, 3, 4]),
        (Some(("long", 3)), None)
    );
    assert_eq!(found(&mut prefixes, &[1, 2, 3]).0, Some(("short", 2)));
    assert_eq!(found(&mut prefixes, &[2, 1, 3]).0, None);
}

#[test]
fn one_user_never_finds_what_another_left() {
    let mut prefixes = prefixes(1 << 20);
    keep(&mut prefixes, 2, &[1], ());
    assert_eq!(found(&mut prefixes, &[1, 2]), (None, Some(Miss::Empty)));
}

#[test]
fn what_is_not_there_has_a_reason() {
    let mut prefixes = prefixes(room(2, 8));
    keep(&mut prefixes, 1, &[1, 2], "a");
    keep(&mut prefixes, 1, &[1, 2, 3, 4, 5, 6], "b");
    let at = |at| Some(Miss::Diverged { at, message: 0 });
    assert_eq!(
        found(&mut prefixes, &[1, 2, 3, 9, 9]),
        (Some(("a", 2)), at(3))
    );
    assert_eq!(found(&mut prefixes, &[9, 9]), (None, at(0)));
    // A fork where a state is lacks nothing.
    assert_eq!(found(&mut prefixes, &[1, 2, 9]), (Some(("a", 2)), None));
    // Asked again: the last token is to be fed, and no state is before it.
    assert_eq!(
        found(&mut prefixes, &[1, 2, 3, 4, 5, 6]).1,
        Some(Miss::NoState)
    );
    keep(&mut prefixes, 1, &[1, 2, 3, 4, 5, 6, 7, 8], "c");
    assert_eq!(
        found(&mut prefixes, &[1, 2, 7]),
        (None, Some(Miss::Evicted))
    );
    prefixes.set_budget(5);
    assert!(!prefixes.has_room_for(1, 10));
    assert_eq!(found(&mut prefixes, &[1]), (None, Some(Miss::NoState)));
}

#[test]
fn what_saves_least_for_its_bytes_goes_first() {
    let mut prefixes = prefixes(room(3, 16));
    keep(&mut prefixes, 1, &[1, 1, 1, 1, 1, 1], "far");
    keep(&mut prefixes, 1, &[2, 2, 2, 2, 2], "other");
    keep(&mut prefixes, 1, &[2, 2, 2, 2, 2, 2], "near the other");
    // Another one: of the old ones, that whose loss costs one token is the least.
    keep(&mut prefixes, 1, &[3, 3, 3], "new");
    assert_eq!(
        found(&mut prefixes, &[1, 1, 1, 1, 1, 1, 9]).0,
        Some(("far", 6))
    );
    assert_eq!(
        found(&mut prefixes, &[2, 2, 2, 2, 2, 2, 9]).0,
        Some(("other", 5))
    );
    assert_eq!(found(&mut prefixes, &[3, 3, 3, 9]).0, Some(("new", 3)));
}

#[test]
fn what_nobody_uses_is_worth_less_by_and_by() {
    let mut prefixes = prefixes(room(2, 80));
    keep(&mut prefixes, 1, &[1; 64], "long and old");
    keep(&mut prefixes, 1, &[2; 8], "short and new");
    for _ in 0..512 {
        found(&mut prefixes, &[[2; 8].as_slice(), &[9]].concat());
    }
    keep(&mut prefixes, 1, &[3; 8], "newest");
    assert_eq!(
        found(&mut prefixes, &[[1; 64].as_slice(), &[9]].concat()).0,
        None
    );
    assert_eq!(
        found(&mut prefixes, &[[2; 8].as_slice(), &[9]].concat()).0,
        Some(("short and new", 8))
    );
}

#[test]
fn what_is_pinned_goes_last_and_only_in_its_time() {
    let mut prefixes = prefixes(room(2, 20));
    let soon = Instant::now() + Duration::from_secs(600);
    prefixes.keep(1, &[1], "pinned", Some(soon));
    keep(&mut prefixes, 1, &[2; 8], "better");
    keep(&mut prefixes, 1, &[3; 8], "best");
    assert_eq!(found(&mut prefixes, &[1, 9]).0, Some(("pinned", 1)));
    let past = Instant::now();
    prefixes.keep(1, &[4], "was pinned", Some(past));
    assert!(prefixes.longest(1, &[4]).is_none(), "its time is over");
    prefixes.set_budget(room(1, 1));
    assert_eq!(found(&mut prefixes, &[1, 9]).0, Some(("pinned", 1)));
    prefixes.clear();
    assert_eq!(prefixes.bytes(), 0);
}

#[test]
fn what_the_machine_leaves_is_kept_to_and_the_budget_is_there_again_after() {
    let mut prefixes = prefixes(room(2, 20));
    keep(&mut prefixes, 1, &[1; 3], "less");
    keep(&mut prefixes, 1, &[2; 8], "more");
    prefixes.set_bound(room(1, 8));
    assert_eq!(found(&mut prefixes, &[1, 1, 1, 9]).0, None);
    assert_eq!(
        found(&mut prefixes, &[[2; 8].as_slice(), &[9]].concat()).0,
        Some(("more", 8))
    );
    assert!(!prefixes.has_room_for(1, room(1, 8) + 1));
    prefixes.set_bound(usize::MAX);
    keep(&mut prefixes, 1, &[1; 3], "less");
    assert_eq!(found(&mut prefixes, &[1, 1, 1, 9]).0, Some(("less", 3)));
}

#[test]
fn other_threads_are_told_what_is_kept_and_what_went() {
    let index = Arc::new(Index::default());
    let mut prefixes = Prefixes::new(1 << 20, index.clone(), |_, _| 10);
    for end in 1..=4 {
        let tokens: Vec<Token> = (0..end).collect();
        prefixes.keep(1, &tokens, end, None);
    }
    assert_eq!(prefixes.longest(1, &[0, 1, 2]), Some((&3, 3)));
    prefixes.keep(1, &[0, 9], 9, None);
    prefixes.drop_all(1, &[0, 1, 2, 3]);
    let held = |end: Token| index.holds(1, &(0..end).collect::<Vec<_>>());
    assert_eq!([held(1), held(2), held(3), held(4)], [false; 4]);
    assert!(index.holds(1, &[0, 9]));
    assert!(!index.holds(2, &[0]));
    prefixes.set_budget(1);
    assert!(!index.holds(1, &[0, 9]) && prefixes.bytes() == 0);
}

#[test]
fn the_end_of_a_line_stays_and_then_the_next_one() {
    let mut prefixes = prefixes(room(2, 12));
    let line = |name: &str| Line {
        name: name.into(),
        until: Instant::now() + Duration::from_secs(600),
    };
    keep(&mut prefixes, 1, &[1], "first");
    prefixes.follow(1, &line("a"), &[1]);
    keep(&mut prefixes, 1, &[1, 1], "second");
    prefixes.follow(1, &line("a"), &[1, 1]);
    keep(&mut prefixes, 1, &[2; 8], "of nobody");
    assert_eq!(found(&mut prefixes, &[1, 1, 9]).0, Some(("second", 2)));
    assert_eq!(found(&mut prefixes, &[1, 9]).0, None);
    for n in 0..LINES {
        prefixes.follow(1, &line(&n.to_string()), &[2; 8]);
    }
    keep(&mut prefixes, 1, &[3; 9], "new");
    assert_eq!(found(&mut prefixes, &[1, 1, 9]).0, None, "too many lines");
}

#[test]
fn short_of_memory_half_of_what_is_kept_goes_and_nothing_more_is_taken() {
    let mut prefixes = prefixes(1 << 20);
    for n in 0..8 {
        keep(&mut prefixes, 1, &[n, 1], n);
    }
    let before = prefixes.bytes();
    prefixes.halve();
    assert!(prefixes.bytes() <= before / 2, "{}", prefixes.bytes());
    assert!(prefixes.bytes() > 0);
    assert!(prefixes.has_room_for(1, 10), "its budget is what it was");
    prefixes.hold_off(true);
    assert!(!prefixes.has_room_for(1, 10));
    prefixes.hold_off(false);
    assert!(prefixes.has_room_for(1, 10));
}

#[test]
fn a_state_that_is_lost_gives_way_to_the_one_before_it() {
    let mut prefixes = prefixes(1 << 20);
    keep(&mut prefixes, 1, &[1], "whole");
    keep(&mut prefixes, 1, &[1, 2], "lost");
    keep(&mut prefixes, 1, &[7], "lost");
    prefixes.drop_lost(1, &[1, 2, 3], |state| *state == "lost");
    assert_eq!(
        found(&mut prefixes, &[1, 2, 3]),
        (Some(("whole", 1)), Some(Miss::Evicted))
    );
    let elsewhere = prefixes.longest(1, &[7]);
    assert!(elsewhere.is_some(), "not on the way");
}
