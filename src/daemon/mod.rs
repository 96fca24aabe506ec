//! Wiring, and the order of starting and stopping. The socket is there first, so that callers queue
//! instead of failing; then the model is loaded; then readiness is told. What happens while it
//! serves is `serving`'s business.

mod ladder;
mod program;
mod resting;
mod serving;
mod watch;

use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::bus;
use crate::config::{Bus, Config, Key};
use crate::door::Door;
use crate::door::limits::CallLimits;
use crate::engine::{Engine, LoadError, Options, room};
use crate::scheduler::{self, Ended, Scheduler};
use crate::service::{self, Card, Service};
use crate::sessions::Sessions;
use crate::sessions::store::Hands;
use crate::systemd::{self, Inherited};
use crate::text::{ChatTemplate, Tokenizer};
use crate::transport::state::Http;
use crate::transport::{http, socket};
use serving::{End, Serving, Signals};

/// Everything the daemon is told.
#[derive(Debug, Clone)]
pub struct Settings {
    pub model: PathBuf,
    pub engine: Options,
    pub scheduler: scheduler::Limits,
    pub admission: service::Admission,
    /// Names or ids; looked up when the daemon starts.
    pub allowed_groups: Vec<String>,
    pub http: CallLimits,
    pub socket: PathBuf,
    pub socket_mode: u32,
    pub socket_group: Option<String>,
    pub bus: Option<bus::Which>,
    /// How long running answers may take to end once the daemon was told to stop.
    pub drain: Duration,
    /// The daemon ends when nobody used it for this long; `None`: never.
    pub idle_exit: Option<Duration>,
    /// Where conversations outlive the process, and how many bytes they may take there.
    pub sessions_dir: PathBuf,
    pub sessions_disk: u64,
    /// A conversation unused for this long leaves memory; `None`: it stays.
    pub idle_suspend: Option<Duration>,
}

