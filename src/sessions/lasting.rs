//! What outlives the process: turns as the store keeps them, and back. A disk that fails costs
//! durability, said aloud and shown on the conversation, and never an answer.

use std::borrow::Borrow;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::answer::Answer;
use super::conversation::{About, Conversation, Ending, Turn};
use super::ids::id_of;
use super::replay::{Key, Replays};
use super::store::{self, Differs, Digest, Durable, Hands, Id, Identity, InHands, Store};

use crate::request::{Message, TemplateOptions, Token, Usage};

/// Where conversations lie beyond the process.
#[derive(Debug, Clone)]
pub enum Place {
    /// Below this directory.
    Disk(PathBuf),
    /// In memory, which somebody hands to the next process.
    Hands(Arc<Hands>),
}

/// Where conversations lie, and what they belong to.
#[derive(Debug, Clone)]
pub struct Lasting {
    pub place: Place,
    pub quota: store::Quota,
    pub identity: Identity,
    /// The model's name, for people.
    pub model: String,
}

/// A session on disk that could not be taken up.
#[derive(Debug, Clone)]
pub struct Untaken {
    pub id: String,
    pub name: Option<String>,
    pub turns: usize,
    pub why: String,
    /// Ids of its answers, as far as it can be read.
    pub(super) answers: Vec<String>,
    pub(super) on_disk: Id,
}

/// Turns whose tokens are remembered from before, of each conversation: its end and a few forks.
const REMEMBERED: usize = 4;

/// What a turn's record says of it, beside its tokens.
#[derive(Serialize, Deserialize)]
struct Said {
    input: Vec<Message>,
    answer: Option<Answer>,
}

#[derive(Serialize, Deserialize)]
struct Around {
    created: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ended: Option<u64>,
    ending: Ending,
    usage: Usage,
    before: Vec<Message>,
    tools: Vec<Value>,
    options: TemplateOptions,
    face: Value,
}

/// What a session's record says of it, beside its name.
#[derive(Serialize, Deserialize)]
struct Note {
    created: u64,
    held: bool,
    fixed: bool,
    settings: Value,
    forgotten: Vec<String>,
    /// The name of the model that it was made with.
    #[serde(default)]
    model: String,
}

impl Lasting {
    /// `None`, said aloud: this user's conversations live in memory.
    pub(super) fn open(&self, uid: u32) -> Option<Store> {
        let opened = match &self.place {
            Place::Disk(dir) => Store::open(dir, uid, self.quota),
            Place::Hands(hands) => {
                let hands = hands.clone();
                Store::on(Box::new(InHands { hands, uid }), uid, self.quota)
            }
        };
        let said = |e: &store::StoreError| {
            log::error!("conversations of user {uid} do not outlive the daemon: {e}");
        };
        opened.inspect_err(said).ok()
    }

    /// Users who have conversations there.
    pub(super) fn users(&self) -> Vec<u32> {
        let dir = match &self.place {
            Place::Disk(dir) => dir,
            Place::Hands(hands) => return hands.users(),
        };
        let Ok(entries) = std::fs::read_dir(dir) else {
            return Vec::new();
        };
        let names = entries.filter_map(|e| e.ok()?.file_name().into_string().ok());
        names.filter_map(|name| name.parse().ok()).collect()
    }

    /// Everything of one user; what cannot be taken up is said aloud and stays as it is.
    pub(super) fn load(
        &self,
        uid: u32,
        store: &Store,
        replays: &Replays,
    ) -> (Vec<Conversation>, Vec<Untaken>) {
        let (mut found, mut untaken) = (Vec::new(), Vec::new());
        for listed in store.list() {
            match take_up(uid, store, &self.identity, &listed, replays) {
                Ok(conversation) => found.push(conversation),
                Err(why) => {
                    let why = self.said(&why, &listed);
                    let name = listed.name.as_deref().unwrap_or("without a name");
                    log::warn!("session {} ({name}) of user {uid}: {why}", listed.id);
                    untaken.push(Untaken {
                        answers: strange(uid, store, &listed, replays),
                        id: id_of(&listed.id),
                        name: listed.name,
                        turns: listed.turns,
                        why,
                        on_disk: listed.id,
                    });
                }
            }
        }
        (found, untaken)
    }

