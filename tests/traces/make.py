#!/usr/bin/env python3
"""Makes the traces beside it: what five kinds of clients send, request by request.

Made after how the clients behave (their bodies, what they send back of an answer, what they leave out),
with texts drawn by a fixed seed. Python's standard library alone:

    python3 tests/traces/make.py            # writes tests/traces/*.json
    python3 tests/traces/make.py --check    # says whether they are what this makes

A trace has `bodies` (everything but the conversation), `pool` (items of conversations) and `requests`,
each a body and the items that it sends. In an item, {"$answer": n} stands for the answer to request n as
this client sends it back, {"$call": n} for the id of its call. `after` is the request whose prompt and
answer a request goes on from; where there is none, `new` lists what no request before it had.
"""

import json
import pathlib
import random
import sys

HERE = pathlib.Path(__file__).parent
TURNS = 32
WORDS = """about after again answer before between branch build cache change check client clock cluster
code column commit config count daemon data delete device disk door driver edge engine error event field
file filter first flag folder frame function graph group handle header index input journal kernel key last
layer length line list lock log loop machine map memory merge message method model module name network
number object offset option order output package page parse patch path pool port process queue range read
record release remote request result return route row rule scan schema score script second select server
session set shape signal size socket source stack state step stop store stream string system table tail
task test text thread time token tool trace tree type unit update user value vector version window word
write year zone""".split()


class Trace:
    def __init__(self, client, path, into, seed):
        self.client, self.path, self.into = client, path, into
        self.draw = random.Random(seed)
        self.bodies, self.pool, self.requests = [], [], []

    def words(self, low, high):
        n = self.draw.randint(low, high)
        words = [self.draw.choice(WORDS) for _ in range(n)]
        for at in range(7, n, 8):
            words[at] += self.draw.choice([".", ",", ";", ":"])
        return " ".join(words).capitalize() + "."

    def lines(self, low, high):
        """As a tool prints a file."""
        n = self.draw.randint(low, high)
        pick = lambda: self.draw.choice(WORDS)
        return "\n".join(f"{i:4}  let {pick()}_{pick()} = {pick()}({pick()}, {self.draw.randint(0, 999)});"
                         for i in range(1, n + 1))

    def body(self, **fields):
        self.bodies.append(fields)
        return len(self.bodies) - 1

    def item(self, value):
        self.pool.append(value)
        return len(self.pool) - 1

    def ask(self, body, items, after=None, **more):
        self.requests.append({"body": body, "items": list(items), "after": after, **more})
        return len(self.requests) - 1

    def answer(self, request, **manner):
        return self.item({"$answer": request, **manner})

    def done(self):
        return {"client": self.client, "path": self.path, "into": self.into,
                "bodies": self.bodies, "pool": self.pool, "requests": self.requests}


def schema(**properties):
    return {"type": "object", "properties": properties, "required": list(properties),
            "additionalProperties": False}


STRING = {"type": "string", "maxLength": 8}
FUNCTIONS = [
    ("shell", "Runs a command and returns its output.", schema(command=STRING)),
    ("read_file", "Reads a file of the work tree.", schema(path=STRING, offset={"type": "integer",
                                                           "minimum": 0, "maximum": 99})),
    ("update_plan", "Shows the steps of the task.", schema(step=STRING)),
]


def turned(value):
    """The same with every object's keys the other way round."""
    if isinstance(value, dict):
        return {k: turned(v) for k, v in reversed(value.items())}
    return [turned(v) for v in value] if isinstance(value, list) else value


def codex():
    """Responses without a store: the whole history each time, reasoning without what it says."""
    t = Trace("codex", "/v1/responses", "input", 1)
    tools = [{"type": "function", "name": n, "description": d, "strict": False, "parameters": p}
             for n, d, p in FUNCTIONS]
    common = {"instructions": "You are a coding agent in a terminal. " + t.words(700, 700),
              "tools": tools, "parallel_tool_calls": False, "store": False, "stream": False, "temperature": 0,
              "reasoning": {"effort": "medium", "summary": "auto"},
              "include": ["reasoning.encrypted_content"], "prompt_cache_key": "0198f2aa-7c1e"}
    calls = t.body(**common, tool_choice="required", max_output_tokens=300)
    talks = t.body(**common, tool_choice="none", max_output_tokens=40)
    say = lambda role, text: t.item({"type": "message", "role": role,
                                     "content": [{"type": "input_text", "text": text}]})
    line = [say("developer", "<permissions>" + t.words(60, 60) + "</permissions>"),
            say("user", "<environment_context>" + t.words(40, 40) + "</environment_context>"),
            say("user", t.words(20, 40))]
    front, last = line[:2], None
    for turn in range(TURNS):
        if turn == 22:  # Compaction: what was said becomes a summary, and the front stays.
            summary = say("user", "Another model has worked on this. Its summary: " + t.words(180, 180))
            line = front + [summary]
            last = t.ask(calls, line, None, new=[summary], why="compaction")
        else:
            last = t.ask(calls if turn % 4 != 3 else talks, line, last)
        if turn % 4 != 3:
            line.append(t.answer(last, reasoning=["hidden", "left out"][turn % 2]))
            line.append(t.item({"type": "function_call_output", "call_id": {"$call": last},
                                "output": json.dumps({"output": t.lines(6, 14), "exit_code": 0})}))
        else:
            line.append(t.answer(last, reasoning="hidden"))
            line.append(say("user", t.words(15, 50)))
    return t.done()


