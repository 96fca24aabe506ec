//! A GGUF taken apart without judging it, changed, and put together again. What comes out need not
//! make sense: the reader under test has to say so.

use super::dice::Dice;

#[derive(Clone)]
pub struct Container {
    version: u32,
    keys: Vec<Key>,
    tensors: Vec<Tensor>,
    data: Vec<u8>,
    /// Added to the counts that the header states.
    more_keys: u64,
    more_tensors: u64,
}

#[derive(Clone)]
struct Key {
    name: Vec<u8>,
    kind: u32,
    value: Vec<u8>,
    /// It may no longer be what its kind says, so it cannot be taken apart again.
    changed: bool,
}

#[derive(Clone)]
struct Tensor {
    name: Vec<u8>,
    dims: Vec<u64>,
    ty: u32,
    offset: u64,
}

const ALIGNMENT: usize = 32;
const STRING: u32 = 8;
const ARRAY: u32 = 9;

fn width(kind: u32) -> usize {
    match kind {
        0 | 1 | 7 => 1,
        2 | 3 => 2,
        4..=6 => 4,
        _ => 8,
    }
}

struct Reader<'a>(&'a [u8], usize);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> &'a [u8] {
        self.1 += n;
        &self.0[self.1 - n..self.1]
    }
    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take(4).try_into().expect("four bytes"))
    }
    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take(8).try_into().expect("eight bytes"))
    }
    fn string(&mut self) -> Vec<u8> {
        let n = self.u64() as usize;
        self.take(n).to_vec()
    }
    fn skip(&mut self, kind: u32) {
        match kind {
            STRING => drop(self.string()),
            ARRAY => {
                let (of, n) = (self.u32(), self.u64());
                (0..n).for_each(|_| self.skip(of));
            }
            _ => drop(self.take(width(kind))),
        }
    }
}

fn put_string(out: &mut Vec<u8>, s: &[u8]) {
    out.extend((s.len() as u64).to_le_bytes());
    out.extend(s);
}

impl Container {
    /// Of a file that is known to be good.
    pub fn parse(file: &[u8]) -> Container {
        let mut r = Reader(file, 4);
        let version = r.u32();
        let (n_tensors, n_keys) = (r.u64(), r.u64());
        let keys = (0..n_keys).map(|_| {
            let name = r.string();
            let kind = r.u32();
            let start = r.1;
            r.skip(kind);
            let value = file[start..r.1].to_vec();
            Key {
                name,
                kind,
                value,
                changed: false,
            }
        });
        let keys = keys.collect();
        let tensors = (0..n_tensors).map(|_| {
            let name = r.string();
            let n = r.u32();
            let dims = (0..n).map(|_| r.u64()).collect();
            let (ty, offset) = (r.u32(), r.u64());
            Tensor {
                name,
                dims,
                ty,
                offset,
            }
        });
        let tensors = tensors.collect();
        let data = file[r.1.next_multiple_of(ALIGNMENT)..].to_vec();
        Container {
            version,
            keys,
            tensors,
            data,
            more_keys: 0,
            more_tensors: 0,
        }
    }

    fn header(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend(
            (self.tensors.len() as u64)
                .wrapping_add(self.more_tensors)
                .to_le_bytes(),
        );
        out.extend(
            (self.keys.len() as u64)
                .wrapping_add(self.more_keys)
                .to_le_bytes(),
        );
        for key in &self.keys {
            put_string(&mut out, &key.name);
            out.extend(key.kind.to_le_bytes());
            out.extend(&key.value);
        }
        for tensor in &self.tensors {
            put_string(&mut out, &tensor.name);
            out.extend((tensor.dims.len() as u32).to_le_bytes());
            tensor.dims.iter().for_each(|d| out.extend(d.to_le_bytes()));
            out.extend(tensor.ty.to_le_bytes());
            out.extend(tensor.offset.to_le_bytes());
        }
        out
    }

    /// A file with one to four changes; half of them keep the container whole, so that what is
    /// wrong reaches the model's own checks.
    pub fn changed(&self, dice: &mut Dice) -> Vec<u8> {
        let mut it = self.clone();
        for _ in 0..1 + dice.below(4) {
            match dice.below(10) {
                0..=3 => it.change_value(dice),
                4 => it.change_keys(dice),
                5..=6 => it.change_tensor(dice),
                7 => it.change_tensors(dice),
                8 => it.change_data(dice),
                _ => it.change_frame(dice),
            }
        }
        let mut out = it.header();
        if dice.one_in(8) {
            (0..=dice.below(4)).for_each(|_| dice.bytes(&mut out));
        }
        out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
        out.extend(&it.data);
        if dice.one_in(10) {
            out.truncate(dice.below(out.len()));
        }
        out
    }

    fn change_value(&mut self, dice: &mut Dice) {
        let at = dice.below(self.keys.len());
        let Some(key) = self.keys.get_mut(at) else {
            return;
        };
        if std::mem::replace(&mut key.changed, true) {
            return;
        }
        match key.kind {
            STRING => change_string(dice, &mut key.value),
            ARRAY => change_array(dice, &mut key.value),
            6 => key.value = (dice.float() as f32).to_le_bytes().to_vec(),
            kind => {
                let n = width(kind);
                let mut old = [0; 8];
                old[..n].copy_from_slice(&key.value);
                let old = u64::from_le_bytes(old);
                let new = match dice.below(5) {
                    0 => old.wrapping_add(1),
                    1 => old.wrapping_sub(1),
                    2 => old.wrapping_mul(2),
                    3 => old / 2,
                    _ => dice.number(),
                };
                key.value = new.to_le_bytes()[..n].to_vec();
            }
        }
    }

