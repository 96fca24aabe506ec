"""Owns the sentences that tell several facts at once, or one among much else, as people do: the pets of a house, a train's
time and platform, what somebody said on a long walk. Each gives one turn, or None where the facts would clash."""
from saying import *
from voice import OPEN, SHUT, down

MANY = [2, 2, 2, 3]
PETS_OF = ["(I have|I have got|we have|I own|at home I have) <(a {k} called {v}|a {k} named {v}|a {k}, {v},|a {k} whose name is {v})>", "my {k} is (called |named |){v} and my {k2} (is (called |named |)|){v2}", "my {k} is {v} and my {k2} is {v2}", "(I have|we have|I have got) <{v} the {k}>", "{v} is my {k} and {v2} (is |)my {k2}", "my pets are <{v} the {k}>", "my pets are <(the|a) {k} {v}>", "(I have|there are) two pets(, |: ){v} (the|my) {k} and {v2} (the|my) {k2}", "my pets: <{k} {v}>", "<my {k} {v}> (are my pets|live with me|say hello|are here)", "(I have|we have) a {k} and a {k2}(, | called |: | named |. They are called |, they are ){v} and {v2}", "(our|the) {k} is called {v} and (our|the) {k2} {v2}", "<{k}: {v}>", "<{v} is a {k}>", "I (live|share my home|share a flat) with <my {k} {v}>"]
KIN_OF = ["my {k} is (called |named |){v} and my {k2} (is (called |named |)|){v2}", "my {k} is {v} and my {k2} is {v2}", "my {k}'s name is {v} and my {k2}'s( name is|) {v2}", "{v} is my {k} and {v2} (is |)my {k2}", "(I have|I have got) <a {k} called {v}>", "(I have|I have got) <a {k}, {v},>", "(I live with|I have|this is|these are|here are|meet) <my {k} {v}>", "<my {k} {v}> (say hello|are here|live with me|came too)", "I have a {k} and a {k2}(, | called |: | named ){v} and {v2}", "my family: <{k} {v}>", "<{k}: {v}>", "<{v} is my {k}>"]


def spread(w, frame, n):
    """<..> once for each of n things, counted through: "a {k} called {v} and a {k2} called {v2}"."""
    if "<" not in frame: return frame
    at, end = frame.index("<"), frame.index(">")
    parts = [frame[at + 1:end].replace("{k}", "{k%d}" % i).replace("{v}", "{v%d}" % i) if i > 1 else frame[at + 1:end] for i in range(1, n + 1)]
    last = w.one([" and ", " and ", ", and ", ", "]) if ":" not in frame else ", "
    return frame[:at] + ", ".join(parts[:-1]).replace(",,", ",") + last.replace(", ", " ") * parts[-2].endswith(",") + last * (not parts[-2].endswith(",")) + parts[-1].rstrip(",") + frame[end + 1:]


def noted(facts, keys, style): return "Noted: " + "; ".join(said(k, facts.known[k], style) for k in keys) + "."


def told(facts, keys, style):
    """One turn's reply and check, and what the next turn may lean on."""
    for k in keys: facts.low[k] = style.lower
    facts.last = keys[-1]
    return noted(facts, keys, style), dict(kind="contains", want=[x for k in keys for x in holds(k, facts.known[k])["want"]])


def household(w, facts):
    """Two or three pets or relatives, by name."""
    pets = w.r() < 0.6; n = w.one(MANY); w.style.new()
    keys = [("pet" if pets else "kin", "my", k) for k in w.some(PETS if pets else RELATIVES + FOLK + ["best friend", "grandma", "grandpa", "mom", "flatmate"], n)]
    frame = w.say(PETS_OF if pets else KIN_OF)
    if "<" not in frame: keys = keys[:2]
    if any(facts.clash(k) for k in keys): return None
    for k in keys: facts.known[k] = w.style.value(facts.draw(w, k).split()[-1])
    if len({facts.known[k].lower() for k in keys}) < len(keys): return withdrawn(facts, keys)
    names = {f"{x}{i + 1 if i else ''}": v for i, k in enumerate(keys) for x, v in (("k", k[2]), ("v", facts.known[k]))}
    u = w.style.write("tell", spread(w, frame, len(keys)), **names)
    return [(u, *told(facts, keys, w.style))]


