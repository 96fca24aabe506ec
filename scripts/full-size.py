#!/usr/bin/env python3
"""Writes a checkpoint of random weights in the hub's layout with Kimi-Linear-48B's widths, 256 experts among them,
converts it with deltad-quantize in one step and, given llama.cpp's sources, with its converter and its quantizer, and
finds out an importance matrix of it; prints seconds and what each process had in memory at most, beside the files that
it maps.

usage: full-size.py DIR [--layers 4] [--dense 3] [--type q4_k_m] [--also q8_0] [--llama.cpp SOURCES [--python PYTHON]]
Four layers, three of them dense, are 5.8 GB and as much again for llama.cpp's converter; --dense 1 as in the real model 13 GB.
llama.cpp's converter wants a Python with torch, transformers and sentencepiece; it is spared the vocabulary. Its quantizer is the one
in the library that we link (`cargo bench --bench quality`). Standard library only. Run `make build` first."""
import argparse
import array
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import time

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
OURS = os.path.join(os.environ.get("CARGO_TARGET_DIR") or os.path.join(ROOT, "target"), "release", "deltad-quantize")
HIDDEN, VOCAB, HEADS, EXPERTS, WIDTH, DENSE = 2304, 163840, 32, 256, 1024, 9216
LATENT, NOPE, ROPE, HEAD = 512, 128, 64, 128
# llama.cpp's converter, which knows tokenizers by a list that a made-up one is not in: none is written.
CONVERTER = """import sys; sys.path[:0] = [sys.argv[1], sys.argv[1] + "/gguf-py"]; sys.argv[:1] = []
import runpy, conversion.kimi_linear as kimi
kimi.KimiLinearModel.set_vocab = lambda self: None
runpy.run_path(sys.argv[0] + "/convert_hf_to_gguf.py", run_name="__main__")"""


def tensors(layers, dense):
    """(shard, name, type, shape): what the real checkpoint's layers hold."""
    yield 0, "model.embed_tokens.weight", "BF16", (VOCAB, HIDDEN)
    yield 0, "model.norm.weight", "BF16", (HIDDEN,)
    yield 0, "lm_head.weight", "BF16", (VOCAB, HIDDEN)
    wide = HEADS * HEAD
    for n in range(layers):
        at = f"model.layers.{n}."
        one = lambda name, *shape, ty="BF16": (n + 1, at + name, ty, shape)
        for norm in ("input_layernorm", "post_attention_layernorm"): yield one(norm + ".weight", HIDDEN)
        if n % 4 == 3:
            yield one("self_attn.q_proj.weight", HEADS * (NOPE + ROPE), HIDDEN)
            yield one("self_attn.kv_a_proj_with_mqa.weight", LATENT + ROPE, HIDDEN)
            yield one("self_attn.kv_a_layernorm.weight", LATENT)
            yield one("self_attn.kv_b_proj.weight", HEADS * 2 * NOPE, LATENT)
        else:
            for p in "qkv":
                yield one(f"self_attn.{p}_proj.weight", wide, HIDDEN)
                yield one(f"self_attn.{p}_conv1d.weight", wide, 1, 4)
            yield one("self_attn.A_log", 1, 1, HEADS, 1, ty="F32")
            yield one("self_attn.dt_bias", wide, ty="F32")
            for p in "fg":
                yield one(f"self_attn.{p}_a_proj.weight", HEAD, HIDDEN)
                yield one(f"self_attn.{p}_b_proj.weight", wide, HEAD)
            yield one("self_attn.b_proj.weight", HEADS, HIDDEN)
            yield one("self_attn.o_norm.weight", HEAD)
        yield one("self_attn.o_proj.weight", HIDDEN, wide)
        if n < dense:
            for p, shape in (("gate", (DENSE, HIDDEN)), ("up", (DENSE, HIDDEN)), ("down", (HIDDEN, DENSE))):
                yield one(f"mlp.{p}_proj.weight", *shape)
            continue
        moe = "block_sparse_moe."
        yield one(moe + "gate.weight", EXPERTS, HIDDEN)
        yield one(moe + "gate.e_score_correction_bias", EXPERTS, ty="F32")
        for e in range(EXPERTS):
            for p, shape in (("w1", (WIDTH, HIDDEN)), ("w2", (HIDDEN, WIDTH)), ("w3", (WIDTH, HIDDEN))):
                yield one(f"{moe}experts.{e}.{p}.weight", *shape)
        for p, shape in (("gate", (WIDTH, HIDDEN)), ("up", (WIDTH, HIDDEN)), ("down", (HIDDEN, WIDTH))):
            yield one(f"{moe}shared_experts.{p}_proj.weight", *shape)


