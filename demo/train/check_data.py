"""Owns one question: is what heldout.jsonl asks truly held out? Draws training conversations as training does and looks
for held-out values and phrasings among them; counts what both sides practise. Standard library only; fails with a list.
  python check_data.py [--rows 3000]"""
import argparse, collections, json, os, re, sys
import chat, conversation, facts, forced, heldout, letters, lists, refusals, sums, talk, telling, tools
from voice import FEW, Grammar
from world import World, held, words_of

DEMO = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
FREE, HELDOUT = ("paraphrases", "fresh", "blind", "strangers", "unseen", "guests", "unread", "visitors", "callers", "sealed", "newcomers", "closed"), os.path.join(DEMO, "heldout.jsonl")          # written by hand; written by heldout.py
# Every kind of turn that training must hold, and how its turns are told from others.
KINDS = [refusals.impossible, refusals.unclear, sums.times, sums.bigger, letters.letters, letters.echo, facts.summary, talk.greeting, talk.identity, talk.ability, talk.manners, refusals.unknowable, sums.arithmetic, letters.spelling, lists.sorting, lists.counting,
         sums.tally, tools.extraction, tools.tool_use, tools.no_tool, facts.tell, facts.recall, facts.unknown, facts.change, facts.passage, facts.follow, sums.half, sums.parity, lists.countdown, lists.stepping, lists.recited, tools.stated, talk.felt, telling.household, telling.couple, telling.departing, telling.rambling, telling.locked, telling.moved_from, facts.apart, sums.chain, forced.json_turn, forced.asked, forced.mentioned, chat.about_it, chat.aided, chat.remark]


class Watched(World):
    """A world that notes what it draws from its side of the split, and the phrasings it picks."""

    def __init__(self, seed, split="train"):
        super().__init__(seed, split); self.drawn, self.said = set(), collections.Counter()

    def mine(self, draw):
        v = super().mine(draw); self.drawn.add(str(v)); return v

    def say(self, grammar):
        frame, of = super().say(grammar), Grammar.of(grammar)
        if of.size >= FEW or of.marked: self.said[id(of), frame] += 1          # the others hold no frame out
        return frame


def counted(counts):
    """Has every maker of turns counted, and several corrections in a row beside."""
    def wrap(make):
        def counting(w, *rest):
            turns = make(w, *rest); counts[make.__name__] += 1
            if make.__name__ in ("arithmetic", "spelling"):
                counts[f"{make.__name__}: corrected"] += len(turns) == 2
                counts[f"{make.__name__}: corrected again and again"] += len(turns) > 2
            if make.__name__ == "tool_use": counts["tool_use: corrected"] += len(turns) > 4
            return turns
        return counting
    for make in KINDS:
        wrapped = wrap(make)
        for room in (conversation, chat, letters, lists, refusals, sums, talk, telling, tools, facts, forced, heldout):
            if getattr(room, make.__name__, None) is make: setattr(room, make.__name__, wrapped)
    conversation.PLAIN_TASKS = tuple(getattr(sys.modules[t.__module__], t.__name__) for t in conversation.PLAIN_TASKS)


def training(rows, counts):
    """What `rows` conversations of training draw, say, spell out, and call their made-up tools. Each has as many steps as a row of 512 tokens."""
    counted(counts)
    drawn, said, text, named = set(), collections.Counter(), [], set()
    made = tools.made_tool
    def noting(w):
        tool = made(w); named.update(re.findall("[a-z]+", f"{tool[0]} {tool[2][0][0]}".replace("_", " ")))
        return tool
    tools.made_tool = noting
    for seed in range(rows):
        w = Watched(seed); conv = conversation.Conversation(w)
        for _ in range(12): conv.step(seed % 4 == 0)
        drawn |= w.drawn; said += w.said
        text += [json.dumps(m["tool_calls"]) if m["content"] is None else m["content"] for m in conv.messages]
    return drawn, said, "\n".join(text), named