def withdrawn(facts, keys):
    for k in keys: del facts.known[k]


# What is said of two in a sentence -> (relation, how it is said of one, how of the other), the holder being {h}.
OF_TWO = {"age": ["{h} is {v}( years old|) and {h2} is {v2}( years old|)", "{h} is {v}(, | and |; ){h2} {v2}", "{h} is {v} years old, {h2} (is |){v2}", "{h} ({v}) and {h2} ({v2})", "{h}, {v}, and {h2}, {v2}", "{h} (turned|is already|just turned) {v}, {h2} is (only |){v2}", "{h}: {v}, {h2}: {v2}"],
          "job": ["{h} (is|works as) a {v} and {h2} (is|works as) a {v2}", "{h} is a {v}, {h2} (is |)a {v2}", "{h} is a {v} but {h2} is a {v2}", "{h}, a {v}, and {h2}, a {v2}", "{h} became a {v}, {h2} a {v2}"],
          "live": ["{h} lives in {v} and {h2} (lives |)in {v2}", "{h} lives in {v}, {h2} (is |)in {v2}", "{h} moved to {v}, {h2} (moved |)to {v2}", "{h} is in {v} now and {h2} in {v2}"],
          "from": ["{h} is from {v} and {h2} (is |comes |)from {v2}", "{h} comes from {v}, {h2} from {v2}"],
          "like": ["{h} (likes|loves) {v} and {h2} (likes |loves |prefers |){v2}", "{h} likes {v}, {h2} (likes |)(more |){v2}", "{h} is fond of {v} but {h2} likes {v2}"],
          "play": ["{h} plays the {v} and {h2} (plays |)the {v2}", "{h} plays the {v}, {h2} the {v2}"], "speak": ["{h} speaks {v} and {h2} (speaks |){v2}"], "drive": ["{h} drives a {v} and {h2} (drives |)a {v2}"], "birthday": ["{h}'s birthday is (on |in |){v} and {h2}'s (is |)(on |in |){v2}", "{h} has (her|his|a) birthday on {v} and {h2} (has it |)on {v2}"]}
NAMED = ["my {k} {n}", "my {k} {n}", "my {k} {n}", "{n}, my {k},", "my {k}, {n},", "my {k} is called {n} and", "{n} (my {k})"]


def couple(w, facts):
    """Two of the family, the pets or by their names alone, and the same of each: "my dog Rex is 4 and my cat Tom is 9"."""
    rel = w.one(list(OF_TWO)); a = w.r(); w.style.new(0.6)
    kinds = w.some(PETS if rel in ("age", "like") and a < 0.35 else RELATIVES + ["best friend", "neighbour", "boss", "friend"], 2)
    pet = kinds[0] in PETS
    twins = a > 0.85 and w.r() < 0.5; kinds = kinds if not twins else [w.one("brother sister brother sister son daughter aunt uncle cousin friend colleague".split())] * 2       # "my other brother Finn"
    holders = [w.style.value(w.name().split()[0]) for _ in kinds] if a > 0.85 else ["my " + k for k in kinds]
    keys = [(rel, h, "") for h in holders]; named = a < 0.7
    naming = [("pet" if pet else "kin", "my", k) for k in kinds] if a <= 0.85 else []
    if holders[0] == holders[1] or any(facts.clash(k) for k in keys + naming): return None
    values = [w.style.value(facts.draw(w, k)) for k in keys]
    names = [w.style.value(w.name().split()[0]) for _ in kinds]
    if names[0].lower() == names[1].lower() or values[0].lower() == values[1].lower(): return None
    facts.known.update(zip(keys, values))
    if named: facts.known.update(zip(naming, names))
    form = w.one(NAMED) if named else "my {k}" if naming else "{n}"
    if twins: form = "my {k} {n}"
    hs = [form.replace("{k}", k).replace("{n}", OPEN + (n if naming else h) + SHUT) for k, n, h in zip(kinds, names, holders)]
    if twins: hs[1] = hs[1].replace("my ", "my other ")
    u = w.style.write("tell", w.say(OF_TWO[rel]).replace("{h}", hs[0]).replace("{h2}", hs[1]).replace(",,", ",").replace(", ,", ","), v=values[0], v2=values[1])
    shown = [(rel, f"{h} {n}" if named else f"my {k} {h}" if twins else h, "") for h, n, k in zip(holders, names, kinds)]
    for k in keys: facts.low[k] = w.style.lower
    facts.last = keys[-1]
    return [(u, "Noted: " + "; ".join(said(k, v, w.style) for k, v in zip(shown, values)) + ".", dict(kind="contains", want=[x for k, v in zip(keys, values) for x in holds(k, v)["want"]] + names * named))]


