"""The units of one user, under the manager of that user: his socket, his bus, the search of his desktop."""

import json

from container import run, seen

BUS = "org.deltad.Inference1 /org/deltad/Inference1 org.deltad.Inference1.Manager"
ASK = f"busctl --user --timeout=60 call {BUS} Ask 'sa{{sv}}' 'Tell nobody' 1 max_tokens u 5"
MATCH = ("busctl --user --timeout=60 call org.deltad.Desktop1 /org/deltad/Desktop1 org.kde.krunner1 "
         "Match s '{}'")


def prepare(root):
    """A model and a configuration of his own, before the system boots."""
    home = root / "home/member"
    config = home / ".config/deltad/deltad.toml"
    config.parent.mkdir(parents=True)
    config.write_text('[model]\npath = "/home/member/tiny.gguf"\nthreads = 1\n')
    run("cp", root / "var/lib/deltad/models/tiny.gguf", home)
    run("chroot", root, "chown", "--recursive", "member:", "/home/member")


def drive(m):
    uid = m("id -u member").strip()

    def member(command, **kwargs):
        return m(f"export XDG_RUNTIME_DIR=/run/user/{uid}; {command}", user="member", **kwargs)

    def state(unit):
        return member(f"systemctl --user show --value --property=ActiveState {unit}").strip()

    m("loginctl enable-linger member")
    m.until("a manager of his own", lambda: member("systemctl --user is-system-running", check=False).strip() == "running")
    member("systemctl --user enable --now deltad.socket")
    assert state("deltad.service") == "inactive"
    models = member("curl -sS --max-time 60 --unix-socket $XDG_RUNTIME_DIR/deltad/deltad.sock http://localhost/v1/models")
    assert json.loads(models)["data"][0]["id"] == "tiny", models
    assert state("deltad.service") == "active"
    owner = member("stat -c '%U %a' $XDG_RUNTIME_DIR/deltad/deltad.sock").split()
    assert owner == ["member", "600"], owner
    seen("under a user's own manager the first caller at his socket starts his daemon")

    assert member(ASK).startswith("sa{sv} ")
    member("systemctl --user stop deltad.service")
    assert member(ASK).startswith("sa{sv} ") and state("deltad.service") == "active"
    seen("his bus has it too, and starts it")

    assert "Ask deltad" not in member(MATCH.format("ask hello")), "it is running, and answers"
    assert state("deltad-desktop.service") == "active"
    member("systemctl --user stop deltad.service deltad-desktop.service")
    assert "Ask deltad" in member(MATCH.format("ask hello"))
    assert member(MATCH.format("hello")).split() == ["a(sssida{sv})", "0"]
    assert (state("deltad-desktop.service"), state("deltad.service")) == ("active", "inactive")
    seen("the search of his desktop asks a daemon that runs, and starts none")
    m("loginctl disable-linger member")
