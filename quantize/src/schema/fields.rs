//! The hub's JSON objects, whose fields are asked for by name, with errors that give the name.

use super::Keys;
use serde_json::{Map, Value};

pub struct Fields<'a> {
    map: &'a Map<String, Value>,
    /// What stands before the names of its fields.
    at: String,
}

impl<'a> Fields<'a> {
    pub fn new(map: &'a Map<String, Value>) -> Self {
        let at = String::new();
        Self { map, at }
    }

    pub fn get(&self, name: &str) -> &'a Value {
        self.map.get(name).unwrap_or(&Value::Null)
    }

    fn missing(&self, name: &str) -> String {
        format!("`{}{name}` is missing", self.at)
    }

    /// A number that may be absent or null.
    pub fn optional(&self, name: &str) -> Result<Option<usize>, String> {
        match self.get(name) {
            Value::Null => Ok(None),
            value => match value.as_u64().and_then(|n| usize::try_from(n).ok()) {
                Some(n) => Ok(Some(n)),
                None => Err(format!("`{}{name}` is {value}, wanted a count", self.at)),
            },
        }
    }

    pub fn number_or(&self, name: &str, default: usize) -> Result<usize, String> {
        Ok(self.optional(name)?.unwrap_or(default))
    }

    pub fn size(&self, name: &str) -> Result<usize, String> {
        match self.optional(name)? {
            None => Err(self.missing(name)),
            Some(0) => Err(format!("`{}{name}` is 0", self.at)),
            Some(n) => Ok(n),
        }
    }

    /// How many layers there are.
    pub fn layer_count(&self, name: &str) -> Result<usize, String> {
        match self.size(name)? {
            n if n <= Keys::MAX_LAYERS => Ok(n),
            n => Err(format!(
                "`{}{name}` is {n}, wanted at most {}",
                self.at,
                Keys::MAX_LAYERS
            )),
        }
    }

    /// 0 unless stated, and no more than `most`, which field `of` says.
    pub fn at_most(&self, name: &str, most: usize, of: &str) -> Result<usize, String> {
        match self.number_or(name, 0)? {
            n if n <= most => Ok(n),
            n => Err(format!(
                "`{}{name}` is {n}, beyond `{of}` = {most}",
                self.at
            )),
        }
    }

    /// A whole number or one with a point.
    pub fn float(&self, name: &str) -> Result<f32, String> {
        let value = self.map.get(name).ok_or_else(|| self.missing(name))?;
        let float = value.as_f64().map(|x| x as f32);
        let float = float.filter(|x| x.is_finite());
        float.ok_or_else(|| format!("`{}{name}` is {value}, wanted a number", self.at))
    }

    pub fn float_or(&self, name: &str, default: f32) -> Result<f32, String> {
        match self.get(name) {
            Value::Null => Ok(default),
            _ => self.float(name),
        }
    }

    /// The numbers of layers.
    pub fn numbers(&self, name: &str) -> Result<Vec<usize>, String> {
        let value = self.map.get(name).ok_or_else(|| self.missing(name))?;
        let numbers = value.as_array().and_then(|list| {
            let number = |n: &Value| n.as_u64().and_then(|n| usize::try_from(n).ok());
            list.iter().map(number).collect()
        });
        numbers.ok_or_else(|| format!("`{}{name}` is {value}, wanted layer numbers", self.at))
    }

    pub fn object(&self, name: &str) -> Result<Fields<'a>, String> {
        self.maybe_object(name)?.ok_or_else(|| self.missing(name))
    }

    /// An object that may be absent or null.
    pub fn maybe_object(&self, name: &str) -> Result<Option<Fields<'a>>, String> {
        match self.get(name) {
            Value::Null => Ok(None),
            Value::Object(map) => {
                let at = format!("{}{name}.", self.at);
                Ok(Some(Fields { map, at }))
            }
            value => Err(format!("`{}{name}` is {value}, wanted an object", self.at)),
        }
    }

    /// Fields that must say, or leave unsaid, what the engine computes.
    pub fn must_say(&self, wanted: &[(&str, Value)]) -> Result<(), String> {
        for (name, wanted) in wanted {
            let got = self.get(name);
            if !got.is_null() && got != wanted {
                let name = format!("{}{name}", self.at);
                return Err(format!("`{name}` is {got}, only {wanted} is supported"));
            }
        }
        Ok(())
    }

    /// Every field that says something must be one of `known`: what nobody here has heard of may
    /// change what the model computes.
    pub fn must_be_among(&self, known: &[&str]) -> Result<(), String> {
        let says = |value: &Value| match value {
            Value::Null | Value::Bool(false) => false,
            Value::Number(n) => n.as_f64() != Some(0.0),
            Value::String(s) => !s.is_empty(),
            Value::Array(list) => !list.is_empty(),
            Value::Object(map) => !map.is_empty(),
            Value::Bool(true) => true,
        };
        for (name, value) in self.map.iter().filter(|(_, value)| says(value)) {
            if !known.contains(&name.as_str()) {
                let value: String = value.to_string().chars().take(60).collect();
                return Err(format!(
                    "`{}{name}` is {value}, a field that is not known; wanted none, null or false",
                    self.at
                ));
            }
        }
        Ok(())
    }
}
