//! GGUF v3: a bounded reader over a map and a streaming writer. (In work: the types that other
//! rooms name.)

use std::collections::BTreeMap;

/// Key-value metadata of a file.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metadata {
    pub map: BTreeMap<String, Value>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    Str(String),
    U64(u64),
    I64(i64),
    F64(f64),
    Array(Array),
}

/// Homogeneous arrays, as the format has them.
#[derive(Debug, Clone, PartialEq)]
pub enum Array {
    U8(Vec<u8>),
    I8(Vec<i8>),
    U16(Vec<u16>),
    I16(Vec<i16>),
    U32(Vec<u32>),
    I32(Vec<i32>),
    F32(Vec<f32>),
    Bool(Vec<bool>),
    Str(Vec<String>),
    U64(Vec<u64>),
    I64(Vec<i64>),
    F64(Vec<f64>),
}

impl Metadata {
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.map.get(key)
    }
    /// Any unsigned or non-negative signed integer.
    pub fn u64(&self, key: &str) -> Option<u64> {
        match *self.map.get(key)? {
            Value::U8(v) => Some(v.into()),
            Value::U16(v) => Some(v.into()),
            Value::U32(v) => Some(v.into()),
            Value::U64(v) => Some(v),
            Value::I8(v) => v.try_into().ok(),
            Value::I16(v) => v.try_into().ok(),
            Value::I32(v) => v.try_into().ok(),
            Value::I64(v) => v.try_into().ok(),
            _ => None,
        }
    }
    pub fn f32(&self, key: &str) -> Option<f32> {
        match *self.map.get(key)? {
            Value::F32(v) => Some(v),
            Value::F64(v) => Some(v as f32),
            _ => None,
        }
    }
    pub fn bool(&self, key: &str) -> Option<bool> {
        match *self.map.get(key)? {
            Value::Bool(v) => Some(v),
            _ => None,
        }
    }
    pub fn str(&self, key: &str) -> Option<&str> {
        match self.map.get(key)? {
            Value::Str(v) => Some(v),
            _ => None,
        }
    }
    pub fn strs(&self, key: &str) -> Option<&[String]> {
        match self.map.get(key)? {
            Value::Array(Array::Str(v)) => Some(v),
            _ => None,
        }
    }
    /// An array of any integer type whose values are non-negative.
    pub fn u64s(&self, key: &str) -> Option<Vec<u64>> {
        fn all<T: Copy + TryInto<u64>>(v: &[T]) -> Option<Vec<u64>> {
            v.iter().map(|&x| x.try_into().ok()).collect()
        }
        match self.map.get(key)? {
            Value::Array(Array::U8(v)) => all(v),
            Value::Array(Array::I8(v)) => all(v),
            Value::Array(Array::U16(v)) => all(v),
            Value::Array(Array::I16(v)) => all(v),
            Value::Array(Array::U32(v)) => all(v),
            Value::Array(Array::I32(v)) => all(v),
            Value::Array(Array::U64(v)) => all(v),
            Value::Array(Array::I64(v)) => all(v),
            _ => None,
        }
    }
}
