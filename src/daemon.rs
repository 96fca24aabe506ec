//! Wiring, and the order of starting and stopping. The socket is there first, so that callers queue
//! instead of failing; then the model is loaded; then readiness is told.

use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::bus;
use crate::config::{Bus, Config};
use crate::engine::{Engine, Model, Options};
use crate::scheduler::{self, Ended, Scheduler};
use crate::service::{self, Card, Service};
use crate::text::{ChatTemplate, Tokenizer};
use crate::transport::{http, socket};

/// Everything the daemon is told.
#[derive(Debug, Clone)]
pub struct Settings {
    pub model: PathBuf,
    pub engine: Options,
    pub scheduler: scheduler::Limits,
    pub service: service::Limits,
    /// Names or ids; looked up when the daemon starts.
    pub allowed_groups: Vec<String>,
    pub http: http::Limits,
    pub socket: PathBuf,
    pub socket_mode: u32,
    pub socket_group: Option<String>,
    pub bus: Option<bus::Which>,
    /// How long running answers may take to end once the daemon was told to stop.
    pub drain: Duration,
}

impl Settings {
    /// `None` where the configuration names no model.
    pub fn of(config: &Config) -> Option<Settings> {
        let http = http::Limits {
            request_bytes: usize::try_from(config.limits.request_bytes).unwrap_or(usize::MAX),
            ..http::Limits::default()
        };
        Some(Settings {
            model: config.model.path.clone()?,
            engine: config.model.engine_options(),
            scheduler: scheduler::Limits {
                max_concurrent: config.limits.max_concurrent,
                max_queue: config.limits.max_queue,
                chunk: config.model.chunk,
                prefix_bytes: usize::try_from(config.sessions.memory).unwrap_or(usize::MAX),
                patience: http.patience,
            },
            service: service::Limits {
                max_tokens: config.limits.max_tokens,
                allowed_uids: config.service.allowed_uids.clone(),
                allowed_groups: Vec::new(),
            },
            allowed_groups: config.service.allowed_groups.clone(),
            http,
            socket: config.service.socket.clone(),
            socket_mode: config.service.socket_mode,
            socket_group: config.service.socket_group.clone(),
            bus: match config.service.bus {
                Bus::None => None,
                Bus::User => Some(bus::Which::User),
                Bus::System => Some(bus::Which::System),
            },
            drain: config.service.drain,
        })
    }
}

#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    #[error("socket {0}")]
    Socket(std::io::Error),
    #[error("model {}: {why}", path.display())]
    Model { path: PathBuf, why: String },
    #[error("allowed_groups: {0}")]
    Group(std::io::Error),
    #[error("D-Bus: {0}")]
    Bus(#[from] bus::BusError),
    #[error("the runtime cannot start: {0}")]
    Runtime(std::io::Error),
    #[error("the engine has failed: {0}")]
    Engine(String),
}

