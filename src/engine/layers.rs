//! A model as its parts: every tensor bound to a field once, so that executors use fields, never
//! names. What a matrix or a vector *is* belongs to the executor.

use quantize::schema::{Ffn, Hparams, Mixer, Role};

use super::error::Unfit;

/// Finds a model's tensors for an executor. `layer`: `None` for the global ones.
pub(super) trait Bind {
    /// What products and row look-ups take.
    type Matrix;
    /// Norms, biases and other small ones, always F32.
    type Vector;
    /// A sparse layer's routed experts: most of a model's bytes, which may lie elsewhere.
    type Experts;

    fn matrix(&mut self, layer: Option<usize>, role: Role) -> Result<Self::Matrix, Unfit>;
    fn vector(&mut self, layer: Option<usize>, role: Role) -> Result<Self::Vector, Unfit>;
    fn experts(&mut self, layer: Option<usize>) -> Result<Self::Experts, Unfit>;
}

/// What [`Bind::experts`] is made of, one matrix an expert.
pub(super) const EXPERTS: [Role; 3] = [Role::GateExps, Role::UpExps, Role::DownExps];

#[derive(Debug)]
pub(super) struct Parts<M, V, E = Mlp<M>> {
    pub token_embd: M,
    pub layers: Vec<Layer<M, V, E>>,
    pub output_norm: V,
    pub output: M,
}

#[derive(Debug)]
pub(super) struct Layer<M, V, E = Mlp<M>> {
    pub attn_norm: V,
    pub mixer: MixerParts<M, V>,
    pub ffn_norm: V,
    pub ffn: FfnParts<M, V, E>,
}

#[derive(Debug)]
pub(super) enum MixerParts<M, V> {
    Kda(Box<KdaParts<M, V>>),
    Mla(Box<MlaParts<M, V>>),
}

#[derive(Debug)]
pub(super) struct KdaParts<M, V> {
    pub q: M,
    pub k: M,
    pub v: M,
    pub conv_q: V,
    pub conv_k: V,
    pub conv_v: V,
    pub decay: GateParts<M>,
    pub open: GateParts<M>,
    pub beta: M,
    pub a: V,
    pub dt_bias: V,
    pub norm: V,
    pub output: M,
}

/// What a gate of KDA is projected by.
#[derive(Debug)]
pub(super) enum GateParts<M> {
    Whole(M),
    /// Through few columns.
    Narrow {
        a: M,
        b: M,
    },
}

#[derive(Debug)]
pub(super) struct MlaParts<M, V> {
    pub q: QueryParts<M, V>,
    pub kv_a: M,
    pub kv_a_norm: V,
    pub k_b: M,
    pub v_b: M,
    /// Of each head's output.
    pub gate: Option<M>,
    pub output: M,
}

/// What queries are projected by.
#[derive(Debug)]
pub(super) enum QueryParts<M, V> {
    Whole(M),
    /// Through few columns, with a norm between.
    Narrow {
        a: M,
        norm: V,
        b: M,
    },
}

#[derive(Debug)]
pub(super) enum FfnParts<M, V, E = Mlp<M>> {
    Dense(Mlp<M>),
    Sparse(Box<SparseParts<M, V, E>>),
}

#[derive(Debug)]
pub(super) struct Mlp<M> {
    pub gate: M,
    pub up: M,
    pub down: M,
}

#[derive(Debug)]
pub(super) struct SparseParts<M, V, E = Mlp<M>> {
    pub router: M,
    pub router_bias: V,
    pub experts: E,
    pub shared: Option<Mlp<M>>,
}

impl<M> Mlp<M> {
    /// `roles`: gate, up and down.
    pub fn bind<B>(at: Option<usize>, roles: [Role; 3], bind: &mut B) -> Result<Self, Unfit>
    where
        B: Bind<Matrix = M>,
    {
        let [gate, up, down] = roles;
        Ok(Mlp {
            gate: bind.matrix(at, gate)?,
            up: bind.matrix(at, up)?,
            down: bind.matrix(at, down)?,
        })
    }
}

impl<M, V, E> Parts<M, V, E> {
    /// `has_output`: without one the output is tied to the embedding.
    pub fn bind<B>(h: &Hparams, has_output: bool, bind: &mut B) -> Result<Self, Unfit>
    where
        B: Bind<Matrix = M, Vector = V, Experts = E>,
    {
        let output = if has_output {
            Role::Output
        } else {
            Role::TokenEmbd
        };
        let kinds = h.layers.iter().enumerate();
        Ok(Parts {
            token_embd: bind.matrix(None, Role::TokenEmbd)?,
            layers: kinds
                .map(|(at, kind)| Layer::bind(at, kind.mixer, kind.ffn, h, bind))
                .collect::<Result<_, _>>()?,
            output_norm: bind.vector(None, Role::OutputNorm)?,
            output: bind.matrix(None, output)?,
        })
    }
}