# What somebody and I have or do alike -> frames, {h} being the other.
AND_ME = {"like": ["{h} (likes|loves) {v} and I (like|love|prefer) {v2}", "I like {v2}(,| and| but) {h} (likes|loves) {v}", "{h} likes {v}, I (like |prefer |){v2}"], "live": ["{h} lives in {v} and I (live |)in {v2}", "I live in {v2}(,| and) {h} (lives |is |)in {v}"], "age": ["{h} is {v} and I am {v2}", "I am {v2} and {h} is {v}", "I am {v2}, {h} (is |){v}"], "job": ["{h} is a {v} and I am a {v2}", "I am a {v2}(,| and) {h} (is |)a {v}"], "from": ["{h} is from {v} and I am from {v2}", "{h} comes from {v}, I (come |)from {v2}"],
          "birthday": ["{h}'s birthday is (on |){v} and mine is (on |){v2}", "my birthday is (on |){v2}(,| and) {h}'s is (on |){v}"], "play": ["{h} plays the {v} and I (play |)the {v2}"], "drive": ["{h} drives a {v} and I (drive |)a {v2}"], "hate": ["{h} hates {v} and I hate {v2}", "I hate {v2}, {h} hates {v}"], "favourite": ["{h}'s favourite {k} is {v}(,| and) mine is {v2}", "my favourite {k} is {v2}(,| and) {h}'s is {v}", "{h}'s favourite {k} is {v} but mine is {v2}"]}
ME_TOO = "(and |what about |how about |and what about |)(me|mine|my own)( again| please|)"


def and_me(w, facts):
    """Of somebody and of me the same, then of one and "and mine?"."""
    rel = w.one(list(AND_ME) + ["favourite"] * 2); w.style.new(0.6); k = R[rel].k(w) if R[rel].k else ""
    h = w.style.value(w.name().split()[0]) if w.r() < 0.5 else "my " + w.one(RELATIVES + ["best friend", "neighbour", "boss", "friend"])
    keys = [(rel, h, k), (rel, "my", k)]
    if any(facts.clash(x) for x in keys): return None
    values = [w.style.value(facts.draw(w, x)) for x in keys]
    if values[0].lower() == values[1].lower(): return None
    for x, v in zip(keys, values): facts.known[x] = v; facts.low[x] = w.style.lower
    frame = w.say(AND_ME[rel]).replace("{h}", OPEN + h + SHUT)
    u = w.style.write("tell", frame, v=values[0], v2=values[1], **(dict(k=k) if "{k}" in frame else {}))
    turns = [(u, *told(facts, keys, w.style))]
    if w.r() < 0.4:
        w.style.new(); ask = put(w, "ask", frame_of(w, R[rel].ask, keys[0]), keys[0])
        turns += [(ask, answer(w, keys[0], values[0]), holds(keys[0], values[0]))]; w.style.new()
        turns += [(w.style.write("ask", w.say(ME_TOO)), answer_as_told(w, facts, keys[1]), holds(keys[1], values[1]))]
    return turns


