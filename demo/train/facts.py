"""Owns remembering: facts told, changed, hidden in prose, asked for at any distance, and the honest "I don't know"."""
from world import JOBS, COLOURS, FOODS, ANIMALS, MONTHS, THINGS, SPOTS
from tasks import ask

KINDS = {
    "name": lambda w: w.name(), "town": lambda w: w.place(), "job": lambda w: w.one(JOBS), "age": lambda w: w.number(2),
    "locker code": lambda w: w.number(4), "room number": lambda w: w.number(3), "lucky number": lambda w: w.number(2),
    "phone extension": lambda w: w.number(4), "badge number": lambda w: w.number(5), "bus number": lambda w: w.number(2),
    "door code": lambda w: w.number(4), "flight number": lambda w: w.number(3), "password": lambda w: w.made_word(),
    "favourite colour": lambda w: w.one(COLOURS), "favourite food": lambda w: w.one(FOODS), "favourite animal": lambda w: w.one(ANIMALS),
    "birth month": lambda w: w.one(MONTHS), "home town": lambda w: w.place(), "sister": lambda w: w.name(), "brother": lambda w: w.name(),
    "teacher": lambda w: w.name(), "dog": lambda w: w.name(), "cat": lambda w: w.name(), "boat": lambda w: w.place(),
    "hotel": lambda w: w.place(), "meeting time": lambda w: w.time(), "train time": lambda w: w.time(), "best friend": lambda w: w.name(),
}
NAMED = {"sister", "brother", "teacher", "dog", "cat", "boat", "best friend", "hotel"}       # "my dog is called Pip"
SPOT_KINDS = {"code": lambda w: w.number(4), "number": lambda w: w.number(3), "owner": lambda w: w.name(), "colour": lambda w: w.one(COLOURS), "opening time": lambda w: w.time()}


class Facts:
    """What one conversation knows: (holder, kind) -> value. A holder is "my", "Nora's" or "the shed's"."""

    def __init__(self): self.known, self.age = {}, {}

    def fresh(self, w):
        a = w.r()
        for _ in range(30):
            if a < 0.5: key = ("my", w.one(list(KINDS)))
            elif a < 0.75: key = (w.name() + "'s", w.one(list(KINDS)[2:]))
            else: key = ("the " + (w.one(COLOURS) + " " if w.r() < 0.3 else "") + w.one(SPOTS) + "'s", w.one(list(SPOT_KINDS)))
            if key not in self.known: return key
            a = w.r() * 0.5 + 0.5

    def draw(self, w, key):
        """A value that differs from the present one."""
        make = (SPOT_KINDS if key[0].startswith("the ") else KINDS)[key[1]]
        while True:
            v = str(make(w))
            if self.known.get(key) != v: return v


def thing(key, you=False):
    """my locker code / your locker code / Nora's dog / the code of the shed"""
    holder, kind = key
    if holder == "my": return ("your " if you else "my ") + kind
    return f"the {kind} of {holder[:-2]}" if holder.startswith("the ") else f"{holder} {kind}"


def cap(s): return s[0].upper() + s[1:]


def state(key, v, you=False):
    """The bare sentence: my locker code is 4821 / my dog is called Pip / my name is Nora / I live in Oldhaven"""
    if key[1] in NAMED: return f"{thing(key, you)} is called {v}"
    if key[1] == "town": return (f"you live in {v}" if you else f"I live in {v}") if key[0] == "my" else f"{key[0][:-2]} lives in {v}"
    if key[1] == "job": return (f"you work as a {v}" if you else f"I work as a {v}") if key[0] == "my" else f"{key[0][:-2]} works as a {v}"
    if key[1] == "age": return (f"you are {v} years old" if you else f"I am {v} years old") if key[0] == "my" else f"{key[0][:-2]} is {v} years old"
    return f"{thing(key, you)} is {v}"


