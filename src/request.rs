//! What a caller asks and what it is told, in plain types. Owns no behaviour; knows no wire format,
//! no tokenizer and no engine, so every room may name it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A vocabulary index. The model decides how many there are.
pub type Token = u32;

/// Who asks, from the peer's credentials (socket) or the sender's (bus), never from the message.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Caller {
    pub uid: u32,
    pub pid: Option<u32>,
    /// systemd unit of the process, where the system can tell.
    pub unit: Option<String>,
}

/// One generation, as asked. Nothing here is validated yet: `service` does that, once.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    pub prompt: Prompt,
    pub sampling: Sampling,
    pub stop: Stop,
    /// `None`: until the context or the daemon's own limit ends it.
    pub max_tokens: Option<usize>,
    /// Report the log-probabilities of each token and of this many alternatives beside it.
    pub logprobs: Option<usize>,
    /// Return the prompt (with its log-probabilities, if asked) before the continuation.
    pub echo: bool,
    /// Independent answers to the one prompt, at least 1.
    pub n: usize,
    pub format: Format,
    pub keep: Keep,
}

/// What its caller wants kept of a chat, beyond what is kept anyway.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Keep {
    /// The conversation outlives the daemon.
    pub lasting: bool,
    pub line: Option<Line>,
    pub marks: Vec<Mark>,
}

/// A row of requests of which each goes on from the one before: the end of the newest stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub name: String,
    pub stays: Duration,
}

/// The end of a message, which stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// So many messages are up to it; 0: what comes before the first one.
    pub messages: usize,
    pub stays: Duration,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Prompt {
    /// Raw text to continue; special-token spellings in it are ordinary text.
    Text(String),
    Tokens(Vec<Token>),
    Chat {
        messages: Vec<Message>,
        /// OpenAI's tool objects as they came: templates print them verbatim.
        tools: Vec<serde_json::Value>,
        tool_choice: ToolChoice,
        /// Several calls in one answer are allowed.
        parallel_tool_calls: bool,
        options: TemplateOptions,
    },
}

/// What a caller tells the model's template beside the conversation.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct TemplateOptions {
    /// Whether the model shall think first; without effect where its template has no such switch.
    pub thinking: Option<bool>,
    /// By the names that the template reads; others are without effect.
    pub variables: serde_json::Map<String, serde_json::Value>,
}

/// Whether the model may, must or must not call the tools it was told of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ToolChoice {
    #[default]
    Auto,
    None,
    Required,
    Named(String),
}

