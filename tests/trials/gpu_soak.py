"""Thousands of jobs of mixed shapes through one worker: its memory, on the device and the host, stays what it was.

    gpu_soak.py --bin build/cuda/bin                                       2,000 jobs on the GPU
    gpu_soak.py --bin build/dev/bin --device cpu --jobs 60 --every 5       a small one

Every job draws, by --seed, its model (pictures, pictures in few steps, films), size, steps, guidance, solver, number of
items, container, words that are not wanted and, for some, a picture to begin at. After every --every jobs come the same
three, one of each model, so that arenas, which follow the shapes, have the same sizes; then it is looked at what the
worker holds of the GPU (as nvidia-smi says), and what worker and broker have in memory (VmRSS).

Flat is what grows by less than --limit KiB a job over the last three quarters of the looks: the median of the slopes
between any two of them, which a step or two does not move (a library loads code when a shape first wants it), and which
is the slope of what leaks with every job. 8 KiB are less than the smallest thing that belongs to a job on the device,
64 KiB of latents, and than a handle of a library on the host. What is kept on purpose is full by then: the worker's last
1,024 results, in the first 500 jobs. Then every --again-th job is handed in once more, and must give the same files. Exit code 1 when something is not
so.
"""
import argparse
import concurrent.futures
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile
import time

from cluster import Cluster

COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "white", "cyan")
SHAPES = ("circle", "square", "triangle", "star")
GROUNDS = ("black", "gray", "navy", "brown")
MOVES = ("moving right", "moving up", "growing", "spinning")
MIB = 1024.0  # KiB
SAME = [("a red circle moving right on a navy background", ("--model", model, "--seed", 1, "--steps", 2, "--format", "png"))
        for model in ("shapes-modelscope", "shapes-sana", "shapes-sana-sprint")]


def flags_of(rng, picture):
    """A job: its prompt and the flags that it is submitted with."""
    thing = f"a {rng.choice(COLOURS)} {rng.choice(SHAPES)}"
    flags = ["--seed", rng.randrange(1 << 40), "--guidance", rng.choice((1, 3, 4.5, 7))]
    kind = rng.choices(("sprint", "start", "sana", "film"), (45, 8, 37, 10))[0]
    if rng.random() < 0.3 and kind in ("sana", "film"):
        flags += ["--negative", f"a {rng.choice(COLOURS)} {rng.choice(SHAPES)}"]
    if kind == "film":
        prompt = f"{thing} {rng.choice(MOVES)} on a {rng.choice(GROUNDS)} background"
        flags += ["--model", "shapes-modelscope", "--size", rng.choice(("64x64", "96x64", "128x128")), "--frames",
                  rng.choice((2, 5, 16, 20)), "--steps", rng.randrange(3, 7), "--sampler", rng.choice(("ddim", "dpm++")),
                  "--format", rng.choice(("mp4", "gif", "png"))]
        return prompt, flags
    prompt = f"{thing} {rng.choice(('above', 'left of'))} a {rng.choice(COLOURS)} star on a {rng.choice(GROUNDS)} background"
    flags += ["--size", rng.choice(("256x256", "192x128", "128x320", "320x320", "64x64", "512x512")), "--n",
              rng.choice((1, 1, 1, 1, 2, 3, 4)), "--format", rng.choice(("png", "png", "jpeg", "webp"))]
    if kind == "sana":
        return prompt, [*flags, "--model", "shapes-sana", "--steps", rng.randrange(3, 11)]
    flags += ["--model", "shapes-sana-sprint", "--steps", rng.randrange(1, 5)]
    if kind == "start":
        flags += ["--image", picture, "--strength", rng.choice((0.4, 0.7, 1))]
    return prompt, flags


def rss_kib(pid):
    lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS:")).split()[1])


def device_kib(pid):
    """What a process holds of the GPU, or None where nobody says."""
    try:
        asked = subprocess.run(["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"],
                               capture_output=True, text=True, check=False).stdout
    except FileNotFoundError:
        return None
    rows = [line.split(",") for line in asked.splitlines() if line.count(",") == 1]
    held = [int(mib) * 1024 for who, mib in rows if int(who) == pid]
    return sum(held) if held else None


