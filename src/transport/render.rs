//! What every wire format does with a request's events: frames of a stream, or one whole body.

use axum::response::sse::Event as SseEvent;
use serde_json::Value;

use crate::request::{Event, Failure};
use crate::service::{Receipt, Service};

/// One server-sent event.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    name: Option<&'static str>,
    data: String,
}

impl Frame {
    pub fn plain(data: impl ToString) -> Frame {
        let data = data.to_string();
        Frame { name: None, data }
    }

    pub fn named(name: &'static str, data: &Value) -> Frame {
        Frame {
            name: Some(name),
            data: data.to_string(),
        }
    }

    /// What it takes in memory, about.
    pub fn bytes(&self) -> usize {
        self.data.len() + std::mem::size_of::<Frame>()
    }

    pub fn into_event(self) -> SseEvent {
        let event = match self.name {
            Some(name) => SseEvent::default().event(name),
            None => SseEvent::default(),
        };
        event.data(self.data)
    }
}

/// One answer on its way to one body or stream.
pub trait Render: Send {
    /// The frames that an event of the body's `prompt`-th request makes.
    fn take(
        &mut self,
        service: &Service,
        prompt: usize,
        event: Event,
    ) -> Result<Vec<Frame>, Failure>;
    /// What ends a stream, once every request is done and what is to be kept is kept.
    fn last(&mut self, service: &Service, kept: &[Receipt]) -> Vec<Frame>;
    /// Instead of frames, at the same moment.
    fn whole(&mut self, service: &Service, kept: &[Receipt]) -> Value;
    /// A failure in mid-stream, from OpenAI's envelope of it. Nothing follows.
    fn failed(&mut self, error: Value) -> Frame;
}
