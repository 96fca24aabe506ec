//! Ling's calls as a grammar. Pairs of key and value come in the order of the schema, the required
//! ones always; strings keep to what the schema says of them, all else is JSON of its schema. What
//! cannot be said in this form is refused by name.

use std::collections::BTreeMap;

use llguidance::regex_to_lark;
use serde_json::{Map, Value};

use super::{KEY, VALUE, formats};
use crate::request::Token;
use crate::text::constraint::bounded;
use crate::text::markup::schemas::{Types, resolved};
use crate::text::tokenizer::Tokenizer;

/// The tags inside a call, as a grammar writes them.
pub struct Tags {
    key: [String; 2],
    value: [String; 2],
}

impl Tags {
    pub fn of(tokenizer: &Tokenizer) -> Tags {
        let tag = |tag: &str| match tokenizer.special_id(tag) {
            Some(token) => format!("<[{token}]>"),
            None => quoted(tag),
        };
        Tags {
            key: KEY.map(tag),
            value: VALUE.map(tag),
        }
    }
}

/// What says nothing of which values are valid.
const REMARKS: [&str; 14] = [
    "title",
    "description",
    "default",
    "example",
    "examples",
    "deprecated",
    "readOnly",
    "writeOnly",
    "strict",
    "$schema",
    "$id",
    "$comment",
    "$defs",
    "definitions",
];
const OF_OBJECTS: [&str; 4] = ["type", "properties", "required", "additionalProperties"];
const OF_STRINGS: [&str; 5] = ["type", "minLength", "maxLength", "pattern", "format"];

/// Rules whose `start` is calls, or one.
pub fn calls(
    [begin, end]: [Token; 2],
    tags: &Tags,
    functions: &BTreeMap<&str, Value>,
    one: bool,
) -> Result<String, String> {
    let more = if one { "" } else { " (NL? call)*" };
    let names: Vec<String> = (0..functions.len()).map(|i| format!("call_{i}")).collect();
    let mut lark = format!(
        "start: NL? call{more}\nNL: /\\n/\ncall: <[{begin}]> ({}) NL? <[{end}]>\n",
        names.join(" | ")
    );
    for (i, (name, parameters)) in functions.iter().enumerate() {
        let rules = Rules {
            tags,
            root: parameters,
            prefix: format!("f{i}"),
            lark: String::new(),
            n_terminals: 0,
            depth: 0,
        };
        let (pairs, rules) = rules.pairs().map_err(|why| format!("{name}: {why}"))?;
        let line = quoted(&format!("{name}\n"));
        lark += &format!("call_{i}: {line} {pairs}\n{rules}");
    }
    Ok(lark)
}

/// A string of a grammar.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

struct Rules<'a> {
    tags: &'a Tags,
    /// What references refer to.
    root: &'a Value,
    prefix: String,
    lark: String,
    n_terminals: usize,
    depth: usize,
}

/// Choices within choices; references may go in circles.
const DEEPEST: usize = 16;

