//! What the file may say, and how it is told that it may not.

use super::Config;
use super::keys::{parse, print};

fn refusal(text: &str) -> (Option<usize>, String) {
    parse(text, Config::default()).unwrap_err()
}

#[test]
fn the_printed_configuration_reads_back_to_itself() {
    let text = r#"
        [model]
        path = "/models/a \"b\".gguf"
        device = "cpu"
        gpu_layers = 0
        experts = "cpu"
        threads = 3
        context = 4096
        chunk = 7
        cache_type = "q8_0"
        [limits]
        max_concurrent = 2
        max_queue = 0
        max_tokens = 100
        request_bytes = "3MB"
        [sessions]
        dir = "/s"
        memory = "1536MiB"
        disk = 77
        idle_suspend = "90s"
        [service]
        idle_exit = "1h"
        socket = "/tmp/x.sock"
        socket_mode = "0660"
        socket_group = "users"
        bus = "system"
        allowed_uids = [0, 1000]
        allowed_groups = ["wheel", 27]
        drain = "250ms"
        [desktop]
        word = "frag"
    "#;
    let config = parse(text, Config::default()).unwrap();
    assert_ne!(config, Config::default());
    let printed = print(&config);
    assert!(!printed.contains("not set"), "{printed}");
    assert_eq!(parse(&printed, Config::default()).unwrap(), config);
    let defaults = Config::default();
    assert_eq!(
        parse(&print(&defaults), config.clone()).unwrap().limits,
        defaults.limits
    );
}

#[test]
fn an_unknown_key_names_the_nearest_known_one_and_its_line() {
    let (line, what) = refusal("[limits]\nmax_queue = 3\nmax_concurent = 2\n");
    assert_eq!(line, Some(3));
    assert_eq!(
        what,
        "[limits] has no key max_concurent: did you mean max_concurrent?"
    );
}

#[test]
fn a_key_in_the_wrong_section_is_sent_to_the_right_one() {
    let (_, what) = refusal("[model]\nsocket = \"/x\"\n");
    assert_eq!(what, "[model] has no key socket: it belongs in [service]");
    let (line, what) = refusal("\nthreads = 2\n");
    assert_eq!(line, Some(2));
    assert_eq!(
        what,
        "threads stands outside a section: it belongs in [model]"
    );
    assert!(refusal("[modle]\n").1.contains("did you mean model?"));
}

#[test]
fn a_value_out_of_range_says_where_what_it_got_and_what_it_wanted() {
    let (line, what) = refusal("[model]\n\nthreads = 0\n");
    assert_eq!(line, Some(3));
    assert_eq!(what, "model.threads: got 0, wanted \"auto\" or 1 to 1024");
    for wrong in [
        "[model]\nthreads = 99999999999999999999",
        "[model]\nthreads = -1",
        "[model]\npath = \"\"",
        "[model]\npath = 3",
        "[model]\ngpu_layers = -1",
        "[model]\ndevice = \"tpu\"",
        "[model]\nexperts = \"gpu\"",
        "[limits]\nrequest_bytes = \"2GiB\"",
        "[service]\nsocket_mode = 600",
        "[service]\nsocket_mode = \"1777\"",
        "[service]\nidle_exit = 10",
        "[service]\nidle_exit = \"0s\"",
        "[service]\nallowed_uids = [4294967295]",
        "[service]\nallowed_uids = [\"root\"]",
        "[service]\nallowed_groups = [\"\"]",
        "[service]\nallowed_groups = [-1]",
        "[service]\ndrain = \"2h\"",
    ] {
        let (line, what) = refusal(wrong);
        assert_eq!(line, Some(2), "{wrong}");
        assert!(what.contains("wanted"), "{wrong}: {what}");
    }
}

#[test]
fn broken_toml_is_refused_with_its_line() {
    let (line, _) = refusal("[model]\nthreads = = 3\n");
    assert_eq!(line, Some(2));
    assert!(parse("\u{feff}[model]\nthreads = 3\n", Config::default()).is_ok());
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in "(\\[|\\]|model|limits|=|\"|\n|[a-z_]{1,9}|[0-9]{1,25}|\\PC){0,40}") {
        let _ = parse(&text, Config::default());
    }
}
