"""Owns the training run. `python train.py --out ../out` makes a tokenizer where there is none, trains for --seconds and
writes the hub's layout. Ctrl-C (or SIGTERM) writes both too, and the state: run again with --resume it goes on where it
was, optimizer and clock included. --resume after a run that had ended begins a new one from its weights; --begin DIR takes
the weights of a checkpoint in the hub's layout. `torchrun --nproc_per_node N train.py ...` trains one network on N GPUs:
each has --tokens of its own conversations a step, and the gradients' mean is taken. On a CPU use a smaller
batch: --tokens 4096 --longest 1024 --seconds 10000."""
import argparse, json, os, signal, time
import numpy as np, torch
import torch.distributed as dist
import hub, tokenizer
from conversation import row
from data import Batches, batch
from model import KimiLinear
from optim import Muon, split
from tokenizer import Tokenizer
from world import World, words_of

STEADY, BALANCE = 0.35, 2e-3                    # share of the run before the decay; router bias step


def schedule(step, done, floor, warmup):
    """Warm up, hold, then fall linearly to the floor exactly when the time is over."""
    return min(1.0, (step + 1) / warmup) * max(floor, min(1.0, (1 - done) / (1 - STEADY)))


@torch.no_grad()
def mean_of(tensors):
    """Every process's mean, in place, in one message."""
    flat = torch.cat([t.flatten() for t in tensors])
    dist.all_reduce(flat); flat /= dist.get_world_size()
    for t, part in zip(tensors, flat.split([t.numel() for t in tensors])): t.copy_(part.view_as(t))


@torch.no_grad()
def probe(net, tok, dtype, device, length, tokens):
    """On held-out conversations: the share of assistant turns whose every token is the likeliest (what greedy
    decoding would have said), and the loss on the assistant's tokens."""
    w = World(777 + length, "held")
    ids, weights = batch(w, tok.encode, length, tokens, row)
    ids = torch.from_numpy(ids).to(device).long(); said = torch.from_numpy(weights).to(device) >= 1
    logits = net(ids, dtype)[:, :-1].float(); want, said = ids[:, 1:], said[:, 1:]
    loss = torch.nn.functional.cross_entropy(logits[said], want[said]).item()
    wrong = (logits.argmax(-1) != want) & said
    turn = torch.cumsum((want == tok.end) & said, 1) - ((want == tok.end) & said).long() + torch.arange(len(ids), device=device)[:, None] * 10_000
    all_turns, bad_turns = turn[(want == tok.end) & said].unique(), turn[wrong].unique()
    return loss, 1 - torch.isin(all_turns, bad_turns).float().mean().item()


