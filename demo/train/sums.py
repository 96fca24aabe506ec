"""Owns numbers: sums, products, halves, even and odd, comparisons and running tallies."""
import re
from turns import *
from world import *


ONES = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()


def in_words(n, dash="-"):
    if n < 20: return ONES[n]
    if n < 100: return TENS[n // 10 - 2] + (dash + ONES[n % 10] if n % 10 else "")
    return ONES[n // 100] + " hundred" + (" and " + in_words(n % 100, dash) if n % 100 else "")


def sums(w):
    big, below, near = w.one([12, 20, 100, 100, 1000, 1000]), w.r() < 0.07, w.r() < 0.03
    def draw():
        a, b = w.int(0, big - 1), w.int(0, big - 1)
        if below: a, b = w.int(0, 40), w.int(1, 40); return f"{min(a, b)} - {max(a, b)}"
        if near: return f"{big + a} - {big + a - w.int(0, 12)}"
        return f"{a} + {b}" if w.r() < 0.5 else f"{max(a, b)} - {min(a, b)}" if big > 20 and w.r() < 0.5 else f"{a} - {b}"
    e = w.mine(draw)
    a, op, b = e.split()
    return int(a), op, int(b), int(a) + int(b) if op == "+" else int(a) - int(b)


PLUS = ["(what is|what's|how much is|how much are|what does|calculate|compute|work out|figure out|tell me|solve|evaluate|what about|give me|) {a} (+|plus|and) {b}", "{a} (+|plus) {b}( = ?| =|=?|= ?| is| is what| equals| equals what| makes|)", "{a}+{b}(=|)", "(add|sum up|add up|add together) {a} (and|to|with|plus) {b}", "(what is|give me|calculate|compute|find) the (sum|total) of {a} and {b}", "(what do (you|I|we) get|what is the result|what comes out) (for|of|if I add|when I add) {a} (and|plus|+) {b}", "if I (have|take|start with|had) {a} and (add|get) {b}( more|), (what do I have|how many is that|what is the total|how many do I have)", "what number is {a} plus {b}", "(what|how much) (would|will) {a} plus {b} (be|make|give)", "~what number do I get for {a} plus {b}", "how many is {a} and {b}", "{a} and {b} (make|makes|is|are|together make) (what|how much|how many)", "the sum of {a} and {b}", "{a} increased by {b}", "what would {a} plus {b} be", "(sum|total|addition)(:| of|) {a} (and|+|plus) {b}", "{b} more than {a}", "(what is|which number is|how much is) {b} more than {a}", "(put|take|get) {a} and {b} together", "(I need|I want|can you do|do|try|can you add|please add|can you calculate) {a} (+|plus|and) {b}", "{a} (and|plus|with) {b} (makes|make|gives|is|equals|adds up to)( what| how much|)", "(what|how much) (does|do|will) {a} (and|plus) {b} (make|give|equal|come to|add up to|amount to)( together| in total|)", "what do you get (if|when) you (add|put) {a} (to|and|with) {b}", "(I paid|I spent|it cost|my shopping cost|the tickets cost|the bill was|I owe|she owes me) {a} and {b}( euros|), (what is the total|how much is that|how much in total|what is that together|how much altogether|what did I pay)", "{who} (has|owns|bought|picked|found) {a} {x} and (gets|buys|finds|receives|is given|picks) {b} more(, |. )(how many (does {who} have|{x} does {who} have|are there now|is that|in total|has {who} got))", "(I have|we have|there are|I bought|I see) {a} {x} and {b} {y}(, | - |. )(how many (things|is that|in total|altogether|in all|are there)|what is the total|how much is it together)", "(I have|I had|I bought|I got|I own) {a} {x}(, | and |. )(I get|I buy|you give me|I find|someone gives me|my mum gives me) {b} (more|more of them|more {x})(. |, )(how many (do I have|now|in total|are there|{x} do I have|do I have now)|what do I have now)", "{a} {x} (plus|and|+) {b} {x}", "{a} euros (plus|and) {b} euros", "(start with|begin with|take) {a}(, | and )(add|then add) {b}", "count {a} and {b} together", "add {b} (to|onto) {a}", "what is {a} added to {b}", "{a} added to {b}", "(please |)add(:|) {a}(,| and) {b}", "(tell me|say|do you know|can you tell me|can you work out) (what |how much |)({a} plus {b} is|{a} and {b} is|{a} + {b} is|{a} and {b} make)", "{a}, {b}: (the sum|sum|total|add them|add these|what is the sum)"]
PLUS += ["{a} (+|plus|and) {b} (=|is|equals|makes) {c}(, right|, is that right|, correct|, true|, yes|, or not|, no|, is it not)", "(is|does) {a} (+|plus|and) {b} (=|equal|equal to|make) {c}", "(I think|I say|my son says|my friend says|I believe|is it true that) {a} (+|plus) {b} (=|is|makes) {c}", "(how much|what|how many) (makes|make|gives|is it|comes out) {a} (plus|+|and) {b}", "{a} (+|plus|and) {b}(, please| please|, my dear| pls|?? |, quick|, how much|: how much| = what)", "(the |)(result|answer) (of|for|to) {a} (+|plus|and) {b}", "(work out|calculate|compute|do) the sum {a} (+|plus) {b}", "{a} (and|plus) another {b}", "(I paid|I spent|I got|she gave me|they owe me) {a} (euros|pounds|dollars|quid) (for|on|and for) (the shoes|lunch|food|the ticket|Monday) and {b}( euros| pounds| dollars|) (for|on) (the hat|dinner|the bus|Tuesday|drinks)(. |, )(how much (is that|altogether|in all|in total)|what is the total|what does that make)", "{who} is {a} years old(. |, | and )(how old (will {who} be|is {who}) in {b} years|and in {b} years)", "(if|suppose|say) {who} has {a} {x} and I have {b}(, |. )(how many (do we have|are there|is that)( together| in all| in total|)|what do we have together)", "(there (are|were) |){a} (boys|men|cats|adults|cars) and {b} (girls|women|dogs|children|vans)(. |, )how many (is that|are there|in all|altogether|in total)"]
MINUS = ["(what is|what's|how much is|how much are|calculate|compute|work out|figure out|tell me|solve|evaluate|what about|give me|) {a} (-|minus|less|take away) {b}", "{a} (-|minus) {b}( = ?| =|=?|= ?| is| is what| equals| equals what|)", "{a}-{b}(=|)", "(subtract|take away|take|deduct) {b} from {a}", "(take {b} away from|take away {b} from) {a}", "(what is|give me|calculate|compute|find) the difference (of|between) {a} and {b}", "(what do (you|I|we) get|what is the result|what comes out) (for|of) {a} (minus|-) {b}", "if I (have|take|start with|had) {a} and (lose|give away|spend|subtract) {b}, (what is left|what do I have|how many are left|how much is left)", "what number is {a} minus {b}", "(what|how much) (would|will) {a} minus {b} (be|make|give)", "~what number do I get for {a} minus {b}", "(what is left|how many are left|what remains) (of|from) {a} (after taking|if I take) away {b}", "{a} reduced by {b}", "what would {a} minus {b} be", "(difference|subtraction)(:| of| between|) {a} and {b}", "{b} (less|fewer) than {a}", "(what is|which number is|how much is) {b} less than {a}", "(I need|I want|can you do|do|try|can you calculate|please calculate) {a} (-|minus) {b}", "take {b} (off|away from|out of|from) {a}", "{a} (take away|without|less|down by|after subtracting|remove|subtract) {b}", "(what|how much) (is left|remains|do I have left) (if|when) (I|you|we) (take|remove|subtract) {b} from {a}", "how much is {a} (take away|without|less|after taking away) {b}", "what do you get (if|when) you (take|subtract|remove|deduct) {b} from {a}", "(how far|what is the distance|how much) (is it |is |)(from {b} to {a}|between {b} and {a})", "how much (more|bigger) is {a} than {b}", "(I have|I had|we had|there are|there were|I bought|you have|if you have|suppose you have) {a} {x}(, | and |. )(I eat|I lose|I sell|I give away|you take|I drop|we eat|we use|eat|you eat|you lose|give away|lose) {b}( of them|)(. |, )(how many (are left|do I have|remain|do I have left|do you have|do you have left|are there now|are there)|what is left|what remains|how many now)", "{who} (has|had|owns|bought) {a} {x} and (loses|sells|eats|drops|gives away|spends) {b}( of them|)(, |. )(how many (does {who} have left|are left|remain|does {who} have|{x} are left)|what is left)", "(start with|begin with|take) {a}(, | and )(subtract|take away|then take away|remove) {b}", "(tell me|say|do you know|can you tell me|can you work out) (what |how much |)({a} minus {b} is|{a} - {b} is|{a} less {b} is)", "(I had|I have) {a} euros (and|but) (spent|spend|paid|pay|lost) {b}(, |. )(how much (is left|do I have|remains|do I have left)|what is left)", "{a} euros minus {b} euros", "my (nan|mum|friend|brother|gran|dad|sister|neighbour) (had|has) {a} {x} (and|but) (gave|gives) (me|him|us|away|her|my cousin) {b}(, |. )how many ((has|have) (she|he|they) got left|(does|did) (she|he) (have left|have now|keep)|are left|are there now)", "(she|he|the shop|a farmer|my class) had {a} {x}( and|,) {b} (went|got lost|were sold|were eaten|left)(, |. )how many (are left|remain|were left)", "{who} (has|had|owns|buys) {a} {x}(. |, | but | and )(he|she) (loses|gives away|sells|eats|breaks|drops|uses|lost|sold|ate|gave away) {b}( of them|)(. |, )how many ({x} |)(has|does) {who} (have left|have|got|have now|left)", "{who} has {a} {x} and (loses|gives away|sells|eats) {b}(. |, )how many ({x} |)(has {who}|has {who} got|are left|left)", "what is {b} subtracted from {a}", "{b} (subtracted|taken away|taken) from {a}", "how much (is missing|do I need|is lacking) from {b} to {a}", "{a} minus {b} (please|now|makes|makes what|gives|gives what)"]
MINUS += ["(my (mum|gran|nan|son|friend|aunt|sister)|{who}|she|he) (had|has|got) {a} {x} (and|then|but) (gave|gives|lent|sold|handed) (me|us|my brother|him|her) {b}( of them|)(. |, |? )how many (has (she|he) got left|does (she|he) have left|are left|has (she|he) got|does (she|he) have|she got left)", "{a} (-|minus|less|take away) {b} (=|is|equals|makes) {c}(, right|, is that right|, correct|, true|, yes|, or not|, no|, is it not)", "(is|does) {a} (-|minus) {b} (=|equal|equal to|make) {c}", "(I think|I say|my son says|my friend says|I believe|is it true that) {a} (-|minus) {b} (=|is|makes) {c}", "(how much|what|how many) (makes|make|gives|is it|comes out) {a} (minus|-|less)  {b}", "{a} (-|minus|less) {b}(, please| please|, my dear| pls|?? |, quick|, how much|: how much| = what)", "(the |)(result|answer) (of|for|to) {a} (-|minus|less) {b}", "(I (had|have|got)|my (mum|gran|son|friend) has|she had) {a} (pounds|euros|dollars|quid|bucks|crowns) and (gave|paid|spent|lost|lent|sent) {b}( pounds| euros| dollars|) (to my (grandson|son|sister|friend|neighbour)|for (lunch|a book|the bus|shoes)|on (food|sweets|a hat)|away)(. |, )(how much (have I|do I have|has she|does she have) (left|now)|how much is left|what is left|how much remains)", "(I (have|had|bought|got)|we had|she has) {a} {x}(, |. |, but | and ){b} (is|are|were|got|went|of them are) (broken|gone|bad|rotten|eaten|sold|lost|stolen|mouldy|used)(. |, )(how many (are left|rest|remain|do I have|are good|have I left|still)|what is left|what remains)", "{who} is {a} years old and (her|his) (son|sister|brother|daughter) is {b} years younger(. |, )how old is (the (son|sister|brother|daughter)|(she|he))", "{a} (people|men|birds|children) (were|are) (here|on the bus|in the room|on a tree)(. |, | and ){b} (left|went home|get off|flew away|leave)(. |, )how many (are left|stay|remain|are still (here|there)|are there now)"]
BELOW = ("{x}", "{who}", " far", "more", "left", "remain", "missing", "need", "euros", "pounds", "people", "differ", "distance", "fewer", "lacking")      # said of what there is, never below zero


def slots(w, g):
    """Who and what a story of numbers is about."""
    return {k: f() for k, f in dict(who=w.name, x=lambda: many(w.one(COUNTED)), y=lambda: many(w.one(COUNTED)), t=lambda: w.one("boxes bags baskets packs shelves rows tables boys girls children buses crates bottles trees houses cars teams".split())).items() if "{%s}" % k in g}


CHAIN = ["(what is |how much is |calculate |work out |) {a}{f}{s}", "{a}{f}{s}( please| =|, how much is that|)", "(start with|begin with|take) {a}, then{f}, then{s}"]
LINKS = {"+": [" (plus|+) {}", "(,| and|, and) (then |)(add|plus) {}", "+{}"], "-": [" (minus|less|-) {}", "(,| and|, and) (then |)(take away|subtract|minus|take off) {}", "-{}"], "*": [" (times|x|*|multiplied by) {}", "(, | and )(then |)times {}", "*{}"]}


def chain(w):
    """Two steps in one question, in signs or in words: "100 minus 37, then add 5"."""
    value = lambda e: (lambda a, o, b: a + b if o == "+" else a * b if o == "*" else a - b)(int(e.split()[0]), e.split()[1], int(e.split()[2]))
    top, o, o2 = w.one([20, 100, 100, 500]), w.one("+-+-*"), w.one("+-")
    first = f"{w.int(0, 12)} * {w.int(0, 12)}" if o == "*" else w.mine(lambda: f"{w.int(0, top)} {o} {w.int(0, w.one([12, 60, 200]))}")
    a, _, b = first.split(); c = value(first)
    second = w.mine(lambda: f"{c} {o2} {w.int(0, w.one([10, 10, 50, 100]))}"); d, e = second.split()[2], value(second)
    g = w.say(CHAIN).strip(); w.style.new()
    f, s = (w.say(LINKS[x][2 if g[0] == "{" and dense else int(w.r() * 2)]).format(n) for dense in [w.r() < 0.3] for x, n in ((o, b), (o2, d)))
    if g.startswith(("(start", "start", "begin", "take")): f, s = (re.sub("^(, and|,| and)? ?(then )?", " ", x) for x in (f, s))
    return [(w.style.write("say", g.replace("{f}", f).replace("{s}", s), a=a), f"{first} = {c}, {second} = {e}", number(e))]


def arithmetic(w, talk):
    a, op, b, c = sums(w)
    worded = w.r() < 0.12 and max(a, b) < 1000
    dash = w.one("- ")
    show = (lambda n: in_words(n, dash)) if worded else str
    g = w.say(PLUS if op == "+" else MINUS).strip()
    while c < 0 and any(x in g for x in BELOW): g = w.say(MINUS).strip()
    if worded: g = g.replace("{a}+{b}", "{a} + {b}").replace("{a}-{b}", "{a} - {b}").replace("=", "")
    w.style.new()
    if w.r() < 0.07: return chain(w)
    if w.r() < 0.05 and op == "+":                         # three of them, one after the other
        d, last = w.int(0, 50), w.one("++-"); a, b = a % 100, b % 100; c = a + b + d if last == "+" else a + b - d
        u = w.style.write("ask", w.say(["(what is|how much is|) {a} + {b} + {d}", "(what is|how much is|) {a} plus {b} plus {d}", "add {a}, {b} and {d}", "{a} + {b} + {d}"] if last == "+" else ["(what is|how much is|) {a} + {b} - {d}", "(what is|how much is|) {a} plus {b} minus {d}", "{a}+{b}-{d}"]).strip(), a=a, b=b, d=d)
        return [(u, f"{a} + {b} = {a + b}, {a + b} {last} {d} = {c}", number(c))]
    turns = [(w.style.write("say" if g[0] == "{" else "ask" if g.startswith(("what", "how", "if", "which")) or "how " in g or "what " in g else "say" if g[0].isupper() else "do", g, **slots(w, g), a=show(a), b=show(b), c=w.one([c, c, c + 1, c - 1, c + 10, 2 * c, w.int(0, 99)])), f"{a} {op} {b} = {c}", number(c))]
    if w.r() < 0.06:                                # who doubts it is told again
        said = w.one([c + 1, c - 1, c + 10, c + 2, c - 10, w.int(0, 99)]); said += said == c
        turns.append((user(w, "say", "(no|wrong|no no|nope|not true|I think|are you sure? I think|that is wrong|that is not right|I got|my teacher says|my calculator says|surely)(, | )(it is|that is|it must be|it makes|is it not|it should be) {d}(.|!||?)", d=said), f"{a} {op} {b} = {c}", number(c)))
    if w.r() < 0.05 and 0 < c <= 12:
        d = w.int(2, 12)
        turns.append((user(w, "say", "(And |Now |Then |And now |)(times {d}|multiply (it|that) by {d}|multiplied by {d}|x {d}|* {d}|that times {d})(.||?| please)", d=d), f"{c} * {d} = {c * d}", number(c * d))); c *= d
    while w.r() < 0.37:                                 # "no, I meant": half of the sum stays
        if w.r() < 0.12 and 0 <= c < 500:
            if c % 2 == 0 and w.r() < 0.4:
                turns.append((user(w, "say", "(And |and |Now |What is |what is |)half of (that|it|the result)(?||., please)"), f"{c} / 2 = {c // 2}", number(c // 2))); c //= 2
            else: turns.append((user(w, "say", "(And |and |Now |What is |what is |)(double|twice) (that|it|the result)(?||., please)"), f"{c} + {c} = {2 * c}", number(2 * c))); c *= 2
            continue
        if w.r() < 0.4 and c < 1000:
            op2, b2, kept = w.one("+-"), w.mine(lambda: w.int(0, 60)), w.r() < 0.3
            start = a if kept else c
            q = user(w, "say", ["(No, |Sorry, |I meant |I mean |No, I meant |Sorry, I meant |Oh, I meant |Not that, |Oops, |Wait, |Actually, |I wanted |Wrong, )({word} {b}|{word} {b}|{o} {b}|{o}{b})(.||!)" if kept else "(And |Now |Then |And now |And then |Next |And if I |Okay, |Now also |Take that and |)({word} {b}|{word} {b}|{o} {b}|{verb} {b}|{verb} {b}|{verb} {b}( more| to that| to it|)|the result {word} {b}|that {word} {b}|what is that {word} {b}|{word} another {b})(.||?| please| now)".replace("( more| to that| to it|)", "( more| to that| to it|)" if op2 == "+" else "( more| from that| from it|)")], word=w.one(["plus", "and"] if op2 == "+" and not kept else ["plus"] if op2 == "+" else ["minus", "minus", "less", "take away"]), o=op2, verb=w.one(["add", "plus"] if op2 == "+" else ["subtract", "take away", "minus", "take off"]), b=b2)
            a2, c2 = start, start + b2 if op2 == "+" else start - b2
            turns.append((q, f"{a2} {op2} {b2} = {c2}", number(c2))); a, op, b, c = a2, op2, b2, c2
            continue
        a2, op2, b2, c2 = sums(w)
        q = user(w, "say", "(No, I meant |Sorry, I meant |I mean |No, I mean |Sorry, |No, |How about |What of |And then |And |and how much makes |Also |I said |Oops, |Wait, |Typo, |And what does |No no, |Next: |Again: |And |I meant to ask |Now |Oh, I wanted |Oh no, I meant |Sorry, I wanted |And what about |What about |Now try |And what is |Then |Oh, I meant )({a} {o} {b}|{a} {o} {b}|{a}{o}{b}|{a} {word} {b})(.||?)".replace("{word}", "plus" if op2 == "+" else "minus"), a=a2, o=op2, b=b2)
        turns.append((q, f"{a2} {op2} {b2} = {c2}", number(c2))); a, op, b, c = a2, op2, b2, c2
    return turns


TIMES = ["(what is|how much is|calculate|compute|whats|tell me|work out|do you know|) {a} (times|x|*|multiplied by|×) {b}", "multiply {a} (by|and|with|times) {b}", "{a}*{b}", "{a}x{b}", "(what is|how much is|whats|) {a}(x|*|×){b}", "{a} times {b}( is| equals| makes| please| =|)", "{a} x {b}( =|)", "(what is|give me|find) the product of {a} and {b}", "(there are|I have|I bought|we have|you have|she buys) {a} {t} (with|of|and each has|holding) {b} {x} each(, |. )(how many {x}( is that| are there| do I have| in all| in total|)|what is the total|how many in total)", "{a} {t} (with|of) {b} {x}( each|)(, |: )how many {x}( is that| in all|)", "if (I have|there are) {a} {t} (with|of) {b} {x} each, how many {x} (do I have|are there|is that)", "(what|how much) (does|will) {a} times {b} (make|give|equal)", "{a} (people|children|men|friends) (have|get|pay|bring) {b} {x} each(, |. )how many( {x}|) (in all|in total|altogether|is that)", "what do (you|I) get if (I|you) multiply {a} (by|with) {b}", "(I need|can you do|try|do) {a} times {b}", "(what|how much) (makes|gives|is it|comes out) {a} times {b}", "{a} (times|x) {b} (is|=|makes) (what|how much)", "{a} {x} (cost|at) {b} euros each(, |. )(how much (is that|do they cost|in all|do I pay)|what is the total)"]


HALF = ["(what is|how much is|tell me|calculate|work out|give me|do you know|) half of {a}", "half (of |){a}( please| is| is what| =|)", "(what is|how much is|calculate|) (a |one |)half of {a}", "(what is|how much is) {a} (halved|cut in half|split in half|split in two)", "halve {a}( for me|)", "(cut|split|divide) {a} in (half|two)", "(what|how much) is the half of {a}", "half of {a} (is|makes|equals) (what|how much)", "(I have|we have|there are) {a} {x} and (eat|sell|lose|give away|use) half( of them|)(, |. )(how many (are left|remain|do I have)|what is left)", "(share|split) {a} {x} between two (people|children|friends)", "{a}, (what is half|half of it|and half of that|the half)"]
PARITY = ["is {a} (an |)(even|odd)( number|)", "is {a} (odd or even|even or odd)( number|)", "{a}(, |: | is | - )(odd or even|even or odd)", "(is the number|number) {a} (even|odd)", "(tell me|say|do you know|can you tell me) (if|whether) {a} is (even|odd|odd or even|an even number|an odd number)", "(what is {a}|what about {a}|how about {a})(, |: )(odd or even|even or odd)", "(odd or even|even or odd)(: |, |? ){a}", "{a} is (an |)(odd|even)( number|), (right|is it not|true|correct|yes)", "would you say {a} is (odd|even)", "check (if|whether) {a} is (odd|even)", "does {a} count as (odd|even)"]

MORE = "(And |and |And of |What about |And what about |How about |Now |And the same for |The same for |Then |So and ){x}(?||.|, please)"      # after a question of the same kind


def half(w, talk=None):
    """Of an even number; half of an odd one is declined."""
    a = w.mine(lambda: w.int(0, w.one([15, 50, 50, 250, 499]))); g = w.say(HALF); w.style.new()
    odd = w.r() < 0.08 and "{x}" not in g
    u = w.style.write("say" if g[0] in "{I" or "{x}" in g else "ask", g, **slots(w, g), a=2 * a + odd)
    if odd: return [(u, "I can't do that: I am only a small demo model.", text("can't"))]
    turns = [(u, f"{2 * a} / 2 = {a}", number(a))]
    while w.r() < 0.12:
        a = w.mine(lambda: w.int(0, w.one([15, 50, 250])))
        turns.append((user(w, "say", MORE, x=2 * a), f"{2 * a} / 2 = {a}", number(a)))
    return turns


def parity(w, talk=None):
    """Even or odd, as its last digit says."""
    a = w.mine(lambda: w.int(0, w.one([20, 100, 100, 1000]))); g = w.say(PARITY); w.style.new()
    is_, asked = ("even", "odd")[a % 2], re.findall("even|odd", g)
    u = w.style.write("say" if g[0] == "{" else "ask", g, a=a)
    turns = [(u, ("" if len(asked) > 1 else "Yes, " if asked == [is_] else "No, ") + f"{a} is {is_}.", text(f"{a} is {is_}"))]
    while w.r() < 0.15:
        a = w.mine(lambda: w.int(0, w.one([20, 100, 1000]))); is_ = ("even", "odd")[a % 2]
        turns.append((user(w, "say", MORE, x=a), f"{a} is {is_}.", text(f"{a} is {is_}")))
    return turns


def times(w, talk):
    """The small table, which everybody has by heart."""
    a, b = w.int(0, 12), w.int(0, 12)
    if w.r() < 0.1:
        a = w.int(1, 99); return [(user(w, "ask", ["(what is|how much is|) (double|twice) {a}", "double {a}", "(double|twice) (the number |){a}( please|)", "two times {a}"], a=a).replace("  ", " "), f"{a} + {a} = {2 * a}", number(2 * a))]
    show = (lambda n: in_words(n)) if w.r() < 0.25 else str
    g = w.say(TIMES); w.style.new()
    turns = [(w.style.write("say" if g[0] == "{" or g[0].isupper() else "ask", g.strip(), **slots(w, g), a=show(a), b=show(b)), f"{a} * {b} = {a * b}", number(a * b))]
    while w.r() < 0.18:
        a, b = w.int(0, 12), w.int(0, 12)
        turns.append((user(w, "say", "(And |and |Now |What about |And what is |And how much is |How about |Then |Next: |Okay, ){a}( times | x | * |x|*){b}(?||., please)", a=a, b=b), f"{a} * {b} = {a * b}", number(a * b)))
    return turns


MOST = ["(which|what) (is|number is|one is) the <> of {x}", "(what is|tell me|find|give me|which is|show me) the <>(:| of| number of| number:| in| among| one:) {x}", "the <> of {x}", "<>(:|) {x}", "{x}(: |, )(which|what) is the <>", "(which|what) of these is the <>: {x}", "(pick|choose|say) the <> number(:| of| from) {x}"]


def most(w):
    """The biggest, or the smallest, of several."""
    top = w.one([20, 100, 1000]); items = w.mine(lambda: tuple(w.int(0, top - 1) for _ in range(w.int(3, 6)))); up = w.r() < 0.6
    v = max(items) if up else min(items)
    u = user(w, "ask", [g.replace("<>", w.one(["biggest", "largest", "highest", "greatest", "maximum"] if up else ["smallest", "lowest", "least", "minimum"])) for g in MOST], x=w.one([", ", ", ", " "]).join(map(str, items[:-1])) + w.one([", ", " or ", " and "]) + str(items[-1]))
    return [(u, f"{v} is the {'biggest' if up else 'smallest'}.", text(f"{v} is the"))]


def bigger(w, talk):
    if w.r() < 0.2: return most(w)
    a, b = w.mine(lambda: (w.int(0, w.one([20, 100, 999])), w.int(0, w.one([20, 100, 999]))))
    if a == b: b += 1
    up = w.r() < 0.5
    u = user(w, "ask", ["(which|what) (is|number is) (bigger|larger|greater|more|higher)(, |: | - ){a} or {b}", "is {a} (bigger|larger|greater|more|higher) than {b}", "(which is|what is|tell me) the (bigger|larger|greater|higher) (number|one)(:|,| of) {a} (or|and) {b}", "(which|what) (one |number |)is (bigger|larger|greater|more|higher)(,|:|) {a} or {b}", "{a} or {b}, (which|what) is (bigger|larger|more|greater|higher)", "(bigger|larger|greater|higher)(:|,) {a} or {b}", "the (bigger|larger|greater|higher|maximum) of {a} and {b}", "between {a} and {b}, which is (bigger|larger|greater|more)", "compare {a} and {b}, (which is|what is) (bigger|larger|more)", "is {a} (more|bigger|larger|greater) than {b}", "(what|which) is the (biggest|largest|highest|greatest|maximum) of {a} and {b}"] if up else ["(which|what) (is|number is) (smaller|less|lower)(, |: | - ){a} or {b}", "is {a} (smaller|less|lower) than {b}", "(which is|what is|tell me) the (smaller|lower) (number|one)(:|,| of) {a} (or|and) {b}", "(which|what) (one |number |)is (smaller|less|lower)(,|:|) {a} or {b}", "{a} or {b}, (which|what) is (smaller|less|lower)", "(smaller|lower)(:|,) {a} or {b}", "the (smaller|lower|minimum) of {a} and {b}", "between {a} and {b}, which is (smaller|less|lower)", "compare {a} and {b}, (which is|what is) (smaller|less|lower)", "(what|which) is the (smallest|lowest|minimum) of {a} and {b}"], a=a, b=b)
    v = max(a, b) if up else min(a, b)
    yes = u.lower().lstrip("heyiloksnwpaturg,.!: ").startswith("is ") or " than " in u
    lead = ("Yes, " if v == a else "No, ") if " than " in u else ""
    return [(u, f"{lead}{v} is {'bigger' if up else 'smaller'}.", number(v))]


def many(what): return what if what in UNCOUNTED else what + ("es" if what.endswith(("o", "ch", "sh", "x")) else "s")


HAVE = ["(I have|I have got|there are|we have|suppose I have|say I have|imagine I have|I start with|let us say I have|in my basket there are|I am holding|I bought|I own|I picked|I got|we start with|you have|I keep|I found|I see|my brother has|in the box are|on the table are|here are|it has|the bus has|I count|I collected|we own|I now have|we got|let us start with|the shop has) {n} {x}( in my basket| in my bag| today| at first| in a box| on the table| here| to start with|)(.|)", "my (bag|box|basket|shelf|garden|drawer|pocket|fridge|jar) (holds|has|contains) {n} {x}.", "{n} {x} (are|stand|lie|sit|wait) (here|on the table|in the box|on the roof|in the hall|at the bus stop|in the room|in my bag)(.|)", "{n} {x}(.||, to begin with|. Let us count| to start)", "(start|begin|let us start|let us begin|we start|I start)( counting| the count| a count|) (with|at|from) {n} {x}(.|)"]
ALONE = ["(start|begin|let us start|let us begin|we start|I start|count|keep count, start|start a tally|start a count)( the count| counting|) (with|at|from) {n}(.|)", "(I have|take|we have|the count is|the tally is|the score is|my number is|there are|the total is|score:|we are at|it stands at|my score is|we begin with|we start at|the number is) {n}(.|| now.)", "(okay, |ok, |so, |let us see: |)(start|begin|starting|beginning) (with|at|from) {n}(.|)"]
UP = ["(Then |Now |And |Next |Later |After that |)(I|we) (get|buy|find|add|receive|pick|collect|take|bought|found|got|add another|get another|buy another|bring in|bring|make|earn|win|gain|picked up|made|received|won|took|collected|brought|put in|have found) {d}( more|)( of them| today|)", "(Someone|My friend|My sister|A man|She|He|Mum|My neighbour|A friend|My dad|{who}) (gives|gave|hands|brings|sends|lends|brought|handed|sent) me {d}( more| of them| extra|)", "{d} more (come|arrive|are added|are coming|join|get on|show up|appear|came|arrived|fly in|walk in|are born|come in|get in|joined|turned up)", "(plus|add)( another| a further|) {d}( more|)", "(Add|Plus|And add|Now add|Then add|Put in|Throw in|Increase by|Add on|Insert|Include) {d}( more| to it| to that| to them|)", "I am given {d}( extra| more|)", "I (was given|am given|got given|have been given) {d}( more| of them| today|)", "(another|a further) {d} (come|arrive|join|turn up|appear|are added)", "(and |)({d} more|{d} extra|another {d}|{d} more on top)", "{d} (people |)(get on|come in|step in|enter|join)", "+{d}", "+ {d}", "(we|I|they|you) (scored|score|got|get|won|made) {d}( more| points| again|)", "{d} (points |)(more|up)", "(put|throw|chuck|stick|pop) (in |on |)(another |){d}( more|)", "(now |then |and |)(add|plus) {d}( on top| please|)"]
OFF = ["(Then |Now |And |Next |Later |After that |)(I|we) (give away|lose|sell|use|throw away|drop|eat|spend|lost|sold|gave away|break|give my friend|used|ate|spent|dropped|threw away|broke|take out|give back|returned|gave|burn|drank|drink|use up|hand out|lend|lent|need|remove|removed|took out|gave my brother) {d}( of them|)", "I (give|gave|sell|sold|lend|lent|hand|handed) {d} (of them |)to (my brother|my sister|a friend|{who}|him|her|the neighbour)", "(Someone|My brother|A thief|She|He|My dog|The cat|My sister|{who}|A friend) (takes|took|steals|stole|eats|ate|borrows|borrowed|wants|grabs|broke) {d}( of them| from me|)", "{d} (are gone|get lost|break|go missing|are stolen|were eaten|die|are sold|got lost|are broken|fell down|fly away|went away|are taken|run away|expire|go bad)", "(minus|take away|remove)( another|) {d}", "(Take away|Minus|Remove|Subtract|Now take away|Then take away|And take away|Now remove|Take|Take off|Take out|Drop|Deduct|Now subtract|Then subtract|Decrease by|Cut|Now minus|Discard|Delete|Take out) {d}( of them| again| please| from it| from that| away|)", "I part with {d}", "I (had to give away|have lost|have sold|hand over|let go of|must give back|got rid of|said goodbye to) {d}( of them|)", "{d} (of them |)(leave|go away|disappear|run off|get off|leave us|left|go home|fall off|walk out|went home|are no good|vanish)", "{d} (fewer|less|less now|gone|off)", "-{d}", "- {d}", "(used|I used|we used|I need) {d} (for a cake|for dinner|for the party|up)", "(now |then |and |)(take away|take off|minus|subtract|remove) {d}( please| again|)", "(we|I|they) (lost|lose|dropped) {d}( points| of them|)"]
NOW = ["", "", "", ".", ".", ". How many now?", ". How many do I have?", ". How many do I have now?", ". How many are left?", ", how many now", ". What do I have now?", ". How many is that?", ", how many is that?", ". Now how many?", ", now how many?", ". Total?", ". How many have I got?", ". What is the total?", ". And now?", ", so how many?", ". How many are there?", " how many now", ". How many remain?", ". What is left?", ", what's left?", ". What does that make?", ", leaving how many?", ". So I have?"]


TOLD_AT_ONCE = "(. |, )(how many (now|do I have|do I have now|are there|{x} do I have|{x} are left|have I got|is that|{x} now|{x})|how many|what do I have now|what is left|how many does that make)"


def story(w):
    """A number that goes up and down in one message."""
    what, n = many(w.one(COUNTED)), w.mine(lambda: w.int(2, 60)); first, said, steps = n, [], []
    for _ in range(w.one((2, 2, 2, 3))):
        up = w.r() < 0.5 or n == 0
        d = w.int(1, 30) if up else w.int(1, min(n, 30))
        said.append(w.say("(get|buy|find|buy|bought|got|found|pick|add|receive|am given|was given|make|take) {d}( more| more|)" if up else "(eat|lose|sell|give away|use|ate|lost|sold|gave away|break|broke|drop|give my friend|throw away|gave {who}|give {who}) {d}( of them|)").replace("{d}", str(d)))
        steps.append(f"{n} {'+' if up else '-'} {d} = {n + d if up else n - d}"); n += d if up else -d
    g = w.say("(I have|I had|I have got|there were|I start with|we had|I bought|say I have) {n} {x}") + "".join(w.one([", ", " and ", ", then ", ". I ", ". Then I ", ", I ", " and then ", ". After that I "]) + s for s in said) + w.say(TOLD_AT_ONCE)
    w.style.new(); u = w.style.write("say", g, **slots(w, g) | dict(n=first, x=what))
    return [(u, f"{', '.join(steps)}: you have {n} {what}.", number(n))]


def tally(w, talk):
    if w.r() < 0.2: return story(w)
    """A number kept over several turns."""
    what = w.one(COUNTED) if w.r() < 0.75 else w.mine(lambda: w.pseudo(3, 7))
    n = w.mine(lambda: w.int(2, 80 if w.r() < 0.8 else 300)); what = " " + many(what)
    if w.r() < 0.25: what = ""
    turns = [(user(w, "say", HAVE if what else ALONE, n=n, x=what.strip()), f"You have {n}{what}.", number(n))]
    for _ in range(w.int(1, 4)):
        ways = [w.r() < 0.5]
        if w.r() < 0.12: ways.append(w.r() < 0.5)
        steps, said = [], []
        for up in ways:
            up = up or n == 0
            d = w.int(1, w.one([10, 30, 30, 60]))
            if not up: d = min(d, n)
            g = w.say(UP if up else OFF); w.style.new(0.7 if len(ways) > 1 else 0.45)
            said.append(w.style.write("say", g, d=ONES[d] if d < 20 and w.r() < 0.1 else d, **slots(w, g)).rstrip("."))
            steps.append(f"{n} {'+' if up else '-'} {d} = {n + d if up else n - d}"); n += d if up else -d
        q = said[0] + "".join(w.one([" and ", ", ", ", then ", " and then "]) + s[0].lower() + s[1:] if s[0] != "I" else w.one([" and ", ", then "]) + s for s in said[1:]) + w.one(NOW)
        turns.append((q, f"{', '.join(steps)}: you have {n}{what}.", number(n)))
    if w.r() < 0.5: turns.append((user(w, "ask", ["(so |and |okay, |ok |now |)(what is|what was|tell me|give me|say) (the |my |our )(total|sum|score|count|number|tally|result)( now| again| so far| at the end|)", "(so |and |okay, |now |)(what|how many|how much) (do|have) (we|I|you) (have|got|end up with)( now| left| in the end| altogether|)", "(so |and |okay, |now |)(what is|what's|how many are|how much is) left( now| over| in the end|)", "(where|how) (are we|do we stand|am I)( now|)", "(so |)what does (that|it) (make|leave|come to)( now| in all|)", "(the |)(score|total|sum|count|result)( now| please| so far|)","(how many{x} (do I have|have I got|are there|do we have|are left|is it|is that|remain)|how many do I have|how many are there|what is the total|total|the total|sum|how much is it|what do I have|what is left|what is the count|count|what is the tally|how many|how many now|what do I have now|so how many)( now| in total| altogether| in all| by now| left| at the moment|)"], x=what), f"You have {n}{what}.", number(n)))
    return turns


UNCOUNTED = set("bread cheese butter soup rice honey jam tea coffee milk salt sugar".split())
COUNTED = [x for x in ANIMALS + FOODS + THINGS + ["coin", "stamp", "card", "ball", "shell", "stone", "key", "toy", "cup", "plate"] if x[-1] not in "sy" and x not in ("mouse", "goose", "sheep", "deer", "fox", "wolf")]