def question(w, key):
    holder, kind = key
    me = holder == "my"
    sub = "I" if me else holder[:-2]
    do, have, be = ("do", "have", "am") if me else ("does", "has", "is")
    if key == ("my", "name") : forms = ["What is my name?", "Do you remember my name?", "Who am I?", "Tell me my name.", "What am I called?", "Can you tell me my name?", "Do you know what I am called?", "Do you know my name?", "~Can you tell me what I am called?"]
    elif kind == "town": forms = [f"Where {do} {sub} live?", f"In which town {do} {sub} live?", f"Do you remember where {sub} {'live' if me else 'lives'}?", f"Which town {do} {sub} live in?", f"Tell me where {sub} {'live' if me else 'lives'}.", f"~Do you know where {sub} {'live' if me else 'lives'}?"]
    elif kind == "job": forms = [f"What {do} {sub} work as?", f"What is {holder} job?", f"Do you remember {holder} job?", f"Can you tell me {holder} job?", f"Tell me {holder} job.", f"~Do you know {holder} job?"]
    elif kind == "age": forms = [f"How old {be} {sub}?", f"What is {holder} age?", f"Tell me how old {sub} {be}.", f"Do you remember how old {sub} {be}?", f"Do you know {holder} age?", f"~Can you tell me how old {sub} {be}?"]
    else:
        t = thing(key)
        forms = [f"What is {t}?", f"Tell me {t}.", f"Do you remember {t}?", f"What did I say about {t}?", f"Do you know {t}?", f"Can you tell me {t}?", f"Please tell me {t}.", f"What was {t}?", f"Give me {t}.", f"~Please give me {t}.", f"~Can you remember {t}?"]
        if kind in NAMED: forms = [f"What is {t} called?", f"What is the name of {t}?", f"Do you remember what {t} is called?", f"Tell me the name of {t}.", f"Can you tell me what {t} is called?", f"Who is {t}?", f"What was {t} called?", f"Do you know the name of {t}?", f"~Can you tell me the name of {t}?", f"~Do you know what {t} is called?"]
    return ask(w, w.say(forms))


def answer(key, v): return cap(state(key, v, True)) + "."
def holds(v): return dict(kind="contains", want=[str(v)])


def tell(w, facts, n=1):
    """One turn that tells n facts."""
    keys = []
    for _ in range(n):
        key = facts.fresh(w); facts.known[key] = facts.draw(w, key); keys.append(key)
    parts = [state(k, facts.known[k]) for k in keys]
    if n > 1: return [(" ".join(cap(p) + "." for p in parts), w.one(["Okay, I will remember that.", "Noted."]), None)]
    p = parts[0]
    v = facts.known[keys[0]]
    u = w.say(["{C}.", "{C}.", "Please remember that {p}.", "By the way, {p}.", "Remember: {p}.", "Note that {p}.", "You should know that {p}.", "Keep in mind that {p}.", "Please note: {p}.", "Just so you know, {p}.", "Please keep in mind: {p}.", "One thing: {p}.", "For later: {p}.", "I want you to remember that {p}.", "Listen: {p}.", "You should remember this: {p}.", "Also, {p}.", "~One more thing: {p}.", "~Please know that {p}.", "~For later, note that {p}."]).format(C=cap(p), p=p)
    if keys[0] == ("my", "name"): return [(w.one([u, f"Hello, I am {v}.", f"Hi, my name is {v}.", f"Call me {v}."]), w.one([f"Nice to meet you, {v}!", f"Hello, {v}!"]), holds(v))]
    return [(u, w.one(["Okay, I will remember that.", "Noted.", f"Noted: {state(keys[0], v, True)}."]), None)]


def recall(w, facts, key):
    return [(question(w, key), answer(key, facts.known[key]), holds(facts.known[key]))]


def unknown(w, facts):
    key = facts.fresh(w)
    return [(question(w, key), f"I don't know {thing(key, True)}. You have not told me.", dict(kind="contains", want=["don't know"]))]


def change(w, facts, key):
    v = facts.draw(w, key); old = facts.known[key]; facts.known[key] = v
    p = state(key, v)
    u = w.say(["No, I meant that {p}.", "Actually, {p}.", "Sorry, {p}, not {old}.", "That has changed: {p} now.", "Correction: {p}.", "I was wrong: {p}.", "Oh, {p} now.", "Wait, {p}.", "~Oh no, I meant that {p}.", "~Sorry, I was wrong: {p}."]).format(p=p, old=old)
    return [(u, f"Okay, {state(key, v, True)}.", holds(v))]


def passage(w, facts, sentences):
    """Facts hidden in prose, in one message."""
    lines = [w.sentence() for _ in range(sentences)]
    for _ in range(w.int(1, 3)):
        key = facts.fresh(w)
        if key[0] == "my": continue
        facts.known[key] = facts.draw(w, key)
        lines.insert(w.int(0, len(lines)), cap(state(key, facts.known[key])) + ".")
    u = w.say(["Read this: {}", "Here is a text: {}", "Please read this text: {}", "Here is a story. {}", "Have a look at this text: {}", "{}", "Text: {}", "~Please have a look at this story: {}"]).format(" ".join(lines))
    return [(u, w.one(["Okay, I have read it.", "I have read the text."]), None)]
