//! Desktops' search fields, without a shell: the interfaces are called as GNOME Shell and KRunner do.

use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use zbus::{Connection, OwnedVariant, interface};

use super::private::{NAME, PrivateBus, eventually};
use crate::daemon::{command, demo, home_with, until};

const DESKTOP: &str = "org.deltad.Desktop1";
const QUESTION: &str = "What is 3 + 4?";

/// `deltad desktop` on a bus, called by a shell.
struct Search {
    child: Child,
    shell: Connection,
}

impl Drop for Search {
    fn drop(&mut self) {
        // It may have ended already, which is fine here.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

type Match = (
    String,
    String,
    String,
    i32,
    f64,
    HashMap<String, OwnedVariant>,
);

impl Search {
    async fn start(bus: &PrivateBus, config: &Path) -> Search {
        let child = Command::new(env!("CARGO_BIN_EXE_deltad"))
            .args(["desktop", "--config"])
            .arg(config)
            .env("DBUS_SESSION_BUS_ADDRESS", &bus.address)
            .stdout(Stdio::null())
            .spawn()
            .expect("the program");
        let shell = bus.connect().await;
        let search = Search { child, shell };
        eventually("the name", async || search.owned(DESKTOP).await).await;
        search
    }

    async fn owned(&self, name: &str) -> bool {
        let bus = "org.freedesktop.DBus";
        let asked = self
            .shell
            .call_method(Some(bus), "/", Some(bus), "NameHasOwner", &name);
        let reply = asked.await.expect("an answer");
        reply.body().deserialize().expect("a boolean")
    }

    async fn call<B, R>(&self, interface: &str, method: &str, body: &B) -> R
    where
        B: serde::Serialize + zbus::DynamicType,
        R: serde::de::DeserializeOwned + zbus::Type,
    {
        let path = "/org/deltad/Desktop1";
        let call = self
            .shell
            .call_method(Some(DESKTOP), path, Some(interface), method, body);
        let reply = call.await.unwrap_or_else(|e| panic!("{method}: {e}"));
        reply.body().deserialize().expect("what was promised")
    }

    async fn gnome<B, R>(&self, method: &str, body: &B) -> R
    where
        B: serde::Serialize + zbus::DynamicType,
        R: serde::de::DeserializeOwned + zbus::Type,
    {
        self.call("org.gnome.Shell.SearchProvider2", method, body)
            .await
    }

    async fn results(&self, query: &str) -> Vec<String> {
        let terms: Vec<&str> = query.split_whitespace().collect();
        self.gnome("GetInitialResultSet", &(terms,)).await
    }

    /// A result's name and description.
    async fn meta(&self, id: &str) -> (String, String) {
        let metas: Vec<HashMap<String, OwnedVariant>> =
            self.gnome("GetResultMetas", &(vec![id],)).await;
        assert_eq!(metas.len(), 1);
        let text = |key| String::try_from(metas[0][key].clone()).expect("text");
        assert_eq!(text("id"), id);
        (text("name"), text("description"))
    }

    async fn matches(&self, query: &str) -> Vec<Match> {
        self.call("org.kde.krunner1", "Match", &query).await
    }
}

/// The desktop's notifications: which one, its head and its words, in the order in which they came.
#[derive(Default, Clone)]
struct Notifications(Arc<Mutex<Vec<(u32, String, String)>>>);

#[interface(name = "org.freedesktop.Notifications")]
impl Notifications {
    #[expect(clippy::too_many_arguments, reason = "the desktop's signature")]
    async fn notify(
        &self,
        _app: String,
        replaces: u32,
        _icon: String,
        summary: String,
        body: String,
        _actions: Vec<String>,
        _hints: HashMap<String, OwnedVariant>,
        _expires: i32,
    ) -> u32 {
        let id = if replaces == 0 { 7 } else { replaces };
        self.0.lock().expect("whole").push((id, summary, body));
        id
    }
}

impl Notifications {
    async fn serve(bus: &PrivateBus) -> (Notifications, Connection) {
        let (told, name) = (Notifications::default(), "org.freedesktop.Notifications");
        let connection = bus.connect().await;
        let server = connection.object_server();
        let path = "/org/freedesktop/Notifications";
        server.at(path, told.clone()).await.expect("an object");
        connection.request_name(name).await.expect("the name");
        (told, connection)
    }

    fn all(&self) -> Vec<(u32, String, String)> {
        self.0.lock().expect("whole").clone()
    }
}

/// A daemon that the bus starts. Leaves its process id in `pid`.
struct Startable {
    home: tempfile::TempDir,
    exec: PathBuf,
    pid: PathBuf,
}

impl Startable {
    fn new() -> Startable {
        let home = home_with(&demo("model"), "q4_k_m", "");
        let socket = home.path().join("run/deltad.sock");
        let mut serve = command(home.path(), &socket);
        serve.args(["--bus", "user"]);
        let words = std::iter::once(serve.get_program()).chain(serve.get_args());
        let words: Vec<String> = words.map(|w| format!("'{}'", w.display())).collect();
        let (exec, pid) = (home.path().join("start"), home.path().join("pid"));
        let script = format!(
            "#!/bin/sh\necho $$ > '{}'\nexport XDG_STATE_HOME='{}'\nexec {} 2>/dev/null\n",
            pid.display(),
            home.path().display(),
            words.join(" ")
        );
        std::fs::write(&exec, script).expect("a file");
        let runs = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&exec, runs).expect("ours");
        Startable { home, exec, pid }
    }
}

impl Drop for Startable {
    fn drop(&mut self) {
        let pid = std::fs::read_to_string(&self.pid).unwrap_or_default();
        let pid = pid.trim().parse().ok();
        if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) {
            // It may have ended already, which is fine here.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

#[tokio::test]
async fn no_keystroke_starts_the_daemon_and_choosing_the_question_does() {
    let startable = Startable::new();
    let bus = PrivateBus::start_with(NAME, &startable.exec.display().to_string());
    let (notifications, _desktop) = Notifications::serve(&bus).await;
    let search = Search::start(&bus, &startable.home.path().join("deltad.toml")).await;
    assert_eq!(search.results(QUESTION).await, [""; 0]);
    assert_eq!(search.matches(QUESTION).await.len(), 0);
    assert_eq!(search.results("ask").await, [""; 0]);
    let results = search.results(&format!("ask {QUESTION}")).await;
    assert_eq!(results, [QUESTION]);
    let offer = ("Ask deltad".to_owned(), QUESTION.to_owned());
    assert_eq!(search.meta(QUESTION).await, offer);
    let matches = search.matches(&format!("Ask {QUESTION}")).await;
    assert_eq!((&matches[0].0, &matches[0].1), (&offer.1, &offer.0));
    assert!(!startable.pid.exists() && !search.owned(NAME).await);
    let chosen = (QUESTION, vec!["ask"], 0u32);
    let () = search.gnome("ActivateResult", &chosen).await;
    until("a start", || startable.pid.exists().then_some(()));
    eventually("an answer", async || {
        let last = notifications.all().pop();
        last.is_some_and(|(_, _, body)| body.contains('7') && !body.ends_with('…'))
    })
    .await;
    // One notification, which grew.
    let told = notifications.all();
    assert!(told.len() >= 2, "{told:?}");
    assert!(
        told.iter()
            .all(|(id, head, _)| *id == 7 && head == QUESTION)
    );
    let (name, description) = search.meta(QUESTION).await;
    assert_eq!(name, QUESTION);
    assert!(description.contains("= 7"), "{description}");
}

#[tokio::test]
async fn a_running_daemon_answers_in_the_search_field_without_being_chosen() {
    let bus = PrivateBus::start();
    let daemon = bus.serve_demo();
    let config = daemon.home.path().join("desktop.toml");
    std::fs::write(&config, "[desktop]\nword = \"frag\"\n").expect("a file");
    let search = Search::start(&bus, &config).await;
    // Nobody finished the first; its place is taken.
    let query = format!("frag {QUESTION}");
    let first = search.matches("frag What");
    tokio::pin!(first);
    let moment = std::time::Duration::from_millis(200);
    assert!(tokio::time::timeout(moment, &mut first).await.is_err());
    let (first, matches) = tokio::join!(first, search.matches(&query));
    assert_eq!(first.len(), 0);
    let (id, text, icon, kind, relevance, properties) = &matches[0];
    assert_eq!((id.as_str(), *kind, *relevance), (QUESTION, 100, 1.0));
    assert!(text.contains("= 7") && !icon.is_empty(), "{text}");
    let below = String::try_from(properties["subtext"].clone());
    assert_eq!(below.as_deref(), Ok(QUESTION));
    assert_eq!(search.results(&query).await, [QUESTION]);
    assert!(search.meta(QUESTION).await.1.contains("= 7"));
    // A shell narrows its results by asking anew.
    let narrower = (vec![QUESTION], vec!["frag", "What", "is", "5", "+", "4?"]);
    let results: Vec<String> = search.gnome("GetSubsearchResultSet", &narrower).await;
    assert_eq!(results, ["What is 5 + 4?"]);
    assert!(search.meta(&results[0]).await.1.contains("= 9"));
}
