//! Files: models and configurations.

use std::path::{Path, PathBuf};

use deltad::config::{Config, KEYS};
use deltad::engine::{Engine, Want};
use deltad::text::{ChatTemplate, Grammars, Tokenizer, markup};

use super::Run;
use crate::container::Container;
use crate::fixtures;

/// As `deltad serve` opens a file, then a pass over it.
pub fn gguf(dir: &Path) -> Run {
    let read = |path: PathBuf| Container::parse(&std::fs::read(path).expect("a model"));
    let seeds: Vec<Container> = fixtures::models(dir).into_iter().map(read).collect();
    let path = dir.join("case.gguf");
    Box::new(move |dice| {
        let bytes = dice.pick(&seeds).clone().changed(dice);
        std::fs::write(&path, &bytes).expect("room for a file");
        dice.made(&bytes);
        let options = fixtures::options();
        let Ok(mut engine) = Engine::open(&path, &options) else {
            return;
        };
        let model = engine.model();
        let words = Tokenizer::from_metadata(model.metadata()).ok();
        if let Some(words) = words {
            let template = ChatTemplate::from_metadata(model.metadata(), &words);
            // A file may bring a template or a vocabulary that serves for less.
            let _ = (
                template.is_ok(),
                Grammars::new(&words, markup::of(&words, "")).is_ok(),
            );
        }
        let n_vocab = model.n_vocab();
        let Ok(mut sequence) = engine.sequence() else {
            return;
        };
        let tokens: Vec<u32> = (0..5).map(|_| dice.below(n_vocab) as u32).collect();
        if let Ok(logits) = engine.feed(&mut sequence, &tokens, Want::Last) {
            assert_eq!(logits.last().map(<[f32]>::len), Some(n_vocab));
        }
    })
}

/// What is taken can be printed, and reads back as the same.
pub fn config() -> Run {
    let seeds = super::parts(include_str!("../seeds/config.toml"));
    let mut words = vec![
        "[",
        "]",
        "=",
        "\"",
        "'''",
        "\n",
        "-1",
        "1e400",
        "0x7fffffffffffffff",
        "nan",
        "\u{0}",
        "9223372036854775808",
        "1970-01-01",
        "{a=1}",
        "\"18446744073709551616 GiB\"",
        "\"1h\"",
        "true",
        "a.b.c=1\n",
    ];
    words.extend(KEYS.iter().flat_map(|k| [k.section, k.name]));
    Box::new(move |dice| {
        let mut text = (*dice.pick(&seeds)).to_owned();
        for _ in 0..1 + dice.below(5) {
            dice.text(&mut text, &words);
        }
        dice.made(&text);
        match Config::from_toml(&text) {
            Ok(config) => {
                let printed = config.to_toml();
                assert_eq!(
                    Config::from_toml(&printed).as_ref(),
                    Ok(&config),
                    "{text}\n{printed}"
                );
            }
            Err(e) => assert!(!e.to_string().is_empty()),
        }
    })
}
