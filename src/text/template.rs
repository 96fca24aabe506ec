//! A conversation to the text of a prompt, by the model's own Jinja template. Refuses templates that
//! fail, as the caller's error.
//!
//! The template runs over strings in which `guard` has broken every spelling of markup. In what it
//! wrote, a whole spelling is the template's own and becomes its token; after that the guard
//! characters vanish, and all the text between two tokens is tokenised together, just as the
//! reference would without the false markup.

use ggml_kernels::gguf::Metadata;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde};
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior, Value};

use super::guard::Guard;
use super::habits::Habits;
use super::python::{json_dumps, strftime};
use super::tokenizer::Tokenizer;
use crate::request::{Message, TemplateOptions, Token};

/// Kimi's own, for files that carry none.
const DEFAULT: &str = include_str!("kimi.jinja");

/// Instructions that one rendering may take: a thousand messages need about a hundred thousand.
const FUEL: u64 = 4_000_000;

/// Of stack while it runs, for values nested as deep as the fuel allows. Only what is used becomes
/// memory.
const RENDER_STACK: usize = 1 << 30;

/// Bytes of a prompt, and of a value printed as JSON: far more than any context holds, and few
/// enough that a template that escapes what it escaped, which doubles it, ends at once.
const LONGEST_TEXT: usize = 64 << 20;

/// Bytes of a template; Kimi's own has three thousand.
pub(super) const LONGEST_SOURCE: usize = 128 << 10;

/// Of stack for each byte of a template while it is compiled: an operator is one byte, and the
/// compiler calls itself for each. Only what is used becomes memory.
const STACK_PER_BYTE: usize = 4 << 10;

/// Where and why a template failed. The caller's messages caused it, or the template refused them.
#[derive(Debug, thiserror::Error)]
#[error("chat template{}: {message}", .line.map(|l| format!(", line {l}")).unwrap_or_default())]
pub struct TemplateError {
    pub message: String,
    pub line: Option<usize>,
}

impl From<Error> for TemplateError {
    fn from(e: Error) -> Self {
        let detail = e.detail().unwrap_or_default();
        let message = match (e.kind(), detail) {
            (kind, "") => kind.to_string(),
            (ErrorKind::InvalidOperation, detail) => detail.to_owned(),
            (kind, detail) => format!("{kind}: {detail}"),
        };
        TemplateError {
            message,
            line: e.line(),
        }
    }
}

pub struct ChatTemplate {
    env: Environment<'static>,
    source: String,
    guard: Guard,
    habits: Habits,
    bos: String,
    eos: String,
}

/// A rendered prompt that still knows which of its markup is real.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PromptText {
    guarded: String,
    guard: char,
}

impl PromptText {
    /// The prompt as the template meant it, for people to read: false markup looks real in it.
    pub fn to_text(&self) -> String {
        self.guarded.replace(self.guard, "")
    }

    /// Whether the template opened the model's thinking, so that the reply begins inside it.
    pub fn opens_thinking(&self) -> bool {
        self.guarded.trim_end().ends_with("<think>")
    }
}

/// The tokens of a rendered prompt: the template's markup as special tokens, all else as text.
pub fn encode_chat(tokenizer: &Tokenizer, prompt: &PromptText) -> Vec<Token> {
    encode(tokenizer, &prompt.guarded, prompt.guard)
}

/// The tokens of `prompt` behind `upto`, with whose text it begins, and the token that ends the last
/// turn of that. `None` if it begins otherwise, or no token ends that turn.
pub fn encode_behind(
    tokenizer: &Tokenizer,
    prompt: &PromptText,
    upto: &PromptText,
) -> Option<Vec<Token>> {
    let end = tokenizer.last_end(&upto.guarded)?;
    let ends = upto.guarded[end.end..].trim_ascii().is_empty();
    let begins = prompt.guard == upto.guard && prompt.guarded.starts_with(&upto.guarded);
    let rest = &prompt.guarded[end.start..];
    (ends && begins).then(|| encode(tokenizer, rest, prompt.guard))
}

