"""Owns remembering: facts told, changed, hidden in prose, asked for at any distance, and the honest "I don't know"."""
import re
from hinting import accompanied, shortened
from leaning import asked_of, gender, lettered, respelled
from saying import *
from telling import and_me, booked, needing, siblings, couple, departing, listed_too, locked, moved_from, oneself, household, rambling
from turns import MUTE
from voice import CONTRACT, OPEN, SHUT, down


ASKING = "(Do you know|Can you tell me|Tell me|Remind me|Please tell me|Do you remember|Could you tell me|I want to know|I forgot|I cannot remember|I have forgotten|Can you remind me|Could you remind me|Please remind me|Would you tell me|Say|Do you happen to know|I need to know|Any idea|Can you remember|Did I tell you|Have I told you|Do you recall|I would like to know|I was wondering|I was wondering if you know|Would you happen to know|Could you perhaps tell me|Can you say|Could you say|Let me know|Please let me know|Try to remember|Think hard:|You should know|You must know|I told you|I have told you|I am sure I told you|Did I mention|Have I mentioned|Did I say|I am trying to remember|I do not remember|I do not know|I want to hear|I wonder|Help me remember|Help me to remember|Refresh my memory:|Prove that you know|Quick,|Look up|Check|Find out|Are you able to tell me|Is it possible to tell me|Do you have any idea|Any clue|Got any idea|You know|Show me that you know|Can you recall|Could you remember|Just tell me|Kindly tell me|Now tell me|So tell me|Then tell me|Pray tell me|Tell me again|Say again|Once more,|~Please can you say|You surely know|Be so kind and tell me) "


LOST = ["I (cannot|can not|could not|can never|do not) find (<P>|the) {k}(.|!||...| anywhere| any more|, help|, where is it|. Where is it?)", "I (have |)(lost|misplaced|mislaid) (<P>|the) {k}(.|!||, any idea where it is?|. Where is it?|, help me|, where is it?|, do you know where it is?)", "I am (looking for|searching for|searching|hunting for) (<P>|the) {k}(.||!|, where is it?|, any idea?)", "I need to (find|get|fetch) (<P>|the) {k}(.||, where is it?|, where did I put it?)", "(<P>|the) {k} (has disappeared|is gone|is missing|has gone missing|is lost|has vanished)(.||!|, where is it?)", "I (need|want) <P> {k}, where is it?", "I (forgot|do not remember|cannot remember|have forgotten) where (<P>|the) {k} is(.||, help)", "where oh where is <P> {k}?", "(<P>|the) {k}, where did I (leave|put|have) it?"]


DONT_KNOW = "I don't know that: I only know what you tell me."


KIND_OF = dict(goldfish="fish", kitten="cat", puppy="dog", bunny="rabbit", parrot="bird", canary="bird", budgie="bird", pony="horse", gecko="lizard", tortoise="turtle")


