"""Owns remembering: facts told, changed, hidden in prose, asked for at any distance, and the honest "I don't know"."""
import letters, turns
from relations import *
from voice import OPEN, SHUT, down


class Facts:
    """What one conversation knows: (relation, holder, k) -> value as it was typed. A holder is "my", "my sister",
    "Nora", "the shed" or a place."""

    def __init__(self): self.known, self.last = {}, None

    def clash(self, key):
        """Another fact would make the question ambiguous ("where is the bike", "who is my boss")."""
        rel, holder, k = key
        return key in self.known or any(key2[2] == k and k and (key2[1] == holder or {key2[1], holder} & {"my"} and rel in ("place", "event", "code", "price", "owner")) and key2[0] != "did" for key2 in self.known)

    def fresh(self, w):
        for _ in range(40):
            rel = w.rng.choices(NAMES, SHARES)[0]; r = R[rel]
            who = w.one(r.who)
            holder = {"my": "my", "kin": "my " + w.one(RELATIVES + FOLK) + (" " + w.name().split()[0] if w.r() < 0.08 else ""), "name": "", "the": "the " + (w.one(COLOURS) + " " if w.r() < 0.3 else "") + (w.one(SPOTS) if w.r() < 0.8 else w.made_word()), "place": ""}[who] if who not in ("name", "place") else w.name() if who == "name" else w.place()
            key = (rel, holder, r.k(w) if r.k else "")
            if not self.clash(key): return key
        return ("code", w.name(), w.made_word() + " number")

    def draw(self, w, key):
        """A value that differs from the present one."""
        while True:
            v = str(R[key[0]].value(w, key[2]))
            if self.known.get(key) != v: return v


def extra(key): return dict(p=PAST.get(key[2]) or PAST.get(key[2] + "_", "")) if key[0] == "did" else {}


def frame_of(w, frames, key):
    """"the bike" alone is mine: of nobody else's things one speaks so."""
    while True:
        f = w.say(frames)
        if key[1] == "my" or key[1][:4] == "the " or "<P>" in f or "<S>" in f: return f


def put(w, kind, frame, key, v=None):
    """A frame in the user's mouth, in the style of the moment."""
    p = person(key[1], False, lambda h: OPEN + w.style.value(h) + SHUT, w.r() < 0.06)
    if key[1][:4] != "the " and key[1] != "my" and w.r() < 0.6:
        at = frame.find("<S>")
        if at >= 0: frame = frame[:at] + frame[at:].replace("<P>", w.one(["his", "her"]))
    frame = fill(frame, p).replace("<X>", "my" if key[1] == "my" else "a")
    for k, x in extra(key).items(): frame = frame.replace("{%s}" % k, x)
    slots = {}
    if "{k}" in frame: slots["k"] = key[2]
    if "{v}" in frame: slots["v"] = v
    if "{o}" in frame: slots["o"] = w.name()
    return w.style.write(kind, frame, **slots)


def said(key, v=None, style=None, clause=False):
    """The sentence (or the clause) that we say of it, without a stop. The subject as the user typed it in this message."""
    low = style.value if style else (lambda x: x)
    frame = fill(R[key[0]].neg if clause else R[key[0]].state, person(key[1], True, low))
    for k, x in extra(key).items(): frame = frame.replace("{%s}" % k, x)
    return frame.replace("{k}", low(key[2])).replace("{v}", str(v))


def cap(s): return s[0].upper() + s[1:]
def state(key, v):
    """The bare sentence, as prose tells it."""
    p = person(key[1], False, lambda h: h); frame = fill(R[key[0]].state if key[0] != "name" else "my name is {v}", p)
    for k, x in extra(key).items(): frame = frame.replace("{%s}" % k, x)
    return frame.replace("{k}", key[2]).replace("{v}", str(v))


def holds(key, v):
    v = str(v)
    for lead in ("in the ", "at the ", "in ", "on ", "at "):
        if key[0] in ("place", "event", "did") and v.startswith(lead): v = v[len(lead):]; break
    return dict(kind="contains", want=[v])


