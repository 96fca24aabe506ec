#!/usr/bin/env python3
"""One conversation through all that may come between: begun in `deltad chat`, killed in the middle of
an answer, its package upgraded, the machine booted again, and gone on with from openai's client and
from D-Bus, in two ways, with nothing read again. Needs what package.py needs, and pip; without them
says why and does nothing."""

import json
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

from container import ROOT, SOCKET, TARGET, booted, check_host, fresh, run, seen, skip
from package import newer, package

MODEL = "/var/lib/deltad/models/demo.gguf"
CONFIG = f'[model]\npath = "{MODEL}"\nthreads = 1\n'
# Asks once, after the answer that it is told.
OPENAI = """
import json, sys, openai
try:
    import httpx2 as httpx
except ImportError:
    import httpx
http = httpx.Client(transport=httpx.HTTPTransport(uds=sys.argv[1]), timeout=120)
client = openai.OpenAI(base_url="http://deltad/v1", api_key="none", http_client=http, max_retries=0)
answer = client.responses.create(model=client.models.list().data[0].id, input="What is my name?", temperature=0,
                                 max_output_tokens=24, previous_response_id=sys.argv[2])
usage = answer.usage
print(json.dumps([answer.output_text, usage.input_tokens, usage.input_tokens_details.cached_tokens]))
"""
# Forks the session in two, and asks each something else.
FORKS = """
import json, sys
from jeepney import DBusAddress, new_method_call
from jeepney.io.blocking import open_dbus_connection
NAME = "org.deltad.Inference1"
SHORT = {"max_tokens": ("u", 24), "temperature": ("d", 0.0)}
with open_dbus_connection(bus=f"unix:path={sys.argv[1]}", enable_fds=True) as bus:
    def call(path, method, signature, body, face="Session"):
        at = DBusAddress(path, bus_name=NAME, interface=f"{NAME}.{face}")
        reply = bus.send_and_get_reply(new_method_call(at, method, signature, body), timeout=60)
        assert reply.header.message_type.name == "method_return", reply
        return reply.body
    (talk,) = call("/org/deltad/Inference1", "OpenSession", "s", ("talk",), "Manager")
    for name, question in (("one", "What is my name?"), ("other", "What is 4 + 4?")):
        (way,) = call(talk, "Clone", "a{sv}", ({"name": ("s", name), "persist": ("b", True)},))
        _, descriptor = call(way, "Send", "sa{sv}", (question, SHORT))
        with descriptor.to_file("rb") as lines:
            events = [json.loads(line) for line in lines]
        usage = events[-1]["usage"]
        text = "".join(event["text"] for event in events if event["event"] == "delta")
        print(json.dumps([text, usage["prompt_tokens"], usage["cached_tokens"]]))
"""
# Tokens of a question as short as those below, with what a chat puts around it.
QUESTION = 32


def clients():
    """A Python with openai's client, and one for the bus."""
    python = TARGET / "tmp/lasting-venv/bin/python"
    if not python.exists() or subprocess.run([python, "-c", "import jeepney, openai"], capture_output=True).returncode != 0:
        run(sys.executable, "-m", "venv", "--clear", python.parents[1])
        pip = subprocess.run([python, "-m", "pip", "install", "--quiet", "jeepney", "openai"], capture_output=True)
        if pip.returncode != 0:
            skip("clients for Python are not to be had")
    return python


def shown(m):
    return json.loads(m.ask("/v1/sessions/talk"))


def post(m, path, body):
    (m.root / "body.json").write_text(json.dumps(body))
    return m.ask(path, more="-N -d @/body.json -H 'Content-Type: application/json'")


def begun(m):
    m("dpkg --install /deltad.deb")
    m(f"deltad-quantize convert /demo {MODEL} --type f16 --quiet")
    (m.root / "etc/deltad/deltad.toml").write_text(CONFIG)
    m("deltad chat --session talk", input="My name is Tessa.\nWhat is 3 + 4?\n")
    assert shown(m)["message_count"] == 4, shown(m)
    seen("a conversation is begun in deltad chat, and kept")


def killed(m):
    body = {"content": "Count from 1 to 100.", "stream": True, "ignore_eos": True, "max_tokens": 20000, "temperature": 0}
    came = []
    answer = threading.Thread(target=lambda: came.append(
        m(f"curl -sS -N --unix-socket {SOCKET} -d @/long.json -H 'Content-Type: application/json' "
          "http://localhost/v1/sessions/talk/send || true")))
    (m.root / "long.json").write_text(json.dumps(body))
    answer.start()
    m.until("an answer runs", lambda: '"active":1' in m.ask("/health"))
    # What was said is safe to the second.
    time.sleep(3)
    m("systemctl kill --signal=KILL deltad.service")
    answer.join()
    assert "[DONE]" not in came[0], "it was to be cut"
    chunks = [json.loads(line[6:]) for line in came[0].splitlines() if line.startswith("data: {")]
    words = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)
    kept = shown(m)["messages"]
    assert [message["role"] for message in kept] == ["user", "assistant"] * 3, kept
    cut = kept[5]["content"]
    assert len(cut) > 0 and (words.startswith(cut) or cut.startswith(words)), (words[-80:], cut[-80:])
    seen(f"killed in the middle of an answer, it has {len(cut)} of the {len(words)} characters that were seen, and all before")
    return kept


def upgraded(m, kept):
    m("dpkg --install --force-confdef /newer.deb")
    assert shown(m)["messages"] == kept
    said = json.loads(post(m, "/v1/sessions/talk/send", {"content": "What is my name?", "max_tokens": 24, "temperature": 0}))
    assert "Tessa" in said["choices"][0]["message"]["content"], said
    assert said["usage"]["prompt_tokens"] > len(kept[5]["content"]) // 3, "what was cut off is a part of it"
    seen("the package is upgraded, and the conversation goes on")
    return shown(m)


def nothing_read_again(read, cached, before):
    return read - cached <= QUESTION and cached >= before - 1


def again(m, python, before):
    """After another start of the machine."""
    assert shown(m)["messages"] == before["messages"]
    total, outside = before["context"]["tokens"], f"/proc/{m.leader[0]}/root"
    said = run(python, "-c", OPENAI, outside + SOCKET, before["last_response_id"])
    text, read, cached = json.loads(said)
    assert "Tessa" in text and nothing_read_again(read, cached, total), (said, total)
    seen(f"the machine has started again, and openai's client goes on from the answer's id: {cached} of {read} tokens were read before")

    said = run(python, "-c", FORKS, f"{outside}/run/dbus/system_bus_socket").splitlines()
    for line, wanted in zip(said, ("Tessa", "8"), strict=True):
        text, read, cached = json.loads(line)
        assert wanted in text and nothing_read_again(read, cached, total), (line, total)
    seen("forked in two on D-Bus, both go on with nothing read again")


def main():
    deb = package("deltad")
    if not deb:
        skip("no package: make package (with debhelper installed)")
    check_host()
    python, began = clients(), time.monotonic()
    with fresh("lasting-root") as root:
        shutil.copy(deb, root / "deltad.deb")
        newer(deb, root / "newer.deb")
        shutil.copytree(ROOT / "demo/model", root / "demo")
        with booted(root) as machine:
            begun(machine)
            before = upgraded(machine, killed(machine))
        with booted(root) as machine:
            again(machine, python, before)
    print(f"test-lasting: passed in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