fn encode(tokenizer: &Tokenizer, guarded: &str, guard: char) -> Vec<Token> {
    let mut tokens = Vec::with_capacity(guarded.len() / 3);
    tokenizer.encode_parsed(guarded, &mut tokens, |text, tokens| {
        if text.contains(guard) {
            tokenizer.encode_plain(&text.replace(guard, ""), tokens)
        } else {
            tokenizer.encode_plain(text, tokens)
        }
    });
    tokens
}

impl ChatTemplate {
    /// The file's `tokenizer.chat_template`, or Kimi's where it has none.
    pub fn from_metadata(
        meta: &Metadata,
        tokenizer: &Tokenizer,
    ) -> Result<ChatTemplate, TemplateError> {
        let source = meta.str("tokenizer.chat_template").unwrap_or(DEFAULT);
        ChatTemplate::new(source, tokenizer)
    }

    pub fn new(source: &str, tokenizer: &Tokenizer) -> Result<ChatTemplate, TemplateError> {
        let mut env = Environment::new();
        // As transformers sets its own Jinja.
        let syntax = SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build()?;
        env.set_syntax(syntax);
        env.set_undefined_behavior(UndefinedBehavior::Lenient);
        env.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        env.set_fuel(Some(FUEL));
        env.add_filter("tojson", tojson);
        env.add_function(
            "raise_exception",
            |message: String| -> Result<Value, Error> {
                Err(Error::new(ErrorKind::InvalidOperation, message))
            },
        );
        env.add_function("strftime_now", |format: String| {
            strftime(&format, std::time::SystemTime::now())
        });
        let guard = Guard::of(tokenizer, source).or_else(|e| refuse(e.to_string()))?;
        let source = source.to_owned();
        let env = compiled(env, without_training_marks(&source))?;

        let spelling = |token: Option<Token>| {
            let bytes = token.map_or(&b""[..], |t| tokenizer.token_bytes(t));
            String::from_utf8_lossy(bytes).into_owned()
        };
        let mut template = ChatTemplate {
            env,
            source,
            guard,
            habits: Habits::default(),
            bos: spelling(tokenizer.bos()),
            eos: spelling(tokenizer.eos()),
        };
        template.habits = Habits::of(&template);
        Ok(template)
    }

    /// Whether a caller can turn the model's thinking on and off.
    pub fn has_thinking_switch(&self) -> bool {
        self.habits.thinking.is_some()
    }

    /// The template's own text, for digests and for `/v1/models`.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The prompt for `messages`, with `tools` (OpenAI's tool objects) declared the way the
    /// template declares them. With `add_generation_prompt` it ends where the model's turn begins.
    pub fn render(
        &self,
        messages: &[Message],
        tools: &[serde_json::Value],
        add_generation_prompt: bool,
    ) -> Result<PromptText, TemplateError> {
        let options = TemplateOptions::default();
        self.render_with(&options, messages, tools, add_generation_prompt)
    }

    /// The same with what the caller tells the template beside them. A variable that the template
    /// does not read changes nothing.
    pub fn render_with(
        &self,
        options: &TemplateOptions,
        messages: &[Message],
        tools: &[serde_json::Value],
        add_generation_prompt: bool,
    ) -> Result<PromptText, TemplateError> {
        let mut variables = self.habits.variables(options)?;
        let mut messages = self.habits.messages(messages)?;
        let mut tools = serde_json::Value::from(tools.to_vec());
        let Some(guard) = self.guard.character(&[&messages, &tools, &variables]) else {
            return refuse("the request uses every private-use character of plane 15");
        };
        for value in [&mut messages, &mut tools, &mut variables] {
            self.guard.protect(value, guard);
        }
        let guarded = self.run(messages, tools, add_generation_prompt, variables)?;
        Ok(PromptText { guarded, guard })
    }

