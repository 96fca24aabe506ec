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

    fn matrix(&mut self, layer: Option<usize>, role: Role) -> Result<Self::Matrix, Unfit>;
    fn vector(&mut self, layer: Option<usize>, role: Role) -> Result<Self::Vector, Unfit>;
}

#[derive(Debug)]
pub(super) struct Parts<M, V> {
    pub token_embd: M,
    pub layers: Vec<Layer<M, V>>,
    pub output_norm: V,
    pub output: M,
}

#[derive(Debug)]
pub(super) struct Layer<M, V> {
    pub attn_norm: V,
    pub mixer: MixerParts<M, V>,
    pub ffn_norm: V,
    pub ffn: FfnParts<M, V>,
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
    pub f_a: M,
    pub f_b: M,
    pub g_a: M,
    pub g_b: M,
    pub beta: M,
    pub a: V,
    pub dt_bias: V,
    pub norm: V,
    pub output: M,
}

#[derive(Debug)]
pub(super) struct MlaParts<M, V> {
    pub q: M,
    pub kv_a: M,
    pub kv_a_norm: V,
    pub k_b: M,
    pub v_b: M,
    pub output: M,
}

#[derive(Debug)]
pub(super) enum FfnParts<M, V> {
    Dense(Mlp<M>),
    Sparse(Box<SparseParts<M, V>>),
}

#[derive(Debug)]
pub(super) struct Mlp<M> {
    pub gate: M,
    pub up: M,
    pub down: M,
}

#[derive(Debug)]
pub(super) struct SparseParts<M, V> {
    pub router: M,
    pub router_bias: V,
    /// One matrix an expert.
    pub experts: Mlp<M>,
    pub shared: Option<Mlp<M>>,
}

impl<M, V> Parts<M, V> {
    /// `has_output`: without one the output is tied to the embedding.
    pub fn bind<B>(h: &Hparams, has_output: bool, bind: &mut B) -> Result<Self, Unfit>
    where
        B: Bind<Matrix = M, Vector = V>,
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

impl<M, V> Layer<M, V> {
    fn bind<B>(at: usize, mixer: Mixer, ffn: Ffn, h: &Hparams, bind: &mut B) -> Result<Self, Unfit>
    where
        B: Bind<Matrix = M, Vector = V>,
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
                    f_a: bind.matrix(at, Role::KdaFA)?,
                    f_b: bind.matrix(at, Role::KdaFB)?,
                    g_a: bind.matrix(at, Role::KdaGA)?,
                    g_b: bind.matrix(at, Role::KdaGB)?,
                    beta: bind.matrix(at, Role::KdaBeta)?,
                    a: bind.vector(at, Role::KdaA)?,
                    dt_bias: bind.vector(at, Role::KdaDtBias)?,
                    norm: bind.vector(at, Role::KdaNorm)?,
                    output: bind.matrix(at, Role::KdaOutput)?,
                })),
                Mixer::Mla => MixerParts::Mla(Box::new(MlaParts {
                    q: bind.matrix(at, Role::MlaQ)?,
                    kv_a: bind.matrix(at, Role::MlaKvA)?,
                    kv_a_norm: bind.vector(at, Role::MlaKvANorm)?,
                    k_b: bind.matrix(at, Role::MlaKB)?,
                    v_b: bind.matrix(at, Role::MlaVB)?,
                    output: bind.matrix(at, Role::MlaOutput)?,
                })),
            },
            ffn_norm: bind.vector(at, Role::FfnNorm)?,
            ffn: match ffn {
                Ffn::Dense => FfnParts::Dense(Mlp {
                    gate: bind.matrix(at, Role::FfnGate)?,
                    up: bind.matrix(at, Role::FfnUp)?,
                    down: bind.matrix(at, Role::FfnDown)?,
                }),
                Ffn::Sparse => FfnParts::Sparse(Box::new(SparseParts {
                    router: bind.matrix(at, Role::Router)?,
                    router_bias: bind.vector(at, Role::RouterBias)?,
                    experts: Mlp {
                        gate: bind.matrix(at, Role::GateExps)?,
                        up: bind.matrix(at, Role::UpExps)?,
                        down: bind.matrix(at, Role::DownExps)?,
                    },
                    shared: if h.moe.shared == 0 {
                        None
                    } else {
                        Some(Mlp {
                            gate: bind.matrix(at, Role::GateShexp)?,
                            up: bind.matrix(at, Role::UpShexp)?,
                            down: bind.matrix(at, Role::DownShexp)?,
                        })
                    },
                })),
            },
        })
    }
}
