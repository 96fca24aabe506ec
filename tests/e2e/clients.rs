//! What programs use, over the Unix socket: the official Python clients of OpenAI and Anthropic, and
//! Hugging Face's, what others build assistants with, the types of Open Responses, and a tool that reads
//! the description for programs and tries what it says, in virtual environments of their own. Skipped,
//! and said so, where there is no Python or no way to get the packages.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::daemon::{demo, start, start_with};
use super::venv::{self, runs};

fn clients() -> Result<PathBuf, String> {
    let wanted = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/requirements.txt");
    let imports = "openai, anthropic, huggingface_hub, openresponses_types, schemathesis";
    venv::python("clients-venv", imports, &["-r", wanted])
}

fn frameworks() -> Result<PathBuf, String> {
    let wanted = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/frameworks.txt");
    let imports = "agents, pydantic_ai, instructor, langchain_openai";
    venv::python("frameworks-venv", imports, &["-r", wanted])
}

/// A script against the daemon at `socket`; fails with what it printed.
fn content(script: &str, socket: &Path) {
    content_with(clients(), script, socket);
}

fn content_with(python: Result<PathBuf, String>, script: &str, socket: &Path) {
    let python = match python {
        Ok(python) => python,
        Err(why) => return eprintln!("SKIPPED: no client packages for Python here: {why}"),
    };
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python");
    let ran = runs(Command::new(python).arg(scripts.join(script)).arg(socket));
    assert_eq!(ran, Ok(()), "{script}");
}

#[test]
fn the_official_client_is_content() {
    content("openai_client.py", &start("").socket);
}

#[test]
fn what_programs_ask_through_the_official_client_is_answered() {
    let daemon = start_with(&demo("model"), "f16", "");
    content("surface.py", &daemon.socket);
}

#[test]
fn clients_of_other_makers_are_content() {
    let daemon = start_with(&demo("model"), "f16", "");
    content("other_clients.py", &daemon.socket);
}

#[test]
fn answers_and_events_are_as_open_responses_has_them() {
    let daemon = start_with(&demo("model"), "f16", "");
    content("open_responses.py", &daemon.socket);
}

#[test]
fn what_others_build_assistants_with_reads_nothing_twice() {
    let daemon = start_with(&demo("model"), "f16", "");
    content_with(frameworks(), "frameworks.py", &daemon.socket);
}

#[test]
fn the_description_for_programs_is_the_file_and_is_kept_to() {
    let limits = "[limits]\nmax_tokens = 4\nrequest_bytes = \"64KiB\"\n";
    let daemon = start(limits);
    let (status, served) = daemon.get("/openapi.json");
    let file = include_str!("../../docs/openapi.json");
    let file: serde_json::Value = serde_json::from_str(file).expect("JSON");
    assert_eq!((status, served), (200, file));
    content("schema.py", &daemon.socket);
}
