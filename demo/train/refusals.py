"""Owns saying no in one sentence: to questions about the world, to tasks never taught, to what means nothing."""
from turns import *
from world import *

DONT_KNOW = "I don't know that: I only know what you tell me."
CANNOT = "I can't do that: I am only a small demo model."
UNCLEAR = "I don't understand: I am only a small demo model."


def world_noun(w):
    a = w.r()
    return w.one(NOUNS) if a < 0.62 else w.one(ANIMALS + FOODS + GOODS + JOBS) if a < 0.8 else w.made_word()


def world_name(w):
    a = w.r()
    return w.place() if a < 0.55 else w.name() if a < 0.8 else w.name() + " " + w.name().split()[0] if a < 0.9 else "the " + world_noun(w)


KNOW = ["who (is|was) (the|) (first |current |last |famous |best |)(president|king|queen|prime minister|mayor|leader|inventor|author|owner|director|captain|emperor|pope|founder|singer|champion|chancellor|minister) of {p}", "who (is|was) {p}", "who (invented|discovered|wrote|painted|built|made|designed|created|founded|won|started|killed|composed|stole) the (first |)({n}|{n} of {p}|{n})", "who (discovered|founded|ruled|conquered|built|married|killed|wrote|painted) {p}",
    "what is the (capital|population|history|language|flag|area|highest mountain|longest river|currency|climate|religion|biggest city|president|king|name|anthem|size|time zone|{n}|{a} {n}) of {p}", "what is (a|an|the|) {n}", "what is the (meaning of|difference between|name of|size of|speed of|price of|colour of|weight of|{a}) (the |)({n}|{n}s|{n} and {n2}|life)", "what (are|were) {n}s( made of| for| used for|)", "what does (a |the |){n} (mean|do|eat|cost|look like|weigh|sound like|need)", "what (happened|started|ended|was invented) in (1{d}{d}{d}|{p}|20{d}{d})", "what (year|century|day) (was|did) (the |){n} (invented|start|end|born|happen|begin)", "what (is|was) the {a} {n}( in the world| ever| of all|)", "which {n} is the {a}( in the world| of all|)", "(which|what) {n} (is|has|lives in|comes from|was) (the |)({p}|{n2}|{a})",
    "when (was|did|is|will) (the |){n} (of {p} |)(invented|start|end|born|built|happen|begin|over|come)", "when (was|did) {p} (born|founded|die|become king|built|independent)", "where (is|was) {p}( located| born| buried| on the map|)", "where (do|did) (the |){n}s (live|come from|grow|go|sleep)", "where can I (buy|find|see|get) (a |some |){n}( in {p}|)", "why (is|are|was) the {n} (so |){a}", "why (do|does|did) (the |){n}s? (always |)({b}|exist)", "why (do|does) people ({b}|like|need) (the |){n}s?",
    "how (big|old|tall|far|deep|high|long|fast|heavy|hot|large|wide|expensive|dangerous|many people live in|far away) is (the |){n}", "how (big|old|large|far|rich|cold|many people live in) (is |){p}", "how (do|can|should|would) (I|you|we|people) {b} (a |an |the |){n}", "how (do|does|did) (a |the |){n}s? ({b}|work|happen|live|look|move)", "how many {n}s (are there|live|exist|are) in (the |a |){p}", "how many (legs|eyes|teeth|wheels|days|bones|hearts|moons|states|countries|islands|planets|continents) (does|do|has|are in) (a |an |the |){n}s?( have|)", "how much (does|is|do) (a |an |the |){n}s? (cost|weigh|worth)",
    "is (the |a |){n} (really |very |)({a}|a {n2}|dead|real|true|alive|{a})", "is {p} (in|near|bigger than|older than|part of) {q}", "(are|were) {n}s (really |)({a}|dangerous|real|animals|red|{a})", "(can|do|did|will|could) {n}s (really |)({b}|fly|swim|die|talk|think)", "(does|did|will|has) {p} (ever |)({b}|exist|win|die|have a {n})", "(do you know|have you heard|do you know anything) (of |about |)(the |)({n}s?|{p}|the {n} of {p})", "have you (ever |)(been to|seen|read|heard of|visited|eaten|met) (a |the |)({p}|{n})", "(can|could) you (tell me|explain) (about|what is|what|how|why) (the |){n}( is| works| of {p}|)", "tell me (about|something about|all about|a fact about|more about|everything about) (the |)({n}|{n}s|{p}|the {n} of {p})", "tell me the (capital|population|history|language|president|king|area|name|height|{n}) of {p}", "(explain|define|describe)( to me|) (the |what a |how a |)({n}|{n} of {p}|{p})", "(explain|describe|define) {n}s? (to me|)", "what do you (think|know) (of|about) (the |)({n}s?|{p})", "do you (like|love|hate|want|need|believe in|enjoy) (a |the |some |)({n}s?|{p})", "what is your (favourite|opinion on|view of) ({n}|{n}s)", "what is happening (in {p}|in the {n}|today|now)", "what is (going on|new|the news|the date|the year|the time|today's date|on television|the score)( in {p}| today| now|)", "(who|what) (won|lost|caused|ended|started) (the|) ({n}|war|election|race|{n} in {p})", "(what|which) (day|date|month|year|time) is it( today| now|)", "(name|list|give me) (the |some |three |ten |)({n}s|{n}s of {p}|countries|planets|{a} {n}s)( in {p}|)", "(will it|is it going to|does it) (rain|snow|be sunny|be hot)( tomorrow| today| in {p}|)",
    "in which country is {p}", "by whom was the {n} (invented|made)", "can a {n} {b}", "what language is spoken in {p}", "in what year (did|was) the {n} (end|built)"]
