"""Instructions, as valgrind's callgrind counts them: on a noisy machine the same twice."""

import os
import re
import subprocess

from gateway import Gateway


def total(out):
    """The instructions in a file of callgrind's."""
    with open(out) as file:
        return int(re.search(r"^(?:summary|totals): (\d+)", file.read(), re.M).group(1))


class Counted(Gateway):
    """A gateway under callgrind that counts from `begin` on."""

    def __init__(self, binary, config, folder, admin, core=None):
        # a folder of its own: the gateway looks at its config when anything stirs beside it
        self.out, self.dumps = f"{folder}/counted/out", 0
        os.mkdir(f"{folder}/counted")
        self.under = ["valgrind", "-q", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={self.out}"]
        super().__init__(binary, config, folder, admin, core)

    def control(self, *words):
        subprocess.run(["callgrind_control", *words, str(self.pid)], check=True, capture_output=True)

    def begin(self):
        self.control("--instr=on")

    def count(self):
        """The instructions since the last call, or since `begin`."""
        self.control("--dump")
        self.dumps += 1
        return total(f"{self.out}.{self.dumps}")