/// What an answer must look like, whatever the model would rather say.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Format {
    #[default]
    Text,
    JsonObject,
    JsonSchema(serde_json::Value),
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user`, `assistant`, `tool`, or whatever else the template knows.
    pub role: String,
    pub content: String,
    /// What the model thought before it said this.
    pub reasoning: Option<String>,
    pub name: Option<String>,
    pub tool_calls: Vec<ToolCall>,
    pub tool_call_id: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolCall {
    pub id: String,
    pub name: String,
    /// A JSON object, as text: the model wrote it, only its reader can say whether it parses.
    pub arguments: String,
}

/// How a token is chosen from logits. The defaults are the plain distribution.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// 0 is greedy.
    pub temperature: f32,
    /// 0 keeps all.
    pub top_k: usize,
    pub top_p: f32,
    pub min_p: f32,
    pub presence_penalty: f32,
    pub frequency_penalty: f32,
    /// 1 changes nothing.
    pub repetition_penalty: f32,
    pub logit_bias: Vec<(Token, f32)>,
    /// `None`: drawn fresh for each request.
    pub seed: Option<u64>,
}

impl Default for Sampling {
    fn default() -> Self {
        Sampling {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            repetition_penalty: 1.0,
            logit_bias: Vec::new(),
            seed: None,
        }
    }
}

/// One draw of a token where nothing edits the logits: what [`Sampling`] says, and where in the weights the
/// token lies.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Draw {
    pub temperature: f32,
    pub top_k: usize,
    pub top_p: f32,
    pub min_p: f32,
    /// Random, in [0, 1).
    pub unit: f64,
}

impl Draw {
    /// The largest logit's token.
    pub const LIKELIEST: Draw = Draw {
        temperature: 0.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        unit: 0.0,
    };
}

/// The likeliest tokens, and at least those among which a [`Draw`] chooses.
#[derive(Debug, Clone, PartialEq)]
pub struct Few {
    /// With their logits, by number.
    pub tokens: Vec<(Token, f32)>,
    /// Of all tokens, those that are not here too: e to a logit's distance from the largest, over the
    /// temperature.
    pub mass: f64,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct Stop {
    /// Text that ends the generation and is not returned.
    pub strings: Vec<String>,
    /// Go on past end-of-turn tokens (benchmarks, `ignore_eos`).
    pub ignore_eos: bool,
}

/// A token with its log-probability (natural logarithm, of the unmodified distribution).
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprob {
    pub token: Token,
    /// `None` for the first token of a prompt, which nothing predicts.
    pub logprob: Option<f32>,
    /// The most likely tokens at this place, best first.
    pub top: Vec<(Token, f32)>,
}

/// The tokens that a grammar allows next: one bit each, token `t` in bit `t % 32` of word `t / 32`.
/// Tokens past the last word are not allowed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TokenMask {
    words: Vec<u32>,
}

impl TokenMask {
    pub fn from_words(words: Vec<u32>) -> TokenMask {
        TokenMask { words }
    }

    pub fn allows(&self, token: Token) -> bool {
        let word = self.words.get(token as usize / 32).copied().unwrap_or(0);
        word >> (token % 32) & 1 == 1
    }

    /// The allowed tokens, ascending.
    pub fn tokens(&self) -> impl Iterator<Item = Token> {
        (0..).zip(&self.words).flat_map(|(i, &word)| {
            // Each step clears the lowest bit.
            let bits = std::iter::successors(Some(word), |left| Some(left & left.wrapping_sub(1)));
            bits.take_while(|&left| left != 0)
                .map(move |left| i * 32 + left.trailing_zeros())
        })
    }
}

impl FromIterator<Token> for TokenMask {
    fn from_iter<I: IntoIterator<Item = Token>>(tokens: I) -> TokenMask {
        let mut words = Vec::new();
        for token in tokens {
            let word = token as usize / 32;
            if words.len() <= word {
                words.resize(word + 1, 0);
            }
            words[word] |= 1 << (token % 32);
        }
        TokenMask { words }
    }
}

/// What a running request tells its caller, in order: `Prompt` events, then for each choice its
/// `Delta`s and one `Finished`, then `Done`; or `Failed` at any point, after which nothing comes.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The next prompt tokens, oldest first; only where their log-probabilities were asked for.
    Prompt(Vec<TokenLogprob>),
    /// So many of the prompt's tokens are read; only where nothing else is wanted.
    Read(usize),
    /// What one token made certain.
    Delta {
        choice: usize,
        parts: Vec<Part>,
        /// Of the token itself, where asked for. The token that ends a turn has one and no text.
        logprob: Option<TokenLogprob>,
    },
    Finished {
        choice: usize,
        reason: FinishReason,
        /// The stop string that ended it, where one did.
        stop: Option<String>,
        /// What was drawn, without a token that ended the turn.
        tokens: Vec<Token>,
    },
    Done(Usage, Took),
    Failed(Failure),
}

/// A piece of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    Text(String),
    Reasoning(String),
    /// The `index`-th call of the answer begins; its arguments follow.
    Call {
        index: usize,
        id: String,
        name: String,
    },
    Arguments {
        index: usize,
        text: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FinishReason {
    /// An end-of-turn token or a stop string.
    Stop,
    /// The limit on tokens, or the context.
    Length,
    ToolCalls,
}

/// Tokens counted over all choices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    pub prompt_tokens: usize,
    /// Of the prompt, tokens that were not computed again.
    pub cached_tokens: usize,
    pub completion_tokens: usize,
}

/// How long the engine took, and when it was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Took {
    /// The passes that read the prompt.
    pub reading: Duration,
    /// From the first token to the last one.
    pub answering: Duration,
    /// Seconds since 1970.
    pub until: u64,
}

/// How much of a prompt was there already when its reading began, and why not more of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cached {
    pub tokens: usize,
    pub miss: Option<Miss>,
}

/// Why a prompt is read again that might have been kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Miss {
    #[error("nothing of this user was")]
    Empty,
    /// `message`: its number in the prompt.
    #[error("what is known goes on otherwise at token {at}, in message {message}")]
    Diverged { at: usize, message: usize },
    #[error("a longer state had to make room for others")]
    Evicted,
    #[error("the text is known, and no state was kept there")]
    NoState,
    #[error("the conversation is known, and its states are of another model")]
    OtherModel,
}

/// What a chat goes on from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nothing was said before.
    New,
    /// The answer of that id, and what was said before it.
    Answer(String),
    /// The last answer among the messages that is kept here; without one, nothing.
    Replayed,
    /// The session of that id or name. `alone`: others have to wait.
    Session { who: String, alone: bool },
}

/// A chat's place in a conversation that the daemon keeps.
#[derive(Debug, Clone, PartialEq)]
pub struct Thread {
    /// What its answer will be called.
    pub id: String,
    /// Seconds since 1970.
    pub created: u64,
    pub origin: Origin,
    /// Whether it is kept in turn.
    pub keep: bool,
    /// Whether an answer is wanted; else it is only read, so that an answer comes sooner.
    pub answer: bool,
    /// So many of its first messages come before what was said, and are not kept.
    pub apart: usize,
    /// What the door wants back with it.
    pub face: serde_json::Value,
}

/// Why a request was not taken. Nothing has run and nothing was answered yet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("{param}: {message}")]
    Invalid { param: String, message: String },
    #[error("the prompt has {tokens} tokens, which leaves no room in the context of {limit}")]
    TooLong { tokens: usize, limit: usize },
    #[error(
        "the state of prompt and answer takes {bytes} bytes, more than the {limit} of one request; \
         ask for fewer tokens or answers"
    )]
    TooLarge { bytes: usize, limit: usize },
    #[error("no answer {id:?} is kept; it was deleted, or never kept, or is another user's")]
    NoSuchAnswer { id: String },
    #[error("there is no session {who:?}")]
    NoSuchSession { who: String },
    #[error("session {who:?} still answers; wait for its end or cancel it")]
    SessionBusy { who: String },
    #[error("a session is named {name:?} already")]
    NameTaken { name: String },
    #[error("the user has {limit} sessions already; end one")]
    TooManySessions { limit: usize },
    #[error("{why}")]
    SessionRefused { why: String },
    #[error("{why}")]
    Storage { why: String },
    #[error(
        "{limit} answers of the user are on their way in the background already; wait or cancel one"
    )]
    TooManyInBackground { limit: usize },
    #[error("an export or import of the user is on its way already; wait for its end")]
    Carrying,
    #[error("user {uid} may not use this daemon")]
    NotPermitted { uid: u32 },
    #[error("too many requests wait already; ask again in a moment")]
    QueueFull,
    #[error("memory is short on this machine; ask again in a moment")]
    MemoryShort,
    #[error("the model is still being loaded")]
    Loading,
    #[error("the daemon is stopping")]
    Stopping,
    #[error("the engine has failed; see the daemon's log")]
    Broken,
}

/// Why a request that was taken did not come to its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    #[error("{0}")]
    Engine(String),
    #[error("the daemon is stopping and cut this answer short")]
    Stopped,
    #[error("the engine has failed; see the daemon's log")]
    Broken,
}