def question(w, key):
    r = R[key[0]]; w.style.new()
    a = w.r()
    if key[0] == "place" and key[1] == "my" and a < 0.1:
        return put(w, "say", w.say(LOST), key)
    if a < 0.6: return put(w, "ask", frame_of(w, r.ask, key), key)
    if a < 0.66: return put(w, "say", w.say(["<c>(?| please| again?|)", "(Uh, |Um, |Oh, |Sorry, |)(I forgot|I cannot remember|I have forgotten|I do not remember|I do not know) <c>(. What was it?|, what is it again?|, can you tell me?|. Do you know it?|. Help me.|, what was it)", "(And|And what about|What about|Now) <c>?", "<c>, (what is it|what was that|what is that|do you know that|tell me)(?|)", "(Give me|Quick,|I need) <c>( again| now| please|)", "(Do you still|Can you still|You still|You surely|Surely you) (know|remember) <c>(?|)"]).replace("<c>", frame_of(w, r.clause, key)), key)
    if key[0] == "code" and key[1] == "my" and len(key[2].split()) in (2, 3) and w.r() < 0.2:       # "lock?", "which number is my locker"
        first, *rest = key[2].split()
        words = [x for x in ([first] if not rest[1:] else [rest[0], f"{first} {rest[0]}", " ".join(rest)]) if x not in ("number", "code", "name", "id", "key", "label")]
        if words: return put(w, "ask", w.say(["{k}", "(and |)the {k}", "my {k}", "{k} again", "(which|what) number is my {k}", "what is my {k}"]), (*key[:2], w.one(words)))
    if key[0] == "pet" and key[1] == "my" and key[2] in KIND_OF and w.r() < 0.25:      # the goldfish is a fish
        return put(w, "ask", w.say(["(what is |)(the |)name of (the|my) {k}", "what is (the|my) {k} called", "(the|my) {k}'s name", "(and |)what is (the|my) {k}'s name"]), (*key[:2], KIND_OF[key[2]]))
    if key[0] in ("place", "colour", "event", "code", "manner", "numbered", "price") and key[1] == "my" and key[2].isalpha() and w.r() < 0.07:
        return put(w, "ask", w.say(["what (do you know|did I tell you|did I say|have I told you|did I mention) about <P> {k}", "tell me (about|what you know about|what I said about) <P> {k}", "(anything|something) about <P> {k}", "what about <P> {k}", "what was (it|that) (about|with) <P> {k}"]), key)
    lead = w.say(ASKING)
    return put(w, "ask" if lead[:3] in ("Do ", "Can", "Cou", "Wou", "Any", "Did", "Hav") else "say", lead + frame_of(w, r.clause, key), key) + ("" if w.style.bare or lead[:3] in ("Do ", "Can", "Cou", "Wou", "Any", "Did", "Hav") else ".")


def tell(w, facts, n=1):
    """One turn that tells n facts."""
    keys, parts = [], []
    w.style.new()
    if n == 1 and w.r() < 0.05: return presented(w, facts)
    if n == 1 and w.r() < 0.21: return w.rng.choices([household, couple, departing, booked, oneself, rambling, locked, moved_from, and_me, siblings, needing], [9, 5, 2.5, 2.5, 3, 2.5, 2.5, 1.5, 2.5, 1.5, 1.2])[0](w, facts) or tell(w, facts)
    for _ in range(n):
        key = facts.fresh(w)
        if n == 1 and key[1][:3] == "my " and w.r() < 0.4 and not facts.clash(relative(key[1])): return introduced(w, facts, key)
        v = w.style.value(facts.draw(w, key)); facts.known[key] = v; facts.low[key] = w.style.lower; keys.append(key)
        s = w.style; quiet = n > 1
        if quiet: parts.append(cap(put_plain(w, frame_of(w, R[key[0]].tell, key), key, v)))
        else: parts.append(put(w, "tell", frame_of(w, R[key[0]].tell, key), key, v))
    facts.last = keys[-1]
    if n > 1:
        joined = w.one([". ", ". ", ". ", ", ", ", ", " and ", " and ", " but ", "; ", ", and ", " and also ", " plus ", ". Also, ", ". And ", "\n", " while "]) if n < 4 else w.one([". ", ". ", ". ", "\n", "; "])
        text = parts[0] + "".join(joined + (p if joined in (". ", "\n") else down(p)) for p in parts[1:]) + ("" if w.style.bare else ".")
        if w.style.contract:
            for a, b in CONTRACT: text = a.sub(b, text)
        if w.style.lower: text = text.lower()
        elif w.style.loud: text = text.upper()
        return [(text, "Noted: " + "; ".join(said(k, facts.known[k], w.style) for k in keys) + "." if n < 4 else "Okay, I will remember that.", None)]
    v = facts.known[keys[0]]
    if keys[0][0] == "name": return [(parts[0], f"Nice to meet you, {v}!", holds(keys[0], v))]
    return [(parts[0], f"Noted: {said(keys[0], v, w.style)}.", holds(keys[0], v))]


