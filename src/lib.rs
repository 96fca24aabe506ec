//! deltad: one warm KDA/MLA model for every program of one machine.
//!
//! ```text
//!  D-Bus --------- bus -\
//!                        >- door -> service -> scheduler -> engine -> ggml-kernels
//!  HTTP/unix - transport-/    ^                    |            ^          ^
//!                             '-- event stream <---'            '- quantize::schema
//! ```
//!
//! Arrows point one way; `tests/architecture.rs` holds every `use crate::` against this picture.
//!
//! | room | job | may use |
//! |---|---|---|
//! | [`request`] | plain types that every room may name | nothing |
//! | [`text`] | tokens, templates, whole characters, tool calls | `request` |
//! | [`sampler`] | logits, parameters and a random stream to one token | `request` |
//! | [`engine`] | the model, its sequences, passes over lanes by an executor | `request` |
//! | [`sessions`] | what was said, kept by user, and the tokens that it was | `engine request` |
//! | [`measure`] | what a model does with a text, and how far another is from it | `engine text request` |
//! | [`scheduler`] | what runs next; the only thread that owns the engine | `engine sampler text request` |
//! | [`service`] | the single door: validate, render, tokenize, admit, hear out | `scheduler sessions text request` |
//! | [`door`] | what every door shares: callers, options and messages in JSON, what requests may hold | `service request` |
//! | [`transport`] | HTTP's wire formats and sockets, nothing else | `door service request` |
//! | [`bus`] | the same on D-Bus: objects, sessions, descriptors | `door service request` |
//! | [`desktop`] | the search fields of desktops, a client on the bus | nothing |
//! | [`config`], [`daemon`], [`client`], [`doctor`], [`bench`], [`cli`], [`manual`], [`stdio`] | wiring and commands | everything above |
//!
//! Tokens return only through the channel that the queued request carries, so no lower room
//! names a higher one. One OS thread owns the engine; tokio does only sockets; channels are
//! bounded both ways.
#![forbid(unsafe_code)]

pub mod bench;
pub mod bus;
pub mod cli;
pub mod client;
pub mod config;
pub mod daemon;
pub mod desktop;
pub mod doctor;
pub mod door;
pub mod engine;
pub mod interrupt;
pub mod manual;
pub mod measure;
pub mod request;
pub mod sampler;
pub mod scheduler;
pub mod service;
pub mod sessions;
pub mod stdio;
pub mod systemd;
pub mod text;
pub mod transport;
