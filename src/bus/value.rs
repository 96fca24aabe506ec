//! D-Bus values as JSON and back: what options and messages pass through before the one reader of
//! options sees them. Pure; refuses what JSON cannot say.

use std::collections::HashMap;

use serde_json::{Map, Number, Value};
use zbus::{Array, OwnedVariant, Signature, Variant};

/// `a{sv}`.
pub type Dictionary = HashMap<String, OwnedVariant>;

/// Why a value has no JSON: where it is, and what it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {what}")]
pub struct NoJson {
    pub at: String,
    pub what: String,
}

/// A dictionary as an object. `at` is what errors put before its keys.
pub fn object(dictionary: &Dictionary, at: &str) -> Result<Map<String, Value>, NoJson> {
    let entries = dictionary.iter().map(|(key, value)| {
        let at = if at.is_empty() {
            key.clone()
        } else {
            format!("{at}.{key}")
        };
        Ok((key.clone(), json(value, &at)?))
    });
    entries.collect()
}

/// One value. A variant in a variant is its content, a structure an array; keys become text.
pub fn json(value: &Variant, at: &str) -> Result<Value, NoJson> {
    let no = |what: &str| {
        let (at, what) = (at.to_owned(), what.to_owned());
        Err(NoJson { at, what })
    };
    let list = |items: &[Variant]| -> Result<Vec<Value>, NoJson> {
        let each = items.iter().enumerate();
        each.map(|(i, v)| json(v, &format!("{at}[{i}]"))).collect()
    };
    Ok(match value {
        Variant::U8(n) => (*n).into(),
        Variant::Bool(b) => (*b).into(),
        Variant::I16(n) => (*n).into(),
        Variant::U16(n) => (*n).into(),
        Variant::I32(n) => (*n).into(),
        Variant::U32(n) => (*n).into(),
        Variant::I64(n) => (*n).into(),
        Variant::U64(n) => (*n).into(),
        Variant::F64(n) => match Number::from_f64(*n) {
            Some(n) => Value::Number(n),
            None => return no(&format!("got {n}, want a finite number")),
        },
        Variant::Str(s) => s.as_str().into(),
        Variant::ObjectPath(p) => p.as_str().into(),
        Variant::Signature(s) => s.to_string().into(),
        Variant::Variant(inner) => json(inner, at)?,
        Variant::Array(items) => list(items.inner()).map(Value::Array)?,
        Variant::Structure(fields) => list(fields.fields()).map(Value::Array)?,
        Variant::Dict(entries) => {
            let mut map = Map::new();
            for (key, value) in entries.iter() {
                let key = match json(key, at)? {
                    Value::String(key) => key,
                    other => other.to_string(),
                };
                let at = format!("{at}.{key}");
                map.insert(key, json(value, &at)?);
            }
            Value::Object(map)
        }
        Variant::Fd(_) => return no("got a file descriptor, which is no value here"),
    })
}

/// A text as the bus takes it. A NUL has no spelling there, and the bus hangs up on who sends one,
/// which a model may write at any time: a sign that something was there stands for it.
pub fn text(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// JSON as a D-Bus value: whole numbers are `x` (`t` where they are larger), others `d`, lists
/// `av`, objects `a{sv}`. D-Bus has no null: a field that is null is left out.
pub fn variant(value: &Value) -> Variant<'static> {
    match value {
        Value::Null => Variant::from(Array::new(&Signature::Variant)),
        Value::Bool(b) => (*b).into(),
        Value::Number(n) => match (n.as_i64(), n.as_u64()) {
            (Some(n), _) => n.into(),
            (None, Some(n)) => n.into(),
            (None, None) => n.as_f64().unwrap_or_default().into(),
        },
        Value::String(s) => text(s).into(),
        Value::Array(items) => {
            let items = items.iter().filter(|v| !v.is_null());
            Variant::from(items.map(variant).collect::<Vec<_>>())
        }
        Value::Object(map) => {
            let entries = map.iter().filter(|(_, v)| !v.is_null());
            let map: HashMap<String, Variant> =
                entries.map(|(k, v)| (text(k), variant(v))).collect();
            Variant::from(map)
        }
    }
}

/// The fields of an object; of anything else, none.
pub fn dictionary(value: &Value) -> Dictionary {
    let entries = value.as_object().into_iter().flatten();
    let present = entries.filter(|(_, v)| !v.is_null());
    let owned = present.filter_map(|(k, v)| Some((text(k), variant(v).try_into().ok()?)));
    owned.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json as j;

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            (-1e9f64..1e9).prop_map(Value::from),
            "[^\0]{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::hash_map("[a-z]{1,4}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_goes_out_as_a_variant_comes_back_the_same(value in any_json()) {
            prop_assert_eq!(json(&variant(&value), "v").expect("JSON"), value);
        }
    }

    #[test]
    fn a_nul_which_the_bus_hangs_up_on_is_replaced_in_texts_and_keys() {
        let given = j!({"a\0": ["b\0c"]});
        assert_eq!(
            json(&variant(&given), ""),
            Ok(j!({"a\u{fffd}": ["b\u{fffd}c"]}))
        );
        assert_eq!(text("\0"), "\u{fffd}");
    }

    #[test]
    fn keys_that_are_numbers_become_text_as_logit_bias_wants_them() {
        let bias = HashMap::from([(7u32, -1.5f64)]);
        assert_eq!(json(&Variant::from(bias), "b"), Ok(j!({"7": -1.5})));
    }

    #[test]
    fn what_json_cannot_say_is_refused_with_its_place() {
        let nested = Variant::from(vec![1.0, f64::NAN]);
        let refused = json(&nested, "stop").unwrap_err();
        assert_eq!(
            refused.to_string(),
            "stop[1]: got NaN, want a finite number"
        );
        let pipe = std::io::pipe().expect("a pipe").0;
        let descriptor = Variant::Fd(std::os::fd::OwnedFd::from(pipe).into());
        assert_eq!(json(&descriptor, "seed").unwrap_err().at, "seed");
    }

    #[test]
    fn null_has_no_spelling_on_the_bus_and_is_left_out() {
        let given = j!({"a": null, "b": [null, 1]});
        assert_eq!(json(&variant(&given), ""), Ok(j!({"b": [1]})));
        assert!(!dictionary(&given).contains_key("a"));
    }
}
