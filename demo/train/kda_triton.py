"""Owns the three GPU steps of the chunked KDA (scores, inverse, scan) and their gradients. One program per chunk
and head, or per sequence, head and value block for the scan; everything in f32, products of the scan in tf32."""
import torch
import triton
import triton.language as tl


@triton.jit
def scores_fwd(q_p, k_p, g_p, kk_p, p_p, C: tl.constexpr, D: tl.constexpr):
    at = tl.program_id(0).to(tl.int64)
    r, d, c = tl.arange(0, C), tl.arange(0, D), tl.arange(0, C)
    tile = at * C * D + r[:, None] * D + d[None, :]
    q, k, g = tl.load(q_p + tile), tl.load(k_p + tile), tl.load(g_p + tile)
    kk = tl.zeros((C, C), tl.float32)
    pp = tl.zeros((C, C), tl.float32)
    for j in range(C):
        row = at * C * D + j * D + d
        kj, gj = tl.load(k_p + row), tl.load(g_p + row)
        w = tl.exp(tl.minimum(g - gj[None, :], 0.0)) * kj[None, :]
        kk = tl.where((c[None, :] == j) & (r[:, None] > j), tl.sum(k * w, 1)[:, None], kk)
        pp = tl.where((c[None, :] == j) & (r[:, None] >= j), tl.sum(q * w, 1)[:, None], pp)
    out = at * C * C + r[:, None] * C + c[None, :]
    tl.store(kk_p + out, kk)
    tl.store(p_p + out, pp)


@triton.jit
def scores_bwd(q_p, k_p, g_p, dkk_p, dp_p, dq_p, dk_p, dg_p, C: tl.constexpr, D: tl.constexpr):
    at = tl.program_id(0).to(tl.int64)
    r, d = tl.arange(0, C), tl.arange(0, D)
    tile = at * C * D + r[:, None] * D + d[None, :]
    q, k, g = tl.load(q_p + tile), tl.load(k_p + tile), tl.load(g_p + tile)
    dq = tl.zeros((C, D), tl.float32)
    row_k = tl.zeros((C, D), tl.float32)       # gradient of k as the later token i
    col_k = tl.zeros((C, D), tl.float32)       # gradient of k as the earlier token j
    for j in range(C):
        row = at * C * D + j * D + d
        kj, gj, qj = tl.load(k_p + row), tl.load(g_p + row), tl.load(q_p + row)
        a = tl.where(r > j, tl.load(dkk_p + at * C * C + r * C + j), 0.0)
        b = tl.where(r >= j, tl.load(dp_p + at * C * C + r * C + j), 0.0)
        w = tl.exp(tl.minimum(g - gj[None, :], 0.0)) * kj[None, :]
        row_k += a[:, None] * w
        dq += b[:, None] * w
        # the same pair table read by rows: token j is now the later one
        a = tl.where(r < j, tl.load(dkk_p + at * C * C + j * C + r), 0.0)
        b = tl.where(r <= j, tl.load(dp_p + at * C * C + j * C + r), 0.0)
        e = tl.exp(tl.minimum(gj[None, :] - g, 0.0))
        col_k += (a[:, None] * kj[None, :] + b[:, None] * qj[None, :]) * e
    tl.store(dq_p + tile, dq)
    tl.store(dk_p + tile, row_k + col_k)
    # G enters every pair as e^(G_i - G_j): its gradient is what the two sides already computed
    tl.store(dg_p + tile, k * row_k + q * dq - k * col_k)


