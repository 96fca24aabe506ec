"""Owns the letters of a name that was just told or said: "spell it", "how many letters does it have?"."""
import letters
from turns import *

SPELL = ["(spell|how do you spell|can you spell|spell out|please spell|could you spell|how would you spell|how do I spell|and how do you spell) <>( letter by letter| for me| out| please|)", "how is <> spelled", "how would <> be spelled", "how (do you|do I|does one) write <>", "(what are|which are) the letters( in <>| of <>|)", "which letters are in <>", "(the |)spelling( please| of <>|)", "(I need|give me|tell me) the spelling( of <>|)", "letter by letter( please|)", "spell <> like I do"]
BACK = ["(spell|write|say|type|now|and|and now|give me|try|show me) <> (backwards|in reverse|from back to front|the other way round|in reverse order|backward)", "(reverse|flip|turn around|invert|can you reverse|please reverse) <>", "<> (backwards|in reverse|reversed)( please|)", "what is <> (backwards|in reverse|reversed|spelled backwards|back to front)", "(and |now |)(backwards|in reverse|reversed)( please|)", "how do you (say|spell|write) <> (backwards|in reverse)", "what does <> (read|look) like (backwards|in reverse)"]
LONG = ["how many letters (has <>|has <> got|does <> have|are in <>|are there in <>|is that|is <>|are there|make up <>)", "how long is <>", "count (the letters (in|of) <>|its letters|the letters|them)", "(how many|number of) (letters|characters)( in <>| is that|)", "(what is |)the (length|number of letters)( of <>|)", "(and |so |)how many letters( then|)"]
EDGE = ["(and |)(what|which) letter does <> (start|begin) with", "what does <> (start|begin) with", "(what is |)(its|the) first letter( of <>|)", "how does <> (start|begin)"], ["(and |)(what|which) letter does <> (end|finish) with", "what does <> end with", "(what is |)(its|the) last letter( of <>|)", "how does <> end"]
NTH = ["(what is|tell me|give me|and|which is) (its|the) {n} letter( of <>| in <>|)", "(what|which) letter (is|comes) {n}( in <>|)", "(the |){n} letter( of <>| please|)", "(and the|and) {n}( letter|)"]
HERS = "sister mother aunt wife daughter grandmother mum niece girlfriend".split()
HIS = "brother father uncle husband son grandfather dad nephew boyfriend".split()


def gender(w, holder):
    """The pronouns for "my sister", or for a name, which may be either."""
    k = holder.split()[-1]
    return ("she", "her") if k in HERS or k not in HIS and w.r() < 0.5 else ("he", "his")


def lettered(v): return isinstance(v, str) and v.isalpha() and 3 <= len(v) <= 14


def reply(w, v, it, kinds):
    a = w.r() * kinds
    def ask(frames, **slots): w.style.new(); return w.style.write("ask", w.say([f.replace("<>", it) for f in frames]).strip(), **slots)
    if a < 0.3: return ask(SPELL), letters.spelled(v)
    if a < 0.6: return ask(BACK), letters.backwards(v)
    if a < 0.8: return ask(LONG), f"{letters.spelled(v)} has {len(v)} letters."
    if a < 0.9:
        last = w.r() < 0.5
        return ask(EDGE[last]), f"The {'last' if last else 'first'} letter of {v} is {v[-1] if last else v[0]}."
    n = w.int(1, min(len(v), 9)) - 1
    return ask(NTH, n=w.one([letters.NTH[n], letters.SHORT_NTH[n]])), f"{letters.spelled(v)}: the {letters.NTH[n]} letter is {v[n]}."


def asked_of(w, v, it):
    """One question on the letters of `v`, which the user calls `it`."""
    u, a = reply(w, v, it, 1)
    return [(u, a, text(plain(a)))]


def respelled(w, v, name):
    """The same long after it was told, by what it is called: "how do you spell my cat's name?"."""
    frames = {"spell": ["(spell|how do you spell|can you spell|spell out) <>( letter by letter|)", "how is <> spelled", "what are the letters of <>", "which letters are in <>"], "back": ["(spell|write|say|what is) <> (backwards|in reverse|from back to front)", "reverse <>", "<> backwards"], "long": ["how many letters (has <>|does <> have|are in <>|are there in <>)", "how long is <>", "count the letters (in|of) <>"]}
    if w.r() < 0.2: return asked_of(w, v, name)
    a = w.r(); w.style.new()
    def ask(kind): return w.style.write("ask", w.say([x.replace("<>", name) for x in frames[kind]]))
    said = (ask("spell"), letters.spelled(v)) if a < 0.5 else (ask("back"), letters.backwards(v)) if a < 0.75 else (ask("long"), f"{letters.spelled(v)} has {len(v)} letters.")
    return [(*said, text(plain(said[1])))]