POSTS = ["I am a {v} at {v2}", "I work as a {v} (at|for) {v2}", "I work (at|for) {v2} as a {v}", "my job is {v} at {v2}", "{v} at {v2}, that is me", "I got a job as a {v} at {v2}", "I am {v2}'s (new |)(only |){v}", "I am employed at {v2} as a {v}"]
SIZES = ["I weigh {v} (kilos|kg) and (am|I am) {v2} cm( tall|)", "I am {v2} cm tall and weigh {v} (kilos|kg)", "{v2} cm, {v} kilos( that is me|)", "my height is {v2} cm and my weight {v} (kilos|kg)"]
BIRTHS = ["I was born in {v} in {v2}", "I was born in {v2} in {v}", "I was born in {v2}, in {v}", "I come from {v2} and was born in {v}", "born in {v2} in {v}", "born {v} in {v2}"]


WORKING = ["I work as a {v} in {v2}", "I am a {v} in {v2}", "I am a {v} and work in {v2}", "I work in {v2} as a {v}", "my job is {v} in {v2}", "{v} in {v2}, that is me", "I got a job as a {v} in {v2}"]
AGED = ["I am {v}( years old|)(,| and) (I |)(live|I live) in {v2}", "I am {v} and I (come from|am from) {v2}".replace("(come from|am from)", "live in"), "{v} years old, living in {v2}", "I live in {v2} and am {v}( years old|)"]
KEPT = ["I was born in {v} and (I |)work in {v2}", "I work in {v2} and was born in {v}"]


def oneself(w, facts):
    """Two things of me that go together: my work and where, my size, when and where I was born."""
    frames, keys = w.one([(POSTS, ("job", "work")), (POSTS, ("job", "work")), (SIZES, ("weigh", "tall")), (WORKING, ("job", "workin")), (WORKING, ("job", "workin")), (AGED, ("age", "live")), (KEPT, ("born", "workin")), (BIRTHS, ("born", "from"))])
    keys = [(k, "my", "") for k in keys]; w.style.new()
    if any(facts.clash(k) for k in keys): return None
    for k in keys: facts.known[k] = w.style.value(facts.draw(w, k))
    return [(w.style.write("tell", w.say(frames), v=facts.known[keys[0]], v2=facts.known[keys[1]]), *told(facts, keys, w.style))]


LOCKED = ["my {k}'s number (is |){v} and the {c} (is |){v2}", "my {k} is (number |){v} and the {c} is {v2}", "my {k} is (number |){v}, (the |){c} (is |){v2}", "{k} {v}, {c} {v2}", "{k}: {v}, {c}: {v2}", "(I have|I got|they gave me) {k} (number |){v}(, | and | with )(the |)(code|{c}) {v2}", "the {c} (of|for) my {k} (number |){v} is {v2}", "my {k} number is {v} and (its|the) {c} is {v2}", "{k} {v} with {c} {v2}"]


def locked(w, facts):
    """A thing with a number, and its code."""
    k = w.one("locker room gate box safe bike garage house flat door cabin office".split()); c = w.one("code code code pin combination password key".split())
    keys = [("numbered", "my", k), ("code", "my", f"{k} {c}")]; w.style.new()
    if any(facts.clash(x) for x in keys): return None
    for x in keys: facts.known[x] = w.style.value(facts.draw(w, x)); facts.low[x] = w.style.lower
    turns = [(w.style.write("tell", w.say(LOCKED).replace("(code|{c})", "{c}"), k=k, c=c, v=facts.known[keys[0]], v2=facts.known[keys[1]]), *told(facts, keys, w.style))]
    if w.r() < 0.5:                                      # the one, then "and the code?"
        first, then = keys if w.r() < 0.75 else keys[::-1]; w.style.new()
        turns += [(put(w, "ask", frame_of(w, R[first[0]].ask, first), first), answer(w, first, facts.known[first]), holds(first, facts.known[first]))]; w.style.new()
        turns += [(w.style.write("ask", w.say("(and |and |and what is |what is |)(the|its|my) {x}( again| please|)"), x=c if then == keys[1] else "number"), answer_as_told(w, facts, then), holds(then, facts.known[then]))]
    return turns