    /// A refusal for people: models by their names, too, and two of one name by what they are.
    fn said(&self, why: &store::Refusal, listed: &store::Listed) -> String {
        let store::Refusal::Other(Differs::Model { got, want }) = why else {
            return why.to_string();
        };
        let note: Option<Note> = serde_json::from_str(&listed.note).ok();
        let was = note.map(|n| n.model).filter(|name| !name.is_empty());
        let was = was.map_or("one without a name".to_owned(), |name| format!("{name:?}"));
        let begins = |digest: &Digest| digest.to_string()[..8].to_owned();
        let (got, want, is) = (begins(got), begins(want), &self.model);
        format!(
            "the session was made with another model, {was} ({got}); this one is {is:?} ({want})"
        )
    }
}

/// The ids of the answers in a session that is not taken up, as far as it can be read. Who sends such
/// a conversation as text is told why nothing of it is there.
fn strange(uid: u32, store: &Store, listed: &store::Listed, replays: &Replays) -> Vec<String> {
    let turns = store.turns(&listed.id).unwrap_or_default();
    let turns: Vec<Turn> = turns.iter().filter_map(read).collect();
    for at in 0..turns.len() {
        if let Some((key, answer)) = answered(uid, &turns, at, replays) {
            replays.keep_strange(uid, key, &answer);
        }
    }
    let answers = turns.into_iter().filter(|t| t.answer.is_some());
    answers.map(|t| t.id).collect()
}

/// The answer of that turn as a message, and what stands for all that came before it.
fn answered<T: Borrow<Turn>>(
    uid: u32,
    turns: &[T],
    at: usize,
    replays: &Replays,
) -> Option<(Key, Message)> {
    let turn: &Turn = turns[at].borrow();
    let answer = turn.answer.as_ref()?.message();
    let history = turns[..at].iter().flat_map(|t| t.borrow().messages());
    let mut messages = turn.before.clone();
    messages.extend(history);
    messages.extend(turn.input.iter().cloned());
    let keys = replays.keys(uid, &turn.options, &turn.tools, &messages);
    Some((*keys.last()?, answer))
}

/// A conversation from disk, for the model of that identity.
pub(super) fn take_up(
    uid: u32,
    store: &Store,
    identity: &Identity,
    listed: &store::Listed,
    replays: &Replays,
) -> Result<Conversation, store::Refusal> {
    let opened = store.read(&listed.id, identity)?;
    let taken = conversation(listed, opened, store);
    remember(uid, &taken, replays);
    Ok(taken)
}

fn conversation(listed: &store::Listed, opened: store::Opened, store: &Store) -> Conversation {
    let note: Option<Note> = serde_json::from_str(&listed.note).ok();
    let mut made = Conversation::new(About::default(), Vec::new());
    made.about.name = listed.name.clone();
    made.about.lasting = true;
    if let Some(note) = note {
        made.created = note.created;
        made.about.held = note.held;
        made.about.fixed = note.fixed;
        made.about.settings = note.settings;
        made.forgotten = note.forgotten.into_iter().collect();
    }
    for turn in &opened.turns {
        if let Some(read) = read(turn) {
            made.turns.push(Arc::new(read));
            made.marks.push(turn.kept + turn.tokens.len());
        }
    }
    made.tokens = opened.tokens;
    if let Some(cut) = put_together(&opened.partial) {
        // What was said before the process was killed was said.
        let known = made.tokens.len();
        let kept = store.turn(&listed.id, &written(&cut, known, &[]));
        made.durable = kept.is_ok();
        made.marks.push(known);
        made.turns.push(Arc::new(cut));
    }
    made.on_disk = Some(listed.id);
    made.saved = store.saved(&listed.id);
    made.away = true;
    made
}

/// For whoever sends such a conversation back as text.
fn remember(uid: u32, conversation: &Conversation, replays: &Replays) {
    let n = conversation.turns.len();
    let marks = &conversation.marks;
    for at in n.saturating_sub(REMEMBERED)..n {
        // The tokens of a turn that was cut off by a kill are not known, and it ends where the one before
        // it does: without it they would stand for it.
        if at > 0 && marks[at] == marks[at - 1] {
            continue;
        }
        let tokens = conversation.tokens.get(..marks[at]);
        let Some(tokens) = tokens.filter(|tokens| !tokens.is_empty()) else {
            continue;
        };
        if let Some((key, answer)) = answered(uid, &conversation.turns, at, replays) {
            let id = Some(conversation.turns[at].id.clone());
            replays.keep(uid, key, &answer, tokens.to_vec(), id);
        }
    }
}

