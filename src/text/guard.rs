//! Keeps a caller's words from becoming markup. A character that occurs nowhere in the request or
//! the template is put inside every spelling of markup in every string of the request. What is
//! markup: control tokens, and tokens in angle brackets that the template writes itself, however
//! their file flags them.

use std::collections::BTreeSet;

use regex::Regex;
use serde_json::Value;

use super::tokenizer::{Tokenizer, TokenizerError, any_of};

pub(super) struct Guard {
    names: Vec<String>,
    any: Option<Regex>,
    /// Bytes that begin a spelling.
    beginnings: [bool; 256],
    longest: usize,
    /// Private characters of the template.
    taken: BTreeSet<char>,
}

/// Unicode's plane 15: characters with no meaning, which no text has by accident.
const PRIVATE: std::ops::RangeInclusive<char> = '\u{f0000}'..='\u{ffffd}';

impl Guard {
    pub(super) fn of(tokenizer: &Tokenizer, template: &str) -> Result<Guard, TokenizerError> {
        let names = tokenizer.markup_in(template);
        let mut beginnings = [false; 256];
        for name in &names {
            beginnings[usize::from(name.as_bytes()[0])] = true;
        }
        Ok(Guard {
            any: any_of(names.iter().map(String::as_str))?,
            longest: names.iter().map(String::len).max().unwrap_or(0),
            beginnings,
            taken: template.chars().filter(|c| PRIVATE.contains(c)).collect(),
            names,
        })
    }

    /// A private character that neither the request nor the template holds.
    pub(super) fn character(&self, request: &[&Value]) -> Option<char> {
        let mut used = self.taken.clone();
        let mut note = |text: &str| used.extend(text.chars().filter(|c| PRIVATE.contains(c)));
        for value in request {
            for_each_string(value, &mut note);
        }
        PRIVATE.clone().find(|c| !used.contains(c))
    }

    /// Breaks every spelling in every string of `value`, keys included.
    pub(super) fn protect(&self, value: &mut Value, guard: char) {
        match value {
            Value::String(s) => *s = self.broken(s, guard),
            Value::Array(items) => {
                for item in items {
                    self.protect(item, guard);
                }
            }
            Value::Object(map) => {
                let entries = std::mem::take(map).into_iter().map(|(key, mut v)| {
                    self.protect(&mut v, guard);
                    (self.broken(&key, guard), v)
                });
                *map = entries.collect();
            }
            _ => {}
        }
    }

    /// `text` with the guard after the first character of each spelling in it, overlapping ones too,
    /// and of a beginning of one at its end: the next string printed may bring the rest.
    fn broken(&self, text: &str, guard: char) -> String {
        let mut out = String::with_capacity(text.len() + 16);
        let mut at = 0;
        let tail = self.unfinished(text);
        let mut break_after = |start: usize| {
            let first = text[start..].chars().next().map_or(0, char::len_utf8);
            out.push_str(&text[at..start + first]);
            out.push(guard);
            at = start + first;
            at
        };
        let mut from = 0;
        while let Some(found) = self.any.as_ref().and_then(|any| any.find_at(text, from)) {
            from = break_after(found.start());
        }
        for start in tail.into_iter().filter(|&start| start >= from) {
            break_after(start);
        }
        out.push_str(&text[at..]);
        out
    }

    /// Where at the end of `text` a spelling begins that the text leaves unfinished, ascending.
    fn unfinished(&self, text: &str) -> Vec<usize> {
        let from = text.len().saturating_sub(self.longest);
        let begins = |&at: &usize| {
            let rest = &text.as_bytes()[at..];
            let longer =
                |name: &String| name.len() > rest.len() && name.as_bytes().starts_with(rest);
            text.is_char_boundary(at)
                && self.beginnings[usize::from(rest[0])]
                && self.names.iter().any(longer)
        };
        (from..text.len()).filter(begins).collect()
    }
}

fn for_each_string(value: &Value, f: &mut impl FnMut(&str)) {
    match value {
        Value::String(s) => f(s),
        Value::Array(items) => items.iter().for_each(|v| for_each_string(v, f)),
        Value::Object(map) => {
            for (key, v) in map {
                f(key);
                for_each_string(v, f);
            }
        }
        _ => {}
    }
}
