#!/usr/bin/env python3
"""What a request costs and what the process holds as its parts grow: routes, upstreams, endpoints of
one upstream, keys of a limit, stored answers, connections, requests at once, workers.

For each dimension a Weir of each size, all at once: everything that there is is asked for once, and
then each takes its turn, A B C A B C, with requests spread at random. Memory is what is resident
after the first, CPU the median over the rounds; both beside the smallest. `at rest` is the time a
second without requests costs. With --instructions they are counted too (valgrind), up to 10 000 of
each: a request's, and a second's at rest; they know no noise, but take a minute a row. With
--reloads, last, what a reload costs.

    cargo build --release
    python3 benches/scale.py [--only routes,keys] [--instructions] [--reloads 20]

Needs nginx as the origin (Debian package nginx) and two cores. Everything is on loopback.
"""

import argparse
import contextlib
import os
import random
import resource
import shutil
import statistics
import sys
import tempfile
import time
import urllib.request

from asking import Crowd, get
from counting import Counted
from gateway import BUILT, Gateway, need
from growth import DIMENSIONS, ORIGIN, RELOADED, config, origin_conf
from running import Running

FIRST, MIB = 21110, 1 << 20
HEAPS, REST, MOST_COUNTED = 20_000, 4, 10_000  # requests made at once on this side; seconds


class Grown:
    """A gateway of one size of one dimension, with clients that ask it."""

    def __init__(self, kind, binary, dimension, size, port, folder):
        self.dimension, self.size, self.paths = dimension, size, dimension.paths(size)
        os.mkdir(f"{folder}/{port}")
        core = "0" if dimension.workers(size) == 1 else "0,1"
        self.weir = kind(binary, config(dimension, size, port), f"{folder}/{port}", port + 1, core)
        self.crowd = Crowd(port, dimension.clients(size), dimension.heap, dimension.busy(size))
        self.chance = random.Random(size)

    def __enter__(self):
        self.weir.__enter__()
        return self

    def __exit__(self, *_):
        self.crowd.close()
        self.weir.__exit__()
        shutil.rmtree(os.path.dirname(self.weir.path))

    def ask(self, paths):
        asked = [get(f"/{path}/x") for path in paths]
        if self.crowd.ask(asked) != len(asked):
            sys.exit(f"{self.size} {self.dimension.key}: not all answers are 200")

    def ask_for_all(self):
        """Once for each that there is, and often enough for each client to have had a turn."""
        asked = max(self.paths, 2 * self.dimension.clients(self.size) * self.dimension.heap)
        for first in range(0, asked, HEAPS):
            self.ask(at % self.paths for at in range(first, min(first + HEAPS, asked)))

    def ask_at_random(self, requests):
        self.ask(self.chance.choices(range(self.paths), k=requests))


def measured(dimension, args, folder):
    """By size: bytes, and microseconds a request and a second at rest."""
    with contextlib.ExitStack() as ends:
        found, costs = [], {}
        for at, size in enumerate(dimension.sizes):
            one = Grown(Gateway, args.weir, dimension, size, FIRST + 2 * at, folder)
            found.append(ends.enter_context(one))
            one.ask_for_all()
        held = [one.weir.memory() for one in found]
        for _ in range(args.rounds):
            for one in found:
                before = one.weir.cpu()
                one.ask_at_random(args.requests)
                costs.setdefault(one.size, []).append((one.weir.cpu() - before) / args.requests * 1e6)
        time.sleep(REST)
        before = [one.weir.cpu() for one in found]
        time.sleep(REST)
        rest = [(one.weir.cpu() - cpu) / REST * 1e6 for one, cpu in zip(found, before)]
    return {one.size: [held[at], statistics.median(costs[one.size]), rest[at]] for at, one in enumerate(found)}


def counted(dimension, size, args, folder):
    """Instructions of a request, and of a second at rest."""
    with Grown(Counted, args.weir, dimension, size, FIRST, folder) as one:
        one.ask_for_all()
        one.weir.begin()
        one.ask_at_random(args.counted)
        one.weir.count()
        start = time.monotonic()
        one.ask_at_random(args.counted)
        busy, took = one.weir.count(), time.monotonic() - start
        start = time.monotonic()
        time.sleep(REST)
        rest = one.weir.count() / (time.monotonic() - start)
    # what it does each second is no part of a request, which takes fifty times as long here
    return [(busy - rest * took) / args.counted, rest]


