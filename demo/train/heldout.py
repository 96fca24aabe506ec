"""Owns the held-out set: fixed seeds, values and phrasings that training never draws. Writes heldout.jsonl and the two
texts (eval.txt for perplexity and divergence, calibration.txt for an importance matrix; calibration is drawn from the
training side)."""
import json, os, sys
import chat, foreign, forced, letters, lists, refusals, sums, talk, telling, tools
from conversation import example, plain as unmarked
from facts import Facts, tell, recall, unknown, change, passage, follow, pets
from schemas import Habit
from world import World, words_of

MODEL = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "model")


def plain(make):
    """The last turn of a task, the earlier ones as history."""
    def item(w): return finish(make(w))
    return item


def finish(turns, **more):
    messages = [dict(role=r, content=unmarked(t)) for u, a, _ in turns for r, t in (("user", u), ("assistant", a))]
    return dict(messages=messages[:-1], reference=messages[-1]["content"], check=turns[-1][2], **more)


def several(make, least):
    """Only draws of at least so many turns."""
    def item(w):
        while True:
            turns = make(w, None)
            if len(turns) >= least: return finish(turns)
    return item


def remembered(w, words=0, changed=False, between=2):
    """A fact, then `between` other turns or a text of about so many tokens, then the question."""
    f = Facts(); turns = tell(w, f); key = next(iter(f.known))
    if changed: turns += change(w, f, key)
    if words:
        left = words
        while left > 60:
            n = min(60, left // 14)
            turns += [(f"Here is a text: {w.prose(n)}", "I have read the text.", None)]; left -= n * 14
    else:
        for _ in range(between): turns += w.one([sums.arithmetic, lists.counting, talk.manners])(w, None)
        if w.r() < 0.5: turns += tell(w, f)
    return finish(turns + recall(w, f, key))


def read(w):
    f = Facts()
    while not f.known: turns = passage(w, f, w.int(6, 14))
    return finish(turns + recall(w, f, w.one(list(f.known))))


def untold(w):
    f = Facts(); turns = tell(w, f) + tell(w, f)
    return finish(turns + unknown(w, f))


def record(w, schema):
    item = finish(tools.extraction(w))
    if schema: item["response_format"] = dict(type="json_schema", json_schema=dict(name="record", schema=item["check"]["schema"]))
    return item


def called(w, result):
    declared = tools.pick_tools(w)
    steps = tools.tool_use(w, declared)[:4]
    last, habit = 3 if result else 1, Habit(w)
    ref, check = steps[last]
    return dict(messages=[m for m, _ in steps[:last]], tools=[tools.declare(w, t, habit) for t in declared],
                reference=ref["content"], reference_calls=ref.get("tool_calls"), check=check)


def stated(w, tool):
    """What a server forces of a mere statement. generate.py has no such force and leaves these out."""
    form = forced.Form(w, tool)
    (text, args), function = form.stated(w), form.declaration(w, Habit(w))["function"]
    item = dict(messages=[dict(role="user", content=text)], reference=json.dumps(args, ensure_ascii=False), constrained=True)
    if not tool: return item | dict(response_format=dict(type="json_schema", json_schema=dict(name="record", schema=function["parameters"])), check=dict(kind="json", want=args))
    return item | dict(tools=[dict(type="function", function=function)], tool_choice=dict(type="function", function=dict(name=form.name)), check=dict(kind="tool", name=form.name, want=args))


def housed(w):
    """Several told in one sentence, then all of them asked for, or one."""
    f = Facts(); turns = None
    while not turns: turns = telling.household(w, f)
    several = pets(w, f, 0.2 if f.last[0] == "pet" else 0.4)
    return finish(turns + (several if several and w.r() < 0.5 else recall(w, f, w.one(list(f.known)))))


def leaning(w):
    """A fact, and what only it explains."""
    f = Facts(); turns = tell(w, f)
    return finish(turns + follow(w, f, f.last))


def one_of_many(w):
    """Thirty facts, then a question about any of them."""
    f, turns = Facts(), []
    while len(f.known) < 30: turns += tell(w, f)
    return finish(turns + recall(w, f, w.one(list(f.known))))


def answered(w):
    """Facts that another assistant has answered, and a sum of its, then the question."""
    f = Facts(); turns = tell(w, f); key = next(iter(f.known))
    if w.r() < 0.5: turns += sums.arithmetic(w, None)[:1]
    if w.r() < 0.6: turns += tell(w, f)
    return finish([(u, foreign.reply(w, a), c) for u, a, c in turns] + recall(w, f, key))


def paired(w):
    """Two of the family or the house in one sentence, and the same of each."""
    f = Facts(); turns = None
    while not turns: turns = telling.couple(w, f)
    return finish(turns + recall(w, f, w.one(list(f.known))))


CATEGORIES = {
    "greetings": (40, plain(lambda w: w.one([talk.greeting, talk.manners, talk.ability])(w, None))), "identity": (40, plain(lambda w: talk.identity(w, None))), "remarks": (40, plain(chat.remark)), "about it": (40, plain(lambda w: w.one([chat.about_it, chat.about_it, chat.aided])(w))),
    "no knowledge": (80, plain(lambda w: refusals.unknowable(w, None))), "not taught": (80, plain(lambda w: w.one([refusals.impossible, refusals.impossible, refusals.unclear])(w, None))), "no tool": (20, plain(lambda w: tools.no_tool(w, None))),
    "arithmetic": (80, plain(lambda w: w.one([sums.arithmetic, sums.arithmetic, sums.arithmetic, sums.times, sums.bigger])(w, None)[:1])),
    "spelling": (60, plain(lambda w: letters.spelling(w, None)[:1])), "one letter": (20, plain(lambda w: letters.letters(w, None))), "echo": (20, plain(lambda w: letters.echo(w, None))), "sorting": (30, plain(lambda w: lists.sorting(w, None))),
    "counting": (40, plain(lambda w: lists.counting(w, None))), "running tally": (25, plain(lambda w: sums.tally(w, None))),
    "corrected sum": (20, several(sums.arithmetic, 2)), "corrected word": (40, several(letters.spelling, 2)), "corrected fact": (25, lambda w: remembered(w, changed=True)),
    "json by fields": (40, lambda w: record(w, False)), "json by schema": (20, lambda w: record(w, True)), "tool call": (40, lambda w: called(w, False)), "tool result": (25, lambda w: called(w, True)),
    "fact told": (60, plain(lambda w: tell(w, Facts()))), "fact never told": (25, untold), "fact in a text": (25, read), "one fact of 30": (40, one_of_many),
    "recall near": (40, lambda w: remembered(w)), "recall 500": (30, lambda w: remembered(w, 500)), "recall 2k": (30, lambda w: remembered(w, 2000)), "recall 8k": (15, lambda w: remembered(w, 8600)),
    "recall 16k": (5, lambda w: remembered(w, 17000)), "recall 32k": (5, lambda w: remembered(w, 29800)),
    "leaning on it": (40, leaning), "halves, even and odd": (20, plain(lambda w: w.one([sums.half, sums.parity])(w))), "json in own words": (20, plain(lambda w: tools.stated(w))),
    "json of a statement": (20, plain(lambda w: forced.asked(w))), "several in one sentence": (40, housed), "forced call": (40, lambda w: stated(w, True)), "forced json": (40, lambda w: stated(w, False)),
    "mentioned": (40, plain(forced.mentioned)), "another's replies": (40, answered), "the same of two": (40, paired),
}


def items():
    World.PIECES = words_of(MODEL)
    for c, (name, (count, make)) in enumerate(CATEGORIES.items()):
        for i in range(count):
            item = make(World(9_000_000 + 1000 * c + i, "held"))
            item["check"].pop("schema", None)
            yield dict(category=name, id=f"{name} {i}", max_tokens=max(96, 16 + len(item["reference"] or "")), **{k: v for k, v in item.items() if v is not None})


def texts(split, seed, size):
    out = ""
    while len(out) < size: out += example(seed, split) + "\n"; seed += 1
    return out


if __name__ == "__main__":
    World.PIECES = words_of(MODEL)
    out = sys.argv[1]
    with open(os.path.join(out, "heldout.jsonl"), "w") as f:
        for item in items(): f.write(json.dumps(item) + "\n")
    with open(os.path.join(out, "eval.txt"), "w") as f: f.write(texts("held", 20_000_000, 80_000))
    with open(os.path.join(out, "calibration.txt"), "w") as f: f.write(texts("train", 30_000_000, 80_000))
