#!/usr/bin/env python3
"""Quantizes the demo model to each file type, asks each one the held-out questions through a running daemon, measures
how far it is from F16 on eval.txt, and prints the table of the README.

usage: table.py [--types f16,q8_0,...] [--imatrix FILE] [--json OUT] [--only CATEGORY]... [--jobs N]
Standard library only. Run `make build` first. A type takes some minutes on one core, most of them for the long recalls."""
import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

HERE = os.path.dirname(os.path.abspath(__file__))
PROGRAMS = os.path.join(os.environ.get("CARGO_TARGET_DIR") or os.path.join(HERE, "..", "target"), "release")
TYPES = "f16,q8_0,q6_k,q5_k_m,q4_k_m,q4_0,iq4_xs,q3_k_m"


def run(*args):
    done = subprocess.run(args, capture_output=True, text=True)
    if done.returncode: sys.exit(f"{' '.join(args)}: exit {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def quantizer(*args): return run(os.path.join(PROGRAMS, "deltad-quantize"), *args)


def scores(model, home, ty, only, every=1):
    """Of a daemon that serves `model` on a socket of its own and is stopped at the end."""
    socket, out, log = (os.path.join(home, f"{ty}.{end}") for end in ("sock", "scores", "log"))
    deltad = os.path.join(PROGRAMS, "deltad")
    with open(log, "w") as words:
        daemon = subprocess.Popen([deltad, "serve", "--model", model, "--socket", socket, "--bus", "none", "--threads", "1"], stdout=words, stderr=words)
    try:
        run(deltad, "--socket", socket, "status", "--wait", "60")
        run(sys.executable, os.path.join(HERE, "score.py"), "--socket", socket, "--json", out, "--every", str(every), *(a for c in only for a in ("--only", c)))
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.wait(30)
    with open(out) as f: return json.load(f)["categories"]


def row(home, f16, ty, a):
    model = os.path.join(home, f"{ty}.gguf")
    if ty != "f16": quantizer("convert", f16, model, "--type", ty, "--quiet", *(("--imatrix", a.imatrix) if a.imatrix else ()))
    quality = json.loads(quantizer("quality", f16, model, os.path.join(HERE, "eval.txt"), "--json", "--threads", "1"))
    return dict(type=ty, bytes=quality["b"]["bytes"], scores=scores(model, home, ty, a.only), perplexity=quality["b"]["perplexity"], kl=quality["kl"], top_1=quality["top_1"])


def percent(score): return "" if score is None else f"{100 * score['right'] / score['of']:.1f} %"


def line(r):
    of = r["scores"].get
    cells = [f"`{r['type']}`", f"{r['bytes'] / 2**20:.1f} MiB", percent(of("all")), percent(of("recall 2k")), percent(of("recall 8k")),
             f"{r['perplexity']['value']:.3f}", f"{r['kl']['mean']:.4f} ± {r['kl']['error']:.4f}", f"{r['kl']['p999']:.3f}", f"{100 * r['top_1']:.1f} %"]
    return f"| {' | '.join(cells)} |"


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--types", default=TYPES)
    ap.add_argument("--imatrix", metavar="FILE", help="an importance matrix for `convert`")
    ap.add_argument("--json", metavar="OUT", help="also write everything here")
    ap.add_argument("--only", action="append", default=[], metavar="CATEGORY", help="ask the questions of this category alone; may be repeated")
    ap.add_argument("--jobs", type=int, default=os.cpu_count(), help="types at a time, each on one core; all cores if not given")
    a = ap.parse_args()
    with tempfile.TemporaryDirectory() as home:
        f16 = os.path.join(home, "f16.gguf")
        quantizer("convert", os.path.join(HERE, "model"), f16, "--type", "f16", "--quiet")
        rows = []
        print("| type | size | held-out, all | recall at 2k | recall at 8k | perplexity | KL, mean | KL, 99.9 % | same first token |\n"
              "|---|---|---|---|---|---|---|---|---|", flush=True)
        with ThreadPoolExecutor(a.jobs) as pool:
            for r in pool.map(lambda ty: row(home, f16, ty, a), a.types.split(",")):
                rows.append(r)
                print(line(r), flush=True)
    if a.json:
        with open(a.json, "w") as f:
            json.dump(rows, f, indent=1)
            f.write("\n")


if __name__ == "__main__":
    main()
