"""A proxy on 127.0.0.1 for HTTP, CONNECT and SOCKS5. It leads to local ports, whatever the host."""

import socket
import struct
import threading
from contextlib import suppress


class FakeProxy:
    """Read `asked` after a request: each host and port that was asked for, such as "a.b:80"."""

    def __init__(self, scheme: str = "http", refuses: bool = False):
        self.refuses = refuses
        self.asked: list[str] = []
        # To a request that is not for a tunnel.
        self.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.url = f"{scheme}://127.0.0.1:{self.port}"
        talk = self.talk_socks if scheme.startswith("socks") else self.talk_http
        threading.Thread(target=self.accept, args=(talk,), daemon=True).start()

    def close(self) -> None:
        self.listener.close()

    def accept(self, talk) -> None:
        with suppress(OSError):
            while True:
                connection = self.listener.accept()[0]
                threading.Thread(target=self.serve, args=(talk, connection), daemon=True).start()

    def serve(self, talk, connection: socket.socket) -> None:
        with suppress(OSError, ValueError), connection:
            talk(connection)

    def talk_http(self, connection: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += connection.recv(65536)
        method, target, _ = head.split(b" ", 2)
        if method != b"CONNECT":
            self.asked.append(target.decode())
            connection.sendall(self.answer)
            return
        self.asked.append(target.decode())
        if self.refuses:
            connection.sendall(b"HTTP/1.1 403 Forbidden\r\n\r\n")
            return
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        tunnel(connection, int(target.rpartition(b":")[2]))

    def talk_socks(self, connection: socket.socket) -> None:
        _, count = connection.recv(2)
        connection.recv(count)
        connection.sendall(b"\5\0")
        _, _, _, kind = connection.recv(4)
        if kind == 1:
            host = socket.inet_ntoa(connection.recv(4))
        else:
            host = connection.recv(connection.recv(1)[0]).decode()
        [port] = struct.unpack(">H", connection.recv(2))
        self.asked.append(f"{host}:{port}")
        connection.sendall(b"\5\0\0\1\0\0\0\0\0\0")
        tunnel(connection, port)


def tunnel(connection: socket.socket, port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as server:
        threading.Thread(target=pump, args=(connection, server), daemon=True).start()
        pump(server, connection)


def pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
