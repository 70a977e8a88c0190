"""A fake server with OpenAI's Images API on 127.0.0.1, and the responses and errors of several.

The bodies follow OpenAI's API reference and error guide, the documentation of SiliconFlow, Azure
and Volcengine, and the source code of LocalAI and vLLM-Omni. Each error message quotes the prompt
and the API key, as those of a careless server may.
"""

import base64
import io
import json
import select
import socket
import threading
import time
from email.utils import formatdate
from typing import NamedTuple

from PIL import Image
from werkzeug import Request, Response
from werkzeug.serving import WSGIRequestHandler, make_server

from tests.pictures import picture

PNG = picture("PNG", (8, 8))
SIGNATURE = "s1gnature-0f-a-link"

# name: (status, the error object, headers)
ERRORS = {
    "bad value": (
        400,
        {"code": "invalid_value", "type": "invalid_request_error", "param": "size"},
        {},
    ),
    "no model": (
        404,
        {"code": "model_not_found", "type": "invalid_request_error", "param": None},
        {},
    ),
    "policy": (
        400,
        {"code": "content_policy_violation", "type": "invalid_request_error", "param": None},
        {},
    ),
    "moderation": (
        400,
        {"code": "moderation_blocked", "type": "image_generation_user_error", "param": None},
        {},
    ),
    "user error": (400, {"code": None, "type": "image_generation_user_error", "param": None}, {}),
    "azure filter": (
        400,
        {"code": "content_filter", "param": "prompt", "type": None, "status": 400},
        {},
    ),
    "azure inner": (
        400,
        {"code": "400", "inner_error": {"code": "ResponsibleAIPolicyViolation"}},
        {},
    ),
    "volcengine": (
        400,
        {"code": "InputTextSensitiveContentDetected", "param": "", "type": "BadRequest"},
        {},
    ),
    "dashscope": (
        400,
        {"code": "data_inspection_failed", "param": None, "type": "data_inspection_failed"},
        {},
    ),
    "legal": (451, {"code": None, "type": None}, {}),
    "no key": (
        401,
        {"code": "invalid_api_key", "type": "invalid_request_error", "param": None},
        {},
    ),
    "payment": (402, {"code": None, "type": None}, {}),
    "not verified": (403, {"code": None, "type": "invalid_request_error", "param": None}, {}),
    "no quota": (
        429,
        {"code": "insufficient_quota", "type": "insufficient_quota", "param": None},
        {},
    ),
    "no credit": (
        429,
        {"code": "credit_balance_exhausted", "type": "insufficient_quota"},
        {"Retry-After": "5"},
    ),
    "hard limit": (
        400,
        {"code": "billing_hard_limit_reached", "type": "invalid_request_error", "param": None},
        {},
    ),
    "busy": (
        429,
        {"code": "rate_limit_exceeded", "type": "requests", "param": None},
        {"Retry-After": "7"},
    ),
    "busy till": (429, {"code": "slow_down"}, {"Retry-After": "in an hour"}),
    "busy for ever": (429, {"code": "rate_limit_exceeded"}, {"Retry-After": "soon"}),
    "vllm error": (400, {"type": "BadRequestError", "param": None, "code": 400}, {}),
    "localai error": (500, {"code": 500, "type": ""}, {}),
    "server error": (500, {"code": "server_error", "type": "server_error"}, {}),
    "gateway": (502, {}, {}),
    "gateway in json": (500, {"code": "do_request_failed", "type": "new_api_error"}, {}),
    "unavailable": (503, {"code": "503", "type": None}, {}),
    "overloaded": (
        503,
        {"code": "server_is_overloaded", "type": "service_unavailable_error"},
        {"Retry-After": "9"},
    ),
    "request timeout": (408, {}, {}),
    "gateway timeout": (504, {"code": 50505}, {}),
    "cloudflare 520": (520, {}, {}),
    "cloudflare 524": (524, {}, {}),
}


class Seen(NamedTuple):
    method: str
    path: str
    headers: dict[str, str]
    body: dict
    query: str = ""
    files: list[tuple[str, Image.Image]] = []


class Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args) -> None:
        """Log nothing."""


