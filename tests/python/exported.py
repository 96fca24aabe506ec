"""An exported session, as Python's own reader of safetensors has it: `exported.py FILE`."""

import json
import sys

import safetensors

with safetensors.safe_open(sys.argv[1], "np") as file:
    about = file.metadata()
    assert about["format"] == "deltad-session-1", about
    assert about["name"] == "talk", about["name"]
    turns = json.loads(about["turns"])
    said = json.loads(turns[0]["messages"])
    assert said["input"][0]["content"] == "My locker code is 4827.", said
    shapes = {name: file.get_tensor(name).shape for name in file.keys()}
    assert set(shapes) == {"blocks", "slot", "tail", "next"}, shapes
    assert file.get_tensor("slot").dtype == "float32"
    assert int(about["state_tokens"]) // 64 == shapes["blocks"][0], (about["state_tokens"], shapes)
print(shapes)