YOUNG = ["my {k} are (called |named |){v} and {v2}, {p} is {a} and {p2} is {a2}", "my {k} are (called |named |){v} and {v2}. {p} is {a} and {p2} is {a2}", "(I have|we have|I have got) two {k}(, |: | called | named ){v} and {v2}(, |. |; ){p} is {a}(, | and ){p2} (is |){a2}", "my {k} {v} and {v2} are {a} and {a2}( years old|)", "{v} and {v2} are my {k}, {p} is {a} and {p2} is {a2}", "(I have|we have) two {k}, {v} ({a}) and {v2} ({a2})", "my {k} are {v} ({a}) and {v2} ({a2})", "my {k}: {v}, {a}, and {v2}, {a2}", "my {k} {v}, {a}, and {v2}, {a2}"]


def siblings(w, facts):
    """Two of one kind by name, and how old each is: "my kids are Ann and Bo, he's 9 and she's 6"."""
    k = w.one("kids children kids children twins sons daughters brothers sisters cats dogs nephews nieces grandchildren boys girls".split()); w.style.new()
    names = [w.style.value(w.name().split()[0]) for _ in "ab"]
    keys = [("pair", "my", k), ("age", names[0], ""), ("age", names[1], "")]
    if names[0].lower() == names[1].lower() or any(facts.clash(x) for x in keys): return None
    ages = [str(w.int(1, 17)) for _ in "ab"]
    he, she = w.one([("he", "she"), ("she", "he")]) if k in ("kids", "children", "twins", "cats", "dogs", "grandchildren") and w.r() < 0.7 else ("", "")
    slots = dict(k=k, v=names[0], v2=names[1], a=ages[0], a2=ages[1])
    frame = w.say(YOUNG)
    if he: frame = frame.replace("{p}", he).replace("{p2}", she)
    else: slots |= dict(p=names[0], p2=names[1])
    u = w.style.write("tell", frame, **{x: v for x, v in slots.items() if "{%s}" % x in frame})
    for x, v in zip(keys, [f"{names[0]} and {names[1]}", *ages]): facts.known[x] = v
    return [(u, *told(facts, keys, w.style))]


MOVED_FROM = ["I was born in {v} and (now |)(live|I live) in {v2}( now|)", "I (am|come) from {v} but (now |)(live|I live) in {v2}( now|)", "I grew up in {v}(,| and| but) (now |)(I |)live in {v2}", "I (am|come) (originally |)from {v}(, | and )(but |)moved to {v2}", "born in {v}, (living|live|now) in {v2}", "I live in {v2} but I (was born in|am from|grew up in|come from) {v}"]


def moved_from(w, facts):
    """Where from, and where now."""
    keys = [("from", "my", ""), ("live", "my", "")]; w.style.new()
    if any(facts.clash(k) for k in keys): return None
    for k in keys: facts.known[k] = w.style.value(facts.draw(w, k))
    return [(w.style.write("tell", w.say(MOVED_FROM), v=facts.known[keys[0]], v2=facts.known[keys[1]]), *told(facts, keys, w.style))]


BOOKED = ["my {k} is {v} {p}", "{k} {v} {p}", "{k} {v}, {p}", "I have (a|my) {k} {v} {p}", "the {k} is {v}, {p}", "{k} {p} {v}", "(I have|got) a {k} {p} {v}", "{k}: {v}, {p}", "my {k} (starts|is) {v} and it is {p}"]


