"""Owns the letters of a word: spelling, reversing, counting; and saying after us."""
from sums import ONES
from turns import *
from words import PLENTY
from world import *


def spelled(word): return "-".join(word)
def whole(word): return LETTERWISE + word + LETTERWISE
def backwards(word): return f"{spelled(word)} backwards is {spelled(word[::-1])}: {whole(word[::-1])}"


SPELL = ["spell {x}( for me| letter by letter| out|)", "spell (out |)the word {x}", "how (do you|do I|would you|to|can I) spell {x}", "how is {x} spelled", "(what are|give me|tell me|list|name|show me|write) the (letters|single letters) (of|in) (the word |){x}", "(can you |)spell (the word |the name |){x}", "which letters (are in|make up) {x}", "{x}, (spell it|how is it spelled|spell that please|letter by letter)", "(what|which) letters (are there|do you see|do you find) in {x}", "~which letters do I need to spell {x}", "(write|say) {x} letter by letter", "what is the spelling of {x}", "the spelling of {x}", "tell me how you spell {x}", "break {x} into letters", "(spell|spell out|spelling)(:| this:| this word:| my word:| the following:| the following word:| it:|,) {x}", "spell (my word|this word|the name|the term|this) {x}( for me| please|)", "(spelling|letters) (of|for) (the word |){x}( please|)", "(I (do not|never|cannot) (know|remember) how to|I forgot how to|how on earth do I|how does one|how do people|how should I|how will I|how must I) spell (the word |){x}", "(tell me|show me|explain|teach me|I want to know|I need to know|can you tell me|do you know|can you show me) how (to|one can|you|people) spell (the word |){x}", "{x} (spelling|spelled out|in letters|letter by letter|spell it|letters)", "(the letters|letters) (of|in) (the word |){x}( one by one| in order| separately| with dashes|)", "(separate|split|divide|dissect) (the word |){x} into (its |single |)letters", "(dictate|list|say|recite) the letters of {x}( in order| one by one|)", "{x}, (spelled|letters please|how do I spell that|how is that spelled|how do you write it)", "how (do you|do I|would you|does one) write {x}", "how is {x} written", "(I need|I want|please give me|what about) the spelling of {x}", "(I would like|I want|I need) you to spell (the word |){x}", "spell {x} (slowly|correctly|aloud|properly|normally|one letter at a time)", "what letters (is {x} made of|make {x}|are used in {x}|do I need for {x}|spell {x})", "what is {x} (spelled out|letter by letter|in single letters)"]
BACK = ["(reverse|flip|invert|turn around) (the word |the letters of |the string |){x}", "(spell|write|say|type|read|print|give me|put) (the word |){x} (backwards|backward|in reverse|from back to front|in reverse order|the other way round|back to front)", "what is (the word |){x} (backwards|reversed|in reverse|spelled backwards|written backwards|back to front)", "{x} (backwards|reversed|in reverse)", "how (do you|would you|do I) (spell|write|say) {x} (backwards|in reverse)", "what is the reverse of {x}", "{x}, (backwards please|reverse it|in reverse please|now backwards)", "(what is|what would be|what comes out as) {x} (if you reverse it|when reversed|if read backwards)", "~what is the word {x} from back to front", "tell me what {x} is backwards", "what (do I|do you) get (if|when) (I|you) reverse {x}", "(can you |)(spell|write) {x} backwards", "backwards: {x}", "tell me {x} backwards", "mirror the word {x}", "(reverse|backwards|flip|inverted|mirrored|in reverse)(:|,| this:| this word:) {x}", "(turn|flip|switch|swap|twist) (the word |the letters of |){x} (around|round|over)", "(read|spell|say|write|print) (the word |){x} (from right to left|from the end|from the end to the start|starting at the end|from the last letter to the first|from behind)", "what (would|does|will|might) {x} (be|look like|become|read|spell|sound like) (backwards|in reverse|reversed|from right to left|in the mirror)", "what (would|will) (be the reverse of {x}|{x} be if reversed|{x} be in reverse)", "{x} (from back to front|from right to left|the other way round|mirrored|flipped|in reverse order|turned around|spelled backwards|read backwards)", "(tell me|show me|I want|I need|can I have|can you do|do|let me see) {x} (backwards|in reverse|reversed|from back to front|flipped)", "(make|can you make|produce|give me|find) (the reverse of {x}|{x} backwards|the mirror image of {x}|the reversed form of {x})", "(the |)reverse of (the word |){x}", "(what is|what are|give me|list|say) the letters (of|in) (the word |){x} (backwards|in reverse|in reverse order|from last to first)", "how (does|would|will) {x} (read|look|go|sound)( backwards| in reverse| from back to front)", "how is {x} (spelled|written|said) (backwards|in reverse)", "(I would like|I want|I need) (you to reverse {x}|to see {x} reversed)", "invert the (order of the letters in|letters of) {x}", "reverse the (order of the |)letters (in|of) {x}"]
LONG = ["how many letters (are in|are there in|does|has|in) (the word |){x}( have|)", "count the letters (in|of) (the word |){x}", "how long is (the word |){x}", "(tell me|what is) (the length of|how long is|the number of letters in) (the word |){x}", "(what is|give me) the (length|number of letters) (of|in) (the word |){x}", "how many letters (make up|form) {x}", "(say|find out|work out|figure out|check|see|count) how many letters (there are|are) in (the word |){x}", "how many letters (do you|can you|do I) (count|see|find) in {x}", "{x}(:|,) how many letters( is that| are there|)", "{x}, (count the letters|count its letters|how long is it|its length please)", "~count how many letters {x} has", "{x} has how many letters", "(number|count) of letters in {x}", "(can you |)count the letters (of|in) {x}", "what number of letters (has|does) {x}( have|)", "how many (characters|letters) (are|are there) in {x}", "tell me how many letters {x} has", "(count|letters|letter count|length|number of letters|how many letters)(:| of| for| in| of the word|, please:) {x}", "(what is|give me|tell me|I need|I want) the (letter count|length in letters|number of characters|count of letters|size in letters|character count) (of|for|in) (the word |){x}", "{x} (letter count|length|number of letters|how long|how many letters|count letters|has how many characters)", "(tell me|I want to know|say|find out|do you know|can you say|guess) how long (the word |){x} is", "(tell me|I want to know|do you know|can you say|I need to know|I wonder) how many (letters|characters) (are in|there are in|make up|are used in) (the word |){x}", "how many (letters|characters|signs) (does|are there in|do you need for|go into|would you count in|can be found in|do I need to write|are used in|has got) (the word |){x}( got| have| contain|)", "how many (letters|characters) has (the word |){x}( got|)", "(count|please count|count up|add up|number|tell me) (the|all|all the|its) (letters|characters) (in|of) (the word |this word: |){x}", "(of |)how many letters (does {x} consist|is {x} made|is {x} composed)( of|)", "(count|measure) (the word |the length of |){x}", "(how many|what number of) letters: {x}", "with how many letters do you (write|spell) {x}", "is {x} a long word, how many letters( does it have|)", "how (big|short|lengthy) is the word {x}", "what is the word length of {x}"]
AGAIN = "(No, I said |No, |No no, |I said |I mean |Not that, |Wait, |How about |What of |And for |Also |Next: |Next |Again for |Do |Now do |Now try |Try |Another one: |And the word |What about the word |Then the word |Again with |One more: |Ok, |Ok now |Okay, and |Same with |The same with |Repeat for |Do the same for |Do the same with |And how about |Oops, |Oops, I meant |Sorry, |Actually, |Typo, |No, I meant |Sorry, I meant |And |Now |Oh, I wanted |Oh no, I meant |Sorry, I wanted |What about |And what about |Now the same for |Same for |Then |Oh, I meant ){x}(.||?)"


