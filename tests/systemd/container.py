"""A small Debian in a container, for tests of what is installed there. Needs root, systemd-nspawn,
and mmdebstrap for the first run; without them says why and does nothing."""

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TARGET = ROOT / "target"
SUITE = "trixie"
PACKAGES = ["systemd", "systemd-sysv", "libpam-systemd", "dbus", "dbus-user-session", "curl", "libgomp1", "libstdc++6"]
SOCKET = "/run/deltad/deltad.sock"


def skip(why):
    print(f"test-systemd: skipped: {why}")
    sys.exit(0)


def run(*argv, check=True, **kwargs):
    done = subprocess.run(argv, text=True, capture_output=True, **kwargs)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, argv))}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def seen(sentence):
    print(f"  ok  {sentence}", flush=True)


def tree(more=()):
    """A Debian without deltad, made once for each list of packages."""
    packages = [*PACKAGES, *more]
    key = hashlib.sha256(f"{SUITE} {packages}".encode()).hexdigest()[:12]
    made = TARGET / f"systemd-tree-{key}"
    if not made.exists():
        print(f"making a system of {SUITE} (once)", flush=True)
        part = made.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        done = subprocess.run(
            ["mmdebstrap", "--variant=minbase", f"--include={','.join(packages)}", SUITE, str(part)],
            capture_output=True, text=True)
        if done.returncode != 0:
            shutil.rmtree(part, ignore_errors=True)
            skip("no Debian packages to be had: " + (done.stderr.strip().splitlines() or ["?"])[-1])
        part.rename(made)
    return made


class Machine:
    """A booted system; every command runs inside it."""

    def __init__(self, root):
        self.root = root
        self.log = open(TARGET / "systemd-test.log", "w")
        self.nspawn = subprocess.Popen(
            ["systemd-nspawn", "--quiet", "--directory", str(root), "--boot", "--register=no", "--keep-unit",
             "--private-network", "--console=pipe", "--machine=deltad-test"],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=subprocess.STDOUT)
        self.leader = []

    def boots(self):
        """Whether systemd runs in there within a minute. A condition, not what is tested."""
        end = time.monotonic() + 60
        while time.monotonic() < end and self.nspawn.poll() is None:
            self.leader = run("pgrep", "-P", str(self.nspawn.pid), check=False).split()[:1]
            up = self.leader and self("systemctl is-system-running", check=False).strip()
            if up in ("running", "degraded"):
                return True
            time.sleep(0.1)
        return False

    def __call__(self, command, check=True, user=None, **kwargs):
        enter = ["nsenter", "-t", self.leader[0], "-m", "-u", "-i", "-n", "-p", "-C", "--"]
        shell = ["runuser", "-u", user, "--"] if user else []
        env = {"PATH": "/usr/bin:/usr/sbin:/bin:/sbin", "LANG": "C.UTF-8"}
        return run(*enter, *shell, "sh", "-c", command, check=check, env=env, **kwargs)

    def until(self, what, found, limit=60):
        end = time.monotonic() + limit
        while time.monotonic() < end:
            result = found()
            if result:
                return result
            time.sleep(0.1)
        raise AssertionError(f"never within {limit} s: {what}")

    def show(self, prop, unit="deltad.service"):
        return self(f"systemctl show --value --property={prop} {unit}").strip()

    def state(self):
        return self.show("ActiveState")

    def journal(self, *more):
        lines = self(f"journalctl -u deltad.service -o json --no-pager {' '.join(more)}").splitlines()
        return [json.loads(line) for line in lines]

    def ask(self, path="/v1/models", user=None, more=""):
        return self(f"curl -sS --max-time 60 --unix-socket {SOCKET} {more} http://localhost{path}", user=user)

    def main_pid_outside(self):
        """The daemon's process id as this side of the container counts."""
        cgroup = self.show("ControlGroup")
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    if cgroup in (entry / "cgroup").read_text() and (entry / "comm").read_text() == "deltad\n":
                        return int(entry.name)
        raise AssertionError(f"no deltad in {cgroup}")

    def off(self):
        if self.nspawn.poll() is None:
            if self.leader:
                self("systemctl poweroff --force", check=False)
            try:
                self.nspawn.wait(20)
            except subprocess.TimeoutExpired:
                self.nspawn.kill()
                self.nspawn.wait()


NEEDED = {"systemd-nspawn": "systemd-container", "nsenter": "util-linux", "pgrep": "procps", "mmdebstrap": "mmdebstrap"}


def missing(needed):
    """Tools that are not here, with their Debian packages."""
    return {tool: package for tool, package in needed.items() if not shutil.which(tool)}


def check_host(more=None):
    """Skips where no container can be had; installs what it takes where that may be, `more` tools too."""
    needed = {**NEEDED, **(more or {})}
    if sys.platform != "linux" or os.geteuid() != 0:
        skip("needs Linux and root")
    if subprocess.run(["unshare", "--mount", "--pid", "--fork", "true"], capture_output=True).returncode != 0:
        skip("namespaces are not to be had here")
    if missing(needed) and shutil.which("apt-get"):
        quiet = {"capture_output": True, "stdin": subprocess.DEVNULL, "env": {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}}
        subprocess.run(["apt-get", "update", "-q"], **quiet)
        subprocess.run(["apt-get", "install", "-y", "-q", "--no-install-recommends", *missing(needed).values()], **quiet)
    if missing(needed):
        skip(f"no {', '.join(missing(needed))} (apt install {' '.join(missing(needed).values())})")


@contextlib.contextmanager
def fresh(name, more=()):
    """The path of a copy of the system with `more` packages, gone afterwards."""
    root = TARGET / name
    shutil.rmtree(root, ignore_errors=True)
    run("cp", "-a", "--reflink=auto", tree(more), root)
    try:
        if subprocess.run(["chroot", root, "true"]).returncode != 0:
            skip("the system that was made does not run here")
        yield root
    finally:
        shutil.rmtree(root, ignore_errors=True)


@contextlib.contextmanager
def booted(root):
    """The system at `root`, running; what it says of deltad is printed where a check fails."""
    machine = Machine(root)
    try:
        if not machine.boots():
            skip(f"a container does not boot here: see {machine.log.name}")
        yield machine
    except Exception:
        print(machine("systemctl status deltad.service deltad.socket; journalctl -n 40 --no-pager", check=False))
        raise
    finally:
        machine.off()
