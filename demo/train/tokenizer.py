"""Owns the tokenizer: trained on our own conversations with Kimi's pre-tokenizer, special ids laid out as the hub's.
Digits never merge, so every number is a row of single digits."""
import base64, collections, json, os
import regex, tiktoken

PAT = "|".join([
    r"""[\p{Han}]+""",
    r"""[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?""",
    r"""[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?""",
    r"""\p{N}{1,3}""", r""" ?[^\s\p{L}\p{N}]+[\r\n]*""", r"""\s*[\r\n]+""", r"""\s+(?!\S)""", r"""\s+"""])
SPECIAL = {0: "[BOS]", 1: "[EOS]", 2: "<|im_end|>", 3: "<|im_user|>", 4: "<|im_assistant|>", 6: "<|start_header_id|>",
           7: "<|end_header_id|>", 9: "[EOT]", 10: "<|im_system|>", 11: "<|tool_calls_section_begin|>",
           12: "<|tool_calls_section_end|>", 13: "<|tool_call_begin|>", 14: "<|tool_call_argument_begin|>",
           15: "<|tool_call_end|>", 17: "<|im_middle|>", 254: "[UNK]", 255: "[PAD]"}
N_BASE = 2048 - 258

CHAT_TEMPLATE = (
    "{%- if tools -%}<|im_system|>tool_declare<|im_middle|>{{ tools | tojson }}<|im_end|>{%- endif -%}"
    "{%- for message in messages -%}"
    "{%- if loop.first and message['role'] != 'system' -%}<|im_system|>system<|im_middle|>You are a helpful assistant<|im_end|>{%- endif -%}"
    "{%- if message['role'] == 'user' -%}<|im_user|>user<|im_middle|>"
    "{%- elif message['role'] == 'assistant' -%}<|im_assistant|>assistant<|im_middle|>"
    "{%- else -%}<|im_system|>{{ message['role'] }}<|im_middle|>{%- endif -%}"
    "{%- if message['content'] is string -%}{{ message['content'] }}{%- else -%}"
    "{%- for part in message['content'] or [] -%}{{ part['text'] }}{%- endfor -%}{%- endif -%}"
    "{%- for call in message.get('tool_calls') or [] -%}"
    "{%- if loop.first -%}<|tool_calls_section_begin|>{%- endif -%}"
    "<|tool_call_begin|>functions.{{ call['function']['name'] }}:{{ loop.index0 }}<|tool_call_argument_begin|>"
    "{{ call['function']['arguments'] }}<|tool_call_end|>"
    "{%- if loop.last -%}<|tool_calls_section_end|>{%- endif -%}{%- endfor -%}"
    "<|im_end|>{%- endfor -%}"
    "{%- if add_generation_prompt -%}<|im_assistant|>assistant<|im_middle|>{%- endif -%}")


class Tokenizer:
    def __init__(self, path):
        ranks = {}
        with open(os.path.join(path, "tiktoken.model"), "rb") as f:
            for line in f:
                tok, rank = line.split(); ranks[base64.b64decode(tok)] = int(rank)
        n = len(ranks)
        special = {SPECIAL.get(i, f"<|reserved_token_{n + i}|>"): n + i for i in range(258)}
        self.end, self.enc = n + 2, tiktoken.Encoding("deltad-demo", pat_str=PAT, mergeable_ranks=ranks, special_tokens=special)

    def encode(self, text): return self.enc.encode(text, allowed_special="all")
    def decode(self, ids): return self.enc.decode(ids)


def train(text, n_base):
    """Byte-pair merges over the distinct pre-tokens, most frequent pair first; pre-tokens of digits left out."""
    special = regex.compile("|".join(regex.escape(s) for s in SPECIAL.values()))
    words = collections.Counter(t for part in special.split(text) for t in regex.findall("(?V1)" + PAT, part) if not t.isdigit())
    seqs = [([bytes([b]) for b in t.encode()], c) for t, c in words.items()]
    ranks = {bytes([b]): b for b in range(256)}
    pairs, where = collections.Counter(), collections.defaultdict(set)
    for i, (s, c) in enumerate(seqs):
        for p in zip(s, s[1:]): pairs[p] += c; where[p].add(i)
    while len(ranks) < n_base:
        best = max(pairs, key=lambda p: (pairs[p], p))
        ranks[best[0] + best[1]] = len(ranks)
        for i in where.pop(best):
            s, c = seqs[i]
            for p in zip(s, s[1:]): pairs[p] -= c
            out, j = [], 0
            while j < len(s):
                if j + 1 < len(s) and (s[j], s[j + 1]) == best: out.append(s[j] + s[j + 1]); j += 2
                else: out.append(s[j]); j += 1
            for p in zip(out, out[1:]): pairs[p] += c; where[p].add(i)
            seqs[i] = (out, c)
        pairs.pop(best, None)
    return ranks


def write(ranks, out):
    n = len(ranks)
    with open(os.path.join(out, "tiktoken.model"), "wb") as f:
        for tok, rank in ranks.items(): f.write(base64.b64encode(tok) + b" " + str(rank).encode() + b"\n")
    added = {str(n + o): dict(content=s, lstrip=False, normalized=False, rstrip=False, single_word=False, special=True) for o, s in SPECIAL.items()}
    what = dict(added_tokens_decoder=added, additional_special_tokens=[s for o, s in SPECIAL.items() if 2 <= o <= 17],
                bos_token="[BOS]", eos_token="[EOS]", pad_token="[PAD]", unk_token="[UNK]", clean_up_tokenization_spaces=False,
                model_max_length=1000000000000000019884624838656, tokenizer_class="TikTokenTokenizer",
                auto_map={"AutoTokenizer": ["tokenization_kimi.TikTokenTokenizer", None]}, chat_template=CHAT_TEMPLATE)
    with open(os.path.join(out, "tokenizer_config.json"), "w") as f: f.write(json.dumps(what, indent=1, ensure_ascii=False) + "\n")


def ensure(out):
    """Trains one into `out` where there is none."""
    if os.path.exists(os.path.join(out, "tiktoken.model")): return
    from conversation import example
    os.makedirs(out, exist_ok=True)
    write(train("".join(example(10_000_000 + i, "train") for i in range(6000)), N_BASE), out)


if __name__ == "__main__":
    import sys
    ensure(sys.argv[1])