def introduced(w, facts, key):
    """Her name, and something of her, in one sentence: "my sister Ingrid is a carpenter"."""
    name = w.style.value((w.one(["Mr ", "Mrs ", "Ms ", "Dr ", "Ms. ", "Mr. "]) if key[1][3:] in FOLK and w.r() < 0.2 else "") + w.name().split()[0]); v = w.style.value(facts.draw(w, key)); facts.known[key] = v; facts.known[relative(key[1])] = name; facts.last = key; facts.low[key] = w.style.lower
    marked, a = OPEN + name + SHUT, w.r()
    frame = frame_of(w, R[key[0]].tell, key)
    if a < 0.3 and frame.startswith("<S>"):
        he = gender(w, key[1])[0]
        holder, frame = key[1] + w.one([f" is called {marked} and {he}", f", {marked},", f" is {marked} and {he}", f" is {marked}, {he}", f" is called {marked}. {he.capitalize()}", f" is {marked}. {he.capitalize()}", f"'s name is {marked} and {he}"]), frame
        if w.r() < 0.3: holder = w.one([f"{marked}, {key[1]},", f"{marked} is {key[1]} and {he}", f"I have a {key[1][3:]} called {marked}, {he}", f"this is {key[1]} {marked}, {he}"])
        frame = fill(frame, dict(S=holder, P=gender(w, key[1])[1], **AGREE))
    else: frame = fill(frame, dict(S=f"{key[1]} {marked}", P=f"{key[1]} {marked}'s", **AGREE))
    for k, x in extra(key).items(): frame = frame.replace("{%s}" % k, x)
    u = w.style.write("tell", frame.replace("<X>", "a"), **{k: x for k, x in dict(k=key[2], v=v, o=w.name(), n=number_of(w, v)).items() if "{%s}" % k in frame})
    named = (key[0], f"{key[1]} {name}", key[2])
    return [(u, f"Noted: {said(named, v, w.style)}.", dict(kind="contains", want=[name, *holds(key, v)["want"]]))]


def presented(w, facts):
    """Who I am, and the first things of me: "I'm Leopold, 34, I live in Gdansk"."""
    w.style.new(); value = w.style.value
    keys = [("name", "my", "")] + [(r, "my", "") for r in w.some(["age", "from", "live", "job"], w.one((1, 1, 2)))]
    if w.r() < 0.35: keys = [keys[0], ("kin", "my", w.one(RELATIVES[:12] + ["girlfriend", "boyfriend", "friend", "partner"]))]
    if any(facts.clash(k) for k in keys): return tell(w, facts)
    bare = len(keys) > 2 and w.r() < 0.35               # without a name: "I'm 34, live in Rome"
    if bare: keys = keys[1:]
    for k in keys: facts.known[k] = value(facts.draw(w, k))
    forms = dict(age=["{}", "{} years old", "I am {}", "aged {}", "{} years young", "and I am {}"], live=["I live in {}", "living in {}", "and I live in {}", "based in {}", "I stay in {}"], job=["a {}", "I am a {}", "I work as a {}", "and I am a {}"], kin=["and this is <k> {}", "<k> is {}", "and <k> is called {}", "and <k> is {}", "this is <k> {}", "<k>'s name is {}"])
    forms["from"] = ["from {}", "I am from {}", "I come from {}", "and I come from {}"]
    alone = {"age": ["I am {}", "I am {} years old", "I am aged {}"], "from": ["I am from {}", "I come from {}"], "live": ["I live in {}", "I am living in {}"], "job": ["I am a {}", "I work as a {}"]}
    text = w.one(alone[keys[0][0]]).format(facts.known[keys[0]]) if bare else w.say("(I am|I am|my name is|this is|hi, I am|hello, my name is|hey, I am|call me|the name is|good afternoon, my name is|good day, I am|hi I am|hello I am|hello, I am called) ") + facts.known[keys[0]]
    for k in keys[1:]:
        part = w.one(forms[k[0]] + (["and live in {}", "live in {}", "and I am living in {}"] if k[0] == "live" else ["work as a {}", "and work as a {}"] if k[0] == "job" else []) * bare).replace("<k>", "my " + k[2]).format(facts.known[k])
        text += (" " if part[:4] == "and " or part[:4] == "from" and w.r() < 0.5 else w.one([", ", ", ", ". ", " and ", "! ", " "] if part[0] == "I" or k[0] == "kin" else [", "])) + part
    text = re.sub(r"([.!]) (.)", lambda m: m.group(1) + " " + m.group(2).upper(), text.replace("and and", "and"))
    if w.style.contract:
        for a, b in CONTRACT: text = a.sub(b, text)
    text = text.lower() if w.style.lower else text.upper() if w.style.loud else cap(text)
    facts.last = keys[-1]
    return [(text + ("" if w.style.bare else w.one(".....!") if w.r() < 0.9 else "!!!"), "Noted: " + "; ".join(said(k, facts.known[k], w.style) for k in keys) + ".", dict(kind="contains", want=[str(facts.known[k]) for k in keys]))]


