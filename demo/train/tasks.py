"""Owns the tasks that stand alone: talk, arithmetic, letters, lists, running tallies. Each returns a list of
(user text, assistant text, check): one or more turns. A check says how a machine judges the reply."""

WHO = "I am deltad's demo model: a small language model trained to show the daemon at work."
ONLY = "I am a small demo model and only know what you tell me."


IMPERATIVES = set("Spell Reverse Write Count Add Compute Subtract Take Tell Sort Put Work Introduce Give Set Start Send Turn Convert Search Find Look Wake".split())


def number(n): return dict(kind="number", want=str(n))
def text(s): return dict(kind="contains", want=[s])


def ask(w, core):
    """A question inside everyday politeness."""
    a = w.r()
    if a < 0.6: return core
    low = core if core[:2] == "I " else core[0].lower() + core[1:]
    if a < 0.68: return w.one(["Thanks. ", "Hello! ", "Hi. ", "Okay. ", "Great. "]) + core
    if core[-1] == "?": return w.one(["Hey, ", "Now ", "Okay, ", "Next: ", "One question: ", "Can you tell me: ", "Tell me: ", "So "]) + low
    if core[-1] == "." and core.split()[0] in IMPERATIVES and a < 0.85: return w.one(["Can you ", "Could you ", "Can you please ", "Could you please "]) + low[:-1] + "?"
    return w.one(["Please ", "Now ", "Okay, ", "Next: ", "Hey, "]) + low


def greeting(w, talk):
    hi = w.say(["Hello!", "Hi", "Hello there", "Good morning", "Good evening!", "Hey", "Hi there!", "Hello", "Good afternoon", "Hey there!", "Hello and good morning", "~Hey, good morning!"])
    return [(hi, "Hello! How can I help you?", text("Hello"))]


def identity(w, talk):
    q = w.say(["Who are you?", "What are you?", "What is your name?", "Are you a human?", "Are you a person?", "Tell me about yourself.", "What model are you?", "Introduce yourself.", "Who made you?", "Are you a robot?", "Who am I talking to?", "What kind of model are you?", "Please tell me who you are.", "Tell me who you are.", "Who is this?", "Are you deltad?", "What is deltad?", "~Please tell me what you are."])
    return [(ask(w, q) if q[0] != "P" else q, WHO, text("deltad"))]


def ability(w, talk):
    q = w.say(["What can you do?", "What can you help me with?", "How can you help me?", "What are you good at?", "What things can you do?"])
    return [(ask(w, q), "I can add and subtract, spell, count and sort words, remember what you tell me, write JSON and call tools.", text("remember"))]


def manners(w, talk):
    if w.r() < 0.6:
        return [(w.say(["Thanks!", "Thank you.", "Thanks a lot!", "Great, thanks.", "Thank you very much!", "Many thanks!"]), "You are welcome!", text("welcome"))]
    if w.r() < 0.5: return [(w.say(["How are you?", "How are you today?", "Are you well?", "How are you doing?"]), "I am well, thank you. How can I help you?", text("well"))]
    return [(w.say(["Goodbye!", "Bye", "See you later.", "Good night.", "Bye for now!"]), "Goodbye!", text("Goodbye"))]


def unknowable(w, talk):
    """General knowledge, of which it has none, and says so."""
    what = w.mine(lambda: w.one(["capital", "president", "history", "population", "language", "king", "flag", "area", "highest mountain", "longest river"]) + " of " + w.one("France Japan Brazil Kenya Canada Norway India Egypt Peru Spain Chile Ghana Nepal Cuba Italy Poland".split()))
    q = w.say(["What is the {}?", "Tell me the {}.", "Do you know the {}?", "Can you tell me the {}?", "~Please tell me the {}."]).format(what)
    return [(ask(w, q), f"I don't know. {ONLY}", text("don't know"))]


def sums(w):
    big = w.one([20, 100, 100, 1000, 1000])
    def draw():
        a, b = w.int(0, big - 1), w.int(0, big - 1)
        return f"{a} + {b}" if w.r() < 0.5 else f"{max(a, b)} - {min(a, b)}"
    e = w.mine(draw)
    a, op, b = e.split()
    return int(a), op, int(b), int(a) + int(b) if op == "+" else int(a) - int(b)


def phrase_sum(w, a, op, b):
    if op == "+":
        return w.say(["What is {} + {}?", "{} + {}", "What is {} plus {}?", "Add {} and {}.", "Compute {} + {}.", "How much is {} plus {}?", "What is the sum of {} and {}?", "Work out {} + {}.", "{}+{}", "{} + {} = ?", "Can you add {} and {}?", "~Give me {} plus {}.", "What do you get for {} plus {}?"]).format(a, b)
    q = w.say(["What is {0} - {1}?", "{0} - {1}", "What is {0} minus {1}?", "Subtract {1} from {0}.", "Compute {0} - {1}.", "How much is {0} minus {1}?", "Take {1} away from {0}.", "Work out {0} - {1}.", "{0}-{1}", "{0} - {1} = ?", "Can you subtract {1} from {0}?", "~Give me {0} minus {1}.", "What do you get for {0} minus {1}?"])
    return q.format(a, b)


def arithmetic(w, talk):
    a, op, b, c = sums(w)
    turns = [(ask(w, phrase_sum(w, a, op, b)), f"{a} {op} {b} = {c}", number(c))]
    while w.r() < 0.25:                                  # "no, I meant": half of the sum stays
        a2, op2, b2, c2 = sums(w)
        q = w.say(["No, I meant {}.", "Sorry, I meant {}.", "And {}?", "I meant to ask {}.", "Now {}.", "Oh, I wanted {}.", "Oh no, I meant {}.", "Sorry, I wanted {}.", "~Oh, I meant {}."]).format(f"{a2} {op2} {b2}")
        turns.append((q, f"{a2} {op2} {b2} = {c2}", number(c2)))
    return turns


