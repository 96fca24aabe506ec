"""Owns lists: counting, what comes next, sorting."""
from refusals import CANNOT
from sums import in_words
from turns import *
from words import PLENTY
from world import *


def mixed(w, n, open_slots=0.35):
    """A list of words, some of them made up."""
    items = w.some(w.one(LISTS) if w.held or w.r() < 0.7 else PLENTY, n)
    if w.r() < 0.6: items = [w.made_word() if w.r() < open_slots else x for x in items]
    if w.r() < 0.12: items = [w.name().split()[0] for _ in range(n)]
    return list(dict.fromkeys(items))


def listed(w, items):
    a = w.r()
    if a < 0.6: return ", ".join(items)
    if a < 0.72: return " ".join(items)
    if a < 0.8: return ",".join(items)
    return ", ".join(items[:-1]) + w.one([" and ", ", and "]) + items[-1]


NEXT = ["(what|which) <w> (comes|is) <> {x}", "(what|which) <w> (comes|is|goes) <> {x}", "(what|which) (comes|goes) <> {x}", "(what is|which is|tell me|say|name|give me|) the <w> <> {x}", "(what|which) <w> (would be|will be|was|do we have|have we) <> {x}", "(do you know|can you tell me|tell me) (what|which <w>) comes <> {x}", "<> {x}(,|) (comes|is) (what|which <w>)"]


COUNTDOWN = ["count (backwards|down|back|backward|in reverse) from {b}( please| for me| to one| to 1|)", "(countdown|a countdown|count down|counting down|backwards|down)(:| from| starting at| starting with| of|) {b}", "(start|begin) (at|with|from) {b} and (count|go) (down|backwards|back)( to one| to 1|)", "(count|say the numbers|go|list the numbers|numbers) from {b} (down|backwards|back down|downwards|in reverse)( to one| to 1|)", "(do|give me|I want|can you do|make) a (countdown|count down) (from|of) {b}", "from {b}, (count down|count backwards|go down|backwards)", "{b} (backwards|down to one|down to 1|and down|countdown)"]


def countdown(w):
    """Down to one, or to nought when asked."""
    b = w.int(3, 20) if w.r() < 0.8 else w.int(21, 50); zero = w.r() < 0.15
    u = user(w, "do", ["(count|go|count down|countdown) (backwards |down |)from {b} (down |)to (zero|0|nought)", "{b} (down |)to zero, counting down", "count (down|backwards) to (0|zero) from {b}"] if zero else COUNTDOWN, b=in_words(b) if w.r() < 0.15 else b)
    s = ", ".join(str(x) for x in range(b, -1 if zero else 0, -1))
    return [(u, s, text(s))]


STEPS = {2: ("2s", "twos"), 3: ("3s", "threes"), 4: ("4s", "fours"), 5: ("5s", "fives"), 10: ("10s", "tens"), 100: ("100s", "hundreds")}
BY = ["(count|count up|skip count|please count|can you count|go) (by|in) <> (up to|to|until|till) {b}", "(count|count up|go) (to|up to) {b} (by|in) <>", "(count|go) from {a} to {b} (by|in) <>", "(count|count up|skip count|go) (by|in) <> from {a} to {b}"]
EVEN = "(the |list the |say the |give me the |all |all the |name the |what are the |)<> numbers (up to|to|until|till|from {a} to) {b}"
MULTIPLES = ["(the |first |list |give me |)multiples of {s} (up to|to|until) {b}", "the {s} times table (up to|to) {b}"]


def stepping(w):
    """By twos, fives, tens; the even and the odd numbers."""
    step = w.one([2, 2, 2, 3, 4, 5, 5, 10, 10, 100]); odd = step == 2 and w.r() < 0.3
    start = 1 if odd else step; b = start + step * (w.int(3, 12) - 1)
    own = EVEN.replace("<>", "odd" if odd else "even") if step == 2 else MULTIPLES
    s = ", ".join(str(x) for x in range(start, b + 1, step))
    return [(user(w, "do", own if odd or w.r() < 0.3 else [g.replace("<>", w.one(STEPS[step])) for g in BY], a=start, b=b, s=step), s, text(s))]


