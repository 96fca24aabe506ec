//! What the daemon is told: one TOML file, then the flags of `deltad serve` over it. Every value is
//! read, bounded and typed here; the rooms behind get numbers that are already in range. Reads
//! files and the environment at start and at reload, and nothing else.

mod keys;
#[cfg(test)]
mod keys_tests;
pub mod units;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub use keys::{KEYS, Key};

use crate::engine::{CacheType, Device, Experts, Options};

/// The whole configuration, every value in range.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    pub model: ModelKeys,
    pub limits: LimitKeys,
    pub sessions: SessionKeys,
    pub service: ServiceKeys,
    pub desktop: DesktopKeys,
}

#[derive(Debug, Clone, PartialEq)]
pub struct ModelKeys {
    /// The GGUF file. `None` until a file or a flag names one; `serve` refuses to start without.
    pub path: Option<PathBuf>,
    pub device: Device,
    /// Layers on the device, from the first on. `None`: the whole model. `Some(0)`: none of it, which
    /// is the CPU.
    pub gpu_layers: Option<u32>,
    pub experts: Experts,
    /// `None`: every core the process may use.
    pub threads: Option<usize>,
    /// Longest conversation in tokens; `None`: what the model was trained for.
    pub context: Option<usize>,
    /// Tokens per prefill pass; `None`: what suits the device.
    pub chunk: Option<usize>,
    pub cache_type: CacheType,
}

