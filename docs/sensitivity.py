#!/usr/bin/env python3
"""Which tensors suffer most from few bits: quantizes one kind at a time, everything else in F16, and measures the KL
divergence from the F16 file on a text. Standard library only.

usage: sensitivity.py measure MODEL TEXT OUT.json [--types q3_k,q4_k] [--imatrix FILE] [--chunks N] [--jobs N]
           MODEL: a checkpoint or an F16 file; types below 3 bits want an importance matrix
       sensitivity.py draw IN.json OUT.svg
Run it after `cargo build --release`; DELTAD_QUANTIZE names another program than target/release/deltad-quantize."""
import json
import math
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

HERE = os.path.dirname(os.path.abspath(__file__))
PROGRAM = os.environ.get("DELTAD_QUANTIZE", os.path.join(HERE, "..", "target", "release", "deltad-quantize"))

# What the picture calls a kind, and the names of its tensors. MLA and KDA layers share some names: `kinds` tells them
# apart by layer.
SHARED = [
    ("token embedding", r"^token_embd"), ("output", r"^output\."),
    ("decay (ssm_f)", r"\.ssm_f_[ab]"), ("output gate (ssm_g)", r"\.ssm_g_[ab]"), ("beta (ssm_beta)", r"\.ssm_beta"),
    ("MLA latent (attn_kv_a_mqa)", r"\.attn_kv_a_mqa"), ("MLA keys (attn_k_b)", r"\.attn_k_b"), ("MLA values (attn_v_b)", r"\.attn_v_b"),
    ("dense gate, up", r"\.ffn_(gate|up)\.weight"), ("dense down", r"\.ffn_down\.weight"),
    ("experts' gate", r"\.ffn_gate_exps"), ("experts' up", r"\.ffn_up_exps"), ("experts' down", r"\.ffn_down_exps"),
    ("shared expert's gate, up", r"\.ffn_(gate|up)_shexp"), ("shared expert's down", r"\.ffn_down_shexp"),
]
# Measured as most files of these types are made.
WITHOUT = ("q3_k", "q4_k")
SEARCHED = ("iq3_xxs", "iq2_s", "iq2_xs", "iq2_xxs", "iq1_m")


def run(*args):
    done = subprocess.run([PROGRAM, *args], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(args)}: {done.stderr.strip()}")
    return done.stdout


def kinds(tensors):
    mla = sorted({t["name"].split(".")[1] for t in tensors if ".attn_kv_a_mqa" in t["name"]}, key=int)
    kda = sorted({t["name"].split(".")[1] for t in tensors if ".ssm_f_a" in t["name"]}, key=int)
    of = lambda layers, names: rf"^blk\.({'|'.join(layers)})\.{names}\.weight"
    layered = [(f"KDA {n} (attn_{n})", of(kda, f"attn_{n}")) for n in "qkv"] + [
        ("KDA output (attn_output)", of(kda, "attn_output")), ("MLA q (attn_q)", of(mla, "attn_q")), ("MLA output (attn_output)", of(mla, "attn_output"))]
    return SHARED[:2] + layered + SHARED[2:]


def measure(model, text, out, types, jobs, imatrix, chunks):
    with tempfile.TemporaryDirectory() as home:
        f16 = os.path.join(home, "f16.gguf")
        run("convert", model, f16, "--type", "f16", "--quiet")
        tensors = json.loads(run("inspect", f16, "--json"))["tensors"]
        whole = {t["name"]: t for t in tensors}

        def one(job):
            kind, pattern, ty = job
            if kind == "token embedding" and ty in SEARCHED:
                return None  # Its rows are looked up: no importance is known of them.
            file = os.path.join(home, f"{jobs_list.index(job)}.gguf")
            run("convert", f16, file, "--type", "f16", "--tensor-type", f"{pattern}={ty}", "--quiet", *(("--imatrix", imatrix) if imatrix and ty not in WITHOUT else ()))
            held = [t for t in json.loads(run("inspect", file, "--json"))["tensors"] if t["type"] != whole[t["name"]]["type"]]
            if not held:
                return None
            quality = json.loads(run("quality", f16, file, text, "--json", "--threads", "1", *(("--chunks", chunks) if chunks else ())))
            os.remove(file)
            count = lambda t: math.prod(t["shape"])
            return dict(kind=kind, asked=ty, types=sorted({t["type"] for t in held}), weights=sum(map(count, held)), bytes=sum(t["bytes"] for t in held),
                        kl=quality["kl"], top_1=quality["top_1"])

        jobs_list = [(kind, pattern, ty) for ty in types for kind, pattern in kinds(tensors)]
        with ThreadPoolExecutor(jobs) as pool:
            rows = []
            for row in pool.map(one, jobs_list):
                if row:
                    rows.append(row)
                    print(f"{row['asked']:5} {row['kind']:32} {row['weights']:9}  KL {row['kl']['mean']:.6f} ± {row['kl']['error']:.6f}", flush=True)
    with open(out, "w") as f:
        json.dump(dict(model=os.path.relpath(model, os.path.join(HERE, "..")), text=os.path.relpath(text, os.path.join(HERE, "..")), rows=rows), f, indent=1)
        f.write("\n")


