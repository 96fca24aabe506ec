//! `/metrics`: the scheduler's and the sessions' figures in Prometheus' text format.

use std::sync::atomic::Ordering::Relaxed;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::service::Service;

/// Figures that are kept as plain numbers, read when they are asked for.
#[derive(Debug)]
struct Now {
    counters: [(&'static str, &'static str, u64); 5],
    gauges: [(&'static str, &'static str, usize); 3],
}

impl Collector for Now {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        for (name, help, value) in self.counters {
            let metric = ConstCounter::new(value);
            let encoder = encoder.encode_descriptor(name, help, None, metric.metric_type())?;
            metric.encode(encoder)?;
        }
        for (name, help, value) in self.gauges {
            let metric = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            let encoder = encoder.encode_descriptor(name, help, None, metric.metric_type())?;
            metric.encode(encoder)?;
        }
        Ok(())
    }
}

pub fn text(service: &Service) -> Result<String, std::fmt::Error> {
    let stats = service.stats();
    let count = |c: &std::sync::atomic::AtomicU64| c.load(Relaxed);
    let mut registry = Registry::with_prefix("deltad");
    registry.register_collector(Box::new(Now {
        counters: [
            ("requests", "Requests started", count(&stats.requests)),
            (
                "prompt_tokens",
                "Tokens of prompts",
                count(&stats.prompt_tokens),
            ),
            (
                "cached_tokens",
                "Tokens of prompts that were not computed again",
                count(&stats.cached_tokens),
            ),
            (
                "completion_tokens",
                "Tokens generated",
                count(&stats.completion_tokens),
            ),
            (
                "session_written_bytes",
                "Bytes written to keep conversations",
                service.sessions().written(),
            ),
        ],
        gauges: [
            ("running", "Requests running", stats.running.load(Relaxed)),
            ("queued", "Requests waiting", service.queued()),
            (
                "prefix_bytes",
                "Bytes of conversation states kept for the next turn",
                stats.prefix_bytes.load(Relaxed),
            ),
        ],
    }));
    registry.register(
        "first_token_seconds",
        "From a request's admission to an answer's first token",
        stats.first_token.clone(),
    );
    registry.register(
        "between_tokens_seconds",
        "From one token of an answer to the next",
        stats.between_tokens.clone(),
    );
    registry.register(
        "pass_lanes",
        "Sequences that one pass of the engine served",
        stats.pass_lanes.clone(),
    );
    registry.register(
        "looked_for",
        "Chats looked for among the states kept, by what was found",
        stats.looked_for.clone(),
    );
    registry.register(
        "caller_requests",
        "Requests started, by the caller's user id",
        stats.caller_requests.clone(),
    );
    registry.register(
        "caller_completion_tokens",
        "Tokens generated, by the caller's user id",
        stats.caller_tokens.clone(),
    );
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}
