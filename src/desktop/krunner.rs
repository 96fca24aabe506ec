//! KRunner. A match is shown when its words are there; while they are waited for, others are shown.

use std::collections::HashMap;
use std::sync::Arc;

use zbus::{Variant, interface};

use super::PATIENCE;
use super::question::{Answer, Stage};
use super::questions::Questions;

/// A match's identifier is its question.
pub struct Runner(pub Arc<Questions>);

/// Identifier, text, icon, kind, relevance and properties.
type Match = (
    String,
    String,
    &'static str,
    i32,
    f64,
    HashMap<&'static str, Variant<'static>>,
);

const ICON: &str = "dialog-question";
/// `ExactMatch`: who wrote the word meant us.
const EXACT: i32 = 100;

#[interface(name = "org.kde.krunner1", introspection_docs = false)]
impl Runner {
    #[zbus(out_args("matches"))]
    async fn r#match(&self, query: String) -> Vec<Match> {
        let Some(question) = self.0.typed(&query) else {
            return Vec::new();
        };
        let answer = question.settled(PATIENCE).await;
        if question.given_up.is_cancelled() {
            return Vec::new();
        }
        let (text, below) = words(&question.text, answer);
        let properties = HashMap::from([
            ("subtext", Variant::from(below)),
            ("multiline", Variant::from(true)),
        ]);
        vec![(question.text.clone(), text, ICON, EXACT, 1.0, properties)]
    }

    /// Nothing but choosing it can be done with an answer.
    #[zbus(out_args("actions"))]
    async fn actions(&self) -> Vec<(String, String, String)> {
        Vec::new()
    }

    async fn run(&self, match_id: String, action_id: String) {
        let _ = action_id;
        self.0.choose(&match_id);
    }

    /// The window was closed: nobody reads on.
    async fn teardown(&self) {
        self.0.typed("");
    }
}

/// The answer above its question, or what is to be done about it.
fn words(question: &str, answer: Answer) -> (String, String) {
    let above = match answer.stage {
        Stage::Failed(why) => why,
        _ if answer.text.is_empty() => "Ask deltad".into(),
        Stage::Ended => answer.text.trim().to_owned(),
        _ => format!("{}…", answer.text.trim()),
    };
    (above, question.to_owned())
}
