"""Hundreds of pages that each watch one generation, and a little ordinary traffic beside them.

Every client has a connection of its own and asks when its time has come, however late the answer
before was; an answer's time is counted from that moment.
"""

import asyncio
import random
import time
from collections.abc import Callable
from typing import NamedTuple

from servers import Server

EVERY_SECONDS = 2
WARM_SECONDS = 5  # in which all connect, and see their generation for the first time
SECONDS = 20


class Answer(NamedTuple):
    """What a client got: `status` is 0 if the connection broke."""

    status: int
    ms: float


class Client:
    """One keep-alive connection that asks for one thing; it sends the ETag it got, if any."""

    def __init__(self, path: str, token: str, every: float = EVERY_SECONDS):
        self.path, self.token, self.every = path, token, every
        self.answers, self.etag = [], ""

    async def run(self, port: int, first: float, warm: float, end: float) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        due = first
        while due < end:
            await asyncio.sleep(due - time.monotonic())
            try:
                status = await self.ask(reader, writer)
            except (OSError, EOFError):
                status = 0
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            if due >= warm:
                self.answers.append(Answer(status, (time.monotonic() - due) * 1000))
            due += self.every
        writer.close()

    async def ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
        head = [f"GET {self.path} HTTP/1.1", "Host: x", f"Authorization: Bearer {self.token}"]
        if self.etag:
            head.append(f"If-None-Match: {self.etag}")
        writer.write("\r\n".join([*head, "", ""]).encode())
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines if line)
        await reader.readexactly(int(headers.get("content-length", 0)))
        self.etag = headers.get("etag", "")
        return int(first.split()[1])


async def run(server: Server, clients: list[Client], each_second: Callable[[], None]) -> float:
    """Let the clients ask for SECONDS, each at its own beat.

    Returns the processor seconds that the server used in a second.
    """
    start = time.monotonic() + 1
    warm, end = start + WARM_SECONDS, start + WARM_SECONDS + SECONDS
    beat = random.Random(1).uniform
    tasks = [
        asyncio.create_task(client.run(server.port, start + beat(0, client.every), warm, end))
        for client in clients
    ]
    before = None
    while (now := time.monotonic()) < end:
        if before is None and now >= warm:
            before = server.cpu_seconds(), now
        await asyncio.to_thread(each_second)
        await asyncio.sleep(1 - (time.monotonic() - now))
    used = (server.cpu_seconds() - before[0]) / (time.monotonic() - before[1])
    await asyncio.gather(*tasks)
    return used
