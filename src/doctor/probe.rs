//! Looks at this machine: files of the kernel, one short measurement, one connection. Changes nothing,
//! and takes what cannot be seen for absent.

use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use ggml_kernels::cpu::ceiling::read_rate;
use ggml_kernels::cpu::{Crew, Pool, Tier};
use ggml_kernels::cuda::driver::{self, CudaError};

use super::machine::{Bus, Card, Disk, Door, Gpu, Machine, Memory, Processor, Socket, Units};
use crate::config::Config;
use crate::engine::room;

/// `sockets` are where a daemon may be, best first.
pub fn probe(config: &Config, sockets: &[PathBuf]) -> Machine {
    let processor = processor();
    let memory = memory(processor.usable);
    Machine {
        processor,
        memory,
        gpus: gpus(),
        card: card(),
        built_for: built_for(),
        units: units(),
        socket: socket(sockets),
        bus: bus(),
        disk: disk(&config.sessions.dir),
    }
}

fn text(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// The value after `key` and a colon, in the first line that begins with it.
fn value<'t>(text: &'t str, key: &str) -> Option<&'t str> {
    let line = text.lines().find_map(|l| l.strip_prefix(key))?;
    Some(line.trim_start().strip_prefix(':')?.trim())
}

pub fn processor() -> Processor {
    let info = text("/proc/cpuinfo");
    let usable = std::thread::available_parallelism().map_or(1, usize::from);
    let cores = info.lines().filter(|l| l.starts_with("processor")).count();
    let name = value(&info, "model name").unwrap_or(std::env::consts::ARCH);
    Processor {
        name: name.to_owned(),
        tier: Tier::detect().kind().name(),
        cores: cores.max(usable),
        usable,
    }
}

fn memory(threads: usize) -> Memory {
    let info = text("/proc/meminfo");
    let bytes = |key| {
        let kib = value(&info, key).and_then(|v| v.split_whitespace().next()?.parse::<u64>().ok());
        kib.unwrap_or(0) * 1024
    };
    let available = room::available();
    Memory {
        total: bytes("MemTotal"),
        available,
        limit: room::limit(),
        speed: speed(available, threads),
    }
}

fn speed(available: u64, threads: usize) -> Option<f64> {
    const PART: usize = 64 << 20;
    let bytes = threads * PART;
    // What is short is not used up for a measurement.
    if (bytes as u64) > available / 4 {
        return None;
    }
    let pool = Pool::new(threads);
    let crew = Crew {
        pool: &pool,
        tier: Tier::detect(),
    };
    Some(read_rate(crew, bytes))
}

fn built_for() -> Vec<&'static str> {
    let all = [
        ("cuda", cfg!(feature = "cuda")),
        ("metal", cfg!(feature = "metal")),
        ("vulkan", cfg!(feature = "vulkan")),
    ];
    let built = all.into_iter().filter(|(_, built)| *built);
    built.map(|(name, _)| name).collect()
}

fn entries(dir: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|e| e.path()).collect();
    paths.sort();
    paths
}

fn gpus() -> Vec<Gpu> {
    if cfg!(target_os = "macos") {
        return vec![Gpu {
            name: "Apple's".into(),
            by: vec!["metal"],
            memory: None,
        }];
    }
    let nvidia = entries("/proc/driver/nvidia/gpus").into_iter().map(|gpu| {
        let info = text(gpu.join("information"));
        Gpu {
            name: value(&info, "Model").unwrap_or("NVIDIA").to_owned(),
            by: vec!["cuda", "vulkan"],
            memory: None,
        }
    });
    let others = entries("/sys/class/drm").into_iter().filter_map(|card| {
        let name = card.file_name()?.to_str()?;
        let number = name.strip_prefix("card")?;
        let vendor = match text(card.join("device/vendor")).trim() {
            "0x1002" => "AMD",
            "0x8086" => "Intel",
            _ => return None,
        };
        let memory = text(card.join("device/mem_info_vram_total"));
        number.parse::<u32>().ok().map(|_| Gpu {
            name: format!("{vendor} ({name})"),
            by: vec!["vulkan"],
            memory: memory.trim().parse().ok(),
        })
    });
    nvidia.chain(others).collect()
}