def spelling(w, talk):
    def turn(word, kind, q):
        if kind < 0.36: return q(SPELL), spelled(word), text(spelled(word))
        if kind < 0.68: return q(BACK), backwards(word), text(f"backwards is {spelled(word[::-1])}")
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
            turns.append((user(w, "say", "(And |And now |Now |Ok, |Then |)(backwards|in reverse|reversed|spell it backwards|the other way round|from back to front|reverse it|flip it|turn it around|say it backwards|what is it backwards|reverse that|what about backwards|what is that in reverse|write it backwards|how does it look backwards)(?||.| please)" if k == 0.5 else "(And |Now |So |)(how many letters( is that| does it have| are there| has it| in it| was that|)|how long is it|how long is that|how long is the word|count the letters|its length|count them|letter count|number of letters|how many characters)(?||.| please)"), a, c))
        return turns
    word, u = typed(SPELL if kind < 0.36 else BACK if kind < 0.68 else LONG, kind)
    _, a, c = turn(word, kind, lambda g: None)
    turns = [(u, a, c)]
    while w.r() < 0.2:
        word, u = typed(AGAIN, kind)
        _, a, c = turn(word, kind, lambda g: None)
        turns.append((u, a, c))
    return turns


NTH = "first second third fourth fifth sixth seventh eighth ninth".split()
SHORT_NTH = "1st 2nd 3rd 4th 5th 6th 7th 8th 9th".split()