def draw(source, out):
    with open(source) as f:
        data = json.load(f)
    types = list(dict.fromkeys(r["asked"] for r in data["rows"]))
    # Damage for each million weights: what one more bit there is worth.
    value = lambda r: max(r["kl"]["mean"] / r["weights"] * 1e6, 1e-9)
    order = sorted({r["kind"] for r in data["rows"]}, key=lambda k: -max(value(r) for r in data["rows"] if r["kind"] == k))
    logs = [math.log10(value(r)) for r in data["rows"]]
    low, high = math.floor(min(logs)), math.ceil(max(logs))
    left, right, top, step = 230, 660, 64, 22
    x = lambda v: left + (math.log10(v) - low) / (high - low) * (right - left)
    height = top + step * len(order) + 46
    colours = ["#b5442e", "#2e6bb5", "#3f8f4f"]
    svg = [f'<svg xmlns="http://www.w3.org/2000/svg" width="720" height="{height}" font-family="sans-serif" font-size="12">',
           f'<rect width="720" height="{height}" fill="white"/>',
           '<text x="12" y="22" font-size="15">KL divergence per million weights when one kind alone is quantized</text>']
    for i, ty in enumerate(types):
        svg.append(f'<circle cx="{left + 90 * i}" cy="42" r="5" fill="{colours[i]}"/><text x="{left + 10 + 90 * i}" y="46">{ty}</text>')
    for power in range(low, high + 1):
        at = x(10.0 ** power)
        svg.append(f'<line x1="{at:.1f}" y1="{top - 8}" x2="{at:.1f}" y2="{height - 40}" stroke="#ddd"/>'
                   f'<text x="{at:.1f}" y="{height - 24}" text-anchor="middle">1e{power}</text>')
    for n, kind in enumerate(order):
        y = top + step * n + step / 2
        svg.append(f'<text x="{left - 12}" y="{y + 4}" text-anchor="end">{kind}</text>')
        for row in (r for r in data["rows"] if r["kind"] == kind):
            k, colour = row["kl"], colours[types.index(row["asked"])]
            scale = 1e6 / row["weights"]
            ends = [x(max((k["mean"] + s * k["error"]) * scale, 10.0 ** low)) for s in (-1, 1)]
            svg.append(f'<line x1="{ends[0]:.1f}" y1="{y}" x2="{min(ends[1], right):.1f}" y2="{y}" stroke="{colour}" stroke-opacity="0.5" stroke-width="2"/>'
                       f'<circle cx="{x(value(row)):.1f}" cy="{y}" r="5" fill="{colour}"><title>{kind}, {"/".join(row["types"])}: {k["mean"]:.6f} nats, {row["weights"]} weights</title></circle>')
    svg.append(f'<text x="{left}" y="{height - 8}" fill="#555">nats per million weights (log), ± standard error; measured on {data["text"]}</text></svg>')
    with open(out, "w") as f:
        f.write("\n".join(svg) + "\n")


def main(args):
    option = lambda name, default: args[args.index(name) + 1] if name in args else default
    if len(args) >= 4 and args[0] == "measure":
        measure(*args[1:4], option("--types", "q3_k,q4_k").split(","), int(option("--jobs", os.cpu_count())), option("--imatrix", None), option("--chunks", None))
    elif len(args) == 3 and args[0] == "draw":
        draw(*args[1:])
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
