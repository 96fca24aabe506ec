"""Owns how facts are put into words: what one conversation knows, a frame in the user's mouth, our sentence of it."""
import re
from relations import *
from sums import ONES
from voice import OPEN, SHUT


RIVAL = dict(job="does", does="job", buying="onlist", onlist="buying", work="workin", workin="work")      # "what does she do?" asks for either


class Facts:
    """What one conversation knows: (relation, holder, k) -> value as it was typed. A holder is "my", "my sister",
    "Nora", "the shed" or a place."""

    def __init__(self): self.known, self.last, self.low = {}, None, {}

    def clash(self, key):
        """Another fact would make the question ambiguous ("where is the bike", "who is my boss")."""
        rel, holder, k = key
        return key in self.known or any(key2[0] == RIVAL.get(rel) and key2[1] == holder for key2 in self.known) or any(key2[2] == k and k and (key2[1] == holder or {key2[1], holder} & {"my"} and rel in ("place", "event", "code", "price", "owner")) and key2[0] != "did" for key2 in self.known)

    def fresh(self, w):
        for _ in range(40):
            rel = w.rng.choices(NAMES, SHARES)[0]; r = R[rel]
            who = w.one(r.who)
            holder = {"my": "my", "kin": "my " + w.one(PETS[:9] if rel in ("age", "like", "hate") and w.r() < 0.2 else RELATIVES + FOLK), "name": "", "the": "the " + (w.one(COLOURS) + " " if w.r() < 0.3 else "") + (w.one(SPOTS) if w.r() < 0.8 else w.made_word()), "place": ""}[who] if who not in ("name", "place") else (w.one("Mum Dad Grandma Grandad Nan Granny Grandpa Auntie Mom".split()) if w.r() < 0.05 else w.name()) if who == "name" else w.place()
            key = (rel, holder, r.k(w) if r.k else "")
            if not self.clash(key): return key
        return ("code", w.name(), w.made_word() + " number")

    def draw(self, w, key):
        """A value that differs from the present one."""
        while True:
            v = str(R[key[0]].value(w, key[2]))
            if self.known.get(key) != v: return v


MANY_DO = {"is": "are", "was": "were", "has": "have", "does": "do", "stands": "stand", "lies": "lie", "lives": "live", "belongs": "belong", "costs": "cost", "looks": "look", "feels": "feel", "seems": "seem", "rests": "rest", "hangs": "hang", "stays": "stay"}


def agreed(frame, key):
    """The frame for several things: "where are my keys"."""
    if not key[2] or key[2].split()[-1] not in PLURALS or key[0] not in ("place", "colour", "manner", "price", "owner"): return frame
    frame = re.sub(r"(?<=\{k\} )(\w+)", lambda m: MANY_DO.get(m.group(), m.group()), frame.replace(" a {v} {k}", " {v} {k}"))
    return re.sub(r"\b(is|was|has|does)(?= (?:<P>|the|my|your) \{k\})", lambda m: MANY_DO[m.group()], frame)


def extra(key):
    """The verb as its frame wants it: "ate", and of others than me "starts school"."""
    if key[0] == "starts":
        verb, rest = key[2].split(" ", 1) if " " in key[2] else (key[2], "")
        return dict(p=key[2] if key[1] == "my" else f"{dict(have='has', go='goes', finish='finishes').get(verb, verb.replace('fly', 'flie') + 's')} {rest}".strip())
    return dict(p=PAST.get(key[2]) or PAST.get(key[2] + "_", "")) if key[0] == "did" else {}


def frame_of(w, frames, key):
    """"the bike" alone is mine: of nobody else's things one speaks so."""
    while True:
        f = w.say(frames).replace("{z}", w.made_word())             # a verb that nobody knows
        if key[1] == "my" or key[1][:4] == "the " or "<P>" in f or "<S>" in f: return f


def number_of(w, names):
    """How many names "A, B and C" are, in a figure or a word."""
    n = min(19, len([x for x in re.split(r", and |, | and | & |,", names) if x]))
    return w.one([str(n), ONES[n], ONES[n]])


def put(w, kind, frame, key, v=None):
    """A frame in the user's mouth, in the style of the moment."""
    p = person(key[1], False, lambda h: OPEN + w.style.value(h) + SHUT, w.r() < 0.06)
    if w.r() < 0.85: frame = agreed(frame, key)
    if key[1][:4] != "the " and key[1] != "my" and w.r() < 0.6:
        at = frame.find("<S>")
        if at >= 0: frame = frame[:at] + frame[at:].replace("<P>", w.one(["his", "her"]))
    frame = fill(frame, p).replace("<X>", "my" if key[1] == "my" else "a")
    for k, x in extra(key).items(): frame = frame.replace("{%s}" % k, x)
    slots = {}
    if "{k}" in frame: slots["k"] = key[2]
    if "{v}" in frame: slots["v"] = v
    if "{o}" in frame: slots["o"] = w.name()
    if "{n}" in frame: slots["n"] = number_of(w, v)
    return w.style.write(kind, frame, **slots)


def said(key, v=None, style=None, clause=False):
    """The sentence (or the clause) that we say of it, without a stop. The subject as the user typed it in this message."""
    low = style.value if style else (lambda x: x)
    frame = fill(agreed(R[key[0]].neg if clause else R[key[0]].state, key), person(key[1], True, low))
    for k, x in extra(key).items(): frame = frame.replace("{%s}" % k, x)
    if key[0] in ("owe", "owes"): frame = frame.replace("{k} owes me", "{k} owes you")
    return frame.replace("{k}", "your " + key[2][3:] if key[2][:3] == "my " else low(key[2])).replace("{v}", str(v))


def cap(s): return s[0].upper() + s[1:]


def state(key, v):
    """The bare sentence, as prose tells it."""
    p = person(key[1], False, lambda h: h); frame = fill(agreed(R[key[0]].state, key) if key[0] != "name" else "my name is {v}", p)
    for k, x in extra(key).items(): frame = frame.replace("{%s}" % k, x)
    return frame.replace("{k}", key[2]).replace("{v}", str(v))


def holds(key, v):
    v = str(v)
    for lead in ("in the ", "at the ", "in ", "on ", "at "):
        if key[0] in ("place", "event", "did") and v.startswith(lead): v = v[len(lead):]; break
    return dict(kind="contains", want=[v])


def put_plain(w, frame, key, v):
    p = person(key[1], False, lambda h: w.style.value(h))
    frame = fill(agreed(frame, key), p).replace("<X>", "my" if key[1] == "my" else "a")
    for k, x in extra(key).items(): frame = frame.replace("{%s}" % k, x)
    return frame.replace("{k}", w.style.value(key[2])).replace("{v}", v).replace("{o}", w.style.value(w.name())).replace("{n}", number_of(w, v))


def answer(w, key, v): return cap(said(key, v, w.style)) + "."


def answer_as_told(w, facts, key):
    """For a question without the names that the answer has: they are written as they were told."""
    now, w.style.lower, w.style.loud = (w.style.lower, w.style.loud), facts.low.get(key, False), False
    a = answer(w, key, facts.known[key]); w.style.lower, w.style.loud = now
    return a
