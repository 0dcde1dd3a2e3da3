"""The table, in Markdown and JSON."""

import json
import os
import platform
import statistics
import time


def median(rounds, key):
    values = [one[key] for one in rounds if key in one]
    return statistics.median(values) if values else None


def summary(rounds):
    return {key: median(rounds, key) for key in
            ["cost", "user", "system", "rate", "p50", "p99", "p999", "max", "memory"]}


def ratio(rounds, reference):
    """What a request costs here to what it costs there; None without a reference."""
    return median(rounds, "cost") / median(reference, "cost") if reference else None


def machine():
    with open("/proc/cpuinfo") as info:
        model = next((line.split(":", 1)[1].strip() for line in info if line.startswith("model name")), "unknown")
    return f"{model}, {os.cpu_count()} cores, Linux {platform.release()}"


def number(value, form):
    return "" if value is None else format(value, form)


def table(results, versions, missing, args):
    """`results`: [(work, {peer: {"full": summary, "half": summary, "costs": [..]}})]."""
    lines = [f"## {time.strftime('%Y-%m-%d')}", "",
             f"`python3 benches/versus {args}` on {machine()}.", "",
             "Versions: " + ", ".join(f"{name} {version}" for name, version in versions.items()) + "."
             + (f" Not found: {', '.join(missing)}." if missing else ""), ""]
    for work, peers in results:
        lines += one_work(work, peers)
    return "\n".join(lines)


def one_work(work, peers):
    reach = f"; to reach first {work.first:.2f}, the goal {work.goal:.2f}" if work.first else ""
    lines = [f"### {work.title}{reach}", "",
             "| proxy | body bytes | CPU us/request | user | system | to nginx | requests/s | p50 us | p99 us | p99.9 us "
             "| at half: p50 us | p99 us | p99.9 us | max us | MiB |",
             "|---|" + "--:|" * 14]
    for name, got in peers.items():
        full, half = got["full"], got.get("half") or {}
        cells = [name, str(got["bytes"]), number(full["cost"], ".2f"), number(full["user"], ".2f"), number(full["system"], ".2f"),
                 number(got.get("ratio"), ".2f"), number(full["rate"], ".0f"),
                 *(number(full[key], ".0f") for key in ["p50", "p99", "p999"]),
                 *(number(half.get(key), ".0f") for key in ["p50", "p99", "p999", "max"]),
                 number(full["memory"] and full["memory"] / (1 << 20), ".1f")]
        lines.append("| " + " | ".join(cells) + " |")
    return lines + [""]


def idle_table(results, count):
    lines = [f"### Memory of an idle connection, KiB, {count} of them", "",
             "| proxy | " + " | ".join(work.title for work, _ in results) + " |",
             "|---|" + "--:|" * len(results)]
    names = list(dict.fromkeys(name for _, peers in results for name in peers))
    for name in names:
        cells = [number(peers.get(name) and peers[name] / 1024, ".1f") for _, peers in results]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines + [""])


def as_json(results, idle, versions):
    return json.dumps({
        "date": time.strftime("%Y-%m-%d"), "machine": machine(), "versions": versions,
        "works": {work.key: peers for work, peers in results},
        "idle_bytes": {work.key: peers for work, peers in idle}}, indent=1) + "\n"
