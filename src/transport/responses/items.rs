//! The items of answers that are kept, by their ids.

use serde_json::{Value, json};

use super::answer::{INDEX, item_id, stored};
use crate::service::{Service, Turn};

/// What a kept answer was asked, each with an id.
pub fn stored_input(kept: &Turn) -> Vec<Value> {
    let items = kept.face["input"].as_array().into_iter().flatten();
    let named = items.enumerate().map(|(i, item)| {
        let mut item = item.clone();
        if let Value::Object(fields) = &mut item {
            fields.entry("type").or_insert(json!("message"));
            fields
                .entry("id")
                .or_insert(json!(item_id("in_", &kept.id, i)));
        }
        item
    });
    named.collect()
}

/// An item that was told of an answer that is kept, or that it was asked.
pub fn stored_item(service: &Service, uid: u32, id: &str) -> Option<Value> {
    let kept = service.sessions().answer(uid, &answer_of(id)?).ok()?.turn;
    let output = match stored(service, &kept)["output"].take() {
        Value::Array(items) => items,
        _ => Vec::new(),
    };
    let mut items = output.into_iter().chain(stored_input(&kept));
    items.find(|item| item["id"] == id)
}

/// The answer that gave an item its id.
fn answer_of(item: &str) -> Option<String> {
    let (_, own) = item.split_once('_')?;
    let own = own.get(..own.len().checked_sub(INDEX)?)?;
    Some(format!("resp_{own}"))
}
