#!/usr/bin/env python3
"""What five kinds of clients send (`tests/traces`), played to deltad and to llama.cpp's server, side by side.

    scripts/traces-beside.py --llama-server PATH --model FILE [--deltad PATH] [--args="--ctx-checkpoints 64"]

Each trace gets a fresh server of each kind with the same GGUF file, both as they are out of the box but for the context
(`--ctx-size 32768`, `--parallel 1` for llama.cpp unless --args says otherwise). Printed as Markdown, by the usage that each
server tells: tokens of prompts that it computed, for each that was new to it, after the first request. How new tokens are
counted says `tests/traces/make.py`; answers differ from server to server, and each is sent back its own. The assistant,
which says only what is new, is a session of deltad's and a whole history for llama.cpp. Then what each has left of a
conversation after its process has ended: deltad's session, suspended, and llama.cpp's slot, saved and restored.
Python's standard library alone.
"""

import argparse
import contextlib
import http.client
import json
import pathlib
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
TRACES = ["codex", "claude_code", "opencode", "plain", "assistant"]
# A template's own tokens around a message, as in tests/e2e/traces.rs.
AROUND = 12
THOUGHTS = ("reasoning", "thinking")


class Door(http.client.HTTPConnection):
    """A server at a path or at a port."""

    def __init__(self, at):
        super().__init__("localhost", timeout=600)
        self.at = at

    def connect(self):
        if isinstance(self.at, int):
            self.sock = socket.create_connection(("127.0.0.1", self.at))
        else:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.connect(self.at)


class Server:
    def __init__(self, command, at, log):
        self.at = at
        self.process = subprocess.Popen(command, stdout=log, stderr=log)

    def ask(self, method, path, body=None):
        door = Door(self.at)
        try:
            door.request(method, path, json.dumps(body) if body is not None else None,
                         {"Content-Type": "application/json"})
            answer = door.getresponse()
            return answer.status, answer.read()
        finally:
            door.close()

    def post(self, path, body):
        status, text = self.ask("POST", path, body)
        if status != 200:
            raise RuntimeError(f"{path}: {status} {text.decode(errors='replace')[:400]}")
        return json.loads(text)

    def wait(self):
        for _ in range(600):
            if self.process.poll() is not None:
                sys.exit(f"it ended: {self.process.args}")
            with contextlib.suppress(OSError):
                if self.ask("GET", "/health")[0] == 200:
                    return self
            time.sleep(0.1)
        sys.exit(f"never ready: {self.process.args}")

    def tokens(self, text):
        return len(self.post("/tokenize", {"content": text})["tokens"])


def deltad(flags, home):
    config = home / "deltad.toml"
    config.write_text(f'[sessions]\ndir = "{home}/sessions"\n')
    path = str(home / "s")
    return [flags.deltad, "serve", "--config", config, "--model", flags.model, "--socket", path], path


def llama(flags, home, *more):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [flags.llama_server, "--model", flags.model, "--host", "127.0.0.1", "--port", str(port), "--ctx-size", "32768",
            "--parallel", "1", "--jinja", *more, *flags.args.split()], port


