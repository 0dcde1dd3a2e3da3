#!/usr/bin/env python3
"""The rate that a limit admits, beside the rate that the config says.

One Weir for each number of workers and each kind of traffic; clients offer three times the limit
for a while and count what was let through. `steady` spreads the requests evenly, `bursty` sends
them in a heap twice a second, `keys` spreads them over 100 users with a limit each. With --reloads
the config is changed that many times meanwhile. The first two seconds, in which the burst is used
up, are not counted.

    cargo build --release
    python3 benches/limit_rate.py [--seconds 60] [--workers 1 2 4] [--reloads 50]

Needs python3 alone. Everything is on loopback. Exits 1 if a rate is off by more than 1 %.
"""

import argparse
import asyncio
import sys
import tempfile
import time
import urllib.request

from gateway import BUILT, Gateway, need

WEB, ADMIN = 19512, 19513
RATE, USERS, WARM = 200, 100, 2.0
CONF = """
[server]
workers = {workers}
drain   = {{ delay = "0s", timeout = "5s" }}
rate_limit_headers = "off"
[admin]
address = "127.0.0.1:%d"
[log]
level  = "warn"
access = {{ to = "off" }}
[listeners.web]
address = "127.0.0.1:%d"
[[routes]]
id         = "all"
rate_limit = {limit}
respond    = {{ body = "ok" }}
[[routes]]
id      = "other"
match   = {{ path = "/other" }}
respond = {{ body = "{change}" }}
""" % (ADMIN, WEB)
LIMITS = {
    "steady": '[{ rate = "%d/s", burst = 20, key = "route" }]' % RATE,
    "bursty": '[{ rate = "%d/s", burst = %d, key = "route" }]' % (RATE, RATE),
    "keys": '[{ rate = "%d/s", burst = 2, key = "header:x-user" }]' % (RATE // USERS),
}


class Client:
    """One keep-alive connection."""

    async def open(self):
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", WEB)
        return self

    async def ask(self, user):
        self.writer.write(b"GET / HTTP/1.1\r\nHost: a.test\r\nX-User: %d\r\n\r\n" % user)
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        await self.reader.readexactly(length)
        return head.startswith(b"HTTP/1.1 200")


async def offer(kind, seconds):
    """Offers three times the limit; gives the requests let through after the warm-up."""
    clients = [await Client().open() for _ in range(24)]
    start, passed, sent = time.monotonic(), [], 0
    heap = RATE * 3 // 2
    while (now := time.monotonic() - start) < WARM + seconds:
        due = int(now * RATE * 3) if kind != "bursty" else (int(now * 2) + 1) * heap
        batch = min(due - sent, heap)
        if batch <= 0:
            await asyncio.sleep(0.001)
            continue

        async def some(client, numbers):
            return [await client.ask(n % USERS) for n in numbers]

        numbers = range(sent, sent + batch)
        parts = [numbers[i :: len(clients)] for i in range(len(clients))]
        # In turn, so that no connection is idle for so long that it is closed.
        turn = [clients[(sent + i) % len(clients)] for i in range(len(clients))]
        answers = await asyncio.gather(*(some(c, p) for c, p in zip(turn, parts) if p))
        sent += batch
        if time.monotonic() - start > WARM:
            passed.append(sum(map(sum, answers)))
    for client in clients:
        client.writer.close()
    return sum(passed), time.monotonic() - start - WARM


async def reloads(path, conf, count, seconds):
    """Changes another route, `count` times within the run."""
    for n in range(count):
        await asyncio.sleep(seconds / (count + 1))
        with open(path, "w") as file:
            file.write(conf(n))
        ask = urllib.request.Request(f"http://127.0.0.1:{ADMIN}/reload", method="POST")
        answer = await asyncio.to_thread(urllib.request.urlopen, ask)
        assert answer.status == 200


async def run(kind, workers, args, folder):
    def conf(change):
        return CONF.format(workers=workers, limit=LIMITS[kind], change=change)

    with Gateway(args.weir, conf("start"), folder, ADMIN) as weir:
        change = reloads(weir.path, conf, args.reloads, args.seconds)
        (passed, took), _ = await asyncio.gather(offer(kind, args.seconds), change)
    return passed / took


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--kinds", nargs="+", default=list(LIMITS))
    parser.add_argument("--reloads", type=int, default=50)
    parser.add_argument("--weir", default=BUILT)
    args = parser.parse_args()
    need(args.weir)
    worst = 0.0
    print(f"limit {RATE}/s, {args.seconds:.0f} s, {args.reloads} reloads")
    for workers in args.workers:
        for kind in args.kinds:
            with tempfile.TemporaryDirectory() as folder:
                rate = asyncio.run(run(kind, workers, args, folder))
            off = rate / RATE - 1
            worst = max(worst, abs(off))
            print(f"{workers} workers, {kind:<7} {rate:8.2f}/s {off:+.2%}", flush=True)
    sys.exit(worst > 0.01)


if __name__ == "__main__":
    main()
