"""What trials share: asking a cluster that lies in a directory, and a broker and workers that are started by hand: several
models on one worker, workers that are killed.

Everything lies in that directory, as `weir serve` lays it out, so that `weir ... --dir` finds it.
"""
import hashlib
import json
import pathlib
import signal
import subprocess
import sys
import time

PATIENCE = 180.0  # seconds until a worker has its models; a GPU's libraries alone take some


class Client:
    """The program `weir`, asking the cluster in `directory`."""

    def __init__(self, weir, directory):
        self.weir, self.directory = str(weir), pathlib.Path(directory)

    def ask(self, command, *words):
        return subprocess.run([self.weir, command, *map(str, words), "--dir", str(self.directory)],
                              stdin=subprocess.DEVNULL, capture_output=True, check=False)

    def call(self, command, *words):
        """What it prints; ends the trial when it fails."""
        done = self.ask(command, *words)
        if done.returncode:
            sys.exit(f"weir {command} {' '.join(map(str, words))}: exit code {done.returncode}: "
                     f"{done.stderr.decode().strip()[-500:]}")
        return done.stdout.decode()


class Cluster(Client):
    """A context manager. `folder` is where the programs are."""

    def __init__(self, folder, directory, models, device="auto", precision="f32"):
        super().__init__(pathlib.Path(folder) / "weir", directory)
        self.folder, self.models = pathlib.Path(folder), models
        self.device, self.precision = device, precision
        self.workers, self.logs = [], []
        run = self.directory / "run"
        run.mkdir(parents=True, mode=0o700)
        self.for_workers = f"ipc://{run}/workers.ipc"
        self.broker = self._start("broker", [self.folder / "weir-broker", "--dir", self.directory, "--store",
                                             self.directory / "store", "--workers-endpoint", self.for_workers,
                                             "--clients-endpoint", f"ipc://{run}/clients.ipc"])

    def _start(self, name, command):
        log = open(self.directory / f"{name}.log", "w")  # noqa: SIM115 (closed by __exit__)
        self.logs.append(log)
        return subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def __enter__(self):
        self._until(lambda: self.ask("ls").returncode == 0, "the broker does not answer")
        return self

    def __exit__(self, *_):
        for process in [*self.workers, self.broker]:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        for log in self.logs:
            log.close()

    def _until(self, is_so, words):
        end = time.monotonic() + PATIENCE
        while not is_so():
            if time.monotonic() > end or self.broker.poll() is not None:
                sys.exit(f"{words}: {self.log('broker')[-2000:]}")
            time.sleep(0.05)

    def start_worker(self, *options, program="weir-worker"):
        """Returns the process once the broker knows it."""
        name = f"worker{len(self.workers)}"
        models = [word for model in self.models for word in ("--model", model)]
        worker = self._start(name, [self.folder / program, "--broker", self.for_workers, *models, "--store",
                                    self.directory / "store", "--run-dir", self.directory / "run", "--device",
                                    self.device, "--precision", self.precision, *options])
        self.workers.append(worker)
        end = time.monotonic() + PATIENCE
        while " welcome " not in self.log(name):
            if worker.poll() is not None or time.monotonic() > end:
                sys.exit(f"{name} does not start: {self.log(name)[-2000:]}")
            time.sleep(0.05)
        return worker

    def log(self, name):
        return (self.directory / f"{name}.log").read_text(errors="replace")

    def submit(self, prompt, *flags):
        return self.call("submit", prompt, *flags).split()[-1]

    def wait(self, job):
        """What became of it; ends the trial when it did not succeed."""
        report = json.loads(self.call("wait", job, "--json"))
        if report["state"] != "succeeded":
            sys.exit(f"job {job} is {report['state']}: {report}")
        return report

    def objects(self, job):
        """The SHA-256 of each file that the job made, in the order of its items."""
        folder = next((self.directory / "store").glob(f"t/*/j/{job}"))
        last = [task for task in folder.iterdir() if task.name.startswith("assemble-")]
        last = last or [task for task in folder.iterdir() if task.name.startswith("decode-")]
        last.sort(key=lambda task: int(task.name.rpartition("-")[2]))
        return [hashlib.sha256(file.read_bytes()).hexdigest() for task in last for file in sorted(task.iterdir())]
