"""Owns how people type: a little grammar of frames, and a style laid over them (politeness, contractions, typos, lower
case, missing stops). What fills a frame is marked while the style is laid on, so that no typo ever touches a value."""
import re
from functools import lru_cache
from zlib import crc32

OPEN, SHUT = "\x02", "\x03"                               # around a value inside a frame
FEW = 16                                                  # grammars with fewer frames hold none out by checksum


def parse(text, at=0, closing=False):
    """"a (b|c) d" -> list of strings and lists of alternatives."""
    options, now, lit = [], [], ""
    while at < len(text):
        ch = text[at]; at += 1
        if ch == "(":
            if lit: now.append(lit); lit = ""
            inner, at = parse(text, at, True); now.append(inner)
        elif closing and ch in "|)":
            if lit: now.append(lit); lit = ""
            options.append(now); now = []
            if ch == ")": return options, at
        else: lit += ch
    if closing: raise ValueError(f"unclosed ( in {text!r}")
    if lit: now.append(lit)
    return [now], at


def frames(options):
    """How many strings come out."""
    total = 0
    for seq in options:
        n = 1
        for part in seq: n *= 1 if isinstance(part, str) else frames(part)
        total += n
    return total


class Grammar:
    def __init__(self, texts):
        self.options = [parse(t)[0][0] for t in texts]
        self.size = frames(self.options)
        self.marked = any("~" in t for t in texts)

    @staticmethod
    @lru_cache(maxsize=None)
    def cached(texts): return Grammar(texts)

    @staticmethod
    def of(texts): return Grammar.cached((texts,) if isinstance(texts, str) else tuple(texts))

    def expand(self, w, options):
        seq = options[int(w.r() * len(options))]
        return "".join(p if isinstance(p, str) else self.expand(w, p) for p in seq)

    def draw(self, w):
        for attempt in range(60):
            s = self.expand(w, self.options)
            marked = "~" in s
            if marked: s = s.replace("~", "")
            if w.held:
                if marked or attempt > 40 or not self.marked and self.size < FEW or self.size >= FEW and crc32(s.encode()) % 8 == 0: return s
            elif not marked and (self.size < FEW or crc32(s.encode()) % 8): return s
        if not w.held: raise ValueError(f"no frame of training in {self.options}")
        return s


CONTRACT = [(re.compile(a), b) for a, b in [
    (r"\b([Ww])hat is\b", r"\1hat's"), (r"\b([Ww])here is\b", r"\1here's"), (r"\b([Ww])ho is\b", r"\1ho's"), (r"\b([Ww])hen is\b", r"\1hen's"),
    (r"\b([Hh])ow is\b", r"\1ow's"), (r"\bI am\b", "I'm"), (r"\bI have got\b", "I've got"), (r"\b([Ii])t is\b", r"\1t's"), (r"\b([Dd])o not\b", r"\1on't"),
    (r"\b([Cc])annot\b", r"\1an't"), (r"\bI would\b", "I'd"), (r"\b([Tt])hat is\b", r"\1hat's"), (r"\byou are\b", "you're"), (r"\b(name|job|home|age|code|number|colour|favourite) is\b", r"\1's"),
    (r"\bI will\b", "I'll"), (r"\b([Ll])et us\b", r"\1et's")]]
SHORT = [(re.compile(a, re.I), b) for a, b in [(r"\bplease\b", "pls"), (r"\byou\b", "u"), (r"\bare\b", "r"), (r"\bthanks\b", "thx"), (r"\bfavourite\b", "favorite"), (r"\bcolour\b", "color"), (r"\bgoing to\b", "gonna"), (r"\bwant to\b", "wanna"), (r"\bokay\b", "ok"), (r"\bplus\b", "+")]]
BEFORE_ASK = "(Hey|Hi|Hello|Okay|Ok|So|Now|Well|Alright|Um|Right|Great|Thanks|Cool|Next|Hm|Sorry|Listen|Quick question|One question|Another question|Please)(, |, |. |: |! | )"
BEFORE_TELL = "(Hey|Hi|Hello|Okay|Ok|So|Well|Alright|By the way|Btw|Listen|Oh|Also|And|One more thing|Just so you know|For your information|FYI|Fun fact|Please note|Note|Remember|Remember this|Please remember|Don't forget|Keep in mind|For later)(, |: |, | - | )"
INSTEAD_TELL = ["(Please |)(remember|note|keep in mind|don't forget|memorise|bear in mind|be aware|save for later|store) that ", "(I want you to|You should|Can you|Could you|Please) (remember|know|note|keep in mind) that ", "(I want to tell you|I should tell you|Let me tell you|I would like you to know|Did you know|You may want to know|I forgot to say|I wanted to say|What I wanted to tell you:|Did I tell you) (that |)"]
AFTER_TELL = "( Please remember that|, please remember it|, okay| Remember that| Got it|, by the way|, you know| Don't forget|, just so you know|, ok| Please keep that in mind| Can you remember that)"
CAN = "(Can you|Could you|Can you please|Could you please|Would you|Will you|Please|I want you to|I need you to|I'd like you to|Now|Now please|Next,|Try to|Would you please|Hey, can you|Okay,) "


