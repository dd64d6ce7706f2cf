#!/usr/bin/env python3
"""Answers the agent check of HAProxy with a weight for the server on this machine: agent.py [URL] [--port PORT]

Reads the load report (ORCA) of the server for each answer. The weight falls with the utilization of the workers, and with the
time that items are expected to wait. It follows the load slowly, so that servers do not take turns in being overloaded. Requires
only Python 3.
"""

import argparse
import http.client
import json
import socketserver
import sys
import urllib.parse

# Part of each answer that comes from the newest report.
SMOOTHING = 0.4
# Part of the weight that a server loses if its workers are always busy. Even if all servers are, their waits still count.
UTILIZATION_WEIGHT = 0.9
# Expected wait that halves the weight, in seconds.
HALVING_WAIT = 0.1
# A weight of 0 would send no requests at all, so that the load would never be measured again.
MIN_WEIGHT = 1


def report(url):
    """Return the load report of the server."""
    connection = http.client.HTTPConnection(url.hostname, url.port or 80, timeout=2)
    try:
        connection.request("GET", "/livez", headers={"endpoint-load-metrics-format": "JSON"})
        reply = connection.getresponse()
        reply.read()
    finally:
        connection.close()
    kind, _, text = (reply.getheader("endpoint-load-metrics") or "").partition(" ")
    if kind != "JSON":
        raise ValueError("the reply has no load report")
    return json.loads(text)


def weight(load):
    """Return a weight from 0 to 100."""
    idle = 1.0 - UTILIZATION_WEIGHT * min(1.0, load["application_utilization"])
    wait = load["named_metrics"].get("expected_wait_seconds", 0.0)
    return 100.0 * idle / (1.0 + wait / HALVING_WAIT)


class Agent(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, address, url):
        super().__init__(address, Answer)
        self.url = url
        self.smoothed = 100.0


class Answer(socketserver.BaseRequestHandler):
    def handle(self):
        agent = self.server
        try:
            newest = weight(report(agent.url))
        except (OSError, ValueError, KeyError, http.client.HTTPException) as error:
            # HAProxy keeps the last weight. Its health check finds out whether the server is down.
            print(f"no load report: {error}", file=sys.stderr, flush=True)
            return
        agent.smoothed += SMOOTHING * (newest - agent.smoothed)
        self.request.sendall(f"{max(MIN_WEIGHT, round(agent.smoothed))}%\n".encode())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url", nargs="?", default="http://127.0.0.1:8080")
    parser.add_argument("--port", type=int, default=8081, help="0 picks a free port, which is printed")
    given = parser.parse_args()
    with Agent(("", given.port), urllib.parse.urlsplit(given.url)) as agent:
        print(f"listening on port {agent.server_address[1]}", flush=True)
        agent.serve_forever()


if __name__ == "__main__":
    main()
