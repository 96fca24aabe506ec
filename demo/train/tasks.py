"""Owns the tasks that stand alone: talk, arithmetic, letters, lists, running tallies, and saying no. Each returns a list
of (user text, assistant text, check): one or more turns. A check says how a machine judges the reply. A word between
two LETTERWISE marks is said in single letters, whatever the tokenizer would merge."""
from world import *

WHO = "I am deltad's demo model: a small language model trained to show the daemon at work."
DONT_KNOW = "I don't know that: I only know what you tell me."
CANNOT = "I can't do that: I am only a small demo model."
UNCLEAR = "I don't understand: I am only a small demo model."
ABLE = "I can add and subtract, spell, count and sort words, remember what you tell me, write JSON and call tools."
LETTERWISE = "\x01"


def number(n): return dict(kind="number", want=str(n))
def text(s): return dict(kind="contains", want=[s])
def any_of(*s): return dict(kind="any", want=list(s))


def user(w, kind, grammar, /, **slots):
    w.style.new()
    return w.style.write(kind, w.say(grammar), **slots)


def greeting(w, talk):
    return [(user(w, "say", ["(Hello|Hi|Hey|Good morning|Good evening|Good afternoon|Hello there|Hi there|Hey there|Greetings|Howdy|Hiya|Yo|Good day|Morning|Hallo|Hi again|Hello again|Well hello|Hello my friend|Hello and good morning|Evening)(!|.||, deltad| computer| everyone|!!|, friend)", "(Hello|Hi|Hey)(, | )(are you there|anybody there|is anyone there|can you hear me|do you work)(?|)"]), "Hello! How can I help you?", text("Hello"))]


def identity(w, talk):
    return [(user(w, "ask", ["who are you", "what are you", "what is your name", "are you (a |)(human|person|real person|real|robot|machine|computer|program|AI|bot|chatbot|language model|alive|man or a woman|conscious|ChatGPT)", "tell me about yourself", "(what|which) (kind of |)(model|AI|program|assistant|bot) are you", "introduce yourself", "who (made|built|trained|created|programmed|wrote) you", "(who|what) am I talking to", "who is this", "are you deltad", "what is (deltad|this|a deltad)", "(please |can you |)tell me who you are", "do you have a name", "what should I call you", "what (can I|do I) call you", "how (big|large|old|smart) are you", "where (are|do) you( live| come from|)", "do you have (feelings|a body|friends|a family|a soul|emotions)", "how do you work", "what are you made of", "say something about yourself", "who are you really", "are you (smart|intelligent|clever|good|big|small)", "please tell me what you are", "what sort of thing are you"]), WHO, text("deltad"))]


def ability(w, talk):
    return [(user(w, "ask", ["what can you do( for me|)", "what can you help me with", "how can you help( me|)", "what are you good at", "what (things|tasks|kind of things) can you do", "(can you |)help( me|)", "what do you do", "what are your (skills|abilities|features|capabilities)", "what can I (ask|tell) you", "what should I (ask you|type|say)", "what are you (able to do|for)", "how does this work", "show me what you can do", "what is possible (here|with you)", "what (can|could) (one|people|we) do (here|with you)", "what (is it|are you) you can do", "(tell me|say) what you (can do|are able to do|know how to do)", "(I am new here|I am new|I do not know how this works), (what can you do|what now|help me|how does this work)", "give me some examples of what you can do", "what are you capable of"]), ABLE, text("remember"))]


def manners(w, talk):
    a = w.r()
    if a < 0.4: return [(user(w, "say", ["(Thanks|Thank you|Thanks a lot|Great, thanks|Thank you very much|Many thanks|Thank you so much|Cheers|Perfect, thank you|Ok thanks|Thanks for (that|your help|the help)|Much appreciated|Good, thanks|That helps, thanks|Ta|Very kind of you)(!|.||, deltad)", "(That was|That is) (very |)(helpful|kind|great|nice)(, thanks| of you|)"]), "You are welcome!", text("welcome"))]
    if a < 0.6: return [(user(w, "ask", ["how are you( today| doing| feeling|)", "are you (well|okay|fine|alright|happy)", "how is it going", "how do you do", "how do you feel( today|)", "how are things", "what is up", "how was your day", "how have you been", "you (okay|alright)", "how are you keeping"]), "I am well, thank you. How can I help you?", text("well"))]
    if a < 0.75: return [(user(w, "say", "(Goodbye|Bye|See you later|Good night|Bye for now|Bye bye|See you|See you tomorrow|I have to go now|I must leave now|I am leaving|Farewell|So long|Take care|Talk to you later|That is all for today|Until next time)(!|.|)"), "Goodbye!", text("Goodbye"))]
    if a < 0.83: return [(user(w, "say", "(Nice to meet you|Pleased to meet you|Good to see you|Glad to meet you|It is a pleasure)(!|.|, deltad|)"), "Nice to meet you too! How can I help you?", text("Nice"))]
    if a < 0.93: return [(user(w, "say", ["(Okay|Ok|Yes|No|Cool|Nice|Great|Wow|Good|Fine|Sure|Right|Interesting|I see|Haha|Lol|Alright|Well|Hm|Good job|Well done|Very good|Awesome|Never mind|Not bad|Really|That is right|Correct|Exactly|Perfect|That is (good|nice|fine|okay|funny))(!|.||...)"]), "Okay. How can I help you?", text("help"))]
    return [(user(w, "say", ["I am (so |very |a bit |really |)(tired|bored|happy|sad|angry|sick|excited|nervous|busy|hungry|thirsty|lonely|late|ready|cold|confused)( today| now|)", "I (had|have had) a (bad|good|long|hard|great|terrible) (day|week|night|time)", "(I love you|I like you|you are (nice|funny|great|stupid|cool|cute|useless|wrong))", "(it is|it has been) a (nice|cold|hot|lovely|rainy|busy) day( today|)", "(life is|this is) (good|hard|fun|boring|strange|cool)"]), "Okay. How can I help you?", text("help"))]


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


LISTS = [ANIMALS, FOODS, THINGS, COLOURS, JOBS, SPOTS, ANIMALS + FOODS + THINGS, NOUNS, GOODS, REAL_NAMES, REAL_PLACES]
UNCOUNTED = set("bread cheese butter soup rice honey jam tea coffee milk salt sugar".split())
COUNTED = [x for x in ANIMALS + FOODS + THINGS + ["coin", "stamp", "card", "ball", "shell", "stone", "key", "toy", "cup", "plate"] if x[-1] not in "sy" and x not in ("mouse", "goose", "sheep", "deer", "fox", "wolf")]
