"""Owns one question: how far back does it remember? A fact, so much prose with other people's facts in it, the question;
right when greedy decoding would say the whole answer. One pass each: the answer is guessed and checked token by token."""
import argparse, json
import torch
import hub
from conversation import letterwise, pieces
from facts import Facts, passage, recall, tell
from tokenizer import Tokenizer
from world import World, words_of


def item(seed, tok, tokens):
    """(ids, where the answer begins): at least so many tokens lie between the fact and its question."""
    w, f = World(seed, "held"), Facts()
    turns = tell(w, f); key = f.last
    render = lambda ts, system="": "".join(t for t, _ in pieces([dict(role=r, content=c) for u, a, _ in ts for r, c in (("user", u), ("assistant", a))], None, system))
    ids = letterwise(tok.encode, render(turns, None)); start = len(ids)
    while len(ids) - start < tokens:
        left = tokens - len(ids) + start
        ids += letterwise(tok.encode, render(passage(w, f, max(2, min(60, left // 14)))))
    ask = recall(w, f, key)
    text = render(ask); at = text.index("<|im_assistant|>assistant<|im_middle|>") + len("<|im_assistant|>assistant<|im_middle|>")
    ids += tok.encode(text[:at]); begin = len(ids)
    return ids + tok.encode(text[at:]), begin


@torch.no_grad()
def main():
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("--model", required=True); ap.add_argument("--count", type=int, default=100)
    ap.add_argument("--tokens", type=int, nargs="+", default=[500, 2000, 8000, 16000, 32000])
    ap.add_argument("--json")
    a = ap.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    net, tok, out = hub.load(a.model).to(device), Tokenizer(a.model), {}
    World.PIECES = words_of(a.model)
    for tokens in a.tokens:
        right = 0
        for seed in range(a.count):
            ids, begin = item(40_000_000 + seed, tok, tokens)
            x, _ = net.hidden(torch.nn.functional.pad(torch.tensor([ids], device=device), (0, -len(ids) % 32)), torch.float32)
            right += net.logits(x[begin - 1:len(ids) - 1], torch.float32).argmax(-1).tolist() == ids[begin:]
        out[tokens] = dict(right=right, of=a.count)
        print(f"a fact told {tokens} tokens ago: {right} of {a.count}", flush=True)
    if a.json:
        with open(a.json, "w") as f: json.dump(out, f)


if __name__ == "__main__":
    main()