RINGS = [("days of the week|days|seven days|week days", "days (are there |are |)in (a|the) week", DAYS), ("months of the year|months|twelve months|names of the months", "months (are there |are |)in (a|the) year", MONTHS),
         ("alphabet|letters of the alphabet|abc|letters from a to z|whole alphabet|ABC", "letters (are there |are |)in the alphabet", list(LETTERS))]
RECITE = ["(say|list|name|write|give me|tell me|recite|type|print|show me|can you say|do you know|what are|what is|can you list|say all|name all|list all|write down) the (<n>)( please| in order| for me| one by one|)", "(the |all the |)(<n>)( please|)", "(can|could) you (say|list|recite|name|sing) the (<n>)( for me|)", "(which|what) <in>"]


def recited(w):
    """The days, the months, the alphabet."""
    names, within, ring = w.one(RINGS); s = ", ".join(ring)
    return [(user(w, "do", [g.replace("<n>", names).replace("<in>", within) for g in RECITE]), s, text(s))]


def counting(w, talk):
    a = w.r()
    if a < 0.13: return countdown(w)
    if a < 0.23: return stepping(w)
    if a < 0.32: return recited(w)
    if a < 0.6:
        # held out as a span: of the few small numbers none may be missing
        a, n = w.mine(lambda: (w.one([w.int(0, 120), w.int(0, 120), w.int(2, 12), w.int(2, 30), 10 * w.int(1, 12), 1]), w.one([w.int(2, 5), w.int(3, 12), w.int(3, 12), 11, w.int(6, 30), w.int(20, 60)])) if w.r() < 0.75 else (w.int(1, 20), w.int(2, 6))); down_ = w.r() < 0.22
        b = a + n - 1
        s = ", ".join(str(x) for x in (range(a, b + 1) if not down_ else range(b, a - 1, -1)))
        started = not down_ and a <= 1 and w.r() < 0.4
        if started: b = w.one([w.int(3, 20), w.int(3, 20), w.int(3, 20), w.int(20, 40), w.int(30, 100)])
        far = started and w.r() < 0.06
        if far: b = w.one([200, 500, 1000, 10000, 1000000, w.int(110, 999)])        # too far to count
        words = w.r() < 0.2 and 0 < a and b <= 50
        u = user(w, "do", ["count (backwards |down |)from {b} (down |)to {a}", "(count|go|please count|start) (backwards|down|in reverse|back) from {b} (down |)(to|until|till) {a}", "(count down|countdown|a countdown|backwards|down)(:| from| starting at|) {b} to {a}", "(start|begin) (at|with) {b} and (count|go) (down|backwards|back) to {a}", "(list|say|write|give me|show) (the |all the |)numbers (from|between) {b} (down to|back to) {a}", "from {b} down to {a}( please|)"] if down_ else ["(count|count up|please count) from {a} (up |)to {b}", "(write|list|give me|say|tell me|show me) (all |)the numbers (from|between) {a} (to|and) {b}", "numbers from {a} to {b}", "(the |all |all the |)numbers (from|between) {a} (to|and|up to|until|till|through) {b}( please|)", "(count|count up|start counting|go|please count|keep counting|count for me) from {a} (to|up to|until|till|and stop at|through) {b}", "{a} to {b}", "(list|say|write|show|give me|print|type|name|enumerate) (the |all |all the |)(numbers |)from {a} (to|up to|until|through) {b}", "(start|begin) (at|with) {a} and (count|go) (up |)to {b}", "(what|which) numbers (are|come|lie) (from|between) {a} (to|and) {b}", "from {a} (to|up to) {b}( please|, count|, all numbers|)"] if not started else ["count (up |)to {b}", "(count|count up|please count|start counting|keep counting|can you count|count all the way|count aloud|count for me) (up |)(to|until|till) {b}", "(say|write|list|give me|name) the (first {b} numbers|numbers up to {b}|numbers to {b})", "(show me|let me see|let me hear) (that you can count|you count|how you count) to {b}", "(1|one) (to|till|until|up to|through) {b}", "(count|go|numbers|count up|can you count|please count|say the numbers) (from |)(1|one) (to|till|until|up to) {b}( please| for me|)", "1..{b}"], a=in_words(a) if words else a, b=in_words(b) if words or started and b <= 100 and w.r() < 0.2 else b)
        if far: return [(u, CANNOT, text("can't"))]
        if started: s = ", ".join(str(x) for x in range(1, b + 1))
        return [(u, s, text(s))]
    if a < 0.7:
        n = w.mine(lambda: w.int(0, 998)); after = w.r() < 0.5
        if not after: n += 1
        return [(user(w, "ask", [g.replace("<w>", "number").replace("{x}", "{n}").replace("<>", "(after|next after|right after|straight after)" if after else "(before|right before|just before|straight before)") for g in NEXT], n=n), f"{n + 1 if after else n - 1} comes {'after' if after else 'before'} {n}.", text(f"{n + 1 if after else n - 1} comes"))]
    if a < 0.79:
        what, ring = w.one([("day", DAYS), ("month", MONTHS), ("letter", list(LETTERS))]); i = w.int(0, len(ring) - 1); after = w.r() < 0.6
        if what == "letter": i = min(max(i, 1), 24)
        v = ring[(i + (1 if after else -1)) % len(ring)]
        w.style.new()
        if what == "day" and w.r() < 0.3: return [(w.style.write("ask", w.say(["if (today|it) is {x}, (what|which) (day |)<>", "today is {x}(, |. )(what|which|and what) (day |)<>", "(what|which) day <> if (today|it) is {x}"]).replace("<>", w.one(["is tomorrow", "comes tomorrow", "will be tomorrow"] if after else ["was yesterday", "was it yesterday"])), x=ring[i]), f"{v} comes {'after' if after else 'before'} {ring[i]}.", text(f"{v} comes"))]
        return [(w.style.write("ask", w.say([g.replace("<w>", what).replace("<>", "(after|right after|directly after|just after)" if after else "(before|right before|directly before|just before)") for g in NEXT]), x=ring[i]), f"{v} comes {'after' if after else 'before'} {ring[i]}.", text(f"{v} comes"))]
    items = mixed(w, w.int(2, 8)) if w.r() < 0.88 else w.sentence().rstrip(".").lower().split()[:10]; w.style.new(); items = [w.style.value(x) for x in items]
    u = w.style.write("say", w.say(["(how many|count the) (words|things|items|entries) (are |)(in this list|here|in the list|in this|in|in the sentence|in this sentence|in the following|in the phrase): {x}", "(count|count up|please count|can you count) (these|these words|these things|the words|the items|them): {x}", "how many (words|things|items) (are these|is this|do I have here|do you see): {x}", "how many is this: {x}", "give me the number of words: {x}", "(tell me|what is|find|I want|I need|work out) the (number|count|total) of (words|things|items|entries) (here|in this list|)(:|) {x}", "{x}(: how many words is that|. How many are these|, how many words|. Count them| - count these)", "(how many|what number of) (words|things) (do|can) you (see|count) here: {x}", "how many (words|things|items|animals|names|entries|objects) (are there|are here|did I write|do I list|do I have|have I got|is that|are these)(:|,|) {x}", "(word count|count|number of words|number of things|how many)(:| of| for|) {x}", "{x}(, |. |: | - )(how many (things|words|items|are there|is it|do you count|did I name|in all)|count these|count them please|number of words|total number)", "I (have|see|bought|own) {x}(, |. )how many (things|items) (is that|are there|do I have)", "(can you|please|could you|now) count(:|) {x}"]), x=listed(w, items))
    return [(u, ", ".join(f"{x} {i + 1}" for i, x in enumerate(items)) + f". That makes {len(items)}.", text(f"makes {len(items)}."))]