def held_out():
    """The same of the held-out side, and its items as they would be written today."""
    drawn, said, items = set(), collections.Counter(), []
    class Noting(Watched):
        def __init__(self, *a): super().__init__(*a); worlds.append(self)
    worlds, heldout.World = [], Noting
    for item in heldout.items(): items.append(item)
    for w in worlds: drawn |= w.drawn; said += w.said
    return drawn, said, items


def main():
    World.PIECES = words_of(heldout.MODEL)
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--rows", type=int, default=3000)
    a = ap.parse_args()
    theirs, their_forms, items = held_out()
    counts = collections.Counter()
    ours, our_forms, text, named = training(a.rows, counts)
    wrong = []
    def expect(fine, what): wrong.extend([] if fine else [what])
    with open(HELDOUT) as f: shipped = [json.loads(line) for line in f]
    expect(shipped == json.loads(json.dumps(items)), "heldout.jsonl is not what heldout.py writes")
    expect(all(map(held, theirs)), f"drawn for the held-out side but not held out: {[v for v in theirs if not held(v)][:5]}")
    expect(not ours & theirs, f"values on both sides: {sorted(ours & theirs)[:5]}")
    # Not only drawn apart, but never written: words and sums, wherever they come from.
    words = set(re.findall(r"[a-z]+", text.lower()))
    met = sorted(v for v in theirs if re.fullmatch(r"[A-Za-z]{4,}", v) and v.lower() in words)
    # The names of made-up tools are split as a whole: a nonsense part of one may be a held-out word.
    in_tools = [v for v in met if v.lower() in named]
    met = [v for v in met if v.lower() not in named]
    sums = set(re.sub(" ", "", s) for s in re.findall(r"\d+ ?[-+] ?\d+", text))
    met += sorted(v for v in theirs if re.fullmatch(r"\d+ [-+] \d+", v) and v.replace(" ", "") in sums)
    # A short made-up word may be a real one ("barn"), or what is left of one after a typo: some, not many.
    expect(len(met) < 0.02 * len(theirs), f"held out but written in training: {met[:10]} ({len(met)} in all)")
    # A grammar of few frames holds none out, and in some the held-out ones are too rare to be found: those are counted, not refused.
    apart = sum(n for f, n in their_forms.items() if f not in our_forms)
    expect(apart >= 0.9 * sum(their_forms.values()), "held-out turns use the frames of training")
    questions = {m for item in items for m in [item["messages"][-1]["content"]]}
    asked = set(text.split("\n"))
    for kind in [k.__name__ for k in KINDS] + [k for k in counts if "corrected" in k]: expect(counts[kind] > 0, f"training has no {kind}")
    for category, n in collections.Counter(i["category"] for i in items).items(): print(f"{category:22} {n:4} held-out questions")
    for kind, n in sorted(counts.items()): print(f"{kind:40} {n:7} times in {a.rows} training conversations")
    print(f"{len(theirs)} held-out values, {len(ours)} of training; {len(met)} of the held-out ones met as words: {' '.join(met[:12])}")
    print(f"{len(their_forms)} held-out frames, {len(our_forms)} of training; {apart} of {sum(their_forms.values())} held-out turns whose grammar holds frames out use one that training never drew")
    for name in FREE:
        with open(os.path.join(DEMO, f"{name}.jsonl")) as f: free = [json.loads(line)["messages"][-1]["content"] for line in f]
        print(f"{sum(q in asked for q in free)} of the {len(free)} of {name}.jsonl came up word for word in training: " + "; ".join(sorted(set(free) & asked)))
    print(f"{len(questions & asked)} of {len(questions)} last questions were also asked in training (they have nothing in them to hold out: " + "; ".join(sorted(questions & asked)[:3]) + ")")
    print(f"{len(in_tools)} held-out words were met as part of a made-up tool's name, and nowhere else: {' '.join(in_tools)}")
    for w in wrong: print("WRONG:", w, file=sys.stderr)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
