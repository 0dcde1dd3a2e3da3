"""Clients that ask in heaps: so many requests in one write, over a connection that stays.

A heap is counted to the request, which a load generator that runs for a time cannot say, and costs
this side so little that Python is fast enough.
"""

import itertools
import socket
import sys


def get(target, fields=""):
    """One request; `fields` are lines, each with its end."""
    return f"GET {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n"


class Client:
    """One keep-alive connection, opened at its first heap and anew after an answer that closes it."""

    def __init__(self, port):
        self.port, self.socket, self.sent = port, None, 0

    def send(self, requests):
        if self.socket is None:
            self.socket = socket.create_connection(("127.0.0.1", self.port))
        self.socket.sendall("".join(requests).encode())
        self.sent = len(requests)

    def collect(self):
        """Waits for an answer to each that was sent; gives how many were let through."""
        answered, passed, tail, closing = 0, 0, b"", False
        while answered < self.sent:
            data = self.socket.recv(1 << 18)
            if not data:
                sys.exit("the connection ended early")
            # an answer begins with its status line; one may be cut in two
            data = tail + data
            cut = max(0, len(data) - 11)
            answered += sum(data.count(line) for line in (b"HTTP/1.1 200", b"HTTP/1.1 429"))
            passed += data.count(b"HTTP/1.1 200")
            tail = data[cut:]
            closing |= b"onnection: close" in data
        self.drain()
        if closing:
            self.close()
        return passed

    def ask(self, requests):
        self.send(requests)
        return self.collect()

    def drain(self):
        """The rest of the last answer has come with its head, or comes at once."""
        self.socket.setblocking(False)
        try:
            while self.socket.recv(1 << 16):
                pass
        except BlockingIOError:
            pass
        self.socket.setblocking(True)

    def close(self):
        if self.socket is not None:
            self.socket.close()
            self.socket = None


class Crowd:
    """So many clients, of whom some are busy at the same time, each with a heap: all by turns."""

    def __init__(self, port, clients, heap, together):
        self.clients, self.heap, self.together = [Client(port) for _ in range(clients)], heap, together
        self.turn = itertools.cycle(self.clients)

    def ask(self, requests):
        """Shares these out; gives how many were let through."""
        passed, left = 0, iter(requests)
        while heaps := [heap for _ in range(self.together) if (heap := list(itertools.islice(left, self.heap)))]:
            busy = list(zip(heaps, self.turn))
            for heap, client in busy:
                client.send(heap)
            passed += sum(client.collect() for _, client in busy)
        return passed

    def close(self):
        for client in self.clients:
            client.close()
