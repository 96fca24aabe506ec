//! What it costs to keep conversations: turns, states, forks, suspending and resuming, the next turn.
//!
//! `cargo bench --bench sessions -- PART...`; without a part all of them. Parts: `store` and `engine` (states of the
//! 48B's byte sizes), `text` and `next` (daemons; the second has a long conversation, up to 131,072 tokens).
//! `cargo bench --bench sessions -- MODEL.gguf TOKENS` asks another model about a text of so many.

mod daemon;
mod engine;
mod next;
mod store;
mod text;

use std::path::Path;
use std::time::Instant;

const MIB: f64 = (1 << 20) as f64;

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

fn main() {
    let args: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with("--"))
        .collect();
    if let [model, tokens] = &args[..]
        && let Ok(tokens) = tokens.parse()
    {
        return text::served(Some(Path::new(model)), tokens);
    }
    let wanted = |part: &str| args.is_empty() || args.iter().any(|a| a == part);
    let lengths = [32 << 10, 256 << 10];
    if wanted("store") {
        lengths.into_iter().for_each(store::stored);
    }
    if wanted("engine") {
        let model = engine::synthetic("48b-states", 28);
        lengths
            .into_iter()
            .for_each(|n| engine::resumed(&model.path().join("model.gguf"), n));
    }
    if wanted("text") {
        for tokens in [2_900, 32_600] {
            text::served(None, tokens);
        }
    }
    if wanted("next") {
        next::turns(None, &[8 << 10, 16 << 10, 30_000]);
        let thin = engine::synthetic("edge", 4);
        let lengths = [8 << 10, 32 << 10, 128 << 10];
        next::turns(Some(&thin.path().join("model.gguf")), &lengths);
    }
}
