//! Norms and the router beside their twins on the processor.

mod kda;

use ggml_kernels::cpu::norm::rms_norm;
use ggml_kernels::cpu::route::{Routing, route};
use ggml_kernels::cpu::{Crew, Pool, Tier};
use ggml_kernels::cuda::driver::{Buffer, Device};
use ggml_kernels::cuda::mixers::{
    Chosen, Routed, Router, To, norm_rows, quantize_rows, route_small, route_wide,
};
use ggml_kernels::cuda::weights::{Acts, Matrix, WeightType};
use half::{bf16, f16};

use crate::device;

/// Reproducible values in (-1, 1): a linear congruential generator (Knuth's MMIX constants).
struct Noise(u64);

impl Noise {
    fn take(&mut self, n: usize) -> Vec<f32> {
        let mut next = || {
            let product = self.0.wrapping_mul(6364136223846793005);
            self.0 = product.wrapping_add(1442695040888963407);
            (self.0 >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        };
        (0..n).map(|_| next()).collect()
    }
}

fn crew<T>(f: impl FnOnce(Crew<'_>) -> T) -> T {
    let pool = Pool::new(1);
    f(Crew {
        pool: &pool,
        tier: Tier::detect(),
    })
}

/// The farthest of `got` from `want`, in parts of the greatest of `want`.
fn off(got: &[f32], want: &[f32]) -> f32 {
    assert_eq!(got.len(), want.len());
    let size = want.iter().fold(0f32, |m, w| m.max(w.abs()));
    let far = |(&g, &w): (&f32, &f32)| (g - w).abs();
    let worst = got.iter().zip(want).map(far);
    let worst = worst.fold(0f32, |m, x| if x <= m { m } else { x });
    worst / size.max(f32::MIN_POSITIVE)
}

/// Rows in every form, on the card.
struct Forms {
    x: Buffer<f32>,
    q: Buffer<i8>,
    d: Buffer<f32>,
    s: Buffer<i16>,
    h: Buffer<f16>,
    acts: Acts,
}

impl Forms {
    fn new(device: &Device, rows: usize, cols: usize) -> Forms {
        let n = rows * cols;
        let x = device.zeroed(n).unwrap();
        let q = device.zeroed(n).unwrap();
        let d = device.zeroed(n / 32).unwrap();
        let s = device.zeroed(n / 16).unwrap();
        let acts = Acts {
            x: x.address(),
            q: q.address(),
            d: d.address(),
            s: s.address(),
            rows: rows as u32,
            cols: cols as u32,
        };
        let h = device.zeroed(n).unwrap();
        Forms {
            x,
            q,
            d,
            s,
            h,
            acts,
        }
    }

    fn to(&self) -> To<'_> {
        To {
            acts: Some(self.acts),
            f32: None,
            f16: Some(self.h.all()),
        }
    }

    /// That 8 bits and halves are `x` rounded; `x` itself.
    fn rows(&self) -> Vec<f32> {
        let x = self.x.read().unwrap();
        self.check_eight(&x);
        for (h, x) in self.h.read().unwrap().into_iter().zip(&x) {
            assert_eq!(h, f16::from_f32(*x));
        }
        x
    }

    fn check_eight(&self, x: &[f32]) {
        let (q, d) = (self.q.read().unwrap(), self.d.read().unwrap());
        for ((x, q), d) in x.chunks_exact(32).zip(q.chunks_exact(32)).zip(d) {
            let most = x.iter().fold(0f32, |m, x| m.max(x.abs()));
            assert!((d - most / 127.0).abs() <= most * 1e-7, "{d} of {most}");
            for (x, &q) in x.iter().zip(q) {
                assert!(
                    (x - d * f32::from(q)).abs() <= d * 0.5001,
                    "{x}: {q} of {d}"
                );
            }
        }
        let sum = |q: &[i8]| q.iter().map(|&q| i16::from(q)).sum::<i16>();
        let sums: Vec<i16> = q.chunks_exact(16).map(sum).collect();
        assert_eq!(self.s.read().unwrap(), sums);
    }
}

#[test]
fn a_norm_is_its_twin_s_in_every_form_and_in_any_company() {
    let Some(device) = device() else { return };
    let stream = device.stream().unwrap();
    for (rows, n) in [(1, 32), (3, 2304), (17, 96), (2, 4096), (1, 9216)] {
        let mut noise = Noise(n as u64);
        let (mut x, weight) = (noise.take(rows * n), noise.take(n));
        // Values that are zeros, and a row of them.
        x[..32].fill(0.0);
        let mut want = vec![0.0; rows * n];
        crew(|crew| rms_norm(crew, &x, &weight, 1e-5, &mut want));
        let forms = Forms::new(&device, rows, n);
        let on_card = device.upload(&x).unwrap();
        let weight = device.upload(&weight).unwrap();
        norm_rows(&stream, on_card.all(), weight.all(), 1e-5, &forms.to()).unwrap();
        stream.synchronize().unwrap();
        let got = forms.rows();
        assert!(off(&got, &want) < 1e-6, "{rows} x {n}");
        // The last row alone.
        let alone = device.zeroed::<f32>(n).unwrap();
        let to = To {
            f32: Some(alone.all()),
            ..To::default()
        };
        let last = on_card.part((rows - 1) * n..rows * n).unwrap();
        norm_rows(&stream, last, weight.all(), 1e-5, &to).unwrap();
        stream.synchronize().unwrap();
        assert_eq!(alone.read().unwrap(), got[(rows - 1) * n..]);
        // As they are.
        quantize_rows(&stream, on_card.all(), n, &forms.to()).unwrap();
        stream.synchronize().unwrap();
        assert_eq!(forms.rows(), x);
    }
}

#[test]
fn rows_of_odd_lengths_and_of_another_size_are_refused() {
    let Some(device) = device() else { return };
    let stream = device.stream().unwrap();
    let (x, weight) = (device.zeroed(96).unwrap(), device.zeroed(48).unwrap());
    let why = norm_rows(&stream, x.all(), weight.all(), 1e-5, &To::default()).unwrap_err();
    let why = why.to_string();
    assert_eq!(
        why,
        "norm_rows: a row's length is 48, wanted a multiple of 32"
    );
    let forms = Forms::new(&device, 2, 32);
    assert!(quantize_rows(&stream, x.all(), 32, &forms.to()).is_err());
}

struct RouteCase {
    rows: usize,
    experts: usize,
    hidden: usize,
    ty: WeightType,
    routing: Routing,
}

fn route_cases() -> Vec<RouteCase> {
    let case = |rows, experts, hidden, ty, used, groups, groups_used| RouteCase {
        rows,
        experts,
        hidden,
        ty,
        routing: Routing {
            used,
            groups,
            groups_used,
            scale: 2.446,
        },
    };
    vec![
        case(1, 4, 32, WeightType::F32, 1, 1, 1),
        case(1, 64, 2304, WeightType::F32, 8, 1, 1),
        case(3, 256, 96, WeightType::F32, 8, 8, 4),
        case(16, 24, 64, WeightType::F16, 3, 4, 2),
        case(5, 33, 4128, WeightType::Bf16, 16, 1, 1),
        case(2, 512, 32, WeightType::F32, 16, 32, 5),
        case(4, 8, 64, WeightType::F32, 8, 1, 1),
        case(2, 10, 32, WeightType::F32, 2, 10, 3),
    ]
}

/// A router on the card, and its values.
fn router_of(
    device: &Device,
    case: &RouteCase,
    noise: &mut Noise,
) -> (Buffer<u8>, Matrix, Vec<f32>) {
    let mut bytes = Vec::new();
    let mut values = noise.take(case.experts * case.hidden);
    for value in &mut values {
        match case.ty {
            WeightType::F16 => {
                let half = f16::from_f32(*value);
                *value = half.to_f32();
                bytes.extend(half.to_le_bytes());
            }
            WeightType::Bf16 => {
                let half = bf16::from_f32(*value);
                *value = half.to_f32();
                bytes.extend(half.to_le_bytes());
            }
            _ => bytes.extend(value.to_le_bytes()),
        }
    }
    let held = device.upload(&bytes).unwrap();
    let matrix = Matrix {
        data: held.address(),
        ty: case.ty as u32,
        rows: case.experts as u32,
        cols: case.hidden as u32,
        row_bytes: (bytes.len() / case.experts) as u32,
    };
    (held, matrix, values)
}

#[test]
fn the_choice_is_the_twin_s_small_and_wide_and_again() {
    let Some(device) = device() else { return };
    let stream = device.stream().unwrap();
    for case in route_cases() {
        let RouteCase {
            rows,
            experts,
            hidden,
            routing,
            ..
        } = case;
        let used = routing.used;
        let mut noise = Noise((experts * 31 + hidden) as u64);
        let (_held, matrix, values) = router_of(&device, &case, &mut noise);
        let bias: Vec<f32> = noise.take(experts).iter().map(|b| b * 0.05).collect();
        let router = Router::new(&device, experts).unwrap();
        let ids = device.zeroed::<u32>(rows * used).unwrap();
        let weights = device.zeroed::<f32>(rows * used).unwrap();
        let to = Routed {
            ids: ids.all(),
            weights: weights.all(),
        };
        let on_card = device.upload(&bias).unwrap();
        let choice = Chosen {
            bias: on_card.all(),
            routing,
        };
        let what = format!("{rows} rows, {experts} experts, {:?}", case.ty);
        // Twice: the counter of blocks is left as it was found.
        for _ in 0..2 {
            let x = noise.take(rows * hidden);
            let dot = |row: &[f32], w: &[f32]| -> f32 {
                let products = row
                    .iter()
                    .zip(w)
                    .map(|(&x, &w)| f64::from(x) * f64::from(w));
                (products.sum::<f64>() / (hidden as f64).sqrt()) as f32
            };
            let scaled: Vec<f32> = x.iter().map(|x| x / (hidden as f32).sqrt()).collect();
            let logits = x.chunks_exact(hidden).flat_map(|row| {
                let row: Vec<f32> = row.to_vec();
                values
                    .chunks_exact(hidden)
                    .map(move |w| dot(&row, w))
                    .collect::<Vec<_>>()
            });
            let logits: Vec<f32> = logits.collect();
            let (mut want_ids, mut want) = (vec![0; rows * used], vec![0.0; rows * used]);
            crew(|crew| route(crew, &logits, &bias, &routing, &mut want_ids, &mut want));
            let x = device.upload(&scaled).unwrap();
            route_small(&stream, &router, &matrix, x.all(), &choice, to).unwrap();
            stream.synchronize().unwrap();
            assert_eq!(ids.read().unwrap(), want_ids, "{what}");
            let error = off(&weights.read().unwrap(), &want);
            assert!(error < 1e-5, "{what}: {error}");

            let logits = device.upload(&logits).unwrap();
            route_wide(&stream, logits.all(), &choice, to).unwrap();
            stream.synchronize().unwrap();
            assert_eq!(ids.read().unwrap(), want_ids, "{what}, wide");
            let error = off(&weights.read().unwrap(), &want);
            assert!(error < 1e-6, "{what}, wide: {error}");
        }
    }
}

#[test]
fn equal_scores_go_to_the_lower_id_and_nan_chooses_different_experts() {
    let Some(device) = device() else { return };
    let stream = device.stream().unwrap();
    let choose = |logits: &[f32], groups, groups_used| {
        let experts = logits.len();
        let (bias, logits) = (
            device.zeroed::<f32>(experts).unwrap(),
            device.upload(logits).unwrap(),
        );
        let ids = device.upload(&[u32::MAX; 3]).unwrap();
        let weights = device.zeroed::<f32>(3).unwrap();
        let choice = Chosen {
            bias: bias.all(),
            routing: Routing {
                used: 3,
                groups,
                groups_used,
                scale: 1.0,
            },
        };
        let to = Routed {
            ids: ids.all(),
            weights: weights.all(),
        };
        route_wide(&stream, logits.all(), &choice, to).unwrap();
        stream.synchronize().unwrap();
        ids.read().unwrap()
    };
    assert_eq!(choose(&[1.0, 2.0, 1.0, 2.0, 1.0], 1, 1), [1, 3, 0]);
    let mut far = vec![0.0; 300];
    (far[290], far[34], far[66]) = (3.0, 3.0, 3.0);
    assert_eq!(choose(&far, 1, 1), [34, 66, 290]);
    for experts in [5, 40] {
        let ids = choose(&vec![f32::NAN; experts], 1, 1);
        assert_eq!(ids, [0, 1, 2]);
    }
    let mut some = vec![f32::NAN; 40];
    some[39] = -5.0;
    assert_eq!(choose(&some, 1, 1), [39, 0, 1]);
    some[38] = -6.0;
    assert_eq!(choose(&some, 4, 1), [39, 38, 30]);
}
