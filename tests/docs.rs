//! What the code reads and answers is in `docs/`, by name.

use std::collections::BTreeSet;
use std::path::Path;

use deltad::config::KEYS;
use serde_json::Value;

fn text(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The first group of every match of `pattern` in the code of a file, its tests left out.
fn found(path: &str, pattern: &str) -> BTreeSet<String> {
    let code = text(path);
    let code = code.split("#[cfg(test)]").next().unwrap_or_default();
    let pattern = regex::Regex::new(pattern).expect("a constant pattern");
    let names = pattern.captures_iter(code).map(|c| c[1].to_owned());
    names.collect()
}

fn missing(names: &BTreeSet<String>, document: &str) -> Vec<String> {
    let document = text(document);
    let absent = |name: &&String| {
        let name = regex::escape(name);
        // Alone in code, or a word of a longer piece of code, such as `{"type": "text"}`.
        let pattern = format!("`[^`\n]*\\b{name}\\b[^`\n]*`");
        let pattern = regex::Regex::new(&pattern).expect("a name in a constant pattern");
        !pattern.is_match(&document)
    };
    names.iter().filter(absent).cloned().collect()
}

#[test]
fn every_field_that_http_reads_is_documented() {
    let reads = r#"(?:\b(?:get|boolean|string|number|count|integer|array|object|need)|\bor|\bstrings)\(\s*(?:&\w+,\s*)?"(\w+)""#;
    for (file, least) in [
        ("door/chat", 20),
        ("door/messages", 8),
        ("transport/openai", 8),
        ("transport/responses/read", 14),
        ("transport/messages/read", 14),
        ("transport/routes", 4),
        ("transport/sessions", 8),
    ] {
        let names = found(&format!("src/{file}.rs"), reads);
        assert!(names.len() >= least, "{file}: only {names:?}");
        assert_eq!(missing(&names, "docs/http.md"), [""; 0], "{file}.rs");
    }
}

#[test]
fn every_error_code_and_every_route_of_http_is_documented() {
    let mut names = BTreeSet::new();
    for file in ["error", "routes", "body"] {
        let path = format!("src/transport/{file}.rs");
        names.extend(found(
            &path,
            r#"(?:Some\(|SERVICE_UNAVAILABLE, |INTERNAL_SERVER_ERROR, )"([a-z_]+)"\)"#,
        ));
    }
    assert!(names.len() >= 12, "only {names:?}");
    assert_eq!(missing(&names, "docs/http.md"), [""; 0]);
    let routes = found("src/transport/routes.rs", r#"\.route\(\s*"([^"{]+[^"{/])"#);
    assert!(routes.len() >= 9, "only {routes:?}");
    let document = text("docs/http.md");
    let absent: Vec<&String> = routes.iter().filter(|r| !document.contains(*r)).collect();
    assert_eq!(absent, [""; 0]);
}

#[test]
fn the_keys_that_a_reload_changes_are_the_ones_that_are_said_to() {
    let document = text("docs/systemd.md");
    let section = document.split("\n## Reload\n").nth(1).expect("a section");
    let said = section.split("At once in force:").nth(1).expect("a list");
    let said = said.split(". ").next().unwrap_or_default();
    let said: BTreeSet<String> = said
        .split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect();
    let live = KEYS.iter().filter(|k| k.live).map(|k| k.path());
    assert_eq!(said, live.collect());
}

/// The steps in the order of their first mention after `from`.
fn in_order(text: &str, from: &str, steps: &[&'static str]) -> Vec<&'static str> {
    let text = text
        .split(from)
        .nth(1)
        .unwrap_or_else(|| panic!("no {from:?}"));
    let place = |step: &&'static str| text.find(step).unwrap_or_else(|| panic!("no {step}"));
    let mut steps = steps.to_vec();
    steps.sort_by_key(place);
    steps
}

/// `src/sampler/mod.rs` lists its steps in its head, and its own tests hold the code against the list.
#[test]
fn the_samplers_steps_are_told_in_the_order_that_the_code_takes_them() {
    let steps = [
        "mask",
        "logit_bias",
        "repetition",
        "frequency",
        "presence",
        "temperature",
        "top_k",
        "top_p",
        "min_p",
        "draw",
    ];
    let code = in_order(&text("src/sampler/mod.rs"), "Order,", &steps);
    let told = in_order(&text("docs/http.md"), "Sampling takes these steps", &steps);
    assert_eq!(told, code);
}

#[test]
fn which_model_for_which_memory_is_told_as_doctor_tells_it() {
    let page = deltad::doctor::catalog::page();
    assert!(
        text("README.md").contains(&page),
        "README.md does not have:\n{page}"
    );
}

#[test]
fn what_few_bits_make_of_the_largest_model_is_told_as_its_shape_says() {
    let page = deltad::doctor::catalog::page_of_low();
    assert!(
        text("README.md").contains(&page),
        "README.md does not have:\n{page}"
    );
}

#[test]
fn the_changes_of_this_version_are_told_first() {
    let changes = text("CHANGELOG.md");
    let mut heads = changes.lines().filter_map(|l| l.strip_prefix("## "));
    let newest = heads.find(|v| v.starts_with(|c: char| c.is_ascii_digit()));
    let newest = newest.expect("a version").split([',', ' ']).next();
    assert_eq!(newest, Some(env!("CARGO_PKG_VERSION")));
}

fn description() -> Value {
    serde_json::from_str(&text("docs/openapi.json")).expect("JSON")
}

/// Every object in a document, with its parent's keys.
fn objects<'a>(value: &'a Value, each: &mut impl FnMut(&'a serde_json::Map<String, Value>)) {
    match value {
        Value::Object(map) => {
            each(map);
            map.values().for_each(|v| objects(v, each));
        }
        Value::Array(items) => items.iter().for_each(|v| objects(v, each)),
        _ => {}
    }
}

#[test]
fn the_description_for_programs_has_the_routes_that_there_are() {
    let code = text("src/transport/routes.rs");
    let method = regex::Regex::new(r"\b(get|post|delete)\(").expect("a constant pattern");
    let mut served = BTreeSet::new();
    for route in code.split(".route(").skip(1) {
        let route = route.split(".fallback(").next().unwrap_or_default();
        let path = route.split('"').nth(1).expect("a path").replace("{*", "{");
        for way in method.captures_iter(route) {
            served.insert((path.clone(), way[1].to_owned()));
        }
    }
    assert!(served.len() >= 11, "only {served:?}");
    let document = description();
    let mut told = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for method in methods.as_object().expect("methods").keys() {
            told.insert((path.clone(), method.clone()));
        }
    }
    assert_eq!(told, served);
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn the_description_for_programs_has_the_fields_that_are_read_and_no_others() {
    let document = description();
    let schemas = document["components"]["schemas"]
        .as_object()
        .expect("schemas");
    let reads = r#"(?:\b(?:get|boolean|string|number|count|integer|array|object|need|at_least_one|texts|content)|\bor|\bstrings)\(\s*(?:&\w+,\s*)?"(\w+)""#;
    let mut read = BTreeSet::new();
    for file in [
        "door/chat",
        "door/messages",
        "transport/openai",
        "transport/responses/read",
        "transport/messages/read",
        "transport/routes",
        "transport/sessions",
    ] {
        read.extend(found(&format!("src/{file}.rs"), reads));
    }
    let mut told = BTreeSet::new();
    for map in schemas.values() {
        objects(map, &mut |o| {
            let names = o.get("properties").and_then(Value::as_object);
            told.extend(names.into_iter().flat_map(|p| p.keys().cloned()));
        });
    }
    let untold: Vec<&String> = read.difference(&told).collect();
    assert_eq!(untold, [""; 0]);
    // The first level of each body, where a name that nobody reads would mislead most. One that is
    // refused may only be null; the model is ignored, and metadata is repeated.
    for body in ["Chat", "Completion", "Response", "Messages", "Tokenize"] {
        let properties = schemas[&format!("{body}Request")]["properties"].as_object();
        let fictions = properties
            .expect("properties")
            .iter()
            .filter(|(name, schema)| {
                let apart =
                    ["model", "metadata"].contains(&name.as_str()) || schema["type"] == "null";
                !apart && !read.contains(*name)
            });
        let fictions: Vec<&String> = fictions.map(|(name, _)| name).collect();
        assert_eq!(fictions, [""; 0], "{body}");
    }
}

#[test]
fn every_reference_in_the_description_for_programs_leads_somewhere() {
    let document = description();
    let mut references = 0;
    objects(&document, &mut |o| {
        if let Some(Value::String(to)) = o.get("$ref") {
            references += 1;
            let to = to.strip_prefix('#').expect("within the document");
            assert!(document.pointer(to).is_some(), "{to}");
        }
    });
    assert!(references > 100, "only {references}");
}