SORT = ["(sort|order|arrange|rank|put in order|organise) (these|these words|the words|the following|this list|the list|this|the following words)( alphabetically| by the alphabet| in alphabetical order| for me| from a to z|): {x}", "put (these|these words|them|the words) in (order|alphabetical order)(: | - |, ){x}", "sort( alphabetically| by the alphabet|)(:|) {x}", "(alphabetical order|in alphabetical order|sorted|alphabetise)(:|, please:|) {x}", "(can you |could you |)sort (these|these words|the words)(:|, | - ) {x}", "{x}(: sort them|. Sort these|. Put these in order| - sort these please|, sorted)", "what is the alphabetical order of {x}", "(what|which) is the (right|correct|alphabetical) order (of|for)(:|) {x}", "(bring|get|place) (these|these words|them) (in|into) (order|alphabetical order)(:| -|) {x}", "(sort|order|arrange) {x}( please| alphabetically| for me| by the alphabet|)", "put {x} (in order|in alphabetical order|into alphabetical order|in the right order)( please|)", "~which order is alphabetical for {x}", "bring these into alphabetical order: {x}", "(alphabetize|alphabetise|sort|order|sorted|alphabetically|in order|a to z|a-z|by the alphabet)(:|,|) {x}", "(sort|order|arrange|put|list|rank) (these|the|my|this list of|the following) (words|names|things|animals|items)( in order| alphabetically| by name| from a to z|)(:|?|. |) {x}", "(can|could) you (put|bring|get) (these|these names|these words|them) (in|into) (the right order|order|alphabetical order)(:|?|) {x}", "{x} (in alphabetical order|alphabetically|sorted|from a to z|in order|ordered|by the alphabet)( please|)", "{x}(, |: |. )(sort alphabetically|in order please|alphabetical order please|which comes first, order them|put them in order|sort by name|arrange them)", "(what is|tell me|give me|I need|show me) (the |)(alphabetical order|sorted list|right order|correct order) (of|for)(:|) {x}", "(put|sort|arrange|order) {x} (from a to z|by the alphabet|alphabetically|by name|in the order of the alphabet)", "how (do|would|should) (I|you) (sort|order|arrange) {x}", "(which|what) order (do|would|should) {x} (go in|have|be in)( alphabetically|)", "(please|now|can you|could you) (sort|order|arrange|alphabetize) {x}"]
SORTN = ["(sort|order|arrange|rank|put in order) (these|these numbers|the numbers|the following numbers|this list|the following)( from small to large| by size| in ascending order| for me| from lowest to highest|): {x}", "put (these|these numbers|them|the numbers) in (order|ascending order|numerical order)(: | - |, ){x}", "sort( ascending| the numbers| from small to big|)(:|) {x}", "(can you |could you |)sort (these|these numbers)(:|, | - ) {x}", "{x}(: sort them|. Sort these|. Put these in order| - sort these please)", "(numbers|in ascending order|smallest first)(:|) {x}", "please put these in order, small to large: {x}", "(smallest first|lowest first|small to large|low to high|ascending|ascending order|from small to big|increasing order|smallest to biggest|sorted|in order|upwards)(:|,|) {x}", "(put|sort|arrange|order|rank|list|bring) {x} (in order|in ascending order|from small to large|from low to high|from smallest to largest|from lowest to highest|by size|from the smallest to the largest|in increasing order|into ascending order|ascending|upwards)( please| for me|)", "{x} (in order|sorted|in ascending order|from small to large|ascending|ordered|smallest first|from low to high)( please|)", "(sort|order|arrange|put|list) (the|these|my|the following) numbers( in order| from (the |)(smallest|lowest) to (the |)(largest|highest|biggest)| smallest first|)(:|?|. |) {x}", "(what is|tell me|give me|I need) the (ascending|right|correct|numerical) order (of|for)(:|) {x}", "order (these |)(from (smallest|lowest|small|low) to (largest|highest|large|big|high)|smallest first)(:|) {x}", "{x}, (smallest first|sort them|in order please|from low to high|put them in order|ascending please)", "(please |can you |)(sort|order|arrange) {x}"]
DOWN = ["(sort|order|arrange|put) (these|these numbers|the numbers|this list)( in order|) (from large to small|in descending order|from biggest to smallest|from high to low|descending)(: | - ){x}", "sort (descending|from big to small|in reverse order)(:|) {x}", "(biggest first|largest first|highest first|big to small|high to low|descending|descending order|largest to smallest|decreasing order|downwards|from big to small|biggest to smallest)(:|,|) {x}", "(put|sort|arrange|order|rank|list|bring) {x} (in descending order|from large to small|from high to low|from largest to smallest|from highest to lowest|from the biggest to the smallest|in decreasing order|biggest first|largest first|descending|downwards)( please| for me|)", "{x} (in descending order|from large to small|descending|biggest first|largest first|from high to low)( please|)", "(sort|order|arrange|put|list|rank) (the|these|my|the following) numbers (from (the |)(largest|highest|biggest) to (the |)(smallest|lowest)|biggest first|largest first|descending)(:|?|. |) {x}", "order (these |)(from (largest|highest|large|big|high) to (smallest|lowest|small|low)|largest first|biggest first)(:|) {x}", "{x}, (biggest first|largest first|descending please|from high to low|from big to small)", "(reverse sort|sort backwards|sort in reverse|sort down)(:|) {x}", "(can you |)(sort|order) {x} (from big to small|descending|largest first)"]


