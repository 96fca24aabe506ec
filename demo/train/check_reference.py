"""Owns one question: does our network compute what transformers' native kimi_linear computes? CPU, f32."""
import argparse, json, os, tempfile
import torch
from transformers.models.kimi_linear import KimiLinearForCausalLM
import hub, model


def stir(net):
    """Gates, norms and router biases away from their initial values, so that nothing is right by being 1 or 0."""
    with torch.no_grad():
        for n, p in [*net.named_parameters(), *net.named_buffers()]:
            if n.endswith("A_log"): p.uniform_(1, 16).log_()
            elif n.endswith("dt_bias"): p.uniform_(-7, 1)
            elif p.ndim == 1: p.add_(0.3 * torch.randn_like(p))
            else: p.mul_(1.5)


def main():
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("--model", help="checkpoint directory; without it random weights")
    ap.add_argument("--text", help="a file of rendered conversations to compare on; without it random tokens")
    ap.add_argument("--tokens", type=int, default=333)
    a = ap.parse_args()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as tmp:
        path = a.model
        if not path:
            net = model.KimiLinear(2048); stir(net); hub.save(net, tmp); path = tmp
        net = hub.load(path)
        ref = KimiLinearForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    if a.text:
        from tokenizer import Tokenizer
        ids = Tokenizer(path).encode(open(a.text).read())[:a.tokens]
    else:
        ids = torch.randint(0, net.embed.shape[0] - 258, (a.tokens,)).tolist()
    ids = torch.tensor([ids])
    with torch.no_grad(): ours, theirs = net(ids)[0], ref(ids).logits[0]
    print(json.dumps(dict(tokens=ids.shape[1], logit_std=round(theirs.std().item(), 4), max_abs_diff=(ours - theirs).abs().max().item(),
                          top1_agreement=(ours.argmax(-1) == theirs.argmax(-1)).float().mean().item())))


if __name__ == "__main__":
    main()
