use super::*;

/// Logits of a given distribution.
fn logits(weights: &[f32]) -> Vec<f32> {
    weights.iter().map(|w| w.ln()).collect()
}

fn many(sampling: &Sampling, logits: &[f32], mask: Option<&TokenMask>, n: u64) -> Vec<usize> {
    let mut counts = vec![0; logits.len()];
    for seed in 0..n {
        let token = Sampler::new(sampling, seed, &[]).sample(logits, mask);
        counts[token.expect("a token") as usize] += 1;
    }
    counts
}

fn with(change: impl FnOnce(&mut Sampling)) -> Sampling {
    let mut sampling = Sampling::default();
    change(&mut sampling);
    sampling
}

fn greedily(change: impl FnOnce(&mut Sampling)) -> Sampling {
    with(|s| {
        s.temperature = 0.0;
        change(s);
    })
}

#[test]
fn at_temperature_zero_the_largest_logit_wins_and_the_lowest_token_of_equals() {
    let mut sampler = Sampler::new(&greedily(|_| {}), 1, &[]);
    assert_eq!(sampler.sample(&[0.0, 3.0, 3.0, -1.0], None), Some(1));
}

#[test]
fn the_same_seed_gives_the_same_tokens() {
    let logits: Vec<f32> = (0..1000).map(|i| (i as f32 * 0.37).sin() * 4.0).collect();
    let run = |seed| {
        let mut sampler = Sampler::new(&with(|s| s.top_p = 0.95), seed, &[]);
        (0..20)
            .map(|_| sampler.sample(&logits, None).expect("a token"))
            .collect::<Vec<_>>()
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}

/// The stream itself, so that a library's change of algorithm is noticed.
#[test]
fn a_seed_means_the_same_tokens_for_ever() {
    let mut sampler = Sampler::new(&Sampling::default(), 42, &[]);
    let tokens: Vec<_> = (0..8).map(|_| sampler.sample(&[0.0; 100], None)).collect();
    assert_eq!(tokens, [52, 54, 63, 40, 3, 41, 73, 84].map(Some));
}

#[test]
fn tokens_come_as_often_as_their_weights_say() {
    let counts = many(
        &Sampling::default(),
        &logits(&[0.5, 0.3, 0.2]),
        None,
        20_000,
    );
    for (count, want) in counts.iter().zip([10_000, 6_000, 4_000]) {
        assert!(count.abs_diff(want) < 300, "{counts:?}");
    }
}

#[test]
fn an_answer_cut_anywhere_goes_on_with_the_same_draws() {
    let sampling = with(|s| {
        s.temperature = 1.5;
        s.frequency_penalty = 0.5;
    });
    let logits = logits(&[0.1, 0.2, 0.3, 0.4]);
    let mut whole = Sampler::new(&sampling, 9, &[]);
    let said: Vec<_> = (0..40).flat_map(|_| whole.sample(&logits, None)).collect();
    for cut in [0, 1, 7, 39] {
        let mut rest = Sampler::new(&sampling, 9, &[]);
        said[..cut].iter().for_each(|&t| rest.count(t));
        let rest: Vec<_> = (cut..40).flat_map(|_| rest.sample(&logits, None)).collect();
        assert_eq!(rest, said[cut..], "cut at {cut}");
    }
}

#[test]
fn temperature_sharpens_and_flattens() {
    let logits = logits(&[0.8, 0.2]);
    let sharp = many(&with(|s| s.temperature = 0.5), &logits, None, 4000);
    let flat = many(&with(|s| s.temperature = 100.0), &logits, None, 4000);
    // 0.8^2 : 0.2^2 is 16 : 1.
    assert!(sharp[1].abs_diff(4000 / 17) < 60, "{sharp:?}");
    assert!(flat[1].abs_diff(2000) < 160, "{flat:?}");
}

#[test]
fn top_k_top_p_and_min_p_cut_the_tail() {
    let logits = logits(&[0.1, 0.4, 0.05, 0.3, 0.15]);
    let kept = |sampling: &Sampling| -> Vec<usize> {
        let counts = many(sampling, &logits, None, 2000);
        (0..5).filter(|&i| counts[i] > 0).collect()
    };
    assert_eq!(kept(&with(|s| s.top_k = 2)), [1, 3]);
    assert_eq!(kept(&with(|s| s.top_k = 9)), [0, 1, 2, 3, 4]);
    assert_eq!(kept(&with(|s| s.top_p = 0.65)), [1, 3]);
    assert_eq!(kept(&with(|s| s.top_p = 0.75)), [1, 3, 4]);
    assert_eq!(kept(&with(|s| s.top_p = 0.0)), [1]);
    assert_eq!(kept(&with(|s| s.min_p = 0.3)), [1, 3, 4]);
    assert_eq!(kept(&with(|s| s.min_p = 2.0)), [1]);
    // Of the two that top_k leaves, the first alone has 4/7 of the mass.
    let both = with(|s| {
        s.top_k = 2;
        s.top_p = 0.55;
    });
    assert_eq!(kept(&both), [1]);
}

#[test]
fn a_flat_distribution_keeps_its_share() {
    let flat: Vec<_> = (0..5000)
        .map(|token| Candidate { token, value: 1.0 })
        .collect();
    let last = last_of_mass(&flat, 0.5, None, &mut Vec::new()).expect("a last one");
    assert_eq!(last.token, 2499);
}

proptest::proptest! {
    /// The plain way: sort all, add up.
    #[test]
    fn the_share_is_that_of_a_full_sort(weights in proptest::collection::vec(0u16..400, 1..200), share in 0.0f64..1.0) {
        let candidates: Vec<_> = (0..).zip(&weights).map(|(token, &w)| Candidate { token, value: f32::from(w) + 1.0 }).collect();
        let whole: f64 = candidates.iter().map(|c| f64::from(c.value)).sum();
        let mut sorted = candidates.clone();
        sorted.sort_by(Candidate::order);
        let mut mass = 0.0;
        let want = sorted.iter().find(|c| {
            mass += f64::from(c.value);
            mass >= share * whole
        });
        let got = last_of_mass(&candidates, share, None, &mut Vec::new());
        proptest::prop_assert_eq!(got.map(|c| c.token), want.map(|c| c.token));
    }
}

/// The plain way to the few: heaviest first, until they hold the first cut.
fn few_of(logits: &[f32], s: &Sampling, more: usize) -> Few {
    let largest = logits.iter().copied().fold(f32::MIN, f32::max);
    let weight = |l: f32| f64::from((l / s.temperature - largest / s.temperature).exp());
    let whole: f64 = logits.iter().map(|&l| weight(l)).sum();
    let mut tokens: Vec<(Token, f32)> = (0..).zip(logits.iter().copied()).collect();
    tokens.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    let (mut mass, mut n) = (0.0, 0);
    while n < tokens.len()
        && match s.top_k {
            0 if s.top_p < 1.0 => mass < f64::from(s.top_p) * whole,
            0 => weight(tokens[n].1) >= f64::from(s.min_p),
            k => n < k,
        }
    {
        mass += weight(tokens[n].1);
        n += 1;
    }
    tokens.truncate(n.max(1) + more);
    tokens.sort_by_key(|t| t.0);
    Few {
        tokens,
        mass: whole,
    }
}

proptest::proptest! {
    #[test]
    fn of_few_that_hold_the_first_cut_the_same_token_is_chosen_as_of_all(
        logits in proptest::collection::vec(-6.0f32..6.0, 1..300),
        top_k in 0usize..20, top_p in 0.0f32..1.1, min_p in 0.01f32..0.5,
        temperature in 0.2f32..2.0, more in 0usize..5,
    ) {
        let sampling = Sampling { top_k, top_p, min_p, temperature, ..Sampling::default() };
        let few = few_of(&logits, &sampling, more);
        for seed in 0..5 {
            let mut of_all = Sampler::new(&sampling, seed, &[]);
            let mut of_few = Sampler::new(&sampling, seed, &[]);
            for _ in 0..3 {
                let want = of_all.sample(&logits, None);
                proptest::prop_assert!(want.is_some());
                proptest::prop_assert_eq!(of_few.sample_few(&few), want);
            }
        }
    }
}

#[test]
fn a_draw_is_told_to_who_has_the_logits_unless_they_are_edited() {
    let plain = with(|s| s.top_k = 7);
    let mut sampler = Sampler::new(&plain, 3, &[]);
    let first = sampler.draw_of().expect("nothing edits");
    assert_eq!((first.top_k, first.temperature), (7, 1.0));
    assert!((0.0..1.0).contains(&first.unit));
    assert_eq!(sampler.draw_of(), Some(first), "asking draws nothing");
    sampler.count(5);
    assert_ne!(sampler.draw_of(), Some(first));
    for edited in [
        with(|s| s.logit_bias = vec![(1, 1.0)]),
        with(|s| s.frequency_penalty = 0.1),
        with(|s| s.presence_penalty = 0.1),
        with(|s| s.repetition_penalty = 1.1),
    ] {
        assert_eq!(Sampler::new(&edited, 3, &[]).draw_of(), None);
    }
}

#[test]
fn a_bias_moves_a_token_and_one_outside_the_vocabulary_moves_nothing() {
    let sampling = greedily(|s| s.logit_bias = vec![(2, 5.0), (99, 100.0)]);
    assert_eq!(
        Sampler::new(&sampling, 0, &[]).sample(&[1.0, 2.0, 0.0], None),
        Some(2)
    );
}

#[test]
fn the_bias_comes_before_the_penalties_and_repetition_before_the_others() {
    let biased = greedily(|s| {
        s.logit_bias = vec![(0, 3.0)];
        s.repetition_penalty = 4.0;
    });
    // (-1 + 3) / 4 beats 0; -1 * 4 + 3 would not.
    let mut sampler = Sampler::new(&biased, 0, &[0]);
    assert_eq!(sampler.sample(&[-1.0, 0.0], None), Some(0));
    let penalized = greedily(|s| {
        s.repetition_penalty = 2.0;
        s.presence_penalty = 1.5;
    });
    // 2 / 2 - 1.5 loses to 0; (2 - 1.5) / 2 would not.
    let mut sampler = Sampler::new(&penalized, 0, &[]);
    assert_eq!(sampler.sample(&[2.0, 0.0], None), Some(0));
    assert_eq!(sampler.sample(&[2.0, 0.0], None), Some(1));
}

#[test]
fn presence_and_frequency_count_output_only() {
    let logits = [2.0, 1.5];
    for sampling in [
        greedily(|s| s.presence_penalty = 1.0),
        greedily(|s| s.frequency_penalty = 1.0),
    ] {
        let mut sampler = Sampler::new(&sampling, 0, &[0, 0, 0]);
        assert_eq!(sampler.sample(&logits, None), Some(0));
        assert_eq!(sampler.sample(&logits, None), Some(1));
    }
    let mut sampler = Sampler::new(&greedily(|s| s.frequency_penalty = 0.3), 0, &[]);
    let run: Vec<_> = (0..4).flat_map(|_| sampler.sample(&logits, None)).collect();
    assert_eq!(run, [0, 0, 1, 0]);
}

#[test]
fn repetition_counts_the_prompt_and_pushes_both_signs_down() {
    let sampling = greedily(|s| s.repetition_penalty = 2.0);
    let mut sampler = Sampler::new(&sampling, 0, &[0, 0]);
    assert_eq!(sampler.sample(&[2.0, 1.5], None), Some(1));
    let mut sampler = Sampler::new(&sampling, 0, &[0]);
    assert_eq!(sampler.sample(&[-1.0, -1.5], None), Some(1));
}

#[test]
fn a_mask_comes_before_everything() {
    let mask: TokenMask = [1, 40, 70].into_iter().collect();
    assert_eq!(mask.tokens().collect::<Vec<_>>(), [1, 40, 70]);
    assert!(mask.allows(40) && !mask.allows(41) && !mask.allows(4000));
    let logits: Vec<f32> = (0..64).map(|i| i as f32).collect();
    let sampling = greedily(|s| s.logit_bias = vec![(2, 100.0)]);
    let mut sampler = Sampler::new(&sampling, 0, &[]);
    assert_eq!(sampler.sample(&logits, Some(&mask)), Some(40));
    let counts = many(&with(|s| s.temperature = 50.0), &logits, Some(&mask), 500);
    assert_eq!(counts[1] + counts[40], 500);
    assert_eq!(sampler.sample(&logits, Some(&TokenMask::default())), None);
}

#[test]
fn nan_and_infinity_harm_nobody() {
    let inf = f32::INFINITY;
    for logits in [
        vec![f32::NAN; 4],
        vec![-inf; 4],
        vec![inf; 4],
        vec![f32::NAN, 1.0, -inf, inf],
        vec![],
    ] {
        for sampling in [
            Sampling::default(),
            greedily(|_| {}),
            with(|s| s.top_p = 0.5),
            with(|s| s.top_k = 2),
            with(|s| s.temperature = 1e-30),
            with(|s| s.temperature = f32::NAN),
        ] {
            let token = Sampler::new(&sampling, 3, &[]).sample(&logits, None);
            assert_eq!(token.is_some(), !logits.is_empty());
        }
        let all = logprobs(&logits, 0, 3);
        assert!(all.logprob.is_none_or(|p| !p.is_nan()), "{logits:?}");
    }
    assert_eq!(
        Sampler::new(&Sampling::default(), 0, &[]).sample(&[f32::NAN, 1.0, -inf, inf], None),
        Some(3)
    );
}

#[test]
fn log_probabilities_are_those_of_the_unmodified_distribution() {
    let got = logprobs(&logits(&[0.1, 0.6, 0.3]), 0, 2);
    assert!((got.logprob.expect("in range") - 0.1f32.ln()).abs() < 1e-6);
    let top: Vec<Token> = got.top.iter().map(|t| t.0).collect();
    assert_eq!(top, [1, 2]);
    assert!((got.top[0].1 - 0.6f32.ln()).abs() < 1e-6);
    // A large vocabulary of equals, far from zero.
    let flat = logprobs(&vec![1000.0; 163_840], 5, 3);
    assert!((flat.logprob.expect("in range") + 163_840f32.ln()).abs() < 1e-5);
    assert_eq!(flat.top.iter().map(|t| t.0).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(logprobs(&[1.0], 7, 0).logprob, None);
}

proptest::proptest! {
    /// A mask that allows everything makes every token a candidate.
    #[test]
    fn passing_over_what_no_cut_leaves_changes_no_choice(
        logits in proptest::collection::vec(-8.0f32..8.0, 1..900),
        top_k in 0usize..300, top_p in 0.0f32..1.3, min_p in -0.2f32..0.5,
        temperature in -0.3f32..2.0,
    ) {
        let (top_p, min_p) = (top_p.min(1.0), min_p.max(0.0));
        let top_k = top_k.saturating_sub(100);
        let temperature = temperature.max(0.0);
        let sampling = Sampling { top_k, top_p, min_p, temperature, ..Sampling::default() };
        let everything: TokenMask = (0..logits.len() as Token).collect();
        for seed in 0..5 {
            let mut plain = Sampler::new(&sampling, seed, &[]);
            let mut quick = Sampler::new(&sampling, seed, &[]);
            for _ in 0..3 {
                let want = plain.sample(&logits, Some(&everything));
                proptest::prop_assert!(want.is_some());
                proptest::prop_assert_eq!(quick.sample(&logits, None), want);
            }
        }
    }
}
