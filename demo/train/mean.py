"""Writes the mean of two checkpoints' weights: python mean.py ONE OTHER OUT. What was learnt since the one costs some of
what it did well; half way between them most of both is kept."""
import os, shutil, sys
import torch
from safetensors.torch import load_file, save_file

one, other, out = sys.argv[1:]
os.makedirs(out, exist_ok=True)
for name in os.listdir(other):
    if not name.endswith(".safetensors"): shutil.copy(os.path.join(other, name), out); continue
    a, b = (load_file(os.path.join(where, name)) for where in (one, other))
    save_file({k: ((a[k].float() + b[k].float()) / 2).to(b[k].dtype) for k in b}, os.path.join(out, name), metadata={"format": "pt"})
