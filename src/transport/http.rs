//! HTTP/1 on a Unix socket: connections, their limits and their end. What is asked on them is
//! `routes`' business.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::routes;
use super::seats::Seats;
use super::stall::Stall;
use super::state::{Http, Visit};
use crate::door::caller;
use crate::request::Caller;

/// Longest request line and headers; hyper wants at least 8 KiB.
const HEAD_BYTES: usize = 64 << 10;

/// Serves until `stop`, then lets answers on their way end. Dropping the future cuts them.
pub async fn serve(listener: UnixListener, door: Arc<Http>, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(door.limits.connections));
    let seats = Seats::default();
    let router = routes::router(door.clone());
    let mut connections = JoinSet::new();
    loop {
        let place = places.clone().acquire_owned();
        let accepted = async {
            let place = place.await;
            (listener.accept().await, place)
        };
        let (accepted, place) = tokio::select! {
            () = stop.cancelled() => break,
            accepted = accepted => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, _)) => {
                let caller = match caller::of(&stream) {
                    Ok(caller) => caller,
                    Err(e) => {
                        log::warn!("a caller without credentials: {e}");
                        continue;
                    }
                };
                let Some(seat) = seats.take(caller.uid, door.limits.connections) else {
                    log::warn!("user {} has too many connections", caller.uid);
                    continue;
                };
                let visit = Visit::begin(&door);
                let router = router.clone();
                let connection = connection(stream, caller, router, door.clone(), stop.clone());
                connections.spawn(async move {
                    connection.await;
                    drop((seat, place, visit));
                });
            }
            // Out of descriptors, most likely: those in use must come back first.
            Err(e) => {
                log::warn!("a connection could not be taken: {e}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn connection(
    stream: UnixStream,
    caller: Caller,
    router: axum::Router,
    door: Arc<Http>,
    stop: CancellationToken,
) {
    let service = TowerToHyperService::new(router.layer(Extension(caller)));
    let io = TokioIo::new(Stall::new(stream, door.limits.patience));
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(door.limits.head)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(io, service);
    let mut connection = std::pin::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(e) = result {
        log::debug!("a connection ended: {e}");
    }
}