/// Goes as far as the executor would: kernels that the card does not take are found out by giving
/// them to it.
fn card() -> Card {
    let mut card = Card::default();
    let mut go = || {
        card.name = Some(driver::Device::name_of(0)?);
        let kernels = card.kernels.insert(driver::find(None)?);
        let memory = driver::Device::open(0, kernels)?.memory()?;
        card.memory = Some(memory.total);
        Ok(())
    };
    let went: Result<(), CudaError> = go();
    card.why_not = went.err().map(|why| why.to_string());
    // Told without a card too: whoever puts a package together has none.
    if card.kernels.is_none() {
        card.kernels = driver::find(None).ok();
    }
    card
}

fn units() -> Units {
    let find = |kind: &str| {
        let home = std::env::var_os("HOME").map(PathBuf::from);
        let own = home.filter(|_| kind == "user");
        let own = own.map(|home| home.join(".config/systemd/user"));
        let shared = ["/etc/systemd", "/usr/local/lib/systemd", "/usr/lib/systemd"];
        let shared = shared.iter().map(|dir| Path::new(dir).join(kind));
        let files = own
            .into_iter()
            .chain(shared)
            .map(|d| d.join("deltad.socket"));
        files.into_iter().find(|file| file.exists())
    };
    let runs = Path::new("/run/systemd/system").exists();
    Units {
        systemd: runs.then(systemd_version).flatten(),
        user: find("user"),
        system: find("system"),
    }
}

/// `systemctl --version` begins with `systemd 257 (...)`.
fn systemd_version() -> Option<u32> {
    let said = Command::new("systemctl").arg("--version").output().ok()?;
    let said = String::from_utf8(said.stdout).ok()?;
    said.split_whitespace().nth(1)?.parse().ok()
}

fn socket(candidates: &[PathBuf]) -> Socket {
    let knock = |path: &PathBuf| {
        let state = match UnixStream::connect(path).map_err(|e| e.kind()) {
            Ok(_) => Door::Open,
            Err(ErrorKind::PermissionDenied) => Door::Forbidden,
            Err(ErrorKind::ConnectionRefused) => Door::Stale,
            Err(_) if may_make(path) => Door::Absent,
            Err(_) => Door::NoPlace,
        };
        let path = path.clone();
        Socket { path, state }
    };
    let tried: Vec<Socket> = candidates.iter().map(knock).collect();
    let of = |state: Door| tried.iter().find(move |s| s.state == state);
    let best = of(Door::Open)
        .or(of(Door::Forbidden))
        .or(tried.first())
        .cloned();
    best.unwrap_or(Socket {
        path: PathBuf::new(),
        state: Door::NoPlace,
    })
}

/// Whether this user may make a file there, and the directories that are missing on the way.
fn may_make(path: &Path) -> bool {
    let dirs = path.ancestors().skip(1);
    let nearest = dirs.into_iter().find(|dir| dir.is_dir());
    let rights = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
    nearest.is_some_and(|dir| rustix::fs::access(dir, rights).is_ok())
}

fn bus() -> Bus {
    let set = |name| std::env::var_os(name).filter(|v| !v.is_empty());
    let runtime = set("XDG_RUNTIME_DIR").map(|dir| Path::new(&dir).join("bus"));
    let policy = "dbus-1/system.d/org.deltad.Inference1.conf";
    let places = ["/usr/share", "/etc"].map(|dir| Path::new(dir).join(policy));
    Bus {
        user: set("DBUS_SESSION_BUS_ADDRESS").is_some() || runtime.is_some_and(|bus| bus.exists()),
        system: Path::new("/run/dbus/system_bus_socket").exists(),
        policy: places.iter().any(|file| file.exists()),
    }
}

fn disk(dir: &Path) -> Disk {
    let nearest = dir
        .ancestors()
        .find(|d| d.exists())
        .unwrap_or(Path::new("/"));
    let free = rustix::fs::statvfs(nearest).map(|s| s.f_bavail.saturating_mul(s.f_frsize));
    Disk {
        path: nearest.to_owned(),
        free: free.unwrap_or(0),
    }
}