impl Rules<'_> {
    /// The body of a call after its name, and the rules that it needs.
    fn pairs(mut self) -> Result<(String, String), String> {
        let root = self.root;
        let parameters = resolved(root, root);
        let empty = Map::new();
        let object = parameters.as_object().unwrap_or(&empty);
        known(object, &OF_OBJECTS)?;
        let properties = object.get("properties").and_then(Value::as_object);
        let properties = properties.unwrap_or(&empty);
        let required = object.get("required").and_then(Value::as_array);
        let required: Vec<&str> = required
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let any = Value::Bool(true);
        let undeclared = required.iter().filter(|n| !properties.contains_key(**n));
        let undeclared: Vec<&str> = undeclared.copied().collect();
        let declared = properties.iter().map(|(name, s)| (name.as_str(), s));
        let all = declared.chain(undeclared.into_iter().map(|name| (name, &any)));
        let mut pairs = Vec::new();
        for (i, (name, schema)) in all.enumerate() {
            if *schema == Value::Bool(false) {
                continue;
            }
            if name.is_empty() || name.trim() != name || name.contains(['<', '\n']) {
                return Err(format!(
                    "properties: the name {name:?} cannot stand between tags"
                ));
            }
            let value = self
                .value(schema)
                .map_err(|why| format!("properties.{name}: {why}"))?;
            let rule = format!("{}_p{i}", self.prefix);
            self.pair(&rule, &quoted(name), &value);
            let optional = if required.contains(&name) { "" } else { "?" };
            pairs.push(format!("{rule}{optional}"));
        }
        let others = object.get("additionalProperties");
        let is_open = others.map_or(properties.is_empty(), |o| *o != Value::Bool(false));
        if is_open {
            let value = self
                .value(others.unwrap_or(&any))
                .map_err(|why| format!("additionalProperties: {why}"))?;
            let (rule, key) = (format!("{}_more", self.prefix), self.terminal());
            let taken: Vec<String> = properties.keys().map(|name| regex::escape(name)).collect();
            let not = if taken.is_empty() {
                String::new()
            } else {
                format!(" & ~/{}/", regex_to_lark(&taken.join("|"), ""))
            };
            self.lark += &format!("{key}: /[A-Za-z_][A-Za-z0-9_.-]{{0,63}}/{not}\n");
            self.pair(&rule, &key, &value);
            pairs.push(format!("{rule}*"));
        }
        Ok((pairs.join(" "), self.lark))
    }

    fn pair(&mut self, rule: &str, key: &str, value: &str) {
        let [key_begin, key_end] = &self.tags.key;
        let value_begin = &self.tags.value[0];
        self.lark +=
            &format!("{rule}: {key_begin} {key} {key_end} NL? {value_begin} ({value}) NL?\n");
    }

    fn terminal(&mut self) -> String {
        self.n_terminals += 1;
        format!("{}_T{}", self.prefix.to_uppercase(), self.n_terminals)
    }

    /// A value with the tag that ends it.
    fn value(&mut self, schema: &Value) -> Result<String, String> {
        let schema = resolved(self.root, schema);
        let constants = match (schema.get("const"), schema["enum"].as_array()) {
            (Some(constant), _) => Some(std::slice::from_ref(constant)),
            (None, values) => values.map(Vec::as_slice),
        };
        if let Some(constants) = constants {
            return self.one_of(constants);
        }
        let types = Types::of(self.root, schema);
        if !types.string {
            return Ok(self.json(schema));
        }
        for name in ["anyOf", "oneOf"] {
            if let Some(branches) = schema[name].as_array() {
                if self.depth == DEEPEST {
                    return Err(format!("{name}: has choices within choices without end"));
                }
                self.depth += 1;
                let each = branches.iter().map(|branch| self.value(branch));
                let all = each.collect::<Result<Vec<_>, _>>()?.join(" | ");
                self.depth -= 1;
                return Ok(all);
            }
        }
        let empty = Map::new();
        let object = schema.as_object().unwrap_or(&empty);
        let all = object.get("allOf").and_then(Value::as_array);
        if let Some([only]) = all.map(Vec::as_slice)
            && only.get("allOf").is_none()
        {
            return self.value(only);
        }
        if types != Types::ALL || object.contains_key("type") {
            // Of several types, what is said of the others is theirs.
            if types.is_string_alone() {
                known(object, &OF_STRINGS)?;
            }
            let text = self.text(object)?;
            let mut others = schema.clone();
            if let Some(names) = others["type"].as_array_mut() {
                names.retain(|name| name != "string");
                return Ok(format!("{text} | {}", self.json(&others)));
            }
            return Ok(text);
        }
        known(object, &[])?;
        self.text(&empty)
    }

    fn json(&self, schema: &Value) -> String {
        let mut schema = schema.clone();
        for name in ["$defs", "definitions"] {
            if let Some((defined, map)) = self.root.get(name).zip(schema.as_object_mut()) {
                map.entry(name).or_insert_with(|| defined.clone());
            }
        }
        format!("%json {} {}", bounded(&schema), self.tags.value[1])
    }

    /// Strings as they stand, all else as JSON.
    fn one_of(&self, constants: &[Value]) -> Result<String, String> {
        let each = constants.iter().map(|constant| {
            let raw = match constant {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            if raw.contains(VALUE[1]) {
                return Err(format!("the value {raw:?} holds the tag that ends values"));
            }
            let text = if raw.is_empty() {
                String::new()
            } else {
                quoted(&raw)
            };
            Ok(format!("{text} {}", self.tags.value[1]))
        });
        Ok(each.collect::<Result<Vec<_>, _>>()?.join(" | "))
    }

    /// A raw string. Its end is part of the terminal where it is text itself, so that nothing that
    /// could go on is taken for it.
    fn text(&mut self, schema: &Map<String, Value>) -> Result<String, String> {
        let length = |name: &str| schema.get(name).and_then(Value::as_u64);
        let mut parts = vec![match (length("minLength"), length("maxLength")) {
            (None, None) => "/(?s:.*)/".to_owned(),
            (least, Some(most)) => format!("/(?s:.{{{},{most}}})/", least.unwrap_or(0)),
            (Some(least), None) => format!("/(?s:.{{{least},}})/"),
        }];
        if let Some(pattern) = schema.get("pattern").and_then(Value::as_str) {
            parts.push(format!("/{}/", regex_to_lark(&anywhere(pattern)?, "dw")));
        }
        if let Some(format) = schema.get("format").and_then(Value::as_str) {
            let Some(pattern) = formats::pattern(format) else {
                return Err(format!(
                    "format: {format:?} cannot be enforced in this model's calls"
                ));
            };
            parts.push(format!("/{}/", regex_to_lark(pattern, "dw")));
        }
        let tag = regex_to_lark(&regex::escape(VALUE[1]), "");
        parts.push(format!("~/(?s:.*{tag}.*)/"));
        let end = &self.tags.value[1];
        let (name, text) = (self.terminal(), parts.join(" & "));
        if end.starts_with('<') {
            self.lark += &format!("{name}: {text}\n");
            Ok(format!("{name} {end}"))
        } else {
            self.lark += &format!("{name}: ({text}) {end}\n");
            Ok(name)
        }
    }
}

