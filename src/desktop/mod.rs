//! `deltad desktop`: GNOME Shell's search and KRunner ask the model, for queries that begin with a chosen
//! word. A program of its own on the user's bus: it knows the daemon by its name there and nothing
//! of this crate, keeps no query, and ends when nobody searches.
//!
//! A keystroke never starts the daemon and never loads a model. A query that has stood for a moment
//! is asked if the daemon is there and ready; otherwise it is offered, and asked when it is chosen.

mod daemon;
mod gnome;
mod krunner;
mod notice;
mod question;
mod questions;

use std::sync::Arc;
use std::time::Duration;

use zbus::Connection;
use zbus::fdo::RequestNameFlags;

use questions::Questions;

const NAME: &str = "org.deltad.Desktop1";
const PATH: &str = "/org/deltad/Desktop1";
/// Without a query for so long, the program ends; the bus starts it again.
const IDLE: Duration = Duration::from_secs(120);
/// How long a shell waits for the answer before it shows what there is.
const PATIENCE: Duration = Duration::from_secs(8);

#[derive(Debug, thiserror::Error)]
pub enum DesktopError {
    #[error("the session bus cannot be reached: {0}")]
    Unreachable(zbus::Error),
    #[error("another program owns the name {NAME}")]
    NameTaken,
    #[error("{0}")]
    Bus(#[from] zbus::Error),
}

/// Serves both shells until nobody searches. `word` is what a query begins with.
pub async fn run(word: String) -> Result<(), DesktopError> {
    let built = zbus::connection::Builder::session().build().await;
    let connection = built.map_err(DesktopError::Unreachable)?;
    let questions = Arc::new(Questions::new(&connection, word).await?);
    let server = connection.object_server();
    server.at(PATH, gnome::Provider(questions.clone())).await?;
    server.at(PATH, krunner::Runner(questions.clone())).await?;
    take_name(&connection).await?;
    loop {
        questions.unused_for(IDLE).await;
        // Calls that were sent to the name before are here already, since the bus keeps the order.
        connection.release_name(NAME).await?;
        tokio::time::sleep(Duration::from_millis(100)).await;
        if questions.is_unused_for(IDLE) {
            return Ok(());
        }
        take_name(&connection).await?;
    }
}

async fn take_name(connection: &Connection) -> Result<(), DesktopError> {
    let flags = RequestNameFlags::DO_NOT_QUEUE;
    match connection.request_name_with_flags(NAME, flags).await {
        Ok(_) => Ok(()),
        Err(zbus::Error::NameTaken) => Err(DesktopError::NameTaken),
        Err(e) => Err(e.into()),
    }
}