class Style:
    """One message's way of typing. `values` gives a value as this message writes it; `write` a frame."""
    def __init__(self, w): self.w = w; self.new()

    def new(self, plain=0.45):
        r = self.w.r
        self.plain = r() < plain
        self.lower, self.bare = (False, False) if self.plain else (r() < 0.4, r() < 0.45)
        self.short, self.typo, self.contract = not self.plain and r() < 0.07, not self.plain and r() < 0.14, r() < 0.45
        self.unmarked = not self.plain and r() < 0.25      # whats, sisters, dont
        return self

    def value(self, v): return v.lower() if self.lower else v

    def write(self, kind, frame, /, **slots):
        """kind: ask, tell, do (an imperative, may become "can you ...?") or say (as it is, but for spelling)."""
        w, r, frame = self.w, self.w.r, frame.strip().replace("  ", " ")
        end = {"ask": "?", "tell": ".", "do": ".", "say": ""}[kind]
        if slots: frame = frame.format(**{k: f"{OPEN}{self.value(str(v))}{SHUT}" for k, v in slots.items()})
        if frame[-1] in "?.!:": end, frame = "", frame
        a = r()
        if kind == "ask":
            if a < 0.22: frame = w.say(BEFORE_ASK) + down(frame)
            elif a < 0.30: frame += w.say("(, please| please|, thanks|, do you know|, again| again|, exactly|, if I may ask| now|, buddy)") if end else ""
        elif kind == "tell":
            if a < 0.16: frame = w.say(BEFORE_TELL) + down(frame)
            elif a < 0.3: frame = w.say(INSTEAD_TELL) + down(frame)
            elif a < 0.37: frame += (end if r() < 0.5 and end else "") + w.say(AFTER_TELL); end = w.one([".", "", "!"])
        elif kind == "do":
            if a < 0.3:
                lead = w.say(CAN); frame = lead + down(frame)
                if lead[:3] in ("Can", "Cou", "Wou", "Wil") and end: end = "?"
            elif a < 0.4: frame += w.say("(, please| please| for me| for me, please|, thanks|, will you)") if end else ""
            elif a < 0.46: frame = w.say("(Hey|Hi|Okay|Ok|So|Alright|Great|Thanks)(, |. |! | )") + down(frame)
        if self.contract:
            for a, b in CONTRACT: frame = a.sub(b, frame)
        if self.short:
            for a, b in SHORT: frame = a.sub(b, frame)
        frame = (frame[0].upper() + frame[1:]) if frame[0] != OPEN else frame
        if self.bare:
            if end in (".", "?", "!") : end = ""
            elif not end and frame[-1] in ".?!": frame = frame[:-1]
        elif kind == "tell" and r() < 0.06: end = "!" if end else end
        if self.unmarked: frame = frame.replace("'s ", "s ").replace("n't ", "nt ").replace("I'm ", "Im ")
        if self.typo: frame = self.mistype(frame)
        if self.lower: frame = frame.lower()
        return (frame + end).replace(OPEN, "").replace(SHUT, "")

    def mistype(self, frame):
        words, at = [m for m in re.finditer(r"[a-z]{4,}", frame)], frame
        words = [m for m in words if frame.rfind(OPEN, 0, m.start()) <= frame.rfind(SHUT, 0, m.start())]
        if not words: return frame
        m = self.w.one(words); t = m.group(); i = self.w.int(1, len(t) - 2); a = self.w.r()
        t = t[:i] + t[i + 1:] if a < 0.35 else t[:i] + t[i + 1] + t[i] + t[i + 2:] if a < 0.75 else t[:i] + t[i] + t[i:] if a < 0.9 else t[:i] + self.w.one("aeiourstn") + t[i + 1:]
        return frame[:m.start()] + t + frame[m.end():]


def down(frame):
    """The first letter small, unless it is I or a value."""
    return frame if frame[0] == OPEN or re.match(r"I\b|[A-Z][A-Z]", frame) else frame[0].lower() + frame[1:]