def slope(points):
    """KiB a job, the median between any two of (jobs, KiB) but for the first quarter."""
    points = points[len(points) // 4:]
    slopes = [(y2 - y1) / (x2 - x1) for i, (x1, y1) in enumerate(points) for x2, y2 in points[i + 1:]]
    return statistics.median(slopes) if slopes else 0.0


def one(cluster, job):
    prompt, flags = job
    name = cluster.submit(prompt, *flags)
    cluster.wait(name)
    return cluster.objects(name)


def main():
    options = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0],
                                      formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    options.add_argument("--bin", required=True, help="the folder of the programs")
    options.add_argument("--device", default="cuda")
    options.add_argument("--precision", default="f32")
    options.add_argument("--jobs", type=int, default=2000)
    options.add_argument("--every", type=int, default=50, help="jobs between two looks")
    options.add_argument("--again", type=int, default=100, help="every how manyth job is made once more")
    options.add_argument("--in-flight", type=int, default=24)
    options.add_argument("--limit", type=float, default=8, help="KiB a job")
    options.add_argument("--worker", default="weir-worker", help="the program")
    options.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    asked = options.parse_args()
    rng = random.Random(asked.seed)
    print(f"seed {asked.seed}", flush=True)
    wrong = []
    with tempfile.TemporaryDirectory(prefix="weir-soak-") as work:
        models = ("shapes-sana", "shapes-sana-sprint", "shapes-modelscope")
        picture = pathlib.Path(work) / "picture"
        with Cluster(asked.bin, pathlib.Path(work) / "dir", models, asked.device, asked.precision) as cluster:
            worker = cluster.start_worker(program=asked.worker)
            first = cluster.submit("a red circle on a black background", "--model", "shapes-sana-sprint", "--seed", 1)
            cluster.wait(first)
            cluster.call("fetch", first, "-o", picture)
            jobs = [flags_of(rng, next(picture.glob("*.png"))) for _ in range(asked.jobs)]
            looks, made, begin = [], [], time.monotonic()
            print("   jobs  seconds  device MiB  worker MiB  broker MiB")
            with concurrent.futures.ThreadPoolExecutor(asked.in_flight) as pool:
                for at in range(0, asked.jobs, asked.every):
                    made += pool.map(lambda job: one(cluster, job), jobs[at:at + asked.every])
                    for job in SAME:
                        one(cluster, job)
                    if worker.poll() is not None:
                        sys.exit(f"the worker ended with {worker.returncode}: {cluster.log('worker0')[-2000:]}")
                    look = (len(made), device_kib(worker.pid), rss_kib(worker.pid), rss_kib(cluster.broker.pid))
                    looks.append(look)
                    held = [f"{kib / MIB:10.1f}" if kib is not None else "         -" for kib in look[1:]]
                    print(f"{look[0]:7d} {time.monotonic() - begin:8.1f}  {'  '.join(held)}", flush=True)
                seconds = time.monotonic() - begin
                chosen = range(0, asked.jobs, asked.again)
                differ = sum(files != made[i] for i, files in
                             zip(chosen, pool.map(lambda i: one(cluster, jobs[i]), chosen), strict=True))
            files = sum(len(files) for files in made)
            print(f"jobs {len(made)}, files {files}, different {len({file for job in made for file in job})}, "
                  f"{seconds:.1f} s, {len(made) / seconds:.1f} jobs/s")
            print(f"made again {len(chosen)}, other bytes {differ}")
            if differ:
                wrong.append("jobs gave other files the second time")
            if not all(made):
                wrong.append("a job gave no file")
            for column, name in ((1, "device"), (2, "worker"), (3, "broker")):
                points = [(look[0], look[column]) for look in looks if look[column] is not None]
                if not points:
                    print(f"{name}: not known")
                    continue
                grows = slope(points)
                print(f"{name}: {grows:+.2f} KiB a job over the last three quarters")
                if grows > asked.limit:
                    wrong.append(f"the memory of the {name} grows")
            if asked.device.startswith("cuda") and looks[-1][1] is None:
                wrong.append("nobody says what the worker holds of the GPU")
    for words in wrong:
        print(f"WRONG: {words}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
