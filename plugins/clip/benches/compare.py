#!/usr/bin/env python3
"""Compares the plugin with transformers, on the same model and the same batch sizes.

    python3 -m venv venv && venv/bin/pip install -r plugins/clip/tests/reference/requirements.txt
    venv/bin/python plugins/clip/benches/compare.py FOLDER [THREADS]

If FOLDER does not exist, creates a model of the size of ViT-B/32 (605 MB) with random weights. Both sides alternate, so that other
load on the machine affects both. Each figure is the median over the rounds.
"""

import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import torch
from PIL import Image
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

ROOT = Path(__file__).resolve().parents[3]
TESTS = ROOT / "plugins/clip/tests"
ROUNDS = 5
BATCHES = {"images": [1, 2, 8, 32], "texts": [1, 8, 32]}
SECONDS = 2
UNITS = {"ns": 1e-9, "µs": 1e-6, "ms": 1e-3, "s": 1}


def made(folder):
    if not folder.exists():
        CLIPModel(CLIPConfig()).save_pretrained(folder)
        CLIPImageProcessorPil().save_pretrained(folder)
        CLIPTokenizer.from_pretrained(TESTS / "models/new").save_pretrained(folder)
    return folder


def median_of(run):
    """Returns the median duration of a run in seconds, after a warm-up run."""
    run()
    begin, times = time.perf_counter(), []
    while not times or time.perf_counter() - begin < SECONDS:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def theirs(model, preprocessor, group):
    large = TESTS / "images/large.png"
    if group == "read_a_png":
        return {group: median_of(lambda: preprocessor(Image.open(large), return_tensors="pt"))}
    seconds = {}
    for batch in BATCHES[group]:
        if group == "images":
            pixels = preprocessor([Image.open(large)] * batch, return_tensors="pt")["pixel_values"]
            run = lambda: model.get_image_features(pixels)
        else:
            ids = torch.arange(1, 11).repeat(batch, 1)
            run = lambda: model.get_text_features(ids)
        seconds[f"{group} {batch}"] = median_of(run)
    return seconds


def built():
    """Builds the benchmark and returns its executable."""
    command = ["cargo", "bench", "-p", "plugin-clip", "--bench", "forward", "--no-run", "--message-format", "json"]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    messages = map(json.loads, done.stdout.splitlines())
    return next(message["executable"] for message in messages if message.get("target", {}).get("kind") == ["bench"])


def ours(executable, folder, threads, group):
    command = [executable, "--bench", "--max-time", str(SECONDS), group]
    environment = os.environ | {"CLIP_BENCH_FOLDER": str(folder), "CLIP_BENCH_THREADS": str(threads)}
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    seconds = {}
    # Each line has a name, followed by the fastest, slowest, median and mean time.
    for line in done.stdout.splitlines():
        name = re.match(r"[│├╰─ ]*(\w+)", line)
        times = re.findall(r"([\d.]+) (ns|µs|ms|s)\b", line)
        if name and len(times) == 4:
            key = group if name[1] == group else f"{group} {name[1]}"
            seconds[key] = float(times[2][0]) * UNITS[times[2][1]]
    return seconds


@torch.no_grad()
def main():
    folder, threads = made(Path(sys.argv[1]).resolve()), int((sys.argv + ["1"])[2])
    torch.set_num_threads(threads)
    model, preprocessor = CLIPModel.from_pretrained(folder).eval(), CLIPImageProcessorPil.from_pretrained(folder)
    executable = built()
    own, ratios = defaultdict(list), defaultdict(list)
    for group in ["read_a_png", "images", "texts"] * ROUNDS:
        ours_now, theirs_now = ours(executable, folder, threads, group), theirs(model, preprocessor, group)
        for key, seconds in ours_now.items():
            own[key].append(seconds)
            ratios[key].append(theirs_now[key] / seconds)
    print(f"{threads} threads")
    for key in own:
        print(f"{key:12}  {statistics.median(own[key]) * 1e3:9.2f} ms  {statistics.median(ratios[key]):.2f} × transformers")


if __name__ == "__main__":
    main()