ASKING = "(Do you know|Can you tell me|Tell me|Remind me|Please tell me|Do you remember|Could you tell me|I want to know|I forgot|I cannot remember|I have forgotten|Can you remind me|Could you remind me|Please remind me|Would you tell me|Say|Do you happen to know|I need to know|Any idea|Can you remember|Did I tell you|Have I told you|Do you recall|I would like to know|I was wondering|I was wondering if you know|Would you happen to know|Could you perhaps tell me|Can you say|Could you say|Let me know|Please let me know|Try to remember|Think hard:|You should know|You must know|I told you|I have told you|I am sure I told you|Did I mention|Have I mentioned|Did I say|I am trying to remember|I do not remember|I do not know|I want to hear|I wonder|Help me remember|Help me to remember|Refresh my memory:|Prove that you know|Quick,|Look up|Check|Find out|Are you able to tell me|Is it possible to tell me|Do you have any idea|Any clue|Got any idea|You know|Show me that you know|Can you recall|Could you remember|Just tell me|Kindly tell me|Now tell me|So tell me|Then tell me|Pray tell me|Tell me again|Say again|Once more,|~Please can you say|You surely know|Be so kind and tell me) "


LOST = ["I (cannot|can not|could not|can never|do not) find (<P>|the) {k}(.|!||...| anywhere| any more|, help|, where is it|. Where is it?)", "I (have |)(lost|misplaced|mislaid) (<P>|the) {k}(.|!||, any idea where it is?|. Where is it?|, help me|, where is it?|, do you know where it is?)", "I am (looking for|searching for|searching|hunting for) (<P>|the) {k}(.||!|, where is it?|, any idea?)", "I need to (find|get|fetch) (<P>|the) {k}(.||, where is it?|, where did I put it?)", "(<P>|the) {k} (has disappeared|is gone|is missing|has gone missing|is lost|has vanished)(.||!|, where is it?)", "I (need|want) <P> {k}, where is it?", "I (forgot|do not remember|cannot remember|have forgotten) where (<P>|the) {k} is(.||, help)", "where oh where is <P> {k}?", "(<P>|the) {k}, where did I (leave|put|have) it?"]


DONT_KNOW = "I don't know that: I only know what you tell me."


def question(w, key):
    r = R[key[0]]; w.style.new()
    a = w.r()
    if key[0] == "place" and key[1] == "my" and a < 0.1:
        return put(w, "say", w.say(LOST), key)
    if a < 0.6: return put(w, "ask", frame_of(w, r.ask, key), key)
    if a < 0.66: return put(w, "say", w.say(["<c>(?| please| again?|)", "(Uh, |Um, |Oh, |Sorry, |)(I forgot|I cannot remember|I have forgotten|I do not remember|I do not know) <c>(. What was it?|, what is it again?|, can you tell me?|. Do you know it?|. Help me.|, what was it)", "(And|And what about|What about|Now) <c>?", "<c>, (what is it|what was that|what is that|do you know that|tell me)(?|)", "(Give me|Quick,|I need) <c>( again| now| please|)", "(Do you still|Can you still|You still|You surely|Surely you) (know|remember) <c>(?|)"]).replace("<c>", frame_of(w, r.clause, key)), key)
    lead = w.say(ASKING)
    return put(w, "ask" if lead[:3] in ("Do ", "Can", "Cou", "Wou", "Any", "Did", "Hav") else "say", lead + frame_of(w, r.clause, key), key) + ("" if w.style.bare or lead[:3] in ("Do ", "Can", "Cou", "Wou", "Any", "Did", "Hav") else ".")


def answer(w, key, v): return cap(said(key, v, w.style)) + "."


def tell(w, facts, n=1):
    """One turn that tells n facts."""
    keys, parts = [], []
    w.style.new()
    for _ in range(n):
        key = facts.fresh(w); v = w.style.value(facts.draw(w, key)); facts.known[key] = v; keys.append(key)
        s = w.style; quiet = n > 1
        if quiet: parts.append(cap(put_plain(w, frame_of(w, R[key[0]].tell, key), key, v)))
        else: parts.append(put(w, "tell", frame_of(w, R[key[0]].tell, key), key, v))
    facts.last = keys[-1]
    if n > 1:
        joined = w.one([". ", ". ", ". ", ", ", ", ", " and ", " and ", " but ", "; ", ", and ", " and also ", " plus ", ". Also, ", ". And ", "\n", " while "]) if n < 4 else w.one([". ", ". ", ". ", "\n", "; "])
        text = parts[0] + "".join(joined + (p if joined in (". ", "\n") else down(p)) for p in parts[1:]) + ("" if w.style.bare else ".")
        if w.style.lower: text = text.lower()
        return [(text, "Noted: " + "; ".join(said(k, facts.known[k], w.style) for k in keys) + "." if n < 4 else "Okay, I will remember that.", None)]
    v = facts.known[keys[0]]
    if keys[0][0] == "name": return [(parts[0], f"Nice to meet you, {v}!", holds(keys[0], v))]
    return [(parts[0], f"Noted: {said(keys[0], v, w.style)}.", holds(keys[0], v))]


