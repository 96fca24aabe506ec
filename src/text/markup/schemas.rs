//! What JSON schemas say of the types that a value may have. For markup that writes strings raw: there
//! alone the type decides how a value is read and written.

use serde_json::Value;

/// References are followed so far and no further: they may go in circles.
const DEEPEST: usize = 16;

/// JSON's types that a value may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Types {
    pub string: bool,
    pub number: bool,
    pub boolean: bool,
    pub null: bool,
    pub array: bool,
    pub object: bool,
}

impl Types {
    pub const ALL: Types = Types {
        string: true,
        number: true,
        boolean: true,
        null: true,
        array: true,
        object: true,
    };

    /// Of a value that validates against `schema`, which refers to `root`; too many where the
    /// schema does not say it plainly.
    pub fn of(root: &Value, schema: &Value) -> Types {
        Types::within(root, schema, 0)
    }

    fn within(root: &Value, schema: &Value, depth: usize) -> Types {
        let schema = resolved(root, schema);
        if depth > DEEPEST {
            return Types::ALL;
        }
        let of_values = |values: &mut dyn Iterator<Item = &Value>| {
            values.fold(Types::default(), |all, v| all.or(Types::of_value(v)))
        };
        if let Some(constant) = schema.get("const") {
            return Types::of_value(constant);
        }
        if let Some(values) = schema["enum"].as_array() {
            return of_values(&mut values.iter());
        }
        let mut types = match &schema["type"] {
            Value::String(name) => Types::default().with(name),
            Value::Array(names) => {
                let names = names.iter().filter_map(Value::as_str);
                names.fold(Types::default(), |all, name| all.with(name))
            }
            _ => Types::ALL,
        };
        for name in ["anyOf", "oneOf"] {
            if let Some(branches) = schema[name].as_array() {
                let branches = branches.iter().map(|b| Types::within(root, b, depth + 1));
                types = types.and(branches.fold(Types::default(), Types::or));
            }
        }
        for part in schema["allOf"].as_array().into_iter().flatten() {
            types = types.and(Types::within(root, part, depth + 1));
        }
        types
    }

    /// The one type of a value.
    pub fn of_value(value: &Value) -> Types {
        Types::default().with(match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        })
    }

    fn with(mut self, name: &str) -> Types {
        match name {
            "string" => self.string = true,
            "number" | "integer" => self.number = true,
            "boolean" => self.boolean = true,
            "null" => self.null = true,
            "array" => self.array = true,
            "object" => self.object = true,
            _ => {}
        }
        self
    }

    fn zip(self, other: Types, f: impl Fn(bool, bool) -> bool) -> Types {
        Types {
            string: f(self.string, other.string),
            number: f(self.number, other.number),
            boolean: f(self.boolean, other.boolean),
            null: f(self.null, other.null),
            array: f(self.array, other.array),
            object: f(self.object, other.object),
        }
    }

    fn or(self, other: Types) -> Types {
        self.zip(other, |a, b| a | b)
    }

    pub fn and(self, other: Types) -> Types {
        self.zip(other, |a, b| a & b)
    }

    pub fn is_none(self) -> bool {
        self == Types::default()
    }

    pub fn is_string_alone(self) -> bool {
        self == Types::default().with("string")
    }
}

/// What a schema refers to, itself where it refers to nothing that is there.
pub fn resolved<'a>(root: &'a Value, mut schema: &'a Value) -> &'a Value {
    for _ in 0..DEEPEST {
        let reference = schema["$ref"].as_str().and_then(|r| r.strip_prefix('#'));
        match reference.and_then(|pointer| root.pointer(pointer)) {
            Some(found) => schema = found,
            None => break,
        }
    }
    schema
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_schema_says_which_types_a_value_may_have() {
        let root = json!({"$defs": {"a": {"type": "integer"}, "b": {"$ref": "#/$defs/b"}}});
        let of = |schema: Value| Types::of(&root, &schema);
        let with = |names: &[&str]| names.iter().fold(Types::default(), |t, n| t.with(n));
        assert!(of(json!({"type": "string", "maxLength": 3})).is_string_alone());
        assert!(of(json!({"enum": ["a", "b"]})).is_string_alone());
        assert_eq!(
            of(json!({"enum": ["a", 1, null]})),
            with(&["string", "number", "null"])
        );
        assert_eq!(
            of(json!({"type": ["string", "null"]})),
            with(&["string", "null"])
        );
        assert_eq!(of(json!({"$ref": "#/$defs/a"})), with(&["number"]));
        let optional = json!({"anyOf": [{"$ref": "#/$defs/a"}, {"type": "null"}]});
        assert_eq!(of(optional), with(&["number", "null"]));
        let all = json!({"allOf": [{"type": ["string", "array"]}, {"type": "string"}]});
        assert!(of(all).is_string_alone());
        assert_eq!(of(json!({"const": {}})), with(&["object"]));
        for open in [json!({}), json!(true), json!({"$ref": "#/$defs/b"})] {
            assert_eq!(of(open), Types::ALL);
        }
    }
}
