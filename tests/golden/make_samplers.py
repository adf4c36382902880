"""Makes samplers.json: what diffusers' schedulers do with each config of samplers_upstream.py.

    python make_samplers.py      (torch, diffusers; their versions go into the file)

`x` holds, a step, the bits of the first 4 of 16 values of x; x starts as randn(16) of seed = steps. The config is a
text, since it may hold the bare word -Infinity, as scheduler_config.json does; it stands in the name's first case. Cases that diffusers cannot run are left
out.
torch's log, sqrt and the like are rounded here (rounded_functions), so that every machine makes the same file.
"""
import json
import pathlib

import diffusers
import numpy as np
import torch

from samplers_upstream import CONFIGS, rounded_functions, run, steps_of


def main():
    cases = []
    for name, (config, kind) in CONFIGS.items():
        for steps in steps_of(config, kind):
            try:
                with rounded_functions():
                    timesteps, rows = run(config, kind, steps, 16)
            except IndexError:
                continue
            if not np.isfinite(rows).all():
                continue
            bits = ["".join(f"{v:08x}" for v in row[:4].view(np.uint32)) for row in rows.astype(np.float32)]
            first = {} if any(case["name"] == name for case in cases) else {"config": json.dumps(config)}
            cases.append({"name": name, **first, "kind": kind or "", "steps": steps,
                          "timesteps": [int(t) if t.is_integer() else t for t in timesteps.tolist()], "x": bits})
    head = {"made_by": "make_samplers.py", "torch": torch.__version__, "diffusers": diffusers.__version__}
    lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
    text = json.dumps(head)[:-1] + ', "cases": [\n' + lines + "\n]}\n"
    pathlib.Path(__file__).with_name("samplers.json").write_text(text)
    print(len(cases), "cases,", len(text), "bytes")


main()
