//! The answer to a chosen question in a notification of the desktop, which grows with it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use zbus::{Connection, Variant};

use super::question::{Answer, Question, Stage};

const NAME: &str = "org.freedesktop.Notifications";
const PATH: &str = "/org/freedesktop/Notifications";
/// A notification is not changed more often.
const PACE: Duration = Duration::from_millis(400);

/// Tells until the answer's end. Without a desktop that shows notifications, nothing is told.
pub async fn tell(connection: Connection, question: Arc<Question>) {
    let mut answers = question.follow();
    let mut shown = 0;
    loop {
        let answer = answers.borrow_and_update().clone();
        shown = match show(&connection, shown, &question.text, &answer).await {
            Ok(shown) => shown,
            Err(e) => return log::warn!("no notification: {e}"),
        };
        if answer.is_over() || answers.changed().await.is_err() {
            return;
        }
        tokio::time::sleep(PACE).await;
    }
}

/// In the place of the notification `last`, which is 0 for the first.
async fn show(
    connection: &Connection,
    last: u32,
    question: &str,
    answer: &Answer,
) -> zbus::Result<u32> {
    let body = match &answer.stage {
        Stage::Failed(why) => escaped(why),
        Stage::Ended => escaped(answer.text.trim()),
        _ => format!("{}…", escaped(answer.text.trim_start())),
    };
    let (actions, hints) = (Vec::<&str>::new(), HashMap::<&str, Variant>::new());
    let icon = "dialog-question";
    let notice = ("deltad", last, icon, question, body, actions, hints, -1);
    let reply = connection
        .call_method(Some(NAME), PATH, Some(NAME), "Notify", &notice)
        .await?;
    reply.body().deserialize()
}

/// A body is markup.
fn escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    text.replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_markup_is_shown_as_it_was_written() {
        assert_eq!(escaped("a < b && c > d"), "a &lt; b &amp;&amp; c &gt; d");
    }
}
