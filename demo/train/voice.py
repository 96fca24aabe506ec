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
    (r"\b([Cc])annot\b", r"\1an't"), (r"\bI would\b", "I'd"), (r"\b([Tt])hey are\b", r"\1hey're"), (r"\b([Ww])e are\b", r"\1e're"), (r"\b([Ss]?[Hh])e is\b", r"\1e's"), (r"\bI have (?=left|put|just|parked|moved|hidden|two|three|lost)", "I've "), (r"\b(brother|sister|mother|father|mum|dad|wife|husband|son|daughter|boss|cat|dog|aunt|uncle) is\b", r"\1's"), (r"\b([Tt])hat is\b", r"\1hat's"), (r"\byou are\b", "you're"), (r"\b(name|job|home|age|code|number|colour|favourite) is\b", r"\1's"),
    (r"\bI will\b", "I'll"), (r"\b([Ll])et us\b", r"\1et's")]]
AMERICAN = [(re.compile(a), b) for a, b in [(r"avourite\b", "avorite"), (r"olour", "olor"), (r"\brganise\b", "rganize"), (r"lphabetise", "lphabetize")]]
SHORT = [(re.compile(a, re.I), b) for a, b in [(r"\bplease\b", "pls"), (r"\byou\b", "u"), (r"\byour\b", "ur"), (r"\bare\b", "r"), (r"\bthanks\b", "thx"), (r"\bfavourite\b", "fav"), (r"\bcolour\b", "color"), (r"\bbirthday\b", "bday"), (r"\bknow\b", "kno"), (r"\bwhat is\b", "whats"), (r"\bbecause\b", "cuz"), (r"\bpeople\b", "ppl"), (r"\bgoing to\b", "gonna"), (r"\bwant to\b", "wanna"), (r"\bokay\b", "ok"), (r"\bplus\b", "+")]]
# As somebody types whose own language has other rules.
BROKEN = [(re.compile(a), b) for a, b in [
    (r"\b([Ww])here is ((?:the|my|his|her) \x02[^\x03]*\x03)", r"\1here \2 is"), (r"\b([Ww])hat is (my|his|her)\b", r"\1hat \2"), (r"\b([Ww])hat is the\b", r"\1hich is the"), (r"\b([Hh])ow much is\b", r"\1ow much makes"), (r"\b([Hh])ow many\b", r"\1ow much"),
    (r"\b([Ww]here|[Ww]hat|[Ww]hen|[Ww]ho|[Hh]ow) (?:do|did) I\b", r"\1 I"), (r"\b([Ww]here|[Ww]hat|[Ww]hen|[Hh]ow) does (?=my|his|her|\x02)", r"\1 "), (r"\b(live|work|like|drive|play|speak|start|come)s\b", r"\1"), (r"\bhas\b", "have"), (r"\bam called\b", "call me"), (r"\bis called\b", "calls"), (r"\bwas born\b", "am born"),
    (r"\b([Cc])an you\b", r"\1an you to"), (r"\bdo not\b", "not"), (r"\bare left\b", "rest"), (r"\bis left\b", "rests"), (r"\bI am (?=from|in)\b", "I "), (r"\b(my|his) (sister|mother|wife|aunt|brother|father|husband|son|boss) is\b", r"\1 \2 he is"), (r"\b[Aa]n? (?=\w)", ""), (r"\b([Tt])ell me\b", r"\1ell to me"), (r"\bpeople\b", "persons"), (r"\bbought\b", "buyed"), (r"\b(?:put|left)\b", "putted"), (r"\bspelled\b", "spelling")]]
