"""Owns remembering: facts told, changed, hidden in prose, asked for at any distance, and the honest "I don't know".

A relation has frames to tell it, clauses to ask for it ("where <S> live<s>"), direct questions, and the sentence that
states it. <S> is who it is about and <P> whose it is; <B>, <H>, <D>, <s> and <es> agree with them. {k} is what the
relation leaves open (whose *bike* is where), {v} the value."""
from world import *
from voice import OPEN, SHUT, down

ME, YOU = dict(S="I", P="my", B="am", H="have", D="do", s="", es=""), dict(S="you", P="your", B="are", H="have", D="do", s="", es="")
AGREE = dict(B="is", H="has", D="does", s="s", es="es")


def person(holder, you, write):
    """The words for a holder, in the user's mouth or (you) in ours."""
    if holder == "my": return YOU if you else ME
    if holder.startswith("my "): who = ("your " if you else "my ") + holder[3:]
    else: who = write(holder)
    return dict(S=who, P=who + "'s", **AGREE)


def fill(frame, p):
    for k, v in p.items(): frame = frame.replace(f"<{k}>", v)
    return frame


def where_value(w):
    a = w.r()
    if a < 0.5: return "in " + w.place()
    if a < 0.8: return w.one(["in the ", "in the ", "at the ", "near the ", "behind the "]) + w.one(SPOTS)
    return w.one(["under the ", "on the ", "next to the ", "in the ", "behind the ", "on top of the "]) + (w.one("table desk bed sofa shelf cupboard drawer stairs door window wardrobe".split()) if w.r() < 0.7 else w.item())


def when_value(w):
    a = w.r()
    if a < 0.25: return "on " + w.one(DAYS)
    if a < 0.5: return "at " + w.time()
    if a < 0.75: return f"on {w.one(DAYS)} at {w.time()}"
    if a < 0.9: return "on " + w.date() if w.r() < 0.6 else "in " + w.one(MONTHS)
    return w.one(["tomorrow", "next week", "tonight", "tomorrow morning", "this afternoon", "next month", "in two weeks", "the day after tomorrow", "on the weekend", "tomorrow at " + w.time()])


def code_name(w):
    if w.r() < 0.6: return w.one("locker code|room number|lucky number|phone extension|badge number|bus number|door code|flight number|password|wifi password|pin|alarm code|seat number|house number|customer number|order number|phone number|ticket number|shoe size|account number|gate code|bike lock code|student number|username|licence plate|parking spot|nickname|case number|post code|safe combination|table number|platform number|locker number|membership number|ring size|bank pin|email password".split("|"))
    return w.item().split()[-1] + " " + w.one("code number password pin id key name label combination".split())


def code_value(w, k):
    if k.split()[-1] in ("password", "username", "nickname", "name", "label"): return w.made_word() if w.r() < 0.8 else w.made_word() + str(w.number(2))
    if k.split()[-1] in ("plate", "id", "spot", "key") and w.r() < 0.6: return "".join(w.one("ABCDEFGHJKLMNPRSTUVWXYZ") for _ in range(w.int(1, 3))) + w.one(["", "-", " "]) + str(w.number(w.int(2, 4)))
    return w.code()


FAVOURITE = dict(colour=lambda w: w.one(COLOURS), food=lambda w: w.one(FOODS), animal=lambda w: w.one(ANIMALS), number=lambda w: w.number(2), city=lambda w: w.place(), fruit=lambda w: w.one(FOODS[:7] + ["peach", "mango"]), drink=lambda w: w.one("tea coffee milk water juice beer wine cocoa lemonade".split()),
    season=lambda w: w.one("spring summer autumn winter".split()), month=lambda w: w.one(MONTHS), day=lambda w: w.one(DAYS), sport=lambda w: w.one(SPORTS), book=lambda w: "The " + w.one(ADJECTIVES).capitalize() + " " + w.one(NOUNS).capitalize(), film=lambda w: w.made_word().capitalize(), band=lambda w: w.made_word().capitalize(),
    singer=lambda w: w.name(), word=lambda w: w.made_word(), subject=lambda w: w.one(SUBJECTS), flower=lambda w: w.one("rose tulip lily daisy orchid violet".split()), vegetable=lambda w: w.one("carrot onion potato tomato pepper spinach".split()), game=lambda w: w.one(SPORTS), instrument=lambda w: w.one(INSTRUMENTS), tree=lambda w: w.one("oak elm ash pine birch willow".split()), planet=lambda w: w.made_word().capitalize(), toy=lambda w: w.item(), actor=lambda w: w.name(), place=lambda w: w.place())
