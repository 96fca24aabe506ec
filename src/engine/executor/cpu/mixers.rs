//! What mixes tokens: a KDA or an MLA layer, from normed rows to what it adds to them.

use ggml_kernels::cpu::heads::open_heads;
use ggml_kernels::cpu::kda::{KdaInput, KdaWeights, kda};
use ggml_kernels::cpu::mla::{BLOCK, MlaShape, mla, store_rows};
use ggml_kernels::cpu::norm::rms_norm;
use ggml_kernels::cpu::products::{products, products_by_head};
use quantize::schema::Role;

use super::pass::{Asking, LaneRows, Pass, gather};
use super::scratch::Scratch;
use super::weights::Held;
use crate::engine::layers::{GateParts, KdaParts, MlaParts, QueryParts};

impl Pass<'_> {
    /// KDA layer number `number` of the states.
    pub fn kda(
        &mut self,
        at: usize,
        parts: &KdaParts<Held, Vec<f32>>,
        number: usize,
        s: &mut Scratch,
        rows: usize,
    ) {
        let (h, map) = (self.model.h, self.model.map);
        let (hidden, inner, low) = (h.hidden, h.kda.d_inner(), h.kda.head_dim);
        let normed = s.normed.of(rows * hidden);
        let (input, m) = (&mut s.input, &mut s.mixer);
        let matrices = [
            (&parts.q, Role::KdaQ),
            (&parts.k, Role::KdaK),
            (&parts.v, Role::KdaV),
            first(&parts.decay, Role::KdaF, Role::KdaFA),
            first(&parts.open, Role::KdaG, Role::KdaGA),
            (&parts.beta, Role::KdaBeta),
        ];
        input.fill(self.crew, normed, hidden, matrices.map(|(w, _)| w.ty));
        for (_, role) in matrices {
            self.ears.input(Some(at), role, 0, normed);
        }
        let (q, k, v) = (
            m.q.of(rows * inner),
            m.k.of(rows * inner),
            m.v.of(rows * inner),
        );
        let (gate, open) = (m.gate.of(rows * inner), m.open.of(rows * inner));
        let (low_f, low_g) = (m.low_f.of(rows * low), m.low_g.of(rows * low));
        let beta = m.beta.of(rows * h.kda.heads);
        {
            // A whole gate's product is the gate; a narrow one's goes on.
            let f = if h.kda.whole_gates {
                &mut *gate
            } else {
                &mut *low_f
            };
            let g = if h.kda.whole_gates {
                &mut *open
            } else {
                &mut *low_g
            };
            let outs = [&mut *q, &mut *k, &mut *v, f, g, &mut *beta];
            let jobs = matrices.into_iter().zip(outs);
            let mut jobs: Vec<_> = jobs.map(|((w, _), out)| w.product(map, out)).collect();
            products(self.crew, input, &mut jobs);
        }
        for (x, gate, role, out) in [
            (low_f, &parts.decay, Role::KdaFB, &mut *gate),
            (low_g, &parts.open, Role::KdaGB, &mut *open),
        ] {
            if let GateParts::Narrow { b, .. } = gate {
                self.ears.input(Some(at), role, 0, x);
                m.middle.fill(self.crew, x, low, [b.ty]);
                self.project(&m.middle, b, out);
            }
        }
        let narrow = [&parts.decay, &parts.open].into_iter();
        let narrow = narrow.filter_map(|gate| match gate {
            GateParts::Narrow { b, .. } => Some(b),
            GateParts::Whole(_) => None,
        });
        let all = matrices.iter().map(|(w, _)| *w).chain(narrow);
        self.clock.dense(rows, all);
        let weights = KdaWeights {
            conv_q: &parts.conv_q,
            conv_k: &parts.conv_k,
            conv_v: &parts.conv_v,
            a: &parts.a,
            dt_bias: &parts.dt_bias,
            norm: &parts.norm,
            eps: h.norm_eps,
            gate: h.kda.gate,
        };
        let projected = KdaInput {
            q,
            k,
            v,
            gate,
            open,
            beta,
        };
        let mixed = m.mixed.of(rows * inner);
        {
            let mut lanes: Vec<_> = self.lanes.iter_mut().map(|l| l.kda(number)).collect();
            kda(
                self.crew,
                &self.model.kda,
                &weights,
                &projected,
                &mut lanes,
                &mut m.kda,
                mixed,
            );
        }
        self.clock.kda(&self.model.kda, &self.lanes);
        self.ears.input(Some(at), Role::KdaOutput, 0, mixed);
        m.middle.fill(self.crew, mixed, inner, [parts.output.ty]);
        self.project(&m.middle, &parts.output, s.delta.of(rows * hidden));
        self.clock.dense(rows, [&parts.output]);
    }

    /// MLA layer number `number` of the states, absorbed: `q' = q_nope W_kb`, so that every head
    /// looks at the latent rows themselves. One form always: the bits of a token must not depend
    /// on how the prompt was cut.
    pub fn mla(
        &mut self,
        (at, asking): (usize, Asking),
        parts: &MlaParts<Held, Vec<f32>>,
        number: usize,
        s: &mut Scratch,
        mut rows: usize,
    ) {
        let (h, map) = (self.model.h, self.model.map);
        let (hidden, d) = (h.hidden, h.mla);
        let (rank, nope, rope, latent) = (d.kv_lora_rank, d.qk_nope, d.qk_rope, d.latent());
        let normed = s.normed.of(rows * hidden);
        let (input, m) = (&mut s.input, &mut s.mixer);
        let (first, role) = match &parts.q {
            QueryParts::Whole(w) => (w, Role::MlaQ),
            QueryParts::Narrow { a, .. } => (a, Role::MlaQA),
        };
        let gate = parts.gate.as_ref();
        let of_askers = || [first].into_iter().chain(gate);
        let types = of_askers().chain([&parts.kv_a]).map(|w| w.ty);
        input.fill(self.crew, normed, hidden, types);
        self.ears.input(Some(at), role, 0, normed);
        self.ears.input(Some(at), Role::MlaKvA, 0, normed);
        if gate.is_some() {
            self.ears.input(Some(at), Role::MlaGate, 0, normed);
        }
        let kv = m.v.of(rows * latent);
        let asked = match asking {
            Asking::All => rows,
            Asking::Wanted => self.wanted.len(),
        };
        let q = m.q.of(asked * d.heads * d.qk());
        let low = asked * d.q_lora_rank.unwrap_or(0);
        let (low_q, low_q_normed) = (m.low_q.of(low), m.low_q_normed.of(low));
        let gates = m.head_gates.of(asked * d.heads);
        {
            let queries = match &parts.q {
                QueryParts::Whole(_) => &mut *q,
                QueryParts::Narrow { .. } => &mut *low_q,
            };
            let mut asks = vec![first.product(map, queries)];
            asks.extend(gate.map(|w| w.product(map, &mut *gates)));
            let row = parts.kv_a.product(map, &mut *kv);
            if asked == rows {
                asks.push(row);
                products(self.crew, input, &mut asks);
                self.clock.dense(rows, of_askers().chain([&parts.kv_a]));
            } else {
                products(self.crew, input, &mut [row]);
                self.clock.dense(rows, [&parts.kv_a]);
                gather(normed, &self.wanted, hidden);
                let types = of_askers().map(|w| w.ty);
                input.fill(self.crew, &normed[..asked * hidden], hidden, types);
                products(self.crew, input, &mut asks);
                self.clock.dense(asked, of_askers());
            }
        }
        if let QueryParts::Narrow { norm, b, .. } = &parts.q {
            rms_norm(self.crew, low_q, norm, h.norm_eps, low_q_normed);
            self.ears.input(Some(at), Role::MlaQB, 0, low_q_normed);
            m.middle.fill(self.crew, low_q_normed, norm.len(), [b.ty]);
            self.project(&m.middle, b, q);
            self.clock.dense(asked, [b]);
        }
        if d.rope_base.is_some() {
            s.turns.turn(self.crew, kv, 1, rank);
            if asked < rows {
                s.turns.keep(&self.wanted);
            }
            s.turns.turn(self.crew, q, d.heads, nope);
        }
        // The new rows: [norm(c), k_r], the latter rotated but not normed.
        let (c, c_normed) = (m.low_f.of(rows * rank), m.low_g.of(rows * rank));
        copy_columns(kv, latent, 0, c, rank, 0, rank);
        rms_norm(self.crew, c, &parts.kv_a_norm, h.norm_eps, c_normed);
        copy_columns(c_normed, rank, 0, kv, latent, 0, rank);
        for lane in &mut self.lanes {
            store(lane, number, self.model.cache, kv, latent);
        }
        rows = asked;
        if rows == 0 {
            return;
        }
        // q' = [q_nope W_kb, q_r], for all heads over the same rows.
        let q_nope = m.k.of(rows * d.heads * nope);
        copy_columns(q, d.qk(), 0, q_nope, nope, 0, nope);
        hear_heads(self, at, Role::MlaKB, q_nope, d.heads, nope);
        self.clock.other();
        m.middle.fill(self.crew, q_nope, nope, [parts.k_b.ty]);
        let absorbed = m.mixed.of(rows * d.heads * rank);
        products_by_head(self.crew, &m.middle, &parts.k_b.stack(map), absorbed);
        self.clock.dense(rows, [&parts.k_b]);
        let wide = m.gate.of(rows * d.heads * latent);
        copy_columns(absorbed, rank, 0, wide, latent, 0, rank);
        copy_columns(q, d.qk(), nope, wide, latent, rank, rope);
        self.clock.other();
        let shape = MlaShape {
            heads: d.heads,
            rank,
            rope,
            scale: 1.0 / (d.qk() as f32).sqrt(),
        };
        {
            let lanes: Vec<_> = self.lanes.iter().map(|l| l.mla(number, asking)).collect();
            let cache = self.model.cache;
            mla(self.crew, &shape, cache, wide, &lanes, &mut m.mla, absorbed);
            let row_bytes = cache.row_bytes(latent).unwrap_or(0);
            self.clock.mla(h, row_bytes, &self.lanes, asking);
        }
        hear_heads(self, at, Role::MlaVB, absorbed, d.heads, rank);
        m.middle.fill(self.crew, absorbed, rank, [parts.v_b.ty]);
        let values = m.open.of(rows * d.heads * d.v);
        products_by_head(self.crew, &m.middle, &parts.v_b.stack(map), values);
        if parts.gate.is_some() {
            open_heads(self.crew, values, gates);
        }
        self.ears.input(Some(at), Role::MlaOutput, 0, values);
        let width = d.heads * d.v;
        m.middle.fill(self.crew, values, width, [parts.output.ty]);
        self.project(&m.middle, &parts.output, s.delta.of(rows * hidden));
        self.clock.dense(rows, [&parts.v_b, &parts.output]);
    }
}

