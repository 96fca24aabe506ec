"""Owns numbers: sums, products, comparisons and running tallies."""
from turns import *
from world import *


ONES = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()


def in_words(n, dash="-"):
    if n < 20: return ONES[n]
    if n < 100: return TENS[n // 10 - 2] + (dash + ONES[n % 10] if n % 10 else "")
    return ONES[n // 100] + " hundred" + (" and " + in_words(n % 100, dash) if n % 100 else "")


def sums(w):
    big = w.one([20, 100, 100, 1000, 1000])
    def draw():
        a, b = w.int(0, big - 1), w.int(0, big - 1)
        return f"{a} + {b}" if w.r() < 0.5 else f"{max(a, b)} - {min(a, b)}" if w.r() < 0.85 else f"{a} - {b}"
    e = w.mine(draw)
    a, op, b = e.split()
    return int(a), op, int(b), int(a) + int(b) if op == "+" else int(a) - int(b)


PLUS = ["(what is|what's|how much is|how much are|what does|calculate|compute|work out|figure out|tell me|solve|evaluate|what about|give me|) {a} (+|plus|and) {b}", "{a} (+|plus) {b}( = ?| =|=?|= ?| is| is what| equals| equals what| makes|)", "{a}+{b}(=|)", "(add|sum up|add up|add together) {a} (and|to|with|plus) {b}", "(what is|give me|calculate|compute|find) the (sum|total) of {a} and {b}", "(what do (you|I|we) get|what is the result|what comes out) (for|of|if I add|when I add) {a} (and|plus|+) {b}", "if I (have|take|start with|had) {a} and (add|get) {b}( more|), (what do I have|how many is that|what is the total|how many do I have)", "what number is {a} plus {b}", "(what|how much) (would|will) {a} plus {b} (be|make|give)", "~what number do I get for {a} plus {b}", "how many is {a} and {b}", "{a} and {b} (make|makes|is|are|together make) (what|how much|how many)", "the sum of {a} and {b}", "{a} increased by {b}", "what would {a} plus {b} be"]
MINUS = ["(what is|what's|how much is|how much are|calculate|compute|work out|figure out|tell me|solve|evaluate|what about|give me|) {a} (-|minus|less|take away) {b}", "{a} (-|minus) {b}( = ?| =|=?|= ?| is| is what| equals| equals what|)", "{a}-{b}(=|)", "(subtract|take away|take|deduct) {b} from {a}", "(take {b} away from|take away {b} from) {a}", "(what is|give me|calculate|compute|find) the difference (of|between) {a} and {b}", "(what do (you|I|we) get|what is the result|what comes out) (for|of) {a} (minus|-) {b}", "if I (have|take|start with|had) {a} and (lose|give away|spend|subtract) {b}, (what is left|what do I have|how many are left|how much is left)", "what number is {a} minus {b}", "(what|how much) (would|will) {a} minus {b} (be|make|give)", "~what number do I get for {a} minus {b}", "(what is left|how many are left|what remains) (of|from) {a} (after taking|if I take) away {b}", "{a} reduced by {b}", "what would {a} minus {b} be"]


def arithmetic(w, talk):
    a, op, b, c = sums(w)
    worded = w.r() < 0.12 and max(a, b) < 1000
    dash = w.one("- ")
    show = (lambda n: in_words(n, dash)) if worded else str
    g = w.say(PLUS if op == "+" else MINUS).strip()
    if worded: g = g.replace("{a}+{b}", "{a} + {b}").replace("{a}-{b}", "{a} - {b}").replace("=", "")
    w.style.new()
    if w.r() < 0.05 and op == "+":                         # three of them, one after the other
        d = w.int(0, 50); a, b = a % 100, b % 100
        u = w.style.write("ask", w.say(["(what is|how much is|) {a} + {b} + {d}", "(what is|how much is|) {a} plus {b} plus {d}", "add {a}, {b} and {d}", "{a} + {b} + {d}"]).strip(), a=a, b=b, d=d)
        return [(u, f"{a} + {b} = {a + b}, {a + b} + {d} = {a + b + d}", number(a + b + d))]
    turns = [(w.style.write("say" if g[0] == "{" else "ask" if g.startswith(("what", "how", "if")) else "do", g, a=show(a), b=show(b)), f"{a} {op} {b} = {c}", number(c))]
    while w.r() < 0.2:                                  # "no, I meant": half of the sum stays
        a2, op2, b2, c2 = sums(w)
        q = user(w, "say", "(No, I meant |Sorry, I meant |And |I meant to ask |Now |Oh, I wanted |Oh no, I meant |Sorry, I wanted |And what about |What about |Now try |And what is |Then |Oh, I meant )({a} {o} {b}|{a} {o} {b}|{a}{o}{b}|{a} {word} {b})(.||?)".replace("{word}", "plus" if op2 == "+" else "minus"), a=a2, o=op2, b=b2)
        turns.append((q, f"{a2} {op2} {b2} = {c2}", number(c2)))
    return turns


def times(w, talk):
    """The small table, which everybody has by heart."""
    a, b = w.int(0, 12), w.int(0, 12)
    return [(user(w, "ask", ["(what is|how much is|calculate|compute|) {a} (times|x|*|multiplied by) {b}", "multiply {a} (by|and|with) {b}", "{a}*{b}", "{a} times {b}( is| equals|)"], a=a, b=b), f"{a} * {b} = {a * b}", number(a * b))]


def bigger(w, talk):
    a, b = w.mine(lambda: (w.int(0, w.one([20, 100, 999])), w.int(0, w.one([20, 100, 999]))))
    if a == b: b += 1
    up = w.r() < 0.5
    u = user(w, "ask", ["(which|what) (is|number is) (bigger|larger|greater|more|higher)(, |: | - ){a} or {b}", "is {a} (bigger|larger|greater|more|higher) than {b}", "(which is|what is|tell me) the (bigger|larger|greater|higher) (number|one)(:|,| of) {a} (or|and) {b}"] if up else ["(which|what) (is|number is) (smaller|less|lower)(, |: | - ){a} or {b}", "is {a} (smaller|less|lower) than {b}", "(which is|what is|tell me) the (smaller|lower) (number|one)(:|,| of) {a} (or|and) {b}"], a=a, b=b)
    v = max(a, b) if up else min(a, b)
    yes = u.lower().lstrip("heyiloksnwpaturg,.!: ").startswith("is ") or " than " in u
    lead = ("Yes, " if v == a else "No, ") if " than " in u else ""
    return [(u, f"{lead}{v} is {'bigger' if up else 'smaller'}.", number(v))]


def many(what): return what if what in UNCOUNTED else what + ("es" if what.endswith(("o", "ch", "sh", "x")) else "s")


def tally(w, talk):
    """A number kept over several turns."""
    what = w.one(COUNTED) if w.r() < 0.75 else w.mine(lambda: w.pseudo(3, 7))
    n = w.mine(lambda: w.int(2, 80)); what = many(what)
    turns = [(user(w, "say", ["(I have|I have got|there are|we have|suppose I have|say I have|imagine I have|I start with|let us say I have|in my basket there are|I am holding|I bought|I own|I picked) {n} {x}( in my basket| in my bag| today| at first|)(.|)", "my bag holds {n} {x}."], n=n, x=what), f"You have {n} {what}.", number(n))]
    for _ in range(w.int(1, 4)):
        d, up = w.int(1, 30), w.r() < 0.5
        if not up: d = min(d, n)
        before = n; n += d if up else -d
        q = user(w, "say", ["(Then |Now |And |Next |Later |)I (get|buy|find|add|receive|pick|collect|take|bought|found|got|add another|get another) {d}( more|)( of them| today|)", "(Someone|My friend|My sister|A man|She|He) (gives|gave|hands|brings) me {d}( more| of them|)", "{d} more (come|arrive|are added|are coming)", "(plus|add) {d}( more|)", "I am given {d} extra", "I (was given|am given|got given|have been given) {d}( more| of them| today|)", "(another|a further) {d} (come|arrive|join|turn up)"] if up else ["(Then |Now |And |Next |Later |)I (give away|lose|sell|use|throw away|drop|eat|spend|lost|sold|gave away|break|give my friend) {d}( of them|)", "(Someone|My brother|A thief|She|He) (takes|took|steals|stole|eats|ate) {d}( of them| from me|)", "{d} (are gone|get lost|break|go missing|are stolen|were eaten)", "(minus|take away|remove) {d}", "I part with {d}", "I (had to give away|have lost|have sold|hand over|let go of) {d}( of them|)", "{d} (of them |)(leave|go away|disappear|run off)"], d=d)
        q = q.rstrip(".") + w.one(["", ".", ". How many now?", ". How many do I have?", ". How many do I have now?", ". How many are left?", ", how many now", ". What do I have now?", ". How many is that?"])
        turns.append((q, f"{before} {'+' if up else '-'} {d} = {n}: you have {n} {what}.", number(n)))
    if w.r() < 0.3: turns.append((user(w, "ask", "(how many (<>) (do I have|have I got|are there)|how many do I have)( now| in total| altogether| in all|)".replace("<>", what)), f"You have {n} {what}.", number(n)))
    return turns


UNCOUNTED = set("bread cheese butter soup rice honey jam tea coffee milk salt sugar".split())
COUNTED = [x for x in ANIMALS + FOODS + THINGS + ["coin", "stamp", "card", "ball", "shell", "stone", "key", "toy", "cup", "plate"] if x[-1] not in "sy" and x not in ("mouse", "goose", "sheep", "deer", "fox", "wolf")]
