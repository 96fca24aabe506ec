#!/usr/bin/env python3
"""Quantizes the demo model by us and by llama.cpp's quantizer, with one importance matrix, measures how far each file is
from F16 on a text, asks each the held-out questions through a running daemon, and prints the table of
docs/quantization.md.

usage: beside.py [--types q3_k_s,iq3_s,...] [--text FILE] [--json OUT] [--every N] [--jobs N]
Questions with 8000 tokens between fact and question, and more, are left out: few as they are, they take most of the time.
Standard library only. Run `make build` first; the bench that quantizes is built on the way."""
import argparse
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

from table import HERE, percent, scores

TYPES = "q4_k_m,q3_k_m,q3_k_s,iq3_s,iq3_xxs,q2_k,q2_k_s,iq2_s,iq2_xs,iq2_xxs,iq1_m"
LONG = ("recall 8k", "recall 16k", "recall 32k")


def categories():
    with open(os.path.join(HERE, "heldout.jsonl")) as f: all = {json.loads(line)["category"] for line in f}
    return sorted(all - set(LONG))


def line(r):
    cells = [f"`{r['type']}`", r["by"], f"{r['bytes']:,}", f"{r['bits']:.2f}", f"{r['kl']:.4f} ± {r['error']:.4f}", f"{r['kl_999']:.2f}",
             f"{100 * r['top_1']:.2f} %", percent(r["scores"].get("all"))]
    return f"| {' | '.join(cells)} |"


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--types", default=TYPES)
    ap.add_argument("--text", metavar="FILE", default=os.path.join(HERE, "eval.txt"), help="what divergence is measured on")
    ap.add_argument("--json", metavar="OUT", help="also write everything here")
    ap.add_argument("--every", type=int, default=1, metavar="N", help="ask every Nth question alone")
    ap.add_argument("--jobs", type=int, default=os.cpu_count(), help="files asked at a time, each on one core; all cores if not given")
    ap.add_argument("--bench", metavar="PROGRAM", help="the built bench, instead of cargo's")
    a = ap.parse_args()
    bench = [a.bench] if a.bench else ["cargo", "bench", "--profile", "release", "--locked", "--bench", "quality", "--"]
    with tempfile.TemporaryDirectory() as home:
        done = subprocess.run([*bench, "--types", a.types, "--matrix-only", "--text", os.path.abspath(a.text), "--keep", home], stdout=sys.stderr)
        if done.returncode: sys.exit("the bench failed")
        with open(os.path.join(home, "files.json")) as f: rows = json.load(f)
        only = categories()
        print("| type | by | bytes | bits per weight | KL, mean | KL, 99.9 % | same first token | held-out |\n|---|---|---|---|---|---|---|---|", flush=True)
        ask = lambda r: r | dict(scores=scores(os.path.join(home, r["file"]), home, r["file"], only, a.every))
        with ThreadPoolExecutor(a.jobs) as pool:
            asked = []
            for r in pool.map(ask, rows):
                asked.append(r)
                print(line(r), flush=True)
    if a.json:
        with open(a.json, "w") as f:
            json.dump(asked, f, indent=1)
            f.write("\n")


if __name__ == "__main__":
    main()