def main():
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("--out", required=True, help="checkpoint directory; a tokenizer in it is used as it is")
    ap.add_argument("--state", help="directory of the resumable state (default: OUT)")
    ap.add_argument("--resume", action="store_true")
    ap.add_argument("--seconds", type=float, default=900)
    ap.add_argument("--tokens", type=int, default=65536, help="tokens a step")
    ap.add_argument("--longest", type=int, default=32768)
    ap.add_argument("--lr", type=float, default=0.02, help="of Muon; AdamW takes 0.15 of it")
    ap.add_argument("--floor", type=float, default=0.0, help="share of the rate that the decay stops at")
    ap.add_argument("--warmup", type=int, default=200, help="steps to the full rate")
    ap.add_argument("--eager", action="store_true", help="do not compile: for a leg of a minute, of which that would take the most")
    ap.add_argument("--begin", metavar="DIR", help="start from this checkpoint's weights")
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 3))
    a = ap.parse_args()
    many, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))         # as torchrun says
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if many > 1:
        if device == "cuda": torch.cuda.set_device(rank)
        dist.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo")
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    torch._dynamo.config.recompile_limit = 64
    torch.manual_seed(a.seed); torch.set_float32_matmul_precision("high")
    tokenizer.ensure(a.out)
    tok = Tokenizer(a.out)
    World.PIECES = words_of(a.out)
    net = hub.load(a.begin) if a.begin else KimiLinear(tok.enc.n_vocab)
    state, history, seen, runs, spent, kept = os.path.join(a.state or a.out, "state.pt"), [], 0, 0, 0.0, {}
    if a.resume:
        kept = torch.load(state, weights_only=True, map_location="cpu")
        net.load_state_dict(kept["net"]); history, seen, runs, spent = kept["history"], kept["tokens"], kept.get("runs", 1), kept.get("spent", 0.0)
    # Each leg draws conversations of its own: the first ones again would be learnt by heart.
    batches = Batches(a.out, a.tokens, a.longest, a.seed + runs, a.workers, rank)
    batches.late.value = bool(a.begin or kept) and not spent
    stopped = []
    for s in (signal.SIGINT, signal.SIGTERM): signal.signal(s, lambda *_: stopped.append(1))
    net.to(device)
    if device == "cuda" and not a.eager: net.compile_pieces()
    matrices, decayed, plain = split(net)
    muon = Muon(matrices, a.lr)
    adam = torch.optim.AdamW([dict(params=decayed, weight_decay=0.01), dict(params=plain, weight_decay=0.0)], lr=0.15 * a.lr,
                             betas=(0.9, 0.95), eps=1e-10, fused=device == "cuda")
    if spent:
        for p, m in zip(muon.state, kept["muon"]): muon.state[p].copy_(m)
        adam.load_state_dict(kept["adam"])
    sparse = [b.ff for b in net.blocks if hasattr(b.ff, "bias")]
    step, began, marks, waited = kept["step"] if spent else 0, None, [], 0.0
    while True:
        t = time.time(); ids, weights = batches.next(); waited += time.time() - t
        ids = torch.from_numpy(ids).to(device, non_blocking=True).long(); weights = torch.from_numpy(weights).to(device, non_blocking=True)
        x, loads = net.hidden(ids, dtype)
        # the token after a row's last one is unknown: weight 0
        targets, weights = torch.roll(ids.flatten(), -1), torch.nn.functional.pad(weights[:, 1:], (0, 1)).flatten()
        loss, said = net.loss(x, targets, weights, dtype)
        loss.backward()
        if began is None: torch.cuda.synchronize() if device == "cuda" else None; began = time.time() - spent     # compilation is not training
        done = (time.time() - began) / a.seconds
        if many > 1:                                       # the first one's clock is everybody's
            now = torch.tensor([done, bool(stopped)]); dist.broadcast(now, 0); done = now[0].item()
            if now[1] and not stopped: stopped.append(1)
        if done >= 1 or stopped: break
        if many > 1: mean_of([p.grad for p in net.parameters()]); mean_of(loads)
        scale = schedule(step, done, a.floor, a.warmup)
        muon.step(scale)
        for g in adam.param_groups: g["lr"] = 0.15 * a.lr * scale
        adam.step(); net.zero_grad(set_to_none=True)
        with torch.no_grad():
            for ff, load in zip(sparse, loads): ff.bias -= BALANCE * scale * torch.sign(load - load.mean())
        batches.late.value = batches.late.value or done > 0.15
        step += 1; seen += ids.numel() * many; marks.append(said.detach())
        if step % 250 == 0 and not rank:
            value = torch.stack(marks).mean().item(); marks = []
            history.append((seen, value)); now = time.time() - began
            held = {n: probe(net, tok, dtype, device, n, a.tokens) for n in (512,) + ((2048, 8192, 32768) if step % 1000 == 0 and a.longest > 8192 else ())}
            if step % 1000 == 0: hub.save(net, a.out)       # a run that is cut off leaves something
            print(f"step {step} tokens {seen / 1e6:.1f}M said {value:.4f} done {done:.3f} tok/s {step * a.tokens * many / now:.0f} waited {waited:.1f} "
                  + " ".join(f"held{n} loss {l:.4f} turns {t:.4f}" for n, (l, t) in held.items())
                  + f" load {min(l.min().item() for l in loads):.2f}-{max(l.max().item() for l in loads):.2f}", flush=True)
    batches.close()
    if rank: return
    net.zero_grad(set_to_none=True)
    hub.save(net, a.out)
    # Beside it first: an interrupt must not cost the state that there was.
    torch.save(dict(net=net.state_dict(), history=history, tokens=seen, runs=runs + 1, step=step, spent=0.0 if done >= 1 else done * a.seconds,
                    muon=list(muon.state.values()), adam=adam.state_dict()), state + ".part")
    os.replace(state + ".part", state)
    with open(os.path.join(a.state or a.out, "log.json"), "w") as f:
        json.dump(dict(tokens=seen, steps=step, seconds=min(done, 1) * a.seconds, history=history), f)
    if stopped and done < 1: return print(f"stopped at {100 * done:.0f} % of {a.seconds:.0f} s; --resume goes on", flush=True)
    for n in (512, 2048, 8192, 32768):
        if n <= a.longest: print(n, *probe(net, tok, dtype, device, n, a.tokens), flush=True)


if __name__ == "__main__":
    main()
