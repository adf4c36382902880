"""The same prompt and seed give the same file, through broker and worker, whatever lies beside it and happens meanwhile.

    gpu_same_bytes.py --bin build/cuda/bin
    gpu_same_bytes.py --bin build/dev/bin --device cpu --precision f32

For each precision and each demo model one job is made alone, first thing on a fresh worker; then again on it; as each of
eight items of a job, so that it sits in every slot, and beside seven jobs of other prompts, lengths and solvers, on a
worker that steps eight at once; after kill -9 of the worker behind a checkpoint, on the next worker; and by a worker
whose programs run without graphs. All must have the SHA-256 of the first, and another seed another one. Exit code 1 when
something is not so.
"""
import argparse
import concurrent.futures
import json
import pathlib
import re
import signal
import sys
import tempfile
import time

from cluster import Cluster

SEED = 1000
PICTURE = "a red circle left of a blue star on a gray background"
FILM = "a red circle moving right on a navy background"
# The prompt; steps for which eight items come together, on a GPU that takes a millisecond for each; and steps that last
# longer than it takes to kill a worker, with a checkpoint every five of them.
MODELS = {
    "shapes-sana": (PICTURE, ("--steps", 60, "--size", "256x256"), ("--steps", 400, "--size", "512x512")),
    "shapes-sana-sprint": (PICTURE, ("--steps", 30, "--size", "256x256"), ("--steps", 100, "--size", "512x512")),
    "shapes-modelscope": (FILM, ("--steps", 30, "--frames", 16, "--format", "png"),
                          ("--steps", 150, "--frames", 16, "--format", "png")),
}


class Trial:
    def __init__(self, asked, precision, model, directory):
        self.cluster = Cluster(asked.bin, directory, (model,), asked.device, precision)
        self.name = f"{precision} {model}"
        self.prompt, self.flags, self.long_flags = MODELS[model]
        self.prompt_flags = ("--model", model)
        self.wrong, self.begin = [], time.monotonic()

    def submit(self, seed=SEED, *more, prompt=None, flags=None):
        return self.cluster.submit(prompt or self.prompt, *self.prompt_flags, *(flags or self.flags), "--seed", seed,
                                   *more)

    def files(self, job):
        self.cluster.wait(job)
        return self.cluster.objects(job)

    def check(self, what, is_so):
        print(f"{time.monotonic() - self.begin:6.1f} s {'same' if is_so else 'OTHER'}: {self.name}: {what}", flush=True)
        if not is_so:
            self.wrong.append(f"{self.name}: {what}")

    def item(self, job, index, count):
        """The files of one item of a job."""
        files = self.files(job)
        each = len(files) // count
        return files[index * each:(index + 1) * each]

    def in_company(self, want):
        """In every slot of eight, and beside others."""
        jobs = [(self.submit(SEED - place, "--n", 8), place) for place in range(8)]
        for job, place in jobs:
            self.check(f"item {place} of 8", self.item(job, place, 8) == want)
        others = [(self.submit, SEED + i, ("--guidance", 2 + i), self.prompt.replace("red", colour))
                  for i, colour in enumerate(("green", "blue", "white", "cyan", "orange", "yellow", "purple"))]
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            mates = [pool.submit(submit, seed, *more, prompt=prompt) for submit, seed, more, prompt in others]
            own = pool.submit(self.submit)
            self.check("beside 7 jobs", self.files(own.result()) == want)
            for mate in mates:
                self.files(mate.result())
        seen = re.findall(r'denoise measured .*"(.*)"', self.cluster.log("worker1"))
        together = max((int(n) for line in seen for n in re.findall(r"(\d+):", line)), default=0)
        print(f"         {self.name}: up to {together} items were stepped at once")
        if together < 8:
            self.wrong.append(f"{self.name}: never were 8 items stepped at once, but {together}")

    def resumed(self, want, worker):
        """Killed behind a checkpoint: what the next worker ends is what was never interrupted."""
        job = self.submit(flags=self.long_flags)
        store = self.cluster.directory / "store"
        end = time.monotonic() + 120
        while not list(store.glob(f"t/*/j/{job}/denoise-0/ckpt/*")):
            if time.monotonic() > end:
                sys.exit(f"{self.name}: no checkpoint")
            time.sleep(0.001)
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        worker = self.cluster.start_worker("--batch", "8")
        files = self.files(job)
        show = json.loads(self.cluster.call("show", job, "--json"))
        at = max(task["resumed_step"] for task in show["tasks"])
        self.check(f"after kill -9, from step {at} of {self.long_flags[1]}", files == want and at > 0)
        return worker

    def run(self):
        with self.cluster as cluster:
            worker = cluster.start_worker("--batch", "1")
            want = self.files(self.submit())
            self.check("again", self.files(self.submit()) == want)
            self.check("other bytes with another seed", self.files(self.submit(SEED + 1)) != want)
            long_want = self.files(self.submit(flags=self.long_flags))
            worker.send_signal(signal.SIGTERM)
            worker.wait()
            worker = cluster.start_worker("--batch", "8")
            self.in_company(want)
            worker = self.resumed(long_want, worker)
            worker.send_signal(signal.SIGTERM)
            worker.wait()
            cluster.start_worker("--batch", "8", program="weir-worker-plain")
            self.check("without graphs", self.files(self.submit()) == want)
            self.check("without graphs, among 8", self.item(self.submit(SEED - 5, "--n", 8), 5, 8) == want)
            self.check("without graphs, long", self.files(self.submit(flags=self.long_flags)) == long_want)
        return self.wrong


def main():
    options = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0],
                                      formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    options.add_argument("--bin", required=True, help="the folder of the programs, weir-worker-plain among them")
    options.add_argument("--device", default="cuda")
    options.add_argument("--precision", action="append", help="may be given twice (default: both)")
    options.add_argument("--model", action="append", choices=MODELS, help="may be given several times (default: all)")
    asked = options.parse_args()
    wrong = []
    for precision in asked.precision or ("f32", "bf16"):
        for model in asked.model or MODELS:
            with tempfile.TemporaryDirectory(prefix="weir-same-") as work:
                wrong += Trial(asked, precision, model, pathlib.Path(work) / "dir").run()
    for words in wrong:
        print(f"WRONG: {words}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
