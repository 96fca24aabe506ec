//! A long text on its way into a session: how far it is read, and when it will be done.

use std::time::Instant;

use serde_json::{Value, json};

use super::render::{Frame, Render};
use crate::request::{Event, Failure};
use crate::service::{Receipt, Service};

pub struct Reading {
    session: Value,
    total: usize,
    /// The first figure that was told, and when: what was known from before came at once.
    since: Option<(Instant, usize)>,
}

impl Reading {
    pub fn new(session: Value, total: usize) -> Reading {
        Reading {
            session,
            total,
            since: None,
        }
    }

    /// `None` until there are two figures.
    fn seconds_left(&mut self, read: usize, now: Instant) -> Option<f64> {
        let (begun, first) = *self.since.get_or_insert((now, read));
        let done = read.checked_sub(first).filter(|n| *n > 0)?;
        let each = now.duration_since(begun).as_secs_f64() / done as f64;
        Some(each * self.total.saturating_sub(read) as f64)
    }
}

impl Render for Reading {
    fn take(&mut self, _: &Service, _: usize, event: Event) -> Result<Vec<Frame>, Failure> {
        match event {
            Event::Read(read) => {
                let left = self.seconds_left(read, Instant::now());
                let told = json!({"read": read, "of": self.total, "seconds_left": left});
                Ok(vec![Frame::named("reading", &told)])
            }
            Event::Failed(failure) => Err(failure),
            Event::Prompt(_) | Event::Delta { .. } | Event::Finished { .. } | Event::Done(..) => {
                Ok(Vec::new())
            }
        }
    }

    fn last(&mut self, _: &Service, _: &[Receipt]) -> Vec<Frame> {
        vec![Frame::named("session", &self.session)]
    }

    fn whole(&mut self, _: &Service, _: &[Receipt]) -> Value {
        self.session.take()
    }

    fn failed(&mut self, error: Value) -> Frame {
        Frame::named("error", &error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_time_left_goes_by_what_was_read_since_the_first_figure() {
        let mut reading = Reading::new(Value::Null, 1000);
        let start = Instant::now();
        assert_eq!(reading.seconds_left(500, start), None);
        let later = start + Duration::from_secs(2);
        assert_eq!(reading.seconds_left(600, later), Some(8.0));
        assert_eq!(reading.seconds_left(1000, later), Some(0.0));
    }
}