class Told:
    """What came of a request."""

    def __init__(self, body):
        self.body, usage = body, body.get("usage", {})
        if "prompt_tokens" in usage:
            self.prompt, self.completion = usage["prompt_tokens"], usage["completion_tokens"]
            self.cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
            message = body["choices"][0]["message"]
            self.is_blank = not message.get("content") and not message.get("tool_calls")
            return
        read = usage.get("cache_read_input_tokens", 0)
        self.prompt = usage["input_tokens"] + read + usage.get("cache_creation_input_tokens", 0)
        self.cached = read + (usage.get("input_tokens_details") or {}).get("cached_tokens", 0)
        self.completion = usage["output_tokens"]
        items = body.get("output", body.get("content")) or []
        self.is_blank = all(i["type"] in THOUGHTS for i in items)

    def call(self):
        """The id of its call; one that asked for none is given one."""
        calls = self.body.get("choices", [{}])[0].get("message", {}).get("tool_calls") or []
        items = self.body.get("output", self.body.get("content")) or []
        calls += [i for i in items if i["type"] in ("function_call", "tool_use")]
        return next((c.get("call_id") or c["id"] for c in calls), None)

    def back(self, manner):
        """Itself as a client sends it back."""
        hides = manner.get("reasoning") == "left out"
        shown = lambda items: [i for i in items if not (hides and i["type"] in THOUGHTS)]
        if "choices" in self.body:
            message = {k: v for k, v in self.body["choices"][0]["message"].items() if k != "refusal"}
            if hides:
                message.pop("reasoning_content", None)
            if manner.get("trim"):
                message["content"] = message["content"].strip()
            if manner.get("arguments") == "turned":
                for call in message.get("tool_calls") or []:
                    given = json.loads(call["function"]["arguments"])
                    call["function"]["arguments"] = json.dumps(dict(reversed(given.items())), indent=2)
            return [message]
        if "output" in self.body:
            hidden = lambda i: {"type": "reasoning", "id": i["id"], "summary": [], "content": None,
                                "encrypted_content": None}
            return [hidden(i) if i["type"] in THOUGHTS else i for i in shown(self.body["output"])]
        return [{"role": "assistant", "content": shown(self.body["content"])}]


class Play:
    """One trace against one server."""

    def __init__(self, server, name):
        self.server, self.trace, self.told = server, json.loads((ROOT / f"tests/traces/{name}.json").read_text()), []
        self.prompts = self.new = self.computed = self.failed = 0

    def filled(self, value):
        if isinstance(value, dict):
            if "$call" in value:
                return self.told[value["$call"]].call() or f"call_{value['$call']}"
            return {k: self.filled(v) for k, v in value.items()}
        return [self.filled(v) for v in value] if isinstance(value, list) else value

    def item(self, at):
        item = self.trace["pool"][at]
        if isinstance(item, dict) and "$answer" in item:
            return self.told[item["$answer"]].back(item)
        return [self.filled(item)]

    def texts(self, value):
        if isinstance(value, str):
            return value
        each = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        return "".join(self.texts(v) for v in each)

    def fresh(self, request, told):
        if request.get("new") is not None:
            items = [i for at in request["new"] for i in self.item(at)]
            return sum(self.server.tokens(self.texts(i)) + AROUND for i in items)
        before = self.told[request["after"]]
        return max(told.prompt - before.prompt - (0 if before.is_blank else before.completion), 0)

    def sent(self, request):
        """The path and the body of a request."""
        trace, body = self.trace, dict(self.trace["bodies"][request["body"]])
        items = [i for at in request["items"] for i in self.item(at)]
        if trace["path"] != "Session.Send":
            return trace["path"], body | {trace["into"]: items}
        body["temperature"] = 0
        if isinstance(self.server.at, str):
            if not self.told:
                self.server.post("/v1/sessions", {"name": "talk"})
            return "/v1/sessions/talk/send", body | {"content": items[0]}
        said = trace["requests"][:len(self.told) + 1]
        talk = []
        for at, request in enumerate(said):
            talk.append({"role": "user", "content": self.item(request["items"][0])[0]})
            talk += self.told[at].back({}) if at < len(self.told) else []
        return "/v1/chat/completions", body | {"messages": talk}

    def run(self):
        for at, request in enumerate(self.trace["requests"]):
            told = Told(self.server.post(*self.sent(request)))
            if at > 0:
                self.prompts += told.prompt
                self.new += self.fresh(request, told)
                self.computed += told.prompt - told.cached
            self.told.append(told)
        return [self.prompts, self.new, self.computed, f"{self.computed / self.new:.3f}"]


