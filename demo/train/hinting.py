"""Owns questions that name a fact by half: a code by one word of its name, an appointment by whom it is with."""
from saying import *


def accompanied(w, facts, key):
    """With whom it is, which its own name says."""
    what, who = key[2].split(" with ", 1); w.style.new()
    it = w.one(["it", "my " + what, "the " + what, "the " + what])
    u = w.style.write("ask", w.say(["with (who|whom) is <>", "(who|whom) is <> with", "(and |)with (who|whom)( again|)", "who am I (meeting|seeing)", "with (who|whom) do I have <>"]).replace("<>", it))
    return [(u, answer_as_told(w, facts, key), dict(kind="any", want=[who, who.lower(), who.upper()]))]


def shortened(w, facts, key):
    """By one word of its name, where no other thing has it: "lock?" for a lock code, "and the code?". None where all do."""
    words = key[2].split() if key[0] == "code" else [key[2], "number"]
    known = [x for k in facts.known if k != key for x in k[2].split() + ["number"] * (k[0] == "numbered")]
    words = [x for x in dict.fromkeys((words[0], words[-1])) if x not in known and len(x) > 2 and x not in ("old", "new", "for")]
    if not words: return None
    w.style.new()
    u = w.style.write("ask", w.say("(and |)(the |my |my |the |its |what is the |what was the |tell me the |){x}( again| please| was what|)").strip(), x=w.one(words))
    return [(u, answer_as_told(w, facts, key), holds(key, facts.known[key]))]
