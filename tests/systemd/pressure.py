#!/usr/bin/env python3
"""Boots a small Debian in a virtual machine, where the daemon's control group can be given less memory
than it holds, and looks at what becomes of conversations and of callers then. Needs root, the programs
of `make package` (the machine's processor is one of software), qemu, and mmdebstrap for the first run;
without them says why and does nothing. Every check prints the sentence that it has proved."""

import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from container import ROOT, SOCKET, TARGET, check_host, fresh, run, seen, skip

TOOLS = {"qemu-system-x86_64": "qemu-system-x86", "mke2fs": "e2fsprogs"}
EXTRA = ["python3", "linux-image-cloud-amd64", "initramfs-tools", "zstd"]
BUILT = TARGET / "package/release"
MODEL = "/var/lib/deltad/models/states.gguf"
# What is said inside comes out by the second serial port.
INSIDE = f"""\
[Unit]
After=multi-user.target
SuccessAction=poweroff-force
FailureAction=poweroff-force
[Service]
Type=oneshot
Environment=PYTHONUNBUFFERED=1
ExecStart=/usr/bin/python3 /test/tests/systemd/pressure.py inside
StandardOutput=file:/dev/ttyS1
StandardError=file:/dev/ttyS1
"""
LIMIT = 2400

GROUP = Path("/sys/fs/cgroup/system.slice/deltad.service")
# Each is read in ten seconds to a minute by a processor made of software.
SESSIONS = 6
# A conversation is written to the disk when it has rested for so long.
RESTS = 35
SHARE = 0.6