impl ModelKeys {
    /// The same wishes in the engine's words.
    pub fn engine_options(&self) -> Options {
        Options {
            device: match self.gpu_layers {
                Some(0) => Device::Cpu,
                _ => self.device,
            },
            gpu_layers: self.gpu_layers.map(|n| n as usize),
            experts: self.experts,
            threads: self.threads,
            cache_type: self.cache_type,
            context: self.context,
            chunk: self.chunk,
            ..Options::default()
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct LimitKeys {
    /// Generations that run side by side.
    pub max_concurrent: usize,
    /// Requests that wait; one more is refused.
    pub max_queue: usize,
    /// Longest answer in tokens; `None`: what the context leaves.
    pub max_tokens: Option<usize>,
    /// Largest request body in bytes.
    pub request_bytes: u64,
    /// Bytes of one request's states; `None`: three quarters of what is available at the start.
    pub request_memory: Option<u64>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct SessionKeys {
    /// Where suspended conversations lie.
    pub dir: PathBuf,
    /// Bytes of conversation state kept in memory.
    pub memory: u64,
    /// Bytes of conversation state kept on disk.
    pub disk: u64,
    /// A conversation unused for this long goes to disk; `None`: never.
    pub idle_suspend: Option<Duration>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct ServiceKeys {
    /// The daemon ends when unused for this long (an activator starts it again); `None`: never.
    pub idle_exit: Option<Duration>,
    pub socket: PathBuf,
    /// Permission bits of the socket file.
    pub socket_mode: u32,
    /// Group that owns the socket file.
    pub socket_group: Option<String>,
    pub bus: Bus,
    /// Who may ask; with `allowed_groups` empty too: everyone who can open the socket.
    pub allowed_uids: Vec<u32>,
    /// Groups whose members may ask, by name or id.
    pub allowed_groups: Vec<String>,
    /// How long running answers may take to finish once the daemon was told to stop.
    pub drain: Duration,
}

#[derive(Debug, Clone, PartialEq)]
pub struct DesktopKeys {
    /// What a query begins with that `deltad desktop` takes for a question.
    pub word: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bus {
    User,
    System,
    None,
}

impl Default for Config {
    fn default() -> Self {
        Places::from_env().defaults()
    }
}

impl Config {
    /// The file named by `--config`, else the user's, else the machine's, else the defaults.
    /// Also returns the file that was read. Files are never merged.
    pub fn load(named: Option<&Path>) -> Result<(Config, Option<PathBuf>), ConfigError> {
        let places = Places::from_env();
        let found = match named {
            Some(path) => Some(path.to_owned()),
            None => places.files().into_iter().find(|f| f.exists()),
        };
        let Some(path) = found else {
            return Ok((places.defaults(), None));
        };
        let text = std::fs::read_to_string(&path).map_err(|e| ConfigError {
            file: path.display().to_string(),
            line: None,
            what: format!("cannot be read: {e}"),
        })?;
        let config = keys::parse(&text, places.defaults()).map_err(|(line, what)| ConfigError {
            file: path.display().to_string(),
            line,
            what,
        })?;
        Ok((config, Some(path)))
    }

    /// The defaults of a machine's service: no directory comes from the environment.
    pub fn of_a_machine() -> Config {
        Places::default().defaults()
    }

    /// A whole configuration from text, over the defaults of this process.
    pub fn from_toml(text: &str) -> Result<Config, ConfigError> {
        keys::parse(text, Config::default()).map_err(|(line, what)| ConfigError {
            file: "configuration".into(),
            line,
            what,
        })
    }

    /// The keys whose values are not those of `other`.
    pub fn differences(&self, other: &Config) -> Vec<&'static Key> {
        let changed = |k: &&Key| k.shown(self) != k.shown(other);
        KEYS.iter().filter(changed).collect()
    }

    /// The effective configuration as TOML that [`Config::from_toml`] reads back to the same value.
    pub fn to_toml(&self) -> String {
        keys::print(self)
    }
}

/// What is wrong, and where.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{file}{}: {what}", line.map(|l| format!(":{l}")).unwrap_or_default())]
pub struct ConfigError {
    pub file: String,
    /// Counted from 1.
    pub line: Option<usize>,
    pub what: String,
}

/// The directories that decide defaults, read once, so that tests need no environment.
#[derive(Debug, Clone, Default)]
struct Places {
    runtime: Option<PathBuf>,
    config: Option<PathBuf>,
    state: Option<PathBuf>,
}

impl Places {
    fn from_env() -> Places {
        let var = |name| std::env::var_os(name).filter(|v| !v.is_empty());
        let dir = |name| var(name).map(PathBuf::from);
        let home = |below: &str| dir("HOME").map(|h| h.join(below));
        Places {
            runtime: dir("XDG_RUNTIME_DIR"),
            config: dir("XDG_CONFIG_HOME").or_else(|| home(".config")),
            // systemd hands StateDirectory= over as one or more absolute paths.
            state: std::env::var("STATE_DIRECTORY")
                .ok()
                .and_then(|v| v.split(':').next().map(PathBuf::from))
                .filter(|p| !p.as_os_str().is_empty())
                .or_else(|| dir("XDG_STATE_HOME").map(|d| d.join("deltad")))
                .or_else(|| home(".local/state/deltad")),
        }
    }

    fn files(&self) -> Vec<PathBuf> {
        let user = self.config.iter().map(|c| c.join("deltad/deltad.toml"));
        user.chain([PathBuf::from("/etc/deltad/deltad.toml")])
            .collect()
    }

    fn defaults(&self) -> Config {
        let engine = Options::default();
        Config {
            model: ModelKeys {
                path: None,
                device: engine.device,
                gpu_layers: None,
                experts: engine.experts,
                threads: engine.threads,
                context: engine.context,
                chunk: engine.chunk,
                cache_type: engine.cache_type,
            },
            limits: LimitKeys {
                max_concurrent: 8,
                max_queue: 64,
                max_tokens: None,
                request_bytes: 8 << 20,
                request_memory: None,
            },
            sessions: SessionKeys {
                dir: match &self.state {
                    Some(state) => state.join("sessions"),
                    None => "/var/lib/deltad/sessions".into(),
                },
                memory: 1 << 30,
                disk: 16 << 30,
                idle_suspend: Some(Duration::from_secs(600)),
            },
            service: ServiceKeys {
                idle_exit: None,
                socket: sockets(self.runtime.as_deref()).remove(0),
                socket_mode: 0o600,
                socket_group: None,
                bus: Bus::None,
                allowed_uids: Vec::new(),
                allowed_groups: Vec::new(),
                drain: Duration::from_secs(20),
            },
            desktop: DesktopKeys { word: "ask".into() },
        }
    }
}

/// Where a daemon's socket may be, best first: the user's own, then the machine's.
pub fn socket_candidates() -> Vec<PathBuf> {
    sockets(Places::from_env().runtime.as_deref())
}

fn sockets(runtime: Option<&Path>) -> Vec<PathBuf> {
    let user = runtime.map(|r| r.join("deltad/deltad.sock"));
    user.into_iter()
        .chain([PathBuf::from("/run/deltad/deltad.sock")])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_service_uses_the_runtime_directory_and_a_system_service_run() {
        let user = Places {
            runtime: Some("/run/user/7".into()),
            ..Places::default()
        };
        assert_eq!(
            user.defaults().service.socket,
            Path::new("/run/user/7/deltad/deltad.sock")
        );
        assert_eq!(
            Places::default().defaults().service.socket,
            Path::new("/run/deltad/deltad.sock")
        );
    }

    #[test]
    fn the_users_file_is_looked_for_before_the_machines() {
        let places = Places {
            config: Some("/home/u/.config".into()),
            ..Places::default()
        };
        let files = places.files();
        assert_eq!(files[0], Path::new("/home/u/.config/deltad/deltad.toml"));
        assert_eq!(files[1], Path::new("/etc/deltad/deltad.toml"));
    }

    #[test]
    fn a_named_file_that_is_missing_is_an_error_with_its_name() {
        let e = Config::load(Some(Path::new("/nonexistent/deltad.toml"))).unwrap_err();
        assert!(
            e.to_string().starts_with("/nonexistent/deltad.toml: "),
            "{e}"
        );
    }
}
