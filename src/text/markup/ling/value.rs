//! One argument's value, from the raw text between its tags to JSON. A value that can only be a
//! string is said as it comes; any other is known when it has ended.

use serde_json::Value;

use crate::text::markup::schemas::Types;
use crate::text::utf8_stream::TextStream;

pub struct ValueReader {
    types: Types,
    text: TextStream,
    /// Of a value that may be no string: all of it so far.
    held: String,
    begun: bool,
}

impl ValueReader {
    pub fn of(types: Types) -> ValueReader {
        ValueReader {
            types,
            text: TextStream::new(&[]),
            held: String::new(),
            begun: false,
        }
    }

    /// JSON that is certain with these bytes.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        let text = self.text.push(bytes).text;
        self.take(&text)
    }

    /// The rest, with the last bytes.
    pub fn end(&mut self, bytes: &[u8]) -> String {
        let text = self.text.push(bytes).text + &self.text.finish().text;
        let mut json = self.take(&text);
        if self.types.is_string_alone() {
            json.push('"');
        } else {
            json.push_str(&self.json());
        }
        json
    }

    /// What there is of a value that did not come to its end: nothing, unless it is a string.
    pub fn cut(mut self, bytes: &[u8]) -> String {
        let text = self.text.push(bytes).text + &self.text.finish().text;
        self.take(&text)
    }

    fn take(&mut self, text: &str) -> String {
        if !self.types.is_string_alone() {
            self.held.push_str(text);
            return String::new();
        }
        let quote = if std::mem::replace(&mut self.begun, true) {
            ""
        } else {
            "\""
        };
        let escaped = Value::from(text).to_string();
        // Without the quotes that every piece would have of its own.
        quote.to_owned() + &escaped[1..escaped.len() - 1]
    }

    /// What was held, as the types allow: as JSON where it is such, else as a string.
    fn json(&self) -> String {
        let trimmed = self.held.trim();
        let is_allowed = |value: &Value| {
            // A string stands raw: what has quotes has them in it.
            !value.is_string() && !Types::of_value(value).and(self.types).is_none()
        };
        if serde_json::from_str(trimmed).is_ok_and(|value: Value| is_allowed(&value)) {
            return trimmed.to_owned();
        }
        // Models that were taught much Python write its constants.
        let constant = match trimmed {
            "True" => Value::Bool(true),
            "False" => Value::Bool(false),
            "None" => Value::Null,
            _ => Value::from(self.held.as_str()),
        };
        if is_allowed(&constant) {
            constant.to_string()
        } else {
            Value::from(self.held.as_str()).to_string()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(schema: Value, text: &str) -> String {
        let mut reader = ValueReader::of(Types::of(&schema, &schema));
        let mut out = String::new();
        for byte in text.bytes() {
            out += &reader.push(&[byte]);
        }
        out + &reader.end(b"")
    }

    #[test]
    fn a_string_is_raw_and_all_else_is_json() {
        let string = json!({"type": "string"});
        assert_eq!(
            read(string.clone(), "a \"b\"\n\\ é🙂"),
            r#""a \"b\"\n\\ é🙂""#
        );
        assert_eq!(read(string.clone(), "5"), "\"5\"");
        assert_eq!(read(string, ""), "\"\"");
        assert_eq!(read(json!({"type": "integer"}), "\n5 "), "5");
        assert_eq!(read(json!({"type": "array"}), "[1, 2.0]"), "[1, 2.0]");
        assert_eq!(read(json!({"type": "boolean"}), "True"), "true");
    }

    #[test]
    fn what_may_be_a_string_is_one_where_it_is_nothing_else_that_is_allowed() {
        let maybe = json!({"type": ["string", "null"]});
        assert_eq!(read(maybe.clone(), "null"), "null");
        assert_eq!(read(maybe.clone(), "5"), "\"5\"");
        assert_eq!(read(maybe, "None"), "null");
        assert_eq!(read(json!({}), "{\"a\": 1}"), "{\"a\": 1}");
        assert_eq!(read(json!({}), "None of it"), "\"None of it\"");
        assert_eq!(read(json!({}), "\"quoted\""), r#""\"quoted\"""#);
        assert_eq!(read(json!({"type": "integer"}), "five"), "\"five\"");
    }

    #[test]
    fn a_string_is_said_as_it_comes_and_bytes_that_are_no_text_are_replaced() {
        let string = json!({"type": "string"});
        let mut reader = ValueReader::of(Types::of(&string, &string));
        assert_eq!(reader.push(b"a"), "\"a");
        assert_eq!(reader.push(b"b\xc3"), "b");
        assert_eq!(reader.push(b"\xa9\xff"), "é\u{fffd}");
        assert_eq!(reader.end(b"c"), "c\"");
    }
}
