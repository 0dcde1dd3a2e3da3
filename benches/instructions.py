#!/usr/bin/env python3
"""Instructions that the whole path of a request takes, for each piece of work.

The gateway runs under valgrind (callgrind), which counts instructions and no time: a change of 1 %
is seen on a noisy machine. Each work is run with N requests and with 3 N, so that start and end
cancel out. --top shows where they go, by function.

    cargo build --release
    python3 benches/instructions.py [--works small,policies,hit] [--requests 2000] [--top 20]

Needs valgrind, nginx and h2load (Debian packages valgrind, nginx, nghttp2-client). Everything is on
loopback.
"""

import argparse
import collections
import os
import re
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "versus"))
import load  # noqa: E402
from counting import total  # noqa: E402
from peers import ORIGIN, PEERS, ROOT, origin  # noqa: E402
from running import Running, answers, prepare  # noqa: E402
from works import WORKS  # noqa: E402

PORT = 19701


def counted(work, requests, dir):
    """Runs one work so many times; gives callgrind's file."""
    out = f"{dir}/{work.key}.{requests}"
    command = PEERS["weir"].command(work, PORT, dir)
    valgrind = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", *command]
    process = subprocess.Popen(valgrind, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            if answers(PORT):
                break
            time.sleep(0.05)
        load.size(work, PORT)
        asked = ["h2load", "-n", str(requests), "-c", str(work.connections), "-m", str(work.streams)]
        asked += [] if work.http2 else ["--h1"]
        load.run([*asked, *load.fields(work), load.url(work, PORT)])
    finally:
        process.terminate()
        process.wait(timeout=60)
    return out


def by_function(out):
    """Instructions of each function itself."""
    own, names, current, called = collections.Counter(), {}, None, False
    with open(out, errors="replace") as file:
        for line in file:
            if found := re.match(r"fn=\((\d+)\)(?: (.*))?", line):
                names[found[1]] = current = found[2] or names.get(found[1])
            elif found := re.match(r"cfn=\((\d+)\) (.*)", line):
                names[found[1]] = found[2]
            elif line.startswith("calls="):
                called = True
            elif found := re.match(r"[\d+*-]\S* (\d+)", line):
                if not called:
                    own[current] += int(found[1])
                called = False
    return own


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--works", default="small,policies,logged,hit,gzip")
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--top", type=int, default=0)
    parser.add_argument("--weir", default=os.path.join(ROOT, "target", "release", "weir"))
    args = parser.parse_args()
    PEERS["weir"].binary = args.weir
    with tempfile.TemporaryDirectory() as dir:
        prepare(dir)
        behind = Running(origin(dir), ORIGIN, core=1)
        try:
            print("| work | instructions a request |\n|---|--:|")
            for work in WORKS:
                if work.key in args.works.split(","):
                    show(work, args, dir)
        finally:
            behind.stop()


def show(work, args, dir):
    few, many = (counted(work, times * args.requests, dir) for times in (1, 3))
    spread = 2 * args.requests
    print(f"| {work.title} | {(total(many) - total(few)) / spread:.0f} |", flush=True)
    if args.top:
        own = by_function(many)
        own.subtract(by_function(few))
        for name, count in own.most_common(args.top):
            print(f"|   {name} | {count / spread:.0f} |")


if __name__ == "__main__":
    main()