/// What a gate's input meets first.
fn first(gate: &GateParts<Held>, whole: Role, narrow: Role) -> (&Held, Role) {
    match gate {
        GateParts::Whole(w) => (w, whole),
        GateParts::Narrow { a, .. } => (a, narrow),
    }
}

/// Puts a lane's new rows into its blocks.
fn store(
    lane: &mut LaneRows<'_>,
    number: usize,
    ty: ggml_kernels::quant::TensorType,
    rows: &[f32],
    latent: usize,
) {
    let mut rest = &rows[lane.rows.start * latent..lane.rows.end * latent];
    let mut token = lane.past;
    while !rest.is_empty() {
        let at = token % BLOCK;
        let (now, later) = rest.split_at(rest.len().min((BLOCK - at) * latent));
        store_rows(ty, now, lane.state.rows_mut(number, token / BLOCK), at);
        token += now.len() / latent;
        rest = later;
    }
}

/// Copies `n` columns of rows of one width into rows of another.
fn copy_columns(
    from: &[f32],
    from_width: usize,
    from_column: usize,
    to: &mut [f32],
    to_width: usize,
    to_column: usize,
    n: usize,
) {
    let rows = from
        .chunks_exact(from_width)
        .zip(to.chunks_exact_mut(to_width));
    for (from, to) in rows {
        to[to_column..to_column + n].copy_from_slice(&from[from_column..from_column + n]);
    }
}

/// Rows `[rows, heads, width]`, each head's matrix told its own.
fn hear_heads(pass: &mut Pass<'_>, at: usize, role: Role, x: &[f32], heads: usize, width: usize) {
    if pass.ears.are_open() {
        for (row, x) in x.chunks_exact(width).enumerate() {
            pass.ears.input(Some(at), role, row % heads, x);
        }
    }
}