/// `model`: the name of the one that it is made with.
pub(super) fn note(conversation: &Conversation, model: &str) -> String {
    let note = Note {
        created: conversation.created,
        held: conversation.about.held,
        fixed: conversation.about.fixed,
        settings: conversation.about.settings.clone(),
        forgotten: conversation.forgotten.iter().cloned().collect(),
        model: model.to_owned(),
    };
    serde_json::to_string(&note).unwrap_or_default()
}

/// What a session's record says of it, for one that begins here and now: held, and with no answer
/// forgotten.
pub(super) fn fresh_note(about: &About, model: &str) -> String {
    note(&Conversation::new(about.clone(), Vec::new()), model)
}

/// What a note says, of a session that comes from elsewhere; a note that says nothing is no harm.
pub(super) fn about(note: &str) -> About {
    let note: Option<Note> = serde_json::from_str(note).ok();
    About {
        name: None,
        held: true,
        lasting: true,
        fixed: note.as_ref().is_some_and(|n| n.fixed),
        settings: note.map_or(Value::Null, |n| n.settings),
    }
}

/// `kept`: so many tokens of the conversation before are its beginning, `new` come behind them.
pub(super) fn written(turn: &Turn, kept: usize, new: &[Token]) -> store::Turn {
    let said = Said {
        input: turn.input.clone(),
        answer: turn.answer.clone(),
    };
    let around = Around {
        created: turn.created,
        ended: turn.ended,
        ending: turn.ending,
        usage: turn.usage,
        before: turn.before.clone(),
        tools: turn.tools.clone(),
        options: turn.options.clone(),
        face: turn.face.clone(),
    };
    store::Turn {
        response: turn.id.clone(),
        messages: serde_json::to_string(&said).unwrap_or_default(),
        kept,
        tokens: new.to_vec(),
        options: serde_json::to_string(&around).unwrap_or_default(),
        at: 0,
    }
}

pub(super) fn is_readable(turn: &store::Turn) -> bool {
    read(turn).is_some()
}

/// `None` for what another version wrote otherwise.
fn read(turn: &store::Turn) -> Option<Turn> {
    let said: Said = serde_json::from_str(&turn.messages).ok()?;
    let around: Around = serde_json::from_str(&turn.options).ok()?;
    Some(Turn {
        id: turn.response.clone(),
        created: around.created,
        ended: around.ended,
        input: said.input,
        answer: said.answer,
        ending: around.ending,
        usage: around.usage,
        before: around.before,
        tools: around.tools,
        options: around.options,
        face: around.face,
    })
}

/// A turn that was cut off, from its pieces; `None` if nothing was said.
fn put_together(pieces: &[store::Turn]) -> Option<Turn> {
    let mut pieces = pieces.iter().filter_map(read);
    let mut turn = pieces.next()?;
    let mut all = turn.answer.take().unwrap_or_default();
    for more in pieces.filter_map(|p| p.answer) {
        all.append(more);
    }
    turn.ending = Ending::Cut;
    (!all.is_empty()).then(|| Turn {
        answer: Some(all),
        ..turn
    })
}

/// A turn at a conversation's end. `None`, said aloud, if it is only in memory.
pub(super) fn append(
    store: &Store,
    id: &Id,
    before: &[Token],
    turn: &Turn,
    tokens: &[Token],
) -> Option<Durable> {
    let pairs = before.iter().zip(tokens);
    let kept = if tokens.is_empty() {
        // Not known, and not other than before.
        before.len()
    } else {
        pairs.take_while(|(a, b)| a == b).count()
    };
    let record = written(turn, kept, tokens.get(kept..).unwrap_or_default());
    let done = store.turn(id, &record);
    let said = |e: &store::StoreError| log::error!("session {id}: a turn is only in memory: {e}");
    done.inspect_err(said).ok()
}