def row(cells):
    print("| " + " | ".join(cells) + " |", flush=True)


def growth(value, first):
    return f"{value / first:.2f}" if first else ""


def show(dimension, args, folder):
    rows = measured(dimension, args, folder)
    for size in [size for size in rows if args.instructions and size <= MOST_COUNTED]:
        rows[size] += counted(dimension, size, args, folder)
    least = next(iter(rows))
    for size, (held, cost, rest, *more) in rows.items():
        each = (held - rows[least][0]) / (size - least) / 1024 if size > least else 0
        cells = [dimension.key, f"{size:,}", f"{held / MIB:.1f}", f"{each:.2f}" if each else ""]
        cells += [f"{cost:.2f}", growth(cost, rows[least][1]), f"{rest / 1000:.1f}"]
        if args.instructions:
            cells += [f"{more[0]:,.0f}", growth(more[0], rows[least][3]), f"{more[1] / 1000:,.0f}"] if more else [""] * 3
        row(cells)


def reloaded(size, args, folder):
    """Reloads it while it is asked. Seconds of each reload, the bytes before and after them, and what
    the worker's loop was late at the most."""
    took = []
    with Grown(Gateway, args.weir, RELOADED, size, FIRST, folder) as one:
        one.ask_for_all()
        before = one.weir.memory()
        for at in range(args.reloads):
            with open(one.weir.path, "w") as file:
                file.write(config(RELOADED, size, FIRST, timeout=31 + at))
            start = time.monotonic()
            urllib.request.urlopen(urllib.request.Request(f"{one.weir.admin}/reload", method="POST"))
            took.append(time.monotonic() - start)
            one.ask_for_all()
        time.sleep(REST)
        numbers = one.weir.metrics()
        if numbers["weir_config_generation"] != 1 + args.reloads:
            sys.exit("not every reload was applied")
        lag = "weir_worker_loop_lag_seconds"
        late = [float(name.split('le="')[1][:-2]) for name in numbers if name.startswith(f"{lag}_bucket")
                and numbers[name] == numbers[f'{lag}_count{{worker="0"}}']]
        return took, before, one.weir.memory(), min(late)


def show_reloads(args, folder):
    row(["routes, upstreams", "reload, ms", "at most", "MiB before", f"after {args.reloads}", "loop late at most, ms"])
    row(["---"] + ["--:"] * 5)
    for size in RELOADED.sizes:
        took, before, after, late = reloaded(size, args, folder)
        times = [statistics.median(took), max(took)]
        row([f"{size:,}, {size // 10:,}", *(f"{time * 1000:.1f}" for time in times),
             f"{before / MIB:.1f}", f"{after / MIB:.1f}", f"{late * 1000:g}"])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", help="of: " + ",".join(dimension.key for dimension in DIMENSIONS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=30_000, help="of each round")
    parser.add_argument("--instructions", action="store_true")
    parser.add_argument("--counted", type=int, default=3_000, help="requests whose instructions are counted")
    parser.add_argument("--reloads", type=int, default=0)
    parser.add_argument("--weir", default=BUILT)
    args = parser.parse_args()
    need("nginx", "taskset", args.weir, *(["valgrind", "callgrind_control"] if args.instructions else []))
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    chosen = args.only.split(",") if args.only is not None else [one.key for one in DIMENSIONS]
    os.sched_setaffinity(0, {1})
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.chmod(folder, 0o755)
        origin = Running(["nginx", "-c", origin_conf(folder)], ORIGIN, core=1)
        try:
            head = ["", "how many", "MiB", "KiB each", "CPU us/request", "to the first", "at rest, ms/s"]
            head += ["instructions/request", "to the first", "at rest, thousands/s"] if args.instructions else []
            row(head)
            row(["---"] + ["--:"] * (len(head) - 1))
            for dimension in DIMENSIONS:
                if dimension.key in chosen:
                    show(dimension, args, folder)
            if args.reloads:
                show_reloads(args, folder)
        finally:
            origin.stop()


if __name__ == "__main__":
    main()