class FakeOpenAI:
    """Set `mode`, `models` and how image URLs respond before a request; read `seen` after it."""

    def __init__(self):
        self.mode, self.models, self.picture_mode = "b64", "list", "ok"
        # The targets of the redirects, in order, before an image is served.
        self.redirects: list[str] = []
        # How many requests for an image fail with 404 before it is served.
        self.failures = 0
        self.result = PNG
        self.revised_prompt, self.seed = None, None
        # The answer in mode "reply": status, body and content type.
        self.reply_headers: dict[str, str] = {}
        self.reply: tuple[int, bytes, str] = (200, b"", "application/json")
        self.seen: list[Seen] = []
        self.hangs = threading.Event()
        self.was_left = threading.Event()
        self.over = threading.Event()
        self.http = make_server("127.0.0.1", 0, self, threaded=True, request_handler=Quiet)
        self.url = f"http://127.0.0.1:{self.http.port}"
        self.link = f"{self.url}/pictures/1.png?sig={SIGNATURE}"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self.over.set()
        self.http.shutdown()
        self.http.server_close()

    def asked(self, path: str = "/v1/images/generations") -> list[Seen]:
        return [request for request in self.seen if request.path == path]

    def __call__(self, environ, start_response):
        request = Request(environ)
        body = request.get_json(silent=True) or request.form.to_dict()
        query = request.query_string.decode()
        files = [(name, opened(file)) for name, file in request.files.items(multi=True)]
        headers = dict(request.headers)
        self.seen.append(Seen(request.method, request.path, headers, body, query, files))
        if request.path == "/v1/models":
            response = self.model_list()
        elif "/pictures/" in request.path:
            response = self.picture(request)
        elif request.path == "/v1/images/edits" and (problem := problem_with(request, files)):
            error = {"message": problem, "type": "invalid_request_error", "code": None}
            response = answer({"error": error}, 400)
        else:
            response = self.generation(request, body)
        return response(environ, start_response)

    # -- Generations -------------------------------------------------------------------------

    def generation(self, request: Request, body: dict) -> Response:
        if self.mode in ERRORS:
            return self.error(request, body)
        return getattr(self, "answer_" + self.mode.replace(" ", "_"))(request)

    def error(self, request: Request, body: dict) -> Response:
        status, fields, headers = ERRORS[self.mode]
        if headers.get("Retry-After") == "in an hour":
            headers = {"Retry-After": formatdate(time.time() + 3600, usegmt=True)}
        message = f"no: {body.get('prompt')} {request.headers.get('Authorization')} {self.link}"
        return answer({"error": {"message": message, **fields}}, status, headers)

    def entry(self, **fields) -> dict:
        return {
            key: value
            for key, value in {"revised_prompt": self.revised_prompt, **fields}.items()
            if value
        }

    def good(self, **fields) -> Response:
        seed = {} if self.seed is None else {"seed": self.seed}
        return answer({"created": 1700000000, "data": [self.entry(**fields)], **seed})

    def answer_b64(self, request):
        return self.good(b64_json=base64.b64encode(self.result).decode())

    def answer_b64_in_lines(self, request):
        return self.good(b64_json=base64.encodebytes(self.result).decode())

    def answer_b64_with_prefix(self, request):
        return self.good(b64_json="data:image/png;base64," + base64.b64encode(self.result).decode())

    def answer_data_url(self, request):
        return self.good(url="data:image/png;base64," + base64.b64encode(self.result).decode())

    def answer_url(self, request):
        return self.good(url=self.link)

    def answer_siliconflow(self, request):
        entries = [{"url": self.link}]
        return answer(
            {"images": entries, "timings": {"inference": 1.2}, "seed": 9999999999, "data": entries}
        )

    def answer_images_only(self, request):
        return answer({"images": [{"url": self.link}], "timings": {"inference": 1.2}, "seed": 7})

    def answer_localai(self, request):
        item = {"embedding": None, "index": 0, "url": self.link}
        return answer({"created": 1, "id": "5b5a", "data": [item], "usage": {"total_tokens": 0}})

    def answer_vllm_omni(self, request):
        encoded = base64.b64encode(self.result).decode()
        return answer(
            {
                "created": 1,
                "data": [{"b64_json": encoded, "url": None, "revised_prompt": None}],
                "size": "x",
            }
        )

    def answer_reply(self, request):
        status, body, content_type = self.reply
        return Response(body, status, self.reply_headers, content_type=content_type)

    # -- Invalid responses -------------------------------------------------------------------

    def answer_broken_base64(self, request):
        return self.good(b64_json="iVBORw0KGgo*")

    def answer_data_url_without_base64(self, request):
        return self.good(url="data:image/svg+xml,<svg/>")

    def answer_empty_data(self, request):
        return answer({"created": 1, "data": []})

    def answer_empty_entry(self, request):
        return self.good()

    def answer_numbers(self, request):
        return answer({"data": [{"b64_json": 7, "url": ["x"]}]})

    def answer_list(self, request):
        return answer([1, 2])

    def answer_filtered(self, request):
        return answer({"error": {"code": "content_filter", "message": "no"}})

    def answer_html(self, request):
        return Response("<h1>It works</h1>", mimetype="text/html")

    def answer_nothing(self, request):
        return Response(b"", mimetype="application/json")

    def answer_page(self, request):
        return Response("<h1>Internal Server Error</h1>", status=500, mimetype="text/html")

    def answer_redirect(self, request):
        return Response(status=307, headers={"Location": f"{self.url}/v1/images/generations"})

    def answer_siliconflow_error(self, request):
        return answer({"code": 20012, "message": "Model does not exist.", "data": None}, 400)

    def answer_plain_message(self, request):
        return answer({"error": "fox"}, 400)

    def answer_fastapi_error(self, request):
        return answer({"detail": [{"loc": ["body", "size"], "msg": "bad", "input": "x"}]}, 422)

    # -- Connections that break ---------------------------------------------------------------

    def answer_hang(self, request):
        """Send nothing until the client closes the connection."""
        self.hangs.set()
        connection = request.environ["werkzeug.socket"]
        while not self.over.is_set():
            if select.select([connection], [], [], 0.02)[0]:
                self.was_left.set()
                break
        return Response(b"")

    def answer_hang_up(self, request):
        request.environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        return Response(b"")

    def answer_hang_up_midway(self, request):
        def halves():
            yield b'{"created": 1, "data": [{"b64_json": "'
            request.environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)

        return Response(halves(), headers={"Content-Length": "1000"}, mimetype="application/json")

    def answer_hang_up_between_chunks(self, request):
        def halves():
            yield b'{"created": 1, '
            request.environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            yield b'"data": []}'

        return Response(halves(), mimetype="application/json")

    def answer_drip(self, request):
        def drops():
            while not self.over.wait(0.02):
                yield b" "

        return Response(drops(), headers={"Content-Length": "100000"}, mimetype="application/json")

    # -- Images and model lists --------------------------------------------------------------

    def picture(self, request: Request) -> Response:
        if self.redirects:
            return Response(status=302, headers={"Location": self.redirects.pop(0)})
        if self.failures:
            self.failures -= 1
            return Response(b"not yet", status=404)
        if self.picture_mode != "ok":
            return getattr(self, "answer_" + self.picture_mode.replace(" ", "_"))(request)
        return Response(self.result, mimetype="image/png")

    def model_list(self) -> Response:
        ids = {
            "list": ["gpt-image-1", "dall-e-3"],
            "one": ["gpt-image-1"],
            "others": ["llama"],
            "empty": [],
        }
        if self.models in ids:
            return answer(
                {
                    "object": "list",
                    "data": [{"id": name, "object": "model"} for name in ids[self.models]],
                }
            )
        if self.models == "html":
            return Response("<h1>It works</h1>", mimetype="text/html")
        return answer({"error": {"message": self.link, "code": "x", "type": "y"}}, int(self.models))


def opened(file) -> Image.Image:
    image = Image.open(io.BytesIO(file.read()))
    image.load()
    return image


def problem_with(request: Request, files: list[tuple[str, Image.Image]]) -> str:
    """Return why OpenAI refuses an edit; "" if it takes it."""
    images = [image for name, image in files if name in ("image", "image[]")]
    masks = [image for name, image in files if name == "mask"]
    if request.mimetype != "multipart/form-data":
        return "Unsupported content type"
    if not images:
        return "Missing required parameter: 'image'."
    if len(images) > 16 or len([1 for name, _ in files if name == "image"]) > 1:
        return "Duplicate parameter: 'image'."
    if masks and (masks[0].format != "PNG" or masks[0].mode != "RGBA"):
        return "Invalid mask image format - mask image missing alpha channel"
    if masks and masks[0].size != images[0].size:
        return "Invalid mask image format - mask size does not match image size"
    if "moderation" in request.form:
        return "Unknown parameter: 'moderation'."
    return ""


def answer(body, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(json.dumps(body), status=status, headers=headers, mimetype="application/json")
