"""Owns the network: a Kimi-Linear (KDA and MLA 3:1, mixture of experts) over a flat list of tokens, written for
training. All experts are computed for every token and the unchosen weighted by zero: at this size that beats routing.
Rows of one batch have equal length, a multiple of the KDA chunk; token t of row b sits at b * T + t, so that every
piece but the attention and the scan sees one shape whatever the row length, and is compiled once."""
import math
import torch
from torch import nn
import torch.nn.functional as F
from kda import CHUNK, kda_chunks, to_chunks, from_chunks

HIDDEN, LAYERS, HEADS, HEAD = 256, 8, 4, 64
RANK, ROPE, NOPE, VDIM = 128, 32, 64, 64
EXPERTS, TOP, EXPERT_FF, DENSE_FF, SCALING, EPS = 4, 2, 256, 768, 2.446, 1e-5
MLA_LAYERS = (3, 7)                                       # counted from 0; the hub counts from 1


def lin(x, w, dtype):
    return F.linear(x.to(dtype), w.to(dtype))


def norm(x, w):
    x = x.float()
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPS) * w


def matrix(*shape, scale=1.0):
    return nn.Parameter(torch.randn(*shape) * scale / math.sqrt(shape[-1]))


class KDA(nn.Module):
    def __init__(self):
        super().__init__()
        inner = HEADS * HEAD
        self.qkv, self.f_a, self.g_a, self.b = matrix(3, inner, HIDDEN), matrix(HEAD, HIDDEN), matrix(HEAD, HIDDEN), matrix(HEADS, HIDDEN)
        self.conv = nn.Parameter(torch.randn(3 * inner, 4) * 0.3)
        self.f_b, self.g_b, self.o = matrix(inner, HEAD), matrix(inner, HEAD), matrix(HIDDEN, inner, scale=0.5)
        # as flash-linear-attention starts: decays from nearly 1 down, a spread in every head
        self.A_log = nn.Parameter(torch.empty(HEADS).uniform_(1, 16).log())
        dt = torch.empty(inner).uniform_(math.log(1e-3), math.log(1e-1)).exp()
        self.dt_bias = nn.Parameter(dt + torch.log(-torch.expm1(-dt)))
        self.o_norm = nn.Parameter(torch.ones(HEAD))

    def before(self, x, n1, pos, dtype):
        inner = HEADS * HEAD
        y = lin(norm(x, n1), torch.cat([self.qkv.flatten(0, 1), self.f_a, self.g_a, self.b]), dtype)
        y, f, gate, b = y.split([3 * inner, HEAD, HEAD, HEADS], -1)
        y = y.float()
        mixed = y * self.conv[:, 3]
        for back in (1, 2, 3):                            # causal, and never across the start of a row
            mixed = mixed + torch.where(pos[:, None] >= back, torch.roll(y, back, 0), 0.0) * self.conv[:, 3 - back]
        q, k, v = F.silu(mixed).view(-1, 3, HEADS, HEAD).unbind(1)
        unit = lambda z: z * torch.rsqrt(z.pow(2).sum(-1, keepdim=True) + 1e-6)
        g = F.softplus(lin(f, self.f_b, dtype).float() + self.dt_bias).view(-1, HEADS, HEAD)
        g = -self.A_log.exp().view(1, -1, 1) * g
        beta = torch.sigmoid(b.float()).unflatten(0, (-1, CHUNK)).transpose(1, 2).contiguous()
        return to_chunks(unit(q) * HEAD ** -0.5), to_chunks(unit(k)), to_chunks(v), to_chunks(g), beta, gate

    def after(self, x, o, gate, dtype):
        o = norm(from_chunks(o), self.o_norm).flatten(1) * torch.sigmoid(lin(gate, self.g_b, dtype).float())
        return x + lin(o, self.o, dtype)

    def forward(self, x, n1, pos, rows, dtype):
        q, k, v, g, beta, gate = self.before(x, n1, pos, dtype)
        return self.after(x, kda_chunks(q, k, v, g, beta, rows), gate, dtype)


