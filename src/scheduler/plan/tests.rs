use super::*;

const A: Standing = Standing { id: 1, uid: 10 };
const A2: Standing = Standing { id: 2, uid: 10 };
const B: Standing = Standing { id: 3, uid: 20 };
const C: Standing = Standing { id: 4, uid: 30 };

const ROOM: Room = Room {
    answers: 8,
    rows: 512,
    beside: 64,
    fixed_cut: false,
};
/// As if the engine ran one request at a time.
const NARROW: Room = Room { answers: 1, ..ROOM };

fn answers(who: Standing, n: usize) -> Wish {
    let work = Work::Answers(n);
    Wish { who, work }
}

fn prompt(who: Standing, left: usize) -> Wish {
    let work = Work::Prompt { left, most: left };
    Wish { who, work }
}

fn grants(plan: &mut Plan, wishes: &[Wish], room: &Room) -> Vec<(u64, usize)> {
    let grants = plan.batch(wishes, room);
    grants.iter().map(|g| (g.who.id, g.n)).collect()
}

fn served(plan: &mut Plan, ready: &[Standing], passes: usize) -> HashMap<u64, usize> {
    let wishes: Vec<Wish> = ready.iter().map(|&who| answers(who, 1)).collect();
    let mut counts = HashMap::new();
    for _ in 0..passes {
        for (id, n) in grants(plan, &wishes, &NARROW) {
            *counts.entry(id).or_default() += n;
        }
    }
    counts
}

#[test]
fn nobody_wishing_is_an_empty_pass() {
    assert_eq!(Plan::default().batch(&[], &ROOM), []);
}

#[test]
fn every_answer_gets_a_token_where_all_fit() {
    let wishes = [answers(A, 1), answers(A2, 3), answers(B, 1)];
    let mut got = grants(&mut Plan::default(), &wishes, &ROOM);
    got.sort_unstable();
    assert_eq!(got, [(1, 1), (2, 3), (3, 1)]);
}

#[test]
fn two_requests_of_one_caller_take_turns_at_one_lane() {
    let counts = served(&mut Plan::default(), &[A, A2], 10);
    assert_eq!((counts[&1], counts[&2]), (5, 5));
}

#[test]
fn a_caller_with_two_requests_gets_no_more_than_one_with_one() {
    let counts = served(&mut Plan::default(), &[A, A2, B], 40);
    assert_eq!((counts[&1], counts[&2], counts[&3]), (10, 10, 20));
}

#[test]
fn a_request_of_many_answers_gets_its_callers_share_of_too_few_lanes() {
    let room = Room { answers: 4, ..ROOM };
    let wishes = [answers(A, 100), answers(B, 2)];
    let mut got = grants(&mut Plan::default(), &wishes, &room);
    got.sort_unstable();
    assert_eq!(got, [(1, 2), (3, 2)]);
}

#[test]
fn a_prompt_is_read_whole_alone_and_in_small_pieces_beside_answers() {
    let mut plan = Plan::default();
    assert_eq!(grants(&mut plan, &[prompt(A, 2000)], &ROOM), [(1, 512)]);
    let wishes = [prompt(A, 2000), answers(B, 1)];
    assert_eq!(grants(&mut plan, &wishes, &ROOM), [(3, 1), (1, 64)]);
}

#[test]
fn a_pass_never_holds_more_rows_than_it_may() {
    let room = Room {
        answers: 64,
        rows: 40,
        ..ROOM
    };
    let wishes = [answers(A, 64), prompt(B, 500), prompt(C, 3)];
    let mut plan = Plan::default();
    for _ in 0..20 {
        let n: usize = plan.batch(&wishes, &room).iter().map(|g| g.n).sum();
        assert_eq!(n, 40);
    }
}

#[test]
fn a_short_prompt_goes_before_the_rest_of_long_ones() {
    let mut plan = Plan::default();
    let long = [prompt(A, 20_000), prompt(B, 20_000)];
    grants(&mut plan, &long, &ROOM);
    // The caller of a long one is served no later for it.
    let all = [long[0], long[1], prompt(A2, 100), prompt(C, 30)];
    let got = grants(&mut plan, &all, &ROOM);
    assert!(got.contains(&(2, 100)) && got.contains(&(4, 30)), "{got:?}");
}

#[test]
fn a_long_prompt_gets_on_however_many_short_ones_come() {
    let mut plan = Plan::default();
    let mut read = 0;
    for pass in 0..50 {
        let short = |i: u64| Standing {
            id: 100 + 8 * pass + i,
            uid: 20,
        };
        let mut wishes: Vec<_> = (0..8).map(|i| prompt(short(i), 60)).collect();
        wishes.push(prompt(A, 100_000));
        let got = grants(&mut plan, &wishes, &ROOM);
        read += got.iter().find(|g| g.0 == 1).map_or(0, |g| g.1);
    }
    assert!(read >= 50 * 256 / 2, "{read}");
}

#[test]
fn after_much_of_a_prompt_the_others_get_the_lanes() {
    let mut plan = Plan::default();
    grants(&mut plan, &[prompt(A, 160)], &ROOM);
    let counts = served(&mut plan, &[A, B], 10);
    assert_eq!((counts.get(&1), counts[&3]), (None, 10));
}

#[test]
fn a_model_that_rounds_by_the_cut_reads_whole_pieces_in_passes_of_their_own() {
    let room = Room {
        fixed_cut: true,
        ..ROOM
    };
    let mut plan = Plan::default();
    let wishes = [prompt(A, 1000), answers(B, 1), answers(C, 2)];
    let (mut pieces, mut tokens) = (0, 0);
    for _ in 0..100 {
        match grants(&mut plan, &wishes, &room)[..] {
            [(1, n)] => {
                assert_eq!(n, 512);
                pieces += 1;
            }
            ref all => tokens += all.iter().map(|g| g.1).sum::<usize>(),
        }
    }
    assert!(pieces > 1 && tokens > 32 * pieces, "{pieces} {tokens}");
}

#[test]
fn who_comes_back_is_next_but_is_not_owed_the_time_away() {
    let mut plan = Plan::default();
    served(&mut plan, &[A, B], 2);
    served(&mut plan, &[A], 100);
    assert_eq!(served(&mut plan, &[A, B], 1), HashMap::from([(3, 1)]));
    let counts = served(&mut plan, &[A, B], 20);
    assert!(counts[&1] >= 9, "{counts:?}");
}

#[test]
fn a_caller_that_left_leaves_nothing_behind() {
    let mut plan = Plan::default();
    served(&mut plan, &[A, A2, B], 9);
    plan.leave(A, false);
    plan.leave(A2, true);
    plan.leave(B, true);
    assert!(plan.requests.is_empty() && plan.callers.served.is_empty());
}
