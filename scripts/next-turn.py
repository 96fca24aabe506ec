#!/usr/bin/env python3
"""How soon the next turn of a long conversation begins: scripts/next-turn.py SOCKET [DEPTH...]

Sends a conversation whole, as chat windows do, then asks again behind it. First token of the next turn; what
of it the engine was reading the new tokens behind all that was kept (`timings.prompt_ms`), and what everything
else took: the socket, JSON, the template, the tokenizer, finding the state, waking up, choosing and telling the
token. Beside it the same question in a conversation of its own. Medians of seven, in milliseconds. Python's
standard library alone.
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
    """Milliseconds to the first token, of those the engine's for reading, the answer, and the usage."""
    door = Unix("deltad", timeout=300)
    body = {"messages": messages, "max_tokens": 24, "temperature": 0, "stream": True,
            "stream_options": {"include_usage": True}}
    body = json.dumps(body)
    door.connect()
    start = time.monotonic()
    door.request("POST", "/v1/chat/completions", body)
    answer, first, text, usage, reading = door.getresponse(), None, "", None, None
    for line in answer:
        if not line.startswith(b"data: {"):
            continue
        chunk = json.loads(line[6:])
        usage = chunk.get("usage") or usage
        reading = chunk.get("timings", {}).get("prompt_ms", reading)
        for choice in chunk["choices"]:
            piece = choice["delta"].get("content") or ""
            if piece and first is None:
                first = time.monotonic() - start
            text += piece
    return first * 1000, reading, text, usage


def said(n, seed):
    draw = random.Random(seed)
    return " ".join(draw.choice(WORDS) for _ in range(n))


print("| history | new | next turn | of it reading | all else | at most | alone | of it reading | all else |\n" + "|---" * 9 + "|")
for depth in DEPTHS:
    talk = [{"role": "user", "content": said(600, depth)}]
    while True:
        _, _, text, usage = ask(talk)
        talk.append({"role": "assistant", "content": text})
        if usage["total_tokens"] > depth - 700:
            break
        talk.append({"role": "user", "content": said(600, usage["total_tokens"])})
    known, warm, alone, new = usage["total_tokens"], [], [], 0
    median = lambda rows, n: statistics.median(row[n] for row in rows)
    for turn in range(7):
        question = {"role": "user", "content": said(40, f"{depth} {turn}")}
        took, reading, _, usage = ask(talk + [question])
        warm.append((took, reading, took - reading))
        new = usage["prompt_tokens"] - usage["prompt_tokens_details"]["cached_tokens"]
        took, reading, _, usage = ask([{"role": "system", "content": f"{turn}"}, question])
        alone.append((took, reading, took - reading))
    figures = [median(warm, n) for n in range(3)] + [max(row[2] for row in warm)] + [median(alone, n) for n in range(3)]
    print(f"| {known} | {new} | " + " | ".join(f"{f:.1f}" for f in figures) + " |")
