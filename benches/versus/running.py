"""A program under measurement, from its start to its end, and the folder that all of them share."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time


def answers(port):
    with socket.socket() as attempt:
        return attempt.connect_ex(("127.0.0.1", port)) == 0


class Running:
    """A process on core 0 (or 1, for the origin), ended when the work is over."""

    def __init__(self, command, port, core=0):
        self.port = port
        if answers(port):
            sys.exit(f"port {port} is taken")
        self.words = tempfile.TemporaryFile()
        self.process = subprocess.Popen(["taskset", "-c", str(core), *command], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=self.words)
        for _ in range(400):
            if answers(port):
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        self.stop()
        self.words.seek(0)
        sys.exit(f"does not start: {' '.join(command)}\n{self.words.read().decode(errors='replace')}")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()


def prepare(dir):
    """What is served, and the certificate."""
    os.chmod(dir, 0o755)
    os.mkdir(f"{dir}/files")
    for name, size in [("1k", 1 << 10), ("100k", 100 << 10), ("1m", 1 << 20)]:
        with open(f"{dir}/files/{name}", "w") as file:
            file.write("x" * size)
    rows, at = [], 0
    while len(json.dumps(rows)) < 10 << 10:
        at += 1
        rows.append({"id": at, "name": f"item {at * 7919 % 1000}", "price": at * 37 % 997 / 10,
                     "tags": ["new", "sale", "last"][: at % 4], "stock": at * at % 89})
    with open(f"{dir}/files/10k.json", "w") as file:
        json.dump(rows, file)
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
                    "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
                    "-keyout", f"{dir}/key.pem", "-out", f"{dir}/cert.pem"], check=True, capture_output=True)
    with open(f"{dir}/both.pem", "w") as both:
        both.write(open(f"{dir}/cert.pem").read() + open(f"{dir}/key.pem").read())
    # servers that drop their rights read these too
    for name in ["key.pem", "cert.pem", "both.pem"]:
        os.chmod(f"{dir}/{name}", 0o644)
