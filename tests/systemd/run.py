#!/usr/bin/env python3
"""Boots a small Debian in a container, installs deltad there and drives it as an administrator, a
member of its group and a stranger would. Needs root, systemd-nspawn, and mmdebstrap for the first
run; without them says why and does nothing. Every check prints the sentence that it has proved."""

import ctypes
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import user
from container import ROOT, SOCKET, TARGET, booted, check_host, fresh, run, seen

CONFIG = """\
[model]
path = "/var/lib/deltad/models/tiny.gguf"
threads = 1
"""
# Small enough to wait for. The engine turns twice a second when idle.
WATCHDOG = 6
# What `systemd-analyze security` may say at most; printed in the README.
EXPOSURE = 1.5


def install(root):
    env = {**os.environ, "DESTDIR": str(root), "PREFIX": "/usr"}
    run("make", "-C", str(ROOT), "install", f"DESTDIR={root}", "PREFIX=/usr", env=env)
    etc = root / "etc/deltad/deltad.toml"
    assert etc.read_text() == (ROOT / "systemd/deltad.toml").read_text()
    etc.write_text(CONFIG)
    run("make", "-C", str(ROOT), "install", f"DESTDIR={root}", "PREFIX=/usr", env=env)
    assert etc.read_text() == CONFIG, "a second install leaves the administrator's file alone"
    share = root / "usr/share"
    for program in ("deltad", "deltad-quantize"):
        for file in (f"man/man1/{program}.1", f"man/man1/{program}-completions.1", f"bash-completion/completions/{program}",
                     f"zsh/site-functions/_{program}", f"fish/vendor_completions.d/{program}.fish"):
            assert program in (share / file).read_text(), file
    assert "idle_exit" in (share / "man/man5/deltad.toml.5").read_text()
    seen("both programs have manual pages and completions")
    models = root / "var/lib/deltad/models"
    models.mkdir(parents=True)
    run(root / "usr/bin/deltad-quantize", "convert", ROOT / "tests/fixtures/tiny", models / "tiny.gguf",
        "--type", "f32", "--quiet")
    dropin = root / "etc/systemd/system/deltad.service.d/test.conf"
    dropin.parent.mkdir(parents=True)
    dropin.write_text(f"[Service]\nWatchdogSec={WATCHDOG}\n")
    for name in ("member", "stranger"):
        run("chroot", root, "useradd", "--create-home", name)
    user.prepare(root)
    (root / "etc/hostname").write_text("deltad-test\n")


def freeze_engine(pid):
    """Stops the engine's thread alone, as a pass that never ends would; the others live on. A
    debugger's stop: the daemon needs no hook for it. Returns once the thread stands."""
    task = Path(f"/proc/{pid}/task")
    tid = next(int(t.name) for t in task.iterdir() if (t / "comm").read_text() == "engine\n")
    libc = ctypes.CDLL(None, use_errno=True)
    stands = threading.Event()
    seize, interrupt, all_threads = 0x4206, 0x4207, 0x40000000

    def hold():
        for request in (seize, interrupt):
            if libc.ptrace(request, tid, None, None) != 0:
                raise OSError(ctypes.get_errno(), "ptrace")
        while True:
            try:
                _, status = os.waitpid(tid, all_threads)
            except ChildProcessError:
                return
            stands.set()
            if not os.WIFSTOPPED(status):
                return

    threading.Thread(target=hold, daemon=True).start()
    assert stands.wait(10), "the engine's thread does not stop"


def static(root):
    verify = run("chroot", root, "systemd-analyze", "verify", "--man=no", "/usr/lib/systemd/system/deltad.service",
                 "/usr/lib/systemd/system/deltad.socket")
    assert verify == "", verify
    run("chroot", root, "systemd-analyze", "verify", "--man=no", "--user", "/usr/lib/systemd/user/deltad.service",
        "/usr/lib/systemd/user/deltad.socket", "/usr/lib/systemd/user/deltad-desktop.service", env={**os.environ, "XDG_RUNTIME_DIR": "/run"})
    seen("systemd-analyze verify has nothing to say of the units")
    figure = run("chroot", root, "systemd-analyze", "security", "--offline=true",
                 f"--threshold={int(EXPOSURE * 10)}", "/usr/lib/systemd/system/deltad.service").splitlines()[-1]
    seen(f"systemd-analyze security: {figure.split(':', 1)[-1].strip()}")


