//! A token's logits are the same bits whoever else is in the pass, however its prompt was cut, on
//! any number of threads, after a snapshot or a fork: on every tier, and across tiers.

use crate::checkpoint::{Converted, FIXTURES, Golden, convert, options};
use deltad::engine::{CacheType, Engine, Lane, Options, Runner, Sequence, Want};
use ggml_kernels::cpu::Tier;

const CACHES: [CacheType; 4] = [
    CacheType::F32,
    CacheType::F16,
    CacheType::Bf16,
    CacheType::Q8_0,
];
/// The fixtures' rows are not all whole blocks of every type.
const TYPES: [&str; 4] = ["f32", "f16", "q8_0", "q4_k_m"];

fn own(
    model: &Converted,
    tier: Tier,
    cache: CacheType,
    chunk: usize,
    threads: usize,
) -> Option<Engine> {
    let options = Options {
        runner: Runner::Own(Some(tier.kind())),
        threads: Some(threads),
        ..options(cache, chunk)
    };
    crate::checkpoint::open(&model.path, &options)
}

fn prompt(name: &str) -> Vec<u32> {
    let golden = Golden::of(name);
    let longest = *golden.lengths().last().unwrap();
    golden.tokens(&format!("tokens.{longest}"))
}

/// The bits of the logits at every position.
fn alone(engine: &mut Engine, tokens: &[u32]) -> Vec<u32> {
    let mut sequence = engine.sequence().unwrap();
    let logits = engine.feed(&mut sequence, tokens, Want::All).unwrap();
    bits(logits.rows())
}

fn bits<'r>(rows: impl Iterator<Item = &'r [f32]>) -> Vec<u32> {
    rows.flatten().map(|x| x.to_bits()).collect()
}

/// Which rows differ; for messages.
fn assert_same(what: &str, got: &[u32], wanted: &[u32], n_vocab: usize) {
    assert_eq!(got.len(), wanted.len(), "{what}");
    let differs = |at: &usize| got[*at] != wanted[*at];
    let first = (0..got.len()).find(differs);
    assert!(first.is_none(), "{what}: row {}", first.unwrap() / n_vocab);
}

#[test]
fn chunks_threads_and_tiers_do_not_change_a_bit() {
    for name in FIXTURES {
        let tokens = prompt(name);
        for to in TYPES {
            let model = convert(name, to);
            for cache in CACHES {
                let mut wanted: Option<Vec<u32>> = None;
                for tier in Tier::available() {
                    for (chunk, threads) in [(2048, 1), (1, 1), (7, 2), (64, 3), (512, 2)] {
                        let Some(mut engine) = own(&model, tier, cache, chunk, threads) else {
                            continue;
                        };
                        let n_vocab = engine.model().n_vocab();
                        let got = alone(&mut engine, &tokens);
                        let what = format!("{name} {to} {cache:?} {tier} {chunk} {threads}");
                        assert_same(&what, &got, wanted.get_or_insert(got.clone()), n_vocab);
                    }
                }
            }
        }
    }
}

/// A cheap stream of numbers, the same everywhere.
fn dice(seed: &mut u64, below: usize) -> usize {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
    (*seed >> 33) as usize % below
}

#[test]
fn seven_random_neighbours_do_not_change_a_bit() {
    for name in FIXTURES {
        let tokens = prompt(name);
        let model = convert(name, "q8_0");
        for tier in Tier::available() {
            let mut engine = own(&model, tier, CacheType::F16, 96, 2).unwrap();
            let n_vocab = engine.model().n_vocab();
            let wanted = alone(&mut engine, &tokens);
            let (mut seed, mut got, mut done) = (7, Vec::new(), 0);
            let mut all: Vec<Sequence> = (0..8).map(|_| engine.sequence().unwrap()).collect();
            while done < tokens.len() {
                // Each lane some tokens of its own; ours at a place of its own in the pass.
                let ours = dice(&mut seed, 8);
                let next = (done + 1 + dice(&mut seed, 40)).min(tokens.len());
                let noise: Vec<Vec<u32>> = (0..8)
                    .map(|_| {
                        let n = dice(&mut seed, 4) * dice(&mut seed, 12);
                        (0..n).map(|_| dice(&mut seed, n_vocab) as u32).collect()
                    })
                    .collect();
                let (first, rest) = all.split_first_mut().unwrap();
                let mut lanes: Vec<Lane<'_>> = rest
                    .iter_mut()
                    .zip(&noise)
                    .map(|(sequence, tokens)| Lane {
                        sequence,
                        tokens,
                        want: Want::Last,
                    })
                    .collect();
                let own = Lane {
                    sequence: first,
                    tokens: &tokens[done..next],
                    want: Want::All,
                };
                lanes.insert(ours.min(lanes.len()), own);
                let at = ours.min(lanes.len() - 1);
                let logits = engine.forward(&mut lanes).unwrap();
                got.extend(bits(logits[at].rows()));
                done = next;
            }
            assert_same(&format!("{name} {tier}"), &got, &wanted, n_vocab);
        }
    }
}

#[test]
fn snapshots_forks_and_neither_go_on_alike_and_share_their_memory() {
    for name in FIXTURES {
        let tokens = prompt(name);
        let model = convert(name, "f16");
        let mut engine = own(&model, Tier::detect(), CacheType::F16, 512, 2).unwrap();
        let n_vocab = engine.model().n_vocab();
        let wanted = alone(&mut engine, &tokens);
        let cut = tokens.len() / 3;
        let mut straight = engine.sequence().unwrap();
        let before = engine
            .feed(&mut straight, &tokens[..cut], Want::All)
            .unwrap();
        let snapshot = engine.snapshot(&straight);
        let mut forks: Vec<_> = (0..3).map(|_| engine.restore(&snapshot).unwrap()).collect();
        // One fork goes astray first; the others do not notice.
        let astray = vec![1; 70];
        engine.feed(&mut forks[0], &astray, Want::Nothing).unwrap();
        let go_on = |engine: &mut Engine, sequence: &mut Sequence| {
            let logits = engine.feed(sequence, &tokens[cut..], Want::All).unwrap();
            let all = bits(before.rows()).into_iter();
            let all: Vec<u32> = all.chain(bits(logits.rows())).collect();
            assert_same(name, &all, &wanted, n_vocab);
        };
        go_on(&mut engine, &mut forks[1]);
        go_on(&mut engine, &mut straight);
        go_on(&mut engine, &mut forks[2]);
        let mut again = engine.restore(&snapshot).unwrap();
        go_on(&mut engine, &mut again);
    }
}
