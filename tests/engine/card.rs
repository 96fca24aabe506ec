//! Kernels of our own on a card. Where there is none the tests say so and are done; on a card that is a
//! processor (`make test-cuda-emulated`) they run the same kernels, slowly.

use std::path::Path;

use crate::checkpoint::{
    Converted, FIXTURES, Golden, convert, convert_trained, log_softmax, options,
};
use deltad::engine::{
    CacheType, Device, Engine, Experts, Lane, Next, Options, Runner, Unfit, Want,
};
use deltad::request::Draw;

/// `None`: there is no card, or none of our kernels takes the model's sizes.
pub fn open(path: &Path, chunk: usize) -> Option<Engine> {
    open_with(path, chunk, Experts::Device)
}

fn open_with(path: &Path, chunk: usize, experts: Experts) -> Option<Engine> {
    let options = Options {
        experts,
        device: Device::Cuda,
        runner: Runner::Own(None),
        card_kernels: std::env::var_os("DELTAD_KERNELS").map(Into::into),
        ..options(CacheType::F16, chunk)
    };
    match Engine::open(path, &options).map_err(|e| e.why) {
        Ok(engine) if engine.device().starts_with("CUDA (") => Some(engine),
        // By ggml's graph, in a build that has it.
        Ok(_) => {
            eprintln!("refused by our own kernels");
            None
        }
        Err(Unfit::Card(why)) if why.is_absence() => {
            eprintln!("skipped: {why}");
            None
        }
        Err(why @ (Unfit::CardSize { .. } | Unfit::CardType { .. })) => {
            eprintln!("refused: {why}");
            None
        }
        Err(why) => panic!("{why}"),
    }
}

/// How far log-probabilities are from those wanted: all but one in a hundred, on average, at worst.
fn distance(pairs: &[(&[f32], &[f32])]) -> (f64, f64, f64) {
    let mut off = Vec::new();
    for (got, want) in pairs {
        assert!(got.iter().all(|v| v.is_finite()));
        let pairs = log_softmax(got).into_iter().zip(log_softmax(want));
        off.extend(pairs.map(|(g, w)| (g - w).abs()));
    }
    off.sort_by(f64::total_cmp);
    let mean = off.iter().sum::<f64>() / off.len() as f64;
    (off[off.len() * 99 / 100], mean, off[off.len() - 1])
}

fn compare(what: &str, pairs: &[(&[f32], &[f32])], (most, most_mean): (f64, f64)) {
    let (usual, mean, worst) = distance(pairs);
    println!("{what}: worst {worst:.2e}, of a hundred all but one {usual:.2e}, mean {mean:.2e}");
    assert!(
        usual < most && mean < most_mean,
        "{what}: {usual:e}, {mean:e}"
    );
}

/// In one wide pass or in several, and then token by token.
fn read(engine: &mut Engine, tokens: &[u32], wide: usize) -> Vec<Vec<f32>> {
    let mut sequence = engine.sequence().unwrap();
    let (most, rest) = tokens.split_at(wide);
    let mut rows = Vec::new();
    for piece in std::iter::once(most)
        .chain(rest.chunks(1))
        .filter(|p| !p.is_empty())
    {
        let logits = engine.feed(&mut sequence, piece, Want::All).unwrap();
        rows.extend(logits.rows().map(<[f32]>::to_vec));
    }
    rows
}

/// What f16 rows of the cache and f16 products of models of random weights were seen to make.
const OF_F16: (f64, f64) = (1e-2, 2e-3);

fn is_the_reference(name: &str, to: &str, model: &Converted, how: (Experts, (f64, f64))) {
    let (experts, tolerance) = how;
    let Some(mut engine) = open_with(&model.path, 64, experts) else {
        return;
    };
    let golden = Golden::of(name);
    for n in golden.lengths() {
        let tokens = golden.tokens(&format!("tokens.{n}"));
        let wanted = golden.f32(&format!("logits.{n}")).unwrap();
        let wanted: Vec<&[f32]> = wanted.chunks_exact(engine.model().n_vocab()).collect();
        for wide in [0, n * 3 / 4, n] {
            let rows = read(&mut engine, &tokens, wide);
            let got = rows[n - wanted.len()..].iter().map(Vec::as_slice);
            let pairs: Vec<_> = got.zip(wanted.iter().copied()).collect();
            compare(
                &format!("{name} {to}, experts {experts:?}, {wide} of {n} tokens at once"),
                &pairs,
                tolerance,
            );
        }
    }
}

#[test]
fn log_probabilities_of_our_kernels_on_a_card_are_the_references() {
    for name in FIXTURES {
        is_the_reference(
            name,
            "f32",
            &convert(name, "f32"),
            (Experts::Device, OF_F16),
        );
    }
}

#[test]
fn experts_on_the_processor_beside_a_card_give_the_references_log_probabilities() {
    for name in FIXTURES {
        is_the_reference(name, "f32", &convert(name, "f32"), (Experts::Cpu, OF_F16));
    }
}

