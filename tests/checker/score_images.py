"""Makes pictures of a demo model with `weir run` and scores them with the picture checker.

    score_images.py --weir build/dev/bin/weir --encode build/dev/bin/weir-encode --model shapes-sana
    score_images.py ... --limit 8                               a few, for check.sh

Prompts: --seen scenes that training could draw and --held-out ones that it could not, one of every group (see
grammar_images.group) before a group comes a second time, one in four of a single thing; chosen by --seed. Prints a line a
picture and the percentages; exit code 1 when one is below its threshold.
"""
import pathlib
import sys

import numpy as np

import check_image
import scoring

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "deploy" / "models" / "train"))
import grammar_images as grammar  # noqa: E402

LIMITS = {("seen", "all"): 92.0, ("held-out", "all"): 85.0}


def prompts(seen, held_out, seed):
    """[(group, caption)]: the captions to be judged, the same for equal arguments."""
    rng = np.random.default_rng(seed)
    out = []
    for name, known, count in (("seen", True, seen), ("held-out", False, held_out)):
        every = grammar.scenes(seen=known)
        single = scoring.choose([scene for scene in every if not scene.relation], grammar.group, count // 4, rng)
        double = scoring.choose([scene for scene in every if scene.relation], grammar.group, count - len(single), rng)
        out += [(name, grammar.caption(grammar.Scene(*scene))) for scene in single + double]
    return out


if __name__ == "__main__":
    sys.exit(scoring.trial(scoring.parser(__doc__, "shapes-sana", LIMITS).parse_args(), prompts, ".png",
                           lambda frames: check_image.check(frames[0]), "co sh re ba"))
