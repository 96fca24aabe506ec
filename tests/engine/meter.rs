//! What a pass says of its own time and work.

use crate::checkpoint::{Golden, convert, engine};
use deltad::engine::meter::{Meter, Work};
use deltad::engine::{CacheType, Engine, Lane, Logits, Want};

#[test]
fn a_metered_pass_has_the_same_bits_and_counts_every_product_once() {
    let golden = Golden::of("tiny");
    let tokens = golden.tokens(&format!("tokens.{}", golden.lengths().last().unwrap()));
    let model = convert("tiny", "f32");
    let mut engine = engine(&model, CacheType::F32, 512);
    let mut plain = engine.sequence().unwrap();
    let wanted = engine.feed(&mut plain, &tokens, Want::All).unwrap();
    let (mut one, mut other) = (engine.sequence().unwrap(), engine.sequence().unwrap());
    let mut meter = Meter::default();
    let mut lanes = [&mut one, &mut other].map(|sequence| Lane {
        sequence,
        tokens: &tokens,
        want: Want::All,
    });
    let heard = engine.forward_metered(&mut lanes, &mut meter).unwrap();
    assert_eq!(heard, [wanted.clone(), wanted]);
    let h = engine.model().hparams();
    let rows = 2 * tokens.len() as u64;
    let head = (h.hidden * h.vocab) as u64;
    assert_eq!(meter.of(Work::Head).operations, 2 * rows * head);
    assert_eq!(meter.of(Work::Head).bytes, 4 * head);
    // Three matrices for each chosen expert of each row.
    let sparse = h
        .layers
        .iter()
        .filter(|l| l.ffn == quantize::schema::Ffn::Sparse);
    let each = 2 * 3 * (h.hidden * h.moe.ff * h.moe.used) as u64;
    let wanted = sparse.count() as u64 * rows * each;
    assert_eq!(meter.of(Work::Experts).operations, wanted);
    for work in Work::ALL {
        let spent = meter.of(work);
        assert!(!spent.time.is_zero(), "{}", work.name());
        assert_eq!(spent.bytes == 0, work == Work::Other, "{}", work.name());
    }
}

/// Two sequences read `text` and then `more`, which is metered if somebody asks.
fn two(engine: &mut Engine, text: &[u32], more: &[u32], meter: Option<&mut Meter>) -> Vec<Logits> {
    let (mut one, mut other) = (engine.sequence().unwrap(), engine.sequence().unwrap());
    for sequence in [&mut one, &mut other] {
        engine.feed(sequence, text, Want::Nothing).unwrap();
    }
    let mut lanes = [&mut one, &mut other].map(|sequence| Lane {
        sequence,
        tokens: more,
        want: Want::Last,
    });
    let heard = match meter {
        Some(meter) => engine.forward_metered(&mut lanes, meter),
        None => engine.forward(&mut lanes),
    };
    heard.unwrap()
}

fn all(meter: &Meter) -> (u64, u64) {
    let spent = Work::ALL.map(|work| meter.of(work));
    let bytes = spent.iter().map(|s| s.bytes).sum();
    (bytes, spent.iter().map(|s| s.operations).sum())
}

/// Both executors over the same tokens; the kinds of work that differ are the caller's business.
fn here_and_there(more: &[u32]) -> Option<(Meter, Meter)> {
    let model = convert("tiny", "f32");
    let mut card = crate::card::open(&model.path, 64)?;
    let mut own = engine(&model, CacheType::F16, 64);
    let text: Vec<u32> = (0..70).map(|t| t * 7 % 250).collect();
    let (mut here, mut there) = (Meter::default(), Meter::default());
    two(&mut own, &text, more, Some(&mut here));
    let plain = two(&mut card, &text, more, None);
    let metered = two(&mut card, &text, more, Some(&mut there));
    // Nothing of the clock stays.
    let after = two(&mut card, &text, more, None);
    assert_eq!(metered, plain);
    assert_eq!(after, plain);
    for work in Work::ALL {
        let spent = there.of(work);
        assert!(!spent.time.is_zero(), "{}", work.name());
        assert_eq!(spent.bytes == 0, work == Work::Other, "{}", work.name());
    }
    let kernels: std::time::Duration = there.kernels().map(|(_, ran)| ran.time).sum();
    assert_eq!(kernels, there.time());
    Some((here, there))
}

#[test]
fn a_token_on_a_card_moves_and_multiplies_what_it_does_on_the_processor() {
    let Some((here, there)) = here_and_there(&[5]) else {
        return;
    };
    assert_eq!(all(&there), all(&here));
    assert_eq!(there.of(Work::Head).bytes, here.of(Work::Head).bytes);
    let runs = |family: &str| {
        let of = there.kernels().filter(|(name, _)| name.starts_with(family));
        of.map(|(_, ran)| ran.runs).sum::<u64>()
    };
    assert_eq!(runs("embed"), 1);
    assert!(runs("kda_step") > 0 && runs("mla_attend") > 0 && runs("norm_rows") > 2);
}

#[test]
fn a_prompt_on_a_card_counts_its_kinds_of_work_as_the_processor_does() {
    // More rows than look at the cache itself.
    let more: Vec<u32> = (0..20).map(|t| t * 3 % 250).collect();
    let Some((here, there)) = here_and_there(&more) else {
        return;
    };
    for work in [Work::Kda, Work::Head] {
        assert_eq!(there.of(work).bytes, here.of(work).bytes, "{}", work.name());
        assert_eq!(there.of(work).operations, here.of(work).operations);
    }
    // Which experts are chosen may differ by rounding; how many may not.
    let of = |meter: &Meter| meter.of(Work::Experts).operations;
    assert_eq!(of(&there), of(&here));
}
