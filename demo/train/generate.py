"""Owns local scoring: greedy replies of a checkpoint to heldout.jsonl, judged as the daemon's are. No cache: the known
answer is guessed first and one pass accepts all of it that greedy decoding would have said; the rest goes by tokens."""
import argparse, json, os, re, sys
import torch
import hub
from conversation import pieces
from tokenizer import Tokenizer
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from checks import passes, table


def prompt(item):
    messages, system = item["messages"], None
    if messages[0]["role"] == "system": system, messages = messages[0]["content"], messages[1:]
    declared = json.dumps(item["tools"]) if item.get("tools") else None
    return "".join(t for t, _ in pieces(messages, declared, system)) + "<|im_assistant|>assistant<|im_middle|>"


def reference(item):
    return "".join(t for t, said in pieces([dict(role="assistant", content=item.get("reference"), tool_calls=item.get("reference_calls"))], None, "") if said)


@torch.no_grad()
def reply(net, tok, item, device, dtype):
    ids, guess, said = tok.encode(prompt(item)), tok.encode(reference(item)), []
    while len(said) < item["max_tokens"] and (not said or said[-1] != tok.end):
        x, _ = net.hidden(torch.nn.functional.pad(torch.tensor([ids + said + guess], device=device), (0, -(len(ids) + len(said) + len(guess)) % 32)), dtype)
        start = len(ids) + len(said) - 1
        best = net.logits(x[start:start + len(guess) + 1], dtype).argmax(-1).tolist()
        n = 0
        while n < len(guess) and guess[n] == best[n]: n += 1
        said += guess[:n]
        if said[-1:] != [tok.end]: said.append(best[n])
        guess = []
    return tok.decode(said).removesuffix("<|im_end|>")


def message(text):
    """The reply's text in OpenAI's form."""
    calls = re.findall(r"<\|tool_call_begin\|>functions\.(\w+):\d+<\|tool_call_argument_begin\|>(.*?)<\|tool_call_end\|>", text, re.S)
    return dict(content=text.split("<|tool_calls_section_begin|>")[0], tool_calls=[dict(function=dict(name=n, arguments=a)) for n, a in calls])


def main():
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("--model", required=True); ap.add_argument("--heldout", required=True)
    ap.add_argument("--json"); ap.add_argument("--show", action="store_true", help="print the wrong ones")
    a = ap.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    net, tok, results = hub.load(a.model).to(device), Tokenizer(a.model), []
    for line in open(a.heldout):
        item = json.loads(line)
        if item.get("constrained"): continue             # a server's force, which is not here
        text = reply(net, tok, item, device, torch.float32)
        right = passes(item["check"], message(text)); results.append((item["category"], right))
        if a.show and not right: print(f"-- {item['id']}: {item['messages'][-1]['content'][-160:]!r}\n   wanted {reference(item)!r}\n   got    {text!r}", flush=True)
    by, text = table(results); print(text)
    if a.json: json.dump(by, open(a.json, "w"), indent=1)


if __name__ == "__main__":
    main()
