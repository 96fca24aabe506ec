"""Owns lists: counting, what comes next, sorting."""
from sums import in_words
from turns import *
from world import *


def mixed(w, n, open_slots=0.35):
    """A list of words, some of them made up."""
    items = w.some(w.one(LISTS), n)
    if w.r() < 0.6: items = [w.made_word() if w.r() < open_slots else x for x in items]
    if w.r() < 0.12: items = [w.name().split()[0] for _ in range(n)]
    return list(dict.fromkeys(items))


def listed(w, items):
    a = w.r()
    if a < 0.6: return ", ".join(items)
    if a < 0.72: return " ".join(items)
    if a < 0.8: return ",".join(items)
    return ", ".join(items[:-1]) + w.one([" and ", ", and "]) + items[-1]


def counting(w, talk):
    a = w.r()
    if a < 0.4:
        a, n = w.mine(lambda: w.one([w.int(0, 120), w.int(0, 120), 1])), w.int(3, 12); down_ = w.r() < 0.25
        b = a + n - 1
        s = ", ".join(str(x) for x in (range(a, b + 1) if not down_ else range(b, a - 1, -1)))
        u = user(w, "do", ["count (backwards |down |)from {b} (down |)to {a}"] if down_ else ["(count|count up|please count) from {a} (up |)to {b}", "(write|list|give me|say|tell me|show me) (all |)the numbers (from|between) {a} (to|and) {b}", "numbers from {a} to {b}"] if a > 1 or w.r() < 0.6 else ["count (up |)to {b}"], a=a, b=in_words(b) if w.r() < 0.2 and not down_ and a < 2 else b)
        if "count to" in u.lower() or "count up to" in u.lower(): s = ", ".join(str(x) for x in range(1, b + 1))
        return [(u, s, text(s))]
    if a < 0.55:
        n = w.mine(lambda: w.int(0, 998)); after = w.r() < 0.5
        if not after: n += 1
        return [(user(w, "ask", "(what|which) (number |)comes <> {n}".replace("<>", "(after|next after|right after)" if after else "(before|right before|just before)"), n=n), f"{n + 1 if after else n - 1} comes {'after' if after else 'before'} {n}.", text(f"{n + 1 if after else n - 1} comes"))]
    if a < 0.65:
        what, ring = w.one([("day", DAYS), ("month", MONTHS), ("letter", list(LETTERS))]); i = w.int(0, len(ring) - 1); after = w.r() < 0.6
        if what == "letter": i = min(max(i, 1), 24)
        v = ring[(i + (1 if after else -1)) % len(ring)]
        w.style.new()
        return [(w.style.write("ask", w.say("(what|which) <w> (comes|is) <>".replace("<w>", what).replace("<>", "(after|right after)" if after else "(before|right before)")) + " {x}", x=ring[i]), f"{v} comes {'after' if after else 'before'} {ring[i]}.", text(f"{v} comes"))]
    items = mixed(w, w.int(2, 8)); w.style.new(); items = [w.style.value(x) for x in items]
    u = w.style.write("say", w.say(["(how many|count the) (words|things|items|entries) (are |)(in this list|here|in the list|in this|in|): {x}", "(count|count up|please count|can you count) (these|these words|these things|the words|the items|them): {x}", "how many (words|things|items) (are these|is this|do I have here|do you see): {x}", "how many is this: {x}", "give me the number of words: {x}", "(tell me|what is|find|I want|I need|work out) the (number|count|total) of (words|things|items|entries) (here|in this list|)(:|) {x}", "{x}(: how many words is that|. How many are these|, how many words|. Count them| - count these)", "(how many|what number of) (words|things) (do|can) you (see|count) here: {x}"]), x=listed(w, items))
    return [(u, ", ".join(f"{x} {i + 1}" for i, x in enumerate(items)) + f". That makes {len(items)}.", text(f"makes {len(items)}."))]


SORT = ["(sort|order|arrange|rank|put in order|organise) (these|these words|the words|the following|this list|the list|this|the following words)( alphabetically| by the alphabet| in alphabetical order| for me| from a to z|): {x}", "put (these|these words|them|the words) in (order|alphabetical order)(: | - |, ){x}", "sort( alphabetically| by the alphabet|)(:|) {x}", "(alphabetical order|in alphabetical order|sorted|alphabetise)(:|, please:|) {x}", "(can you |could you |)sort (these|these words|the words)(:|, | - ) {x}", "{x}(: sort them|. Sort these|. Put these in order| - sort these please|, sorted)", "what is the alphabetical order of {x}", "(what|which) is the (right|correct|alphabetical) order (of|for)(:|) {x}", "(bring|get|place) (these|these words|them) (in|into) (order|alphabetical order)(:| -|) {x}", "(sort|order|arrange) {x}( please| alphabetically| for me| by the alphabet|)", "put {x} (in order|in alphabetical order|into alphabetical order|in the right order)( please|)", "~which order is alphabetical for {x}", "bring these into alphabetical order: {x}"]
SORTN = ["(sort|order|arrange|rank|put in order) (these|these numbers|the numbers|the following numbers|this list|the following)( from small to large| by size| in ascending order| for me| from lowest to highest|): {x}", "put (these|these numbers|them|the numbers) in (order|ascending order|numerical order)(: | - |, ){x}", "sort( ascending| the numbers| from small to big|)(:|) {x}", "(can you |could you |)sort (these|these numbers)(:|, | - ) {x}", "{x}(: sort them|. Sort these|. Put these in order| - sort these please)", "(numbers|in ascending order|smallest first)(:|) {x}", "please put these in order, small to large: {x}"]
DOWN = ["(sort|order|arrange|put) (these|these numbers|the numbers|this list)( in order|) (from large to small|in descending order|from biggest to smallest|from high to low|descending)(: | - ){x}", "sort (descending|from big to small|in reverse order)(:|) {x}"]


def sorting(w, talk):
    a = w.r(); w.style.new()
    if a < 0.55: items = w.mine(lambda: tuple(w.style.value(x) for x in mixed(w, w.int(2, 6)))); g, key, rev = SORT, str.lower, False
    else:
        top = w.one([20, 100, 1000]); items = w.mine(lambda: tuple(str(w.int(0, top - 1)) for _ in range(w.int(3, 6)))); rev = w.r() < 0.25
        g, key = DOWN if rev else SORTN, int
    s = ", ".join(sorted(items, key=key, reverse=rev))
    turns = [(w.style.write("say", w.say(g), x=listed(w, list(items))), s, text(s))]
    if w.r() < 0.25:
        s = ", ".join(sorted(items, key=key, reverse=not rev))
        turns.append((user(w, "say", "(Now |And |Then |)(the other way round|in reverse order|the other way|reverse the order|in reverse|backwards|reversed|turn it around)(.||?|, please)"), s, text(s)))
    return turns


LISTS = [ANIMALS, FOODS, THINGS, COLOURS, JOBS, SPOTS, ANIMALS + FOODS + THINGS, NOUNS, GOODS, REAL_NAMES, REAL_PLACES]
