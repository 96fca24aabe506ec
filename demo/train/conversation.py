"""Owns the mixing: tasks into conversations of a wanted length, conversations into text, text into tokens and loss
weights. One training row is one conversation from its first token, so the model always starts as the daemon does."""
import json, re
import chat, foreign, forced, letters, lists, refusals, sums, talk, tools, turns
from facts import DONT_KNOW, Facts, apart, tell, recall, unknown, change, passage, summary, follow
from schemas import Habit
from turns import FAINT, MUTE, plain
from world import DAYS, SPOTS, World

DEFAULT_SYSTEM = "You are a helpful assistant"
SYSTEMS = ["You are a helpful assistant.", "You are deltad, a small local assistant.", "Answer briefly.", "You are a friendly helper on a desk.", "You are a careful assistant. Answer in one line.", "Be brief and exact."]
RULES = ["You are a helpful assistant.", "You are {n}'s assistant.", "You are an assistant of the firm {m}.", "Be polite.", "Always answer in English.", "Keep your answers short.", "Never make things up.", "If you do not know something, say so.", "Use the tools that you have.", "You are {n}, a friendly robot.", "You work at the {s}.", "The user is a customer.", "Answer the user's questions.", "You are a customer service agent.", "Do not talk about politics.", "Think step by step.", "You speak with {n}.", "Today is {d}.", "You are an expert.", "You must follow these rules.", "Reply in plain text.", "Do not use emoji."]
FAINTLY = 0.1                                              # of what a server forces of it
REST = 0.05                                                # loss weight of all that the assistant does not say

PLAIN = [(sums.arithmetic, 24), (sums.times, 4), (sums.half, 1.8), (sums.parity, 1.8), (sums.bigger, 5), (letters.spelling, 22), (letters.letters, 13), (letters.echo, 5.5), (lists.sorting, 12), (lists.counting, 24), (sums.tally, 11),
         (tools.extraction, 11), (tools.stated, 4), (forced.asked, 7), (forced.mentioned, 5), (talk.greeting, 2.5), (talk.identity, 3.5), (talk.ability, 4), (talk.manners, 6.5), (talk.felt, 2.2), (chat.about_it, 4), (chat.aided, 1.5), (chat.remark, 8), (refusals.unknowable, 11), (refusals.impossible, 10), (refusals.unclear, 3.5)]
PLAIN_TASKS, PLAIN_WEIGHTS = zip(*PLAIN)

FIRST = ["what did I (say|ask|write|type|tell you|say to you) (first|at first|at the start|at the beginning|in the beginning|to begin with|first of all)", "what was (the|my) (very |)first (thing I (said|asked|told you|wrote|typed)|message|question|sentence|thing)", "(and |)what did I (say|ask|write) first( of all|)", "(repeat|say|tell me|quote) (my first (message|question|sentence)|the first thing I (said|asked|wrote)|what I said first)", "how did (I|we|this talk|our talk|the conversation) (start|begin)", "with what did I (start|begin)", "do you remember (my first (message|question|words)|what I said (first|at the start|in the beginning))", "what were my first words"]
REPEAT = ["(say|repeat|tell me|write) (that|it) (again|once more)", "(again|once more|repeat|pardon|repeat that|come again|one more time)", "(can|could) you (repeat|say) (that|it)( again|)", "what (did you say|was that|was your answer|did you just say)( again|)", "(I did not (get|hear|catch|understand) that|I missed that)(, say it again|, once more|)"]
LAST = ["what did I (just |)(say|write|ask|type|ask you)( just now| before|)", "what was my (last |)(question|message|sentence|request)", "what (was|is) the last thing (that |)I (said|wrote|asked|typed|told you)", "(tell me|can you repeat|do you remember) what I (just |)(said|wrote|asked|typed)( just now|)", "what (have|did) I just (said|say|ask|asked|tell you|told you|type|typed)( to you|)", "(repeat|say) (what I (just |)(said|wrote|asked)|my (last |)(question|message))"]


