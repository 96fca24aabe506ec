//! HTTP/1 on a Unix socket: connections, their limits and their end. What is asked on them is
//! `routes`' business.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Extension;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::body::Budget;
use super::seats::Seats;
use super::stall::Stall;
use super::{peer, routes};
use crate::request::Caller;
use crate::service::Service;

#[derive(Debug, Clone)]
pub struct Limits {
    pub request_bytes: usize,
    /// Half of them at most for one user.
    pub connections: usize,
    /// For a request's head, counted from when it is waited for: an idle connection ends then.
    pub head: Duration,
    /// For a request's body.
    pub body: Duration,
    /// For a peer that does not read.
    pub patience: Duration,
    /// Silence in a stream after which a comment says that we are still here.
    pub ping: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            request_bytes: 8 << 20,
            connections: 4096,
            head: Duration::from_secs(30),
            body: Duration::from_secs(30),
            patience: Duration::from_secs(20),
            ping: Duration::from_secs(1),
        }
    }
}

/// Longest request line and headers; hyper wants at least 8 KiB.
const HEAD_BYTES: usize = 64 << 10;

/// What the routes know: the service once the model is loaded, and the limits.
pub struct Door {
    pub service: OnceLock<Service>,
    pub limits: Limits,
    pub traffic: Traffic,
    pub(super) bodies: Budget,
}

/// Who is connected, for whoever decides whether the daemon is in use.
#[derive(Debug, Default)]
pub struct Traffic {
    pub open: AtomicUsize,
    /// Only grows.
    pub taken: AtomicU64,
}

/// One connection, counted for as long as this lives.
struct Visit(Arc<Door>);

impl Visit {
    fn begin(door: &Arc<Door>) -> Visit {
        door.traffic.open.fetch_add(1, Relaxed);
        door.traffic.taken.fetch_add(1, Relaxed);
        Visit(door.clone())
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.0.traffic.open.fetch_sub(1, Relaxed);
    }
}

impl Door {
    pub fn new(limits: Limits) -> Door {
        Door {
            service: OnceLock::new(),
            traffic: Traffic::default(),
            bodies: Budget::new(&limits),
            limits,
        }
    }
}

/// Serves until `stop`, then lets answers on their way end. Dropping the future cuts them.
pub async fn serve(listener: UnixListener, door: Arc<Door>, stop: CancellationToken) {
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
                let caller = match peer::caller(&stream) {
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
    door: Arc<Door>,
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
