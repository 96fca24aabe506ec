"""Owns the optimizer: Muon for the matrices inside the blocks, AdamW for all else. Muon's steps have equal singular
values, which leaves no outlier columns behind: kind to quantization."""
import torch


def orthogonal(G):
    """Newton-Schulz towards the nearest (semi-)orthogonal matrix, for a batch [n, rows, cols], in bf16."""
    flip = G.shape[-2] > G.shape[-1]
    X = (G.mT if flip else G).bfloat16()
    X = X / (X.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        A = X @ X.mT
        X = 3.4445 * X + (-4.7750 * A + 2.0315 * A @ A) @ X
    return (X.mT if flip else X).float()


class Muon:
    def __init__(self, params, lr, momentum=0.95, decay=0.02):
        self.lr, self.momentum, self.decay, self.groups = lr, momentum, decay, {}
        for p in params: self.groups.setdefault(p.shape[-2:], []).append(p)
        self.state = {p: torch.zeros_like(p) for ps in self.groups.values() for p in ps}

    @torch.no_grad()
    def step(self, scale):
        for (rows, cols), ps in self.groups.items():
            ms = [self.state[p] for p in ps]
            torch._foreach_lerp_(ms, [p.grad for p in ps], 1 - self.momentum)
            ahead = torch._foreach_lerp([p.grad for p in ps], ms, self.momentum)
            steps = orthogonal(torch.cat([a.view(-1, rows, cols) for a in ahead]))
            lr = self.lr * scale
            torch._foreach_mul_(ps, 1 - lr * self.decay)
            torch._foreach_add_(ps, [s.view_as(p) for s, p in zip(steps.split([a.numel() // (rows * cols) for a in ahead]), ps)],
                                alpha=-lr * max(1, rows / cols) ** 0.5)


def split(net):
    """(matrices for Muon, tables and small projections for AdamW with decay, vectors without)"""
    muon, decayed, plain = [], [], []
    for n, p in net.named_parameters():
        last = n.rsplit(".", 1)[-1]
        if p.ndim < 2: plain.append(p)
        elif last in ("embed", "head", "router", "conv", "b"): decayed.append(p)
        else: muon.append(p)
    return muon, decayed, plain