class Call(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(SOCKET)


def call(path, body=None, timeout=400):
    """The status, what came, and how long it took."""
    began, line = time.monotonic(), Call("localhost", timeout=timeout)
    line.request("POST" if body else "GET", path, json.dumps(body) if body else None, {"Content-Type": "application/json"})
    answer = line.getresponse()
    return answer.status, json.loads(answer.read()), time.monotonic() - began


def counted(file):
    return {key: int(n) for key, n in (line.split() for line in (GROUP / file).read_text().splitlines())}


def anonymous():
    return counted("memory.stat")["anon"]


def rungs(since):
    """The ladder as the journal has it: when, on the clock of this program, and the line."""
    lines = run("journalctl", "-u", "deltad.service", "-o", "json", "--no-pager").splitlines()
    lines = [(int(line["__MONOTONIC_TIMESTAMP"]) / 1e6, line["MESSAGE"]) for line in map(json.loads, lines)]
    return [(at, text) for at, text in lines if text.startswith("memory: ") and at >= since]


def climbed(began):
    for at, line in rungs(began):
        print(f"      {at - began:6.2f} s  {line}", flush=True)


class Again(threading.Thread):
    """Does something again and again, until it is told to end."""

    def __init__(self, what, pause):
        super().__init__(daemon=True)
        self.what, self.pause, self.ends = what, pause, threading.Event()
        self.start()

    def run(self):
        while not self.ends.wait(self.pause):
            self.what()

    def stop(self):
        self.ends.set()
        self.join()


class Callers:
    """What became of requests; who is turned away comes again."""

    def __init__(self):
        self.answered, self.turned_away, self.lost = [], 0, []

    def ask(self, path, body):
        until = time.monotonic() + 300
        while time.monotonic() < until:
            try:
                status, answer, took = call(path, body)
            except (OSError, ValueError) as e:
                return self.lost.append((path, repr(e)))
            if status == 200 and answer["usage"]["completion_tokens"] > 0:
                self.answered.append(took)
                return answer["usage"]
            if status != 503 or answer["error"]["code"] != "memory_short":
                return self.lost.append((path, status, answer))
            self.turned_away += 1
            time.sleep(1)
        return self.lost.append((path, "turned away for 300 s"))

    def chat(self):
        self.ask("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1})

    def talk(self, n):
        usage = self.ask(f"/v1/sessions/talk{n}/send", {"content": "Go on", "max_tokens": 2, "temperature": 0})
        return usage and usage["prompt_tokens_details"]["cached_tokens"]


def begin():
    """Conversations that have read a little; a state of one is as large as that of a long text."""
    took = []
    for n in range(SESSIONS):
        status, made, spent = call("/v1/sessions", {"name": f"talk{n}", "content": f"Hi {n}", "read": True})
        assert status == 200, made
        took.append(spent)
    print(f"      read in {min(took):.1f} to {max(took):.1f} s each", flush=True)


def given_back(high, states):
    """The mark is set under an idle daemon; when it was in force, and how long after that nine tenths of
    what conversations hold had gone. The manager's write comes back when the kernel has tried all it can."""
    before, began = anonymous(), time.monotonic()
    setting = subprocess.Popen(["systemctl", "set-property", "--runtime", "deltad.service", f"MemoryHigh={high}"])
    while (GROUP / "memory.high").read_text().strip() == "max":
        assert time.monotonic() < began + 60, "the mark is never set"
        time.sleep(0.005)
    began = time.monotonic()
    while (gone := before - anonymous()) < 0.9 * states:
        assert time.monotonic() < began + 60, f"{gone >> 20} of {states >> 20} MiB; {rungs(began)}"
        time.sleep(0.01)
    back = time.monotonic() - began
    setting.wait()
    print(f"      the manager was done {time.monotonic() - began:.2f} s after", flush=True)
    return began, back


def inside():
    run("systemctl", "start", "deltad.socket")
    began = time.monotonic()
    call("/v1/models")
    pid = run("systemctl", "show", "--value", "--property=MainPID", "deltad.service").strip()
    assert "MEMORY_PRESSURE_WATCH=" + str(GROUP) in Path(f"/proc/{pid}/environ").read_text()
    seen(f"the daemon is told to watch its own group (ready after {time.monotonic() - began:.1f} s)")
    begin()
    time.sleep(RESTS)
    use, held = counted("memory.stat"), call("/health")[1]["memory"]
    working = use["anon"] + use["file_mapped"]
    high = int(SHARE * working)
    print(f"      {SESSIONS} conversations hold {held['states'] >> 20} MiB of {use['anon'] >> 20} of its own, {use['file_mapped'] >> 20} MiB "
          f"are mapped files; MemoryHigh={high >> 20}M", flush=True)
    began, back = given_back(high, held["states"])
    print(f"      nine tenths of it back {back:.2f} s after the mark was set", flush=True)
    climbed(began)
    callers = Callers()
    others = Again(callers.chat, 0.2)
    cached = [callers.talk(n) for n in range(2)]
    others.stop()
    events = counted("memory.events")
    climbed(began)
    assert events["oom"] == events["oom_kill"] == 0 and events["high"] > 0, events
    seen(f"no OOM kill ({events['high']} times over the mark)")
    assert not callers.lost and None not in cached, callers.lost
    seen(f"no request lost: {len(callers.answered)} answered below the mark in {min(callers.answered):.1f} to "
         f"{max(callers.answered):.1f} s, {callers.turned_away} times told to come again")
    lifted = time.monotonic()
    run("systemctl", "set-property", "--runtime", "deltad.service", "MemoryHigh=infinity")
    while call("/health")[1]["pressure"] != "calm":
        assert time.monotonic() < lifted + 30, "it takes too long to be calm again"
        time.sleep(0.2)
    seen(f"calm {time.monotonic() - lifted:.1f} s after the mark went")
    assert back <= 1, "that is too late"
    seen("what idle conversations held is back within a second")
    again = [callers.talk(n) for n in range(SESSIONS)]
    assert all(now >= 8 for now in again), again
    seen("every conversation went on from its state, with nothing read again")
    print(run("deltad", "status"))
    print("inside: passed", flush=True)


def told():
    """What the kernel and the daemon say, for whoever looks for a failure's cause."""
    files = [f"{name}: {(GROUP / name).read_text()}" for name in ("memory.current", "memory.high", "memory.events", "memory.pressure")]
    return "\n".join([*files, run("journalctl", "-u", "deltad.service", "-n", "40", "--no-pager", "-o", "short-monotonic")])


def prepare(root):
    run("make", "-C", str(ROOT), "install", f"DESTDIR={root}", "PREFIX=/usr", f"BUILD={BUILT}")
    model = root / MODEL[1:]
    model.parent.mkdir(parents=True)
    run(BUILT / "deltad-quantize", "synth", model, "--shape", "48b-states", "--layers", "28", "--type", "q4_k", "--quiet")
    (root / "etc/deltad/deltad.toml").write_text(f'[model]\npath = "{MODEL}"\nthreads = 1\n')
    shutil.copytree(Path(__file__).parent, root / "test/tests/systemd")
    # A pass takes longer there than the unit allows.
    more = root / "etc/systemd/system/deltad.service.d/slow.conf"
    more.parent.mkdir(parents=True)
    more.write_text("[Service]\nWatchdogSec=infinity\n")
    unit = root / "etc/systemd/system/pressure.service"
    unit.write_text(INSIDE)
    wants = unit.parent / "multi-user.target.wants"
    wants.mkdir(exist_ok=True)
    (wants / unit.name).symlink_to(f"../{unit.name}")


def boot(root, said):
    """The exit status of the machine; it switches itself off."""
    image = TARGET / "pressure.ext4"
    image.unlink(missing_ok=True)
    run("mke2fs", "-q", "-t", "ext4", "-d", str(root), str(image), "16G")
    kernel, initrd = (next(root.glob(f"boot/{name}-*")) for name in ("vmlinuz", "initrd.img"))
    machine = ["qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "2048", "-nodefaults",
               "-display", "none", "-no-reboot", "-kernel", kernel, "-initrd", initrd,
               "-append", "root=/dev/vda rw console=ttyS0 panic=-1 psi=1",
               "-drive", f"file={image},format=raw,if=virtio,cache=unsafe",
               "-serial", f"file:{TARGET / 'pressure-console.log'}", "-serial", f"file:{said}"]
    try:
        return subprocess.run(machine, stdin=subprocess.DEVNULL, timeout=LIMIT).returncode
    finally:
        image.unlink(missing_ok=True)


def main():
    if not (BUILT / "deltad").exists():
        skip("the programs for any machine are not there: make package")
    check_host(TOOLS)
    began = time.monotonic()
    said = TARGET / "pressure.log"
    with fresh("pressure-root", EXTRA) as root:
        prepare(root)
        status = boot(root, said)
    print(said.read_text().replace("\r", ""), end="", flush=True)
    if "inside: passed" not in said.read_text():
        sys.exit(f"test-pressure: failed (qemu: {status}); see {TARGET / 'pressure-console.log'}")
    print(f"test-pressure: passed in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    if sys.argv[1:] == ["inside"]:
        try:
            inside()
        except Exception:
            print(told(), flush=True)
            raise
    else:
        main()