SORTZ = ["(sort|order|arrange|list) (these|these words|this list|the words|)( |)(from z to a|in reverse alphabetical order|z to a|backwards by the alphabet)(:|) {x}", "(z to a|from z to a|reverse alphabetical order)(:|) {x}", "(put|sort|arrange) {x} (from z to a|in reverse alphabetical order)", "{x} (from z to a|in reverse alphabetical order)"]


TURN = ["(reverse|flip|turn around|invert) (the|this|my|the following) (list|order|row|sequence)(:|,| of) {x}", "(reverse|flip)(:| the words| the numbers| the items) {x}", "{x} in reverse( order|)", "(say|write|list|give me|put|read) {x} (in reverse order|backwards|in reverse|from last to first|the other way round)", "(what is|give me) the reverse of the list {x}", "(backwards|in reverse)(:|) {x}"]


def turned(w):
    """A list from its end: not sorted, whatever it holds."""
    w.style.new()
    items = w.mine(lambda: tuple(w.style.value(x) for x in (mixed(w, w.int(3, 6)) if w.r() < 0.5 else w.some(LETTERS, w.int(3, 7)) if w.r() < 0.4 else [str(w.int(0, 99)) for _ in range(w.int(3, 6))])))
    s = ", ".join(items[::-1])
    return [(w.style.write("do", w.say(TURN), x=w.one([", ", ", ", " "]).join(items)), s, text(s))]


