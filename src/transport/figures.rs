//! What an answer took, in tokens and in time, as bodies and streams of OpenAI's chat tell it.

use std::time::Duration;

use serde_json::{Value, json};

use crate::request::{Took, Usage};

pub fn usage_json(usage: Usage) -> Value {
    json!({
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    })
}

/// In llama.cpp's words, which its users know.
pub fn timings(usage: Usage, took: Took) -> Value {
    let side = |n: usize, took: Duration| {
        let ms = took.as_secs_f64() * 1000.0;
        let of = |a: f64, b: f64| if b > 0.0 { a / b } else { 0.0 };
        (n, ms, of(ms, n as f64), of(n as f64 * 1000.0, ms))
    };
    let new = usage.prompt_tokens - usage.cached_tokens;
    let (prompt_n, prompt_ms, prompt_each, prompt_rate) = side(new, took.reading);
    let (said_n, said_ms, said_each, said_rate) = side(usage.completion_tokens, took.answering);
    json!({
        "cache_n": usage.cached_tokens,
        "prompt_n": prompt_n,
        "prompt_ms": prompt_ms,
        "prompt_per_token_ms": prompt_each,
        "prompt_per_second": prompt_rate,
        "predicted_n": said_n,
        "predicted_ms": said_ms,
        "predicted_per_token_ms": said_each,
        "predicted_per_second": said_rate,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_is_not_counted_as_read_and_nothing_is_divided_by_nothing() {
        let usage = Usage {
            prompt_tokens: 110,
            cached_tokens: 100,
            completion_tokens: 4,
        };
        let took = Took {
            reading: Duration::from_millis(20),
            answering: Duration::from_millis(8),
            until: 0,
        };
        let told = timings(usage, took);
        assert_eq!(
            (&told["cache_n"], &told["prompt_n"]),
            (&json!(100), &json!(10))
        );
        assert_eq!(told["prompt_per_token_ms"], 2.0);
        assert_eq!(told["prompt_per_second"], 500.0);
        assert_eq!(told["predicted_per_second"], 500.0);
        let nothing = timings(Usage::default(), Took::default());
        assert_eq!(nothing["prompt_per_second"], 0.0);
        assert_eq!(nothing["predicted_per_token_ms"], 0.0);
    }
}