def write(folder, layers, dense):
    os.makedirs(folder)
    demo = os.path.join(ROOT, "demo", "model")
    for name in ("tiktoken.model", "tokenizer_config.json", "generation_config.json"): shutil.copy(os.path.join(demo, name), folder)
    with open(os.path.join(demo, "config.json")) as f: config = json.load(f)
    config |= dict(vocab_size=VOCAB, num_key_value_heads=HEADS, head_dim=NOPE + ROPE, hidden_size=HIDDEN, intermediate_size=DENSE,
                   moe_intermediate_size=WIDTH, num_hidden_layers=layers, num_attention_heads=HEADS, kv_lora_rank=LATENT, qk_rope_head_dim=ROPE,
                   qk_nope_head_dim=NOPE, v_head_dim=NOPE, num_experts=EXPERTS, num_experts_per_token=8, first_k_dense_replace=dense)
    full = [n for n in range(1, layers + 1) if n % 4 == 0]
    config["linear_attn_config"] = dict(head_dim=HEAD, num_heads=HEADS, short_conv_kernel_size=4, full_attn_layers=full,
                                        kda_layers=[n for n in range(1, layers + 1) if n not in full])
    with open(os.path.join(folder, "config.json"), "w") as f: json.dump(config, f, indent=1)
    # Two million normal numbers, begun elsewhere for each tensor: a weight's neighbours are what counts for who quantizes it.
    draw = random.Random(1)
    raw = array.array("f", (draw.gauss(0, 0.02) for _ in range(1 << 21))).tobytes()
    pool = bytearray(len(raw) // 2)
    pool[0::2], pool[1::2] = raw[2::4], raw[3::4]
    pool = bytes(pool) * 2
    half, index, names = len(pool) // 2, {}, list(tensors(layers, dense))
    for shard in range(layers + 1):
        file, header, at = f"model-{shard + 1:05}-of-{layers + 1:05}.safetensors", {}, 0
        for of, name, ty, shape in names:
            if of != shard: continue
            size = {"BF16": 2, "F32": 4}[ty]
            for n in shape: size *= n
            header[name] = dict(dtype=ty, shape=shape, data_offsets=[at, at + size])
            index[name], at = file, at + size
        text = json.dumps(header).encode()
        with open(os.path.join(folder, file), "wb") as f:
            f.write(struct.pack("<Q", len(text)) + text)
            for name, about in header.items():
                left = about["data_offsets"][1] - about["data_offsets"][0]
                if "norm" in name: f.write(b"\x80\x3f" * (left // 2))
                elif about["dtype"] == "F32": f.write(bytes(left))
                else:
                    while left:
                        start = 2 * draw.randrange(half // 2)
                        f.write(pool[start:start + min(half, left)])
                        left -= min(half, left)
    with open(os.path.join(folder, "model.safetensors.index.json"), "w") as f:
        json.dump(dict(metadata=dict(total_size=0), weight_map=index), f)


def run(what, *args):
    """Runs a program; says how long it took and what it had in memory at most, beside the pages of files."""
    with tempfile.TemporaryFile() as words:
        began, most = time.monotonic(), 0
        child = subprocess.Popen(args, stdout=words, stderr=words)
        while child.poll() is None:
            try:
                with open(f"/proc/{child.pid}/status") as f: status = dict(line.split(":", 1) for line in f)
                most = max(most, sum(int(status.get(key, "0 kB").split()[0]) for key in ("RssAnon", "RssShmem")))
            except OSError: pass
            time.sleep(0.02)
        seconds = time.monotonic() - began
        words.seek(0)
        if child.returncode: sys.exit(f"{what}: exit {child.returncode}: {words.read().decode(errors='replace')[-2000:]}")
    print(f"| {what} | {seconds:.1f} | {most / 1024:.0f} |", flush=True)
    return seconds


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("dir", help="where everything is written; left there")
    ap.add_argument("--layers", type=int, default=4)
    ap.add_argument("--dense", type=int, default=3, help="layers without experts")
    ap.add_argument("--type", default="q4_k_m")
    ap.add_argument("--also", default="q8_0", help="the second type of a run that makes two files")
    ap.add_argument("--llama.cpp", dest="llama", metavar="SOURCES", help="a checkout of llama.cpp")
    ap.add_argument("--python", default=sys.executable, help="what runs llama.cpp's converter")
    ap.add_argument("--quantizer", nargs="+", help="what runs llama.cpp's quantizer, before SOURCE TARGET TYPE; the bench if not given",
                    default=["cargo", "bench", "--profile", "release", "--locked", "--bench", "quality", "--", "quantize"])
    a = ap.parse_args()
    at = lambda name: os.path.join(a.dir, name)
    checkpoint = at("checkpoint")
    if not os.path.exists(checkpoint): write(checkpoint, a.layers, a.dense)
    size = sum(os.path.getsize(os.path.join(checkpoint, f)) for f in os.listdir(checkpoint))
    print(f"{a.layers} layers, {a.dense} of them dense: {size / 1e9:.1f} GB of bf16\n\n| | seconds | MiB beside the maps |\n|---|---|---|")
    convert = lambda what, to, types: run(what, OURS, "convert", checkpoint, at(to), "--type", types, "--overwrite")
    ours = convert(f"deltad: `{a.type}`", "ours.gguf", a.type)
    convert(f"deltad: `{a.type}` and `{a.also}` in one", "both-{type}.gguf", f"{a.type},{a.also}")
    if a.llama:
        theirs = run("llama.cpp: converter, to bf16", a.python, "-c", CONVERTER, a.llama, checkpoint, "--outtype", "bf16", "--outfile", at("bf16.gguf"))
        theirs += run(f"llama.cpp: quantizer, to `{a.type}`", *a.quantizer, at("bf16.gguf"), at("theirs.gguf"), a.type)
        print(f"\nllama.cpp took {theirs / ours:.1f} times as long as deltad.\n")
    run("deltad: imatrix of 1024 tokens", OURS, "imatrix", at("ours.gguf"), os.path.join(ROOT, "demo", "calibration.txt"), "-o", at("importance.gguf"),
        "--chunks", "2", "--overwrite")


if __name__ == "__main__":
    main()
