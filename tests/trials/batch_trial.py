"""Many prompts over several workers, two of them killed: every image comes, once, with the bytes it has when made alone.

    batch_trial.py --weir build/release/bin/weir
    batch_trial.py --weir ... --prompts 20 --alone 4            a small one

Hands `--prompts` distinct captions with `--n` images each to a cluster of `--workers` CPU workers as one job and kills
`--kill` workers with SIGKILL at moments drawn by --seed. Then it looks: as many images as were asked for, no two alike;
--alone of them, drawn by --seed, made again by `weir run` on their own with the same bytes; every distinct prompt's
embedding computed once, unless a worker was killed over it. Last the same file goes to a cluster of one worker, and both
are compared in images a second of a core used. Exit code 1 when something is not so.
"""
import argparse
import hashlib
import json
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "deploy" / "models" / "train"))
import grammar_images as grammar  # noqa: E402

from cluster import Client  # noqa: E402

TICKS = 100.0  # of /proc/PID/stat, a second


def seconds_of(pid):
    """Processor seconds that a process and the children it waited for have used."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / TICKS


class Cluster(Client):
    """`weir serve` in a directory of its own; a context manager."""

    def __init__(self, weir, model, workers, folder):
        super().__init__(weir, folder)
        self.used = {}
        command = [weir, "serve", "--dir", folder, "--model", model, "--workers", str(workers), "--threads", "1"]
        self.log = open(f"{folder}.log", "w")  # noqa: SIM115 (closed by __exit__)
        self.serve = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)

    def __enter__(self):
        for _ in range(300):
            if self.ask("ls").returncode == 0 and self.workers():
                return self
            time.sleep(0.1)
        sys.exit(f"the cluster does not answer: {pathlib.Path(self.log.name).read_text()}")

    def __exit__(self, *_):
        self.serve.send_signal(signal.SIGTERM)
        self.serve.wait()
        self.log.close()

    def workers(self):
        """Process ids of the workers that are there now."""
        out = subprocess.run(["pgrep", "-P", str(self.serve.pid), "-x", "weir-worker"], capture_output=True, check=False)
        return [int(pid) for pid in out.stdout.split()]

    def measure(self):
        """Takes down what every worker has used so far; those that are gone keep what was seen last."""
        for pid in self.workers():
            try:
                self.used[pid] = seconds_of(pid)
            except FileNotFoundError:
                pass
        return sum(self.used.values())


def pictures_done(cluster, job):
    show = json.loads(cluster.call("show", job, "--json"))
    return sum(task["stage"] == "decode" and task["state"] == "done" for task in show["tasks"]), show


def make(cluster, file, count, n, seed, kills):
    """Runs the job to its end; returns (job, wall seconds, processor seconds)."""
    before = cluster.measure()
    begin = time.monotonic()
    job = cluster.call("submit", "--prompts", str(file), "--n", str(n), "--seed", str(seed)).strip()
    while True:
        done, show = pictures_done(cluster, job)
        used = cluster.measure() - before
        while kills and done >= kills[0][0]:
            victim = kills.pop(0)[1].choice(cluster.workers())
            subprocess.run(["kill", "-9", str(victim)], check=True)
            print(f"killed worker {victim} with {done} of {count * n} images done")
        if show["state"] not in ("queued", "running"):
            break
        time.sleep(0.2)
    seconds = time.monotonic() - begin
    if show["state"] != "succeeded":
        sys.exit(f"job {job} is {show['state']}")
    return show, seconds, used


def embeddings(show):
    """(computed, text tasks, text tasks that a kill made run again)."""
    texts = [task for task in show["tasks"] if task["stage"] == "text"]
    return (sum(task["steps_run"] for task in texts), len(texts), sum(task["attempt"] > 1 for task in texts))


def check_alone(weir, model, items, folder, count, rng):
    wrong = 0
    for item in rng.sample(items, count):
        path = folder / "alone.png"
        subprocess.run([weir, "run", item["prompt"], "--model", model, "--seed", str(item["seed"]), "--threads", "1",
                        "-q", "-o", path], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        if hashlib.sha256(path.read_bytes()).hexdigest() != item["sha256"]:
            print(f"other bytes alone: line {item['line']} seed {item['seed']}: {item['prompt']}")
            wrong += 1
        path.unlink()
    return wrong


def main():
    options = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0],
                                      formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    options.add_argument("--weir", required=True, help="the weir program")
    options.add_argument("--model", default="shapes-sana-sprint")
    options.add_argument("--prompts", type=int, default=200)
    options.add_argument("--n", type=int, default=2, help="images a prompt")
    options.add_argument("--workers", type=int, default=4)
    options.add_argument("--kill", type=int, default=2, help="workers that are killed")
    options.add_argument("--alone", type=int, default=50, help="images that are made again alone")
    options.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    asked = options.parse_args()
    rng = random.Random(asked.seed)
    print(f"seed {asked.seed}")

    captions = [grammar.caption(grammar.Scene(*scene)) for scene in grammar.scenes(seen=True)]
    captions = rng.sample(sorted(set(captions)), asked.prompts)
    images = asked.prompts * asked.n
    wrong = []
    with tempfile.TemporaryDirectory(prefix="weir-trial-") as work:
        work = pathlib.Path(work)
        file = work / "prompts.txt"
        file.write_text("".join(caption + "\n" for caption in captions))
        with Cluster(asked.weir, asked.model, asked.workers, str(work / "many")) as cluster:
            kills = sorted(((rng.randrange(images // 10, images * 7 // 10), rng) for _ in range(asked.kill)),
                           key=lambda kill: kill[0])
            show, seconds, used = make(cluster, file, asked.prompts, asked.n, 1, kills)
            cluster.call("fetch", show["job"], "-o", f"{work}/out/")
        manifest = json.loads((work / "out" / "manifest.json").read_text())["items"]
        digests = {hashlib.sha256((work / "out" / item["file"]).read_bytes()).hexdigest() for item in manifest}
        computed, texts, again = embeddings(show)
        print(f"images {len(manifest)} of {images}, different {len(digests)}")
        print(f"embeddings computed {computed} for {asked.prompts} distinct prompts, {again} text tasks ran again")
        if len(manifest) != images or digests != {item["sha256"] for item in manifest} or len(digests) != images:
            wrong.append("images are missing or alike")
        if texts != asked.prompts or not asked.prompts - again <= computed <= asked.prompts:
            wrong.append("embeddings were computed more or less than once")
        differ = check_alone(asked.weir, asked.model, manifest, work, asked.alone, rng)
        print(f"made alone again {asked.alone}, other bytes {differ}")
        if differ:
            wrong.append("images differ alone")
        with Cluster(asked.weir, asked.model, 1, str(work / "one")) as cluster:
            one, one_seconds, one_used = make(cluster, file, asked.prompts, asked.n, 1, [])
            cluster.call("fetch", one["job"], "-o", f"{work}/one-out/")
        same = [item["sha256"] for item in json.loads((work / "one-out" / "manifest.json").read_text())["items"]]
        if same != [item["sha256"] for item in manifest]:
            wrong.append("one worker made other bytes")
        for name, wall, cores in ((f"{asked.workers} workers", seconds, used), ("1 worker", one_seconds, one_used)):
            print(f"{name}: {wall:.1f} s, {images / wall:.2f} images/s, {cores / wall:.2f} cores, "
                  f"{images / cores:.2f} images a second of a core")
    for words in wrong:
        print(f"WRONG: {words}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
