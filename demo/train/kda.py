"""Owns the KDA recurrence in chunked form, exact for any gate; never touches weights or norms.

    S <- diag(e^g) S;  S <- S + k (beta (v - k^T S))^T;  o = q^T S          per head, S [d, d]

Inside a chunk of C tokens, with G = cumsum(g) (all of it <= 0):
    A_ij = beta_i sum_c k_ic k_jc e^(G_ic - G_jc)  i > j      P_ij = sum_c q_ic k_jc e^(G_ic - G_jc)  i >= j
    T = (I + A)^-1;  W = T (beta k e^G);  U0 = T (beta v)
    U = U0 - W S;  O = (q e^G) S + P U;  S <- diag(e^(G_C)) S + (k e^(G_C - G))^T U
The differences G_i - G_j are formed before the exponential, so nothing can overflow however strong the gate:
e^(-G) is never computed. Three steps have two forms each, picked by device: the plain one below and a Triton
kernel in kda_triton.py; `python kda.py` checks whichever this machine has against the recurrence.
"""
import torch

CHUNK = 32


def scores_plain(q, k, G):
    """[..., C, D] -> KK (strictly lower) and P (lower), [..., C, C], by halving: the left half of a block is the
    reference for its right half, so both factors of every product have exponents <= 0."""
    C = k.shape[-2]
    if C <= 4:
        i = torch.arange(C, device=k.device)
        gap = (G.unsqueeze(-2) - G.unsqueeze(-3)).masked_fill((i[:, None] < i[None, :])[..., None], float("-inf"))
        right = gap.exp() * k.unsqueeze(-3)
        return (k.unsqueeze(-2) * right).sum(-1).tril(-1), (q.unsqueeze(-2) * right).sum(-1)
    m = C // 2
    ref = G[..., m - 1:m, :]
    fall = (G[..., m:, :] - ref).exp()
    left = (k[..., :m, :] * (ref - G[..., :m, :]).exp()).transpose(-1, -2)
    kk1, p1 = scores_plain(q[..., :m, :], k[..., :m, :], G[..., :m, :])
    kk2, p2 = scores_plain(q[..., m:, :], k[..., m:, :], G[..., m:, :])
    none = torch.zeros_like(kk1)
    join = lambda a, b, c: torch.cat([torch.cat([a, none], -1), torch.cat([b, c], -1)], -2)
    return (join(kk1, (k[..., m:, :] * fall) @ left, kk2), join(p1, (q[..., m:, :] * fall) @ left, p2))


def inverse_plain(A):
    """(I + A)^-1 for strictly lower A. By substitution: a product of powers of A cancels badly for equal keys."""
    eye = torch.eye(A.shape[-1], device=A.device, dtype=A.dtype)
    return torch.linalg.solve_triangular(eye + A, eye.expand_as(A), upper=False, unitriangular=True)


def scan_plain(W, U0, Kr, E, seqs):
    """Carries the state over the chunks of `seqs` sequences laid one after another. W, U0, Kr [M, H, C, D] and
    E [M, H, D], M chunks in all -> the state before each chunk [M, H, D, D] and U [M, H, C, D]."""
    fold = lambda x: x.view(seqs, -1, *x.shape[1:])
    W, U0, Kr, E = map(fold, (W, U0, Kr, E))
    S = W.new_zeros(seqs, W.shape[2], W.shape[4], W.shape[4])
    states, us = [], []
    for n in range(W.shape[1]):
        states.append(S)
        U = U0[:, n] - W[:, n] @ S
        us.append(U)
        S = E[:, n].unsqueeze(-1) * S + Kr[:, n].transpose(-1, -2) @ U
    return torch.stack(states, 1).flatten(0, 1), torch.stack(us, 1).flatten(0, 1)


def kda_chunks(q, k, v, g, beta, seqs):
    """q (already scaled), k, v, g [M, H, C, D] f32, beta [M, H, C]: M chunks, those of one sequence in order."""
    if q.is_cuda:
        from kda_triton import scores, inverse, scan
    else:
        scores, inverse, scan = scores_plain, inverse_plain, scan_plain
    G = g.cumsum(-2)
    KK, P = scores(q, k, G)
    b = beta.unsqueeze(-1)
    T = inverse(b * KK)
    decay, last = G.exp(), G[..., -1:, :]
    S, U = scan(T @ (b * k * decay), T @ (b * v), k * (last - G).exp(), last.squeeze(-2).exp(), seqs)
    return (q * decay) @ S + P @ U


def to_chunks(x):
    """[tokens, H, D] -> [tokens / C, H, C, D]"""
    return x.unflatten(0, (-1, CHUNK)).transpose(1, 2).contiguous()


def from_chunks(x):
    """[M, H, C, D] -> [M * C, H, D]"""
    return x.transpose(1, 2).flatten(0, 1)


def recurrence(q, k, v, g, beta):
    """The definition, token by token: [T, H, D]. The slow twin that the chunks must match."""
    S = torch.zeros(q.shape[1], q.shape[2], q.shape[2], dtype=q.dtype, device=q.device)
    out = []
    for t in range(q.shape[0]):
        S = S * g[t].exp().unsqueeze(-1)
        delta = beta[t].unsqueeze(-1) * (v[t] - (k[t].unsqueeze(-1) * S).sum(-2))
        S = S + k[t].unsqueeze(-1) * delta.unsqueeze(-2)
        out.append((q[t].unsqueeze(-1) * S).sum(-2))
    return torch.stack(out)


def self_check(device):
    """Relative error of outputs and gradients against the recurrence, for weak, mixed and violent gates."""
    torch.manual_seed(0)
    for strength in (0.01, 1.0, 40.0):
        T, H, D, seqs = 3 * CHUNK, 2, 64, 2
        draw = lambda *s: torch.randn(*s, device=device)
        q, k = (torch.nn.functional.normalize(draw(seqs * T, H, D), dim=-1) for _ in "qk")
        k[5:30] = k[5]                                   # equal keys: the hard case for the inverse
        leaves = [q, k, draw(seqs * T, H, D), -strength * torch.rand_like(q), torch.rand(seqs * T, H, device=device)]
        for x in leaves: x.requires_grad_()
        up = draw(seqs * T, H, D)
        slow = torch.cat([recurrence(*(x[i * T:(i + 1) * T] for x in leaves)) for i in range(seqs)])
        want = [slow, *torch.autograd.grad((slow * up).sum(), leaves)]
        q_, k_, v_, g_ = map(to_chunks, leaves[:4])
        b_ = leaves[4].unflatten(0, (-1, CHUNK)).transpose(1, 2)
        fast = from_chunks(kda_chunks(q_, k_, v_, g_, b_, seqs))
        got = [fast, *torch.autograd.grad((fast * up).sum(), leaves)]
        errs = [float((a - b).norm() / b.norm()) for a, b in zip(got, want)]
        print(f"gate {strength:5}: " + "  ".join(f"{n} {e:.1e}" for n, e in zip(("o", "dq", "dk", "dv", "dg", "db"), errs)))


if __name__ == "__main__":
    import sys
    self_check(sys.argv[1] if len(sys.argv) > 1 else "cuda" if torch.cuda.is_available() else "cpu")