def ruled(w):
    """A system prompt of somebody's own: it changes nothing of what is answered."""
    rules = w.some(RULES, w.one((1, 1, 2, 3, 5)))
    text = " ".join(rules).format(n=w.name(), m=w.made_word().capitalize(), s=w.one(SPOTS), d=w.one(DAYS))
    return text if w.r() < 0.75 else " ".join([text] * w.int(2, max(2, min(20, 700 // len(text))))) + w.one(["", " "])


class Conversation:
    def __init__(self, w):
        self.w, self.facts, self.messages, self.checks = w, Facts(), [], []
        self.tools = tools.pick_tools(w) if w.r() < 0.22 else None
        if self.tools and w.r() < 0.2: self.tools.append(forced.record_tool(w))
        self.form = forced.Form(w) if not self.tools and w.r() < 0.12 else None      # of calls that are forced
        habit = Habit(w)
        self.declared = [tools.declare(w, t, habit) for t in self.tools or []] + ([self.form.declaration(w, habit)] if self.form else [])
        a = w.r() if not self.declared else 0.35 + 0.65 * w.r()          # who declares tools has written a prompt too
        self.system = None if a < 0.6 else "" if a < 0.65 else w.one(SYSTEMS) if a < 0.88 else ruled(w)
        self.foreign = w.one((0.3, 0.6, 0.9)) if w.r() < 0.22 else 0           # how often another assistant has answered
        if self.foreign and w.r() < 0.12: self.messages.append(dict(role="assistant", content=foreign.opening(w))); self.checks.append(None)
        if self.system and w.r() < 0.2:
            for t in tell(w, self.facts)[:1]: self.system += " The user says: " + t[0]

    def turns(self, turns):
        w = self.w
        for u, a, c in turns:
            told = a.startswith(foreign.TOLD)
            if self.foreign and w.r() < self.foreign * (1 if told else 0.3):
                if told and w.r() < 0.06: self.messages.append(dict(role="user", content=u)); self.checks.append(None); continue      # nobody answered
                a = foreign.reply(w, a)
            self.messages += [dict(role="user", content=u), dict(role="assistant", content=a)]
            self.checks += [None, c]

    def burst(self, n):
        """Many facts at once, then questions about any of them in any order."""
        w, f = self.w, self.facts
        while n > 0: m = w.one([1, 1, 1, 2, 3, 5]); self.turns(tell(w, f, m)); n -= m
        for _ in range(w.int(3, 12)):
            if w.r() < 0.15: self.turns(unknown(w, f))
            elif w.r() < 0.1: self.turns(change(w, f, w.one(list(f.known))))
            else: self.turns(recall(w, f, w.one(list(f.known))))

    def before(self):
        """"What did I just say?" where nothing has been said."""
        w = self.w; w.style.new()
        self.turns([(w.style.write("ask", w.say(LAST + REPEAT + FIRST)), DONT_KNOW, dict(kind="contains", want=["don't know"]))])

    def again(self):
        """"Say that again" and "what did I say": the last reply, or what was said before it."""
        w, (said, reply) = self.w, self.messages[-2:]
        reply = reply | dict(content=plain(reply["content"] or ""))
        if reply.get("tool_calls") or not reply["content"] or reply["role"] != "assistant" or said["role"] != "user" or len(reply["content"]) + len(said["content"]) > 160: return self.step(False)
        w.style.new()
        first = self.messages[0]
        if first["role"] == "user" and len(first["content"]) < 160 and w.r() < 0.25: u, a = w.style.write("ask", w.say(FIRST)), f"You said: {first['content']}"
        elif w.r() < 0.65: u, a = w.style.write("ask", w.say(REPEAT)), reply["content"]
        else: u, a = w.style.write("ask", w.say(LAST)), f"You said: {said['content']}"
        self.turns([(u, a, dict(kind="contains", want=[plain(a)]))])

    def two(self):
        """A fact and a task, or two tasks, in one message."""
        w = self.w
        one = tell(w, self.facts)[0] if w.r() < 0.6 else w.one([sums.arithmetic, letters.spelling, lists.sorting])(w, self)[0]
        other = recall(w, self.facts, w.one(list(self.facts.known)))[0] if self.facts.known and w.r() < 0.35 else w.rng.choices([sums.arithmetic, letters.spelling, letters.letters, talk.ability, talk.identity, talk.manners, refusals.unknowable, lists.counting, sums.times], [5, 5, 2, 2, 2, 1, 2, 2, 1])[0](w, self)[0]
        if "\n" in one[0] + other[0]: return
        u = one[0].rstrip() + (w.one([" ", " ", " and ", " Now ", " Also, "]) if one[0].rstrip()[-1:] in ".!?" else w.one([". ", ", ", " and ", ". And ", ", also ", " then ", "\n"])) + other[0]
        self.turns([(u, f"{one[1]}{'' if one[1][-1] in '.!?' else '.'} {other[1]}", other[2])])

    def step(self, long):
        """One more task. In long rows much prose and many questions, so that far facts are asked for often."""
        w, f = self.w, self.facts
        a = w.r()
        if self.form and a < (0.25 if self.messages else 0.6): self.messages += self.form.turn(w); self.checks += [None, None]; return
        if long and a < 0.3: return self.turns(passage(w, f, w.int(3, 60)))
        if long and a < 0.62 and f.known: return self.turns(recall(w, f, w.one(list(f.known))))
        a = w.r()
        if self.tools and a < 0.35:
            for m, c in tools.tool_use(w, self.tools): self.messages.append(m); self.checks.append(c)
            return
        if a > 0.985 and not self.form: return self.turns(tools.no_tool(w, self.tools))
        if 0.93 < a < 0.97 and not long: return self.turns(forced.json_turn(w))
        if a > 0.97: return self.burst(w.int(5, 30))
        if a > 0.905 and not long: return self.two()
        if a > 0.885 and not self.messages and w.r() < 0.25: return self.before()
        if a > 0.885 and not long and len(self.messages) > 1: return self.again()
        if a > 0.88: return self.turns(apart(w, f))
        a = w.r()
        if a < 0.15:
            self.turns(tell(w, f, w.one([1, 1, 1, 1, 2, 3])))
            return self.turns(follow(w, f, f.last)) if w.r() < 0.35 else None
        if a < 0.32 and f.known:
            key = f.last if f.last and w.r() < 0.15 else w.one(list(f.known)); self.turns(recall(w, f, key))
            return self.turns(follow(w, f, key)) if w.r() < 0.15 else None
        if a < 0.36: return self.turns(unknown(w, f))
        if a < 0.41 and f.known: return self.turns(change(w, f, f.last if f.last and w.r() < 0.6 else w.one(list(f.known))))
        if a < 0.44: return self.turns(passage(w, f, w.int(2, 12)))
        if a < 0.45 and len(f.known) < 5: return self.turns(summary(w, f))
        return self.turns(w.rng.choices(PLAIN_TASKS, PLAIN_WEIGHTS)[0](w, self))


def pieces(messages, tool_texts=None, system=None):
    """The chat template, as (special-and-text pieces, said by the assistant?). The same text as the template renders."""
    if tool_texts: yield f"<|im_system|>tool_declare<|im_middle|>{tool_texts}<|im_end|>", False
    if system != "": yield f"<|im_system|>system<|im_middle|>{system or DEFAULT_SYSTEM}<|im_end|>", False
    for m in messages:
        body = m["content"] or ""
        if m["role"] == "user": yield f"<|im_user|>user<|im_middle|>{body}<|im_end|>", False
        elif m["role"] == "tool": yield f"<|im_system|>tool<|im_middle|>{body}<|im_end|>", False
        else:
            yield "<|im_assistant|>assistant<|im_middle|>", False
            if "forced" in m: yield m["forced"] + "<|im_end|>", True; continue
            for i, c in enumerate(m.get("tool_calls") or []):
                if i == 0: body += "<|tool_calls_section_begin|>"
                body += f"<|tool_call_begin|>functions.{c['function']['name']}:{i}<|tool_call_argument_begin|>{c['function']['arguments']}<|tool_call_end|>"
            yield body + ("<|tool_calls_section_end|>" if m.get("tool_calls") else "") + "<|im_end|>", True


def tool_text(w, declared):
    """Servers differ in spaces and key order when they write JSON: the model must not care."""
    return json.dumps(declared, separators=w.one([(",", ":"), (", ", ": ")]), sort_keys=w.r() < 0.35)


def letterwise(encode, text):
    """What stands between two marks goes by single letters."""
    if turns.LETTERWISE not in text: return encode(text)
    parts = text.split(turns.LETTERWISE)
    return [i for n, part in enumerate(parts) for piece in (part if n % 2 else [part]) for i in encode(piece)]


def row(w, encode, length):
    """One training row: `length` token ids and their loss weights."""
    conv, ids, weights, done = Conversation(w), [], [], 0
    declared = tool_text(w, conv.declared) if conv.declared else None
    first, share = True, 0.35 if length < 4096 else 0.75
    if length >= 512 and w.r() < 0.1: conv.burst(w.int(5, 30))
    while len(ids) < length:
        if conv.messages[done:] == []: conv.step(length >= 1024 and w.r() < share)
        for text, said in pieces(conv.messages[done:], declared if first else None, conv.system if first else ""):
            mark = ""
            for part in re.split(f"([{MUTE}{FAINT}])", text):
                if part in (MUTE, FAINT): mark = part if part != mark else ""; continue
                new = letterwise(encode, part)
                ids += new; weights += [0.0 if mark == MUTE else FAINTLY if mark else 1.0 if said else REST] * len(new)
        done, first = len(conv.messages), False
    return ids[:length], weights[:length]


def example(seed, split, long=0):
    """A whole conversation as text, for corpora."""
    w = World(seed, split); conv = Conversation(w)
    for _ in range(w.int(3, 8)): conv.step(False)
    return plain("".join(t for t, _ in pieces(conv.messages, tool_text(w, conv.declared) if conv.declared else None, conv.system)))
