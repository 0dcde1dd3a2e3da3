"""The clients: each runs one round of one work against a port and says what came of it.

Loads run on core 1, beside the origin; the proxies have core 0 to themselves. A round that meets
an answer other than 2xx or a broken connection ends the whole run: such figures mean nothing.
"""

import os
import re
import socket
import ssl
import subprocess
import sys
import tempfile
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
CORE = ["taskset", "-c", "1"]


def url(work, port):
    return f"{'https' if work.tls else 'http'}://127.0.0.1:{port}{work.path}"


def run(command):
    done = subprocess.run(CORE + command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: {done.stdout}{done.stderr}")
    return done.stdout


def fields(work):
    return [part for line in work.headers for part in ("-H", line)]


def saturate(work, port, seconds):
    """As much as the proxy takes. {requests, seconds, p50, p99, p999, max (microseconds)}."""
    if work.client == "handshakes":
        return handshakes(port, seconds)
    if work.client == "h2load":
        return h2load(work, port, seconds)
    out = run(["wrk", "-t1", f"-c{work.connections}", f"-d{seconds}s", "-s", f"{HERE}/percentiles.lua",
               *fields(work), url(work, port)])
    requests, spent, errors, *latency = map(int, re.search(r"RESULT (.*)", out).group(1).split())
    if errors:
        sys.exit(f"{work.key}: {errors} errors\n{out}")
    return {"requests": requests, "seconds": spent / 1e6} | named(latency)


def named(latency):
    return dict(zip(["p50", "p99", "p999", "max"], latency))


def size(work, port):
    """Bytes of one answer's body, so that a smaller cost is not a lesser work."""
    context = ssl._create_unverified_context() if work.tls else None
    fields = dict(line.split(": ", 1) for line in work.headers)
    request = urllib.request.Request(url(work, port), headers=fields)
    return len(urllib.request.urlopen(request, context=context, timeout=20).read())


def handshakes(port, seconds):
    """Full handshakes one after another, without resumption, nothing asked."""
    out = run(["openssl", "s_time", "-connect", f"127.0.0.1:{port}", "-new", "-time", str(seconds)])
    count, real = re.search(r"(\d+) connections in (\d+) real seconds", out).groups()
    return {"requests": int(count), "seconds": float(real)}


def h2load(work, port, seconds, rate=None):
    """h2load for a time: at saturation, or `rate` requests a second over all connections.

    It logs each request, from which the percentiles are taken: it prints none itself.
    """
    with tempfile.NamedTemporaryFile() as log:
        command = ["h2load", f"-c{work.connections}", f"-m{work.streams if work.http2 else 1}",
                   f"-D{seconds}", f"--log-file={log.name}", *fields(work)]
        command += [] if work.http2 else ["--h1"]
        command += [f"--rps={rate / work.connections:.1f}"] if rate else []
        out = run([*command, url(work, port)])
        rows = [line.split() for line in log.read().decode().splitlines()]
    if any(not row[1].startswith("2") for row in rows) or not rows:
        sys.exit(f"{work.key}: not all answers are 2xx\n{out}")
    times = sorted(int(row[2]) for row in rows)
    latency = [times[min(len(times) - 1, int(len(times) * part))] for part in (0.5, 0.99, 0.999, 1)]
    return {"requests": len(rows), "seconds": float(seconds)} | named(latency)


# What opens an HTTP/2 connection and asks for /ok on it: the preface, empty SETTINGS, and HEADERS
# with four literal or indexed fields (RFC 7541, appendix A: 2 GET, 7 https, 4 path, 1 authority).
H2_ASK = b"\x82\x87\x04\x03/ok\x01\x0dlocalhost.com"
H2_OPEN = (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
           + len(H2_ASK).to_bytes(3, "big") + b"\1\5\0\0\0\1" + H2_ASK)
H1_ASK = b"GET /ok HTTP/1.1\r\nHost: localhost\r\n\r\n"


def idle(work, port, count):
    """Opens `count` connections that ask once each and then keep still; gives the sockets, fewer
    where one gets no answer."""
    context = ssl._create_unverified_context()
    context.set_alpn_protocols(["h2" if work.http2 else "http/1.1"])
    opened = []
    for _ in range(count):
        try:
            opened.append(asked(work, port, context))
        except OSError:
            break
    return opened


def asked(work, port, context):
    """A connection that has its answer."""
    stream = socket.create_connection(("127.0.0.1", port), timeout=10)
    stream = context.wrap_socket(stream) if work.tls else stream
    stream.sendall(H2_OPEN if work.http2 else H1_ASK)
    answer = b""
    while b"hello world" not in answer:
        piece = stream.recv(4096)
        if not piece:
            raise ConnectionError(answer)
        answer += piece
    return stream