def put_plain(w, frame, key, v):
    p = person(key[1], False, lambda h: w.style.value(h))
    frame = fill(frame, p).replace("<X>", "my" if key[1] == "my" else "a")
    for k, x in extra(key).items(): frame = frame.replace("{%s}" % k, x)
    return frame.replace("{k}", w.style.value(key[2])).replace("{v}", v).replace("{o}", w.style.value(w.name()))


BY_VALUE = {"live": ["who lives in {v}", "who is (at home|living) in {v}", "(which person|whose home is|who has a home) in {v}"], "from": ["who (comes|is) from {v}", "who grew up in {v}"], "job": ["who (is|works as) a {v}", "which person is a {v}", "do I know a {v}"], "like": ["who likes {v}", "who (loves|enjoys|is fond of) {v}", "which of us likes {v}"], "hate": ["who (dislikes|hates|does not like) {v}"],
    "allergic": ["who is allergic to {v}", "who (cannot|must not) eat {v}"], "drive": ["who drives (a|the) {v}", "who has a {v}", "whose car is (a|the) {v}"], "speak": ["who speaks {v}"], "play": ["who plays the {v}", "which of us plays {v}"], "study": ["who (studies|is studying) {v}"], "birthday": ["whose birthday is (on |in |){v}", "who has a birthday (on |in |){v}"], "age": ["who is {v}( years old|)"], "tall": ["who is {v} cm tall"],
    "kin": ["who is {v}", "how do I know {v}", "what is {v} to me", "(and |)who was {v}( again|)"], "pet": ["who is {v}", "what is {v}", "(and |)who was {v}( again|)"], "place": ["what is {v}", "what did I (leave|put|keep|store|hide) {v}", "(which|what) thing is {v}", "what can (I|we) find {v}", "what do I keep {v}", "what lies {v}"], "colour": ["(what|which thing) is {v}", "which of my things (is|are) {v}", "what do I have that is {v}", "what (was|is) it that is {v}"],
    "event": ["what (is|happens|takes place|starts) {v}", "what do I have {v}", "what did I (say|plan) for {v}"], "owner": ["what (belongs to|is owned by) {v}", "what does {v} own"], "met": ["who met {v}"], "work": ["who works (at|for) {v}"], "visited": ["who (visited|went to|was in) {v}"], "seeing": ["what (is|happens) {v}", "who am I meeting {v}"], "head": ["who is {v}"]}


def reversed_question(w, facts, key):
    """Asks for the fact by its value: "who likes plums?"."""
    v = facts.known[key]
    if sum(str(x).lower() == str(v).lower() for x in facts.known.values()) > 1: return None
    w.style.new()
    return put(w, "ask", w.say(BY_VALUE[key[0]]), key, v)


def pets(w, facts):
    """Several at once: the pets, the family, all about one person."""
    pick = w.r()
    if pick < 0.3: keys, g = [k for k in facts.known if k[0] == "pet" and k[1] == "my" and k[2] in PETS], ["(what are |)(the |)names of my pets", "what are my pets called", "(who|what) are my pets", "(name|list|tell me about|what do you know about) my (pets|animals)", "how are my pets called", "my pets' names"]
    elif pick < 0.45: keys, g = [k for k in facts.known if k[0] == "kin" and k[1] == "my" and k[2] in RELATIVES], ["(what are |)(the |)names of my (family|relatives)", "(name|list|tell me about|what do you know about) my (family|relatives)", "who is (in my family|my family)"]
    else:
        holders = sorted({k[1] for k in facts.known if k[1] != "my" and not k[1].startswith("the ")})
        if not holders: return None
        h = w.one(holders); keys, g = [k for k in facts.known if k[1] == h], (["who is <S>"] if h[:3] != "my " else []) + ["what do you (know|remember) about <S>", "(what|everything) (did I tell|have I told) you about <S>", "tell me (about|all about|what you know about) <S>", "what have I said about <S>", "anything (you know |)about <S>", "what do I need to know about <S>"]
    if not 1 <= len(keys) <= 4: return None
    w.style.new()
    u = put(w, "ask", w.say(g), keys[0])
    return [(u, " ".join(cap(said(k, facts.known[k], w.style)) + "." for k in keys), dict(kind="contains", want=[str(facts.known[k]) for k in keys]))]


