//! Names, users and the bus itself: who may do what, and what the daemon does when it may not.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use super::private::{Client, NAME, Options, PATH, PrivateBus, short};
use crate::daemon::{command, home, until};

#[tokio::test]
async fn who_is_not_allowed_is_refused_as_on_the_socket() {
    let bus = PrivateBus::start();
    let nobody_here = rustix::process::getuid().as_raw() + 4321;
    let allowed = format!("[service]\nallowed_uids = [{nobody_here}]\n");
    let daemon = {
        // Its readiness cannot be asked for, being refused too: the name is the sign.
        crate::daemon::Daemon::of(home(&allowed), |home, socket| {
            bus.command(home, socket).spawn().expect("a daemon")
        })
    };
    until("the name", || {
        let named = bus.tool(
            "gdbus",
            &["introspect", "--session", "-d", NAME, "-o", PATH],
        );
        named.0.then_some(())
    });
    let client = Client(bus.connect().await);
    let asked = client.call(PATH, "Manager", "Ask", &("x", short(1))).await;
    let none = (Options::new(),);
    let made = client.call(PATH, "Manager", "CreateSession", &none);
    for refused in [asked, made.await] {
        let (name, text) = refused.expect_err("a refusal");
        assert_eq!(name, "org.deltad.Inference1.Error.NotPermitted", "{text}");
    }
    drop(daemon);
}

/// Runs a tool as another user; `None` where we may not become one.
fn as_nobody(bus: &PrivateBus, args: &[&str]) -> Option<String> {
    if !rustix::process::getuid().is_root() {
        eprintln!("SKIPPED: only root can call as another user");
        return None;
    }
    let output = Command::new("gdbus")
        .args(args)
        .env("DBUS_SESSION_BUS_ADDRESS", &bus.address)
        .uid(65534)
        .stdin(Stdio::null())
        .output()
        .expect("gdbus");
    let said = [output.stdout, output.stderr].concat();
    Some(String::from_utf8_lossy(&said).into_owned())
}

#[tokio::test]
async fn another_user_neither_sees_nor_uses_my_session() {
    let bus = PrivateBus::start();
    let _daemon = bus.serve("");
    let client = Client(bus.connect().await);
    let session = client.create(Options::new()).await;
    let on = |path: &str, method: &str, args: &[&str]| {
        let head = ["call", "--session", "-d", NAME, "-o", path, "-m", method];
        as_nobody(&bus, &[&head[..], args].concat())
    };
    let lists = "org.freedesktop.DBus.ObjectManager.GetManagedObjects";
    let Some(listed) = on(PATH, lists, &[]) else {
        return;
    };
    assert_eq!(listed.trim(), "(@a{oa{sa{sv}}} {},)");
    let describes = "org.freedesktop.DBus.Introspectable.Introspect";
    let (above, id) = session.rsplit_once('/').expect("a path");
    let own = client.call(
        above,
        "org.freedesktop.DBus.Introspectable",
        "Introspect",
        &(),
    );
    let own: String = own.await.expect("mine").body().deserialize().expect("text");
    assert!(own.contains(id), "{own}");
    for path in [PATH, "/", above] {
        let described = on(path, describes, &[]).expect("as above");
        assert!(described.contains("<node>"), "{path}: {described}");
        assert!(!described.contains(id), "{path}: {described}");
    }
    let reads = "org.freedesktop.DBus.Properties.Get";
    let own = "org.deltad.Inference1.Session";
    for (method, args) in [
        ("org.deltad.Inference1.Session.Messages", &[][..]),
        ("org.deltad.Inference1.Session.Close", &[]),
        ("org.deltad.Inference1.Session.Send", &["x", "{}"]),
        (reads, &[own, "MessageCount"]),
    ] {
        let said = on(&session, method, args).expect("root");
        assert!(said.contains("Error.NotPermitted"), "{method}: {said}");
    }
    let all = on(&session, "org.freedesktop.DBus.Properties.GetAll", &[own]);
    assert_eq!(all.expect("root").trim(), "(@a{sv} {},)");
    // Its own question is answered all the same.
    let asks = "org.deltad.Inference1.Manager.Ask";
    let said = on(PATH, asks, &["x", "{'max_tokens': <1>}"]).expect("root");
    assert!(said.contains("completion_tokens"), "{said}");
}

#[test]
fn a_second_daemon_does_not_take_the_name_and_says_why() {
    let bus = PrivateBus::start();
    let _first = bus.serve("");
    let home = home("");
    let socket = home.path().join("s");
    let second = bus
        .command(home.path(), &socket)
        .stderr(Stdio::piped())
        .output();
    let second = second.expect("it ends");
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(!second.status.success());
    assert!(said.contains("another program owns the name"), "{said}");
}

#[test]
fn a_bus_that_is_asked_for_and_not_there_is_an_error_with_its_name() {
    let home = home("");
    let ended = command(home.path(), &home.path().join("s"))
        .args(["--bus", "user"])
        .env("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent/bus")
        .stderr(Stdio::piped())
        .output()
        .expect("it ends");
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(!ended.status.success());
    assert!(said.contains("the session bus cannot be reached"), "{said}");
}

#[test]
fn the_socket_is_served_on_when_the_bus_goes() {
    let mut bus = PrivateBus::start();
    let daemon = bus.serve("");
    bus.stop();
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(daemon.get("/health").0, 200);
}

#[tokio::test]
async fn a_stopping_daemon_says_so_and_leaves_the_name() {
    use tokio_stream::StreamExt;
    let bus = PrivateBus::start();
    let mut daemon = bus.serve("");
    let watcher = bus.connect().await;
    let rule = "type='signal',interface='org.freedesktop.DBus.Properties'";
    let heard = zbus::MessageStream::for_match_rule(rule, &watcher, None);
    let mut heard = heard.await.expect("a stream");
    daemon.signal(rustix::process::Signal::TERM);
    let message = heard.next().await.expect("a signal").expect("a signal");
    let body = message.body();
    let (interface, changed, _): (String, super::private::Dictionary, Vec<String>) =
        body.deserialize().expect("changes");
    assert_eq!(interface, "org.deltad.Inference1.Manager");
    assert_eq!(u32::try_from(&changed["State"]), Ok(3));
    assert!(daemon.wait().success());
}
