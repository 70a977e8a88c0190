"""A burst of log-ins: what it does to the server's memory and to everyone else's requests."""

import http.client
import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from statistics import quantiles
from typing import Any

from servers import Server, call

PASSWORD = "correct-horse-1"
SAMPLE_SECONDS = 0.03
QUIET_SECONDS = 4
# Seconds between a client's answer and its next request.
PACES = {"2 clients without pause": 0.0, "2 clients, 10 ms pause": 0.01}


def sockets(pid: int) -> int:
    found = 0
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # a descriptor that was closed a moment ago
            found += os.readlink(path).startswith("socket:")
    return found


def burst(server: Server, names: list[str]) -> list[int]:
    """Log in under all the names at the same moment; return the statuses."""
    together = threading.Barrier(len(names))

    def log_in(name: str) -> int:
        together.wait()
        return call(
            server.port, "POST", "/api/auth/login", body={"username": name, "password": PASSWORD}
        )[0]

    with ThreadPoolExecutor(len(names)) as clients:
        return list(clients.map(log_in, names))


def peak_during_burst(server: Server, names: list[str]) -> tuple[float, list[int]]:
    """Return (MiB added at the highest sample, statuses)."""
    before, samples, over = server.pss_mib(), [], threading.Event()

    def watch() -> None:
        while not over.wait(SAMPLE_SECONDS):
            samples.append(server.pss_mib())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        statuses = burst(server, names)
    finally:
        over.set()
        watcher.join()
    return max(samples) - before, statuses


def profile_p99s(server: Server, names: list[str], token: str, pace: str) -> tuple[float, float]:
    """Return the p99 (ms) of GET /api/auth/profile during a burst, and during a quiet time."""
    found = []
    for do in (lambda: burst(server, names), lambda: time.sleep(QUIET_SECONDS)):
        times = times_while(do, server.port, token, PACES[pace])
        found.append(quantiles(times, n=100)[98])
    return tuple(found)


def times_while(do: Callable, port: int, token: str, pause: float) -> list[float]:
    """Return the times (ms) of two clients' requests while something is done."""
    processes = multiprocessing.get_context("fork")  # threads would wait for one another in here
    over, results = processes.Event(), processes.SimpleQueue()
    clients = [
        processes.Process(target=ask, args=(port, token, pause, over, results)) for _ in range(2)
    ]
    for client in clients:
        client.start()
    try:
        do()
    finally:
        over.set()
    times = [time for _ in clients for time in results.get()]
    for client in clients:
        client.join()
    return times


def ask(port: int, token: str, pause: float, over: Any, results: Any) -> None:
    connection, times = http.client.HTTPConnection("127.0.0.1", port, timeout=120), []
    while not over.is_set():
        started = time.perf_counter()
        connection.request("GET", "/api/auth/profile", headers={"Authorization": f"Bearer {token}"})
        connection.getresponse().read()
        times.append((time.perf_counter() - started) * 1000)
        time.sleep(pause)
    results.put(times)