def booked(w, facts):
    """When something is, and where."""
    k = w.one("meeting interview exam party concert class lesson wedding dinner lunch rehearsal workshop yoga-class picnic appointment lecture training shift barbecue reunion checkup".replace("-", "_").split()).replace("_", " ")
    keys = [("event", "my", k), ("held", "my", k)]; w.style.new()
    if any(facts.clash(x) for x in keys): return None
    for x in keys: facts.known[x] = w.style.value(facts.draw(w, x))
    return [(w.style.write("tell", w.say(BOOKED), k=k, v=facts.known[keys[0]], p=facts.known[keys[1]]), *told(facts, keys, w.style))]


RIDES = dict(train="platform track", flight="gate terminal", bus="stop bay stand", ferry="pier gate", plane="gate", coach="bay stop", tram="stop", boat="pier")
LEAVES = ["my {k} (goes|leaves|departs|is|starts|will leave) {v} from {p} {n}", "(I take|I am taking|I catch|I have) (the|a) {k} {v} from {p} {n}", "{k} {v}(, | from | at ){p} {n}", "the {k} (goes|leaves|departs|is) {v}(, | and |, from |, it is ){p} {n}", "my {k} is {v}(, | and the | and my ){p} (is |number |){n}", "my {k} leave {v} from {p} {n}", "{v} my {k} (goes|leaves) from {p} {n}", "{k}: {v}, {p} {n}"]


def departing(w, facts):
    """When it goes, and from where."""
    k = w.one(list(RIDES)); p = w.one(RIDES[k].split()); keys = [("event", "my", k), ("numbered", "my", p)]; w.style.new()
    if any(facts.clash(x) for x in keys): return None
    facts.known[keys[0]] = w.style.value("at " + w.time()); facts.known[keys[1]] = w.style.value(str(w.int(1, 30)) if w.r() < 0.8 else w.one("ABCDEF") + str(w.int(1, 40)))
    comes = k in ("flight", "train", "bus", "plane", "coach", "ferry") and w.r() < 0.35
    u = w.style.write("tell", w.say("(my|the) {k} (lands|arrives|gets in|comes in) {v} (in|at|on) {p} {n}" if comes else LEAVES), k=k, v=facts.known[keys[0]], p=p, n=facts.known[keys[1]])
    turns = [(u, *told(facts, keys, w.style))]
    if w.r() < 0.4:                                      # then the one and the other
        when = "(and |)(what time|when|at what time) (do I (land|arrive|get there|get in)|does it (land|arrive|get in|come in)|(is it|was that))" if comes else "(and |)(what time|when|at what time) (do I (leave|go|depart|need to be there)|does it (leave|go|depart|start)|(is it|was that))"
        asks = [(keys[0], dict(), when), (keys[1], dict(p=p), "(and |)(what|which) {p}( is it| was it| again|)")]
        for key, slots, frame in asks if w.r() < 0.5 else asks[::-1]:
            w.style.new(); turns.append((w.style.write("ask", w.say(frame), **slots), answer_as_told(w, facts, key), holds(key, facts.known[key])))
            if w.r() < 0.3: break
    return turns


def needing(w, facts):
    """What needs doing how often: "my plants need watering every Tuesday"."""
    deed = w.one([x for x in ROUTINES if " the " in x and x.split()[1] == "the" and len(x.split()) == 3]); key = ("routine", "my", deed); w.style.new()
    if facts.clash(key): return None
    verb, _, what = deed.split(); facts.known[key] = w.style.value(facts.draw(w, key))
    doing = (verb[:-1] if verb[-1] == "e" else verb) + "ing"
    u = w.style.write("tell", w.say(["(my|the) {n} need{s} {d} {v}", "{v} (my|the) {n} need{s} {d}", "(my|the) {n} want{s} {d} {v}", "{n} need{s} {d} {v}"]).replace("{s}", "" if what[-1] == "s" else "s"), n=what, d=doing, v=facts.known[key])
    return [(u, *told(facts, [key], w.style))]