AGAIN = {"event": ["(and |)(what|which) (day|date|time)( was that| is that| again| is it| was it|)", "when( is that| was that| again| is it| was it|)", "(at |)what time( again|)", "(at |)(which|what) hour( is it| was that| again|)"], "owe": ["(and |)how much( is it| was it| again| was that| money|)"], "owes": ["(and |)how much( is it| was it| again| was that|)"], "place": ["(and |)where (is it|are they|was it|was that|again)( now|)", "where( again|)", "(and |so |)where is it( now|)"], "parked": ["where( was that| again| is it|)"], "age": ["how old( again| was that| exactly|)"], "live": ["where( was that| again|)"], "birthday": ["when( was that| again| is it|)"], "code": ["what was it( again|)", "say it again"], "price": ["how much( was it| again| was that|)"], "job": ["what job( was that|)"]}
NAME_OF = ["(what is|what was|and|tell me|) <P> name( again| please|)", "what is <S> called", "(and |)who is <S>", "(and |)<P> name( was what|)"]


def follow(w, facts, key):
    """What only the turn before explains: "spell it", "oh wait, they're in the car", "and her job?", "how much?"."""
    facts.last, v, a = key, facts.known[key], w.r()
    if a < 0.35 and lettered(v):
        its = ["it", "it", "that", "that"] + (["that name", "the name", "my name"] if key[0] == "name" else [gender(w, "my " + key[2])[1] + " name", "that name"] if key[0] in ("kin", "pet") else [])
        turns = asked_of(w, v, w.one(its))
        return turns + asked_of(w, v, w.one(its)) if w.r() < 0.4 else turns
    if a < 0.6: return change(w, facts, key, 0.95) + (recall(w, facts, key) if w.r() < 0.5 else [])
    if key[0] in AGAIN and w.r() < 0.5:
        w.style.new()
        return [(w.style.write("ask", w.say(AGAIN[key[0]])), answer_as_told(w, facts, key), holds(key, facts.known[key]))]
    if key[0] == "event" and " with " in key[2] and w.r() < 0.6: return accompanied(w, facts, key)
    if key[0] in ("pet", "kin") and w.r() < 0.4:         # the others of the house
        several = pets(w, facts, 0.2 if key[0] == "pet" else 0.4)
        others = [k for k in facts.known if k[0] == key[0] and k[1] == "my"]
        return several if several and w.r() < 0.6 else recall(w, facts, w.one(others)) if others else recall(w, facts, key)
    holder = f"my {key[2]}" if key[0] in ("kin", "pet") and key[1] == "my" else key[1]
    if holder == "my" or holder[:4] == "the ": return recall(w, facts, key)
    about = [k for k in facts.known if k[1] == holder and k != key] or ([key] if key[1] == holder else [])
    if relative(holder) in facts.known and (not about or w.r() < 0.4): about = [relative(holder)]
    if not about: return recall(w, facts, key)
    key = w.one(about); he, his = gender(w, holder); w.style.new()
    frame = w.say(NAME_OF if key == relative(holder) else R[key[0]].ask) if w.r() < 0.8 or key == relative(holder) else "and " + w.say(R[key[0]].clause)
    frame = fill(frame, dict(S=he, P=his, **AGREE)).replace("<X>", "a")
    for k, x in extra(key).items(): frame = frame.replace("{%s}" % k, x)
    u = w.style.write("ask", frame.strip(), **({"k": key[2]} if "{k}" in frame else {}))
    return [(u, answer_as_told(w, facts, key), holds(key, facts.known[key]))]