KNOW = [g.replace("s?", "(s|)") for g in KNOW]
CAPITALS = "(What is|Tell me|Do you know|Can you tell me|Please tell me) the (capital|president|history|population|language|king|flag|area|highest mountain|longest river) of {p}"


def unknowable(w, talk):
    """General knowledge, of which it has none, and says so."""
    w.style.new()
    def slots(g):
        n = world_noun(w)
        s = {k: v for k, v in dict(n=n, n2=world_noun(w), p=world_name(w), q=world_name(w), a=w.one(ADJECTIVES), b=w.one(VERBS), d=w.int(0, 9)).items() if "{%s}" % k in g}
        return s
    a = w.r()
    if a < 0.1: g = w.say(CAPITALS); return [(w.style.write("ask", g, p=w.place()), DONT_KNOW, text("don't know"))]
    g = w.say(KNOW)
    return [(w.style.write("ask", g, **slots(g)), DONT_KNOW, text("don't know"))]


DO_NOT = ["(write|compose|make up|invent|tell|give|read)( me| us|) (a|another|a short|a long|a funny|a little) (poem|story|song|letter|essay|email|joke|riddle|fairy tale|haiku|rhyme|speech|novel|limerick|tale|script|review|fable|text|article)( about {n}s?| for {p}| about {p}|)", "(sing|play|draw|paint|show|dance|hum|whistle|act)( me|) (a|some|the|your favourite) (song|music|picture|film|{n}|photo|video|map|game|tune)( of {n}s?| of {p}|)", "translate (the word |the sentence |)({n}|this|{n} and {n2}|it|{b}|I like {n}s) (into|to) (French|German|Spanish|Italian|Russian|Chinese|Latin|Dutch|Greek)", "(how do you say|what is|say) {n} in (French|German|Spanish|Italian|Russian|Chinese|Latin|English|Japanese)", "(write|give me|show me|debug|fix|run) (a |some |the |my |)(Python |Java |C |Rust |)(program|code|function|script|bug|website|app)( that {b}s {n}s| in Python| for me|)", "(open|start|close|install|run|launch|delete|download|update|restart|reboot) (the |my |a |)({n}|browser|file|app|computer|program|window|{n})", "(call|phone|email|text|message|invite|find|kill|meet|visit) (my {n}|{p}|a taxi|the police|the doctor)", "(order|buy|get|bring|make|cook|fetch|sell|book|reserve|fix|wash|clean|repair)( me|) (a |some |the |my )({n}|pizza|ticket|coffee|flight|room|table|hotel|taxi)( for me| to {p}| in {p}|)", "(what is|calculate|compute|work out|how much is) the (square root|cube|square|logarithm|sine|cosine|factorial|half|third|average) of {d}{d}{e}", "(what is|calculate|compute|divide|how much is|) {d}{d}{e} (divided by|/|by|to the power of|squared|percent of|modulo|cubed) {e}", "(what is|calculate|compute|multiply|how much is|) {e}{d}{d} (times|by|x|*|multiplied by) {e}{d}", "(what is|calculate|compute|add|how much is|) {e}{d}{d}{d}{d} (plus|and|+|minus|-|times) {e}{d}{d}{d}{d}?", "(summarise|shorten|rewrite|translate|correct|proofread|improve|analyse|check) (this|my|the) (text|letter|essay|sentence|email|story|code|book|article)( for me|)", "(recommend|suggest)( me|) (a |some |)({n}|book|film|restaurant|recipe|song|place to visit|present|name for my {n})", "what should I (do|eat|cook|wear|buy|read|watch|say|name my {n}|call my {n})( today| tomorrow| now| for dinner|)", "(give me|I need|do you have)( some| any|) (advice|ideas|a recipe|tips|help with my {n}|a recipe for {n}|an idea)( about {n}s?|)", "(flip|toss|roll|throw) (a |)(coin|dice|die)", "(what rhymes|find a word that rhymes|give me a rhyme) with {n}", "what is (a synonym|another word|the opposite|the plural|a rhyme|the past tense) (of|for) ({n}|{a}|{b})", "(pick|choose|guess|think of) a (number|card|word|colour|{n})( between 1 and 10{d}?|)", "(search|google|look up|browse) (the |)(web|internet|news|{n}|{n}s|{p})( for {n}s?| online|)", "(remind|wake) me (to {b} the {n}|tomorrow|at {e}|in an hour)", "(play|let us play) (a game|chess|hangman|tic-tac-toe|cards|{n})( with me|)", "(help me|teach me|show me)( to| how to|) {b} (a |the |my |)({n}|{n}s|{n} of {p})", "(teach|tell) me (French|German|to {b}|how to {b} a {n}|maths|how to cook {n})", "(solve|prove|explain|finish|do) (this|my|the) (equation|theorem|homework|puzzle|riddle|{n}|exercise)", "(turn|switch) (on|off|up|down) the {n}", "(predict|tell me) (the future|my fortune|the lottery numbers|what will happen to {p})", "(say|speak|talk|answer|reply) (in|like) (French|German|Spanish|a pirate|a {n}|Latin|Chinese|a child)", "(pretend|imagine) (to be|you are) (a|an|my) (pirate|{n}|{a} {n}|doctor|{p})", "compose some lines on {n}s", "(entertain|amuse) me( a bit|)", "{e}{d}{d} over {e}"]
DO_NOT = [g.replace("s?", "(s|)").replace("{d}?", "({d}|)") for g in DO_NOT]


