"""`flask engines …`: try the engines behind the models on offer."""

import time

import click
from flask.cli import AppGroup

import engines
from config import SettingError
from engines import catalog
from files import pictures
from images import parameters
from images.schemas import GenerateInput

engines_group = AppGroup("engines", help="Try the engines behind the models on offer.")

TRIAL_PROMPT = "a red apple on a table"
TRIAL_SIDE = 256


@engines_group.command("check")
@click.argument("names", metavar="[MODEL]...", nargs=-1)
@click.option(
    "--pictures/--no-pictures",
    "with_picture",
    default=True,
    help="Make one small picture where that is free.",
)
def engines_check(names: tuple[str, ...], with_picture: bool) -> None:
    """Try the engine of each model, or of those named, from this machine.

    The exit status is 1 if one fails.
    """
    models = catalog.models()
    for name in names:
        if name not in models:
            known = ", ".join(models)
            raise click.ClickException(f"there is no model {name}; there are {known}")
    print_trial("model", "engine", "reached", "picture", "what it has, or what is wrong")
    trials = [Trial(models[name], with_picture) for name in names or models]
    if not all(trial.is_good for trial in trials):
        raise SystemExit(1)


def print_trial(model: str, engine: str, reached: str, picture: str, note: str) -> None:
    click.echo(f"{model:24} {engine:14} {reached:>9} {picture:>9}  {note}")


class Trial:
    """One try of a model: how long its engine took to answer and to make a picture."""

    def __init__(self, model: catalog.Model, with_picture: bool):
        self.reached = self.picture = "-"
        self.is_good = False
        try:
            self.note = self.run(model, with_picture)
            self.is_good = True
        except (engines.EngineError, SettingError) as error:
            self.note = str(error)
        except pictures.BadPicture:
            self.note = "bad_picture"
        print_trial(model.name, model.engine, self.reached, self.picture, self.note)

    def run(self, model: catalog.Model, with_picture: bool) -> str:
        engines.prepare(model)
        engine = engines.load(model.engine)
        started = time.monotonic()
        offers = engine.check(model.options)
        if model.sampler and hasattr(engine, "check_samplers"):
            engine.check_samplers(model.options, model.sampler)
        milliseconds = (time.monotonic() - started) * 1000
        self.reached = f"{milliseconds:.0f} ms"
        if with_picture and not model.options.is_paid:
            started = time.monotonic()
            generated = engine.make(trial_request(model), engines.no_progress)
            picture = pictures.check_generated(generated.data)
            self.picture = f"{time.monotonic() - started:.1f} s"
            offers.append(f"made {picture.width}x{picture.height} {picture.extension}")
        return ", ".join(offers)


def trial_request(model: catalog.Model) -> engines.ImageRequest:
    """Return the smallest request worth looking at."""
    least = model.images.min if model.images else 0
    sources = [{"upload": "trial"}] * least
    wanted = GenerateInput(prompt=TRIAL_PROMPT, model=model.name, images=sources)
    if not model.sizes and not model.pixels:
        wanted.width = closest(model.width, TRIAL_SIDE)
        wanted.height = closest(model.height, TRIAL_SIDE)
    if model.steps:
        wanted.steps = int(model.steps.min)
    [row] = parameters.new_rows(parameters.fill(wanted), extra={})
    pictures = (trial_picture(),) * least
    return parameters.image_request(row, parameters.params_of(row), images=pictures)


def trial_picture() -> engines.InputImage:
    from PIL import Image  # late, as masks, which imports it

    from engines import masks

    image = masks.png(Image.new("RGB", (TRIAL_SIDE, TRIAL_SIDE), "white"))
    return engines.InputImage(image, "png", TRIAL_SIDE, TRIAL_SIDE)


def closest(limits: catalog.Range, wanted: int) -> int:
    """Return the value in a range that is closest to what is wanted, or just below it."""
    multiple = wanted // limits.step * limits.step
    return int(min(max(multiple, limits.min), limits.max))