PAST = dict(eat="ate", buy="bought", see="saw", find="found", lose="lost", read="read", watch="watched", paint="painted", repair="repaired", cook="cooked", sell="sold", order="ordered", break_="broke", bake="baked", draw="drew", borrow="borrowed", plant="planted", drink="drank", build="built", forget="forgot")
GO = "flying travelling driving moving going walking cycling sailing".split()


def thing_done(w):
    a = w.r()
    return (w.one(["a ", "a ", "the ", "my ", "some ", "two ", "three "]) if a < 0.7 else f"{w.int(2, 40)} ") + (w.item() if w.r() < 0.5 else w.one(FOODS + GOODS))


class Relation:
    def __init__(self, tell, clause, ask, state, value, k=None, who=("my", "kin", "name"), yes=None):
        self.tell, self.clause, self.ask, self.state, self.value, self.k, self.who, self.yes = tell, clause, ask, state, value, k, who, yes
        self.neg = plainest(clause)


def plainest(clause):
    """The plainest clause: the first alternative everywhere."""
    from voice import parse
    seq = parse(clause[0])[0][0]
    return "".join(p if isinstance(p, str) else "".join(p[0]) for p in seq)


V = lambda draw: lambda w, k: draw(w)
R = {
    "name": Relation(["(My name is|I am|I am called|People call me|Call me|You can call me|Everyone calls me|They call me|This is|I go by|My friends call me|The name is|You may call me|My first name is|I go by the name|My name would be) {v}", "{v} is my name", "{v} here", "I am {v}, (nice to meet you|pleased to meet you|by the way|hello)", "(Hello|Hi|Hey|Good morning), (I am|my name is|it is me,|this is|I am called) {v}", "my name is {v}, what is yours", "(Do you know|Guess) what, (my name is|I am called) {v}"],
        ["what (my name is|I am called)", "who I am", "my name", "what I said my name was"], ["what is my name", "who am I", "what am I called", "what was my name( again|)", "what do people call me", "(do|can) you remember (my name|who I am)", "(do you know|have you forgotten|did you forget) my name"], "your name is {v}", V(lambda w: w.name()), who=("my",), yes="is my name {v}"),
    "live": Relation(["<S> live<s> in {v}", "<P> (home|house|flat|apartment|home town) is in {v}", "<S> <B> living in {v}( now| these days|)", "<S> moved to {v}( last year| recently|)", "<S> <H> a (house|flat|room|place|home) in {v}", "{v} is where <S> live<s>", "<S> <B> (staying|based|settled) in {v}", "<S> live<s> in a (town|city|village|place) called {v}", "<S> reside<s> in {v}"],
        ["where <S> live<s>", "(which|what) (town|city|place|village) <S> live<s> in", "where <P> (home|house|flat) is", "where <S> <B> living"], ["where <D> <S> live", "in (which|what) (town|city|place) <D> <S> live", "(which|what) (town|city|place) <D> <S> live in", "where is <P> (home|house|flat)", "where <B> <S> living", "what is <P> (home town|town|city)"], "<S> live<s> in {v}", V(lambda w: w.place()), yes="<D> <S> live in {v}"),
    "from": Relation(["<S> <B> from {v}", "<S> come<s> from {v}", "<S> <B> originally from {v}", "<S> (was born|grew up) in {v}", "{v} is where <S> come<s> from"],
        ["where <S> <B> from", "where <S> come<s> from", "where <S> grew up"], ["where <B> <S> from", "where <D> <S> come from", "where did <S> grow up", "(which|what) (town|city|country|place) <B> <S> from"], "<S> <B> from {v}", V(lambda w: w.place()), yes="<B> <S> from {v}"),
    "job": Relation(["<S> work<s> as a {v}", "<S> <B> a {v}( by trade| by profession|)", "<P> (job|profession|occupation) is {v}", "<S> earn<s> <X> living as a {v}", "<S> got a job as a {v}", "<S> started working as a {v}", "<P> job is being a {v}", "<S> make<s> money as a {v}"],
        ["what <S> work<s> as", "what <P> (job|profession|occupation) is", "what <S> <D> for a living", "<P> (job|profession)"], ["what <D> <S> work as", "what is <P> (job|profession|occupation|work)", "what <D> <S> do for a living", "what kind of work <D> <S> do", "what <D> <S> do"], "<S> work<s> as a {v}", V(lambda w: w.one(JOBS))),
    "work": Relation(["<S> work<s> (at|for) {v}", "<P> (employer|company) is {v}", "<S> <H> a job at {v}", "<S> <B> employed at {v}"],
        ["where <S> work<s>", "who <S> work<s> for", "which company <S> work<s> for"], ["where <D> <S> work", "who <D> <S> work for", "which company <D> <S> work for", "who is <P> employer"], "<S> work<s> for {v}", V(lambda w: w.made_word().capitalize() + (w.one([" and Sons", " Ltd", " Labs", " Bank"]) if w.r() < 0.3 else ""))),
    "age": Relation(["<S> <B> {v} years old", "<S> <B> {v}( now|)", "<P> age is {v}", "<S> (just|) turned {v}( last week| yesterday| this year|)", "<S> <B> {v} years of age"],
        ["how old <S> <B>", "<P> age", "what <P> age is"], ["how old <B> <S>", "what is <P> age", "how many years old <B> <S>"], "<S> <B> {v} years old", V(lambda w: w.number(2)), yes="<B> <S> {v}( years old|)"),
    "tall": Relation(["<S> <B> {v} cm tall", "<P> height is {v} cm", "<S> measure<s> {v} cm"], ["how tall <S> <B>", "<P> height"], ["how tall <B> <S>", "what is <P> height"], "<S> <B> {v} cm tall", V(lambda w: w.number(3)), who=("my", "name", "kin")),
    "like": Relation(["<S> (really |) (like|love|enjoy|adore)<s> {v}", "<S> <B> (a fan of|fond of|into|crazy about) {v}", "what <S> like<s> is {v}"],
        ["what <S> like<s>", "what <S> <B> fond of", "what <S> love<s>"], ["what <D> <S> like", "what <D> <S> (enjoy|love)", "what <B> <S> (fond of|into)"], "<S> like<s> {v}", V(lambda w: w.one(FOODS + SPORTS + ["jazz", "music", "films", "gardening", "painting", "trains"]) if w.r() < 0.8 else w.made_word())),
    "hate": Relation(["<S> (hate|dislike)<s> {v}", "<S> cannot stand {v}", "<S> <D> not like {v}"], ["what <S> (dislike|hate)<s>", "what <S> <D> not like"], ["what <D> <S> (hate|dislike)", "what <D> <S> not like"], "<S> dislike<s> {v}", V(lambda w: w.one(FOODS + ANIMALS + SKIES))),
    "allergic": Relation(["<S> <B> allergic to {v}", "<S> <H> an allergy to {v}", "<S> cannot eat {v}", "<P> allergy is {v}"], ["what <S> <B> allergic to", "<P> allergy"], ["what <B> <S> allergic to", "what is <P> allergy", "what can <S> not eat"], "<S> <B> allergic to {v}", V(lambda w: w.one(FOODS + ANIMALS))),
    "drive": Relation(["<S> drive<s> a {v}", "<P> car is a {v}", "<S> (bought|got|own<s>) a {v} (car|van)"], ["what car <S> drive<s>", "what <S> drive<s>", "what <P> car is"], ["what (car|) <D> <S> drive", "what kind of car <D> <S> (have|drive)", "(which|what) is <P> car"], "<S> drive<s> a {v}", V(lambda w: w.made_word().capitalize())),
    "speak": Relation(["<S> speak<s> {v}", "<P> (native language|mother tongue|language) is {v}", "<S> can speak {v}"], ["(what|which) language <S> speak<s>", "what <S> speak<s>"], ["(what|which) language <D> <S> speak", "what <D> <S> speak", "what is <P> (native language|mother tongue|language)"], "<S> speak<s> {v}", V(lambda w: w.one(LANGUAGES))),
    "play": Relation(["<S> play<s> (the |){v}( every week| on Sundays|)", "<S> can play the {v}", "<S> <B> learning the {v}", "<P> instrument is the {v}"], ["what instrument <S> play<s>", "what <S> play<s>"], ["(what|which) instrument <D> <S> play", "what <D> <S> play"], "<S> play<s> the {v}", V(lambda w: w.one(INSTRUMENTS))),
    "study": Relation(["<S> study {v}", "<S> <B> (studying|a student of) {v}", "<P> (subject|major) is {v}"], ["what <S> <B> studying", "<P> (subject|major)"], ["what <D> <S> study", "what <B> <S> studying", "what is <P> (major|subject)"], "<S> <B> studying {v}", V(lambda w: w.one(SUBJECTS))),
    "birthday": Relation(["<P> birthday is (on |in |){v}", "<S> was born (on|in) {v}", "<S> celebrate<s> <P> birthday on {v}", "<P> birth month is {v}"], ["when <P> birthday is", "when <S> was born", "<P> (birthday|birth month|date of birth)"], ["when is <P> birthday", "when was <S> born", "what is <P> (birthday|birth month)", "on what day is <P> birthday"], "<P> birthday is {v}", V(lambda w: w.date())),
    "favourite": Relation(["<P> (favourite|favourite|best-loved|preferred) {k} is {v}", "{v} is <P> favourite {k}", "the {k} <S> (like|love)<s> (best|most) is {v}", "<P> favourite {k} of all is {v}", "as for <P> favourite {k}, it is {v}", "of all, {v} is the {k} <S> prefer<s>"],
        ["what <P> favourite {k} is", "<P> favourite {k}", "(what|which) {k} <S> like<s> (best|most)"], ["what is <P> favourite {k}", "(what|which) {k} <D> <S> like (best|most)", "what {k} <D> <S> prefer", "which is <P> favourite {k}", "what was <P> favourite {k}( again|)"], "<P> favourite {k} is {v}", lambda w, k: FAVOURITE[k](w), k=lambda w: w.one(list(FAVOURITE)), yes="is <P> favourite {k} {v}"),
    "pet": Relation(["<P> {k} is (called|named) {v}", "<P> {k}'s name is {v}", "the name of <P> {k} is {v}", "<S> <H> a {k} (called|named) {v}", "<S> <H> a {k}, (its name is|it is called) {v}", "<S> call<s> <P> {k} {v}", "{v} is <P> {k}", "{v} is the name of <P> {k}", "<P> {k} goes by the name of {v}"],
        ["what <P> {k} is called", "the name of <P> {k}", "<P> {k}'s name", "what <P> {k}'s name is"], ["what is <P> {k} called", "what is the name of <P> {k}", "what is <P> {k}'s name", "what (did <S> call <P> {k}|was <P> {k} called)", "who is <P> {k}", "what <D> <S> call <P> {k}"], "<P> {k} is called {v}", V(lambda w: w.name() if w.r() < 0.8 else w.place()), k=lambda w: w.one(PETS + ["boat", "hotel", "car", "ship", "school", "street", "shop"]), yes="is <P> {k} called {v}"),
    "kin": Relation(["<P> {k} is (called|named) {v}", "<P> {k} is {v}", "<P> {k}'s name is {v}", "the name of <P> {k} is {v}", "<S> <H> a {k} (called|named) {v}", "{v} is <P> {k}", "<P> {k}, {v}, (says hi|is here|called me)", "{v} is what <P> {k} is called"],
        ["what <P> {k} is called", "who <P> {k} is", "the name of <P> {k}", "<P> {k}'s name"], ["who is <P> {k}", "what is <P> {k} called", "what is <P> {k}'s name", "what is the name of <P> {k}", "what was <P> {k}'s name( again|)"], "<P> {k} is called {v}", V(lambda w: w.name()), k=lambda w: w.one(RELATIVES + FOLK + ["best friend", "best friend", "little brother", "big sister", "older brother", "youngest daughter"]), yes="is <P> {k} called {v}"),
    "count": Relation(["<S> <H> {v} {k}", "<S> own<s> {v} {k}", "<S> <H> got {v} {k}( at home|)", "there are {v} {k} in <P> (house|garden|room|bag)", "<S> (keep|collect)<s> {v} {k}"],
        ["how many {k} <S> <H>", "the number of <P> {k}"], ["how many {k} <D> <S> have", "how many {k} <D> <S> own", "how many {k} <H> <S> got"], "<S> <H> {v} {k}", V(lambda w: w.int(2, 99)), k=lambda w: w.one("chickens cats dogs sisters brothers books bikes cars children cows sheep goats plants chairs hats shoes coins stamps keys phones lamps friends cousins guitars pens pencils horses rabbits fish computers windows rooms tables bottles boats cups plates".split()), yes="<D> <S> have {v} {k}"),
    "code": Relation(["<P> {k} is {v}", "the {k} is {v}", "{v} is <P> {k}", "<S> set<s> <P> {k} to {v}", "<P> (new |){k} is {v}", "<P> {k}: {v}", "<S> chose {v} as <P> {k}", "for <P> {k} <S> use<s> {v}", "as <P> {k} <S> picked {v}"],
        ["what <P> {k} is", "<P> {k}", "the {k}", "what <S> said about <P> {k}"], ["{k}", "(and |)<P> {k}", "what is <P> {k}", "what was <P> {k}( again|)", "(what|which) {k} <D> <S> have", "what is the {k}", "which is <P> {k}"], "<P> {k} is {v}", code_value, k=code_name, who=("my", "my", "kin", "name"), yes="is <P> {k} {v}"),
    "place": Relation(["<P> {k} is {v}", "<P> {k} is (kept|stored|parked|hidden|stuck|lying|sitting|locked up|now) {v}", "<S> (keep|store)<s> <P> {k} {v}", "<S> (left|put|parked|hid|forgot|dropped|placed) <P> {k} {v}", "<S> (have|had) <P> {k} {v}", "you will find <P> {k} {v}", "the {k} is {v}", "<P> {k} can be found {v}", "<P> {k} stands {v}"],
        ["where <P> {k} is", "where <S> (left|put|parked|keep<s>) <P> {k}", "where the {k} is", "where <P> {k} can be found"], ["where is <P> {k}", "(and |)<P> {k}, where is (it|that)", "(and |)where are <P> {k}", "(has anyone seen|have you seen|where is) <P> {k}", "where did <S> (leave|put|park|hide|place) <P> {k}", "where <D> <S> keep <P> {k}", "where can I find <P> {k}", "where is the {k}", "in what place is <P> {k}", "where was <P> {k}( again|)"], "<P> {k} is {v}", V(where_value), k=lambda w: w.item(), who=("my", "my", "my", "kin", "name"), yes="is <P> {k} {v}"),
    "colour": Relation(["<P> {k} is {v}", "<P> {k} (has the colour|is painted) {v}", "<S> <H> a {v} {k}", "<S> painted <P> {k} {v}", "the colour of <P> {k} is {v}", "<P> {k} is {v} (in colour|all over)"],
        ["what colour <P> {k} is", "the colour of <P> {k}", "<P> {k}'s colour"], ["what colour is <P> {k}", "what is the colour of <P> {k}", "which colour (is|has) <P> {k}", "what colour does <P> {k} have"], "<P> {k} is {v}", V(lambda w: w.one(COLOURS)), k=lambda w: w.one(GOODS) if w.r() < 0.75 else w.made_word(), who=("my", "my", "kin", "name"), yes="is <P> {k} {v}"),
    "event": Relation(["<P> {k} is {v}", "<S> <H> a {k} {v}", "the {k} is {v}", "<P> {k} (starts|begins|takes place) {v}", "{v} <S> <H> a {k}", "there is a {k} {v}", "<P> {k} was moved to {v}", "{v} is when <P> {k} starts", "<P> {k} time is {v}"],
        ["when <P> {k} is", "when the {k} is", "the time of <P> {k}", "when <P> {k} (starts|begins|takes place)"], ["when is <P> {k}", "when is the {k}", "what time is <P> {k}", "when does <P> {k} (start|begin)", "what day is <P> {k}", "when <D> <S> have <P> {k}", "at what time is <P> {k}"], "<P> {k} is {v}", V(when_value), k=lambda w: w.one(EVENTS), who=("my", "my", "my", "kin", "name")),
    "did": Relation(["<S> {p} {v}( today| yesterday| this morning| last night| on Monday|)", "(today|yesterday|this morning|last week) <S> {p} {v}"], ["what <S> {p}", "what it was that <S> {p}"], ["what did <S> {k}( today| yesterday| this morning| last night|)", "what was it that <S> {p}"], "<S> {p} {v}", V(thing_done), k=lambda w: w.one(list(PAST)).rstrip("_")),
    "met": Relation(["<S> met {v}( today| yesterday|)", "(today|yesterday) <S> met {v}"], ["who <S> met"], ["who did <S> meet( today| yesterday|)", "whom did <S> meet"], "<S> met {v}", V(lambda w: w.name())),
    "visited": Relation(["<S> (visited|went to|was in|travelled to) {v}( last year| last summer| yesterday|)"], ["where <S> went", "which place <S> visited"], ["where did <S> go( last year| last summer|)", "(which|what) (city|place|town) did <S> visit", "what did <S> visit"], "<S> visited {v}", V(lambda w: w.place())),
    "go": Relation(["<S> <B> {k} to {v}( tomorrow| next week| on Friday| soon|)", "<S> will be {k} to {v}", "(tomorrow|next week|soon) <S> <B> {k} to {v}", "<S> plan<s> on {k} to {v}"], ["where <S> <B> {k}( to|)"], ["where <B> <S> {k}( to|)", "to which (place|city|town) <B> <S> {k}"], "<S> <B> {k} to {v}", V(lambda w: w.place()), k=lambda w: w.one(GO)),
    "of": Relation(["the {k} of <S> is {v}", "<P> {k} is {v}", "{v} is the {k} of <S>", "the {k} that belongs to <S> is {v}"], ["what the {k} of <S> is", "<P> {k}", "the {k} of <S>"], ["what is the {k} of <S>", "what is <P> {k}", "tell me the {k} of <S>", "what {k} <H> <S>"], "the {k} of <S> is {v}", lambda w, k: OF[k](w), k=lambda w: w.one(list(OF)), who=("the",), yes="is the {k} of <S> {v}"),
    "head": Relation(["the {k} of <S> is {v}", "<P> {k} is {v}", "{v} is the {k} of <S>"], ["who the {k} of <S> is", "the {k} of <S>"], ["who is the {k} of <S>", "who is <P> {k}", "what is the {k} of <S> called"], "the {k} of <S> is {v}", V(lambda w: w.name()), k=lambda w: w.one("mayor king queen president captain owner chief director leader founder".split()), who=("place",), yes="is {v} the {k} of <S>"),
    "price": Relation(["the {k} (costs|cost|is worth) {v} euros", "<S> (paid|spent) {v} euros (for|on) the {k}", "the price of the {k} is {v} euros"], ["how much the {k} costs", "the price of the {k}", "what the {k} costs"], ["how much (is|does) the {k}( cost|)", "what does the {k} cost", "what is the price of the {k}", "how much did I pay for the {k}"], "the {k} costs {v} euros", V(lambda w: w.int(2, 999)), k=lambda w: w.item(), who=("my",)),
    "owner": Relation(["the {k} belongs to {v}", "the {k} is {v}'s", "{v} owns the {k}", "{v} is the owner of the {k}", "the owner of the {k} is {v}"], ["who owns the {k}", "whose {k} it is", "who the {k} belongs to"], ["who owns the {k}", "whose {k} is (it|that)", "who does the {k} belong to", "whose is the {k}", "who is the owner of the {k}"], "the {k} belongs to {v}", V(lambda w: w.name()), k=lambda w: w.item(), who=("my",), yes="does the {k} belong to {v}"),
}
OF = {"code": lambda w: w.number(4), "number": lambda w: w.number(3), "owner": lambda w: w.name(), "colour": lambda w: w.one(COLOURS), "opening time": lambda w: w.clock(), "name": lambda w: w.name(), "address": lambda w: f"{w.int(1, 99)} {w.place()} Street", "height": lambda w: w.number(2), "password": lambda w: w.made_word(), "closing time": lambda w: w.clock(), "keeper": lambda w: w.name()}
WEIGHT = dict(name=4, live=3, place=9, code=9, pet=5, kin=5, favourite=5, event=6, colour=4, of=6)
NAMES, SHARES = list(R), [WEIGHT.get(n, 2) for n in R]