def apart(w, facts):
    """Pets told one after the other, something between, then all of them asked for."""
    turns = []
    for k in w.some(PETS, w.one((2, 2, 2, 3))):
        key = ("pet", "my", k)
        if facts.clash(key): continue
        w.style.new(); facts.known[key] = w.style.value(facts.draw(w, key).split()[-1]); facts.low[key] = w.style.lower; facts.last = key
        turns.append((put(w, "tell", frame_of(w, R["pet"].tell, key), key, facts.known[key]), "Noted: " + said(key, facts.known[key], w.style) + ".", holds(key, facts.known[key])))
        if w.r() < 0.3: turns += tell(w, facts)
    return turns + (pets(w, facts, 0.2) or [])


BY_VALUE = {"live": ["who lives in {v}", "who is (at home|living) in {v}", "(which person|whose home is|who has a home) in {v}"], "from": ["who (comes|is) from {v}", "who grew up in {v}"], "job": ["who (is|works as) a {v}", "which person is a {v}", "do I know a {v}"], "like": ["who likes {v}", "who (loves|enjoys|is fond of) {v}", "which of us likes {v}"], "hate": ["who (dislikes|hates|does not like) {v}"],
    "allergic": ["who is allergic to {v}", "who (cannot|must not) eat {v}"], "drive": ["who drives (a|the) {v}", "who has a {v}", "whose car is (a|the) {v}"], "speak": ["who speaks {v}"], "play": ["who plays the {v}", "which of us plays {v}"], "study": ["who (studies|is studying) {v}"], "birthday": ["whose birthday is (on |in |){v}", "who has a birthday (on |in |){v}"], "age": ["who is {v}( years old|)"], "tall": ["who is {v} cm tall"],
    "kin": ["who is {v}", "how do I know {v}", "what is {v} to me", "(and |)who was {v}( again|)"], "pet": ["who is {v}", "what is {v}", "(and |)who was {v}( again|)"], "place": ["what is {v}", "what did I (leave|put|keep|store|hide) {v}", "(which|what) thing is {v}", "what can (I|we) find {v}", "what do I keep {v}", "what lies {v}"], "colour": ["(what|which thing) is {v}", "which of my things (is|are) {v}", "what do I have that is {v}", "what (was|is) it that is {v}"],
    "event": ["what (is|happens|takes place|starts) {v}", "what do I have {v}", "what did I (say|plan) for {v}"], "owner": ["what (belongs to|is owned by) {v}", "what does {v} own"], "met": ["who met {v}"], "work": ["who works (at|for) {v}"], "visited": ["who (visited|went to|was in) {v}"], "seeing": ["what (is|happens) {v}", "who am I meeting {v}"], "head": ["who is {v}"], "does": ["who {k}s {v}", "who is it (that |)who {k}s {v}", "which of us {k}s {v}"], "comes": ["(what|who) (comes|is coming) {v}"]}


def reversed_question(w, facts, key):
    """Asks for the fact by its value: "who likes plums?"."""
    v = facts.known[key]
    if sum(str(x).lower() == str(v).lower() for x in facts.known.values()) > 1: return None
    w.style.new()
    return put(w, "ask", w.say(BY_VALUE[key[0]]), key, v)


