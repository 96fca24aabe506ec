#!/usr/bin/env python3
"""Asks a running deltad the held-out questions, as any OpenAI client would, and judges the replies. Greedy.

usage: score.py [--socket PATH] [--heldout heldout.jsonl] [--only CATEGORY]... [--every N] [--json OUT] [--show]
Standard library only: HTTP over the Unix socket."""
import argparse
import http.client
import json
import os
import socket
import sys
import time

from checks import passes, table

HERE = os.path.dirname(os.path.abspath(__file__))


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def call(path, method, url, body=None, timeout=300):
    connection = UnixConnection(path, timeout)
    try:
        connection.request(method, url, json.dumps(body) if body is not None else None, {"Content-Type": "application/json"})
        response = connection.getresponse()
        text = response.read().decode()
    finally:
        connection.close()
    if response.status != 200:
        raise RuntimeError(f"{method} {url}: {response.status} {text[:300]}")
    return json.loads(text)


def default_socket():
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return os.path.join(runtime, "deltad", "deltad.sock") if runtime else "/run/deltad/deltad.sock"


def request(item, model):
    body = dict(model=model, messages=item["messages"], temperature=0, max_tokens=item["max_tokens"])
    return body | {k: item[k] for k in ("tools", "tool_choice", "response_format") if k in item}


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--socket", default=default_socket())
    ap.add_argument("--heldout", default=os.path.join(HERE, "heldout.jsonl"))
    ap.add_argument("--only", action="append", metavar="CATEGORY", help="this category alone; may be repeated")
    ap.add_argument("--every", type=int, default=1, metavar="N", help="of these every Nth question alone")
    ap.add_argument("--json", metavar="OUT", help="also write the scores here")
    ap.add_argument("--show", action="store_true", help="print what went wrong")
    a = ap.parse_args()
    with open(a.heldout) as f: items = [json.loads(line) for line in f]
    if a.only: items = [i for i in items if i["category"] in a.only]
    if not items: ap.error("no such category")
    items = items[::a.every]
    model = call(a.socket, "GET", "/v1/models")["data"][0]["id"]
    results, began = [], time.time()
    for n, item in enumerate(items, 1):
        message = call(a.socket, "POST", "/v1/chat/completions", request(item, model))["choices"][0]["message"]
        right = passes(item["check"], message)
        results.append((item["category"], right))
        if a.show and not right:
            print(f"-- {item['id']}: {item['messages'][-1]['content'][-160:]!r}\n   wanted {item['check']['want']!r}\n   got    {message!r}", flush=True)
        if sys.stderr.isatty(): print(f"\r{n} of {len(items)}", end="", file=sys.stderr)
    by, text = table(results)
    print(text)
    if a.json:
        with open(a.json, "w") as f: json.dump(dict(model=model, seconds=round(time.time() - began, 1), categories=by), f, indent=1)


if __name__ == "__main__":
    main()