class Facts:
    """What one conversation knows: (relation, holder, k) -> value as it was typed. A holder is "my", "my sister",
    "Nora", "the shed" or a place."""

    def __init__(self): self.known, self.last = {}, None

    def clash(self, key):
        """Another fact would make the question ambiguous ("where is the bike", "who is my boss")."""
        rel, holder, k = key
        return key in self.known or any(key2[2] == k and k and (key2[1] == holder or {key2[1], holder} & {"my"} and rel in ("place", "event", "code", "price", "owner")) and key2[0] != "did" for key2 in self.known)

    def fresh(self, w):
        for _ in range(40):
            rel = w.rng.choices(NAMES, SHARES)[0]; r = R[rel]
            who = w.one(r.who)
            holder = {"my": "my", "kin": "my " + w.one(RELATIVES + FOLK), "name": "", "the": "the " + (w.one(COLOURS) + " " if w.r() < 0.3 else "") + (w.one(SPOTS) if w.r() < 0.8 else w.made_word()), "place": ""}[who] if who not in ("name", "place") else w.name() if who == "name" else w.place()
            key = (rel, holder, r.k(w) if r.k else "")
            if not self.clash(key): return key
        return ("code", w.name(), w.made_word() + " number")

    def draw(self, w, key):
        """A value that differs from the present one."""
        while True:
            v = str(R[key[0]].value(w, key[2]))
            if self.known.get(key) != v: return v