def claude_code():
    """Messages with marks of what to keep; a reminder that stands behind the newest words alone."""
    t = Trace("claude-code", "/v1/messages", "messages", 2)
    mark = {"cache_control": {"type": "ephemeral"}}
    tools = [{"name": n, "description": d, "input_schema": p} for n, d, p in FUNCTIONS]
    tools[-1] |= mark
    common = {"system": [{"type": "text", "text": "You are an agent that writes code."} | mark,
                         {"type": "text", "text": t.words(800, 800)} | mark],
              "tools": tools, "stream": False, "temperature": 0, "metadata": {"user_id": "user_1"}}
    one = {"disable_parallel_tool_use": True}
    calls = t.body(**common, max_tokens=300, tool_choice={"type": "any"} | one)
    talks = t.body(**common, max_tokens=40, tool_choice={"type": "none"})
    text = lambda s: {"type": "text", "text": s}
    say = lambda *blocks: t.item({"role": "user", "content": list(blocks)})

    def ask(body, line, *rest, **more):
        """The newest words alone bear the mark."""
        newest = t.pool[line[-1]]["content"]
        marked = t.item({"role": "user", "content": newest[:-1] + [newest[-1] | mark]})
        return t.ask(body, line[:-1] + [marked], *rest, **more)

    reminder = text("<system-reminder>" + t.words(30, 30) + "</system-reminder>")
    line, last = [say(reminder, text(t.words(20, 40)))], None
    for turn in range(TURNS):
        last = ask(calls if turn % 5 != 4 else talks, line, last)
        line.append(t.answer(last, reasoning=["kept", "left out"][turn % 2]))
        if turn % 5 != 4:
            result = lambda: {"type": "tool_result", "tool_use_id": {"$call": last}, "content": out}
            out = t.lines(6, 14)
            if turn in (6, 17):  # The reminder stands here this once, and in no later request.
                once = line + [say(result(), reminder)]
                asked = ask(talks, once, last)
                line.append(say(result()))
                line.append(t.answer(asked, reasoning="kept"))
                line.append(say(text(t.words(10, 20))))
                fed = line[-2:]
                last = ask(calls, line, last, new=fed, why="the reminder has moved")
                line.append(t.answer(last, reasoning="kept"))
                out = t.lines(4, 8)
            line.append(say(result()))
        else:
            line.append(say(text(t.words(15, 50))))
    return t.done()


def opencode():
    """Chat completions; tools and arguments come back in another order, and two agents take turns."""
    t = Trace("opencode", "/v1/chat/completions", "messages", 3)
    tools = [{"type": "function", "function": {"name": n, "description": d, "parameters": p}}
             for n, d, p in FUNCTIONS]
    common = {"stream": False, "temperature": 0, "parallel_tool_calls": False}
    spelled = [{**common, "tools": tools}, {**common, "tools": turned(tools)}]
    calls = [t.body(**c, tool_choice="required", max_tokens=300) for c in spelled]
    talks = [t.body(**c, tool_choice="none", max_tokens=40) for c in spelled]
    system = t.item({"role": "system", "content": "You are opencode. " + t.words(500, 500)})
    say = lambda s: t.item({"role": "user", "content": [{"type": "text", "text": s}]})
    lines = [[system, say(t.words(20, 40))], [system, say(t.words(20, 40))]]
    last = [None, None]
    for turn in range(2 * TURNS):
        who = turn % 2 if turn > 1 else turn
        n = turn // 2
        line = lines[who]
        # A conversation's first request has nothing before it but the other's front.
        more = {"new": line[1:], "why": "another conversation"} if turn == 1 else {}
        body = (calls if n % 3 != 2 else talks)[n % 2 if n else 0]
        last[who] = t.ask(body, line, last[who], **more)
        line.append(t.answer(last[who], arguments="turned", reasoning="left out"))
        if n % 3 != 2:
            line.append(t.item({"role": "tool", "tool_call_id": {"$call": last[who]},
                                "content": t.lines(4, 10)}))
        else:
            line.append(say(t.words(15, 50)))
    return t.done()


def plain():
    """A window to chat in: the whole history, answers trimmed; a question is put otherwise, and again."""
    t = Trace("plain", "/v1/chat/completions", "messages", 4)
    body = t.body(stream=False, temperature=0.8, max_tokens=48, seed=5)
    system = t.item({"role": "system", "content": "You are a helpful assistant."})
    say = lambda: t.item({"role": "user", "content": t.words(10, 60)})
    line, last = [system, say()], None
    for turn in range(TURNS):
        last = t.ask(body, line, last)
        if turn == 20:  # What was asked at turn 12 is put otherwise; what followed is gone.
            line = line[:2 + 2 * 12 - 1] + [say()]
            last = t.ask(body, line, 11, why="an edited message")
        if turn == 26:  # The same again, for another answer.
            last = t.ask(body, line, t.requests[last]["after"], why="once more")
        line = line + [t.answer(last, trim=True), say()]
    return t.done()


def assistant():
    """On the bus only what is new is said; the daemon has the rest."""
    t = Trace("assistant", "Session.Send", "text", 5)
    body = t.body(max_tokens=48, temperature=0.8)
    last = None
    for _ in range(TURNS):
        last = t.ask(body, [t.item(t.words(8, 40))], last)
    return t.done()


def written(trace):
    """An item or a request a line."""
    fields = []
    for name, value in trace.items():
        if isinstance(value, list):
            value = "[\n  " + ",\n  ".join(json.dumps(v) for v in value) + "\n ]"
        else:
            value = json.dumps(value)
        fields.append(f' "{name}": {value}')
    return "{\n" + ",\n".join(fields) + "\n}\n"


def main():
    wrong = []
    for make in (codex, claude_code, opencode, plain, assistant):
        path = HERE / f"{make.__name__}.json"
        text = written(make())
        if "--check" not in sys.argv:
            path.write_text(text)
        elif path.read_text() != text:
            wrong.append(path.name)
    if wrong:
        sys.exit(f"not what this makes: {', '.join(wrong)}")


main()
