"""The gateway under a benchmark: from its config to its end, with what it says and uses."""

import collections
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "versus"))
import meter  # noqa: E402

BUILT = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "target/release/weir")


def need(*programs):
    """Ends the benchmark where one of these is missing."""
    for program in programs:
        if not shutil.which(program):
            sys.exit(f"no such program: {program}")


class Gateway:
    """Runs for as long as the block does. `path` is its config file, `pid` its process."""

    under = ()  # what it runs under: a command that takes it as its last words

    def __init__(self, binary, config, folder, admin, core=None):
        self.path, self.admin = os.path.join(folder, "weir.toml"), f"http://127.0.0.1:{admin}"
        with open(self.path, "w") as file:
            file.write(config)
        pin = [] if core is None else ["taskset", "-c", str(core)]
        self.process = subprocess.Popen([*pin, *self.under, binary, "run", "--config", self.path])
        self.pid = self.process.pid

    def __enter__(self):
        latest = time.monotonic() + 120
        while self.process.poll() is None and time.monotonic() < latest:
            try:
                urllib.request.urlopen(f"{self.admin}/readyz")
                return self
            except OSError:
                time.sleep(0.05)
        self.__exit__()
        sys.exit("weir does not come up")

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()

    def metrics(self):
        """The value of each series."""
        text = urllib.request.urlopen(f"{self.admin}/metrics", timeout=10).read().decode()
        values = collections.Counter()
        for name, value in re.findall(r"^(weir_\S+) (\S+)$", text, re.M):
            values[name] = float(value)
        return values

    def memory(self, field="VmRSS"):
        """Bytes, by the name that /proc/PID/status has for them."""
        with open(f"/proc/{self.pid}/status") as status:
            return int(re.search(rf"{field}:\s+(\d+)", status.read()).group(1)) * 1024

    def cpu(self):
        """Seconds of user and system time."""
        return sum(meter.cpu(self.pid))
