"""Owns the supply of batches: worker processes write conversations while the GPU trains. No data is stored."""
import multiprocessing as mp
import numpy as np

# row lengths and their share of the tokens, early (short rows teach the tasks) and later (long ones the memory)
EARLY = {256: 0.3, 512: 0.35, 1024: 0.35}
LATER = {256: 0.15, 512: 0.19, 1024: 0.19, 2048: 0.15, 4096: 0.06, 8192: 0.06, 16384: 0.09, 32768: 0.11}


def batch(w, encode, length, tokens, row):
    rows = [row(w, encode, length) for _ in range(max(1, tokens // length))]
    return np.array([r[0] for r in rows], np.int16), np.array([r[1] for r in rows], np.float32)


def work(seed, rank, path, tokens, longest, late, out):
    import random, signal
    signal.signal(signal.SIGINT, signal.SIG_IGN)            # Ctrl-C reaches every process: the trainer decides when to end
    from conversation import row
    from tokenizer import Tokenizer
    from world import World, words_of
    World.PIECES = words_of(path)
    encode, w, pick = Tokenizer(path).encode, World(seed + 500 * rank), random.Random(seed)
    while True:
        share = {n: s for n, s in (LATER if late.value else EARLY).items() if n <= longest}
        out.put(batch(w, encode, pick.choices(list(share), list(share.values()))[0], tokens, row))


class Batches:
    """One worker after the other is taken from, so that of several processes all have rows of one length at a time: their
    conversations differ, the lengths do not."""

    def __init__(self, path, tokens, longest, seed, workers, rank=0):
        self.late, self.queues, self.taken = mp.Value("b", False), [mp.Queue(4) for _ in range(workers)], 0
        self.workers = [mp.Process(target=work, args=(seed * 1000 + i, rank, path, tokens, longest, self.late, q), daemon=True) for i, q in enumerate(self.queues)]
        for p in self.workers: p.start()

    def next(self):
        self.taken += 1
        return self.queues[self.taken % len(self.queues)].get()

    def close(self):
        for p in self.workers: p.terminate()
