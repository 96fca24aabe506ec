//! What a model does with a text: how well it foretells it, how far another model is from it, what
//! its weights meet. Runs engines; never prints, never writes a file.
//!
//! A text is cut into chunks of one length, each read by a fresh sequence. Positions of a chunk's
//! second half are scored, as llama-perplexity does, so that every one has context before it and
//! figures of both tools can be laid side by side.

mod activations;
mod divergence;

pub use activations::collect;
pub use divergence::{Divergence, Estimate, Summary};

use crate::engine::{Engine, PassError, StateError, Want};
use crate::request::Token;
use crate::text::tokenizer::{Specials, Tokenizer};

/// Positions whose logits are held at once: with a vocabulary of 163840, 80 MiB a model.
const PIECE: usize = 128;

/// A text as whole chunks of tokens.
#[derive(Debug)]
pub struct Text {
    tokens: Vec<Token>,
    chunk: usize,
    /// Takes the first place of every chunk, where the model expects one.
    bos: Option<Token>,
}

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TextError {
    #[error("{got} tokens, wanted at least {wanted}: one chunk (--chunk)")]
    TooShort { got: usize, wanted: usize },
    #[error("a chunk of {chunk} tokens, wanted 2 to {context}, the model's context")]
    Chunk { chunk: usize, context: usize },
}

impl Text {
    /// Special tokens spelled in `text` are those tokens: who measures a model chose the text.
    pub fn new(
        tokenizer: &Tokenizer,
        text: &str,
        chunk: usize,
        context: usize,
    ) -> Result<Self, TextError> {
        if !(2..=context).contains(&chunk) {
            return Err(TextError::Chunk { chunk, context });
        }
        let mut tokens = tokenizer.encode(text, Specials::Parse);
        let got = tokens.len();
        if got < chunk {
            return Err(TextError::TooShort { got, wanted: chunk });
        }
        tokens.truncate(got - got % chunk);
        let bos = tokenizer.bos().filter(|_| tokenizer.add_bos());
        Ok(Self { tokens, chunk, bos })
    }

    /// Keeps the first `most` chunks.
    pub fn at_most(mut self, most: usize) -> Self {
        self.tokens.truncate(most.saturating_mul(self.chunk));
        self
    }

    /// Tokens in all chunks.
    pub fn tokens(&self) -> usize {
        self.tokens.len()
    }

    pub fn chunk(&self) -> usize {
        self.chunk
    }

    pub fn chunks(&self) -> usize {
        self.tokens.len() / self.chunk
    }

    fn each(&self) -> impl Iterator<Item = Vec<Token>> + '_ {
        self.tokens.chunks_exact(self.chunk).map(|chunk| {
            let mut chunk = chunk.to_vec();
            if let Some(bos) = self.bos {
                chunk[0] = bos;
            }
            chunk
        })
    }
}

#[derive(Debug, thiserror::Error)]
pub enum MeasureError {
    #[error(transparent)]
    Pass(#[from] PassError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error("chunk {chunk}, token {position}: a logit of {model} is not finite")]
    Logits {
        model: char,
        chunk: usize,
        position: usize,
    },
    #[error("what meets {tensor} is {what}")]
    Activations { tensor: String, what: &'static str },
    #[error("interrupted")]
    Interrupted,
}

/// Told of every so many tokens done; `false` stops the work.
pub type Step<'a> = &'a mut dyn FnMut(u64) -> bool;

fn went_on(step: Step<'_>, tokens: usize) -> Result<(), MeasureError> {
    if step(tokens as u64) {
        Ok(())
    } else {
        Err(MeasureError::Interrupted)
    }
}

/// Reads `text` with both models in step: the divergence of `b` from `a`. Logits of [`PIECE`]
/// positions are held at a time. Both have the vocabulary that the text was made with.
pub fn compare(
    a: &mut Engine,
    b: &mut Engine,
    text: &Text,
    step: Step<'_>,
) -> Result<Summary, MeasureError> {
    let mut divergence = Divergence::default();
    for (at, chunk) in text.each().enumerate() {
        let (mut in_a, mut in_b) = (a.sequence()?, b.sequence()?);
        let (before, scored) = chunk.split_at(chunk.len() / 2);
        a.feed(&mut in_a, before, Want::Nothing)?;
        b.feed(&mut in_b, before, Want::Nothing)?;
        went_on(step, before.len())?;
        // The last token of a chunk foretells nothing that is known.
        let mut position = before.len();
        for piece in scored.chunks(PIECE) {
            let rows_a = a.feed(&mut in_a, piece, Want::All)?;
            let rows_b = b.feed(&mut in_b, piece, Want::All)?;
            for (row_a, row_b) in rows_a.rows().zip(rows_b.rows()) {
                position += 1;
                let Some(&next) = chunk.get(position) else {
                    break;
                };
                for (model, row) in [('A', row_a), ('B', row_b)] {
                    if row.iter().any(|x| !x.is_finite()) {
                        return Err(MeasureError::Logits {
                            model,
                            chunk: at,
                            position: position - 1,
                        });
                    }
                }
                divergence.add(row_a, row_b, next);
            }
            went_on(step, piece.len())?;
        }
    }
    Ok(divergence.summary())
}
