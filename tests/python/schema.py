"""Schemathesis against a daemon: `schema.py SOCKET`. Fails with what it found.

It speaks TCP only, so a door on the loopback interface hands its connections on to the socket for as
long as this runs.
"""

import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path


def pour(source, sink):
    try:
        while data := source.recv(1 << 16):
            sink.sendall(data)
    except OSError:
        pass
    finally:
        for end, how in ((source, socket.SHUT_RD), (sink, socket.SHUT_WR)):
            try:
                end.shutdown(how)
            except OSError:
                pass


def hand_on(door, path):
    while True:
        caller, _ = door.accept()
        daemon = socket.socket(socket.AF_UNIX)
        daemon.connect(path)
        for ends in ((caller, daemon), (daemon, caller)):
            threading.Thread(target=pour, args=ends, daemon=True).start()


door = socket.create_server(("127.0.0.1", 0))
threading.Thread(target=hand_on, args=(door, sys.argv[1]), daemon=True).start()
url = "http://127.0.0.1:%d" % door.getsockname()[1]

# A body that fits the schema may still contradict itself (a tool that must be called and no tools), or
# not fit the model's vocabulary and context. The description says so; all other checks are run.
options = [
    "--checks=all",
    "--exclude-checks=positive_data_acceptance",
    "--phases=examples,coverage,fuzzing",
    "--max-examples=40",
    "--seed=1",
    "--generation-deterministic",
    "--request-timeout=60",
    "--no-color",
]
with tempfile.TemporaryDirectory() as place:
    run = subprocess.run(
        [Path(sys.executable).with_name("schemathesis"), "run", f"{url}/openapi.json", *options],
        cwd=place,
        capture_output=True,
        text=True,
    )
if run.returncode != 0:
    sys.exit(run.stdout[-20000:] + run.stderr[-4000:])
print(run.stdout)