def extra(key): return dict(p=PAST.get(key[2]) or PAST.get(key[2] + "_", "")) if key[0] == "did" else {}


def frame_of(w, frames, key):
    """"the bike" alone is mine: of nobody else's things one speaks so."""
    while True:
        f = w.say(frames)
        if key[1] == "my" or key[1][:4] == "the " or "<P>" in f or "<S>" in f: return f


def put(w, kind, frame, key, v=None):
    """A frame in the user's mouth, in the style of the moment."""
    p = person(key[1], False, lambda h: OPEN + w.style.value(h) + SHUT)
    if key[1][:4] != "the " and key[1] != "my" and w.r() < 0.6:
        at = frame.find("<S>")
        if at >= 0: frame = frame[:at] + frame[at:].replace("<P>", w.one(["his", "her"]))
    frame = fill(frame, p).replace("<X>", "my" if key[1] == "my" else "a")
    for k, x in extra(key).items(): frame = frame.replace("{%s}" % k, x)
    slots = {}
    if "{k}" in frame: slots["k"] = key[2]
    if "{v}" in frame: slots["v"] = v
    return w.style.write(kind, frame, **slots)


def said(key, v=None, style=None, clause=False):
    """The sentence (or the clause) that we say of it, without a stop. The subject as the user typed it in this message."""
    low = style.value if style else (lambda x: x)
    frame = fill(R[key[0]].neg if clause else R[key[0]].state, person(key[1], True, low))
    for k, x in extra(key).items(): frame = frame.replace("{%s}" % k, x)
    return frame.replace("{k}", low(key[2])).replace("{v}", str(v))