    fn change_keys(&mut self, dice: &mut Dice) {
        let n = self.keys.len();
        let (a, b) = (dice.below(n), dice.below(n));
        if n == 0 {
            return;
        }
        match dice.below(5) {
            0 => drop(self.keys.remove(a)),
            1 => self.keys.push(self.keys[a].clone()),
            2 if a != b => {
                let name = std::mem::take(&mut self.keys[a].name);
                self.keys[a].name = std::mem::replace(&mut self.keys[b].name, name);
            }
            3 => dice.bytes(&mut self.keys[a].name),
            _ => {
                self.keys[a].kind = dice.below(14) as u32;
                self.keys[a].changed = true;
            }
        }
    }

    fn change_tensor(&mut self, dice: &mut Dice) {
        let at = dice.below(self.tensors.len());
        let Some(tensor) = self.tensors.get_mut(at) else {
            return;
        };
        let d = dice.below(tensor.dims.len());
        match dice.below(7) {
            0 => tensor.dims.reverse(),
            1 if !tensor.dims.is_empty() => tensor.dims[d] = dice.number(),
            2 if !tensor.dims.is_empty() => {
                let more = *dice.pick(&[1, u64::MAX]);
                tensor.dims[d] = tensor.dims[d].wrapping_add(more);
            }
            3 => tensor.dims.push(*dice.pick(&[0, 1, 2, u64::MAX])),
            4 => tensor.ty = dice.below(45) as u32,
            5 => {
                tensor.offset =
                    tensor
                        .offset
                        .wrapping_add(*dice.pick(&[1, 32, 4096, u64::MAX, u64::MAX - 31]))
            }
            _ => tensor.offset = dice.number() & !31,
        }
    }

    fn change_tensors(&mut self, dice: &mut Dice) {
        let n = self.tensors.len();
        let (a, b) = (dice.below(n), dice.below(n));
        if n == 0 {
            return;
        }
        match dice.below(4) {
            0 => drop(self.tensors.remove(a)),
            1 => self.tensors.push(self.tensors[a].clone()),
            2 if a != b => {
                let name = std::mem::take(&mut self.tensors[a].name);
                self.tensors[a].name = std::mem::replace(&mut self.tensors[b].name, name);
            }
            _ => dice.bytes(&mut self.tensors[a].name),
        }
    }

    /// Weights that are no numbers, or huge.
    fn change_data(&mut self, dice: &mut Dice) {
        let n = self.data.len();
        let at = dice.below(n);
        let end = (at + 4 * dice.below(1 << 14)).min(n);
        let byte = *dice.pick(&[0, 0x7f, 0x80, 0xff]);
        self.data[at..end].fill(byte);
    }

    fn change_frame(&mut self, dice: &mut Dice) {
        match dice.below(3) {
            0 => self.version = dice.number() as u32,
            1 => self.more_keys = dice.number(),
            _ => self.more_tensors = dice.number(),
        }
    }
}

const WORDS: [&str; 16] = [
    "{%",
    "%}",
    "{{",
    "}}",
    "{% for x in range(99999999) %}",
    "{% endfor %}",
    "messages",
    "raise_exception(",
    "kimi-linear",
    "gpt2",
    "kimi-k2",
    "bailingmoe3",
    "bailingmoe2",
    "\u{120}",
    "<|im_end|>",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
];

fn change_string(dice: &mut Dice, value: &mut Vec<u8>) {
    let mut text = String::from_utf8_lossy(&value[8..]).into_owned();
    for _ in 0..1 + dice.below(3) {
        dice.text(&mut text, &WORDS);
    }
    value.clear();
    put_string(value, text.as_bytes());
    if dice.one_in(10) {
        value[..8].copy_from_slice(&dice.number().to_le_bytes());
    }
}

/// `value` is an element type, a count and the elements.
fn change_array(dice: &mut Dice, value: &mut Vec<u8>) {
    let mut r = Reader(value, 0);
    let (of, n) = (r.u32(), r.u64());
    let mut items: Vec<Vec<u8>> = Vec::with_capacity(n as usize);
    for _ in 0..n {
        let start = r.1;
        r.skip(of);
        items.push(value[start..r.1].to_vec());
    }
    for _ in 0..1 + dice.below(3) {
        let (a, b) = (dice.below(items.len()), dice.below(items.len()));
        if items.is_empty() {
            break;
        }
        match dice.below(6) {
            0 => drop(items.remove(a)),
            1 => items.insert(a, items[b].clone()),
            2 => items.swap(a, b),
            3 => items[a] = items[b].clone(),
            4 => items.truncate(a),
            _ if of == STRING => change_string(dice, &mut items[a]),
            _ => {
                let n = items[a].len().min(8);
                items[a][..n].copy_from_slice(&dice.number().to_le_bytes()[..n]);
            }
        }
    }
    let count = if dice.one_in(12) {
        dice.number()
    } else {
        items.len() as u64
    };
    let of = if dice.one_in(16) {
        dice.below(14) as u32
    } else {
        of
    };
    *value = [&of.to_le_bytes()[..], &count.to_le_bytes()].concat();
    items.iter().for_each(|item| value.extend(item));
}
