#!/usr/bin/env python3
"""Breaks the kernels and the engine in one place at a time and sees that tests fail.

Each mutant is one replacement in a copy of the tree: a tail that is forgotten, a head that takes
another's place, an order that depends on the company. A mutant that the tests pass is a hole in
them, and so is one whose code has gone: both end the run with an error.

  scripts/mutate.py              every mutant (some minutes each: it compiles every time)
  scripts/mutate.py NAME...      those alone
  scripts/mutate.py --check      only whether each mutant's code is still there

The copy and what is built of it lie below target/mutants, or what is built in CARGO_TARGET_DIR:
in one where dependencies are built already it is quicker, and leaves broken programs there.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
HOME = ROOT / "target" / "mutants"
BUILD = os.environ.get("CARGO_TARGET_DIR", str(HOME / "build"))
CARGO = os.environ.get("CARGO", "cargo").split()

CPU = "ggml-kernels/src/cpu/"
ENGINE = "src/engine/executor/cpu/"
# Tests of kernels, and of bits in any company.
KERNELS = ["-p", "ggml-kernels", "--lib", "cpu"]
PRODUCTS = ["-p", "ggml-kernels", "--test", "products"]
COMPANY = ["-p", "deltad", "--test", "engine", "company"]

# Name, file, what is there once, what takes its place, the tests that must fail.
MUTANTS = [
    ("tail-of-a-matrix", CPU + "products/mod.rs",
     "starts.map(|start| (at, start..matrix.rows().min(start + step)))",
     "starts.map(|start| (at, start..(matrix.rows() / 2 * 2).min(start + step)))",
     PRODUCTS),
    ("tail-of-float-columns", CPU + "floats.rs",
     "    if whole < cols {",
     "    if whole + 1 < cols {",
     PRODUCTS),
    ("tail-of-blocks-of-32", CPU + "quantized/avx512/by_32.rs",
     "            let is_pair = at + 1 < blocks;\n            // The block's",
     "            let is_pair = at + 1 < blocks && (blocks < 9 || at + 2 < blocks);\n            // The block's",
     PRODUCTS),
    ("zero-point-of-a-panel", CPU + "quantized/tile512.rs",
     "_mm512_set1_epi32(-zero * sum)",
     "_mm512_set1_epi32((1 - zero) * sum)",
     PRODUCTS),
    ("one-head-meets-anothers-row", CPU + "products/mod.rs",
     "            input: &places[*head],",
     "            input: &places[*head - usize::from(*head == 2)],",
     PRODUCTS),
    ("one-pair-of-attention-is-not-normed", CPU + "mla/mod.rs",
     "head[WIDTH + at];",
     "head[WIDTH + at.min(WIDTH - 2)];",
     KERNELS),
    ("a-token-sees-the-next-one", CPU + "mla/attend.rs",
     "pair / self.shape.heads + 1;",
     "pair / self.shape.heads + 1 + usize::from(pair % 7 == 6);",
     KERNELS),
    ("splits-in-another-order-when-shared", CPU + "mla/narrow.rs",
     "let others = span.others.clone().step_by(wave.part);",
     "let others = span.others.clone().step_by(wave.part).rev();",
     KERNELS),
    ("tail-of-the-convolution", CPU + "kda/head.rs",
     ".take(shape.taps - 1).enumerate() {\n                // SAFETY",
     ".take(shape.taps - 2).enumerate() {\n                // SAFETY",
     KERNELS),
    ("ranks-in-another-order-in-company", CPU + "experts.rs",
     "                for (ranks, &weight) in ranks.chunks_exact(width).zip(weights) {",
     "                let mut order: Vec<_> = ranks.chunks_exact(width).zip(weights).collect();\n"
     "                if token > 0 {\n                    order.reverse();\n                }\n"
     "                for (ranks, &weight) in order {",
     PRODUCTS),
    ("a-layers-state-in-anothers-slot", ENGINE + "pass.rs",
     "to: &mut self.state.to.layers[number],",
     "to: &mut self.state.to.layers[number / 2],",
     COMPANY),
    ("a-fork-begins-with-nothing", ENGINE + "state.rs",
     "            Some(std::mem::replace(&mut self.slot, fresh))",
     "            self.slot = fresh;\n            None",
     COMPANY),
    ("a-shared-block-is-not-copied", ENGINE + "state.rs",
     "                    own.copy_from_slice((**block).as_ref());",
     "                    let _ = own;",
     COMPANY),
    ("lanes-logits-in-another-order", ENGINE + "pass.rs",
     "        self.wanted_of.iter().map(take).collect()",
     "        let mut all: Vec<_> = self.wanted_of.iter().map(take).collect();\n"
     "        all.reverse();\n        all",
     COMPANY),
]


def place(mutant):
    """The file and how often the code is in it."""
    name, file, old, _, _ = mutant
    path = ROOT / file
    count = path.read_text().count(old) if path.exists() else 0
    return name, file, count


def check(mutants):
    gone = [(name, file, n) for name, file, n in map(place, mutants) if n != 1]
    for name, file, n in gone:
        print(f"mutate: {name}: its code is {n} times in {file}, wanted once", file=sys.stderr)
    return not gone


def copy():
    """Every file that git knows or would take, where it differs from the last copy. Not cargo's
    settings: those of the directories above are in force there, and flags would be given twice."""
    tree = HOME / "tree"
    ask = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(ask, cwd=ROOT, check=True, capture_output=True).stdout
    names = [os.fsdecode(name) for name in names.split(b"\0") if name]
    names = [name for name in names if (ROOT / name).is_file() and not name.startswith(".cargo/")]
    for name in names:
        source, target = ROOT / name, tree / name
        if not target.exists() or target.read_bytes() != source.read_bytes():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
    return tree


def cargo(tree, *arguments):
    env = dict(os.environ, CARGO_TARGET_DIR=BUILD, CARGO_INCREMENTAL="1")
    command = [*CARGO, "test", "--release", "--locked", *arguments]
    return subprocess.run(command, cwd=tree, env=env, capture_output=True, text=True)


def run(tree, mutant):
    """What became of it: killed, survived, or not compiled."""
    _, file, old, new, tests = mutant
    path = tree / file
    whole = path.read_text()
    path.write_text(whole.replace(old, new))
    try:
        package = tests[:4]
        built = cargo(tree, *package, "--no-run")
        if built.returncode != 0:
            return "does not compile", built.stderr[-2000:]
        ran = cargo(tree, *package, "--", *tests[4:])
        failed = [line for line in ran.stdout.splitlines() if line.endswith("... FAILED")]
        if ran.returncode == 0:
            return "SURVIVED", ""
        return "killed", f"{len(failed)} tests failed"
    finally:
        path.write_text(whole)


def main():
    wanted = sys.argv[1:]
    only_check = wanted == ["--check"]
    names = [mutant[0] for mutant in MUTANTS]
    unknown = [] if only_check else [name for name in wanted if name not in names]
    if unknown:
        sys.exit(f"mutate: {unknown[0]}: no such mutant, there are {', '.join(names)}")
    mutants = [m for m in MUTANTS if only_check or not wanted or m[0] in wanted]
    if not check(mutants):
        sys.exit(1)
    if only_check:
        return
    tree = copy()
    holes = 0
    for mutant in mutants:
        begun = time.monotonic()
        outcome, more = run(tree, mutant)
        holes += outcome != "killed"
        print(f"{outcome:17} {mutant[0]:40} {time.monotonic() - begun:4.0f} s  {more}", flush=True)
    if holes:
        sys.exit(f"mutate: {holes} of {len(mutants)} mutants were not seen by the tests")
    print(f"mutate: all {len(mutants)} mutants were seen by the tests")


main()
