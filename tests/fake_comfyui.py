"""A fake ComfyUI: the API of server.py, execution.py and main.py of 0.3.64 on 127.0.0.1, no model.

Every message and error was compared with those of a real 0.3.64. An old server, of December 2023,
chooses the ids of prompts, interrupts whichever prompt runs, reports less progress, and reports
errors on the websocket only. The image is white; samplers take the steps that are requested.
"""

import base64
import hashlib
import io
import json
import os
import socket
import struct
import threading
import uuid
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

from PIL import Image
from werkzeug.formparser import parse_form_data

SAMPLERS = ["euler", "dpmpp_2m"]
SIDE = ["INT", {"default": 512, "min": 1, "max": 16384, "step": 1}]
# class: (inputs, outputs, whether it is an output node), as /object_info has them.
NODES = {
    "EmptyImage": (
        {"width": SIDE, "height": SIDE, "batch_size": SIDE, "color": ["INT", {"min": 0}]},
        ["IMAGE"],
        False,
    ),
    "CheckpointLoaderSimple": (
        {"ckpt_name": [["v1-5-pruned-emaonly-fp16.safetensors"], {}]},
        ["MODEL"],
        False,
    ),
    "EmptyLatentImage": ({"width": SIDE, "height": SIDE, "batch_size": SIDE}, ["LATENT"], False),
    "CLIPTextEncode": (
        {"text": ["STRING", {"multiline": True}], "clip": ["CLIP", {}]},
        ["CONDITIONING"],
        False,
    ),
    "KSampler": (
        {
            "seed": ["INT", {"default": 0, "min": 0, "max": 2**64 - 1}],
            "steps": ["INT", {"default": 20, "min": 1, "max": 10000}],
            "cfg": ["FLOAT", {"default": 8.0, "min": 0.0, "max": 100.0}],
            "sampler_name": [SAMPLERS, {}],
            "latent_image": ["LATENT", {}],
        },
        ["LATENT"],
        False,
    ),
    "VAEDecode": ({"samples": ["LATENT", {}]}, ["IMAGE"], False),
    "LoadImage": ({"image": ["FILE", {}]}, ["IMAGE", "MASK"], False),
    "LoadImageMask": (
        {"image": ["FILE", {}], "channel": [["alpha", "red", "green", "blue"], {}]},
        ["MASK"],
        False,
    ),
    "ImageScale": ({"image": ["IMAGE", {}], "width": SIDE, "height": SIDE}, ["IMAGE"], False),
    "ImageCompositeMasked": (
        {"destination": ["IMAGE", {}], "source": ["IMAGE", {}], "mask": ["MASK", {}]},
        ["IMAGE"],
        False,
    ),
    "SaveImage": ({"images": ["IMAGE", {}], "filename_prefix": ["STRING", {}]}, [], True),
    "PreviewImage": ({"images": ["IMAGE", {}]}, [], True),
}
STATS = {
    "system": {
        "os": "posix",
        "comfyui_version": "0.3.64",
        "python_version": "3.11.7",
        "argv": ["main.py", "--cpu"],
    },
    "devices": [
        {
            "name": "cuda:0 NVIDIA L4 : cudaMallocAsync",
            "type": "cuda",
            "index": 0,
            "vram_total": 24 * 2**30,
        }
    ],
}


def picture(width: int = 64, height: int = 64) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (width, height), "white").save(data, "PNG")
    return data.getvalue()


class Interrupted(Exception):
    pass


class Failed(Exception):
    pass


class Killed(Exception):
    pass