    pub(super) fn run(
        &self,
        messages: serde_json::Value,
        tools: serde_json::Value,
        add_generation_prompt: bool,
        variables: serde_json::Value,
    ) -> Result<String, TemplateError> {
        // Templates ask `if tools`, or `if tools is not none`: no tools are none.
        let tools = if tools.as_array().is_some_and(|t| !t.is_empty()) {
            tools
        } else {
            serde_json::Value::Null
        };
        let context = minijinja::context! {
            messages => Serde(messages), tools => Serde(tools), add_generation_prompt,
            bos_token => self.bos.as_str(), eos_token => self.eos.as_str(),
            ..Value::from(Serde(variables))
        };
        let render = || self.env.get_template("chat")?.render(context);
        let text = on_deep_stack(RENDER_STACK, render)??;
        if text.len() <= LONGEST_TEXT {
            Ok(text)
        } else {
            refuse(format!("wrote more than {LONGEST_TEXT} bytes"))
        }
    }
}

pub(super) fn refuse<T>(message: impl Into<String>) -> Result<T, TemplateError> {
    let message = message.into();
    Err(TemplateError {
        message,
        line: None,
    })
}

/// `env` with `source` as the template "chat".
fn compiled(
    mut env: Environment<'static>,
    source: String,
) -> Result<Environment<'static>, TemplateError> {
    let n = source.len();
    if n > LONGEST_SOURCE {
        return refuse(format!("has {n} bytes, want at most {LONGEST_SOURCE}"));
    }
    let compile = || env.add_template_owned("chat", source);
    on_deep_stack(n * STACK_PER_BYTE, compile)??;
    Ok(env)
}

/// minijinja calls itself for what is nested, and guards only some of those calls.
fn on_deep_stack<T: Send>(
    bytes: usize,
    work: impl FnOnce() -> T + Send,
) -> Result<T, TemplateError> {
    let builder = std::thread::Builder::new().stack_size((1 << 20) + bytes);
    std::thread::scope(|scope| match builder.spawn_scoped(scope, work) {
        Ok(thread) => thread
            .join()
            .or_else(|_| refuse("the template's engine panicked")),
        Err(e) => refuse(format!("there is no thread to run it: {e}")),
    })
}

/// `{% generation %}` marks what to train on; it means nothing here and minijinja does not know it.
fn without_training_marks(source: &str) -> String {
    let mark = |name: &str| {
        let pattern = format!(r"(\{{%[-+]?)\s*{name}\s*([-+]?%\}})");
        regex::Regex::new(&pattern).expect("a constant pattern")
    };
    let source = mark("generation").replace_all(source, "$1 if true $2");
    mark("endgeneration")
        .replace_all(&source, "$1 endif $2")
        .into_owned()
}

/// Python's `json.dumps(value, ensure_ascii=False)`, as transformers gives it to templates;
/// minijinja's own escapes `<` and `>`.
fn tojson(value: Value, options: Kwargs) -> Result<String, Error> {
    let invalid =
        |e: serde_json::Error| Error::new(ErrorKind::InvalidOperation, format!("tojson: {e}"));
    let value = serde_json::to_value(&value).map_err(invalid)?;
    let indent: Option<usize> = options.get("indent")?;
    let sort_keys: Option<bool> = options.get("sort_keys")?;
    let ensure_ascii: Option<bool> = options.get("ensure_ascii")?;
    let separators: Option<Vec<String>> = options.get("separators")?;
    let separators = separators.and_then(|s| <[String; 2]>::try_from(s).ok());
    options.assert_all_used()?;
    if ensure_ascii == Some(true) {
        let why = "tojson: ensure_ascii=True is not supported";
        return Err(Error::new(ErrorKind::InvalidOperation, why));
    }
    let text = json_dumps(&value, indent, separators, sort_keys.unwrap_or(false));
    if text.len() <= LONGEST_TEXT {
        Ok(text)
    } else {
        let why = format!("tojson: longer than {LONGEST_TEXT} bytes");
        Err(Error::new(ErrorKind::InvalidOperation, why))
    }
}
