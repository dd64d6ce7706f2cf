"""Starts and stops the servers of the comparison, and reads their CPU time."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import load

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[2]
START_SECONDS = 120
STOP_SECONDS = 30

MAX_BATCH_SIZE = 32


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def tree(pid):
    """A process and everything that it has started."""
    found, waiting = [], [pid]
    while waiting:
        pid = waiting.pop()
        try:
            children = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
        except OSError:
            continue
        found.append(pid)
        waiting += map(int, " ".join(children).split())
    return found


def cpu_seconds(pid):
    """CPU time of a process since its start, in nanoseconds' resolution: Linux derives the number of its clock from its id."""
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        return 0.0


class Server:
    """A running server, all its processes included."""

    def __init__(self, command, port, routes, environment=None):
        self.port, self.routes = port, routes
        self.log = tempfile.TemporaryFile("w+")
        # Default settings: the environment sets none of the server's.
        clean = {name: value for name, value in os.environ.items() if not name.startswith("INFERENCE_")}
        # In the session of this script: niceness counts only among the processes of one session.
        self.process = subprocess.Popen(
            command,
            env=clean | (environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
        )

    def cpu(self):
        return sum(map(cpu_seconds, tree(self.process.pid)))

    def request(self, model, body):
        return load.post(self.routes.format(model=model), body)

    def wait_until_ready(self, model, body):
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until and self.process.poll() is None:
            try:
                if load.once(self.port, self.request(model, body))[0] == b"200":
                    return
            except OSError:
                pass
            time.sleep(0.1)
        self.log.seek(0)
        sys.exit(f"the server did not become ready:\n{' '.join(self.process.args)}\n{self.log.read()}")

    def stop(self):
        processes = tree(self.process.pid)
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            for pid in processes:
                os.kill(pid, signal.SIGKILL)
            self.process.wait()
        self.log.close()


class Starter:
    """Knows where everything is that the servers need."""

    def __init__(self, executable, plugin_dir, python, models, directory, max_delay):
        self.executable, self.plugin_dir, self.python = executable, plugin_dir, python
        self.models, self.directory = models, directory
        # Of the batches of other servers, in seconds.
        self.max_delay = max_delay

    def python_server(self, script, classes, workers, max_delay=None, python=None, variables=None):
        port = free_port()
        max_delay = self.max_delay if max_delay is None else max_delay
        command = [python or self.python, HERE / script, port, workers, MAX_BATCH_SIZE, max_delay, *classes]
        return Server([*map(str, command)], port, "/{model}", self.variables() | (variables or {}))

    def variables(self):
        """For the processes that run `models.py`: where its files are, and one thread for everything."""
        one = ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"]
        return {"COMPARISON_MODELS": str(self.models), "TOKENIZERS_PARALLELISM": "false"} | dict.fromkeys(one, "1")

    def inference_server(self, models, task, server_keys="", routes=None):
        """This server, with the tables of models that are given. Requests are native ones unless `routes` says otherwise."""
        port = free_port()
        config = self.directory / f"{port}.toml"
        config.write_text(
            f'[server]\nhost = "127.0.0.1"\nport = {port}\n{server_keys}\n[logging]\naccess_log = false\n{models}'
        )
        command = [str(self.executable), "--config", str(config)]
        if self.plugin_dir:
            command += ["--plugin-dir", str(self.plugin_dir)]
        return Server(command, port, routes or f"/v1/models/{{model}}/tasks/{task}/predict")

    def python_model(self, name, workers):
        """The table of a class of `models.py` in the plugin `python`."""
        variables = "".join(f'{name} = "{value}"\n' for name, value in self.variables().items())
        return (
            f'[[models]]\nname = "{name}"\nplugin = "python"\nworkers = {workers}\nisolation = "process"\n'
            f'[models.settings]\nclass = "{HERE}/models.py:{name}"\npython = "{Path(self.python).parents[1]}"\n'
            f"[models.env]\n{variables}"
        )