class Handler(BaseHTTPRequestHandler):
    """One connection to the fake; FakeComfyUI.answer() responds to its requests."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self):
        super().setup()
        self.lock = threading.Lock()
        self.server.fake.connections.append(self.connection)

    def do_GET(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.fake.serve(self, body)

    do_POST = do_GET

    def log_message(self, *arguments):
        pass

    def reply(self, status: int, body: bytes, headers: dict | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def upgrade(self) -> None:
        key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        self.send_response(101)
        accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
        for name, value in {
            "Upgrade": "websocket",
            "Connection": "upgrade",
            "Sec-WebSocket-Accept": accept,
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.close_connection = True

    def send_frame(self, payload: str | bytes) -> None:
        data = payload.encode() if isinstance(payload, str) else payload
        opcode = 1 if isinstance(payload, str) else 2
        length = bytes([len(data)]) if len(data) < 126 else struct.pack(">BH", 126, len(data))
        with self.lock, suppress(OSError):
            self.wfile.write(bytes([0x80 | opcode]) + length + data)


class FakeComfyUI:
    """Set how it should fail before a request; read what it received afterwards."""

    def __init__(self, is_old: bool = False):
        self.is_old = is_old
        self.credentials = ""  # "user:password", as a proxy in front would ask for them
        # (node id, step): it stops there until `go` is set, or it is interrupted or killed.
        self.hold_at = None
        self.go, self.held = threading.Event(), threading.Event()
        self.failing = {}  # node id: (type, message) of the exception it raises
        # path: the response instead, (status, body), or a function that returns it
        self.instead = {}
        # Paths that never respond, and paths that respond when `unhang` is set.
        self.hanging, self.late, self.unhang = set(), set(), threading.Event()
        self.has_websocket, self.noise = True, []
        self.asked, self.websocket_headers, self.accepted = [], [], []
        self.interrupts, self.viewed = [], []
        self.files, self.port = {}, 0
        self.uploads = []  # (name, folder, type, bytes)
        self.start()

    # -- Start and stop -----------------------------------------------------------------------

    def start(self) -> None:
        """Start or restart, on the same port, with an empty queue and history."""
        self.queue, self.running, self.history, self.cache = [], None, {}, {}
        self.sockets, self.connections, self.is_interrupted = {}, [], False
        self.changed, self.life = threading.Condition(), object()
        self.http = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.http.daemon_threads, self.http.fake = True, self
        # Many tests break connections: log no tracebacks.
        self.http.handle_error = lambda request, address: None
        self.port = self.http.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()
        threading.Thread(target=self.work, args=(self.life,), daemon=True).start()

    def kill(self) -> None:
        self.life = None
        self.http.shutdown()
        self.http.server_close()
        self.drop()
        with self.changed:
            self.changed.notify_all()

    def drop(self) -> None:
        """Break every connection."""
        for connection in self.connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def restart(self) -> None:
        self.kill()
        self.start()

    def close(self) -> None:
        self.go.set()
        self.unhang.set()
        self.kill()

    def is_idle(self) -> bool:
        with self.changed:
            return not self.queue and not self.running

    # -- HTTP ---------------------------------------------------------------------------------

    def serve(self, request: Handler, body: bytes) -> None:
        address = urlsplit(request.path)
        is_form = request.headers.get("Content-Type", "").startswith("multipart/form-data")
        data = read_form(request, body) if is_form else json.loads(body or b"{}")
        self.asked.append((f"{request.command} {address.path}", data))
        if address.path in self.hanging:
            self.unhang.wait(30)
            request.close_connection = True
            return
        if address.path in self.late:
            self.unhang.wait(30)
        if not self.is_authorized(request):
            request.reply(401, b"", {"WWW-Authenticate": "Basic"})
        elif address.path in self.instead:
            given = self.instead[address.path]
            request.reply(*(given() if callable(given) else given))
        elif address.path == "/ws":
            self.serve_websocket(request, dict(parse_qsl(address.query))["clientId"])
        else:
            status, answer = self.answer(
                request.command, address.path, dict(parse_qsl(address.query)), data
            )
            request.reply(
                status, answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            )

    def is_authorized(self, request: Handler) -> bool:
        expected = "Basic " + base64.b64encode(self.credentials.encode()).decode()
        return not self.credentials or request.headers.get("Authorization") == expected

    def answer(self, method: str, path: str, query: dict, data: dict):
        match [method, *path.strip("/").split("/")]:
            case ["GET", "system_stats"]:
                return 200, STATS
            case ["GET", "object_info", name]:
                if name not in NODES:
                    return 200, {}
                required, _, is_output = NODES[name]
                info = {"input": {"required": required}, "output_node": is_output}
                return 200, {name: info}
            case ["GET", "queue"]:
                with self.changed:
                    running = [self.running] if self.running else []
                    return 200, {"queue_running": running, "queue_pending": list(self.queue)}
            case ["GET", "history", prompt_id]:
                return 200, {key: entry for key, entry in self.history.items() if key == prompt_id}
            case ["GET", "view"]:
                self.viewed.append(query["filename"])
                file = self.files.get(
                    (query["filename"], query.get("subfolder", ""), query["type"])
                )
                return (404, b"") if file is None else (200, file)
            case ["POST", "upload", "image"]:
                return self.upload(data)
            case ["POST", "prompt"]:
                return self.post_prompt(data)
            case ["POST", "queue"]:
                self.delete(data["delete"])
            case ["POST", "interrupt"]:
                self.interrupt(data.get("prompt_id"))
            case ["POST", "history"]:
                for prompt_id in data["delete"]:
                    self.history.pop(prompt_id, None)
            case _:
                return 404, b"404: Not Found"
        return 200, b""

    def post_prompt(self, data: dict):
        workflow = data["prompt"]
        error, outputs, node_errors = validated(workflow, self.find_file)
        if error:
            return 400, {"error": error, "node_errors": node_errors}
        prompt_id = str(uuid.uuid4()) if self.is_old else str(data.get("prompt_id", uuid.uuid4()))
        number = len(self.asked)
        with self.changed:
            self.queue.append(
                [number, prompt_id, workflow, {"client_id": data.get("client_id")}, outputs]
            )
            self.accepted.append(prompt_id)
            self.changed.notify_all()
        self.send_status()
        return 200, {"prompt_id": prompt_id, "number": number, "node_errors": node_errors}

    def upload(self, form: dict):
        name, data = form["image"]
        kind, folder = form.get("type", "input"), form.get("subfolder", "")
        if (name, folder, kind) in self.files and form.get("overwrite") not in ("true", "1"):
            name = name.replace(".", " (1).")
        self.files[name, folder, kind] = data
        self.uploads.append((name, folder, kind, data))
        return 200, {"name": name, "subfolder": folder, "type": kind}

    def find_file(self, name: str) -> bytes | None:
        """Return the file that a node names, as in "folder/name.png [temp]"."""
        path, _, kind = name.partition(" [")
        folder, _, base = path.rpartition("/")
        return self.files.get((base, folder, kind.rstrip("]") or "input"))

    def delete(self, prompt_ids: list) -> None:
        with self.changed:
            self.queue = [item for item in self.queue if item[1] not in prompt_ids]
        self.send_status()

    def interrupt(self, prompt_id: str | None) -> None:
        self.interrupts.append(prompt_id)
        if self.is_old or not prompt_id or (self.running and self.running[1] == prompt_id):
            self.is_interrupted = True

    def occupy(self, number: int = 0, client_id: str = "somebody") -> None:
        """Run the prompt of another client until it is interrupted or `go` is set."""
        self.hold_at = ("blocker", 0)
        workflow = {"blocker": {"class_type": "EmptyImage", "inputs": {}}}
        with self.changed:
            self.queue.append(
                [number, f"of {client_id}", workflow, {"client_id": client_id}, ["blocker"]]
            )
            self.changed.notify_all()
        assert self.held.wait(10)

    # -- The websocket --------------------------------------------------------------------------

    def serve_websocket(self, request: Handler, client_id: str) -> None:
        self.websocket_headers.append(dict(request.headers))
        if not self.has_websocket:
            request.reply(400, b"no websockets here")
            return
        request.upgrade()
        self.sockets[client_id] = request
        self.send(
            "status", {"status": {"exec_info": {"queue_remaining": 0}}, "sid": client_id}, client_id
        )
        with suppress(OSError):
            while request.connection.recv(1024):
                pass
        self.sockets.pop(client_id, None)

    def send(self, kind: str, data: dict, client_id: str | None = None) -> None:
        receivers = (
            list(self.sockets.values()) if client_id is None else [self.sockets.get(client_id)]
        )
        for receiver in filter(None, receivers):
            receiver.send_frame(json.dumps({"type": kind, "data": data}))

    def send_status(self) -> None:
        self.send(
            "status",
            {"status": {"exec_info": {"queue_remaining": len(self.queue) + bool(self.running)}}},
        )

    def send_noise(self, client_id: str) -> None:
        """Send what a client must ignore: a preview, another prompt's messages, a test's own."""
        receiver = self.sockets.get(client_id)
        for frame in [struct.pack(">II", 1, 1) + b"JPEG", *self.noise] if receiver else ():
            receiver.send_frame(frame)
        self.send(
            "progress", {"value": 9, "max": 9, "prompt_id": "another", "node": "3"}, client_id
        )
        self.send("executing", {"node": None, "prompt_id": "another"}, client_id)

    # -- Execution --------------------------------------------------------------------------------

    def work(self, life: object) -> None:
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.queue or self.life is not life)
                if self.life is not life:
                    return
                self.running = self.queue.pop(0)
            with suppress(Killed):
                Execution(self, life, self.running).run()


class Execution:
    """One prompt that runs, and its entry in the history."""

    def __init__(self, fake: FakeComfyUI, life: object, item: list):
        self.fake, self.life, self.item = fake, life, item
        _, self.prompt_id, self.workflow, extra, self.outputs = item
        self.client_id = extra.get("client_id")
        self.messages, self.states, self.found = [], {}, {}

    def run(self) -> None:
        self.fake.is_interrupted, is_good, node_id = False, True, ""
        self.fake.send_status()
        self.tell("execution_start", {})
        cached = [
            node_id for node_id in self.workflow if self.signature(node_id) in self.fake.cache
        ]
        self.tell("execution_cached", {"nodes": cached})
        try:
            for node_id in ordered(self.workflow, self.outputs):
                self.execute(node_id, is_cached=node_id in cached)
            self.tell("execution_success", {})
        except Interrupted:
            is_good = False
            self.tell("execution_interrupted", {**self.node(node_id), "executed": []})
        except Failed:
            is_good = False
            self.tell("execution_error", self.error(node_id))
        self.finish(is_good)

    def execute(self, node_id: str, is_cached: bool) -> None:
        signature = self.signature(node_id)
        if not is_cached:
            self.state(node_id, "running", 0, 1)
            self.send("executing", {"node": node_id, "display_node": node_id})
            self.take_steps(node_id)
            self.fake.cache[signature] = self.saved(node_id)
        if output := self.fake.cache[signature]:
            self.found[node_id] = output
            self.send("executed", {"node": node_id, "display_node": node_id, "output": output})
        self.state(node_id, "finished", 1, 1)

    def take_steps(self, node_id: str) -> None:
        node = self.workflow[node_id]
        steps = int(node["inputs"]["steps"]) if node["class_type"] == "KSampler" else 0
        for step in range(steps + 1):
            if step:
                self.state(node_id, "running", step, steps)
                self.send_progress(node_id, step, steps)
                self.fake.send_noise(self.client_id)
            if self.fake.hold_at == (node_id, step):
                self.fake.held.set()
                while not self.fake.go.wait(0.005):
                    self.go_on()
            self.go_on()
            if node_id in self.fake.failing:
                raise Failed

    def send_progress(self, node_id: str, value: int, total: int) -> None:
        newer = {} if self.fake.is_old else {"prompt_id": self.prompt_id, "node": node_id}
        self.fake.send("progress", {"value": value, "max": total, **newer}, self.client_id)

    def go_on(self) -> None:
        if self.fake.life is not self.life:
            raise Killed
        if self.fake.is_interrupted:
            raise Interrupted

    def saved(self, node_id: str) -> dict:
        node = self.workflow[node_id]
        kind = {"SaveImage": "output", "PreviewImage": "temp"}.get(node["class_type"])
        if not kind:
            return {}
        folder, prefix = os.path.split(node["inputs"].get("filename_prefix", "ComfyUI_temp"))
        name = f"{prefix}_{len(self.fake.files) + 1:05}_.png"
        self.fake.files[name, folder, kind] = self.drawn(node["inputs"]["images"])
        return {"images": [{"filename": name, "subfolder": folder, "type": kind}]}

    def drawn(self, link: list) -> bytes:
        image = self.image(*link)
        if not image:
            inputs = [node["inputs"] for node in self.workflow.values()]
            size = next(each for each in inputs if "width" in each)
            return picture(size["width"], size["height"])
        data = io.BytesIO()
        image.save(data, "PNG")
        return data.getvalue()

    def image(self, node_id: str, output: int) -> Image.Image | None:
        """Return the image or mask that a node gives; None of one that needs a model."""
        node = self.workflow[node_id]
        inputs = node["inputs"]
        match node["class_type"]:
            case "LoadImage" | "LoadImageMask" as kind:
                image = Image.open(io.BytesIO(self.fake.find_file(inputs["image"])))
                image = image.convert("RGBA")
                channel = inputs.get("channel", "alpha")[0].upper()
                if kind == "LoadImage" and not output:
                    return image.convert("RGB")
                mask = image.getchannel(channel)
                return mask.point(lambda level: 255 - level) if channel == "A" else mask
            case "EmptyImage":
                return Image.new("RGB", (inputs["width"], inputs["height"]), "white")
            case "ImageScale":
                return self.image(*inputs["image"]).resize((inputs["width"], inputs["height"]))
            case "ImageCompositeMasked":
                source, destination, mask = (
                    self.image(*inputs[name]) for name in ("source", "destination", "mask")
                )
                return Image.composite(source, destination, mask)
        return None

    def finish(self, is_good: bool) -> None:
        words = {
            "status_str": "success" if is_good else "error",
            "completed": is_good,
            "messages": self.messages,
        }
        entry = {"prompt": self.item, "outputs": self.found if is_good else {}}
        entry |= {} if self.fake.is_old else {"status": words, "meta": {}}
        with self.fake.changed:
            self.fake.history[self.prompt_id], self.fake.running = entry, None
        self.fake.send_status()
        self.send("executing", {"node": None})

    def signature(self, node_id: str) -> str:
        inputs = self.workflow[node_id]["inputs"]
        upstream = [
            self.signature(value[0]) for value in inputs.values() if isinstance(value, list)
        ]
        return json.dumps([node_id, inputs, upstream])

    def node(self, node_id: str) -> dict:
        return {"node_id": node_id, "node_type": self.workflow[node_id]["class_type"]}

    def error(self, node_id: str) -> dict:
        kind, message = self.fake.failing[node_id]
        where = '  File "/srv/comfy/execution.py", line 496, in execute\n'
        return {
            **self.node(node_id),
            "executed": [],
            "exception_message": f"{message}\n",
            "exception_type": kind,
            "traceback": [where],
            "current_inputs": self.workflow[node_id]["inputs"],
            "current_outputs": [],
        }

    def tell(self, kind: str, data: dict) -> None:
        data = {"prompt_id": self.prompt_id, **data, "timestamp": 1795383208478}
        self.messages.append([kind, data])
        self.fake.send(kind, data, self.client_id)

    def send(self, kind: str, data: dict) -> None:
        self.fake.send(kind, {**data, "prompt_id": self.prompt_id}, self.client_id)

    def state(self, node_id: str, state: str, value: float, total: float) -> None:
        self.states[node_id] = {"value": value, "max": total, "state": state, "node_id": node_id}
        if not self.fake.is_old:
            self.send("progress_state", {"nodes": self.states})


# -- Validation ---------------------------------------------------------------------------------


def ordered(workflow: dict, outputs: list) -> list[str]:
    """Return these nodes and the nodes that they need, in the order of execution."""
    found = []
    for node_id in outputs:
        links = [
            value[0] for value in workflow[node_id]["inputs"].values() if isinstance(value, list)
        ]
        found += [needed for needed in [*ordered(workflow, links), node_id] if needed not in found]
    return found


def read_form(request: Handler, body: bytes) -> dict:
    """Return the fields of a form, a file as its name and its bytes."""
    environ = {
        "wsgi.input": io.BytesIO(body),
        "CONTENT_LENGTH": str(len(body)),
        "CONTENT_TYPE": request.headers["Content-Type"],
        "REQUEST_METHOD": "POST",
    }
    _, fields, files = parse_form_data(environ)
    return {**fields, **{name: (file.filename, file.read()) for name, file in files.items()}}


def validated(workflow: dict, find_file) -> tuple[dict | None, list, dict]:
    """Return the error if nothing can run, the valid output nodes, and the errors of others."""
    for node_id, node in workflow.items():
        if node["class_type"] not in NODES:
            words = f"Cannot execute because node {node['class_type']} does not exist."
            return problem("invalid_prompt", words, f"Node ID '#{node_id}'"), [], {}
    outputs = [node_id for node_id, node in workflow.items() if NODES[node["class_type"]][2]]
    if not outputs:
        return problem("prompt_no_outputs", "Prompt has no outputs", ""), [], {}
    node_errors, good = {}, []
    for output in outputs:
        wrong = {
            node_id: errors
            for node_id in ordered(workflow, [output])
            if (errors := wrong_with(workflow[node_id], find_file))
        }
        for node_id, errors in wrong.items():
            kind = workflow[node_id]["class_type"]
            node_errors[node_id] = {
                "errors": errors,
                "dependent_outputs": [output],
                "class_type": kind,
            }
        good += [] if wrong else [output]
    words = "Prompt outputs failed validation"
    return (
        None if good else problem("prompt_outputs_failed_validation", words, ""),
        good,
        node_errors,
    )


def wrong_with(node: dict, find_file) -> list[dict]:
    found = []
    for name, (kind, limits) in NODES[node["class_type"]][0].items():
        info = {
            "input_name": name,
            "input_config": [kind, limits],
            "received_value": node["inputs"].get(name),
        }
        if name not in node["inputs"]:
            found.append(
                problem(
                    "required_input_missing",
                    "Required input is missing",
                    name,
                    {"input_name": name},
                )
            )
        elif kind == "FILE":
            file = node["inputs"][name]
            if find_file(file) is None:
                words = f"image - Invalid image file: {file}"
                found.append(
                    problem("custom_validation_failed", "Custom validation failed for node", words)
                )
        elif not isinstance(node["inputs"][name], list):
            found += wrong_value(name, kind, limits, node["inputs"][name], info)
    return found


def wrong_value(name: str, kind: str | list, limits: dict, value, info: dict) -> list[dict]:
    if isinstance(kind, list):
        words = f"{name}: '{value}' not in {kind}"
        return (
            []
            if value in kind
            else [problem("value_not_in_list", "Value not in list", words, info)]
        )
    try:
        value = {"INT": int, "FLOAT": float}.get(kind, str)(value)
    except ValueError as error:
        words = f"Failed to convert an input value to a {kind} value"
        info = {**info, "exception_message": str(error)}
        return [problem("invalid_input_type", words, f"{name}, {value}, {error}", info)]
    if "min" in limits and value < limits["min"]:
        words = f"Value {value} smaller than min of {limits['min']}"
        return [problem("value_smaller_than_min", words, name, info)]
    return []


def problem(kind: str, message: str, details: str, info: dict | None = None) -> dict:
    return {"type": kind, "message": message, "details": details, "extra_info": info or {}}