impl<M, V, E> Layer<M, V, E> {
    fn bind<B>(at: usize, mixer: Mixer, ffn: Ffn, h: &Hparams, bind: &mut B) -> Result<Self, Unfit>
    where
        B: Bind<Matrix = M, Vector = V, Experts = E>,
    {
        let at = Some(at);
        Ok(Layer {
            attn_norm: bind.vector(at, Role::AttnNorm)?,
            mixer: match mixer {
                Mixer::Kda => MixerParts::Kda(Box::new(KdaParts {
                    q: bind.matrix(at, Role::KdaQ)?,
                    k: bind.matrix(at, Role::KdaK)?,
                    v: bind.matrix(at, Role::KdaV)?,
                    conv_q: bind.vector(at, Role::KdaConvQ)?,
                    conv_k: bind.vector(at, Role::KdaConvK)?,
                    conv_v: bind.vector(at, Role::KdaConvV)?,
                    decay: GateParts::bind(at, [Role::KdaF, Role::KdaFA, Role::KdaFB], h, bind)?,
                    open: GateParts::bind(at, [Role::KdaG, Role::KdaGA, Role::KdaGB], h, bind)?,
                    beta: bind.matrix(at, Role::KdaBeta)?,
                    a: bind.vector(at, Role::KdaA)?,
                    dt_bias: bind.vector(at, Role::KdaDtBias)?,
                    norm: bind.vector(at, Role::KdaNorm)?,
                    output: bind.matrix(at, Role::KdaOutput)?,
                })),
                Mixer::Mla => MixerParts::Mla(Box::new(MlaParts {
                    q: QueryParts::bind(at, h, bind)?,
                    kv_a: bind.matrix(at, Role::MlaKvA)?,
                    kv_a_norm: bind.vector(at, Role::MlaKvANorm)?,
                    k_b: bind.matrix(at, Role::MlaKB)?,
                    v_b: bind.matrix(at, Role::MlaVB)?,
                    gate: if h.mla.head_gate {
                        Some(bind.matrix(at, Role::MlaGate)?)
                    } else {
                        None
                    },
                    output: bind.matrix(at, Role::MlaOutput)?,
                })),
            },
            ffn_norm: bind.vector(at, Role::FfnNorm)?,
            ffn: match ffn {
                Ffn::Dense => {
                    let roles = [Role::FfnGate, Role::FfnUp, Role::FfnDown];
                    FfnParts::Dense(Mlp::bind(at, roles, bind)?)
                }
                Ffn::Sparse => FfnParts::Sparse(Box::new(SparseParts {
                    router: bind.matrix(at, Role::Router)?,
                    router_bias: bind.vector(at, Role::RouterBias)?,
                    experts: bind.experts(at)?,
                    shared: if h.moe.shared == 0 {
                        None
                    } else {
                        let roles = [Role::GateShexp, Role::UpShexp, Role::DownShexp];
                        Some(Mlp::bind(at, roles, bind)?)
                    },
                })),
            },
        })
    }
}

impl<M> GateParts<M> {
    fn bind<B>(
        at: Option<usize>,
        [whole, a, b]: [Role; 3],
        h: &Hparams,
        bind: &mut B,
    ) -> Result<Self, Unfit>
    where
        B: Bind<Matrix = M>,
    {
        if h.kda.whole_gates {
            return Ok(Self::Whole(bind.matrix(at, whole)?));
        }
        Ok(Self::Narrow {
            a: bind.matrix(at, a)?,
            b: bind.matrix(at, b)?,
        })
    }
}

impl<M, V> QueryParts<M, V> {
    fn bind<B>(at: Option<usize>, h: &Hparams, bind: &mut B) -> Result<Self, Unfit>
    where
        B: Bind<Matrix = M, Vector = V>,
    {
        if h.mla.q_lora_rank.is_none() {
            return Ok(Self::Whole(bind.matrix(at, Role::MlaQ)?));
        }
        Ok(Self::Narrow {
            a: bind.matrix(at, Role::MlaQA)?,
            norm: bind.vector(at, Role::MlaQANorm)?,
            b: bind.matrix(at, Role::MlaQB)?,
        })
    }
}