def cap(s): return s[0].upper() + s[1:]
def state(key, v):
    """The bare sentence, as prose tells it."""
    p = person(key[1], False, lambda h: h); frame = fill(R[key[0]].state if key[0] != "name" else "my name is {v}", p)
    for k, x in extra(key).items(): frame = frame.replace("{%s}" % k, x)
    return frame.replace("{k}", key[2]).replace("{v}", str(v))


def holds(key, v):
    v = str(v)
    for lead in ("in the ", "at the ", "in ", "on ", "at "):
        if key[0] in ("place", "event", "did") and v.startswith(lead): v = v[len(lead):]; break
    return dict(kind="contains", want=[v])


ASKING = "(Do you know|Can you tell me|Tell me|Remind me|Please tell me|Do you remember|Could you tell me|I want to know|I forgot|I cannot remember|I have forgotten|Can you remind me|Could you remind me|Please remind me|Would you tell me|Say|Do you happen to know|I need to know|Any idea|Can you remember|Did I tell you|Have I told you|Do you recall|I would like to know|~Please can you say|You surely know|Be so kind and tell me) "


def question(w, key):
    r = R[key[0]]; w.style.new()
    a = w.r()
    if a < 0.6: return put(w, "ask", frame_of(w, r.ask, key), key)
    if a < 0.66: return put(w, "say", w.say(["<c>(?| please| again?|)", "(Uh, |Um, |Oh, |Sorry, |)(I forgot|I cannot remember|I have forgotten|I do not remember|I do not know) <c>(. What was it?|, what is it again?|, can you tell me?|. Do you know it?|. Help me.|, what was it)", "(And|And what about|What about|Now) <c>?", "<c>, (what is it|what was that|what is that|do you know that|tell me)(?|)", "(Give me|Quick,|I need) <c>( again| now| please|)", "(Do you still|Can you still|You still|You surely|Surely you) (know|remember) <c>(?|)"]).replace("<c>", frame_of(w, r.clause, key)), key)
    lead = w.say(ASKING)
    return put(w, "ask" if lead[:3] in ("Do ", "Can", "Cou", "Wou", "Any", "Did", "Hav") else "say", lead + frame_of(w, r.clause, key), key) + ("" if w.style.bare or lead[:3] in ("Do ", "Can", "Cou", "Wou", "Any", "Did", "Hav") else ".")