/// 8 bits are rounded from other sums here and there: what is as far from each other as card and
/// processor is right.
#[test]
fn quantized_experts_on_the_processor_are_no_farther_from_the_card_than_all_of_the_model() {
    let model = convert_trained("q8_0");
    let Some(mut card) = open(&model.path, 64) else {
        return;
    };
    let mut beside = open_with(&model.path, 64, Experts::Cpu).unwrap();
    assert!(beside.device().ends_with("experts on the CPU"));
    let mut own = crate::checkpoint::engine(&model, CacheType::F16, 64);
    let tokens = &Golden::trained().tokens("tokens")[..90];
    let all = [&mut card, &mut beside, &mut own].map(|engine| read(engine, tokens, 60));
    let [card, beside, own] = &all;
    for (what, rows) in [("many tokens at once", 0..60), ("one by one", 60..90)] {
        let mean = |one: &[Vec<f32>]| {
            let both = rows.clone().map(|row| (&one[row][..], &card[row][..]));
            distance(&both.collect::<Vec<_>>()).1
        };
        let (beside, own) = (mean(beside), mean(own));
        println!("{what}: experts {beside:.2e} from the card on average, everything {own:.2e}");
        assert!(
            beside < own * 1.5 && own < 0.1,
            "{what}: {beside:e}, {own:e}"
        );
    }
}

/// Both round activations, each in its own way, and weights are what they are.
#[test]
fn quantized_weights_are_as_far_from_the_whole_model_on_a_card_as_on_the_processor() {
    let whole = convert_trained("f32");
    let tokens = &Golden::trained().tokens("tokens")[..100];
    let mut exact = crate::checkpoint::engine(&whole, CacheType::F16, 64);
    let wanted = read(&mut exact, tokens, 60);
    let mean_of = |rows: &[Vec<f32>]| {
        let pairs = rows.iter().map(Vec::as_slice);
        let pairs: Vec<_> = pairs.zip(wanted.iter().map(Vec::as_slice)).collect();
        distance(&pairs).1
    };
    for to in ["q8_0", "q4_k_m", "q5_k_m", "bf16"] {
        let model = convert_trained(to);
        let Some(mut engine) = open(&model.path, 64) else {
            continue;
        };
        let mut own = crate::checkpoint::engine(&model, CacheType::F16, 64);
        let here = mean_of(&read(&mut own, tokens, 60));
        for wide in [0, 60] {
            let there = mean_of(&read(&mut engine, tokens, wide));
            println!(
                "{to}, {wide} at once: {there:.2e} from the whole model, the processor {here:.2e}"
            );
            // Cache rows and wide products are f16 on a card.
            assert!(there < 1.2 * here + 2e-3, "{to}, {wide} at once");
        }
    }
}

#[test]
fn lanes_together_say_what_each_says_alone() {
    let model = convert("uneven", "f32");
    for experts in [Experts::Device, Experts::Cpu] {
        if let Some(mut engine) = open_with(&model.path, 64, experts) {
            lanes_say_what_each_says_alone(&mut engine);
        }
    }
}

fn lanes_say_what_each_says_alone(engine: &mut Engine) {
    let texts: Vec<Vec<u32>> = [5, 70, 33]
        .into_iter()
        .map(|n| (0..n).map(|t| (t * 11 + n) % 250).collect())
        .collect();
    let mut alone = Vec::new();
    for text in &texts {
        let mut sequence = engine.sequence().unwrap();
        engine.feed(&mut sequence, text, Want::Nothing).unwrap();
        let mut rows = Vec::new();
        for token in [3, 4, 5] {
            rows.push(
                engine
                    .feed(&mut sequence, &[token], Want::Last)
                    .unwrap()
                    .last()
                    .unwrap()
                    .to_vec(),
            );
        }
        alone.push(rows);
    }
    let mut sequences: Vec<_> = texts.iter().map(|_| engine.sequence().unwrap()).collect();
    let mut lanes: Vec<_> = sequences
        .iter_mut()
        .zip(&texts)
        .map(|(sequence, tokens)| Lane {
            sequence,
            tokens,
            want: Want::Nothing,
        })
        .collect();
    engine.forward(&mut lanes).unwrap();
    for (step, token) in [3, 4, 5].into_iter().enumerate() {
        let tokens = [token];
        let mut lanes: Vec<_> = sequences
            .iter_mut()
            .map(|sequence| Lane {
                sequence,
                tokens: &tokens,
                want: Want::Last,
            })
            .collect();
        let together = engine.forward(&mut lanes).unwrap();
        let pairs: Vec<_> = together
            .iter()
            .map(|l| l.last().unwrap())
            .zip(alone.iter().map(|rows| rows[step].as_slice()))
            .collect();
        compare(&format!("three lanes, step {step}"), &pairs, OF_F16);
    }
}

