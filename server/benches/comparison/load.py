"""Closed-loop clients on one thread: each sends its next request when it has received its reply.

Knows as much HTTP/1.1 as the replies need: a status line and a content-length. The socket calls are most of what a request
costs here.
"""

import dataclasses
import gc
import re
import select
import socket
import time

CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
NO_REPLY_SECONDS = 60
WARM_UP_SECONDS = 0.3


def post(path, body):
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def get(path):
    return f"GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode()


@dataclasses.dataclass
class Result:
    seconds: float
    latencies: list  # of the successful requests, sorted
    failures: int
    server_cpu: float  # seconds
    client_cpu: float
    replies: dict  # the last reply to each request, by its index

    @property
    def per_second(self):
        return len(self.latencies) / self.seconds

    @property
    def cpu_per_1000(self):
        return 1000 * self.server_cpu / max(1, len(self.latencies))

    def quantile(self, share):
        if not self.latencies:
            return float("nan")
        return self.latencies[min(len(self.latencies) - 1, int(share * len(self.latencies)))]


class Connection:
    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.request, self.sent, self.received = None, 0.0, b""

    def send(self, index, request):
        self.request, self.received, self.sent = index, b"", time.perf_counter()
        self.socket.sendall(request)

    def receive(self):
        """The status and the body, once both are complete."""
        data = self.socket.recv(1 << 18)
        if not data:
            raise ConnectionError("the server closed the connection")
        self.received = received = self.received + data if self.received else data
        end = received.find(b"\r\n\r\n")
        if end < 0:
            return None
        length = CONTENT_LENGTH.search(received, 0, end)
        if length is None:
            raise ConnectionError(f"expected a content-length: {received[:end]}")
        if len(received) < end + 4 + int(length[1]):
            return None
        return received[9:12], received[end + 4 :]


def once(port, request):
    """The status and the body of one request."""
    connection = Connection(port)
    connection.socket.settimeout(NO_REPLY_SECONDS)
    with connection.socket:
        connection.send(0, request)
        while (reply := connection.receive()) is None:
            pass
        return reply


def run(port, requests, clients, seconds, replies_wanted=0, server_cpu=lambda: 0.0):
    """Measures for `seconds`, and until there are that many replies, after a warm-up.

    `server_cpu` returns the CPU time of the server so far, in seconds.
    """
    poll = select.epoll()
    connections = {}

    def connect():
        connection = Connection(port)
        connections[connection.socket.fileno()] = connection
        poll.register(connection.socket, select.EPOLLIN)
        return connection

    upcoming = 0

    def send(connection):
        nonlocal upcoming
        index = upcoming % len(requests)
        upcoming += 1
        connection.send(index, requests[index])

    latencies, failures, replies = [], 0, {}
    gc.disable()
    for _ in range(clients):
        send(connect())
    begin, end = time.perf_counter() + WARM_UP_SECONDS, None
    cpu = client = None
    running = True
    while running:
        events = poll.poll(NO_REPLY_SECONDS)
        now = time.perf_counter()
        if end is None and now >= begin:
            latencies, failures, replies = [], 0, {}
            cpu, client = server_cpu(), time.process_time()
            begin = time.perf_counter()
            end = begin + seconds
        if not events:
            failures += len(connections)
            running = False
        for fd, _ in events:
            connection = connections[fd]
            try:
                reply = connection.receive()
            except OSError:
                failures += 1
                del connections[fd]
                connection.socket.close()
                send(connect())
                continue
            if reply is None:
                continue
            now = time.perf_counter()
            if end is not None and now >= end and len(latencies) + failures >= replies_wanted:
                running = False
                break
            if reply[0] == b"200":
                latencies.append(now - connection.sent)
                replies[connection.request] = reply[1]
            else:
                failures += 1
            send(connection)
    measured = time.perf_counter() - begin
    cpu, client = server_cpu() - cpu, time.process_time() - client
    # The requests in flight are answered, so that they do not burden the next measurement.
    for connection in connections.values():
        connection.socket.settimeout(NO_REPLY_SECONDS)
        try:
            while connection.received == b"" and connection.receive() is None:
                pass
        except OSError:
            pass
        connection.socket.close()
    poll.close()
    gc.enable()
    latencies.sort()
    return Result(measured, latencies, failures, cpu, client, replies)