def answer(w, key, v): return cap(said(key, v, w.style)) + "."


def tell(w, facts, n=1):
    """One turn that tells n facts."""
    keys, parts = [], []
    w.style.new()
    for _ in range(n):
        key = facts.fresh(w); v = w.style.value(facts.draw(w, key)); facts.known[key] = v; keys.append(key)
        s = w.style; quiet = n > 1
        if quiet: parts.append(cap(put_plain(w, frame_of(w, R[key[0]].tell, key), key, v)))
        else: parts.append(put(w, "tell", frame_of(w, R[key[0]].tell, key), key, v))
    facts.last = keys[-1]
    if n > 1:
        joined = w.one([". ", ". ", ", ", " and "]) if n < 4 else ". "
        text = parts[0] + "".join(joined + (down(p) if joined != ". " else p) for p in parts[1:]) + ("" if w.style.bare else ".")
        if w.style.lower: text = text.lower()
        return [(text, "Noted: " + "; ".join(said(k, facts.known[k], w.style) for k in keys) + "." if n < 4 else "Okay, I will remember that.", None)]
    v = facts.known[keys[0]]
    if keys[0][0] == "name": return [(parts[0], f"Nice to meet you, {v}!", holds(keys[0], v))]
    return [(parts[0], f"Noted: {said(keys[0], v, w.style)}.", holds(keys[0], v))]


