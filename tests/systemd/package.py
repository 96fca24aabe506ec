#!/usr/bin/env python3
"""Installs the Debian package that `make package` made in a small booted Debian, asks, upgrades
while a conversation is kept, removes and purges it, and looks at what stays. Needs what run.py
needs; without a package says so and does nothing."""

import json
import shutil
import tempfile
import time
from pathlib import Path

from container import ROOT, SOCKET, TARGET, booted, check_host, fresh, run, seen, skip

MODEL = "/var/lib/deltad/models/tiny.gguf"
CONFIG = f'[model]\npath = "{MODEL}"\nthreads = 1\n'


KERNELS = "/usr/lib/deltad/deltad-kernels.fatbin"


def package(name):
    made = sorted((TARGET / "package").glob(f"{name}_*_amd64.deb"))
    return made[-1] if made else None


def newer(deb, to):
    """The same package, a version later."""
    with tempfile.TemporaryDirectory() as at:
        run("dpkg-deb", "--raw-extract", deb, at)
        control = Path(at, "DEBIAN/control")
        lines = control.read_text().splitlines()
        lines = [f"{line}+1" if line.startswith("Version:") else line for line in lines]
        control.write_text("\n".join(lines) + "\n")
        run("dpkg-deb", "--root-owner-group", "--build", at, to)


def answered(m, body, path="/v1/responses"):
    (m.root / "body.json").write_text(json.dumps(body))
    said = m(f"curl -sS --max-time 60 --unix-socket {SOCKET} -d @/body.json "
             f"-H 'Content-Type: application/json' http://localhost{path}")
    said = json.loads(said)
    assert "error" not in said or said["error"] is None, said
    return said


def installed(m):
    m("dpkg --install /deltad.deb")
    assert m("systemctl is-enabled deltad.socket").strip() == "enabled"
    assert m.state() == "inactive", "nothing runs before somebody asks"
    m("systemctl is-active deltad.socket")
    m("id deltad")
    assert m("systemctl --global is-enabled deltad.socket", check=False).strip() == "disabled"
    seen("the package installs, its socket listens, no user gets a daemon unasked")
    m(f"deltad-quantize convert /tiny {MODEL} --type f32 --quiet")
    (m.root / "etc/deltad/deltad.toml").write_text(CONFIG)


def kernels(m):
    """The second package, which is made where a CUDA toolkit was."""
    m(f"! test -e {KERNELS}")
    m("dpkg --install /deltad-cuda.deb")
    m(f"test -s {KERNELS}")
    assert "deltad-cuda" in m("dpkg --remove deltad 2>&1", check=False), "the programs are wanted by it"
    m("dpkg --purge deltad-cuda")
    m("! test -e /usr/lib/deltad")
    seen("kernels for NVIDIA cards come and go with their own package, which wants the programs")


def upgraded(m):
    first = answered(m, {"input": "My name is Tessa.", "max_output_tokens": 16})
    m("dpkg --install --force-confdef /newer.deb")
    assert m("dpkg-query --show --showformat='${Version}' deltad").endswith("+1")
    assert (m.root / "etc/deltad/deltad.toml").read_text() == CONFIG
    second = answered(m, {"input": "And?", "previous_response_id": first["id"], "max_output_tokens": 4})
    assert second["previous_response_id"] == first["id"]
    seen("an upgrade keeps the configuration, and a conversation goes on after it")


def removed(m):
    m("dpkg --remove deltad")
    m("! command -v deltad && ! systemctl cat deltad.service 2>/dev/null")
    assert (m.root / "etc/deltad/deltad.toml").read_text() == CONFIG
    m("dpkg --purge deltad")
    assert not (m.root / "etc/deltad").exists()
    assert (m.root / MODEL[1:]).exists()
    seen("removed it leaves the configuration, purged it leaves models and conversations")
    m("dpkg --install /deltad.deb")
    m("echo 'deltad deltad/remove-data boolean true' | debconf-set-selections")
    m("dpkg --purge deltad")
    assert not (m.root / "var/lib/deltad").exists()
    seen("purged by somebody who gives them up, it leaves nothing")


def main():
    deb, cuda = package("deltad"), package("deltad-cuda")
    if not deb:
        skip("no package: make package (with debhelper installed)")
    check_host()
    began = time.monotonic()
    with fresh("package-root") as root:
        shutil.copy(deb, root / "deltad.deb")
        newer(deb, root / "newer.deb")
        if cuda:
            shutil.copy(cuda, root / "deltad-cuda.deb")
        shutil.copytree(ROOT / "tests/fixtures/tiny", root / "tiny")
        with booted(root) as machine:
            installed(machine)
            if cuda:
                kernels(machine)
            else:
                print("test-package: no package of kernels, for want of nvcc: not tried")
            upgraded(machine)
            removed(machine)
    print(f"test-package: passed in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
