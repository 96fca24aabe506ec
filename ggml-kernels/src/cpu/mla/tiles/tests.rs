//! The algorithm on emulated tiles, wherever there is AVX-512 with BF16: beside the formulas, and
//! beside itself cut otherwise. On a processor with tiles, these too.

use super::super::tests::{Case, TYPES, bits, cases};
use super::super::{Form, MlaLane, MlaScratch, mla_in};
use crate::cpu::{Crew, Kind, Pool, Tier};

/// Forms that this processor can run, each with its tier.
fn forms() -> Vec<(Form, Tier)> {
    let emulated = Tier::of(Kind::Avx512).map(|tier| (Form::EmulatedTiles, tier));
    let real = Tier::of(Kind::Amx).map(|tier| (Form::Tiles, tier));
    emulated.into_iter().chain(real).collect()
}

/// Tokens of a sequence as a pass of their own.
fn pass(case: &Case, form: Form, crew: Crew<'_>, tokens: std::ops::Range<usize>) -> Vec<f32> {
    let (heads, latent) = (case.shape.heads, case.shape.latent());
    let q = &case.q[tokens.start * heads * latent..];
    let mut out = vec![f32::NAN; tokens.len() * heads * case.shape.rank];
    let lanes: [MlaLane<'_>; 1] = [case.lane(0..tokens.len(), tokens.start)];
    let mut scratch = MlaScratch::default();
    mla_in(
        form,
        crew,
        &case.shape,
        case.ty,
        q,
        &lanes,
        &mut scratch,
        &mut out,
    );
    out
}

#[test]
fn attention_on_tiles_is_its_formula_for_every_type_of_rows() {
    let pool = Pool::new(2);
    for (form, tier) in forms() {
        let crew = Crew { pool: &pool, tier };
        for ty in TYPES {
            let mut worst = 0f64;
            for case in cases().iter().filter(|case| case.ty == ty) {
                let got = pass(case, form, crew, 0..case.tokens);
                for (got, want) in got.iter().zip(case.want()) {
                    worst = worst.max((f64::from(*got) - want).abs());
                    assert!(got.is_finite());
                }
            }
            println!("mla on tiles ({form:?}), {ty} rows: {worst:.1e} from f64, values below 1");
            assert!(worst < 5e-5, "{form:?}, {ty}: {worst}");
        }
    }
}

#[test]
fn a_sequence_cut_anywhere_gives_the_same_bits_on_tiles() {
    for (form, tier) in forms() {
        let one = Pool::new(1);
        let crew = Crew { pool: &one, tier };
        for case in cases() {
            let want = bits(&pass(&case, form, crew, 0..case.tokens));
            for threads in [1, 3] {
                let pool = Pool::new(threads);
                let crew = Crew { pool: &pool, tier };
                for step in [1, 7, 64, 512] {
                    if step < 64 && case.tokens > 200 {
                        continue;
                    }
                    let mut got = Vec::new();
                    for start in (0..case.tokens).step_by(step) {
                        let tokens = start..case.tokens.min(start + step);
                        got.extend(pass(&case, form, crew, tokens));
                    }
                    let (shape, ty) = (case.shape, case.ty);
                    assert!(
                        bits(&got) == want,
                        "{shape:?} {ty} {form:?} {threads} by {step}"
                    );
                }
            }
        }
    }
}
