#!/usr/bin/env python3
"""What high priority feels of an overload: its success and its latency beside a quiet machine.

One worker, pinned to core 0; the load (h2load) and the origin (nginx) on core 1. Requests of low
priority cost the worker much more than those of high priority: their answers are compressed. First
the capacity for them is measured, then four times that is offered, while a client of high priority
asks at a steady pace. Low priority is shed first and has a ladder; last it has a cap beside that.
The first half of a run is not counted: what must be shed has to be found out.

    cargo build --release
    python3 benches/overload.py [--seconds 10]

Needs nginx and h2load (Debian packages nginx, nghttp2-client), and two cores. All on loopback.
"""

import argparse
import asyncio
import os
import random
import re
import subprocess
import tempfile
import time

from gateway import BUILT, Gateway, need
from peers import nginx_head
from running import Running

ORIGIN, WEB, ADMIN = 19520, 19521, 19522
WEIR = """
[server]
workers = 1
drain   = {{ delay = "0s", timeout = "5s" }}
{shed}
[admin]
address = "127.0.0.1:%d"
[log]
level  = "warn"
access = {{ to = "off" }}
[listeners.web]
address = "127.0.0.1:%d"
[upstreams.o]
endpoints = ["127.0.0.1:%d"]
[[routes]]
id       = "high"
match    = {{ path = "/high" }}
upstream = "o"
priority = "high"
[[routes]]
id          = "low"
match       = {{ path = "/low" }}
upstream    = "o"
priority    = "low"
compress    = {{ levels = {{ gzip = 6 }} }}
{cap}
fallback    = [{{ respond = {{ body = "a lesser answer" }} }}]
""" % (ADMIN, WEB, ORIGIN)


async def probe(seconds, pace=100):
    """Asks for /high at a steady pace over connections that stay; gives the times in ms."""
    pairs = [await asyncio.open_connection("127.0.0.1", WEB) for _ in range(8)]
    free, times, failed = list(pairs), [], 0
    start, sent, tasks = time.monotonic(), 0, set()

    async def ask(pair, due):
        nonlocal failed
        reader, writer = pair
        writer.write(b"GET /high HTTP/1.1\r\nHost: a.test\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(re.search(rb"content-length: (\d+)", head.lower()).group(1))
        await reader.readexactly(length)
        failed += not head.startswith(b"HTTP/1.1 200")
        times.append((time.monotonic() - due) * 1000)
        free.append(pair)

    while time.monotonic() - start < seconds:
        due = start + sent / pace
        await asyncio.sleep(max(0, due - time.monotonic()))
        if free:
            task = asyncio.create_task(ask(free.pop(0), time.monotonic()))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        sent += 1
    await asyncio.gather(*tasks)
    return sorted(times), failed


def stand_apart():
    """All of this before what else runs here, the load behind the rest of it, and the client off the
    gateway's core: what is measured is the wait for the gateway, and not for a processor."""
    os.sched_setaffinity(0, {1})
    try:
        os.setpriority(os.PRIO_PROCESS, 0, -20)
    except PermissionError:
        print("without priority over other programs: their turns are measured, too")


def at(times, share):
    return times[min(len(times) - 1, int(len(times) * share))]


def within(before, after):
    """Milliseconds of our own, without the wait for the origin, that 99 of 100 high requests took."""
    kind = 'weir_request_overhead_seconds_bucket{route="high",le="'
    grown = {k[len(kind):-2]: v - before[k] for k, v in after.items() if k.startswith(kind)}
    return next(float(le) * 1000 for le, n in grown.items() if n >= 0.99 * grown["+Inf"])


class Load:
    """Low priority, from so many clients at this rate in all, or as fast as they are answered. Ten
    programs that begin one after the other: one alone asks for all its clients at the same moment."""

    def __init__(self, seconds, clients, rate=None):
        programs = 10 if rate else 1
        command = ["taskset", "-c", "1", "nice", "-n", "20", "h2load", "--h1", "-t1", "-H",
                   "accept-encoding: gzip", f"-D{seconds}", f"-c{clients // programs}"]
        command += ["--rps", str(rate / clients)] if rate else []
        self.running = []
        for _ in range(programs):
            asks = [*command, f"http://127.0.0.1:{WEB}/low"]
            self.running.append(subprocess.Popen(asks, stdout=subprocess.PIPE, text=True))
            time.sleep(clients / rate / programs if rate else 0)

    def per_second(self):
        """Answers, once it has ended."""
        said = [program.communicate()[0] for program in self.running]
        return sum(float(re.search(r"([\d.]+) req/s", text).group(1)) for text in said)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--weir", default=BUILT)
    args = parser.parse_args()
    need("nginx", "h2load", "taskset", args.weir)
    stand_apart()
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        words = random.Random(1)
        with open(os.path.join(folder, "low"), "w") as file:
            file.write(" ".join("%x" % words.getrandbits(24) for _ in range(30_000)))
        with open(os.path.join(folder, "high"), "w") as file:
            file.write("high\n")
        conf = os.path.join(folder, "nginx.conf")
        with open(conf, "w") as file:
            file.write(nginx_head(folder, "origin") + f"root {folder}; default_type text/plain;"
                       f" server {{ listen 127.0.0.1:{ORIGIN} backlog=4096; }} }}")
        origin = Running(["nginx", "-c", conf], ORIGIN, core=1)
        try:
            measure(args, folder)
        finally:
            origin.stop()


def measure(args, folder):
    def gateway(shed="", cap=""):
        return Gateway(args.weir, WEIR.format(shed=shed, cap=cap), folder, ADMIN, core=0)

    with gateway():
        capacity = Load(args.seconds // 2, 2).per_second()
    print(f"capacity for low priority: {capacity:.0f}/s; offered: {4 * capacity:.0f}/s")
    for name, start in [
        ("shedding as it is by default", gateway),
        ("shedding for a lag of 50 ms", lambda: gateway(shed='shed = { lag = "50ms" }')),
        ("with a cap", lambda: gateway(cap="concurrency = { max = 1 }")),
    ]:
        with start() as weir:
            asyncio.run(probe(1))
            quiet, _ = asyncio.run(probe(args.seconds))
            busy = Load(2 * args.seconds + 1, 100, 4 * capacity)
            time.sleep(args.seconds)
            before = weir.metrics()
            loaded, failed = asyncio.run(probe(args.seconds))
            own = within(before, weir.metrics())
            memory = weir.memory() >> 20
            busy.per_second()
            numbers = weir.metrics()
        lesser = sum(v for k, v in numbers.items() if k.startswith("weir_degraded_total"))
        whole = numbers['weir_requests_total{route="low",code="200"}']
        ratio = at(loaded, 0.99) / at(quiet, 0.99)
        print(
            f"{name}: high p50 {at(quiet, 0.5):.2f} -> {at(loaded, 0.5):.2f} ms, "
            f"p99 {at(quiet, 0.99):.2f} -> {at(loaded, 0.99):.2f} ms ({ratio:.1f} x), "
            f"{own:g} ms or less of it our own, "
            f"failed {failed} of {len(loaded)}; low: {whole:.0f} answered, "
            f"{lesser:.0f} of them lesser; {memory} MiB",
            flush=True,
        )


if __name__ == "__main__":
    main()