def listed_too(w, facts, key):
    """One thing more on a list."""
    w.style.new(); x = w.one(FOODS + GOODS); x = w.style.value(many(x) if w.r() < 0.4 and x[-1] != "s" else x); k = key[2] or "shopping list"
    u = w.style.write("do", w.say(["(add|put) {x} (to|on) (it|the list|my {k}|that|the {k})", "(add|and add|also add|put|also|and also|and|plus) {x}", "(oh|ah|oops|oh yes|wait|hang on)(, | )(and|also|plus|and also|I forgot|we need) {x}", "I (also |)need {x}( too| as well|)", "{x} (too|as well|must go on the list)", "(write|put) {x} on (it|the list) (too|as well)"]), x=x, k=k)
    facts.known[key] = facts.known[key].replace(", and ", ", ").replace(" and ", ", ") + " and " + x; facts.last = key; w.style.lower = facts.low.get(key, False)
    return [(u, f"Okay, {said(key, facts.known[key], w.style)}.", holds(key, facts.known[key]))]


WALK = "(so |well, |okay so |right, so |you know, |listen, |)(yesterday|last night|this morning|the other day|last week|on Sunday|today) (I (was walking|was sitting|was standing|was on the way|was having a coffee)|we (were walking|were having tea|were sitting)|I went for a walk|we went shopping) (through|to|in|near|at) the {s} with (my old friend|my friend|my good friend|my neighbour|my colleague|a friend called) {o}(, who I have known (since school|for years|all my life)| again||, as we often do), and we (talked|chatted|sat there|argued|spoke) (for hours|for a while|a bit|a long time) about (this and that|the {s2}|{t}s and {t2}s|old times|the weather|nothing much), and (in the end|then|suddenly|at some point|before we left|as we were leaving) "
TAIL = ["(, which (surprised me|is odd|made me laugh|I did not know|I had forgotten|was news to me)|, if you can believe it|, and then we went home|, and that was that|, so there you go|, can you imagine|, and I thought you should know||||, and so it goes)"]
SAID_SO = "(he|she) (told me that|said that|mentioned that|told me) "
I_SAID = "(I (remembered|noticed|realised|saw|told them|said) that|it turned out that|it came to my mind that|I had to say that) "


def rambling(w, facts):
    """One fact at the end of a long sentence: the friend's, or mine."""
    w.style.new(0.8); mine = w.r() < 0.5
    friend = w.style.value(w.name().split()[0])
    for _ in range(20):
        key = facts.fresh(w)
        if key[1] == "my" and mine and key[0] not in ("name", "pair") or not mine and key[0] in ("live", "from", "job", "like", "age", "drive", "go", "play", "study", "allergic", "work", "speak", "visited"): break
    else: return None
    if not mine: key = (key[0], friend, key[2])
    if facts.clash(key): return None
    v = w.style.value(facts.draw(w, key)); lead, he = w.say(SAID_SO) if not mine else "", w.one(["he", "she"])
    for _ in range(20):
        frame = w.say(R[key[0]].tell)
        if mine or frame.startswith("<S>"): break
    else: return None
    if mine: p = ME; lead = w.say(I_SAID)
    else: p = dict(S=he, P=dict(he="his", she="her")[he], **AGREE); lead = he + lead[lead.index(" "):]
    frame = fill(frame, p).replace("<X>", "a")
    for k, x in extra(key).items(): frame = frame.replace("{%s}" % k, x)
    facts.known[key] = v
    u = w.style.write("tell", w.say(WALK) + lead + down(frame) + w.say(TAIL), s=w.one(SPOTS), s2=w.one(SPOTS), t=w.one(THINGS), t2=w.one(FOODS), o=friend, v=v, k=key[2], z=w.made_word())
    return [(u, *told(facts, [key], w.style))]