def respelled(w, facts, key):
    """The letters of a name that was told."""
    v = facts.known[key]
    if not v.isalpha() or not 3 <= len(v) <= 14: return None
    what, a = "my name" if key[0] == "name" else "<P> {k}'s name", w.r(); w.style.new()
    if a < 0.5: g, reply = ["(spell|how do you spell|can you spell|spell out) <>( letter by letter|)", "how is <> spelled", "what are the letters of <>", "which letters are in <>"], letters.spelled(v)
    elif a < 0.75: g, reply = ["(spell|write|say|what is) <> (backwards|in reverse|from back to front)", "reverse <>", "<> backwards"], letters.backwards(v)
    else: g, reply = ["how many letters (has|does|are in|are there in) <>( have|)", "how long is <>", "count the letters (in|of) <>"], f"{letters.spelled(v)} has {len(v)} letters."
    return [(put(w, "ask", w.say([x.replace("<>", what) for x in g]), key), reply, dict(kind="contains", want=[turns.plain(reply)]))]


def recall(w, facts, key):
    v = facts.known[key]
    if key[0] in BY_VALUE and w.r() < 0.1:
        u = reversed_question(w, facts, key)
        if u: return [(u, answer(w, key, v), dict(kind="contains", want=[answer(w, key, v)[:-1]]))]
    if w.r() < 0.03:
        several = pets(w, facts)
        if several: return several
    if key[0] in ("name", "kin", "pet") and w.r() < 0.1:
        spelt = respelled(w, facts, key)
        if spelt: return spelt
    if R[key[0]].yes and w.r() < 0.08:
        w.style.new(); right = w.r() < 0.5
        other = v if right else w.style.value(facts.draw(w, key))
        u = put(w, "ask", w.say(R[key[0]].yes), key, other)
        return [(u, ("Yes, " if other == v else "No, ") + said(key, v, w.style) + ".", holds(key, v))]
    u = question(w, key)
    return [(u, answer(w, key, v), holds(key, v))]


def unknown(w, facts):
    a = w.r()
    if a > 0.97 and not any(k[0] == "name" for k in facts.known):
        w.style.new(); u = put(w, "ask", w.say(["(spell|how do you spell|can you spell|spell out) my name", "(spell|write|say) my name (backwards|in reverse)", "how many letters (has|does|are in|are there in) my name( have|)", "reverse my name", "what (letter does my name start with|is the first letter of my name)"]), ("name", "my", ""))
        return [(u, "I don't know what your name is: you have not told me.", dict(kind="contains", want=["don't know"]))]
    if a < 0.05:                                         # asked by the value: "who likes plums?"
        key = facts.fresh(w); v = facts.draw(w, key); w.style.new()
        if key[0] in BY_VALUE and key[0] not in ("kin", "pet", "head") and str(v) not in map(str, facts.known.values()):
            return [(put(w, "ask", w.say(BY_VALUE[key[0]]), key, v), DONT_KNOW, dict(kind="contains", want=["don't know"]))]
    elif a < 0.09:
        who = w.one(["my " + w.one(RELATIVES + FOLK), w.name()]); w.style.new()
        if not any(k[1] == who or k[2] and "my " + k[2] == who for k in facts.known):
            u = put(w, "ask", w.say(["what do you (know|remember) about <S>", "(what|anything) (did I tell|have I told) you about <S>", "tell me what you know about <S>", "what have I said about <S>"]), ("about", who, ""))
            return [(u, f"I don't know anything about {person(who, True, w.style.value)['S']}: you have not told me.", dict(kind="contains", want=["don't know"]))]
    key = facts.fresh(w)
    u = question(w, key)
    return [(u, f"I don't know {said(key, None, w.style, True)}: you have not told me.", dict(kind="contains", want=["don't know"]))]


