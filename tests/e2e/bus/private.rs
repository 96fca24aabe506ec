//! A bus of one test's own, a daemon on it, and calls to that daemon.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd as StdFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use zbus::{Connection, DBusError, Message, OwnedFd, OwnedObjectPath, OwnedVariant, Variant};

use crate::daemon::{Daemon, command, demo, home, home_with, until};

pub const NAME: &str = "org.deltad.Inference1";
pub const PATH: &str = "/org/deltad/Inference1";
pub type Options = HashMap<&'static str, Variant<'static>>;
pub type Dictionary = HashMap<String, OwnedVariant>;

pub struct PrivateBus {
    child: Child,
    pub address: String,
    /// Holds the socket.
    _dir: tempfile::TempDir,
}

impl Drop for PrivateBus {
    fn drop(&mut self) {
        // It may have been stopped already, which is fine here.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl PrivateBus {
    pub fn start() -> PrivateBus {
        PrivateBus::start_with("", "")
    }

    /// A bus that runs `exec` for whoever calls `service` first.
    pub fn start_with(service: &str, exec: &str) -> PrivateBus {
        let dir = tempfile::tempdir().expect("a directory");
        // Other users may connect: a session bus keeps them out, the system bus does not.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(dir.path(), open).expect("ours");
        let socket = dir.path().join("bus");
        let services = dir.path().join("services");
        std::fs::create_dir(&services).expect("a directory");
        if !service.is_empty() {
            let text = format!("[D-BUS Service]\nName={service}\nExec={exec}\n");
            let file = services.join(format!("{service}.service"));
            std::fs::write(file, text).expect("a file");
        }
        let config = format!(
            "<busconfig><type>session</type><listen>unix:path={}</listen><auth>EXTERNAL</auth>\
             <servicedir>{}</servicedir>\
             <policy context='default'><allow user='*'/><allow send_destination='*' eavesdrop='true'/>\
             <allow eavesdrop='true'/><allow own='*'/></policy></busconfig>",
            socket.display(),
            services.display()
        );
        let file = dir.path().join("bus.conf");
        std::fs::write(&file, config).expect("a file");
        let child = Command::new("dbus-daemon")
            .arg(format!("--config-file={}", file.display()))
            .args(["--nofork", "--nopidfile"])
            .stderr(Stdio::null())
            .spawn()
            .expect("dbus-daemon: scripts/deps.sh installs it");
        until("a bus", || socket.exists().then_some(()));
        PrivateBus {
            child,
            address: format!("unix:path={}", socket.display()),
            _dir: dir,
        }
    }

    pub fn stop(&mut self) {
        self.child.kill().expect("it lives");
        self.child.wait().expect("it ends");
    }

    pub async fn connect(&self) -> Connection {
        let builder = zbus::connection::Builder::address(self.address.as_str());
        builder.build().await.expect("a connection")
    }

    /// A daemon with the tiny checkpoint, whose answers are noise without end.
    pub fn serve(&self, extra: &str) -> Daemon {
        self.run(home(extra))
    }

    /// A daemon with the demo model, whose answers make sense.
    pub fn serve_demo(&self) -> Daemon {
        self.run(home_with(&demo("model"), "q4_k_m", ""))
    }

    pub fn command(&self, home: &Path, socket: &Path) -> Command {
        let mut command = command(home, socket);
        command
            .args(["--bus", "user"])
            .env("DBUS_SESSION_BUS_ADDRESS", &self.address);
        command
    }

    fn run(&self, home: tempfile::TempDir) -> Daemon {
        self.run_with(home, |_| {})
    }

    /// A daemon that is started somewhat otherwise.
    pub fn run_with(&self, home: tempfile::TempDir, how: impl Fn(&mut Command)) -> Daemon {
        let mut daemon = Daemon::of(home, |home, socket| {
            let mut command = self.command(home, socket);
            how(&mut command);
            command.spawn().expect("the daemon")
        });
        self.wait_ready(&mut daemon);
        daemon
    }

    fn wait_ready(&self, daemon: &mut Daemon) {
        daemon.wait_ready();
        until("the name", || {
            let owned = self.tool(
                "gdbus",
                &["introspect", "--session", "-d", NAME, "-o", PATH],
            );
            owned.0.then_some(())
        });
    }

    /// Another daemon in the place of one that has ended.
    pub fn again(&self, daemon: &mut Daemon) {
        daemon.wait();
        let mut command = self.command(daemon.home.path(), &daemon.socket);
        daemon.child = command.spawn().expect("the daemon");
        self.wait_ready(daemon);
    }

    /// Runs a desktop's tool on this bus: whether it succeeded, and all that it said.
    pub fn tool(&self, program: &str, args: &[&str]) -> (bool, String) {
        let output = Command::new(program)
            .args(args)
            .env("DBUS_SESSION_BUS_ADDRESS", &self.address)
            .stdin(Stdio::null())
            .output()
            .unwrap_or_else(|e| panic!("{program}: {e}; scripts/deps.sh installs it"));
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        (output.status.success(), said)
    }
}

/// One client's view of the daemon.
pub struct Client(pub Connection);

impl Client {
    pub async fn call<B>(
        &self,
        path: &str,
        interface: &str,
        method: &str,
        body: &B,
    ) -> Result<Message, (String, String)>
    where
        B: serde::Serialize + zbus::DynamicType,
    {
        let interface = if interface.contains('.') {
            interface.to_owned()
        } else {
            format!("{NAME}.{interface}")
        };
        let call = self
            .0
            .call_method(Some(NAME), path, Some(interface.as_str()), method, body);
        match tokio::time::timeout(Duration::from_secs(120), call).await {
            Err(_) => panic!("{method} does not answer"),
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(zbus::Error::MethodError(name, text, _))) => {
                Err((name.to_string(), text.unwrap_or_default()))
            }
            Ok(Err(zbus::Error::FDO(e))) => {
                let text = e.description().unwrap_or_default().to_owned();
                Err((e.name().to_string(), text))
            }
            Ok(Err(other)) => panic!("{method}: {other}"),
        }
    }

