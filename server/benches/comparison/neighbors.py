"""The setting `model_nice`, with and without two other programs that keep two cores busy at the same priority.

For each niceness, one client calls a tiny Python model, and a prober calls `/livez` while 64 clients post 384 numbers as JSON
to a model that multiplies matrices. FastAPI runs the same classes, without a delay: a lone client would only wait for it.
"""

import contextlib
import multiprocessing
import os
import subprocess
import sys
import time

import load
import report
import workloads

NICENESSES = [0, 1, 2, 5]
BUSY_LOOPS = 2
PROBE_INTERVAL = 0.005
CLIENTS = 64
VECTOR = [0.25] * 384


@contextlib.contextmanager
def busy_loops(count):
    """In the session of the servers, since Linux may share the cores among sessions before it looks at niceness."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def probe(port, seconds, sender):
    """Sends the latencies of `/livez`. Runs first where that is permitted, so that only the server's delays count."""
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, -20)
    request, latencies = load.get("/livez"), []
    connection = load.Connection(port)
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        connection.send(0, request)
        while connection.receive() is None:
            pass
        latencies.append(time.perf_counter() - connection.sent)
        time.sleep(PROBE_INTERVAL)
    sender.send(sorted(latencies))


def measure(server, seconds):
    """Requests per second of one client, of 64 clients, and the latencies of `/livez` during the latter."""
    one = load.run(server.port, [server.request("Echo", workloads.body("x" * 200))], 1, seconds)
    receiver, sender = multiprocessing.Pipe(duplex=False)
    prober = multiprocessing.Process(target=probe, args=(server.port, seconds + load.WARM_UP_SECONDS, sender))
    prober.start()
    many = load.run(server.port, [server.request("Matrix", workloads.body(VECTOR))], CLIENTS, seconds)
    latencies = receiver.recv()
    prober.join()
    failures = one.failures + many.failures
    if failures:
        print(f"{failures} requests failed", file=sys.stderr)
    return {
        "one client": one.per_second,
        "64 clients": many.per_second,
        "`/livez` p50": latencies[len(latencies) // 2],
        "`/livez` p99": latencies[int(0.99 * (len(latencies) - 1))],
    }


def compare(starter, given):
    results = {}
    with contextlib.ExitStack() as stack:
        running = {}
        models = starter.python_model("Echo", 1) + starter.python_model("Matrix", 1)
        for nice in NICENESSES:
            running[f"`model_nice = {nice}`"] = starter.inference_server(models, "predict", f"model_nice = {nice}")
        running["FastAPI"] = starter.python_server("fastapi_server.py", ["Echo", "Matrix"], 1, max_delay=0)
        for server in running.values():
            stack.callback(server.stop)
            server.wait_until_ready("Echo", workloads.body("x"))
            server.wait_until_ready("Matrix", workloads.body(VECTOR))
        for number in range(given.rounds):
            for loops in (0, BUSY_LOOPS):
                with busy_loops(loops):
                    start = number % len(running)
                    for name in [*running][start:] + [*running][:start]:
                        figures = measure(running[name], given.seconds)
                        results.setdefault((loops, name), []).append(figures)
                        text = ", ".join(
                            f"{figure} {1e3 * value:.2f} ms" if "livez" in figure else f"{figure} {value:.0f}/s"
                            for figure, value in figures.items()
                        )
                        print(f"round {number + 1}, {loops} busy loops, {name:<16} {text}", file=sys.stderr)
    return table(results)


def table(results):
    """The medians over the rounds of the ratios to FastAPI in the same round."""
    figures = [*next(iter(results.values()))[0]]
    lines = [
        f"| busy loops | niceness | {' | '.join(figures)} |",
        f"| --- | --- | {' | '.join('---' for _ in figures)} |",
    ]
    for (loops, name), rounds in results.items():
        base = results[loops, "FastAPI"]
        cells = [
            report.median_and_range([a[figure] / b[figure] for a, b in zip(rounds, base, strict=True)])
            for figure in figures
        ]
        if name != "FastAPI":
            lines.append(f"| {loops} | {name} | {' | '.join(cells)} |")
    return "### Busy neighbors\n\nRelative to FastAPI in the same round:\n\n" + "\n".join(lines)
