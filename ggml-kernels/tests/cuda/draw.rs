//! Tokens chosen on the card beside sums in f64 over all logits.

use ggml_kernels::cuda::draw::{Cut, Drawn, Draws, MOST_FEW, Wish};
use ggml_kernels::cuda::driver::{CudaError, Device};

use crate::device;

/// Logits like a model's: most of them alike, a few far above. Reproducible (Knuth's MMIX constants).
fn row(vocab: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut uniform = || {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1u64 << 24) as f32
    };
    let logit = |_| {
        let alike = (0..4).map(|_| uniform()).sum::<f32>() * 2.0 - 4.0;
        if uniform() < 0.002 {
            alike + 9.0
        } else {
            alike
        }
    };
    (0..vocab).map(logit).collect()
}

/// What each row's wish came to, asked twice: nothing of the first time may be left.
fn drawn(device: &Device, rows: &[Vec<f32>], wishes: &[Wish]) -> Vec<Option<Drawn>> {
    let (stream, vocab) = (device.stream().unwrap(), rows[0].len());
    let logits = device.upload(&rows.concat()).unwrap();
    let mut draws = Draws::new(device, rows.len(), vocab).unwrap();
    let mut once = || {
        draws.ask(wishes).unwrap();
        draws.run(&stream, logits.all()).unwrap();
        draws.take(&stream).unwrap()
    };
    let first = once();
    assert_eq!(once(), first);
    first
}

fn one(device: &Device, logits: &[f32], wish: Wish) -> Drawn {
    let mut of = drawn(device, &[logits.to_vec()], &[wish]);
    of.remove(0).expect("it was asked")
}

fn weights(logits: &[f32], temperature: f32) -> Vec<f64> {
    let most = logits.iter().copied().fold(f32::MIN, f32::max);
    let weigh = |&l: &f32| ((f64::from(l) - f64::from(most)) / f64::from(temperature)).exp();
    logits.iter().map(weigh).collect()
}

const SIZES: [usize; 7] = [1, 7, 511, 4095, 4096, 4097, 20_011];

#[test]
fn the_largest_logit_is_found_and_the_lowest_token_of_equals() {
    let Some(device) = device() else { return };
    for vocab in SIZES {
        let mut logits = row(vocab, 3 + vocab as u64);
        let best = |logits: &[f32]| {
            let better = |best: usize, at: usize| if logits[at] > logits[best] { at } else { best };
            Drawn::Token((0..vocab).fold(0, better) as u32)
        };
        let of = one(&device, &logits, Wish::Likeliest);
        assert_eq!(of, best(&logits), "of {vocab}");
        for at in [vocab - 1, vocab / 2, vocab / 3] {
            logits[at] = 50.0;
            let of = one(&device, &logits, Wish::Likeliest);
            assert_eq!(of, best(&logits), "{at} of {vocab}");
        }
    }
}

#[test]
fn a_token_is_drawn_where_the_weights_come_to_its_part_of_the_whole() {
    let Some(device) = device() else { return };
    for (vocab, temperature) in SIZES.into_iter().zip([1.0, 0.7, 1.5, 1.0, 0.2, 3.0, 1.0]) {
        let logits = row(vocab, 5);
        let weights = weights(&logits, temperature);
        let whole: f64 = weights.iter().sum();
        for unit in [0.0, 1e-6, 0.1, 0.37, 0.5, 0.9, 0.999, 1.0 - f64::EPSILON] {
            let of = one(&device, &logits, Wish::Any { temperature, unit });
            let Drawn::Token(token) = of else {
                panic!("{of:?}")
            };
            let token = token as usize;
            let before: f64 = weights[..token].iter().sum();
            let with = before + weights[token];
            // Sums of f32, with some millionths of the whole for an error.
            let (at, slack) = (unit * whole, 3e-6 * whole);
            assert!(
                before - slack <= at && at <= with + slack && weights[token] > 0.0,
                "{token} of {vocab}: {before} to {with}, wanted {at} of {whole}"
            );
        }
    }
}