GREETED = "(Hola|Bonjour|Guten Tag|Ciao|Salut|Hallo|Namaste|Buenos días|Konnichiwa|Hej|Olá|Merhaba|Salam|Aloha|Servus|Moin|Shalom|Privet|Buongiorno|Grüß Gott)(, |! | |. )"
BEFORE_ASK = "(Hey|Hi|Hello|Okay|Ok|So|Now|Well|Alright|Um|Right|Great|Thanks|Cool|Next|Hm|Sorry|Listen|Quick question|One question|Another question|Please|Hey|Okay|So|And|But|Also|Excuse me|Pardon me|Just curious|Just wondering|Just checking|Out of interest|Mate|Dude|Bro|Buddy|Computer|Deltad|Hey deltad|Hi there|Good morning|Yes|No|Yeah|Good|Perfect|By the way|Btw|Oh|Ah|Hmm|Erm|Wait|Next one|Last question|I have a question|My question|Question|Help|Help me out|I wonder|Tell me|Tell me one thing|Okay then|Right then|Let me ask you|Can I ask you something|One more|Final one|First of all|Seriously|Honestly|For real|I am curious|A friend asks|My son asks|For school|For my homework|Please help me|If you can)(, |, |. |: |! | |... | - |? )"
BEFORE_TELL = "(Hey|Hi|Hello|Okay|Ok|So|Well|Alright|By the way|Btw|Listen|Oh|Also|And|Yes|No|Right|Good|Hmm|Um|Ah|Actually|Just|Look|See|You know|You should know|Guess what|News|Good news|Bad news|Small update|A note|Note to self|Reminder|To remember|Memo|Write this down|Save this|Store this|Important|Attention|As I said|Like I said|Honestly|Between us|First|Second|Next|Then|Now|And then|Plus|Another thing|Two things|Some more|More facts|About me|Here is something|Here you go|Hi there|Good morning|One more thing|Just so you know|For your information|FYI|Fun fact|Please note|Note|Remember|Remember this|Please remember|Can you remember something for me|I want to tell you something|Let me tell you something|I have something to tell you|Could you please remember this|Listen carefully|A secret|My secret|Do you want to know something|You will not believe it|I have news|So you know me better|For the record|Don't forget|Keep in mind|For later)(, |: |, | - | )"
INSTEAD_TELL = ["(Please |)(remind me|remember|note|keep in mind|don't forget|memorise|bear in mind|be aware|save for later|store|make a note|write down|know|never forget|hold on to this:|mark down|jot down) that ", "(I want you to|You should|Can you|Could you|Please) (remember|know|note|keep in mind) that ", "(I want to tell you|I should tell you|Let me tell you|I would like you to know|Did you know|You may want to know|I forgot to say|I wanted to say|What I wanted to tell you:|Did I tell you|I think|I guess|I believe|It turns out|I just remembered|The thing is|I can tell you|You must know|Let it be known|I am telling you|My wife says|So you know) (that |)", "(I need you to|You have to|Try to|Would you|Will you|Be so kind and|Do me a favour and) (remember|note|keep in mind|save|store|memorise)(:|,| that|) "]
AFTER_TELL = "( Please remember that| Remember it for me|, remember that for me|, do not forget|, don't forget it|, fyi| btw| lol| haha| @|, right|, I think|, I believe| as you know|, in case you wonder|, note it down| Note that| Save that| Write that down|, keep it in mind|, just remember it|, mate|, thanks| in fact|, to be honest| for the record|, please remember it|, okay| Remember that| Got it|, by the way|, you know| Don't forget|, just so you know|, ok| Please keep that in mind| Can you remember that)"
CAN = "(Can you|Could you|Can you please|Could you please|Would you|Will you|Please|I want you to|I need you to|I'd like you to|Now|Now please|Next,|Try to|Would you please|Hey, can you|Okay,|Can you maybe|Could you quickly|Quickly|Just|Kindly|Are you able to|Do you know how to|Is it possible to|Go ahead and|Let us|Let's|You should|You must|You have to|Time to|I would like you to|I'd love you to|My task for you:|Task:|Please,|Hi, please|Hey deltad, please|Let me see you|Show me how you|Help me and|Help me to|I wonder if you can|Mind if you|May I ask you to|Can u|Could u|Pls|Plz|I was wondering if you could|I was hoping you could|Would it be possible to|Could you maybe|Do you think you could|Any chance you could|It would be great if you could|I would be happy if you could|If it is no trouble,|Would you be able to|Would you be so kind and|Be so kind and|I want to see you|I bet you can|Are you capable to|Feel free to|First,|Then|Next, please|For me,) "