class MLA(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.kv_a = matrix(HEADS * (NOPE + ROPE), HIDDEN), matrix(RANK + ROPE, HIDDEN)
        self.kv_norm = nn.Parameter(torch.ones(RANK))
        self.kv_b, self.o = matrix(HEADS * (NOPE + VDIM), RANK), matrix(HIDDEN, HEADS * VDIM, scale=0.5)

    def before(self, x, n1, dtype):
        x = norm(x, n1)
        q = lin(x, self.q, dtype).view(-1, HEADS, NOPE + ROPE)
        c, shared = lin(x, self.kv_a, dtype).split([RANK, ROPE], -1)
        # the reference's own norm here keeps its default eps of 1e-6
        c = c.float()
        c = c * torch.rsqrt(c.pow(2).mean(-1, keepdim=True) + 1e-6) * self.kv_norm
        k, v = lin(c, self.kv_b, dtype).view(-1, HEADS, NOPE + VDIM).split([NOPE, VDIM], -1)
        k = torch.cat([k, shared[:, None].expand(-1, HEADS, -1)], -1)
        return q, k, F.pad(v, (0, NOPE + ROPE - VDIM))    # equal widths let the fused attention take it

    def after(self, x, o, dtype):
        return x + lin(o[..., :VDIM].flatten(1), self.o, dtype)

    def forward(self, x, n1, pos, rows, dtype):
        q, k, v = (z.unflatten(0, (rows, -1)).transpose(1, 2) for z in self.before(x, n1, dtype))
        o = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.after(x, o.transpose(1, 2).flatten(0, 1), dtype)


class Dense(nn.Module):
    def __init__(self):
        super().__init__()
        self.w13, self.w2 = matrix(2, DENSE_FF, HIDDEN), matrix(HIDDEN, DENSE_FF, scale=0.5)

    def forward(self, x, n2, dtype):
        gate, up = lin(norm(x, n2), self.w13.flatten(0, 1), dtype).chunk(2, -1)
        return x + lin(F.silu(gate) * up, self.w2, dtype), None


class MoE(nn.Module):
    """The shared expert is row EXPERTS of the stacks, always with weight 1."""
    def __init__(self):
        super().__init__()
        self.router = matrix(EXPERTS, HIDDEN)
        self.register_buffer("bias", torch.zeros(EXPERTS))
        self.w13, self.w2 = matrix(EXPERTS + 1, 2, EXPERT_FF, HIDDEN), matrix(EXPERTS + 1, HIDDEN, EXPERT_FF, scale=0.5)

    def forward(self, x, n2, dtype):
        h = norm(x, n2)
        p = torch.sigmoid(F.linear(h, self.router))
        choice = p.detach() + self.bias                   # the bias only chooses
        rank = (choice.unsqueeze(-2) > choice.unsqueeze(-1)).sum(-1)
        chosen = (rank < TOP).float()
        w = p * chosen
        w = w / (w.sum(-1, keepdim=True) + 1e-20) * SCALING
        w = torch.cat([w, torch.ones_like(w[:, :1])], -1)
        gu = lin(h, self.w13.flatten(0, 2), dtype).view(-1, EXPERTS + 1, 2, EXPERT_FF)
        act = F.silu(gu[:, :, 0]) * gu[:, :, 1] * w.unsqueeze(-1).to(dtype)
        return x + lin(act.flatten(1), self.w2.transpose(0, 1).flatten(1), dtype), chosen.mean(0)


class Block(nn.Module):
    def __init__(self, at):
        super().__init__()
        self.n1, self.n2 = nn.Parameter(torch.ones(HIDDEN)), nn.Parameter(torch.ones(HIDDEN))
        self.mix = MLA() if at in MLA_LAYERS else KDA()
        self.ff = Dense() if at == 0 else MoE()

    def forward(self, x, pos, rows, dtype):
        return self.ff(self.mix(x, self.n1, pos, rows, dtype), self.n2, dtype)


class KimiLinear(nn.Module):
    def __init__(self, vocab):
        super().__init__()
        self.embed = nn.Parameter(torch.randn(vocab, HIDDEN) * 0.5)
        self.blocks = nn.ModuleList([Block(i) for i in range(LAYERS)])
        self.n = nn.Parameter(torch.ones(HIDDEN))
        self.head = nn.Parameter(torch.randn(vocab, HIDDEN) * 0.02)

    def hidden(self, ids, dtype):
        """ids [rows, T], T a multiple of CHUNK -> the last layer's output [rows * T, HIDDEN], and each MoE's load."""
        rows, T = ids.shape
        pos = torch.arange(rows * T, device=ids.device) % T
        x, loads = F.embedding(ids.flatten(), self.embed).float(), []
        for block in self.blocks:
            x, load = block(x, pos, rows, dtype)
            if load is not None: loads.append(load)
        return x, loads

    def logits(self, x, dtype):
        return lin(norm(x, self.n), self.head, dtype)

    def forward(self, ids, dtype=torch.float32):
        """Any length: [rows, T] -> logits [rows, T, vocab]. The padding is to the right, where nothing looks."""
        rows, T = ids.shape
        x, _ = self.hidden(F.pad(ids, (0, -T % CHUNK)), dtype)
        return self.logits(x.unflatten(0, (rows, -1))[:, :T], dtype)

    def loss(self, x, targets, weights, dtype):
        """Mean cross entropy, weighted; and the same over the tokens of full weight alone, for the log."""
        each = F.cross_entropy(self.logits(x, dtype).float(), targets, reduction="none")
        full = (weights >= 1).float()
        return (each * weights).sum() / weights.sum(), (each.detach() * full).sum() / full.sum().clamp_min(1)

    def compile_pieces(self):
        """Everything between the scans and attentions. Equal layers share one compilation."""
        KDA.before, KDA.after = torch.compile(KDA.before), torch.compile(KDA.after)
        MLA.before, MLA.after = torch.compile(MLA.before), torch.compile(MLA.after)
        MoE.forward, Dense.forward = torch.compile(MoE.forward), torch.compile(Dense.forward)
        KimiLinear.loss = torch.compile(KimiLinear.loss)
