//! Reads JSON objects field by field, so that a wrong one is named, with what it is and what it
//! should be. Fields that nobody asks for are ignored, as OpenAI's clients send many; which those
//! are can be asked afterwards.

use std::cell::RefCell;
use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::request::Refusal;

pub struct Fields<'a> {
    map: &'a Map<String, Value>,
    /// What errors put before a field's name, such as `messages[2].`.
    at: String,
    asked: RefCell<BTreeSet<String>>,
}

pub fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

pub fn wrong<T>(param: &str, got: &Value, want: &str) -> Result<T, Refusal> {
    let got = match got {
        Value::Number(n) => n.to_string(),
        other => kind(other).to_owned(),
    };
    refuse(param, format!("got {got}, want {want}"))
}

pub fn refuse<T>(param: &str, message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::Invalid {
        param: param.into(),
        message: message.into(),
    })
}

/// A whole number from 0 on. 3.0 is one, as in JSON schemas; beyond 2^53 only digits are exact.
pub fn whole(value: &Value) -> Option<u64> {
    const EXACT: f64 = (1u64 << 53) as f64;
    let exact = |n: &f64| n.fract() == 0.0 && (0.0..=EXACT).contains(n);
    let of_float = || value.as_f64().filter(exact).map(|n| n as u64);
    value.as_u64().or_else(of_float)
}

impl<'a> Fields<'a> {
    pub fn of(value: &'a Value, at: &str) -> Result<Fields<'a>, Refusal> {
        match value {
            Value::Object(map) => Ok(Fields {
                map,
                at: if at.is_empty() {
                    String::new()
                } else {
                    format!("{at}.")
                },
                asked: RefCell::default(),
            }),
            other => wrong(if at.is_empty() { "body" } else { at }, other, "an object"),
        }
    }

    pub fn path(&self, name: &str) -> String {
        format!("{}{name}", self.at)
    }

    /// `null` is as good as absent.
    pub fn get(&self, name: &str) -> Option<&'a Value> {
        self.asked.borrow_mut().insert(name.to_owned());
        self.map.get(name).filter(|v| !v.is_null())
    }

    /// Every name that was asked for, there or not.
    pub fn asked(&self) -> BTreeSet<String> {
        self.asked.borrow().clone()
    }

    /// Fields that are there and that nobody asked for.
    pub fn unread(&self) -> impl Iterator<Item = &'a str> {
        let names = self.map.keys().map(String::as_str);
        names.filter(|name| !self.asked.borrow().contains(*name))
    }

    fn typed<T>(
        &self,
        name: &str,
        want: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, Refusal> {
        match self.get(name) {
            None => Ok(None),
            Some(value) => match read(value) {
                Some(read) => Ok(Some(read)),
                None => wrong(&self.path(name), value, want),
            },
        }
    }

    pub fn boolean(&self, name: &str) -> Result<Option<bool>, Refusal> {
        self.typed(name, "true or false", Value::as_bool)
    }

    pub fn string(&self, name: &str) -> Result<Option<&'a str>, Refusal> {
        self.typed(name, "a string", Value::as_str)
    }

    pub fn number(&self, name: &str) -> Result<Option<f32>, Refusal> {
        self.typed(name, "a number", |v| v.as_f64().map(|n| n as f32))
    }

    pub fn count(&self, name: &str) -> Result<Option<usize>, Refusal> {
        let read = |v: &Value| whole(v).and_then(|n| usize::try_from(n).ok());
        self.typed(name, "a whole number, at least 0", read)
    }

    pub fn integer(&self, name: &str) -> Result<Option<i64>, Refusal> {
        // Seeds come as unsigned 64 bits too; the bits count, not the sign.
        let read = |v: &Value| v.as_i64().or(whole(v).map(|n| n as i64));
        self.typed(name, "a whole number", read)
    }

    pub fn array(&self, name: &str) -> Result<Option<&'a Vec<Value>>, Refusal> {
        self.typed(name, "an array", Value::as_array)
    }

    pub fn object(&self, name: &str) -> Result<Option<Fields<'a>>, Refusal> {
        match self.get(name) {
            None => Ok(None),
            Some(value) => Fields::of(value, &self.path(name)).map(Some),
        }
    }

    pub fn entries(&self) -> impl Iterator<Item = (&'a String, &'a Value)> {
        self.map.iter()
    }
}