def drive(m):
    m("usermod -aG deltad member")
    m("systemctl enable --now deltad.socket")
    assert m.state() == "inactive", m.state()
    answer = json.loads(m.ask())
    assert answer["data"][0]["id"] == "tiny", answer
    seen("the first caller starts the daemon and gets an answer, no \"loading\"")

    assert m.state() == "active"
    status = m.show("StatusText")
    assert status.startswith("serving tiny"), status
    seen(f"systemctl status says: {status}")

    assert "tiny" in m.ask(user="member")
    refused = subprocess.run(
        ["nsenter", "-t", m.leader[0], "-m", "-p", "--", "runuser", "-u", "stranger", "--", "curl", "-sS",
         "--unix-socket", SOCKET, "http://localhost/v1/models"], capture_output=True, text=True)
    assert refused.returncode == 7, refused
    seen("a member of the group is answered, a stranger cannot connect")

    pid = m.show("MainPID")
    status = m(f"cat /proc/{pid}/status")
    assert "Seccomp:\t2" in status and "CapEff:\t0000000000000000" in status, status
    net = m(f"nsenter -t {pid} -n cat /proc/net/dev").splitlines()[2:]
    assert [line.split(":")[0].strip() for line in net] == ["lo"], net
    assert m(f"ps -o user= -p {pid} 2>/dev/null || stat -c %U /proc/{pid}").strip() == "deltad"
    seen("it runs as deltad, without a capability, filtered, in a network of its own")

    bus(m, pid)
    reload(m, m.show("MainPID"))
    watchdog(m, m.show("MainPID"))
    idle_exit(m)
    without_disk(m)
    stop(m)
    lines = m.journal()
    text = json.dumps(lines)
    assert "Tell nobody" not in text, "a prompt is in the journal"
    own = [l for l in lines if l.get("TARGET") or l.get("CODE_MODULE")]
    assert own and all(l["SYSLOG_IDENTIFIER"] == "deltad" for l in own), lines[:3]
    assert any(l["PRIORITY"] == "4" and "restart" in l["MESSAGE"] for l in own), "a warning has its priority"
    seen(f"the journal has {len(own)} structured lines with priorities, and no prompt")


ASK = ("busctl --system --timeout=60 call org.deltad.Inference1 /org/deltad/Inference1 org.deltad.Inference1.Manager "
       "Ask 'sa{sv}' 'Tell nobody' 1 max_tokens u 5")


def bus(m, pid):
    assert m(ASK, user="member").startswith("sa{sv} "), "an answer"
    assert m.show("MainPID") == pid
    take = "busctl --system call org.freedesktop.DBus / org.freedesktop.DBus RequestName su org.deltad.Inference1 0"
    for user, command in (("stranger", ASK), ("member", take)):
        said = m(f"{command} 2>&1 || true", user=user)
        assert "denied" in said, (user, command, said)
    seen("on the bus a member of the group is answered, a stranger is not, and neither may take the name")
    m("systemctl stop deltad.service deltad.socket")
    assert m(ASK, user="member").startswith("sa{sv} ")
    assert m.state() == "active" and m.show("ActiveState", "deltad.socket") == "active"
    seen("a call to the name starts the daemon, and its socket with it")


STREAM = json.dumps({"prompt": "Tell nobody", "max_tokens": 3500, "ignore_eos": True, "stream": True})


def reload(m, pid):
    done = []
    m(f"cat > /tmp/body", input=STREAM)
    generation = threading.Thread(target=lambda: done.append(
        m.ask("/v1/completions", more="-N --limit-rate 150k -H 'Content-Type: application/json' -d @/tmp/body")))
    generation.start()
    m.until("a generation runs", lambda: '"active":1' in m.ask("/health"))
    m.until("the manager knows", lambda: "1 running" in m.show("StatusText"), limit=5)
    m("cat > /etc/deltad/deltad.toml", input=CONFIG + 'chunk = 64\n[limits]\nmax_tokens = 5\n')
    m("systemctl reload deltad.service")
    assert not done, "the generation should still run"
    assert m.state() == "active" and m.show("MainPID") == pid
    short = json.loads(m.ask("/v1/completions", more="-H 'Content-Type: application/json' -d '{\"prompt\": \"x\", \"ignore_eos\": true, \"max_tokens\": 50}'"))
    assert short["usage"]["completion_tokens"] == 5, short
    generation.join()
    tokens = done[0].count("data: {")
    assert "data: [DONE]" in done[0] and tokens > 1000, done[0][-300:]
    seen(f"systemctl reload changes the limits at once; a running answer goes on ({tokens} events)")
    m("cat > /etc/deltad/deltad.toml", input="[modle]\n")
    m("systemctl reload deltad.service")
    assert "did you mean model" in m.show("StatusText"), m.show("StatusText")
    assert "tiny" in m.ask()
    seen("a wrong configuration is refused at reload, and the daemon goes on with the old one")
    m("cat > /etc/deltad/deltad.toml", input=CONFIG)
    m("systemctl reload deltad.service")


