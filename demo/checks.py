"""Owns the judging of replies: one check, one message, right or wrong. Standard library only."""
import json
import re


def passes(check, message):
    """`message` is the assistant's, in OpenAI's form; `check` a line's check from heldout.jsonl."""
    kind, want, text = check["kind"], check["want"], message.get("content") or ""
    if kind == "contains":
        return all(re.search(r"(?<!\w)" + re.escape(w) + r"(?!\w)", text) for w in want)
    if kind == "any":
        return any(re.search(r"(?<!\w)" + re.escape(w) + r"(?!\w)", text) for w in want)
    if kind == "number":                                   # the last number said is the answer
        return (re.findall(r"-?\d+", text) or [None])[-1] == want
    if kind == "json":
        try: return json.loads(text) == want
        except ValueError: return False
    if kind == "tool":
        calls = message.get("tool_calls") or []
        try: return len(calls) == 1 and calls[0]["function"]["name"] == check["name"] and json.loads(calls[0]["function"]["arguments"]) == want
        except (ValueError, KeyError, TypeError): return False
    raise ValueError(f"unknown check kind: {kind}")


def table(results):
    """results: (category, right?) pairs -> {category: {"right", "of", "share"}} and the table to print."""
    by = {}
    for category, right in results:
        row = by.setdefault(category, dict(right=0, of=0)); row["of"] += 1; row["right"] += bool(right)
    by["all"] = dict(right=sum(r["right"] for r in by.values()), of=sum(r["of"] for r in by.values()))
    for row in by.values(): row["share"] = round(row["right"] / row["of"], 4)
    return by, "\n".join(f"{name:22} {row['right']:4} of {row['of']:4}   {100 * row['share']:5.1f} %" for name, row in by.items())
