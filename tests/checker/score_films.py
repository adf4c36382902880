"""Makes films of the demo model with `weir run` and scores them with the film checker.

    score_films.py --weir build/dev/client/weir --encode build/dev/worker/weir-encode
    score_films.py --weir ... --encode ... --limit 8            a few, for check.sh

Prompts: --seen of the (colour, shape, motion) triples that training saw and --held-out of those it did not, each with a
background, chosen by --seed. Prints a line a film and the percentages; exit code 1 when one is below its threshold.
"""
import pathlib
import sys

import numpy as np

import check_film
import scoring

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "deploy" / "models" / "train"))
import grammar  # noqa: E402

LIMITS = {("seen", "colour"): 97.0, ("seen", "shape"): 90.0, ("seen", "motion"): 95.0,
          ("held-out", "colour"): 90.0, ("held-out", "shape"): 80.0, ("held-out", "motion"): 85.0}


def prompts(seen, held_out, seed):
    """[(group, caption)]: the captions to be judged, the same for equal arguments."""
    rng = np.random.default_rng(seed)
    groups = (("seen", True, seen), ("held-out", False, held_out))
    return [(group, grammar.caption(grammar.Scene(*scene))) for group, known, count in groups
            for scene in scoring.choose(grammar.scenes(seen=known), lambda scene: tuple(scene[:3]), count, rng)]


if __name__ == "__main__":
    sys.exit(scoring.trial(scoring.parser(__doc__, "shapes-modelscope", LIMITS).parse_args(), prompts, ".mp4",
                           check_film.check, "co sh mo ba"))