def watchdog(m, pid):
    time.sleep(WATCHDOG + 2)
    assert m.show("MainPID") == pid and m.show("NRestarts") == "0"
    seen(f"an idle engine feeds the watchdog: nothing happens in {WATCHDOG + 2} s")
    freeze_engine(m.main_pid_outside())
    frozen = time.monotonic()
    assert "tiny" in m.ask()
    m.until("the watchdog ends it", lambda: m.show("NRestarts") == "1", limit=WATCHDOG + 20)
    spent = time.monotonic() - frozen
    m.until("it is back", lambda: m.state() == "active")
    assert m.show("MainPID") != pid and "tiny" in m.ask()
    messages = [l["MESSAGE"] for l in m.journal()]
    assert any("Watchdog timeout" in line for line in messages), messages[-10:]
    seen(f"an engine that hangs while the sockets still answer is ended after {spent:.1f} s and started again")


def idle_exit(m):
    m("cat > /etc/deltad/deltad.toml", input=CONFIG + '[service]\nidle_exit = "2s"\n')
    m("systemctl reload deltad.service")
    m.until("it ends by itself", lambda: m.state() == "inactive", limit=20)
    assert m.show("Result") == "success" and m.show("ActiveState", "deltad.socket") == "active"
    assert "tiny" in m.ask()
    seen("unused, it ends well, and the next caller brings it back")
    m.until("it ends by itself", lambda: m.state() == "inactive", limit=20)
    assert m(ASK, user="member").startswith("sa{sv} ")
    seen("a call on the bus brings it back as well")
    # Callers at the very moment of the end: the period is that of the idle limit.
    starts = m.show("NRestarts")
    for n in range(6):
        time.sleep(1.9 + 0.1 * n)
        assert "tiny" in m.ask()
        time.sleep(1.9 + 0.1 * n)
        assert m(ASK, user="member").startswith("sa{sv} ")
    assert m.show("NRestarts") == starts
    seen("twelve callers around the moment of the idle exit are all answered")
    m("cat > /etc/deltad/deltad.toml", input=CONFIG)
    m("systemctl reload-or-restart deltad.service")


def without_disk(m):
    def post(path, body):
        m("cat > /tmp/asked", input=json.dumps(body))
        return json.loads(m.ask(path, more="-H 'Content-Type: application/json' -d @/tmp/asked"))

    def told():
        return json.loads(m.ask("/v1/sessions/talk")).get("message_count")

    m("cat > /etc/deltad/deltad.toml", input=CONFIG + '[sessions]\ndisk = "0B"\n')
    m("systemctl restart deltad.service && touch /tmp/mark")
    assert post("/v1/sessions", {"name": "talk"})["durable"] is True
    post("/v1/sessions/talk/send", {"content": "Tell nobody", "max_tokens": 5})
    held = int(m.show("NFileDescriptorStore"))
    assert held >= 3, held
    for how in ("systemctl restart deltad.service", "systemctl kill --signal=KILL deltad.service",
                "systemctl stop deltad.service"):
        m(how)
        assert told() == 2, how
    made = m("find / -xdev -newer /tmp/mark -user deltad -type f")
    assert made == "", made
    seen(f"without a disk a session outlives a restart, a kill and a stop in {held} descriptors, and no file is made")
    m("systemctl stop deltad.service && systemctl clean --what=fdstore deltad.service")
    m("systemctl reset-failed deltad.service deltad.socket")
    assert told() is None, "cleaned away"
    dropin = "/etc/systemd/system/deltad.service.d/none.conf"
    m(f"cat > {dropin}", input="[Service]\nFileDescriptorStoreMax=0\n")
    m("systemctl daemon-reload && systemctl restart deltad.service")
    assert post("/v1/sessions", {"name": "talk"})["durable"] is False
    m("systemctl restart deltad.service")
    assert told() is None, "where the manager holds nothing"
    seen("where the manager holds nothing a session says so, and ends with the daemon")
    m("cat > /etc/deltad/deltad.toml", input=CONFIG)
    m(f"rm {dropin} && systemctl daemon-reload && systemctl restart deltad.service")


def stop(m):
    done = []
    generation = threading.Thread(target=lambda: done.append(m.ask(
        "/v1/completions", more="-N --limit-rate 150k -H 'Content-Type: application/json' -d @/tmp/body")))
    generation.start()
    m.until("a generation runs", lambda: '"active":1' in m.ask("/health"))
    m("systemctl stop deltad.service")
    generation.join()
    assert "data: [DONE]" in done[0], done[0][-300:]
    assert m.show("Result") == "success"
    seen("systemctl stop lets a running answer end")


def main():
    check_host()
    if not (TARGET / "release/deltad").exists():
        sys.exit("test-systemd: build first: make build")
    began = time.monotonic()
    with fresh("systemd-root") as root:
        install(root)
        static(root)
        with booted(root) as machine:
            drive(machine)
            user.drive(machine)
    print(f"test-systemd: passed in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
