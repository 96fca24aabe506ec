"""Owns the letters of a word: spelling, reversing, counting; and saying after us."""
from sums import ONES
from turns import *
from world import *


def spelled(word): return "-".join(word)
def whole(word): return LETTERWISE + word + LETTERWISE


SPELL = ["spell {x}( for me| letter by letter| out|)", "spell (out |)the word {x}", "how (do you|do I|would you|to|can I) spell {x}", "how is {x} spelled", "(what are|give me|tell me|list|name|show me|write) the (letters|single letters) (of|in) (the word |){x}", "(can you |)spell (the word |the name |){x}", "which letters (are in|make up) {x}", "{x}, (spell it|how is it spelled|spell that please|letter by letter)", "(what|which) letters (are there|do you see|do you find) in {x}", "~which letters do I need to spell {x}", "(write|say) {x} letter by letter", "what is the spelling of {x}", "the spelling of {x}", "tell me how you spell {x}", "break {x} into letters"]
BACK = ["(reverse|flip|invert|turn around) (the word |the letters of |the string |){x}", "(spell|write|say|type|read|print|give me|put) (the word |){x} (backwards|backward|in reverse|from back to front|in reverse order|the other way round|back to front)", "what is (the word |){x} (backwards|reversed|in reverse|spelled backwards|written backwards|back to front)", "{x} (backwards|reversed|in reverse)", "how (do you|would you|do I) (spell|write|say) {x} (backwards|in reverse)", "what is the reverse of {x}", "{x}, (backwards please|reverse it|in reverse please|now backwards)", "(what is|what would be|what comes out as) {x} (if you reverse it|when reversed|if read backwards)", "~what is the word {x} from back to front", "tell me what {x} is backwards", "what (do I|do you) get (if|when) (I|you) reverse {x}", "(can you |)(spell|write) {x} backwards", "backwards: {x}", "tell me {x} backwards", "mirror the word {x}"]
LONG = ["how many letters (are in|are there in|does|has|in) (the word |){x}( have|)", "count the letters (in|of) (the word |){x}", "how long is (the word |){x}", "(tell me|what is) (the length of|how long is|the number of letters in) (the word |){x}", "(what is|give me) the (length|number of letters) (of|in) (the word |){x}", "how many letters (make up|form) {x}", "(say|find out|work out|figure out|check|see|count) how many letters (there are|are) in (the word |){x}", "how many letters (do you|can you|do I) (count|see|find) in {x}", "{x}(:|,) how many letters( is that| are there|)", "{x}, (count the letters|count its letters|how long is it|its length please)", "~count how many letters {x} has", "{x} has how many letters", "(number|count) of letters in {x}", "(can you |)count the letters (of|in) {x}", "what number of letters (has|does) {x}( have|)", "how many (characters|letters) (are|are there) in {x}", "tell me how many letters {x} has"]
AGAIN = "(No, I meant |Sorry, I meant |And |Now |Oh, I wanted |Oh no, I meant |Sorry, I wanted |What about |And what about |Now the same for |Same for |Then |Oh, I meant ){x}(.||?)"


def spelling(w, talk):
    def turn(word, kind, q):
        if kind < 0.36: return q(SPELL), spelled(word), text(spelled(word))
        if kind < 0.68: back = spelled(word[::-1]); return q(BACK), f"{spelled(word)} backwards is {back}: {whole(word[::-1])}", text(f"backwards is {back}")
        return q(LONG), f"{spelled(word)} has {len(word)} letters.", text(f"has {len(word)} letters")
    quote = w.one(["{}", "{}", "{}", '"{}"', "'{}'"])
    def typed(grammar, kind):
        w.style.new(); word = w.style.value(w.word())
        g = w.say(grammar)
        kind2 = "say" if grammar is AGAIN or g[0] == "{" or g[0] == "b" else "ask" if g.startswith(("how", "what", "which", "the ", "number")) else "do"
        return word, w.style.write(kind2, g, x=quote.format(word))
    kind = w.r()
    if w.r() < 0.12:                                     # one word, several questions
        word = w.word(); w.style.new(); u = w.style.write("do", w.say("(spell|how do you spell|can you spell) {x}"), x=word); word = w.style.value(word)
        turns = [(u, spelled(word), text(spelled(word)))]
        for _ in range(w.int(1, 2)):
            k = w.one([0.5, 0.5, 0.9]); _, a, c = turn(word, k, lambda g: None)
            turns.append((user(w, "say", "(And |And now |Now |)(backwards|in reverse|reversed|spell it backwards|the other way round|from back to front)(?||.)" if k == 0.5 else "(And |)(how many letters( is that| does it have| are there|)|how long is it|count the letters|its length|count them)(?||.)"), a, c))
        return turns
    word, u = typed(SPELL if kind < 0.36 else BACK if kind < 0.68 else LONG, kind)
    _, a, c = turn(word, kind, lambda g: None)
    turns = [(u, a, c)]
    while w.r() < 0.2:
        word, u = typed(AGAIN, kind)
        _, a, c = turn(word, kind, lambda g: None)
        turns.append((u, a, c))
    return turns


def letters(w, talk):
    """One letter of a word: how often, the first, the last."""
    w.style.new(); word = w.style.value(w.word()); a = w.r()
    quote = w.one(["{}", "{}", '"{}"', "'{}'"])
    if a < 0.5:
        l = w.one(word) if w.r() < 0.8 else w.one(LETTERS); n = word.lower().count(l.lower()); l = l.lower()
        u = w.style.write("ask", w.say(["how many (times is |){l}('s| 's|s|) (are|are there|) in (the word |){x}", "how many times (is|does) (the letter |){l} (in|appear in|occur in|come in) {x}", "how often (is|does) (the letter |){l} (in|appear in|occur in|come in) {x}", "count (the |all the |){l}('s|s) in {x}", "how many (letters {l}|of the letter {l}) (are|are there|do you see|can you find) in {x}", "(the letter |){l} in {x}(: how many| how many times|, how often)"]), l=l, x=quote.format(word))
        return [(u, f"{spelled(word)}: the letter {l} comes {n} {'time' if n == 1 else 'times'}.", number(n))]
    first = a < 0.78
    u = w.style.write("ask", w.say("(what is|tell me|which is|give me|) the (<>) letter (of|in) (the word |){x}".replace("<>", "first" if first else "last")).strip() if w.r() < 0.6 else w.say("(what|which|with what|with which) letter does {x} (<>) with".replace("<>", "start|begin" if first else "end|finish")), x=quote.format(word))
    l = word[0] if first else word[-1]
    return [(u, f"The {'first' if first else 'last'} letter of {word} is {l}.", text(f"is {l}"))]


def echo(w, talk):
    """Says after us, once or several times."""
    w.style.new()
    what = " ".join(w.word() if w.r() < 0.5 else w.one(NOUNS + GOODS) for _ in range(w.int(1, 4)))
    what = w.style.value(what)
    if w.r() < 0.6:
        quote = w.one(["{}", "{}", '"{}"', "'{}'"])
        u = w.style.write("do", w.say("(say|repeat|repeat after me:|repeat after me,|echo|type|write|print|repeat the words|say the word|say the words|repeat this:|say after me:|write down|copy) {x}"), x=quote.format(what))
        return [(u, what, text(what))]
    n = w.int(2, 5); what = what.split()[0]
    u = w.style.write("do", w.say("(say|repeat|write|type|print|echo) (the word |){x} {n} times"), x=what, n=w.one([n, n, ONES[n]]))
    return [(u, " ".join([what] * n), text(" ".join([what] * n)))]