def pets(w, facts, pick=None):
    """Several at once: the pets, the family, all about one person."""
    pick = pick or w.r()
    if pick < 0.3: keys, g = [k for k in facts.known if k[0] == "pet" and k[1] == "my" and k[2] in PETS], ["(what are |)(the |)names of my pets", "what are my pets called", "(who|what) are my pets", "(name|list|tell me about|what do you know about) my (pets|animals)", "how are my pets called", "my pets' names", "(which|what) pets do I have", "(do you (know|remember)|tell me|say|remember|what were) (the names of my pets|my pets|what my pets are called|my pets' names)( again|)", "what names do my (pets|animals) have", "(my|the) pets", "who (are|were) my (animals|pets)( again|)", "what animals do I (have|own|keep)", "do I have (any |)(pets|animals)(, which|, and which ones|)"]
    elif pick < 0.45: keys, g = [k for k in facts.known if k[0] == "kin" and k[1] == "my" and k[2] in RELATIVES], ["(what are |)(the |)names of my (family|relatives)", "(name|list|tell me about|what do you know about) my (family|relatives)", "who is (in my family|my family)", "(which|what) relatives do I have", "(do you (know|remember)|tell me|say|what were) (the names of my family|my family)( again|)", "(my|the) family"]
    else:
        holders = sorted({k[1] for k in facts.known if k[1] != "my" and not k[1].startswith("the ")})
        if not holders: return None
        h = w.one(holders); keys, g = [k for k in facts.known if k[1] == h], (["who is <S>"] if h[:3] != "my " else []) + ["what do you (know|remember) about <S>", "(what|everything) (did I tell|have I told) you about <S>", "tell me (about|all about|what you know about) <S>", "what have I said about <S>", "anything (you know |)about <S>", "what do I need to know about <S>"]
    if not 1 <= len(keys) <= 4 or len(keys) == 1 and pick < 0.45 and w.r() < 0.6: return None
    w.style.new()
    u = put(w, "ask", w.say(g), keys[0])
    return [(u, " ".join(cap(said(k, facts.known[k], w.style)) + "." for k in keys), dict(kind="contains", want=[str(facts.known[k]) for k in keys]))]


BY_KEY = {"owe": ["(who|whom) do I owe( money| something|)( to|)", "(who|whom) do I (have|need) to pay( back|)", "(who|whom) did I borrow (money |)from", "who lent me (money|something)", "who do I owe", "whose money do I have"], "owes": ["who owes me( money| something|)", "(who|whom) did I lend money( to|)", "who has my money", "(who|whom) do I get money from"]}


def relative(holder):
    """Where the name of "my sister" is kept."""
    k = holder[3:]
    return ("pet" if k in PETS else "kin", "my", k)


def both(w, facts, key):
    """Two asked for in one sentence."""
    others = [k for k in facts.known if k != key and k[1] in ("my", key[1]) and k[0] != "parked"]
    if not others: return None
    keys = [key, w.one(others)]; w.style.new()
    asks = [put_plain(w, frame_of(w, R[k[0]].ask, k), k, "") for k in keys]
    text = cap(asks[0]) + w.one([" and ", " and ", ", and ", "? And ", "? ", ", "]) + asks[1]
    text = text.lower() if w.style.lower else text.upper() if w.style.loud else text
    return [(text + ("" if w.style.bare else "?"), " ".join(answer(w, k, facts.known[k]) for k in keys), dict(kind="contains", want=[x for k in keys for x in holds(k, facts.known[k])["want"]]))]