class Style:
    """One message's way of typing. `values` gives a value as this message writes it; `write` a frame."""
    def __init__(self, w): self.w = w; self.new()

    def new(self, plain=0.45):
        r = self.w.r
        self.plain = r() < plain
        self.lower, self.bare = (False, False) if self.plain else (r() < 0.4, r() < 0.45)
        self.short, self.typo, self.contract = not self.plain and r() < 0.08, not self.plain and r() < 0.18, r() < 0.5
        self.american, self.telegram, self.loud = not self.plain and r() < 0.25, not self.plain and r() < 0.1, not self.lower and r() < 0.02
        self.broken, self.greeting = not self.plain and r() < 0.08, r() < 0.012
        self.unmarked = not self.plain and r() < 0.25      # whats, sisters, dont
        return self

    def value(self, v): return v.lower() if self.lower else v.upper() if self.loud else v

    def write(self, kind, frame, /, **slots):
        """kind: ask, tell, do (an imperative, may become "can you ...?") or say (as it is, but for spelling)."""
        w, r, frame = self.w, self.w.r, frame.strip().replace("  ", " ")
        end = {"ask": "?", "tell": ".", "do": ".", "say": ""}[kind]
        if slots: frame = frame.format(**{k: f"{OPEN}{self.value(str(v))}{SHUT}" for k, v in slots.items()})
        if frame[-1] in "?.!:": end, frame = "", frame
        a = r()
        if self.broken:
            for x, b in BROKEN: frame = x.sub(b, frame) if r() < 0.5 else frame
        if kind == "ask":
            if a < 0.22: frame = w.say(BEFORE_ASK) + down(frame)
            elif a < 0.32: frame += w.say("(, please| please|, thanks|, do you know|, again| again|, exactly|, if I may ask| now|, buddy|, mate|, dude|, my friend| then| anyway|, by any chance|, any idea| for me| pls| thx| btw| lol| haha| @| actually| really|, can you tell me|, tell me|, I wonder|, I forgot|, quick| real quick|, anyone)") if end else ""
            elif a < 0.335 and end: end = w.one(["??", "?!", "...", " ?", "?", "???", ".", "!", "!!!", "????"])
        elif kind == "tell":
            if a < 0.16: frame = w.say(BEFORE_TELL) + down(frame)
            elif a < 0.3: frame = w.say(INSTEAD_TELL) + down(frame)
            elif a < 0.37: frame += (end if r() < 0.5 and end else "") + w.say(AFTER_TELL); end = w.one([".", "", "!"])
        elif kind == "do":
            if a < 0.3:
                lead = w.say(CAN); frame = lead + down(frame)
                if lead[:3] in ("Can", "Cou", "Wou", "Wil", "Are", "Do ", "Is ", "May", "Min", "Any") and end: end = "?"
            elif a < 0.42: frame += w.say("(, please| please| for me| for me, please|, thanks|, will you|, would you|, can you|, could you|, mate| pls| thx| quickly| now| right now|, I need it| and be quick|, if you can|, if possible| if you would|, ok)") if end else ""
            elif a < 0.48: frame = w.say("(Hey|Hi|Okay|Ok|So|Alright|Great|Thanks|Good|And|Next|Then|Now|Right|Well|Hello|Yes|Yo|Mate|Cool|Nice|Hmm|One more|Quick|Another one|Challenge|New task|Task|Try this)(, |. |! | |: )") + down(frame)
        if self.contract:
            for a, b in CONTRACT: frame = a.sub(b, frame)
        if self.american:
            for a, b in AMERICAN: frame = a.sub(b, frame)
        if self.telegram: frame = self.drop(frame)
        if self.short:
            for a, b in SHORT: frame = a.sub(b, frame)
            if r() < 0.5: n = w.one([" n ", " n ", " & "]); frame = outside(lambda t: t.replace(" and ", n), frame)
        if self.greeting and kind != "say": frame = w.say(GREETED) + down(frame)
        frame = (frame[0].upper() + frame[1:]) if frame[0] != OPEN else frame
        if self.bare:
            if end in (".", "?", "!") : end = ""
            elif not end and frame[-1] in ".?!": frame = frame[:-1]
        elif kind == "tell" and r() < 0.08: end = w.one(["!", "!", "!!", "!!!", "...", " ."]) if end else end
        if self.unmarked: frame = frame.replace("'s ", "s ").replace("n't ", "nt ").replace("I'm ", "Im ")
        if self.typo: frame = self.mistype(self.mistype(frame) if r() < 0.25 else frame)
        if "@" in frame: frame = outside(lambda t: t.replace("@", w.one([":)", ":-)", ";)", ":D", ":(", "😊", "🙂", "👍", "😀"])), frame)
        if self.lower: frame = frame.lower()
        elif self.loud: frame = outside(str.upper, frame)
        return (frame + end).replace(OPEN, "").replace(SHUT, "")

    def drop(self, frame):
        """Some of the little words left out, as in "what my name"."""
        short = outside(lambda t: re.sub(r"(?<= )(is|are|am|the|a|an|do|does|did|to|please|that) (?=[a-z<\x02]|$)", lambda m: "" if self.w.r() < 0.5 else m.group(), t), frame)
        return short if len(short) > 3 else frame

    def mistype(self, frame):
        words, at = [m for m in re.finditer(r"[a-z]{4,}", frame)], frame
        words = [m for m in words if frame.rfind(OPEN, 0, m.start()) <= frame.rfind(SHUT, 0, m.start())]
        if not words: return frame
        m = self.w.one(words); t = m.group(); i = self.w.int(1, len(t) - 2); a = self.w.r()
        t = t[:i] + t[i + 1:] if a < 0.35 else t[:i] + t[i + 1] + t[i] + t[i + 2:] if a < 0.75 else t[:i] + t[i] + t[i:] if a < 0.9 else t[:i] + self.w.one("aeiourstn") + t[i + 1:]
        return frame[:m.start()] + t + frame[m.end():]


def outside(change, frame):
    """`change` laid on all that is not a value."""
    return "".join(p if p[:1] == OPEN else change(p) for p in re.split(f"({OPEN}[^{SHUT}]*{SHUT})", frame))


def down(frame):
    """The first letter small, unless it is I or a value."""
    return frame if frame[0] == OPEN or re.match(r"I\b|[A-Z][A-Z]", frame) else frame[0].lower() + frame[1:]
