//! How a request begins: with the longest state kept of its prompt, which its caller is told of, and
//! with the places where its reading will stop to keep another.

use std::collections::VecDeque;

use tokio::sync::oneshot;

use super::cuts::{Known, cuts};
use super::model::Model;
use super::running::House;
use super::{Admitted, Style};
use crate::engine::StateError;
use crate::request::{Cached, Miss};

/// The longest state kept of the prompt's beginning, or an empty one; how many tokens it has seen,
/// and how many of the prompt are known. The caller is told.
pub fn state<M: Model>(
    request: &mut Admitted,
    house: &mut House<'_, M>,
) -> Result<(M::Sequence, usize, usize), StateError> {
    let (tell, _) = oneshot::channel();
    let tell = std::mem::replace(&mut request.found, tell);
    // Scores of the prompt need all of its logits.
    if request.scores_prompt {
        return Ok((house.model.sequence()?, 0, 0));
    }
    let uid = request.caller.uid;
    let mut prefixes = house.kept.lock();
    prefixes.drop_lost(uid, &request.prompt, M::is_lost);
    let found = prefixes.find(uid, &request.prompt);
    let (known, mut miss) = (found.known, found.miss);
    if let Some(Miss::Diverged { at, message }) = &mut miss {
        let inside = request.ends.iter().find(|end| end.at > *at);
        let inside = inside.or(request.ends.last());
        *message = inside.map_or(0, |end| end.message);
    }
    // What else may be known of it was read by this one.
    if request.is_strange && miss.is_some() {
        miss = Some(Miss::OtherModel);
    }
    let found = found.state.map(|(snapshot, n)| (snapshot.clone(), n));
    // Who gives states back for want of memory does not wait for a card.
    drop(prefixes);
    let (sequence, tokens) = match found {
        Some((snapshot, n)) => (house.model.restore(&snapshot)?, n),
        None => (house.model.sequence()?, 0),
    };
    // Nothing is kept of other texts.
    if matches!(request.style, Style::Chat(_)) {
        house.stats.found(uid, miss, tokens, request.prompt.len());
        // Not every caller asks.
        let _ = tell.send(Cached { tokens, miss });
    }
    Ok((sequence, tokens, known))
}

/// Where the reading stops to keep a state. A model that rounds differently at another cut has none.
pub fn stops<M: Model>(
    request: &Admitted,
    done: usize,
    shared: usize,
    house: &House<'_, M>,
) -> VecDeque<usize> {
    let is_chat = matches!(request.style, Style::Chat(_));
    if !is_chat || request.scores_prompt || !house.model.is_batch_invariant() {
        return VecDeque::new();
    }
    let ends: Vec<usize> = request.ends.iter().map(|end| end.at).collect();
    let marks: Vec<usize> = request.marks.iter().map(|mark| mark.at).collect();
    let known = Known {
        done,
        len: request.prompt.len(),
        ends: &ends,
        shared,
        marks: &marks,
    };
    cuts(&known).into()
}