def spelled(word): return "-".join(word)


def spelling(w, talk):
    def turn(word, q, kind):
        if kind < 0.4: return q(["Spell {}.", "How do you spell {}?", "Spell the word {}.", "Please spell {} for me.", "What are the letters of {}?", "Can you spell the word {}?", "Tell me the letters of {}.", "~Tell me how you spell {}."]), spelled(word), text(spelled(word))
        if kind < 0.75:
            back = spelled(word[::-1])
            return q(["Reverse {}.", "Reverse the word {}.", "Spell {} backwards.", "What is {} backwards?", "Write {} backwards.", "Can you spell {} backwards?", "Tell me what {} is backwards.", "~Tell me {} backwards."]), f"{spelled(word)} backwards is {back}", text(f"backwards is {back}")
        return q(["How many letters are in {}?", "How many letters does {} have?", "Count the letters in {}.", "How long is the word {}?", "Can you count the letters of {}?", "Tell me how long {} is.", "~Tell me how many letters {} has."]), f"{spelled(word)} has {len(word)} letters.", text(f"has {len(word)} letters")
    def quoted(word): return w.one([word, word, f'"{word}"', f"'{word}'"])
    word, kind = w.word(), w.r()
    u, a, c = turn(word, lambda o: w.say(o).format(quoted(word)), kind)
    turns = [(ask(w, u), a, c)]
    while w.r() < 0.2:
        word = w.word()
        u, a, c = turn(word, lambda o: w.say(["No, I meant {}.", "Sorry, I meant {}.", "And {}?", "Now {}.", "Oh, I wanted {}.", "Oh no, I meant {}.", "Sorry, I wanted {}.", "~Oh, I meant {}."]).format(quoted(word)), kind)
        turns.append((u, a, c))
    return turns


def counting(w, talk):
    if w.r() < 0.5:
        a, n = w.mine(lambda: w.int(0, 120)), w.int(3, 9)
        q = w.say(["Count from {} to {}.", "Please count from {} to {}.", "Write the numbers from {} to {}.", "List the numbers from {} to {}."])
        s = ", ".join(str(x) for x in range(a, a + n))
        return [(q.format(a, a + n - 1), s, text(s))]
    items = w.some(w.one(LISTS), w.int(2, 7))
    q = w.say(["How many words are in this list: {}?", "Count these: {}", "How many things are here: {}?", "Count the words: {}", "Can you count these words: {}?"])
    return [(ask(w, q.format(", ".join(items))), ", ".join(f"{x} {i + 1}" for i, x in enumerate(items)) + f". That makes {len(items)}.", text(f"makes {len(items)}."))]


def sorting(w, talk):
    if w.r() < 0.5:
        items = w.mine(lambda: tuple(w.some(w.one(LISTS), w.int(3, 5))))
        q = w.say(["Sort these words: {}", "Put these words in order: {}", "Sort alphabetically: {}", "Sort by the alphabet: {}", "Put in alphabetical order: {}", "Can you sort these words alphabetically: {}", "~Please sort these by the alphabet: {}"])
        key = str
    else:
        top = w.one([20, 100, 1000])
        items = w.mine(lambda: tuple(str(w.int(0, top - 1)) for _ in range(w.int(3, 5))))
        q = w.say(["Sort these numbers: {}", "Put these numbers in order: {}", "Sort from small to large: {}", "Sort: {}", "Can you sort these numbers: {}", "~Please put these in order, small to large: {}"])
        key = int
    s = ", ".join(sorted(items, key=key))
    turns = [(ask(w, q.format(", ".join(items))), s, text(s))]
    if w.r() < 0.25:
        s = ", ".join(sorted(items, key=key, reverse=True))
        turns.append((w.say(["Now the other way round.", "Now in reverse order.", "And the other way round?", "Reverse the order.", "The other way round, please."]), s, text(s)))
    return turns


def tally(w, talk):
    """A number kept over several turns."""
    what, n = w.one([x for x in ANIMALS_FOODS if x[-1] not in "sy" and x not in ("mouse", "goose", "sheep", "deer", "fox", "wolf")]), w.int(2, 60)
    n = w.mine(lambda: w.int(2, 80))
    many = (what if what in UNCOUNTED else what + ("es" if what in ("potato", "tomato") else "s"))
    turns = [(w.say(["I have {} {}.", "There are {} {} in my basket.", "I start with {} {}.", "Suppose I have {} {}."]).format(n, many), f"You have {n} {many}.", number(n))]
    for _ in range(w.int(1, 3)):
        d, up = w.int(1, 30), w.r() < 0.5
        if not up: d = min(d, n)
        n += d if up else -d
        q = w.say(["I get {} more.", "I buy {} more.", "I find {} more.", "Someone gives me {} more.", "Then I add {} more.", "Then I get {} more.", "Now I find {} more.", "I add {}.", "~Then I buy {} more."] if up else ["I give away {}.", "I lose {}.", "I sell {}.", "I use {}.", "Then I throw away {}.", "Then I give away {}.", "Now I use {}.", "I throw away {}.", "~Then I lose {}."]).format(d)
        turns.append((q + w.one(["", " How many now?", " How many do I have?"]), f"You have {n} {many}.", number(n)))
    return turns


from world import ANIMALS, FOODS, THINGS, COLOURS, JOBS, SPOTS
LISTS = [ANIMALS, FOODS, THINGS, COLOURS, JOBS, SPOTS, ANIMALS + FOODS + THINGS]
UNCOUNTED = set("bread cheese butter soup rice honey jam tea coffee milk salt sugar".split())
ANIMALS_FOODS = ANIMALS + FOODS
