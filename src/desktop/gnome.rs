//! GNOME Shell's search. Its results cannot grow once they are shown: their words are waited for.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::future::join_all;
use zbus::{Variant, interface};

use super::PATIENCE;
use super::question::{Answer, Question, Stage};
use super::questions::Questions;

/// A result's identifier is its question.
pub struct Provider(pub Arc<Questions>);

type Meta = HashMap<&'static str, Variant<'static>>;

impl Provider {
    fn results(&self, terms: &[String]) -> Vec<String> {
        let question = self.0.typed(&terms.join(" "));
        question.iter().map(|q| q.text.clone()).collect()
    }
}

#[interface(name = "org.gnome.Shell.SearchProvider2", introspection_docs = false)]
impl Provider {
    #[zbus(out_args("results"))]
    async fn get_initial_result_set(&self, terms: Vec<String>) -> Vec<String> {
        self.results(&terms)
    }

    /// A longer query has no fewer answers: each is another question.
    #[zbus(out_args("results"))]
    async fn get_subsearch_result_set(
        &self,
        previous_results: Vec<String>,
        terms: Vec<String>,
    ) -> Vec<String> {
        let _ = previous_results;
        self.results(&terms)
    }

    #[zbus(out_args("metas"))]
    async fn get_result_metas(&self, identifiers: Vec<String>) -> Vec<Meta> {
        let metas = identifiers.iter().map(async |id| {
            let question = self.0.stands(id);
            meta(&question, question.settled(PATIENCE).await)
        });
        join_all(metas).await
    }

    async fn activate_result(&self, identifier: String, terms: Vec<String>, timestamp: u32) {
        let _ = (terms, timestamp);
        self.0.choose(&identifier);
    }

    async fn launch_search(&self, terms: Vec<String>, timestamp: u32) {
        let _ = timestamp;
        if let Some(question) = self.0.typed(&terms.join(" ")) {
            self.0.choose(&question.text);
        }
    }
}

fn meta(question: &Question, answer: Answer) -> Meta {
    let id = question.text.clone();
    let (name, description) = match &answer.stage {
        Stage::Failed(why) => (id.clone(), why.clone()),
        _ if answer.text.is_empty() => ("Ask deltad".into(), id.clone()),
        Stage::Ended => (id.clone(), answer.text.trim().to_owned()),
        _ => (id.clone(), format!("{}…", answer.text.trim())),
    };
    let mut meta = Meta::from([
        ("id", id.into()),
        ("name", name.into()),
        ("description", description.into()),
    ]);
    // The shell copies it when the result is chosen.
    if answer.stage == Stage::Ended {
        meta.insert("clipboardText", answer.text.trim().to_owned().into());
    }
    meta
}
