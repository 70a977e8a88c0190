"""The life of a generation, no HTTP."""

import json
import secrets

import cpu
import db
import media
import storage
from checks import GenerateTestInput, TestParams
from engines import Job, painter


def draw_now(user: db.Row, wanted: GenerateTestInput) -> db.Row:
    """Draw with the built-in engine while the caller waits; return {id, image_url, status}. Raises cpu.Busy."""
    params = wanted.params or TestParams()
    # Like other image servers, take -1 for "any seed".
    seed = params.seed if params.seed not in (None, -1) else secrets.randbelow(2**32)
    job = Job(prompt=wanted.prompt, width=params.width, height=params.height, steps=params.steps, seed=seed)
    image, thumbnail = cpu.run(draw_with_thumbnail, job)
    folder, name = f"generated_images/{user['id']}", secrets.token_hex(16)
    image_url = storage.put(f"{folder}/{name}.png", image)
    generation = {
        "prompt_text": wanted.prompt,
        "image_filename": f"{name}.png",
        "image_url": image_url,
        "thumbnail_url": storage.put(f"{folder}/{name}_thumbnail.webp", thumbnail),
        "status": "completed",
        "generation_params_json": json.dumps(recorded_params(params, job), ensure_ascii=False),
    }
    return {"id": db.create_generation(user["id"], **generation), **generation}


def draw_with_thumbnail(job: Job) -> tuple[bytes, bytes]:
    image = painter.make(job)
    return image, media.thumbnail(image)


def recorded_params(params: TestParams, job: Job) -> dict:
    """Return what the record says of how the image was made: the client's own params, then the true ones."""
    return {
        **(params.model_extra or {}),
        "model_used": painter.VERSION,
        "seed": job.seed,
        "steps": job.steps,
        "width": job.width,
        "height": job.height,
    }