def change(w, facts, key):
    w.style.new()
    v = w.style.value(facts.draw(w, key)); old = facts.known[key]; facts.known[key] = v
    if key == facts.last and w.r() < 0.35:
        it = "(No, |Sorry, |Wait, |Oh, |Actually, |Oops, |Correction: |Hold on, |No no, |Oh wait no |Oh no, |Wait no, |My bad, |My mistake, |Wrong, |That is wrong, |That was wrong, |Not quite, |Typo: |Scratch that, |Er, |Hmm, |Sorry, typo: |Sorry no, |Nope, |Ah no, |No wait, |)(I meant |I mean |it is |they are |make that |it should be |that should be |change it to |it was |I meant to say |I wanted to say |make it |it must be |let us say |should be |I should have said |it is actually |it is now |it is really |the right one is |better: |put |it is called |that is ){v}"
        u = w.style.write("say", w.say([it, "(Not {o}|It is not {o}), (but |it is |I meant ){v}", "{v}, not {o}", "(Please |)(change|correct|update) (that|it) to {v}", "(No, |Sorry, |Wait, |Oh, |Correction, |Correction: |Update: |Oops, |Typo, |Wrong, |No no, |Actually, |Oh no, |I mean |Rather |Or rather |Better: |Fix: |Edit: |Scratch that, |Er, |Um, |Oops: |Change: |New: |*|No: ){v}", "{v}( instead|, sorry| rather|, I mean|, actually|, not that|, I meant|, to be exact| I mean| it is)", "(not|it is not|no, not|I did not say|I did not mean) {o}(, |: |. |, it is |, but |, I said |, I meant ){v}", "(it|that) (got|was|has been|is) (moved|changed|switched|corrected) to {v}", "{o} (is|was) (wrong|a mistake|not right|a typo)(: |, |. |, it is |. It is ){v}", "(Replace|Swap) {o} (with|by|for) {v}"] + (["(it|that|this|the name) (is|was|should be) (spelled|written) {v}", "(it is |that is |)(spelled|written|spelt) {v}", "(actually|sorry|no), (it is |that is |)(spelled|written) {v}", "with (an h|a k|a y|an e|a c|a z|two l|double t|an accent): {v}"] if key[0] in ("name", "kin", "pet") else [])), v=v, o=old) + w.one(["", "."])
    else:
        p = frame_of(w, R[key[0]].tell, key)
        lead = w.say("(No, I meant that |Actually, |Sorry, |That has changed: |Correction: |I was wrong: |Wait, |Oh, |No, |Update: |I made a mistake: |Scratch that, |Change of plan: |~No, that was a mistake: |Oops, |That was wrong, |It has changed: |New information: |Oh no, I meant that |Sorry, I was wrong: |Sorry, |Hold on, |Oh wait, |Hmm no, |Typo! |Sorry, typo! |My bad, |My mistake: |In fact, |As of today |From now on |Now |News: |Just changed: |Please correct that: |Please update: |That is not right, |That is outdated: |Forget what I said: |Let me correct that: |I have to correct myself: |Not true: |I lied: |Er, |Well, actually |I misspoke: |It turns out |I made a typo: )")
        u = put(w, "say", lead + down(p) + w.one(["", " now", ".", "."]), key, v)
    facts.last = key
    return [(u, f"Okay, {said(key, v, w.style)}.", holds(key, v))]


def passage(w, facts, sentences):
    """Facts hidden in prose, in one message."""
    lines = [w.sentence() for _ in range(sentences)]
    for _ in range(w.int(1, 3)):
        key = facts.fresh(w)
        if key[1] == "my": continue
        facts.known[key] = facts.draw(w, key)
        lines.insert(w.int(0, len(lines)), cap(state(key, facts.known[key])) + ".")
    u = w.say(["(Read this|Here is a text|Please read this text|Here is a story|Have a look at this|Text|Take a look at this story|Read the following|I found this|This is from a book|Please have a look at this story|Study this)(:|.) <>", "<>"]).replace("<>", " ".join(lines))
    return [(u, "Okay, I have read it.", None)]


def summary(w, facts):
    """Everything told so far, where it is little."""
    w.style.new()
    u = w.style.write("ask", w.say("(what do you (know|remember)( about me| so far|)|what (did I tell|have I told) you( so far| about me|)|what have you learned about me|list (everything|all|what|the facts) you know about me|what do you have on me|what is it you know about me|sum up what you know about me|what facts do you (know|remember|have)( about me|)|what have you (noted|stored|saved|remembered)( so far| about me|)|what did you note( down|)|show me what you remember|say everything you know about me|tell me (everything|all|what) you know about me|repeat what I told you)"))
    if not facts.known: return [(u, "Nothing: you have not told me anything.", dict(kind="contains", want=["not told me"]))]
    return [(u, " ".join(cap(said(k, v)) + "." for k, v in facts.known.items()), dict(kind="contains", want=[str(v) for v in facts.known.values()]))]