def letters(w, talk):
    """One letter of a word: how often, the first, the last."""
    w.style.new(); word = w.style.value(w.word()); a = w.r()
    quote = w.one(["{}", "{}", '"{}"', "'{}'"])
    if a < 0.42:
        l = w.one(word) if w.r() < 0.8 else w.one(LETTERS); n = word.lower().count(l.lower()); l = l.lower()
        u = w.style.write("ask", w.say(["how many (times is |){l}('s| 's|s|) (are|are there|) in (the word |){x}", "how many times (is|does) (the letter |){l} (in|appear in|occur in|come in) {x}", "how often (is|does) (the letter |){l} (in|appear in|occur in|come in) {x}", "count (the |all the |){l}('s|s) in {x}", "how many (letters {l}|of the letter {l}) (are|are there|do you see|can you find) in {x}", "(the letter |){l} in {x}(: how many| how many times|, how often)", "how (often|many times) (do|can) (you|I|we) (see|find|count|have) (the letter |an |a |){l} in {x}", "(count|find|number of|count all|count up) (the |)(letter |letters |){l}('s|s|) in (the word |){x}", "how many {l}('s|s|) (does|has|do you see in|do you find in|can you find in|can you count in|do I have in|do you count in) (the word |){x}( have|)", "does (the word |){x} (have|contain) (an|a|any|the letter) {l}(, how many|, and how many|)", "(is|are) there (an|a|any|the letter) {l}('s|) in (the word |){x}(, how many|)", "(tell me|say|I want to know|do you know) how (many|often) (times |)({l} is in|the letter {l} appears in|{l} comes up in|{l} occurs in) {x}", "(amount|count|number) of {l}('s|s|) in {x}", "in {x}, how many {l}('s|s|)( are there|)", "{x}: how many {l}('s|s|)", "what is the number of {l}('s|s) in {x}", "how many letter {l}('s|s|) (are in|has|are there in) {x}"]), l=l, x=quote.format(word))
        return [(u, f"{spelled(word)}: the letter {l} comes {n} {'time' if n == 1 else 'times'}.", number(n))]
    if a < 0.7:                                          # the second, the 3rd ...
        n = w.int(1, min(len(word), 9)) - 1; nth = w.one([NTH[n], NTH[n], SHORT_NTH[n]])
        u = w.style.write("ask", w.say(["(what is|which is|tell me|give me|say|) the (<>) letter (of|in) (the word |){x}".replace("<>", nth), "(what|which) letter (is|comes) (<>) in {x}".replace("<>", nth), f"{nth} letter (of|in) {{x}}", f"(the |){nth} letter: {{x}}", "(in|of) {x}, (what|which) is the (<>) letter".replace("<>", nth), f"(and |)the {nth} letter (of|in) (the word |)({{x}}|{{x}}, please|{{x}} is what)", f"(what|which|which one|what letter) is {nth} in (the word |){{x}}", f"(give|tell|show|find|name)( me|) the {nth} letter (of|in) (the word |the name |){{x}}", f"{{x}}(, |: | - )(the |){nth} letter", f"letter number {n + 1} (of|in) (the word |){{x}}", f"what is letter {n + 1} (of|in) {{x}}", f"(what|which) letter do you (see|find|have|get) {nth} in {{x}}"]).strip(), x=quote.format(word))
        return [(u, f"{spelled(word)}: the {NTH[n]} letter is {word[n]}.", text(f"is {word[n]}"))]
    first = a < 0.85
    u = w.style.write("ask", w.say("(what is|tell me|which is|give me|say|show me|do you know|what was|name|what would be|) the (<>|<>|very <>) letter (of|in) (the word |){x}".replace("<>", "first" if first else "last")).strip() if w.r() < 0.6 else w.say(["(what|which|with what|with which) letter does (the word |){x} (<>) with".replace("<>", "start|begin" if first else "end|finish"), ("what does (the word |){x} (start|begin) with" if first else "what does (the word |){x} (end|finish|stop) with"), ("{x} (starts|begins) with (what|which letter|what letter)" if first else "{x} ends (with|in|on) (what|which letter|what letter)"), ("(what|which) letter is at the (start|beginning|front) of {x}" if first else "(what|which) letter is at the (end|very end|back) of {x}"), ("{x}, (first letter|what does it start with|the first letter)" if first else "{x}, (last letter|what does it end with|the last letter)"), ("how does {x} (start|begin)" if first else "how does {x} end"), ("(first|initial|starting) letter (of|in|:|for) {x}" if first else "(last|final|ending|end) letter (of|in|:|for) {x}"), ("what is the initial of {x}" if first else "what is the final letter of {x}")]), x=quote.format(word))
    l = word[0] if first else word[-1]
    return [(u, f"The {'first' if first else 'last'} letter of {word} is {l}.", text(f"is {l}"))]