def recall(w, facts, key):
    v = facts.known[key]
    if w.r() < 0.025:
        turns = both(w, facts, key)
        if turns: return turns
    if key[0] in ("code", "numbered") and w.r() < 0.12:
        turns = shortened(w, facts, key)
        if turns: return turns
    if key[0] == "event" and " with " in key[2] and w.r() < 0.2 and sum(" with " in k[2] for k in facts.known) == 1: return accompanied(w, facts, key)
    if key[0] in BY_VALUE and w.r() < 0.1:
        u = reversed_question(w, facts, key)
        if u: return [(u, answer(w, key, v), dict(kind="any", want=[answer(w, key, v)[:-1], answer_as_told(w, facts, key)[:-1]]))]
    if w.r() < (0.13 if key[0] in ("pet", "kin") else 0.04):
        several = pets(w, facts, (0.2 if key[0] == "pet" else 0.4) if key[0] in ("pet", "kin") and w.r() < 0.75 else None)
        if several: return several
    if key[0] in ("name", "kin", "pet") and w.r() < 0.12 and lettered(v):
        w.style.new(); p = person(key[1], False, w.style.value)
        return respelled(w, v, "my name" if key[0] == "name" else f"{p['P']} {key[2]}'s name")
    if key[0] == "pair" and w.r() < 0.15:                 # how many of them
        w.style.new(); n = len(re.split(r", and |, | and | & |,", v))
        return [(put(w, "ask", w.say(["how many {k} <D> <S> have", "how many {k} <H> <S> got", "how many {k} are there", "the number of <P> {k}"]), key), cap(fill(f"<S> <H> {n} {key[2]}.", person(key[1], True, w.style.value))), dict(kind="contains", want=[str(n)]))]
    if key[0] in BY_KEY and w.r() < 0.35 and sum(k[0] == key[0] for k in facts.known) == 1:
        w.style.new()
        return [(put(w, "ask", w.say(BY_KEY[key[0]]), key), answer_as_told(w, facts, key), holds(key, v))]
    if key[0] == "place" and str(v).startswith("with ") and w.r() < 0.4:
        w.style.new()
        return [(put(w, "ask", w.say(["who has (<P>|the) {k}", "with whom is <P> {k}", "who did <S> give <P> {k}( to|)", "who is looking after <P> {k}", "who (keeps|holds|has got) (<P>|the) {k}"]), key), answer(w, key, v), holds(key, v))]
    if w.r() < 0.15 and relative(key[1]) in facts.known:          # by her name: "what does Ingrid do?"
        key = (key[0], facts.known[relative(key[1])], key[2])
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
    named = [str(v) for k, v in facts.known.items() if k[0] in ("pet", "kin", "met", "owner")]
    if named and a > 0.75 and "name" in R[key[0]].who:   # of somebody told of, but not this
        other = (key[0], w.one(named), key[2])
        if not any(k[0] == other[0] and k[1] in (other[1], *("my " + k2[2] for k2, v in facts.known.items() if str(v) == other[1])) for k in facts.known): key = other
    kin = [k for k in facts.known if k[0] in ("kin", "pet") and k[1] == "my"]
    if kin and w.r() < 0.18:                             # of another than those who were named
        key = next((k for k in [(kin[0][0], "my", w.one(RELATIVES if kin[0][0] == "kin" else PETS))] if not facts.clash(k)), key)
    while key[0] == "land": key = facts.fresh(w)         # of the world nothing is known anyway
    u = question(w, key)
    return [(u, f"I don't know {said(key, None, w.style, True)}: you have not told me.", dict(kind="contains", want=["don't know"]))]


MOVED = "(Actually |Oh |Wait, |No, |Sorry, |Oh no, |Now |Hm, |Correction: |)(I (put|left|moved|have put|brought|took|meant to say I put) (it|them) {v}|(it|they) (moved|went|ended up|turned up|got moved) {v}|(it is|they are) {v}|I found (it|them) {v}|it was {v}( all along|)|they were {v}( all along|))"


