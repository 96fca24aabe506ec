"""Writes the hub's layout from a training state: python to_hub.py state.pt OUT"""
import sys
import torch
import hub
from model import KimiLinear

kept = torch.load(sys.argv[1], weights_only=True, map_location="cpu")
net = KimiLinear(kept["net"]["embed"].shape[0])
net.load_state_dict(kept["net"])
hub.save(net, sys.argv[2])
