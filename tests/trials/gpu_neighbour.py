"""Another process fills the GPU, or faults on it: that is said, nothing dies of it, and work goes on once it is gone.

    gpu_neighbour.py --bin build/cuda/bin

1. Before a worker is started: `weir run` ends with one line that names the process, and exit code 71.
2. While a worker is idle, with nothing of its models on the GPU yet: it stays, warns, and the job that is handed in then
   is done after the other process has ended.
3. While it has a model there: the same with a job whose arena it has not got yet.
4. Another process reads where it must not (test_cuda_fault): the worker says which XID the driver reported, and makes the
   same file as before.
Exit code 1 when something is not so.
"""
import argparse
import ctypes
import json
import pathlib
import subprocess
import sys
import tempfile
import time

from cluster import Cluster

MIB = 1 << 20
PATIENCE = 60.0


def hold(leave_mib):
    """Takes the GPU's memory but for so much, says so, and keeps it until standard input ends."""
    cuda = ctypes.CDLL("libcuda.so.1")
    context, device, free, total, at = ctypes.c_void_p(), ctypes.c_int(), ctypes.c_size_t(), ctypes.c_size_t(), ctypes.c_uint64()
    cuda.cuInit(0)
    cuda.cuDeviceGet(ctypes.byref(device), 0)
    if cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device) or cuda.cuCtxSetCurrent(context):
        sys.exit("no context")
    piece = 1 << 30
    while piece >= 2 * MIB:
        cuda.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total))
        if free.value < leave_mib * MIB + piece or cuda.cuMemAlloc_v2(ctypes.byref(at), ctypes.c_size_t(piece)):
            piece //= 2
    cuda.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total))
    print(f"free_mib={free.value // MIB}", flush=True)
    sys.stdin.read()


class Hog:
    """That process; a context manager."""

    def __init__(self, leave_mib):
        self.process = subprocess.Popen([sys.executable, __file__, "--hold", str(leave_mib)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)
        print(f"      process {self.process.pid} holds the GPU: {self.process.stdout.readline().strip()}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()


class Trial:
    def __init__(self, folder):
        self.folder, self.wrong = folder, []

    def check(self, what, is_so, words=""):
        print(f"{'so' if is_so else 'NOT SO'}: {what}{': ' if words else ''}{words}", flush=True)
        if not is_so:
            self.wrong.append(what)

    def full_before(self, model):
        with Hog(200) as hog:
            done = subprocess.run([str(self.folder / "weir"), "run", "a red circle on a black background", "--model", model,
                                   "--device", "cuda", "-q", "-o", "/tmp/never.png"], stdin=subprocess.DEVNULL,
                                  capture_output=True, text=True, check=False, timeout=120)
        self.check("exit code 71", done.returncode == 71, f"{done.returncode}")
        self.check("one line that names the process", done.stderr.count("\n") == 1 and
                   f"process {hog.process.pid}:" in done.stderr, done.stderr.strip())

    def until(self, what, is_so):
        end = time.monotonic() + PATIENCE
        while not is_so() and time.monotonic() < end:
            time.sleep(0.1)
        self.check(what, is_so())

    def full_meanwhile(self, cluster, worker, what, flags):
        begin = len(cluster.log("worker0"))
        log = lambda: cluster.log("worker0")[begin:]  # noqa: E731
        with Hog(0) as hog:
            self.until(f"{what}: the worker warns", lambda: "device memory begins" in log())
            job = cluster.submit("a red circle on a black background", *flags)
            time.sleep(3)
            state = json.loads(cluster.call("show", job, "--json"))["state"]
            print(f"      the job meanwhile is {state}")
        self.check(f"{what}: the words name the process", f"process {hog.process.pid}:" in log())
        done = cluster.ask("wait", job)
        self.check(f"{what}: the job is done once there is room", done.returncode == 0, done.stdout.decode().strip())
        self.check(f"{what}: the worker lives", worker.poll() is None)
        self.until(f"{what}: it says that it is over", lambda: "device memory ended" in log())
        for line in log().splitlines():
            if " warn " in line or " error " in line:
                print(f"      {line[:300]}")


    def fault_beside(self, cluster, worker, folder, flags):
        begin = len(cluster.log("worker0"))
        prompt = "a red circle on a black background"
        before = cluster.submit(prompt, *flags)
        cluster.wait(before)
        fault = subprocess.run([str(folder / "test_cuda_fault")], capture_output=True, check=False)
        self.check("the other process faults as it should", fault.returncode == 0)
        self.until("the worker says which XID", lambda: "device faults begins" in cluster.log("worker0")[begin:])
        after = cluster.submit(prompt, *flags)
        cluster.wait(after)
        self.check("the same file afterwards", cluster.objects(after) == cluster.objects(before))
        self.check("the worker lives after another's fault", worker.poll() is None)
        for line in cluster.log("worker0")[begin:].splitlines():
            if " warn " in line or " error " in line:
                print(f"      {line[:300]}")


def main():
    options = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    options.add_argument("--bin", help="the folder of the programs")
    options.add_argument("--hold", type=int, help=argparse.SUPPRESS)
    asked = options.parse_args()
    if asked.hold is not None:
        hold(asked.hold)
        return 0
    trial = Trial(pathlib.Path(asked.bin))
    trial.full_before("shapes-sana-sprint")
    with tempfile.TemporaryDirectory(prefix="weir-crowded-") as work, \
            Cluster(asked.bin, pathlib.Path(work) / "dir", ("shapes-sana-sprint",), "cuda") as cluster:
        worker = cluster.start_worker()
        small = ("--model", "shapes-sana-sprint", "--seed", 1)
        trial.full_meanwhile(cluster, worker, "nothing loaded", small)
        trial.full_meanwhile(cluster, worker, "a model loaded", (*small, "--size", "1024x1024"))
        trial.fault_beside(cluster, worker, trial.folder, small)
    for words in trial.wrong:
        print(f"WRONG: {words}")
    return 1 if trial.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