impl Settings {
    /// `None` where the configuration names no model.
    pub fn of(config: &Config) -> Option<Settings> {
        let http = CallLimits {
            request_bytes: usize::try_from(config.limits.request_bytes).unwrap_or(usize::MAX),
            ..CallLimits::default()
        };
        Some(Settings {
            model: config.model.path.clone()?,
            engine: config.model.engine_options(),
            scheduler: scheduler::Limits {
                max_concurrent: config.limits.max_concurrent,
                max_queue: config.limits.max_queue,
                // Of the engine's passes, which it knows once it has a device.
                chunk: config.model.chunk.unwrap_or(1),
                prefix_bytes: usize::try_from(config.sessions.memory).unwrap_or(usize::MAX),
                request_memory: usize::try_from(
                    config
                        .limits
                        .request_memory
                        .unwrap_or_else(|| room::for_us() / 4 * 3),
                )
                .unwrap_or(usize::MAX),
                patience: http.patience,
            },
            admission: service::Admission {
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
            idle_exit: config.service.idle_exit,
            sessions_dir: config.sessions.dir.clone(),
            sessions_disk: config.sessions.disk,
            idle_suspend: config.sessions.idle_suspend,
        })
    }

    fn model_name(&self) -> String {
        let stem = self.model.file_stem();
        stem.map_or_else(|| "model".into(), |s| s.to_string_lossy().into_owned())
    }

    /// Looks the groups' names up.
    fn admission(&self) -> std::io::Result<service::Admission> {
        let groups = self.allowed_groups.iter();
        let groups = groups.map(|g| service::groups::id(g));
        Ok(service::Admission {
            allowed_groups: groups.collect::<Result<_, _>>()?,
            ..self.admission.clone()
        })
    }
}

#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    #[error("socket {0}")]
    Socket(std::io::Error),
    /// It names the file.
    #[error("model {0}")]
    Load(LoadError),
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

/// What a reload found in the configuration.
pub struct Reloaded {
    pub settings: Settings,
    /// Keys whose value differs from the one before.
    pub changed: Vec<&'static Key>,
}

/// Reads the configuration again; `Err` says what is wrong with it.
pub type Reload<'a> = dyn FnMut() -> Result<Reloaded, String> + 'a;

/// Runs until a signal, until nobody has used it for long enough, or until the engine fails.
/// `inherited`: a listener that the service manager made and keeps, and what it keeps for us.
pub fn run(
    settings: Settings,
    inherited: Inherited,
    reload: &mut Reload,
) -> Result<(), DaemonError> {
    program::keep();
    raise_descriptor_limit();
    let Inherited { listener, files } = inherited;
    let hands = resting::hands(&settings, files);
    let kept_by_manager = listener.is_some();
    let (listener, _file) = match listener {
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
    let result = runtime.block_on(serve(settings, hands, listener, kept_by_manager, reload));
    // A blocked helper thread must not hold the end back.
    runtime.shutdown_timeout(Duration::from_millis(200));
    result
}

async fn serve(
    settings: Settings,
    hands: Option<Arc<Hands>>,
    listener: UnixListener,
    kept_by_manager: bool,
    reload: &mut Reload<'_>,
) -> Result<(), DaemonError> {
    listener
        .set_nonblocking(true)
        .map_err(DaemonError::Socket)?;
    let listener = tokio::net::UnixListener::from_std(listener).map_err(DaemonError::Socket)?;
    let mut signals = Signals::new().map_err(DaemonError::Runtime)?;
    let door = Arc::new(Door::new(settings.http.clone()));
    let http = Arc::new(Http::new(door.clone()));
    let stop = CancellationToken::new();
    // The manager's socket holds callers until the model is there: who woke us gets an answer. On a
    // socket of our own they are told to wait.
    let loaded = CancellationToken::new();
    if !kept_by_manager {
        loaded.cancel();
    }
    let mut doors = tokio::spawn({
        let (http, stop, loaded) = (http.clone(), stop.clone(), loaded.clone());
        async move {
            loaded.cancelled().await;
            http::serve(listener, http, stop).await;
        }
    });
    let (service, mut ended) = tokio::select! {
        loaded = loading(&settings, hands) => loaded?,
        () = signals.stop() => return Ok(()),
    };
    let service = door.service.get_or_init(|| service);
    let presence = match settings.bus {
        None => None,
        Some(which) => tokio::select! {
            presence = bus::serve(which, door.clone()) => Some(presence?),
            () = signals.stop() => return Ok(()),
        },
    };
    loaded.cancel();
    let idle = settings
        .idle_suspend
        .filter(|_| service.sessions().has_disk());
    let resting = resting::watch(door.clone(), idle, stop.clone());
    let resting = tokio::spawn(resting);
    log::info!("ready at {}", settings.socket.display());

    let mut serving = Serving::new(&settings, service, &door, presence.as_ref());
    let result = tokio::select! {
        end = &mut ended => failed(end),
        why = serving.until_the_end(&mut signals, reload) => {
            let drain = serving.drain();
            // First of all: who comes from now on gets a fresh daemon from the manager, after us.
            systemd::stopping(drain + LAST_WORDS, why.line());
            stop.cancel();
            if let Some(presence) = &presence {
                presence.stopping().await;
            }
            if why == End::Unused {
                // Who came while we decided is still served.
                if let Some(presence) = &presence {
                    presence.withdraw().await;
                }
                tokio::select! {
                    () = serving.until_unused(drain) => {}
                    () = signals.stop() => {}
                }
            }
            // While the engine is there to give them.
            resting::save_all(&door, drain).await;
            service.stop(Instant::now() + drain);
            tokio::select! {
                end = &mut ended => failed(end),
                () = signals.stop() => {
                    service.stop(Instant::now());
                    failed(ended.await)
                }
            }
        }
    };
    stop.cancel();
    resting.abort();
    if let Some(presence) = presence {
        presence.leave(Duration::from_secs(1)).await;
    }
    // The engine tells nothing more: what was said until now is kept.
    if tokio::time::timeout(Duration::from_secs(1), http.ended())
        .await
        .is_err()
    {
        log::warn!("an answer in the background was not kept in time");
    }
    // The last events are on their way; who does not read them does not hold us.
    if !doors.is_finished()
        && tokio::time::timeout(Duration::from_secs(1), &mut doors)
            .await
            .is_err()
    {
        doors.abort();
    }
    result
}

/// For the end after the last answer: channels, sockets, threads.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// While a model is read, the manager is asked for this much more time, again and again.
const MORE_TIME: Duration = Duration::from_secs(15);
/// But not for ever. The 48B at 4 bits (30 GB) needs this long from a disk of 50 MB/s.
const LONGEST_LOAD: Duration = Duration::from_secs(600);

async fn loading(
    settings: &Settings,
    hands: Option<Arc<Hands>>,
) -> Result<(Service, Ended), DaemonError> {
    let name = settings.model_name();
    let begun = Instant::now();
    let for_loader = settings.clone();
    let mut loading = tokio::task::spawn_blocking(move || load(&for_loader, hands));
    let mut tick = tokio::time::interval(MORE_TIME / 3);
    loop {
        tokio::select! {
            loaded = &mut loading => {
                return match loaded {
                    Ok(loaded) => loaded,
                    Err(panic) => Err(DaemonError::Engine(panic.to_string())),
                };
            }
            _ = tick.tick() => {
                let spent = begun.elapsed();
                let line = format!("loading {name} ({} s)", spent.as_secs());
                if spent < LONGEST_LOAD {
                    systemd::extend(MORE_TIME, &line);
                } else {
                    systemd::status(&line);
                }
            }
        }
    }
}

fn failed(
    end: Result<Result<(), String>, tokio::sync::oneshot::error::RecvError>,
) -> Result<(), DaemonError> {
    match end {
        Ok(said) => said.map_err(DaemonError::Engine),
        Err(_) => Err(DaemonError::Engine("its thread vanished".into())),
    }
}

fn load(settings: &Settings, hands: Option<Arc<Hands>>) -> Result<(Service, Ended), DaemonError> {
    let limits = settings.admission().map_err(DaemonError::Group)?;
    let path = &settings.model;
    let bad = |why: String| DaemonError::Model {
        path: path.clone(),
        why,
    };
    let engine = Engine::open(path, &settings.engine).map_err(DaemonError::Load)?;
    let model = engine.model();
    let meta = model.metadata();
    let tokenizer = Tokenizer::from_metadata(meta).map_err(|e| bad(e.to_string()))?;
    let template = ChatTemplate::from_metadata(meta, &tokenizer).map_err(|e| bad(e.to_string()))?;
    let card = Card {
        id: settings.model_name(),
        n_vocab: model.n_vocab(),
        context: model.context(),
    };
    let sessions = Sessions::new(resting::lasting(settings, hands, model));
    let tokenizer = Arc::new(tokenizer);
    let limits_of_passes = scheduler::Limits {
        chunk: engine.chunk(),
        ..settings.scheduler.clone()
    };
    let (scheduler, ended) = Scheduler::start(engine, tokenizer.clone(), limits_of_passes)
        .map_err(DaemonError::Runtime)?;
    Ok((
        Service::new(card, limits, tokenizer, template, scheduler, sessions),
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
