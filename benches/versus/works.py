"""The pieces of work that are compared: what is asked, by which client, and what each proxy does.

One entry for each row of the table. A peer reads the flags and writes its config by them; it says
itself which works it can do.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Work:
    key: str
    title: str
    path: str = "/ok"
    client: str = "wrk"  # "wrk" | "h2load" | "handshakes" | "idle"
    tls: bool = False
    http2: bool = False
    cache: bool = False
    gzip: bool = False
    limits: bool = False
    log: bool = False
    headers: tuple = ()  # request header lines
    connections: int = 32
    streams: int = 1  # a connection, HTTP/2 alone
    first: float = 0.0  # the ratio to nginx to reach first; 0: none is set
    goal: float = 0.0  # the ratio that is the goal


GZIP = ("Accept-Encoding: gzip",)

WORKS = [
    Work("small", "small response", first=1.15, goal=0.95),
    Work("policies", "the same with limits, breaker, ids", limits=True, first=1.10, goal=0.95),
    Work("logged", "small response, access log on", log=True),
    Work("hit", "cache hit, 1 KiB", path="/1k", cache=True, first=0.75, goal=0.60),
    Work("100k", "100 KiB response", path="/100k", first=0.80, goal=0.60),
    Work("1m", "1 MiB response", path="/1m", first=0.70, goal=0.45),
    Work("gzip", "gzip of 10 KiB JSON", path="/10k.json", gzip=True, headers=GZIP, first=0.80, goal=0.50),
    Work("tls", "TLS 1.3 keep-alive, small response", tls=True, first=1.15, goal=0.95),
    Work("h2", "HTTP/2 over TLS, 16 x 32 streams", client="h2load", tls=True, http2=True,
         connections=16, streams=32, first=0.95, goal=0.75),
    Work("handshakes", "full TLS handshake", client="handshakes", tls=True, first=1.00, goal=0.80),
]
# Memory of an idle keep-alive connection: KiB each, and not a ratio.
IDLE = [
    Work("idle", "idle connection", client="idle"),
    Work("idle-tls", "idle connection, TLS", client="idle", tls=True),
    Work("idle-h2", "idle connection, HTTP/2 over TLS", client="idle", tls=True, http2=True),
]