def put_plain(w, frame, key, v):
    p = person(key[1], False, lambda h: w.style.value(h))
    frame = fill(frame, p).replace("<X>", "my" if key[1] == "my" else "a")
    for k, x in extra(key).items(): frame = frame.replace("{%s}" % k, x)
    return frame.replace("{k}", w.style.value(key[2])).replace("{v}", v)


def recall(w, facts, key):
    v = facts.known[key]
    if R[key[0]].yes and w.r() < 0.08:
        w.style.new(); right = w.r() < 0.5
        other = v if right else w.style.value(facts.draw(w, key))
        u = put(w, "ask", w.say(R[key[0]].yes), key, other)
        return [(u, ("Yes, " if other == v else "No, ") + said(key, v, w.style) + ".", holds(key, v))]
    u = question(w, key)
    return [(u, answer(w, key, v), holds(key, v))]


def unknown(w, facts):
    key = facts.fresh(w)
    u = question(w, key)
    return [(u, f"I don't know {said(key, None, w.style, True)}: you have not told me.", dict(kind="contains", want=["don't know"]))]


def change(w, facts, key):
    w.style.new()
    v = w.style.value(facts.draw(w, key)); old = facts.known[key]; facts.known[key] = v
    if key == facts.last and w.r() < 0.35:
        it = "(No, |Sorry, |Wait, |Oh, |Actually, |Oops, |Correction: |Hold on, |No no, )(I meant |I mean |it is |make that |it should be |that should be |change it to |it was ){v}"
        u = w.style.write("say", w.say([it, "(Not {o}|It is not {o}), (but |it is |I meant ){v}", "{v}, not {o}", "(Please |)(change|correct|update) (that|it) to {v}"]), v=v, o=old) + w.one(["", "."])
    else:
        p = frame_of(w, R[key[0]].tell, key)
        lead = w.say("(No, I meant that |Actually, |Sorry, |That has changed: |Correction: |I was wrong: |Wait, |Oh, |No, |Update: |I made a mistake: |Scratch that, |Change of plan: |~No, that was a mistake: |Oops, |That was wrong, |It has changed: |New information: |Oh no, I meant that |Sorry, I was wrong: )")
        u = put(w, "say", lead + down(p) + w.one(["", " now", ".", "."]), key, v)
    facts.last = key
    return [(u, f"Okay, {said(key, v, w.style)}.", holds(key, v))]


