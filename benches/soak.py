#!/usr/bin/env python3
"""A soak of the response cache: Zipf traffic over many more objects than it has room for.

A million objects, whose bodies together are ten times `cache.memory`, are asked for by a fixed
seeded trace (wrk with a Lua script, one Weir worker, nginx as the origin: a body's size depends on
its number). What is resident is read every second and compared with the bound; the share of hits is
compared with LRU, LFU and TinyLFU on the same trace in the same weights.

    cargo build --release
    python3 benches/soak.py [--seconds 600] [--memory 256] [--rate 6000] [--alpha 0.9]

Needs nginx and wrk (Debian packages) on the machine. Everything is on loopback.
"""

import argparse
import array
import collections
import heapq
import itertools
import os
import random
import re
import subprocess
import sys
import tempfile
import time
import urllib.request

from gateway import BUILT, Gateway, need
from peers import nginx_head
from running import Running

ORIGIN, WEIR, ADMIN = 19660, 19661, 19662
OBJECTS = 1_000_000
TIMES = 10
# Of the mean size of a body, in tenths: the last digit of an object's number chooses.
SHARES = [1, 2, 3, 4, 5, 7, 9, 13, 21, 35]
MIB = 1 << 20



def origin_conf(dir):
    return nginx_head(dir, "origin") + f"""  sendfile on; open_file_cache max=100; etag off;
  server {{ listen 127.0.0.1:{ORIGIN} backlog=4096; add_header Cache-Control "max-age=86400";
    location = /ok {{ return 200 "ok"; }}
    location ~ ^/o/[0-9]*([0-9])$ {{ alias {dir}/files/$1; }} }} }}
"""


WEIR_CONF = """
[server]
workers = 1
drain   = { delay = "0s", timeout = "5s" }
[admin]
address = "127.0.0.1:%d"
[log]
level  = "warn"
access = { to = "off" }
[cache]
memory = "MEMORYMiB"
[listeners.web]
address = "127.0.0.1:%d"
[upstreams.o]
endpoints = ["127.0.0.1:%d"]
[[routes]]
id       = "all"
upstream = "o"
cache    = {}
""" % (ADMIN, WEIR, ORIGIN)
# Objects are asked for in the order of the trace; each connection rests between two of its requests.
LUA = """
local ffi = require("ffi")
local file = io.open("%s", "rb")
bytes = file:read("*a")
file:close()
local trace = ffi.cast("const uint32_t *", bytes)
local length, at = #bytes / 4, 0
function request()
  local object = tonumber(trace[at %% length])
  at = at + 1
  return string.format("GET /o/%%d HTTP/1.1\\r\\nHost: soak.test\\r\\n\\r\\n", object)
end
function delay() return %d end
"""


