"""What grows in benches/scale.py: for each dimension its sizes, and the config of a size."""

import dataclasses

from peers import nginx_head, write

ORIGIN = 21100
CONF = """
[server]
workers = {workers}
drain   = {{ delay = "0s", timeout = "5s" }}
rate_limit_headers = "off"
[admin]
address = "127.0.0.1:{admin}"
[log]
level  = "warn"
access = {{ to = "off" }}
[cache]
memory = "1GiB"
[listeners.web]
address = "127.0.0.1:{web}"
limits  = {{ idle_timeout = "600s" }}
[defaults]
timeout = "{timeout}s"
{parts}
"""
ENDPOINTS = [f"127.0.{at // 250 + 1}.{at % 250 + 1}:{ORIGIN}" for at in range(1000)]


def origin_conf(folder):
    """nginx, at every address that is an endpoint."""
    listens = " ".join(f"listen {endpoint} backlog=4096;" for endpoint in ENDPOINTS)
    return write(folder, "origin.conf", nginx_head(folder, "origin") + f"""default_type text/plain;
  server {{ listen 127.0.0.1:{ORIGIN}; {listens} add_header Cache-Control max-age=86400;
    location / {{ return 200 "{'x' * 1000}"; }} }} }}""")


def upstream(name, endpoints):
    listed = ", ".join(f'"{endpoint}"' for endpoint in endpoints)
    return f"[upstreams.{name}]\nendpoints = [{listed}]\npool = {{ max_connections = 100000 }}\n"


def route(name, path, does):
    return f'[[routes]]\nid = "{name}"\nmatch = {{ path = "{path}" }}\n{does}\n'


def routes(size):
    ways = (route(f"r{at}", f"/{at}/*", 'upstream = "o"') for at in range(size))
    return upstream("o", ENDPOINTS[:1]) + "".join(ways)


def upstreams(size):
    ways = (upstream(f"o{at}", ENDPOINTS[:1]) + route(f"r{at}", f"/{at}/*", f'upstream = "o{at}"') for at in range(size))
    return "".join(ways)


def endpoints(size):
    return upstream("o", ENDPOINTS[:size]) + route("all", "/*", 'upstream = "o"')


def keys(_):
    limit = 'rate_limit = { rate = "1/m", burst = 1000000, key = "path", keys = 1000000 }'
    return route("all", "/*", limit + '\nrespond = { body = "ok" }')


def objects(_):
    return upstream("o", ENDPOINTS[:1]) + route("all", "/*", 'upstream = "o"\ncache = {}')


def one(_):
    return endpoints(1)


def all_of(size):
    return size


def shared(size):
    """Routes over a tenth as many upstreams."""
    ways = (route(f"r{at}", f"/{at}/*", f'upstream = "o{at % (size // 10)}"') for at in range(size))
    return "".join(upstream(f"o{at}", ENDPOINTS[:1]) for at in range(size // 10)) + "".join(ways)


@dataclasses.dataclass(frozen=True)
class Dimension:
    """Something that grows, and the config for a size of it."""

    key: str
    sizes: tuple
    parts: object
    clients: object = lambda size: 16
    busy: object = lambda size: 16  # of the clients, at once
    heap: int = 16
    workers: object = lambda size: 1
    paths: object = all_of  # that differ


DIMENSIONS = [
    Dimension("routes", (10, 100, 1_000, 10_000), routes),
    Dimension("upstreams", (1, 10, 100, 1_000), upstreams),
    Dimension("endpoints", (1, 10, 100, 1_000), endpoints),
    Dimension("keys", (10, 1_000, 10_000, 100_000, 1_000_000), keys),
    Dimension("objects", (10, 1_000, 10_000, 100_000), objects),
    Dimension("connections", (10, 100, 1_000, 10_000), one, all_of, lambda size: 10, 1, paths=lambda size: 1),
    Dimension("at once", (10, 100, 1_000, 4_000), one, all_of, all_of, 1, paths=lambda size: 1),
    Dimension("workers", (1, 2, 4), one, workers=all_of, paths=lambda size: 1),
]


def config(dimension, size, port, timeout=30):
    parts = dimension.parts(size)
    return CONF.format(web=port, admin=port + 1, workers=dimension.workers(size), timeout=timeout, parts=parts)


# What is reloaded: every route has another timeout each time.
RELOADED = Dimension("routes over a tenth as many upstreams", (10, 100, 1_000, 10_000), shared)