    pub async fn chat(&self, text: &str, options: Options) -> (OwnedObjectPath, Reader) {
        let body = (vec![message(text)], options);
        let reply = self.call(PATH, "Manager", "Chat", &body).await;
        opened(reply.expect("an answer"))
    }

    pub async fn create(&self, options: Options) -> OwnedObjectPath {
        let reply = self
            .call(PATH, "Manager", "CreateSession", &(options,))
            .await;
        let reply = reply.expect("a session");
        reply.body().deserialize().expect("a path")
    }

    pub async fn send(
        &self,
        session: &str,
        text: &str,
        options: Options,
    ) -> Result<(OwnedObjectPath, Reader), (String, String)> {
        let reply = self
            .call(session, "Session", "Send", &(text, options))
            .await;
        reply.map(opened)
    }

    pub async fn get(&self, path: &str, interface: &str, property: &str) -> OwnedVariant {
        let body = (format!("{NAME}.{interface}"), property);
        let properties = "org.freedesktop.DBus.Properties";
        let reply = self.call(path, properties, "Get", &body).await;
        reply
            .expect("a property")
            .body()
            .deserialize()
            .expect("a value")
    }

    pub async fn count(&self, path: &str, interface: &str, property: &str) -> u32 {
        let value = self.get(path, interface, property).await;
        u32::try_from(value).expect("a number")
    }

    pub async fn objects(&self) -> Vec<String> {
        let manager = "org.freedesktop.DBus.ObjectManager";
        let reply = self.call(PATH, manager, "GetManagedObjects", &()).await;
        let reply = reply.expect("objects");
        let body = reply.body();
        let objects: HashMap<OwnedObjectPath, HashMap<String, Dictionary>> =
            body.deserialize().expect("objects");
        objects.keys().map(|p| p.to_string()).collect()
    }
}

pub fn message(text: &str) -> Options {
    Options::from([("role", "user".into()), ("content", text.to_owned().into())])
}

/// An answer that goes on until somebody stops it.
pub fn endless() -> Options {
    Options::from([
        ("ignore_eos", true.into()),
        ("max_tokens", 100_000u32.into()),
    ])
}

pub fn short(n: u32) -> Options {
    Options::from([("ignore_eos", true.into()), ("max_tokens", n.into())])
}

fn opened(reply: Message) -> (OwnedObjectPath, Reader) {
    let body = reply.body();
    let (path, events): (OwnedObjectPath, OwnedFd) = body.deserialize().expect("a descriptor");
    (path, Reader::new(events))
}

/// The lines of a descriptor.
pub struct Reader(BufReader<std::fs::File>);

impl Reader {
    fn new(events: OwnedFd) -> Reader {
        let fd: StdFd = events.into();
        Reader(BufReader::new(std::fs::File::from(fd)))
    }

    pub fn next(&mut self) -> Option<Value> {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("text");
        if line.is_empty() {
            None
        } else {
            Some(serde_json::from_str(&line).expect("a line of JSON"))
        }
    }

    pub fn all(mut self) -> Vec<Value> {
        std::iter::from_fn(|| self.next()).collect()
    }
}

/// The text of an answer's first choice.
pub fn text(events: &[Value]) -> String {
    let parts = events
        .iter()
        .filter(|e| e["kind"] == "text" && e["choice"] == 0)
        .map(|e| e["text"].as_str().expect("text"));
    parts.collect()
}

/// As `until`, for what only a call can tell.
pub async fn eventually(what: &str, mut found: impl AsyncFnMut() -> bool) {
    let start = std::time::Instant::now();
    while !found().await {
        assert!(start.elapsed() < Duration::from_secs(120), "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
