//! Random choices that a case's number decides, and changes to bytes, text and JSON. Knows no target.

use std::path::PathBuf;

use serde_json::{Map, Value, json};

/// SplitMix64: a case is repeated by its number, on any machine.
pub struct Dice {
    state: u64,
    keep: Option<PathBuf>,
}

impl Dice {
    /// `keep`: where to leave the case's input.
    pub fn new(seed: u64, case: u64, keep: Option<PathBuf>) -> Dice {
        let state = seed ^ case.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut dice = Dice { state, keep };
        dice.next();
        dice
    }

    /// This is the case's input, about to be read.
    pub fn made(&self, input: impl AsRef<[u8]>) {
        if let Some(keep) = &self.keep {
            std::fs::write(keep, input).expect("room for a file");
        }
    }

    pub fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Less than `n`; 0 for 0.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    /// Numbers where code breaks: edges of types, powers of two and their neighbours.
    pub fn number(&mut self) -> u64 {
        let power = 1u64 << self.below(64);
        match self.below(6) {
            0 => self.below(20) as u64,
            1 => power,
            2 => power.wrapping_sub(1),
            3 => power.wrapping_add(1),
            4 => u64::MAX - self.below(3) as u64,
            _ => self.next(),
        }
    }

    pub fn float(&mut self) -> f64 {
        const ODD: [f64; 10] = [
            0.0,
            -0.0,
            -1.0,
            1e-45,
            1e38,
            -1e39,
            1e308,
            f64::NAN,
            f64::INFINITY,
            f64::NEG_INFINITY,
        ];
        if self.one_in(2) {
            *self.pick(&ODD)
        } else {
            self.next() as i32 as f64 / 1000.0
        }
    }

    pub fn bytes(&mut self, bytes: &mut Vec<u8>) {
        let at = self.below(bytes.len() + 1);
        let end = (at + 1 + self.below(16)).min(bytes.len());
        match self.below(6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
            1 if at < bytes.len() => bytes[at] = self.next() as u8,
            2 => drop(bytes.drain(at.min(end)..end)),
            3 => {
                let copy = bytes[at.min(end)..end].to_vec();
                bytes.splice(at..at, copy);
            }
            4 => {
                let number = self.number().to_le_bytes();
                let n = (*self.pick(&[1, 2, 4, 8])).min(bytes.len() - at);
                bytes[at..at + n].copy_from_slice(&number[..n]);
            }
            _ => bytes.insert(at, self.next() as u8),
        }
    }

    /// `words` are worth inserting: the language's own.
    pub fn text(&mut self, text: &mut String, words: &[&str]) {
        let place = |dice: &mut Dice, text: &str| {
            let mut at = dice.below(text.len() + 1);
            while !text.is_char_boundary(at) {
                at -= 1;
            }
            at
        };
        let (a, b) = (place(self, text), place(self, text));
        let (from, to) = (a.min(b), a.max(b));
        match self.below(7) {
            0 => drop(text.drain(from..to)),
            1 => {
                let near = from + text[from..].char_indices().nth(8).map_or(0, |(i, _)| i);
                drop(text.drain(from..near));
            }
            2 if to - from < 4096 => {
                let copy = text[from..to].to_owned();
                text.insert_str(a, &copy);
            }
            3 => {
                let word = *self.pick(words);
                let n = if self.one_in(12) { self.below(3000) } else { 1 };
                text.insert_str(a, &word.repeat(n));
            }
            4 => text.insert(
                a,
                char::from_u32(self.next() as u32 % 0x11_0000).unwrap_or('\u{fffd}'),
            ),
            5 => text.insert(
                a,
                *self.pick(&[
                    '\0',
                    '\n',
                    '"',
                    '\\',
                    '{',
                    '[',
                    '<',
                    '|',
                    '\u{2581}',
                    '\u{1f642}',
                    '\u{e9}',
                    '\u{feff}',
                ]),
            ),
            _ => {
                let number = self.number();
                text.replace_range(
                    from..to.min(place(self, text).max(from)),
                    &number.to_string(),
                );
            }
        }
    }

    /// Changes one node somewhere in `value`; `other` lends subtrees.
    pub fn json(&mut self, value: &mut Value, other: &Value, words: &[&str]) {
        let n = count(value);
        let at = self.below(n);
        let lent = nth(&mut other.clone(), &mut self.below(count(other))).map(|v| v.take());
        let mut at = at;
        let Some(node) = nth(value, &mut at) else {
            return;
        };
        match (self.below(8), &mut *node) {
            (0 | 1, Value::String(s)) => self.text(s, words),
            (0 | 1, Value::Number(_)) => *node = self.json_number(),
            (0 | 1, Value::Object(map)) if !map.is_empty() => {
                let name = map.keys().nth(self.below(map.len())).cloned();
                let name = name.expect("it is not empty");
                let old = map.shift_remove(&name);
                if self.one_in(3) {
                    map.insert((*self.pick(words)).to_owned(), old.unwrap_or(Value::Null));
                }
            }
            (0 | 1, Value::Array(items)) if !items.is_empty() => {
                let at = self.below(items.len());
                if self.one_in(2) {
                    drop(items.remove(at))
                } else {
                    items.push(items[at].clone())
                }
            }
            (2, _) => *node = self.json_number(),
            (3, _) => *node = lent.unwrap_or(Value::Null),
            (4, _) => {
                let depth = if self.one_in(6) { self.below(150) } else { 1 };
                for _ in 0..depth {
                    let inner = node.take();
                    *node = if self.one_in(2) {
                        Value::Array(vec![inner])
                    } else {
                        Value::Object(Map::from_iter([((*self.pick(words)).to_owned(), inner)]))
                    };
                }
            }
            (5, Value::Object(map)) => {
                map.insert((*self.pick(words)).to_owned(), lent.unwrap_or(json!(1)));
            }
            (6, _) => *node = json!(*self.pick(words)),
            _ => {
                *node = self
                    .pick(&[Value::Null, json!(true), json!(""), json!([]), json!({})])
                    .clone()
            }
        }
    }

    fn json_number(&mut self) -> Value {
        match self.below(3) {
            0 => json!(self.number()),
            1 => json!(-((self.number() >> 1) as i64)),
            _ => json!(self.float()),
        }
    }
}

fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(map) => map.values().map(count).sum(),
        _ => 0,
    }
}

fn nth<'a>(value: &'a mut Value, n: &mut usize) -> Option<&'a mut Value> {
    if *n == 0 {
        return Some(value);
    }
    *n -= 1;
    match value {
        Value::Array(items) => items.iter_mut().find_map(|v| nth(v, n)),
        Value::Object(map) => map.values_mut().find_map(|v| nth(v, n)),
        _ => None,
    }
}