def sorting(w, talk):
    if w.r() < 0.06: return turned(w)
    a = w.r(); w.style.new()
    if a < 0.55: rev = w.r() < 0.08; items = w.mine(lambda: tuple(w.style.value(x) for x in (w.some(LETTERS, w.int(3, 7)) if w.r() < 0.07 else mixed(w, w.int(2, 6))))); g, key = SORTZ if rev else SORT, str.lower
    else:
        top = w.one([20, 100, 1000]); items = w.mine(lambda: tuple(str(w.int(0, top - 1)) for _ in range(w.int(3, 6)))); rev = w.r() < 0.25
        g, key = DOWN if rev else SORTN, int
    s = ", ".join(sorted(items, key=key, reverse=rev))
    turns = [(w.style.write("say", w.say(g), x=listed(w, list(items))), s, text(s))]
    if w.r() < 0.25:
        s, down_ = ", ".join(sorted(items, key=key, reverse=not rev)), [] if rev else ["(Now |And |Then |)(descending|desc|from the end|high to low|z to a|backwards please|downwards|in descending order|the reverse order)(.||?|, please)".replace("high to low|z to a", "high to low|largest first|biggest first|from big to small" if key is int else "z to a|from z to a")]
        turns.append((user(w, "say", down_ if down_ and w.r() < 0.3 else "(Now |And |Then |)(the other way round|in reverse order|the other way|reverse the order|in reverse|backwards|reversed|turn it around|reverse that|reverse it|reverse them|reverse the list|flip it|flip the list|the reverse|from the end|opposite order|in the opposite order|turn the list around|do it backwards|list them backwards|sort it the other way|sort them the other way|switch it round)(.||?|, please)"), s, text(s)))
    return turns


LISTS = [ANIMALS, FOODS, THINGS, COLOURS, JOBS, SPOTS, ANIMALS + FOODS + THINGS, NOUNS, GOODS, REAL_NAMES, REAL_PLACES]
