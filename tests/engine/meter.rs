//! What a pass says of its own time and work.

use crate::checkpoint::{Golden, convert, engine};
use deltad::engine::meter::{Meter, Work};
use deltad::engine::{CacheType, Lane, Want};

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