def one(make, flags, name):
    with tempfile.TemporaryDirectory() as home, open(flags.log, "a") as log:
        server = Server(*make(flags, pathlib.Path(home)), log)
        try:
            return Play(server.wait(), name).run()
        except (RuntimeError, KeyError, ValueError, AttributeError) as why:
            return [f"failed: {type(why).__name__} {why}"] + [""] * 3
        finally:
            server.process.terminate()
            server.process.wait()


@contextlib.contextmanager
def served(command, flags, home):
    """A server for as long as this is used."""
    server = Server(*command(flags, home), subprocess.DEVNULL)
    try:
        yield server.wait()
    finally:
        server.process.terminate()
        server.process.wait()


TEXT = "The quick brown fox jumps over the lazy dog. " * 500
ASK = {"max_tokens": 1, "temperature": 0}


def asked(server, path, body):
    """What a server computed of a prompt, of how many tokens, and the milliseconds until its answer was there."""
    start = time.monotonic()
    told = Told(server.post(path, body | ASK))
    return told, [told.prompt, told.prompt - told.cached, f"{(time.monotonic() - start) * 1000:.0f}"]


def after_the_end_of_deltad(flags, home):
    with served(deltad, flags, home) as server:
        server.post("/v1/sessions", {"name": "talk", "content": TEXT})
        first = asked(server, "/v1/sessions/talk/send", {"content": "And?"})[1]
        server.post("/v1/sessions/talk/suspend", {})
    with served(deltad, flags, home) as server:
        start = time.monotonic()
        server.post("/v1/sessions/talk/resume", {})
        took = (time.monotonic() - start) * 1000
        return first, took, asked(server, "/v1/sessions/talk/send", {"content": "And then?"})[1]


def after_the_end_of_llama(flags, home):
    keeps = lambda flags, home: llama(flags, home, "--slot-save-path", str(home) + "/")
    talk = [{"role": "user", "content": TEXT}, {"role": "user", "content": "And?"}]
    slot = {"filename": "talk"}
    with served(keeps, flags, home) as server:
        told, first = asked(server, "/v1/chat/completions", {"messages": talk})
        server.post("/slots/0?action=save", slot)
    talk += told.back({}) + [{"role": "user", "content": "And then?"}]
    with served(keeps, flags, home) as server:
        start = time.monotonic()
        server.post("/slots/0?action=restore", slot)
        took = (time.monotonic() - start) * 1000
        return first, took, asked(server, "/v1/chat/completions", {"messages": talk})[1]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--llama-server", required=True, help="the program of a build of llama.cpp")
    parser.add_argument("--model", required=True, help="a GGUF file that both can serve")
    parser.add_argument("--deltad", default=ROOT / "target/release/deltad")
    parser.add_argument("--args", default="", help="more flags of llama-server's")
    parser.add_argument("--log", default="/dev/null", help="what the servers say")
    parser.add_argument("traces", nargs="*", default=TRACES)
    flags = parser.parse_args()
    print("| trace | requests | deltad: tokens of prompts | new | computed | for each new one "
          "| llama.cpp: tokens of prompts | new | computed | for each new one |\n" + "|---" * 10 + "|")
    for name in flags.traces:
        requests = len(json.loads((ROOT / f"tests/traces/{name}.json").read_text())["requests"])
        both = [one(make, flags, name) for make in (deltad, llama)]
        print(f"| {name} | {requests - 1} | " + " | ".join(str(x) for row in both for x in row) + " |", flush=True)
    print("\n| a process later | first prompt, tokens | computed | ms | taken up in, ms | next prompt | computed | ms |\n"
          + "|---" * 8 + "|")
    for name, after in (("deltad", after_the_end_of_deltad), ("llama.cpp", after_the_end_of_llama)):
        with tempfile.TemporaryDirectory() as home:
            first, took, then = after(flags, pathlib.Path(home))
        print(f"| {name} | " + " | ".join(str(x) for x in [*first, f"{took:.0f}", *then]) + " |", flush=True)


main()