#[test]
fn the_few_are_all_that_the_cut_may_leave_and_the_mass_is_that_of_all() {
    let Some(device) = device() else { return };
    for vocab in SIZES {
        let logits = row(vocab, 11);
        let temperature = 0.8;
        let weights = weights(&logits, temperature);
        let whole: f64 = weights.iter().sum();
        let mut order: Vec<usize> = (0..vocab).collect();
        order.sort_by(|&a, &b| weights[b].total_cmp(&weights[a]));
        let cuts = [
            Cut::Best(1),
            Cut::Best(40),
            Cut::Weight(0.05),
            Cut::Weight(1.0),
            Cut::Mass(0.5),
            Cut::Mass(0.0),
        ];
        for cut in cuts {
            let few = match one(&device, &logits, Wish::Few { temperature, cut }) {
                Drawn::Few(few) => few,
                other => panic!("{cut:?} of {vocab}: {other:?}"),
            };
            let off = (f64::from(few.mass) - whole).abs();
            assert!(off <= 3e-6 * whole, "{} of {whole}", few.mass);
            let tokens: Vec<usize> = few.tokens.iter().map(|&(t, _)| t as usize).collect();
            assert!(tokens.is_sorted(), "by number, none twice: {tokens:?}");
            for &(token, logit) in &few.tokens {
                assert_eq!(logit, logits[token as usize]);
            }
            let mass: f64 = tokens.iter().map(|&t| weights[t]).sum();
            let is_enough = match cut {
                Cut::Best(best) => order.iter().take(best).all(|t| tokens.contains(t)),
                Cut::Weight(least) => order
                    .iter()
                    .filter(|&&t| weights[t] >= f64::from(least))
                    .all(|t| tokens.contains(t)),
                Cut::Mass(share) => mass >= f64::from(share) * whole,
            };
            assert!(
                is_enough,
                "{cut:?} of {vocab}: {tokens:?} with {mass} of {whole}"
            );
        }
    }
}

#[test]
fn a_cut_that_leaves_too_many_says_so() {
    let Some(device) = device() else { return };
    let flat = vec![0.5; MOST_FEW + 1];
    let temperature = 1.0;
    for cut in [Cut::Best(3), Cut::Weight(0.9), Cut::Mass(0.9)] {
        let wish = Wish::Few { temperature, cut };
        assert_eq!(one(&device, &flat, wish), Drawn::TooMany);
        let Drawn::Few(few) = one(&device, &flat[1..], wish) else {
            panic!("{cut:?}: as many as come")
        };
        assert_eq!(few.tokens.len(), MOST_FEW);
    }
}

#[test]
fn what_is_no_number_counts_as_the_least_and_infinity_as_the_largest() {
    let Some(device) = device() else { return };
    let (nan, inf) = (f32::NAN, f32::INFINITY);
    let token = |logits: &[f32], wish| one(&device, logits, wish);
    let any = |unit| Wish::Any {
        temperature: 1.0,
        unit,
    };
    let of = token(&[nan, -1.0, nan, -2.0], Wish::Likeliest);
    assert_eq!(of, Drawn::Token(1));
    assert_eq!(token(&[nan; 5], Wish::Likeliest), Drawn::Token(0));
    assert_eq!(token(&[nan, 3.0, nan], any(0.99)), Drawn::Token(1));
    assert_eq!(token(&[1.0, inf, 2.0, -inf], any(0.5)), Drawn::Token(1));
    // All weigh alike.
    assert_eq!(token(&[nan; 5], any(0.5)), Drawn::Token(2));
    assert_eq!(token(&[-inf; 5], any(0.99)), Drawn::Token(4));
}

#[test]
fn every_row_gets_its_own_wish_and_rows_without_one_get_nothing() {
    let Some(device) = device() else { return };
    let rows: Vec<Vec<f32>> = (0..5).map(|seed| row(5000, seed)).collect();
    let temperature = 1.0;
    let wishes = [
        Wish::Likeliest,
        Wish::Nothing,
        Wish::Few {
            temperature,
            cut: Cut::Best(20),
        },
        Wish::Any {
            temperature,
            unit: 0.4,
        },
    ];
    let together = drawn(&device, &rows, &wishes);
    assert_eq!(together.len(), rows.len());
    assert_eq!((&together[1], &together[4]), (&None, &None));
    for at in [0, 2, 3] {
        let alone = one(&device, &rows[at], wishes[at]);
        assert_eq!(together[at], Some(alone), "row {at}");
    }
}

#[test]
fn wishes_that_mean_nothing_are_refused() {
    let Some(device) = device() else { return };
    let mut draws = Draws::new(&device, 2, 100).unwrap();
    let few = |cut| Wish::Few {
        temperature: 1.0,
        cut,
    };
    let any = |temperature, unit| Wish::Any { temperature, unit };
    let refused = [
        any(0.0, 0.5),
        any(f32::NAN, 0.5),
        any(1.0, 1.0),
        any(1.0, -0.1),
        few(Cut::Best(0)),
        few(Cut::Weight(0.0)),
        few(Cut::Weight(1.5)),
        few(Cut::Mass(1.0)),
    ];
    for wish in refused {
        let why = draws.ask(&[wish]);
        assert!(matches!(why, Err(CudaError::Refused { .. })), "{wish:?}");
    }
    assert!(draws.ask(&[Wish::Nothing; 3]).is_err());
    assert!(Draws::new(&device, 2, 0).is_err());
    let logits = device.zeroed::<f32>(300).unwrap();
    let stream = device.stream().unwrap();
    assert!(draws.run(&stream, logits.all()).is_err());
    assert!(draws.run(&stream, logits.part(0..50).unwrap()).is_err());
}