/// Runs until a signal, or until the engine fails. `inherited` is a listener that the service
/// manager made and keeps. `ready` is called once, when the first question can be answered.
pub fn run(
    settings: Settings,
    inherited: Option<UnixListener>,
    ready: impl FnOnce(),
) -> Result<(), DaemonError> {
    raise_descriptor_limit();
    let (listener, _file) = match inherited {
        Some(listener) => (listener, None),
        None => {
            let group = settings.socket_group.as_deref();
            let bound = socket::bind(&settings.socket, settings.socket_mode, group);
            let (listener, file) = bound.map_err(DaemonError::Socket)?;
            (listener, Some(file))
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        // Sockets are all it does; the cores are the engine's.
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(DaemonError::Runtime)?;
    let result = runtime.block_on(serve(settings, listener, ready));
    // A blocked helper thread must not hold the end back.
    runtime.shutdown_timeout(Duration::from_millis(200));
    result
}

async fn serve(
    settings: Settings,
    listener: UnixListener,
    ready: impl FnOnce(),
) -> Result<(), DaemonError> {
    listener
        .set_nonblocking(true)
        .map_err(DaemonError::Socket)?;
    let listener = tokio::net::UnixListener::from_std(listener).map_err(DaemonError::Socket)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(DaemonError::Runtime)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(DaemonError::Runtime)?;
    let mut told = async || {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };

    let door = Arc::new(http::Door::new(settings.http.clone()));
    let stop = CancellationToken::new();
    let mut doors = tokio::spawn(http::serve(listener, door.clone(), stop.clone()));
    let (drain, bus) = (settings.drain, settings.bus);
    let loading = tokio::task::spawn_blocking(move || load(&settings));
    let (service, ended) = tokio::select! {
        loaded = loading => match loaded {
            Ok(loaded) => loaded?,
            Err(panic) => return Err(DaemonError::Engine(panic.to_string())),
        },
        () = told() => return Ok(()),
    };
    let service = door.service.get_or_init(|| service);
    let presence = match bus {
        None => None,
        Some(which) => tokio::select! {
            presence = bus::serve(which, door.clone()) => Some(presence?),
            () = told() => return Ok(()),
        },
    };
    ready();

    let mut ended = ended;
    let result = tokio::select! {
        end = &mut ended => failed(end),
        () = told() => {
            stop.cancel();
            if let Some(presence) = &presence {
                presence.stopping().await;
            }
            service.stop(Instant::now() + drain);
            tokio::select! {
                end = &mut ended => failed(end),
                () = told() => {
                    service.stop(Instant::now());
                    failed(ended.await)
                }
            }
        }
    };
    stop.cancel();
    if let Some(presence) = presence {
        presence.leave(Duration::from_secs(1)).await;
    }
    // The last events are on their way; who does not read them does not hold us.
    if tokio::time::timeout(Duration::from_secs(1), &mut doors)
        .await
        .is_err()
    {
        doors.abort();
    }
    result
}

fn failed(
    end: Result<Result<(), String>, tokio::sync::oneshot::error::RecvError>,
) -> Result<(), DaemonError> {
    match end {
        Ok(said) => said.map_err(DaemonError::Engine),
        Err(_) => Err(DaemonError::Engine("its thread vanished".into())),
    }
}

fn load(settings: &Settings) -> Result<(Service, Ended), DaemonError> {
    let groups = settings.allowed_groups.iter();
    let groups = groups
        .map(|g| service::groups::id(g))
        .collect::<Result<_, _>>();
    let limits = service::Limits {
        allowed_groups: groups.map_err(DaemonError::Group)?,
        ..settings.service.clone()
    };
    let path = &settings.model;
    let bad = |why: String| DaemonError::Model {
        path: path.clone(),
        why,
    };
    let model = Model::open(path, &settings.engine).map_err(|e| bad(e.to_string()))?;
    let meta = model.metadata();
    let tokenizer = Tokenizer::from_metadata(meta).map_err(|e| bad(e.to_string()))?;
    let template = ChatTemplate::from_metadata(meta, &tokenizer).map_err(|e| bad(e.to_string()))?;
    let stem = path.file_stem().map(|s| s.to_string_lossy().into_owned());
    let card = Card {
        id: stem.unwrap_or_else(|| "model".into()),
        n_vocab: model.n_vocab(),
        context: model.context(),
    };
    let engine = Engine::new(model, &settings.engine).map_err(|e| bad(e.to_string()))?;
    let tokenizer = Arc::new(tokenizer);
    let (scheduler, ended) =
        Scheduler::start(engine, tokenizer.clone(), settings.scheduler.clone())
            .map_err(DaemonError::Runtime)?;
    Ok((
        Service::new(card, limits, tokenizer, template, scheduler),
        ended,
    ))
}

/// A thousand idle connections need a thousand descriptors; the usual soft limit is 1024.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(e) = setrlimit(Resource::Nofile, limit) {
        log::debug!("the limit on open files stays as it is: {e}");
    }
}
