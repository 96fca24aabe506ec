//! What the commands print: answers on standard output, remarks on standard error.

use std::io::IsTerminal;

use super::{Answer, ClientError, Said};
use crate::stdio;

/// The pieces of one answer as they come: its text on standard output; its thoughts on standard
/// error where a person sits there, and nowhere else.
#[derive(Default)]
pub struct Pieces {
    thinking: bool,
}

impl Pieces {
    pub fn show(&mut self, said: Said<'_>) -> Result<(), ClientError> {
        match said {
            Said::Thought(text) => {
                if std::io::stderr().is_terminal() {
                    self.thinking = true;
                    stdio::whisper(grey(&harmless(text)));
                }
                Ok(())
            }
            Said::Text(text) => {
                self.end_thoughts();
                piece(text)
            }
        }
    }

    fn end_thoughts(&mut self) {
        if std::mem::take(&mut self.thinking) {
            stdio::whisper("\n");
        }
    }

    /// Ends the text's line; then each tool call on a line of its own, as `name arguments`, which a
    /// shell's `read -r name arguments` takes apart.
    pub fn end(mut self, answer: &Answer) -> Result<(), ClientError> {
        self.end_thoughts();
        if !answer.text.is_empty() || answer.tool_calls.is_empty() {
            line("")?;
        }
        for call in &answer.tool_calls {
            let said = |value: &serde_json::Value| value.as_str().unwrap_or("?").replace('\n', " ");
            let function = &call["function"];
            line(&format!(
                "{} {}",
                said(&function["name"]),
                said(&function["arguments"])
            ))?;
        }
        if answer.finish.as_deref() == Some("length") {
            note(if answer.text.is_empty() && !answer.reasoning.is_empty() {
                "the model still thought when it reached the limit on tokens: \
                 raise --max-tokens, or ask with --no-think"
            } else {
                "the answer was cut: it reached the limit on tokens"
            });
        }
        Ok(())
    }
}

/// Text at once.
fn piece(text: &str) -> Result<(), ClientError> {
    let text = if std::io::stdout().is_terminal() {
        harmless(text)
    } else {
        text.to_owned()
    };
    stdio::print(text).map_err(ClientError::Output)
}

pub fn line(text: &str) -> Result<(), ClientError> {
    piece(&format!("{text}\n"))
}

/// A remark to the person; grey where that can be seen.
pub fn note(text: &str) {
    stdio::remark(grey(&format!("[{text}]")));
}

fn grey(text: &str) -> String {
    if std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none() {
        format!("\x1b[90m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}

/// How far a long text is read, on a terminal's one line that is written again and again.
pub struct Progress {
    bar: indicatif::ProgressBar,
}

impl Progress {
    pub fn new() -> Progress {
        let style = indicatif::ProgressStyle::with_template("{bar:30} {pos}/{len} tokens{msg}");
        let bar = indicatif::ProgressBar::new(0);
        // A constant template that the test below holds.
        bar.set_style(style.unwrap_or_else(|_| indicatif::ProgressStyle::default_bar()));
        Progress { bar }
    }

    /// What the daemon told: `read`, `of`, `seconds_left`.
    pub fn tell(&mut self, told: &serde_json::Value) {
        let count = |name: &str| told[name].as_u64().unwrap_or(0);
        self.bar.set_length(count("of"));
        self.bar.set_position(count("read"));
        if let Some(left) = told["seconds_left"].as_f64() {
            self.bar.set_message(format!(", {left:.0} s left"));
        }
    }

    pub fn end(self) {
        self.bar.finish_and_clear();
    }
}

/// What a model says must not move the cursor or colour the screen.
fn harmless(text: &str) -> String {
    let shown = |c: char| {
        if c.is_control() && c != '\n' && c != '\t' {
            char::REPLACEMENT_CHARACTER
        } else {
            c
        }
    };
    text.chars().map(shown).collect()
}

/// Reading speed needs the time to the first piece, and counts what was not kept from before;
/// writing speed counts the tokens after the first, over the time after the first.
pub fn speed(answer: &Answer) -> String {
    let usage = answer.usage.as_ref();
    let count = |path: &str| usage.and_then(|u| u.pointer(path)?.as_u64()).unwrap_or(0);
    let (prompt, written) = (count("/prompt_tokens"), count("/completion_tokens"));
    let kept = count("/prompt_tokens_details/cached_tokens");
    let kept = match kept {
        0 => String::new(),
        n => format!(" ({n} of them known from before)"),
    };
    let first = answer.first.unwrap_or(answer.total);
    let rest = (answer.total - first).as_secs_f64();
    let rate = match written {
        0 | 1 => String::new(),
        n => format!(", {:.0} a second", (n - 1) as f64 / rest.max(1e-9)),
    };
    format!(
        "{prompt} tokens in{kept}, first word after {:.0} ms, {written} tokens out{rate}",
        first.as_secs_f64() * 1e3
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::time::Duration;

    #[test]
    fn writing_speed_leaves_out_the_first_token() {
        let answer = Answer {
            usage: Some(json!({"prompt_tokens": 5, "completion_tokens": 11,
                "prompt_tokens_details": {"cached_tokens": 3}})),
            first: Some(Duration::from_secs(1)),
            total: Duration::from_secs(3),
            ..Answer::default()
        };
        assert_eq!(
            speed(&answer),
            "5 tokens in (3 of them known from before), first word after 1000 ms, \
             11 tokens out, 5 a second"
        );
    }

    #[test]
    fn escape_sequences_of_a_model_do_not_reach_a_terminal() {
        assert_eq!(harmless("a\x1b[2Jb\r\n\tc"), "a\u{fffd}[2Jb\u{fffd}\n\tc");
    }
}