def echo(w, talk):
    """Says after us, once or several times."""
    w.style.new()
    what = " ".join(w.word() if w.r() < 0.5 else w.one(NOUNS + GOODS) for _ in range(w.int(1, 4)))
    if not w.held and w.r() < 0.3: what = w.one([w.sentence()[:-1], w.sentence(), "good morning", "good night", "hello world", "I love you", "the " + w.one(ANIMALS) + " is " + w.one(ADJECTIVES), "I am " + w.one(ADJECTIVES), w.one(ADJECTIVES) + " " + w.one(PLENTY), w.one(PLENTY) + " " + w.one(PLENTY), "hello " + w.name(), "happy birthday " + w.name(), "cheese", "one two three", "yes", "no", "please", "thank you", "we " + w.one(VERBS) + " the " + w.one(NOUNS), "knock knock", "to be or not to be"])
    what = w.style.value(what)
    if w.r() < 0.6:
        quote = w.one(["{}", "{}", '"{}"', "'{}'"])
        u = w.style.write("do", w.say("(say|repeat|repeat after me:|repeat after me,|echo|type|write|print|repeat the words|say the word|say the words|repeat this:|say after me:|write down|copy|say only|say just|answer with|reply with|just say|simply say|only say|repeat exactly:|say exactly:|repeat the sentence|repeat the phrase|say the phrase|say the sentence|quote|say the following:|repeat the following:|now say|respond with|parrot|mimic|copy this:|write this:|type this:|print this:|output) {x}"), x=quote.format(what))
        return [(u, what, text(what))]
    n = w.int(2, 5); what = what.split()[0]
    u = w.style.write("do", w.say(["(say|repeat|write|type|print|echo) (the word |){x} {n} times", "(say|repeat|write|type|give me|print) (the word |){x} {n} times( in a row| over|)", "{n} times the word {x}", "(I want|I want to hear|I need) {x} {n} times", "(say|write) {n} times (the word |){x}"]), x=what, n=w.one([n, n, ONES[n]]))
    return [(u, " ".join([what] * n), text(" ".join([what] * n)))]