def impossible(w, talk):
    """A task that it was not taught, and says so."""
    w.style.new()
    g = w.say(DO_NOT)
    slots = {k: f() for k, f in dict(n=lambda: world_noun(w), n2=lambda: world_noun(w), p=lambda: world_name(w), a=lambda: w.one(ADJECTIVES), b=lambda: w.one(VERBS), d=lambda: w.int(0, 9), e=lambda: w.int(2, 9)).items() if "{%s}" % k in g}
    return [(w.style.write("do" if g[0].islower() and not g.startswith(("what", "how", "do ")) else "ask", g, **slots), CANNOT, text("can't"))]


def unclear(w, talk):
    """Nothing that could be answered."""
    a = w.r()
    if a < 0.35: u = " ".join(w.mine(w.string) for _ in range(w.int(1, 3)))
    elif a < 0.6: u = world_noun(w)
    elif a < 0.8: u = f"{w.one(ADJECTIVES)} {world_noun(w)}" if w.r() < 0.5 else f"{world_noun(w)} {w.one(VERBS)} {world_noun(w)}"
    else: u = w.one(["?", "??", "...", "!!!", "-", "xxx", "test", "abc", "qwerty", "huh", "what", "hmm", "???", "eh", "uh", ":)", ";)"])
    w.style.new()
    return [(w.style.write("say", "{u}", u=u) + w.one(["", "", "", "?", "."]), UNCLEAR, text("don't understand"))]
