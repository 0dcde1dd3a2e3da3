"""Weir beside its peers: the same work, in one run.

Each proxy has one worker and core 0; the load and the origin (nginx) have core 1. All that do a
piece of work are started, and then take turns, A B C A B C; what counts is the CPU time of the
whole process tree over the requests it served, as medians over the rounds, and its ratio to
nginx's. Then each is offered half of what nginx took at most, for the times a request takes below
saturation. Last, the memory of idle connections.

    cargo build --release
    benches/versus/install.sh        # once; a peer that is missing is left out
    python3 benches/versus [--rounds 5] [--seconds 4] [--works small,hit] [--peers nginx,weir]
                           [--save]  # into benches/RESULTS.md and benches/results.json

Needs two cores. Everything is on loopback.
"""

import argparse
import contextlib
import os
import resource
import shutil
import sys
import tempfile
import time

import load
import meter
import report
from peers import ORIGIN, PEERS, ROOT, origin
from running import Running, prepare
from works import IDLE, WORKS

FIRST_PORT = 19701


@contextlib.contextmanager
def started(work, names, dir):
    """The proxies that do this work, by name, for as long as the block runs."""
    with contextlib.ExitStack() as ends:
        running = {}
        for at, name in enumerate(names):
            if PEERS[name].can(work):
                running[name] = Running(PEERS[name].command(work, FIRST_PORT + at, dir), FIRST_PORT + at)
                ends.callback(running[name].stop)
        yield running


def round_of(work, proxy, seconds, rate=None):
    """One turn of one proxy, with what it cost."""
    root = proxy.process.pid
    before = meter.cpu(root)
    got = load.h2load(work, proxy.port, seconds, rate) if rate else load.saturate(work, proxy.port, seconds)
    user, system = ((now - then) * 1e6 / got["requests"] for now, then in zip(meter.cpu(root), before))
    return got | {"cost": user + system, "user": user, "system": system,
                  "rate": got["requests"] / got["seconds"], "memory": meter.memory(root)}


def measure(work, names, args, dir):
    full, half, sizes = {}, {}, {}
    with started(work, names, dir) as running:
        for name, proxy in running.items():
            sizes[name] = load.size(work, proxy.port)
            load.saturate(work, proxy.port, 1)
        for _ in range(args.rounds):
            for name, proxy in running.items():
                full.setdefault(name, []).append(round_of(work, proxy, args.seconds))
        most = report.median(full.get("nginx") or next(iter(full.values())), "rate")
        if work.client != "handshakes" and not args.no_half:
            for _ in range(min(3, args.rounds)):
                for name, proxy in running.items():
                    half.setdefault(name, []).append(round_of(work, proxy, args.seconds, rate=most / 2))
    return {name: {"full": report.summary(rounds),
                   "half": report.summary(half[name]) if name in half else None,
                   "bytes": sizes[name], "costs": [round(one["cost"], 2) for one in rounds],
                   "ratio": report.ratio(rounds, full.get("nginx"))} for name, rounds in full.items()}


def measure_idle(work, names, count, dir):
    """Bytes that a connection adds to each proxy, once all have asked and keep still."""
    grown = {}
    warm = next(one for one in WORKS if (one.tls, one.http2) == (work.tls, work.http2))
    with started(work, names, dir) as running:
        for name, proxy in running.items():
            load.saturate(warm, proxy.port, 1)
            time.sleep(1)
            before = meter.memory(proxy.process.pid)
            opened = load.idle(work, proxy.port, count)
            time.sleep(3)
            if len(opened) == count:
                grown[name] = (meter.memory(proxy.process.pid) - before) / count
            else:
                print(f"{name}: {work.title}: no answer after {len(opened)} connections", flush=True)
            for stream in opened:
                stream.close()
    return grown


def arguments():
    parser = argparse.ArgumentParser(prog="benches/versus", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--works", help="of: " + ",".join(work.key for work in WORKS + IDLE))
    parser.add_argument("--peers", help="of: " + ",".join(PEERS))
    parser.add_argument("--no-half", action="store_true", help="leave out the rounds at half of saturation")
    parser.add_argument("--idle", type=int, default=10000, help="idle connections")
    parser.add_argument("--weir", default=os.path.join(ROOT, "target", "release", "weir"))
    parser.add_argument("--save", action="store_true", help="into benches/RESULTS.md and benches/results.json")
    return parser.parse_args()


def main():
    args = arguments()
    PEERS["weir"].binary = args.weir if os.path.exists(args.weir) else None
    for tool in ["nginx", "wrk", "h2load", "openssl", "taskset"]:
        if not shutil.which(tool):
            sys.exit(f"{tool} is not installed: benches/versus/install.sh")
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    wanted = args.peers.split(",") if args.peers else list(PEERS)
    names = [name for name in wanted if PEERS[name].binary]
    missing = [name for name in wanted if not PEERS[name].binary]
    chosen = args.works.split(",") if args.works else [work.key for work in WORKS + IDLE]
    versions = {name: PEERS[name].version() for name in names}
    results, idle = [], []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as dir:
        prepare(dir)
        behind = Running(origin(dir), ORIGIN, core=1)
        try:
            for work in WORKS:
                if work.key in chosen:
                    results.append((work, measure(work, names, args, dir)))
                    print("\n".join(report.one_work(*results[-1])), flush=True)
            for work in IDLE:
                if work.key in chosen:
                    idle.append((work, measure_idle(work, names, args.idle, dir)))
        finally:
            behind.stop()
    if idle:
        print(report.idle_table(idle, args.idle))
    if args.save:
        save(args, results, idle, versions, missing)


def save(args, results, idle, versions, missing):
    text = report.table(results, versions, missing, " ".join(sys.argv[1:]).replace("--save", "").strip())
    text += report.idle_table(idle, args.idle) if idle else ""
    head = "# Results of benches/versus\n\nNewest first. How they are measured is in `benches/versus/__main__.py`.\n\n"
    path = os.path.join(ROOT, "benches", "RESULTS.md")
    older = open(path).read().removeprefix(head) if os.path.exists(path) else ""
    with open(path, "w") as file:
        file.write(head + text + "\n" + older)
    with open(os.path.join(ROOT, "benches", "results.json"), "w") as file:
        file.write(report.as_json(results, idle, versions))


if __name__ == "__main__":
    main()
