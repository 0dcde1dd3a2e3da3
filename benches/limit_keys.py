#!/usr/bin/env python3
"""Ten million clients that come once, and a few that never stop: what a limit keeps of them.

One Weir with one worker and a limit of one a minute that remembers a million keys. First a million
distinct keys are sent, and the memory that each of them takes is measured; then the rest, up to
ten million, more than the table holds at once. Meanwhile ten abusers ask on and on. It fails if
memory passes the bound, or if an abuser is let through more often than its burst and its rate.

    cargo build --release
    python3 benches/limit_keys.py [--keys 10000000]

Needs python3 alone. Everything is on loopback. A few minutes.
"""

import argparse
import sys
import tempfile
import time

from asking import Client, get
from gateway import BUILT, Gateway, need

WEB, ADMIN = 19530, 19531
MILLION, BURST, PER_MINUTE, ABUSERS, HEAP = 1_000_000, 5, 1, 10, 200
# What the table may take at the most, and what else may grow meanwhile.
MOST_A_KEY, OTHER_MIB = 48, 16
CONF = """
[server]
workers = 1
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
rate_limit = {{ rate = "%d/m", burst = %d, key = "header:x-user", keys = %d }}
respond    = {{ body = "ok" }}
[[routes]]
id      = "free"
match   = {{ path = "/free" }}
respond = {{ body = "ok" }}
""" % (ADMIN, WEB, PER_MINUTE, BURST, MILLION)


def asks(client, users, path="/"):
    """Sends a request for each user; gives how many were let through."""
    return client.ask([get(path, f"X-User: {user}\r\n") for user in users])


class Abuse:
    """Those that never stop: how often each was let through, and how long they have asked."""

    def __init__(self):
        self.client, self.passed, self.start = Client(WEB), [0] * ABUSERS, time.monotonic()

    def ask(self, turn):
        who = turn % ABUSERS
        self.passed[who] += asks(self.client, [f"abuser-{who}"])

    def most(self):
        return BURST + (time.monotonic() - self.start) * PER_MINUTE / 60


def send(crowd, abuse, keys):
    """Keys that come once, in heaps, and an abuser after each heap; gives how many passed."""
    passed = 0
    for turn, first in enumerate(range(keys.start, keys.stop, HEAP)):
        passed += asks(crowd, range(first, min(first + HEAP, keys.stop)))
        abuse.ask(turn)
    return passed


def measure(weir, total):
    crowd, abuse = Client(WEB), Abuse()
    for _ in range(250):
        asks(crowd, range(HEAP), "/free")
    before, work, start = weir.memory("VmRSS"), weir.cpu(), time.monotonic()
    passed = send(crowd, abuse, range(MILLION))
    took, after = time.monotonic() - start, weir.memory("VmRSS")
    each = (after - before) / MILLION
    print(
        f"{MILLION} keys in {took:.0f} s, {passed} let through: {before >> 20} -> {after >> 20} MiB, "
        f"{each:.1f} bytes a key; {(weir.cpu() - work) / MILLION * 1e6:.2f} us of CPU each",
        flush=True,
    )
    work = weir.cpu()
    passed += send(crowd, abuse, range(MILLION, total))
    took, peak, most = time.monotonic() - start, weir.memory("VmHWM"), abuse.most()
    numbers = weir.metrics()
    told = {
        word: int(numbers[f'weir_limiter_{word}{{limit="all.0"}}'])
        for word in ("keys", "capacity", "evictions_total", "overflow_total")
    }
    print(
        f"{total} keys in {took:.0f} s, {passed} let through: at most {peak >> 20} MiB; "
        f"{(weir.cpu() - work) / max(1, total - MILLION) * 1e6:.2f} us of CPU each of the rest; {told}"
    )
    print(f"abusers let through {min(abuse.passed)} to {max(abuse.passed)} times, {most:.2f} at most")
    bound = before + MOST_A_KEY * MILLION + (OTHER_MIB << 20)
    return each <= MOST_A_KEY and peak <= bound and max(abuse.passed) <= most


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keys", type=int, default=10 * MILLION)
    parser.add_argument("--weir", default=BUILT)
    args = parser.parse_args()
    need(args.weir)
    with tempfile.TemporaryDirectory() as folder, Gateway(args.weir, CONF.format(), folder, ADMIN) as weir:
        good = measure(weir, args.keys)
    sys.exit(not good)


if __name__ == "__main__":
    main()