#[test]
fn tokens_are_drawn_on_the_card_of_the_logits_that_it_would_have_sent() {
    let model = convert("uneven", "f32");
    let Some(mut engine) = open(&model.path, 64) else {
        return;
    };
    let mut sequence = engine.sequence().unwrap();
    engine
        .feed(&mut sequence, &[3, 1, 4], Want::Nothing)
        .unwrap();
    let before = engine.snapshot(&sequence);
    let mut next = |want| {
        let mut sequence = engine.restore(&before).unwrap();
        engine.feed(&mut sequence, &[15], want).unwrap()
    };
    let logits = next(Want::Last);
    let row = logits.last().unwrap();
    let draw = |temperature, top_k, top_p| {
        Want::Drawn(Draw {
            temperature,
            top_k,
            top_p,
            min_p: 0.0,
            unit: 0.5,
        })
    };
    let drawn = next(draw(0.0, 0, 1.0));
    assert_eq!(drawn.next(), Some(Next::Token(greedy(&logits))));
    let drawn = next(draw(1.0, 0, 1.0));
    let Some(Next::Token(token)) = drawn.next() else {
        panic!("{drawn:?}")
    };
    let weights: Vec<f64> = log_softmax(row).into_iter().map(f64::exp).collect();
    let before: f64 = weights[..token as usize].iter().sum();
    let with = before + weights[token as usize];
    assert!(
        before - 1e-5 <= 0.5 && 0.5 <= with + 1e-5,
        "{before} to {with}"
    );
    let drawn = next(draw(1.0, 5, 0.9));
    let Some(Next::Few(few)) = drawn.next() else {
        panic!("{drawn:?}")
    };
    assert!(few.tokens.len() >= 5);
    assert!(
        few.tokens
            .iter()
            .all(|&(token, logit)| row[token as usize] == logit)
    );
    // All weigh so little that the share is more than come: then all logits do.
    let drawn = next(draw(1e6, 0, 0.999));
    assert_eq!(drawn, logits);
}

#[test]
fn a_state_goes_from_a_card_to_the_processor_and_back() {
    let model = convert("uneven", "f32");
    let Some(mut engine) = open(&model.path, 64) else {
        return;
    };
    let mut own = crate::checkpoint::engine(&model, CacheType::F16, 64);
    let tokens: Vec<u32> = (0..150).map(|t| t * 7 % 250).collect();
    let mut sequence = engine.sequence().unwrap();
    engine.feed(&mut sequence, &tokens, Want::Nothing).unwrap();
    let kept = engine.snapshot(&sequence);
    let state = crate::host::through_bytes(&kept);
    let straight = engine.feed(&mut sequence, &[1, 2, 3], Want::All).unwrap();
    let mut there = own.restore(&own.adopt(&state).unwrap()).unwrap();
    let elsewhere = own.feed(&mut there, &[1, 2, 3], Want::All).unwrap();
    let pairs: Vec<_> = straight.rows().zip(elsewhere.rows()).collect();
    compare("a state taken up by the processor", &pairs, OF_F16);
    // What is kept is what it was, whatever went on since.
    for snapshot in [engine.adopt(&state).unwrap(), kept] {
        let mut back = engine.restore(&snapshot).unwrap();
        assert_eq!(
            engine.feed(&mut back, &[1, 2, 3], Want::All).unwrap(),
            straight
        );
    }
}

/// Said in docs/gpu.md: on average within a thousandth, and the same text.
#[test]
fn a_trained_model_says_on_a_card_what_it_says_on_the_processor() {
    let model = convert_trained("f32");
    let Some(mut engine) = open(&model.path, 512) else {
        return;
    };
    let mut own = crate::checkpoint::engine(&model, CacheType::F32, 512);
    let tokens = Golden::trained().tokens("tokens");
    // A card that is a processor is slow.
    let (read, said) = if engine.device().contains("Emulated") {
        (300, 60)
    } else {
        (tokens.len(), 1500)
    };
    let (mut here, mut there) = (own.sequence().unwrap(), engine.sequence().unwrap());
    let text = &tokens[..read];
    let wanted = own.feed(&mut here, text, Want::All).unwrap();
    let got = engine.feed(&mut there, text, Want::All).unwrap();
    let pairs: Vec<_> = got.rows().zip(wanted.rows()).collect();
    compare("the trained model", &pairs, (5e-3, 1e-3));
    let (mut one, mut other) = (greedy(&wanted), greedy(&got));
    let mut off = Vec::new();
    for at in 0..said {
        assert_eq!(one, other, "token {at} of {said}");
        let wanted = own.feed(&mut here, &[one], Want::Last).unwrap();
        let got = engine.feed(&mut there, &[other], Want::Last).unwrap();
        off.push(distance(&[(got.last().unwrap(), wanted.last().unwrap())]).1);
        (one, other) = (greedy(&wanted), greedy(&got));
    }
    let mean = off.iter().sum::<f64>() / off.len() as f64;
    println!("the same {said} tokens, log-probabilities {mean:.2e} apart on average");
    assert!(mean < 1e-3);
}

fn greedy(logits: &deltad::engine::Logits) -> u32 {
    let row = logits.last().unwrap().iter().enumerate();
    row.max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0 as u32
}
