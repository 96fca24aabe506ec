//! What ggml-cuda says of the graph of a decoded token: recorded when it comes a second time, played from then on.
//! Where ggml has no CUDA device the test says so and is done.

use std::cell::RefCell;

use crate::backends::lean;
use crate::checkpoint::options;
use deltad::engine::{CacheType, Device, Engine, Options, Runner, Want};

thread_local! {
    /// ggml logs from the thread that computes.
    static LINES: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

struct Lines;

impl log::Log for Lines {
    fn enabled(&self, about: &log::Metadata<'_>) -> bool {
        about.target() == "ggml"
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            LINES.with_borrow_mut(|lines| lines.push(record.args().to_string()));
        }
    }

    fn flush(&self) {}
}

/// How many lines say so.
fn count(lines: &[String], what: &str) -> usize {
    lines.iter().filter(|line| line.contains(what)).count()
}

#[test]
fn ggml_cuda_records_the_pass_of_a_token_once_and_plays_it_from_then_on() {
    const TOKENS: usize = 6;
    let dir = tempfile::tempdir().unwrap();
    let path = lean(&dir, "q4_k_m".parse().unwrap());
    let options = Options {
        device: Device::Auto,
        runner: Runner::Stock,
        ..options(CacheType::F16, 512)
    };
    let mut engine = Engine::open(&path, &options).unwrap();
    if !engine.device().starts_with("CUDA") {
        eprintln!("SKIPPED: ggml has no CUDA device here");
        return;
    }
    log::set_logger(&Lines).expect("no other test of this program listens");
    log::set_max_level(log::LevelFilter::Debug);
    for past in [10, 300, 700] {
        let outline = engine.outline(past, 1).unwrap();
        let pieces = outline.expect("ggml's graph has an outline").pieces;
        assert_eq!(pieces, 1, "behind {past}");
        let mut sequence = engine.sequence().unwrap();
        let text: Vec<u32> = (0..past as u32).map(|at| at * 7 % 1000).collect();
        engine.feed(&mut sequence, &text, Want::Nothing).unwrap();
        LINES.take();
        for token in 0..TOKENS as u32 {
            engine.feed(&mut sequence, &[token], Want::Last).unwrap();
        }
        let lines = LINES.take();
        let said = |what| count(&lines, what);
        assert_eq!(
            said("graph warmup complete"),
            1,
            "behind {past}: {lines:#?}"
        );
        assert_eq!(said("reused"), TOKENS - 1, "behind {past}: {lines:#?}");
        assert_eq!(said("graph warmup reset"), 0, "behind {past}: {lines:#?}");
    }
}
