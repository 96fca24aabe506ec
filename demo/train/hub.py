"""Owns the hub's layout: which of our tensors is which of theirs, config.json, bf16 shards. Both directions."""
import json, os
import torch
from safetensors.torch import save_file, load_file
import model as M

KEEP32 = ("A_log", "dt_bias", "e_score_correction_bias")


def config(n_base):
    """The hub's config.json for a tokenizer of n_base ordinary tokens (258 special ids follow them)."""
    mla = [i + 1 for i in M.MLA_LAYERS]
    return dict(
        architectures=["KimiLinearForCausalLM"], model_type="kimi_linear", vocab_size=n_base + 258, rms_norm_eps=M.EPS,
        bos_token_id=n_base, eos_token_id=n_base + 2, pad_token_id=n_base + 255, num_key_value_heads=M.HEADS,
        moe_router_activation_func="sigmoid", moe_renormalize=True, num_expert_group=1, topk_group=1,
        use_grouped_topk=True, moe_layer_freq=1, mla_use_nope=True, hidden_act="silu", tie_word_embeddings=False,
        model_max_length=32768, head_dim=M.NOPE + M.ROPE, q_lora_rank=None, rope_scaling=None, rope_theta=10000.0,
        num_nextn_predict_layers=0, use_cache=True, dtype="bfloat16", hidden_size=M.HIDDEN,
        intermediate_size=M.DENSE_FF, moe_intermediate_size=M.EXPERT_FF, num_hidden_layers=M.LAYERS,
        num_attention_heads=M.HEADS, kv_lora_rank=M.RANK, qk_rope_head_dim=M.ROPE, qk_nope_head_dim=M.NOPE,
        v_head_dim=M.VDIM, num_experts=M.EXPERTS, num_experts_per_token=M.TOP, num_shared_experts=1,
        routed_scaling_factor=M.SCALING, first_k_dense_replace=1,
        linear_attn_config=dict(head_dim=M.HEAD, num_heads=M.HEADS, short_conv_kernel_size=4, full_attn_layers=mla,
                                kda_layers=[i + 1 for i in range(M.LAYERS) if i + 1 not in mla]))


def views(net):
    """(hub name, view of our tensor in the hub's shape), in the order of the layers."""
    yield "model.embed_tokens.weight", net.embed
    for i, block in enumerate(net.blocks):
        at, mix, ff = f"model.layers.{i}.", block.mix, block.ff
        yield at + "input_layernorm.weight", block.n1
        yield at + "post_attention_layernorm.weight", block.n2
        a = at + "self_attn."
        if isinstance(mix, M.KDA):
            for n, w, conv in zip("qkv", mix.qkv, mix.conv.chunk(3)):
                yield f"{a}{n}_proj.weight", w
                yield f"{a}{n}_conv1d.weight", conv.unsqueeze(1)
            for n in ("f_a", "f_b", "g_a", "g_b", "b", "o"):
                yield f"{a}{n}_proj.weight", getattr(mix, n)
            yield a + "A_log", mix.A_log.view(1, 1, -1, 1)
            yield a + "dt_bias", mix.dt_bias
            yield a + "o_norm.weight", mix.o_norm
        else:
            for n, w in (("q_proj", mix.q), ("kv_a_proj_with_mqa", mix.kv_a), ("kv_a_layernorm", mix.kv_norm),
                         ("kv_b_proj", mix.kv_b), ("o_proj", mix.o)):
                yield f"{a}{n}.weight", w
        if isinstance(ff, M.Dense):
            for n, w in zip(("gate", "up", "down"), (*ff.w13, ff.w2)):
                yield f"{at}mlp.{n}_proj.weight", w
        else:
            m = at + "block_sparse_moe."
            yield m + "gate.weight", ff.router
            yield m + "gate.e_score_correction_bias", ff.bias
            for e in range(M.EXPERTS):
                for n, w in zip(("w1", "w3", "w2"), (*ff.w13[e], ff.w2[e])):
                    yield f"{m}experts.{e}.{n}.weight", w
            for n, w in zip(("gate", "up", "down"), (*ff.w13[-1], ff.w2[-1])):
                yield f"{m}shared_experts.{n}_proj.weight", w
    yield "model.norm.weight", net.n
    yield "lm_head.weight", net.head


def save(net, out, shards=2):
    """Weights in bf16 (the three that the hub keeps in f32 stay so), in shards of about equal size."""
    tensors = {n: t.detach().cpu().to(torch.float32 if n.endswith(KEEP32) else torch.bfloat16).contiguous() for n, t in views(net)}
    total = sum(t.numel() * t.element_size() for t in tensors.values())
    parts, size = [{} for _ in range(shards)], 0
    for n, t in tensors.items():
        parts[size * shards // total][n] = t.clone()
        size += t.numel() * t.element_size()
    where = {}
    for i, part in enumerate(parts):
        name = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
        save_file(part, os.path.join(out, name), metadata={"format": "pt"})
        where.update({n: name for n in part})
    n_base = net.embed.shape[0] - 258
    for name, what in (("model.safetensors.index.json", dict(metadata=dict(total_size=total), weight_map=dict(sorted(where.items())))),
                       ("config.json", config(n_base)), ("generation_config.json", dict(eos_token_id=n_base + 2, max_length=32768))):
        with open(os.path.join(out, name), "w") as f: f.write(json.dumps(what, indent=1) + "\n")


def load(path):
    with open(os.path.join(path, "config.json")) as f: net = M.KimiLinear(json.load(f)["vocab_size"])
    with open(os.path.join(path, "model.safetensors.index.json")) as f: files = set(json.load(f)["weight_map"].values())
    tensors = {n: t for name in files for n, t in load_file(os.path.join(path, name)).items()}
    with torch.no_grad():
        for n, view in views(net): view.copy_(tensors.pop(n))
    assert not tensors, f"unknown tensors: {sorted(tensors)}"
    return net
