#!/usr/bin/env python3
"""CPU time for one proxied small response: Weir beside nginx, in one run.

One worker each, pinned to core 0; the load (wrk) and the origin (nginx) on core 1. The two take
turns, A B A B. nginx sends the same fields on as Weir does (Via, Forwarded, X-Forwarded-*,
X-Request-Id); with --plain only X-Forwarded-For and -Proto. Each round counts the CPU time (user and system, from /proc) of the proxy's
whole process tree over the requests it served. The medians and their ratio are printed.

    cargo build --release
    python3 benches/small_response.py [--rounds 5] [--seconds 5] [--connections 32] [--path /ok]

Needs nginx and wrk (Debian packages) on the machine, and two cores. Everything is on loopback.
"""

import argparse
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

ORIGIN, NGINX, WEIR, ADMIN = 19500, 19501, 19502, 19503
TICK = os.sysconf("SC_CLK_TCK")
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

COMMON = """
worker_processes 1; daemon off; pid {dir}/{name}.pid; error_log {dir}/{name}.err;
events {{ worker_connections 4096; }}
http {{ access_log off; keepalive_requests 100000000; client_body_temp_path {dir}/{name};
  proxy_temp_path {dir}/{name}; fastcgi_temp_path {dir}/{name}; uwsgi_temp_path {dir}/{name};
  scgi_temp_path {dir}/{name};
"""
ORIGIN_CONF = COMMON + """  root {dir}/files; sendfile on; open_file_cache max=100;
  server {{ listen 127.0.0.1:%d backlog=4096; location = /ok {{ return 200 "hello world\\n"; }} }} }}
""" % ORIGIN
NGINX_CONF = COMMON + """  upstream o {{ server 127.0.0.1:%d; keepalive 128; keepalive_requests 100000000; }}
  server {{ listen 127.0.0.1:%d backlog=4096; location / {{ proxy_pass http://o;
    proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    proxy_set_header X-Forwarded-Proto $scheme; {same} }} }} }}
""" % (ORIGIN, NGINX)
# What Weir also says to the origin and to the client, for the same work on both sides.
SAME = """proxy_set_header X-Forwarded-Host $host;
    proxy_set_header Forwarded "for=$remote_addr;proto=$scheme;host=$host";
    proxy_set_header Via "1.1 nginx"; proxy_set_header X-Request-Id $request_id;
    add_header X-Request-Id $request_id;"""
WEIR_CONF = """
[server]
workers = 1
drain   = {{ delay = "0s", timeout = "5s" }}
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
id       = "all"
upstream = "o"
""" % (ADMIN, WEIR, ORIGIN)


def tree(pid):
    """The process and its children."""
    found = [pid]
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                stat = open(f"/proc/{entry}/stat").read().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if int(stat[1]) == pid:
                found.append(int(entry))
    return found


def cpu(pid):
    """Seconds of CPU time of a process tree."""
    ticks = 0
    for one in tree(pid):
        stat = open(f"/proc/{one}/stat").read().rsplit(")", 1)[1].split()
        ticks += int(stat[11]) + int(stat[12])
    return ticks / TICK


def pin(pid, core):
    for one in tree(pid):
        for task in os.listdir(f"/proc/{one}/task"):
            os.sched_setaffinity(int(task), {core})


def wait_for(port):
    for _ in range(200):
        try:
            return urllib.request.urlopen(f"http://127.0.0.1:{port}/ok", timeout=1).read()
        except OSError:
            time.sleep(0.05)
    sys.exit(f"nothing answers on port {port}")


def load(port, args):
    command = ["taskset", "-c", "1", "wrk", "-t1", f"-c{args.connections}", f"-d{args.seconds}s"]
    out = subprocess.run(command + [f"http://127.0.0.1:{port}{args.path}"], capture_output=True, text=True)
    failed = re.search(r"Non-2xx.*|Socket errors.*", out.stdout)
    if failed:
        sys.exit(f"port {port}: {failed.group(0)}")
    return int(re.search(r"(\d+) requests in", out.stdout).group(1))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--path", default="/ok", help="/ok, /10k, /100k or /1m")
    parser.add_argument("--plain", action="store_true", help="nginx sends fewer fields than Weir")
    parser.add_argument("--weir", default=os.path.join(ROOT, "target", "release", "weir"))
    args = parser.parse_args()
    for tool in ["nginx", "wrk", "taskset"]:
        if not shutil.which(tool):
            sys.exit(f"{tool} is not installed")
    with tempfile.TemporaryDirectory() as dir:
        os.chmod(dir, 0o755)
        os.mkdir(f"{dir}/files")
        for name, size in [("10k", 10 << 10), ("100k", 100 << 10), ("1m", 1 << 20)]:
            open(f"{dir}/files/{name}", "w").write("x" * size)
        running = []
        try:
            for name, text in [("origin", ORIGIN_CONF), ("proxy", NGINX_CONF)]:
                same = "" if args.plain else SAME
                open(f"{dir}/{name}.conf", "w").write(text.format(dir=dir, name=name, same=same))
                running.append(subprocess.Popen(["nginx", "-c", f"{dir}/{name}.conf"]))
            open(f"{dir}/weir.toml", "w").write(WEIR_CONF.format())
            running.append(subprocess.Popen([args.weir, "run", "--config", f"{dir}/weir.toml"]))
            for port in [ORIGIN, NGINX, WEIR]:
                wait_for(port)
            origin, nginx, weir = (process.pid for process in running)
            pin(origin, 1)
            pin(nginx, 0)
            pin(weir, 0)
            costs = {"nginx": [], "weir": []}
            for _ in range(args.rounds):
                for name, pid, port in [("nginx", nginx, NGINX), ("weir", weir, WEIR)]:
                    before = cpu(pid)
                    requests = load(port, args)
                    costs[name].append((cpu(pid) - before) / requests * 1e6)
            report(args, costs)
        finally:
            for process in running:
                process.send_signal(signal.SIGTERM)
            for process in running:
                process.wait(timeout=20)


def report(args, costs):
    version = subprocess.run(["nginx", "-v"], capture_output=True, text=True).stderr.strip()
    fields = "fewer fields than Weir" if args.plain else "the same fields"
    print(f"{version}, {fields}; {args.path}, {args.connections} connections, {args.rounds} rounds of {args.seconds} s")
    print("| proxy | CPU us per request, median | all rounds |")
    print("|---|--:|---|")
    for name, values in costs.items():
        rounds = " ".join(f"{value:.2f}" for value in values)
        print(f"| {name} | {statistics.median(values):.2f} | {rounds} |")
    ratio = statistics.median(costs["weir"]) / statistics.median(costs["nginx"])
    print(f"ratio weir / nginx: {ratio:.2f}")


if __name__ == "__main__":
    main()
