#!/usr/bin/env python3
"""Draws what three KDA layers of four are worth: time of a token over depth, beside the same shape with MLA in every
layer. Standard library only.

usage: hybrid.py HYBRID.json ALL_MLA.json OUT.svg   what `deltad bench FILE --json --depths 4k,32k,128k,512k,1000k --laid`
                                                    printed for `deltad-quantize synth --shape 48b --layers 27 [--all-mla]`
       hybrid.py hybrid.json OUT.svg                both in one file, under those two names"""
import json
import math
import sys

WIDTH, HEIGHT, LEFT, TOP, BOTTOM, GAP = 420, 300, 56, 44, 40, 40
SIDES = (("hybrid", "KDA, three layers of four", "#1f6f8b"), ("all_mla", "MLA in every layer", "#c0562f"))
PANELS = (("decode", "milliseconds for each token of an answer", 1e3), ("prefill", "microseconds for each token of a prompt", 1e6))


def points(report, what):
    """(depth, seconds a token), of one lane."""
    return [(f["depth"], 1 / f["deltad"]["median"]) for f in report["figures"] if f["what"] == what and f["lanes"] == 1 and f["depth"]]


def short(tokens):
    return f"{tokens // 1024}k" if tokens < 1 << 19 else f"{round(tokens / 1024)}k"


def panel(both, what, title, scale, left):
    lines = {side: points(both[side], what) for side, _, _ in SIDES}
    every = [p for line in lines.values() for p in line]
    depths = sorted({depth for depth, _ in every})
    low, high = (f(math.log(s * scale) for _, s in every) for f in (min, max))
    x = lambda depth: left + LEFT + (WIDTH - LEFT - 20) * (math.log(depth) - math.log(depths[0])) / (math.log(depths[-1]) - math.log(depths[0]))
    y = lambda s: TOP + (HEIGHT - TOP - BOTTOM) * (1 - (math.log(s * scale) - low) / (high - low))
    out = [f'<text x="{left + LEFT}" y="24" font-weight="bold">{title}</text>']
    for depth in depths:
        out.append(f'<text x="{x(depth):.1f}" y="{HEIGHT - 14}" text-anchor="middle">{short(depth)}</text>')
    decade = [m * 10**e for e in range(-3, 6) for m in (1, 2, 5)]
    for mark in (m for m in decade if low - 1e-9 <= math.log(m) <= high + 1e-9):
        at = y(mark / scale)
        out.append(f'<line x1="{left + LEFT}" y1="{at:.1f}" x2="{left + WIDTH - 20}" y2="{at:.1f}" stroke="#ddd"/>'
                   f'<text x="{left + LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{mark:g}</text>')
    for side, name, colour in SIDES:
        path = " ".join(f"{x(d):.1f},{y(s):.1f}" for d, s in lines[side])
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        out += [f'<circle cx="{x(d):.1f}" cy="{y(s):.1f}" r="3" fill="{colour}"/>' for d, s in lines[side]]
    hybrid = dict(lines["hybrid"])
    for at, (depth, seconds) in enumerate(lines["all_mla"]):
        anchor = "middle" if at else "start"  # clear of the numbers beside the axis
        out.append(f'<text x="{x(depth) - 6:.1f}" y="{y(seconds) - 8:.1f}" text-anchor="{anchor}" fill="#555">{seconds / hybrid[depth]:.1f}x</text>')
    return "\n".join(out)


def draw(both):
    panels = [panel(both, what, title, scale, at * (WIDTH + GAP)) for at, (what, title, scale) in enumerate(PANELS)]
    legend = "\n".join(f'<text x="{LEFT + 200 * at}" y="{HEIGHT + 12}" fill="{colour}">{name}</text>' for at, (_, name, colour) in enumerate(SIDES))
    width = len(PANELS) * (WIDTH + GAP) - GAP
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT + 24}" font-family="sans-serif" font-size="12">\n'
            f'<rect width="100%" height="100%" fill="white"/>\n' + "\n".join(panels) + "\n" + legend + "\n</svg>\n")


def main():
    if len(sys.argv) not in (3, 4): sys.exit(__doc__)
    read = []
    for path in sys.argv[1:-1]:
        with open(path) as f: read.append(json.load(f))
    both = read[0] if len(read) == 1 else dict(hybrid=read[0], all_mla=read[1])
    with open(sys.argv[-1], "w") as f: f.write(draw(both))


if __name__ == "__main__":
    main()