def trace_of(args):
    """Numbers of objects, the popular ones of all sizes."""
    chance = random.Random(args.seed)
    cumulated = list(itertools.accumulate(1 / (rank + 1) ** args.alpha for rank in range(OBJECTS)))
    ranks = range(OBJECTS)
    trace = array.array("I")
    for _ in range(args.rate * args.seconds // 100_000 + 1):
        trace.extend(rank * 611_953 % OBJECTS for rank in chance.choices(ranks, cum_weights=cumulated, k=100_000))
    return trace


class Lru:
    """What was asked for longest ago goes."""

    def __init__(self, memory, weights):
        self.free, self.weights, self.held = memory, weights, collections.OrderedDict()

    def hits(self, key):
        if key in self.held:
            self.held.move_to_end(key)
            return True
        self.held[key] = None
        self.free -= self.weights[key % 10]
        while self.free < 0:
            self.free += self.weights[self.held.popitem(last=False)[0] % 10]
        return False


class Lfu:
    """What was asked for least often goes, since the beginning."""

    def __init__(self, memory, weights):
        self.free, self.weights, self.held = memory, weights, {}
        self.counts, self.queue, self.time = collections.Counter(), [], itertools.count()

    def hits(self, key):
        self.counts[key] += 1
        if key in self.held:
            return True
        self.held[key] = None
        self.free -= self.weights[key % 10]
        heapq.heappush(self.queue, (self.counts[key], next(self.time), key))
        while self.free < 0:
            count, _, last = heapq.heappop(self.queue)
            if self.counts[last] > count:
                heapq.heappush(self.queue, (self.counts[last], next(self.time), last))
                continue
            del self.held[last]
            self.free += self.weights[last % 10]
        return False


class TinyLfu:
    """A new object comes in if it was asked for more often than those it would push out (LRU)."""

    def __init__(self, memory, weights):
        self.free, self.weights, self.held = memory, weights, collections.OrderedDict()
        self.counts, self.seen = collections.Counter(), 0
        self.sample = 10 * memory * 10 // sum(weights)

    def hits(self, key):
        self.counts[key] = min(self.counts[key] + 1, 15)
        self.seen += 1
        if self.seen >= self.sample:
            self.seen //= 2
            self.counts = collections.Counter({k: n // 2 for k, n in self.counts.items() if n > 1})
        if key in self.held:
            self.held.move_to_end(key)
            return True
        weight, room, victims, worth = self.weights[key % 10], self.free, [], 0
        for victim in self.held:
            if room >= weight:
                break
            victims.append(victim)
            room += self.weights[victim % 10]
            worth += self.counts[victim]
        if room < weight or (victims and worth >= self.counts[key]):
            return False
        for victim in victims:
            del self.held[victim]
        self.held[key] = None
        self.free = room - weight
        return False


def weight_beside(weir, bodies):
    """What the store adds for an object to its body, in bytes: the same for all of them."""
    for digit in range(10):
        urllib.request.urlopen(f"http://127.0.0.1:{WEIR}/o/{digit}").read()
    while weir.metrics()["weir_cache_objects"] < 10:
        time.sleep(0.1)
    return (weir.metrics()["weir_cache_bytes"] - sum(bodies)) / 10


def watched(load, weir, args):
    """What is resident, once a second, until the load is done."""
    seen, next_word = [], time.monotonic() + 60
    while load.poll() is None:
        seen.append(weir.memory() / MIB)
        if time.monotonic() > next_word:
            next_word += 60
            now = weir.metrics()
            print(f"{len(seen)} s: {seen[-1]:.0f} MiB resident, cache {now['weir_cache_bytes'] / MIB:.0f} MiB "
                  f"in {now['weir_cache_objects']:.0f} objects", flush=True)
        time.sleep(1)
    return seen


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--memory", type=int, default=256, help="cache.memory, in MiB")
    parser.add_argument("--rate", type=int, default=6000, help="requests a second, about")
    parser.add_argument("--alpha", type=float, default=0.9, help="of the Zipf distribution")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--weir", default=BUILT)
    args = parser.parse_args()
    need("nginx", "wrk", "taskset", args.weir)
    bodies = [args.memory * MIB * TIMES // OBJECTS * share // 10 for share in SHARES]
    trace = trace_of(args)
    with tempfile.TemporaryDirectory() as dir:
        os.chmod(dir, 0o755)
        os.mkdir(f"{dir}/files")
        for digit, size in enumerate(bodies):
            open(f"{dir}/files/{digit}", "w").write("x" * size)
        open(f"{dir}/trace", "wb").write(trace.tobytes())
        open(f"{dir}/soak.lua", "w").write(LUA % (f"{dir}/trace", args.connections * 1000 // args.rate))
        open(f"{dir}/origin.conf", "w").write(origin_conf(dir))
        origin = Running(["nginx", "-c", f"{dir}/origin.conf"], ORIGIN, core=1)
        try:
            config = WEIR_CONF.replace("MEMORY", str(args.memory))
            with Gateway(args.weir, config, dir, ADMIN) as weir:
                own = weight_beside(weir, bodies)
                before, idle, cpu = weir.metrics(), weir.memory() / MIB, weir.cpu()
                command = ["wrk", "-t1", f"-c{args.connections}", f"-d{args.seconds}s", "-s", f"{dir}/soak.lua"]
                load = subprocess.Popen(command + [f"http://127.0.0.1:{WEIR}"], stdout=subprocess.PIPE, text=True)
                seen = watched(load, weir, args)
                failed = re.search(r"Non-2xx.*|Socket errors.*", load.stdout.read())
                if failed:
                    sys.exit(failed.group(0))
                after, cpu = weir.metrics(), weir.cpu() - cpu
        finally:
            origin.stop()
    report(args, trace, bodies, own, before, after, idle, seen, cpu)


def report(args, trace, bodies, own, before, after, idle, seen, cpu):
    used = {name: after[name] - before[name] for name in after if name.startswith("weir_cache_requests_total")}
    asked = int(sum(used.values()))
    hits = sum(value for name, value in used.items() if 'result="hit"' in name)
    objects = after["weir_cache_objects"]
    print(f"{asked} requests in {args.seconds} s, {cpu / asked * 1e6:.1f} us of CPU each; alpha {args.alpha}, seed {args.seed}")
    print(f"resident: {idle:.0f} MiB idle, at most {max(seen):.0f}, last {seen[-1]:.0f}: "
          f"{max(seen) / args.memory:.2f} x the bound of {args.memory} MiB")
    print(f"cache: {objects:.0f} objects, {after['weir_cache_bytes'] / MIB:.0f} MiB as weighed")
    print(f"an object weighs {own:.0f} bytes beside its body")
    print("| policy | hits |")
    print("|---|--:|")
    print(f"| Weir | {hits / asked:.2%} |")
    weights = [int(size + own) for size in bodies]
    for policy in [Lru, Lfu, TinyLfu]:
        cache = policy(args.memory * MIB, weights)
        found = sum(map(cache.hits, itertools.islice(itertools.cycle(trace), asked)))
        print(f"| {policy.__name__.upper()} | {found / asked:.2%} |", flush=True)


if __name__ == "__main__":
    main()