def change(w, facts, key, leaning=0.35):
    if key[0] in ("onlist", "buying") and key == facts.last and w.r() < 0.6 and len(facts.known[key]) < 60: return listed_too(w, facts, key)
    w.style.new()
    v = w.style.value(facts.draw(w, key)); old = facts.known[key]; facts.known[key] = v
    if key == facts.last and w.r() < leaning:
        it = "(moved it|I moved it|changed it|switched|it changed|I changed that)(, | - |: ){v}( now|)" if w.r() < 0.06 else "(No, |Sorry, |Wait, |Oh, |Actually, |Oops, |Correction: |Hold on, |No no, |Oh wait no |Oh no, |Wait no, |My bad, |My mistake, |Wrong, |That is wrong, |That was wrong, |Not quite, |Typo: |Scratch that, |Er, |Hmm, |Sorry, typo: |Sorry no, |Nope, |Ah no, |No wait, |Oh wait, |Oh no wait |Hang on, |Actually no, |Sorry, actually |Hm, actually |Oh sorry, |Ah wait, |No actually |)(I meant |I mean |it is |it is |they are |they are |make that |make that |actually it is |actually they are |they are actually |they are now |no, they are |it is really |it should be |that should be |change it to |it was |I meant to say |I wanted to say |make it |it must be |let us say |should be |I should have said |it is actually |it is now |it is really |the right one is |better: |put |it is called |that is ){v}"
        u = w.style.write("say", w.say(([MOVED] if key[0] == "place" and w.r() < 0.4 else []) or [it, it, "(Not {o}|It is not {o}), (but |it is |I meant ){v}", "{v}, not {o}", "(Please |)(change|correct|update) (that|it) to {v}", "(No, |Sorry, |Wait, |Oh, |Correction, |Correction: |Update: |Oops, |Typo, |Wrong, |No no, |Actually, |Oh no, |I mean |Rather |Or rather |Better: |Fix: |Edit: |Scratch that, |Er, |Um, |Oops: |Change: |New: |*|No: ){v}", "{v}( instead|, sorry| rather|, I mean|, actually|, not that|, I meant|, to be exact| I mean| it is)", "(not|it is not|no, not|I did not say|I did not mean) {o}(, |: |. |, it is |, but |, I said |, I meant ){v}", "(it|that) (got|was|has been|is) (moved|changed|switched|corrected) to {v}", "{o} (is|was) (wrong|a mistake|not right|a typo)(: |, |. |, it is |. It is ){v}", "(Replace|Swap) {o} (with|by|for) {v}"] + (["(it|that|this|the name) (is|was|should be) (spelled|written) {v}", "(it is |that is |)(spelled|written|spelt) {v}", "(actually|sorry|no), (it is |that is |)(spelled|written) {v}", "with (an h|a k|a y|an e|a c|a z|two l|double t|an accent): {v}"] if key[0] in ("name", "kin", "pet") else [])), v=v, o=old) + w.one(["", "."])
    else:
        p = frame_of(w, R[key[0]].tell, key)
        lead = "" if key == facts.last and w.r() < 0.25 else w.say("(No, I meant that |Actually, |Sorry, |That has changed: |Correction: |I was wrong: |Wait, |Oh, |No, |Update: |I made a mistake: |Scratch that, |Change of plan: |~No, that was a mistake: |Oops, |That was wrong, |It has changed: |New information: |Oh no, I meant that |Sorry, I was wrong: |Sorry, |Hold on, |Oh wait, |Hmm no, |Typo! |Sorry, typo! |My bad, |My mistake: |In fact, |As of today |From now on |Now |News: |Just changed: |Please correct that: |Please update: |That is not right, |That is outdated: |Forget what I said: |Let me correct that: |I have to correct myself: |Not true: |I lied: |Er, |Well, actually |I misspoke: |I changed my mind: |I changed my mind, |I have changed my mind. |It turns out |I made a typo: )")
        u = put(w, "say", lead + down(p) + w.one(["", " now", ".", "."]), key, v)
        facts.low[key] = w.style.lower
    facts.last = key; w.style.lower = facts.low.get(key, False)
    if w.r() < 0.12: return [(u, f"{MUTE}Noted: {said(key, v, w.style)}.{MUTE}", holds(key, v))]      # another's words: the last value holds all the same
    return [(u, f"Okay, {said(key, v, w.style)}.", holds(key, v))]


def passage(w, facts, sentences):
    """Facts hidden in prose, in one message."""
    lines = [w.sentence() for _ in range(sentences)]
    for _ in range(w.int(0, 3)):
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
