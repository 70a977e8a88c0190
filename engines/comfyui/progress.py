"""The progress of a prompt on ComfyUI, and the websocket that it is received over."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from engines import TransientError, addresses, remote
from engines.comfyui.workflow import Workflow

WEBSOCKET_TIMEOUT_SECONDS = 3.0

# Samplers take nearly all the time of a workflow.
SAMPLER_WEIGHT = 1000
NODE_WEIGHT = 100


class Progress:
    """The progress of a workflow, from messages about its nodes and their steps.

    It never decreases.
    """

    def __init__(self, workflow: Workflow):
        self.weights = {}
        self.fractions = {}
        for node_id, node in workflow.items():
            self.weights[node_id] = weight_of(node)
            self.fractions[node_id] = 0.0
        self.current_node: str | None = None
        self.done = 0
        self.total = sum(self.weights.values())

    def update(self, event: str, data: dict) -> None:
        """Handle a message of the websocket; its `data` may have any form."""
        if event == "execution_cached":
            for node_id in data["nodes"]:
                self.set_fraction(node_id, 1)
        elif event == "executing":
            self.set_fraction(self.current_node, 1)
            self.current_node = data["node"]
        elif event == "executed":
            node_id = data["node"]
            self.set_fraction(node_id, 1)
        elif event == "progress":
            node_id = data.get("node") or self.current_node
            self.set_fraction(node_id, steps_done(data))
        elif event == "progress_state":
            for node_id, state in data["nodes"].items():
                self.set_fraction(node_id, steps_done(state))

    def set_fraction(self, node_id: Any, fraction: float) -> None:
        if not isinstance(node_id, str):
            return
        old = self.fractions.get(node_id)
        if old is None:
            return
        fraction = min(fraction, 1)
        self.fractions[node_id] = max(old, fraction)
        done = 0.0
        for name, weight in self.weights.items():
            done += weight * self.fractions[name]
        self.done = int(done)


def weight_of(node: dict) -> int:
    if "latent_image" in node["inputs"]:
        return SAMPLER_WEIGHT
    return NODE_WEIGHT


def steps_done(state: dict) -> float:
    """Return the finished fraction of a node, by its steps."""
    if state.get("state") == "finished":
        return 1
    return state["value"] / state["max"]


class Listener(threading.Thread):
    """A thread that receives the messages of the websocket.

    It ends, without an error, if the connection cannot be made or is lost.
    """

    def __init__(
        self,
        client: remote.Client,
        path: str,
        on_message: Callable[[str], None],
    ):
        super().__init__(daemon=True)
        # http becomes ws, and https becomes wss.
        base_url = "ws" + client.base_url.removeprefix("http")
        self.url = base_url + path
        self.http_url = client.base_url
        self.headers = client.auth_headers()
        self.on_message = on_message
        # Set when the connection has been made or has failed.
        self.connect_finished = threading.Event()
        # Set when the prompt may be done, or the connection is lost.
        self.poll_now = threading.Event()
        self.socket: Any = None
        self.is_closed = False

    @property
    def is_connected(self) -> bool:
        if not self.connect_finished.is_set():
            return False
        return self.socket is not None

    def run(self) -> None:
        import websocket

        expected = (
            websocket.WebSocketException,
            OSError,
            ValueError,
            TransientError,
        )
        try:
            with suppress(*expected):
                self.connect()
                self.receive()
        finally:
            self.disconnect()

    def connect(self) -> None:
        import websocket

        self.socket = websocket.create_connection(
            self.url,
            timeout=WEBSOCKET_TIMEOUT_SECONDS,
            header=self.headers,
            suppress_origin=True,
            redirect_limit=0,
            **addresses.websocket_proxy(self.http_url),
        )
        # Between messages there may be any amount of time.
        self.socket.settimeout(None)
        self.connect_finished.set()

    def receive(self) -> None:
        while self.socket.connected and not self.is_closed:
            message = self.socket.recv()
            is_text = isinstance(message, str)
            # Binary messages are previews of the image.
            if is_text and message:
                self.on_message(message)

    def disconnect(self) -> None:
        self.connect_finished.set()
        if self.socket:
            self.socket.shutdown()
        self.socket = None
        self.poll_now.set()

    def close(self) -> None:
        """End the thread, from another thread."""
        self.is_closed = True
        socket = self.socket
        if socket:
            socket.abort()
