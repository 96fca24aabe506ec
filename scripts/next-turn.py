#!/usr/bin/env python3
"""How soon the next turn of a long conversation begins: scripts/next-turn.py SOCKET [DEPTH...]

Sends a conversation whole, as chat windows do, then asks again behind it. First token of the next turn
beside that of the same question in a conversation of its own, which is what reading it alone takes. Medians
of seven, in milliseconds. Python's standard library alone.
"""

import http.client
import json
import random
import socket
import statistics
import sys
import time

PATH = sys.argv[1]
DEPTHS = [int(a) for a in sys.argv[2:]] or [8192]
WORDS = "about after again answer before between branch build cache change check client code data".split()


class Unix(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(PATH)


def ask(messages):
    """Milliseconds to the first token, the answer, and the usage."""
    door = Unix("deltad", timeout=300)
    body = {"messages": messages, "max_tokens": 24, "temperature": 0, "stream": True,
            "stream_options": {"include_usage": True}}
    body = json.dumps(body)
    door.connect()
    start = time.monotonic()
    door.request("POST", "/v1/chat/completions", body)
    answer, first, text, usage = door.getresponse(), None, "", None
    for line in answer:
        if not line.startswith(b"data: {"):
            continue
        chunk = json.loads(line[6:])
        usage = chunk.get("usage") or usage
        for choice in chunk["choices"]:
            piece = choice["delta"].get("content") or ""
            if piece and first is None:
                first = time.monotonic() - start
            text += piece
    return first * 1000, text, usage


def said(n, seed):
    draw = random.Random(seed)
    return " ".join(draw.choice(WORDS) for _ in range(n))


print("| history | new | next turn, ms | the same alone, ms | more, ms |\n|---|---|---|---|---|")
for depth in DEPTHS:
    talk = [{"role": "user", "content": said(600, depth)}]
    while True:
        _, text, usage = ask(talk)
        talk.append({"role": "assistant", "content": text})
        if usage["total_tokens"] > depth - 700:
            break
        talk.append({"role": "user", "content": said(600, usage["total_tokens"])})
    known, warm, alone, new = usage["total_tokens"], [], [], 0
    for turn in range(7):
        question = {"role": "user", "content": said(40, f"{depth} {turn}")}
        took, _, usage = ask(talk + [question])
        warm.append(took)
        new = usage["prompt_tokens"] - usage["prompt_tokens_details"]["cached_tokens"]
        took, _, usage = ask([{"role": "system", "content": f"{turn}"}, question])
        alone.append(took)
    a, b = statistics.median(warm), statistics.median(alone)
    print(f"| {known} | {new} | {a:.1f} | {b:.1f} | {a - b:.1f} |")