def passage(w, facts, sentences):
    """Facts hidden in prose, in one message."""
    lines = [w.sentence() for _ in range(sentences)]
    for _ in range(w.int(1, 3)):
        key = facts.fresh(w)
        if key[1] == "my": continue
        facts.known[key] = facts.draw(w, key)
        lines.insert(w.int(0, len(lines)), cap(state(key, facts.known[key])) + ".")
    u = w.say(["(Read this|Here is a text|Please read this text|Here is a story|Have a look at this|Text|Take a look at this story|Read the following|I found this|This is from a book|Please have a look at this story|Study this)(:|.) <>", "<>"]).replace("<>", " ".join(lines))
    return [(u, "Okay, I have read it.", None)]


def summary(w, facts):
    """Everything told so far, where it is little."""
    w.style.new()
    u = w.style.write("ask", w.say("(what do you (know|remember)( about me| so far|)|what (did I tell|have I told) you( so far| about me|)|what have you learned about me|list (everything|all|what) you know about me|tell me (everything|all|what) you know about me|repeat what I told you)"))
    if not facts.known: return [(u, "Nothing: you have not told me anything.", dict(kind="contains", want=["not told me"]))]
    return [(u, " ".join(cap(said(k, v)) + "." for k, v in facts.known.items()), dict(kind="contains", want=[str(v) for v in facts.known.values()]))]