class Scores(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, G):
        q, k, G = q.contiguous(), k.contiguous(), G.contiguous()
        C, D = k.shape[-2:]
        KK = k.new_empty(*k.shape[:-1], C)
        P = torch.empty_like(KK)
        scores_fwd[(k.numel() // (C * D),)](q, k, G, KK, P, C, D)
        ctx.save_for_backward(q, k, G)
        return KK, P

    @staticmethod
    def backward(ctx, dKK, dP):
        q, k, G = ctx.saved_tensors
        C, D = k.shape[-2:]
        dq, dk, dG = (torch.empty_like(k) for _ in range(3))
        scores_bwd[(k.numel() // (C * D),)](q, k, G, dKK.contiguous(), dP.contiguous(), dq, dk, dG, C, D)
        return dq, dk, dG


@triton.jit
def inverse_fwd(a_p, t_p, C: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * C * C
    r, c = tl.arange(0, C), tl.arange(0, C)
    t = tl.where(r[:, None] == c[None, :], 1.0, 0.0)
    for i in range(1, C):
        a = tl.where(r < i, tl.load(a_p + at + i * C + r), 0.0)      # row i of A
        t = tl.where(r[:, None] == i, t - tl.sum(a[:, None] * t, 0)[None, :], t)
    tl.store(t_p + at + r[:, None] * C + c[None, :], t)


class Inverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx, A):
        A = A.contiguous()
        T = torch.empty_like(A)
        C = A.shape[-1]
        inverse_fwd[(A.numel() // (C * C),)](A, T, C, num_warps=1)
        ctx.save_for_backward(T)
        return T

    @staticmethod
    def backward(ctx, dT):
        Tt = ctx.saved_tensors[0].transpose(-1, -2)
        return -(Tt @ dT @ Tt).tril(-1)


@triton.jit
def scan_fwd(w_p, u0_p, kr_p, e_p, s_p, u_p, N, H: tl.constexpr, C: tl.constexpr, D: tl.constexpr, BV: tl.constexpr):
    head, v0 = tl.program_id(0), tl.program_id(1) * BV
    r, d, v = tl.arange(0, C), tl.arange(0, D), v0 + tl.arange(0, BV)
    S = tl.zeros((D, BV), tl.float32)
    for n in range(N):
        at = ((head // H).to(tl.int64) * N + n) * H + head % H
        tl.store(s_p + at * D * D + d[:, None] * D + v[None, :], S)
        w = tl.load(w_p + at * C * D + r[:, None] * D + d[None, :])
        u = tl.load(u0_p + at * C * D + r[:, None] * D + v[None, :]) - tl.dot(w, S, input_precision="tf32")
        tl.store(u_p + at * C * D + r[:, None] * D + v[None, :], u)
        krt = tl.load(kr_p + at * C * D + r[None, :] * D + d[:, None])
        S = tl.load(e_p + at * D + d)[:, None] * S + tl.dot(krt, u, input_precision="tf32")


@triton.jit
def scan_bwd(w_p, kr_p, e_p, ds_p, du_p, nds_p, ndu_p, N, H: tl.constexpr, C: tl.constexpr, D: tl.constexpr, BV: tl.constexpr):
    """From the gradients that reach S_n and U_n from outside (ds, du), the whole ones: ndu for U_n, and nds, the
    gradient of the state after chunk n."""
    head, v0 = tl.program_id(0), tl.program_id(1) * BV
    r, d, v = tl.arange(0, C), tl.arange(0, D), v0 + tl.arange(0, BV)
    dS = tl.zeros((D, BV), tl.float32)
    for back in range(N):
        at = ((head // H).to(tl.int64) * N + N - 1 - back) * H + head % H
        tl.store(nds_p + at * D * D + d[:, None] * D + v[None, :], dS)
        kr = tl.load(kr_p + at * C * D + r[:, None] * D + d[None, :])
        du = tl.load(du_p + at * C * D + r[:, None] * D + v[None, :]) + tl.dot(kr, dS, input_precision="tf32")
        tl.store(ndu_p + at * C * D + r[:, None] * D + v[None, :], du)
        wt = tl.load(w_p + at * C * D + r[None, :] * D + d[:, None])
        dS = tl.load(ds_p + at * D * D + d[:, None] * D + v[None, :]) + tl.load(e_p + at * D + d)[:, None] * dS \
            - tl.dot(wt, du, input_precision="tf32")


class Scan(torch.autograd.Function):
    BV = 32

    @staticmethod
    def forward(ctx, W, U0, Kr, E, seqs):
        W, U0, Kr, E = (x.contiguous() for x in (W, U0, Kr, E))
        M, H, C, D = W.shape
        S, U = W.new_empty(M, H, D, D), torch.empty_like(U0)
        scan_fwd[(seqs * H, D // Scan.BV)](W, U0, Kr, E, S, U, M // seqs, H, C, D, Scan.BV)
        ctx.save_for_backward(W, Kr, E, S, U)
        ctx.seqs = seqs
        return S, U

    @staticmethod
    def backward(ctx, dS, dU):
        W, Kr, E, S, U = ctx.saved_tensors
        M, H, C, D = W.shape
        nds, ndu = torch.empty_like(S), torch.empty_like(U)
        scan_bwd[(ctx.seqs * H, D // Scan.BV)](W, Kr, E, dS.contiguous(), dU.contiguous(), nds, ndu, M // ctx.seqs, H, C, D, Scan.BV)
        dW = -(ndu @ S.transpose(-1, -2))
        dKr = U @ nds.transpose(-1, -2)
        return dW, ndu, dKr, (S * nds).sum(-1), None


scores, inverse, scan = Scores.apply, Inverse.apply, Scan.apply
