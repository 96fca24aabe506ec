"""Holds demo/conversation.json with the torch model, as `make demo` does with the daemon: each reply is kept as history."""
import json, sys
import torch
import hub
from generate import message, passes, reply
from tokenizer import Tokenizer

net, tok, script = hub.load(sys.argv[1]), Tokenizer(sys.argv[1]), json.load(open(sys.argv[2]))
history, wrong = [dict(role="system", content=script["system"])], 0
for turn in script["turns"]:
    history.append(dict(role="user", content=turn["user"]))
    for check in ("expect", "answer"):
        if check == "answer":
            if "result" not in turn: continue
            history.append(dict(role="tool", content=json.dumps(turn["result"])))
        item = dict(messages=history, tools=script["tools"], max_tokens=96, reference="")
        text = reply(net, tok, item, "cpu", torch.float32)
        ok = check not in turn or passes(turn[check], message(text)); wrong += not ok
        print(f"{'   ' if ok else '!! '}{history[-1]['content']}\n      -> {text}")
        m = message(text)
        history.append(dict(role="assistant", content=m["content"]) | (dict(tool_calls=m["tool_calls"]) if m["tool_calls"] else {}))
sys.exit(wrong > 0)
