//! The window of `examples/`, under a screen of its own, as a person uses it: `tests/python/window.py`
//! types and reads.

use std::path::Path;

use super::private::PrivateBus;

/// The one that a distribution's gi is for.
const PYTHON: &str = "/usr/bin/python3";

fn seen(bus: &PrivateBus, what: &str) {
    if !Path::new(PYTHON).exists() {
        return eprintln!("SKIPPED: no {PYTHON}");
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/window.py");
    let (succeeded, said) = bus.tool(PYTHON, &[script, what]);
    assert!(succeeded, "{said}");
    if let Some(why) = said.lines().find(|line| line.starts_with("SKIPPED")) {
        eprintln!("{why}");
    }
}

#[test]
fn a_question_typed_into_the_window_is_answered_there_and_kept_for_the_next() {
    let bus = PrivateBus::start();
    let _daemon = bus.serve_demo();
    seen(&bus, "talk");
}

#[test]
fn escape_in_the_window_stops_an_answer() {
    let bus = PrivateBus::start();
    let _daemon = bus.serve("");
    seen(&bus, "stop");
}
