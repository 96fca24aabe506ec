use super::*;
use crate::quant::dequantize;
use crate::rival;

const TYPES: [TensorType; 3] = [TensorType::Q4K, TensorType::Q5K, TensorType::Q6K];

/// Kinds of rows of which many scales lose nothing, so that chance decides between them.
const ALIKE: [&str; 3] = ["steps", "next to nothing", "nothing"];

/// Kinds of rows: what weights look like, what they never should, and the corners.
fn kinds() -> Vec<(&'static str, Vec<f32>)> {
    let mut state = 1u64;
    let mut unit = move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 40) as f32 / (1u64 << 24) as f32
    };
    let mut normal = move || (0..12).map(|_| unit()).sum::<f32>() - 6.0;
    let n = 40 * 768;
    let mut of = |f: &mut dyn FnMut(usize, f32) -> f32| -> Vec<f32> {
        (0..n).map(|i| f(i, normal())).collect()
    };
    vec![
        ("normal", of(&mut |_, x| 0.02 * x)),
        ("heavy tails", of(&mut |_, x| 0.02 * x * x * x)),
        ("above zero", of(&mut |_, x| 1.0 + 0.1 * x)),
        ("below zero", of(&mut |_, x| -1.0 + 0.1 * x)),
        ("few", of(&mut |i, x| if i % 5 == 0 { x } else { 0.0 })),
        ("small", of(&mut |_, x| 1e-6 * x)),
        ("steps", of(&mut |i, _| (i / 32) as f32 * 0.01 - 0.3)),
        ("next to nothing", of(&mut |_, x| 1e-20 * x)),
        ("nothing", of(&mut |_, _| 0.0)),
    ]
}

fn importance(row: usize) -> Vec<f32> {
    (0..row)
        .map(|i| [1.0, 0.01, 3.0, 0.05, 0.2][i * 7 % 5] * (1 + i % 3) as f32)
        .collect()
}

fn ours(tier: Tier, ty: TensorType, values: &[f32], importance: Option<&[f32]>) -> Vec<u8> {
    let mut out = vec![0xaa; ty.row_bytes(values.len()).unwrap()];
    rows(tier, ty, Rows { values, importance }, &mut out);
    out
}

/// What the search makes small: squares of what is lost, each by its weight.
fn loss(ty: TensorType, values: &[f32], weights: Option<&[f32]>, packed: &[u8]) -> f64 {
    let mut back = vec![0.0; values.len()];
    dequantize(ty, packed, &mut back).unwrap();
    let weight = |i: usize| weights.map_or(1.0, |w| w[i % w.len()]);
    (0..values.len())
        .map(|i| f64::from(weight(i)) * f64::from(values[i] - back[i]).powi(2))
        .sum()
}

#[test]
fn no_more_is_lost_than_by_ggmls_search() {
    let row = 768;
    let known = importance(row);
    for ty in TYPES {
        for (kind, values) in kinds()
            .into_iter()
            .filter(|(kind, _)| !ALIKE.contains(kind))
        {
            for importance in [None, Some(&known[..])] {
                let lost = |packed: &[u8]| loss(ty, &values, importance, packed);
                let ours = lost(&ours(Tier::detect(), ty, &values, importance));
                let mut packed = vec![0; ty.row_bytes(values.len()).unwrap()];
                rival::quantize_rows(ty, &values, row, importance, &mut packed);
                let ggmls = lost(&packed);
                println!("{ty} {kind} {}: {ours:e} {ggmls:e}", importance.is_some());
                assert!(ours <= 1.005 * ggmls, "{ty} {kind}: {ours} and {ggmls}");
            }
        }
    }
}

#[test]
fn bits_do_not_depend_on_the_tier_nor_on_how_rows_are_cut() {
    let row = 768;
    let known = importance(row);
    for ty in TYPES {
        for (kind, values) in kinds() {
            for importance in [None, Some(&known[..])] {
                let wanted = ours(Tier::SCALAR, ty, &values, importance);
                for tier in Tier::available() {
                    let whole = ours(tier, ty, &values, importance);
                    assert!(whole == wanted, "{ty} {kind} {tier}");
                    let cut: Vec<u8> = values
                        .chunks(row)
                        .flat_map(|row| ours(tier, ty, row, importance))
                        .collect();
                    assert!(cut == wanted, "{ty} {kind} {tier}: row by row");
                }
            }
        }
    }
}
