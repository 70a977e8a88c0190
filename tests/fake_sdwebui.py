"""A fake Stable Diffusion WebUI: the API of A1111 1.10, Forge or SD.Next on 127.0.0.1, no model.

It follows modules/api/{api,models}.py, modules/progress.py and modules/shared_state.py of the
three. The image is a plain square: white if finished, grey if interrupted.
"""

import base64
import io
import json
import random
import socket
import threading
from contextlib import contextmanager

from flask import Flask, Response, jsonify, request
from PIL import Image
from werkzeug.serving import make_server

FLAVOURS = ["a1111", "forge", "sdnext", "nowebui"]
CHECKPOINTS = [
    {
        "title": "sd15/dreamy.v2.safetensors [6ce0161689]",
        "model_name": "sd15_dreamy.v2",
        "hash": "6ce0161689",
        "sha256": "6ce0161689b3853acaa03779ec93eafe75a02f4ced659bee03f50797806fa2fa",
        "filename": "/models/sd15/dreamy.v2.safetensors",
        "config": None,
    },
    {
        "title": "plain.ckpt",
        "model_name": "plain",
        "hash": None,
        "sha256": None,
        "filename": "/models/plain.ckpt",
    },
]
SAMPLERS = ["DPM++ 2M", "DPM++ SDE", "Euler a", "Euler"]
SCHEDULERS = [
    {"name": "automatic", "label": "Automatic", "aliases": None, "default_rho": -1},
    {"name": "karras", "label": "Karras", "aliases": None, "default_rho": 7},
    {"name": "sgm_uniform", "label": "SGM Uniform", "aliases": ["SGMUniform"], "default_rho": -1},
]
WHOLE_NUMBERS = ("width", "height", "steps", "seed", "batch_size", "n_iter")


def picture(is_finished: bool = True) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (8, 8), "white" if is_finished else "grey").save(data, "PNG")
    return data.getvalue()


def repainted(body: dict) -> bytes:
    """Paint the picture of img2img white: where the mask is white, or else all, by its strength."""
    size = (body["width"], body["height"])
    image = decoded(body["init_images"][0]).convert("RGB").resize(size)
    level = round(255 * body.get("denoising_strength", 0.75))
    change = Image.new("L", size, level)
    if "mask" in body:
        change = decoded(body["mask"]).convert("L").resize(size)
        if body.get("inpainting_mask_invert"):
            change = change.point(lambda level: 255 - level)
    data = io.BytesIO()
    Image.composite(Image.new("RGB", size, "white"), image, change).save(data, "PNG")
    return data.getvalue()


def decoded(text: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(text, validate=True)))


