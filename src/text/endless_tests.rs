//! Templates that would take all time or all memory: each is stopped, or refused.

use super::fixture;
use super::template::{ChatTemplate, LONGEST_SOURCE};
use crate::request::Message;

/// Why it is refused, when it is compiled or when it is run.
fn refused(source: &str) -> Option<String> {
    let tokenizer = fixture::tokenizer("tiny");
    let user = Message {
        role: "user".into(),
        content: "x".into(),
        ..Message::default()
    };
    let rendered =
        ChatTemplate::new(source, &tokenizer).and_then(|t| t.render(&[user], &[], true).map(drop));
    rendered.err().map(|e| e.to_string())
}

#[test]
fn a_template_that_never_ends_is_stopped() {
    let source =
        "{% for a in range(9999) %}{% for b in range(9999) %}{{ a }}{% endfor %}{% endfor %}";
    let why = refused(source).expect("out of fuel");
    assert!(why.contains("fuel"), "{why}");
    assert!(refused("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}").is_some());
    assert!(refused("{{ 'a' * 10000000000000 }}").is_some());
}

/// Found by fuzzing: each doubles the escapes of the one before.
#[test]
fn a_template_that_escapes_without_end_is_stopped() {
    let why = refused(&format!("{{{{ ''{} }}}}", "|tojson".repeat(40))).expect("a refusal");
    assert!(why.contains("longer than") || why.contains("fuel"), "{why}");
}

/// Its fuel is what bounds the memory, too: operators and filters take fuel by the byte.
#[test]
fn a_template_that_doubles_its_text_runs_out_of_fuel() {
    let doubled = "{% set x = x ~ x %}".repeat(60);
    let why = refused(&format!("{{% set x = 'aa' %}}{doubled}{{{{ x }}}}")).expect("a refusal");
    assert!(why.contains("fuel"), "{why}");
}

/// Found by fuzzing.
#[test]
fn a_template_that_writes_without_end_is_stopped() {
    let why = refused("{{ 'x' * 99999999 }}").expect("a refusal");
    assert!(why.contains("more than") || why.contains("fuel"), "{why}");
}

/// Found by fuzzing: the compiler calls itself for each of these.
#[test]
fn a_template_as_deep_as_its_length_allows_is_compiled_or_refused() {
    let tokenizer = fixture::tokenizer("tiny");
    for piece in [
        "-",
        "not ",
        "(",
        "[",
        "{'a':",
        "a.",
        "1+",
        "1 if ",
        "a|e|",
        "{% if a %}",
        "2**",
    ] {
        let n = (LONGEST_SOURCE - 8) / piece.len();
        let source = if piece.starts_with("{%") {
            piece.repeat(n)
        } else {
            format!("{{{{ {}1 }}}}", piece.repeat(n))
        };
        // Whether it is one is the compiler's to say; that it says so is what counts.
        let _ = ChatTemplate::new(&source, &tokenizer);
    }
    let long = " ".repeat(LONGEST_SOURCE + 1);
    let why = refused(&long).expect("a refusal");
    assert!(why.contains("131073 bytes"), "{why}");
}

#[test]
fn a_template_that_nests_lists_without_end_ends() {
    let deeper = "{% set ns.x = [ns.x] %}".repeat(100);
    for last in [
        "{{ ns.x }}",
        "{{ ns.x|tojson }}",
        "{{ ns.x == ns.x }}",
        "{{ ns.x|string|length }}",
        "{{ {ns.x: 1} }}",
        "{{ ns.x|sort }}",
        "",
    ] {
        for n in [5000, 90_000] {
            let source = format!(
                "{{% set ns = namespace(x=[]) %}}{{% for i in range({n}) %}}{deeper}{{% endfor %}}{last}"
            );
            let ends = refused(&source).is_none();
            assert_eq!(ends, n == 5000, "{last}: the fuel ends first");
        }
    }
}