/// A pattern that may be found anywhere, as one of the whole string.
fn anywhere(pattern: &str) -> Result<String, String> {
    let rest = pattern.strip_prefix('^');
    let begin = if rest.is_some() { "" } else { "(?s:.*)" };
    let rest = rest.unwrap_or(pattern);
    let is_escaped = rest.ends_with("\\$");
    let cut = rest.strip_suffix('$').filter(|_| !is_escaped);
    let end = if cut.is_some() { "" } else { "(?s:.*)" };
    let inner = cut.unwrap_or(rest);
    let has_anchor = begin.is_empty() || end.is_empty();
    let mut depth = 0;
    let (mut in_class, mut escaped) = (false, false);
    for c in inner.chars() {
        match c {
            _ if escaped => {
                escaped = false;
                continue;
            }
            '\\' => escaped = true,
            '[' => in_class = true,
            ']' => in_class = false,
            _ if in_class => {}
            '(' => depth += 1,
            ')' => depth -= 1,
            '^' | '$' => return Err(format!("pattern: {pattern:?} has an anchor inside")),
            // An anchor belongs to one branch alone.
            '|' if depth == 0 && has_anchor => {
                return Err(format!("pattern: {pattern:?} has an anchor in one branch"));
            }
            _ => {}
        }
    }
    Ok(format!("{begin}(?:{inner}){end}"))
}

fn known(object: &Map<String, Value>, keywords: &[&str]) -> Result<(), String> {
    let is_known =
        |name: &str| keywords.contains(&name) || REMARKS.contains(&name) || name.starts_with("x-");
    match object.keys().find(|name| !is_known(name)) {
        Some(name) => Err(format!("{name}: cannot be enforced in this model's calls")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_holds_anywhere_unless_it_is_anchored() {
        assert_eq!(anywhere("a"), Ok("(?s:.*)(?:a)(?s:.*)".into()));
        assert_eq!(
            anywhere("^a|b"),
            Err(r#"pattern: "^a|b" has an anchor in one branch"#.into())
        );
        assert_eq!(anywhere("^(a|b)$"), Ok("(?:(a|b))".into()));
        assert_eq!(anywhere(r"^a\$"), Ok(r"(?:a\$)(?s:.*)".into()));
        assert_eq!(anywhere("^[^|$]+$"), Ok("(?:[^|$]+)".into()));
        assert!(anywhere("a(^b)").is_err());
    }
}