class FakeWebUI:
    """Set how it should fail before a request; read what it received afterwards."""

    def __init__(self, flavour: str = "a1111", port: int = 0):
        self.flavour = flavour
        self.credentials = None  # (user name, password), as --api-auth gives them
        self.hold_at = None  # a picture stops at this step until `go` is set or it is interrupted
        self.go, self.held = threading.Event(), threading.Event()
        self.progress_hangs = threading.Event()
        self.progress_hangs.set()  # cleared: progress is not answered until it is set
        self.instead = None  # a function that makes the response to txt2img instead
        self.change_reply = lambda reply: reply
        self.checkpoints, self.samplers = list(CHECKPOINTS), list(SAMPLERS)
        self.loaded = CHECKPOINTS[0]  # used if the one asked for cannot be
        self.bodies, self.seeds, self.polls, self.interrupts = [], [], 0, 0
        self.queue, self.pending, self.finished, self.current_task = threading.Lock(), [], [], None
        self.state = {
            "skipped": False,
            "interrupted": False,
            "job": "",
            "job_count": 0,
            "job_timestamp": "0",
            "job_no": 0,
            "sampling_step": 0,
            "sampling_steps": 0,
        }
        self.server = make_server("127.0.0.1", port, self.app(), threaded=True)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        ).start()

    def close(self) -> None:
        self.go.set()
        self.progress_hangs.set()
        self.server.shutdown()
        self.server.server_close()

    def app(self) -> Flask:
        app = Flask(__name__)
        app.before_request(self.authenticate)
        app.post("/sdapi/v1/txt2img")(self.txt2img)
        app.post("/sdapi/v1/img2img")(self.txt2img)
        app.get("/sdapi/v1/progress")(self.progress)
        app.post("/sdapi/v1/interrupt")(self.interrupt)
        app.get("/sdapi/v1/sd-models", endpoint="models")(lambda: jsonify(self.checkpoints))
        if self.flavour in ("a1111", "forge"):
            app.get("/sdapi/v1/schedulers", endpoint="schedulers")(lambda: jsonify(SCHEDULERS))
        app.get("/sdapi/v1/samplers", endpoint="samplers")(
            lambda: jsonify(
                [{"name": name, "aliases": [], "options": {}} for name in self.samplers]
            )
        )
        if self.flavour != "nowebui":
            app.post("/internal/progress")(self.internal_progress)
        app.register_error_handler(404, lambda error: (jsonify(detail="Not Found"), 404))
        return app

    def authenticate(self):
        given = request.authorization
        if self.credentials and (not given or (given.username, given.password) != self.credentials):
            return (
                jsonify(detail="Incorrect username or password"),
                401,
                {"WWW-Authenticate": "Basic"},
            )
        return None

    # -- txt2img ----------------------------------------------------------------------------

    def txt2img(self):
        body = request.get_json()
        self.bodies.append(body)
        if wrong := [
            name for name in WHOLE_NUMBERS if name in body and type(body[name]) is not int
        ]:
            message = f"not a number in {body}"
            problems = [
                {"type": "int_parsing", "loc": ["body", name], "msg": message, "input": body}
                for name in wrong
            ]
            return jsonify(detail=problems), 422
        if self.flavour == "sdnext" and body.get("sampler_name", "Euler") not in self.samplers:
            return self.error(404, "HTTPException", detail="Sampler not found")
        with self.drawing(body.get("force_task_id"), self.api_job, body.get("steps", 50)):
            self.step_through()
            if self.instead:
                return self.instead()
        return jsonify(self.change_reply(self.reply(body)))

    @property
    def api_job(self) -> str:
        return "API-TXT" if self.flavour == "sdnext" else "scripts_txt2img"

    @contextmanager
    def drawing(self, task: str, job: str, steps: int):
        """Generate while the block runs; before, wait until no other image is generated."""
        knows_tasks = self.flavour != "sdnext"
        if knows_tasks:
            self.pending.append(task)
        with self.queue:
            self.state |= {"job": job, "job_count": 1, "sampling_step": 0, "sampling_steps": steps}
            self.state |= {
                "interrupted": False,
                "skipped": False,
                "job_timestamp": "20250101120000",
            }
            if knows_tasks:
                self.pending.remove(task)
                self.current_task = task
            yield
            if knows_tasks:
                self.current_task = None
                self.finished.append(task)
            self.state |= {"job": "", "job_count": 0}

    def step_through(self) -> None:
        for step in range(self.state["sampling_steps"]):
            if step == self.hold_at:
                self.held.set()
                self.wait_for_go()
            if self.state["interrupted"]:
                return
            self.state["sampling_step"] = step + 1

    def wait_for_go(self) -> None:
        while not self.go.wait(0.01) and not self.state["interrupted"]:
            pass

    @contextmanager
    def busy_with_another(self):
        """Generate another client's image while the block runs, and be halfway through it."""
        with self.drawing("task(theirs)", "API-IMG", 10):
            self.state["sampling_step"] = 5
            yield

    def reply(self, body: dict) -> dict:
        seed = body.get("seed", -1)
        seed = random.randrange(2**32) if seed == -1 else seed
        self.seeds.append(seed)
        info = {
            "prompt": body["prompt"],
            "seed": seed,
            "all_seeds": [seed],
            "steps": body.get("steps", 50),
            "cfg_scale": body.get("cfg_scale", 7.0),
            "sampler_name": body.get("sampler_name", "Euler"),
            "sd_model_hash": self.used_checkpoint(body)["hash"],
            "infotexts": [f"{body['prompt']}\nSteps: 20, Seed: {seed}"],
        }
        if self.flavour != "sdnext":
            filename = self.used_checkpoint(body)["filename"]
            info["sd_model_name"] = filename.rpartition("/")[2].rpartition(".")[0]
        data = picture(not self.state["interrupted"])
        if request.path.endswith("img2img"):
            data = repainted(body)
        data = base64.b64encode(data).decode()
        return {"images": [data], "parameters": body, "info": json.dumps(info)}

    def used_checkpoint(self, body: dict) -> dict:
        """Return the checkpoint asked for, or, as the servers do without a word, the loaded one."""
        asked = body.get("override_settings", {}).get("sd_model_checkpoint")
        for checkpoint in self.checkpoints:
            title = checkpoint["title"]
            stem = title.rpartition("/")[2].partition(" [")[0].rpartition(".")[0]
            if asked in (title, title.partition(" [")[0], stem, checkpoint["model_name"]):
                return checkpoint
        return self.loaded

    # -- Other endpoints ---------------------------------------------------------------

    def progress(self):
        self.poll()
        steps, is_busy = self.state["sampling_steps"], self.state["job_count"]
        share = min(1, 0.01 + self.state["sampling_step"] / steps) if is_busy else 0
        return jsonify(
            progress=share, eta_relative=0.0, state=self.state, current_image=None, textinfo=None
        )

    def internal_progress(self):
        self.poll()
        task = request.get_json()["id_task"]
        answer = {"active": task == self.current_task, "queued": task in self.pending}
        answer |= {
            "completed": task in self.finished,
            "id_live_preview": -1,
            "textinfo": "Waiting...",
        }
        if answer["active"]:
            answer["progress"] = self.state["sampling_step"] / self.state["sampling_steps"]
        return jsonify(answer)

    def poll(self) -> None:
        self.polls += 1
        self.progress_hangs.wait()

    def interrupt(self):
        self.interrupts += 1
        self.interrupt_by_somebody()
        return ("", 204) if self.flavour == "sdnext" else jsonify({})

    def interrupt_by_somebody(self) -> None:
        self.state["interrupted"] = True

    def error(self, status: int, kind: str, detail: str = "", text: str = ""):
        """Respond as after an exception; its text is `message` on Forge, `errors` on the others."""
        named = "message" if self.flavour == "forge" else "errors"
        return jsonify({"error": kind, "detail": detail, "body": "", named: text}), status

    def hang_up(self):
        """Close the connection without a response, as a process that is killed does."""
        request.environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        return ""

    def break_off(self):
        """Close the connection in the middle of the response."""
        return Response(
            iter(['{"images": ["iVBO']),
            headers={"Content-Length": "5000"},
            mimetype="application/json",
        )
