"""The engine `diffusers` with a real pipeline: tiny, with random weights, made as in the docs.

Tests that need torch are skipped unless requirements-gpu.txt is installed. The messages that an
operator then gets are tested everywhere.
"""

import inspect
import io
import json
import os
import re
import shutil
import subprocess
import sys
import traceback
from pathlib import Path

import pytest
from PIL import Image, ImageChops, ImageStat

import engines
from config import SettingError
from engines import ImageRequest, PermanentError, TransientError, catalog
from engines import diffusers as engine
from engines.options import Diffusers
from tests.inputs import encoded, hole, noise, plain
from tests.servers import ROOT, clean_environment

PAGES = [ROOT / "docs/engines/diffusers.md", ROOT / "docs/engines/diffusers.zh-CN.md"]


class Stop(Exception):
    """What a worker's on_progress raises when a job is canceled."""


def block(page: Path, language: str) -> str:
    """Return the last block of code in this language on a page."""
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)[-1]


@pytest.fixture(scope="session")
def torch():
    for name in engine.LIBRARIES:
        pytest.importorskip(
            name, reason=f"{name} is missing: requirements-gpu.txt is not installed"
        )
    return sys.modules["torch"]


@pytest.fixture(scope="session")
def made_once(torch, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipelines") / "tiny"
    engine.import_diffusers()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["tiny.py", str(folder)])
        exec(block(PAGES[0], "python"), {})
    return folder


@pytest.fixture
def options(made_once):
    return Diffusers(folder=made_once)


@pytest.fixture
def pipeline(options):
    return engine.load(options).pipeline


@pytest.fixture
def copied(made_once, tmp_path):
    """A folder to damage."""
    return shutil.copytree(made_once, tmp_path / "copied")


def draw(options, on_progress=lambda done, total: None, **wishes) -> bytes:
    request = ImageRequest(
        **{
            "prompt": "a fox",
            "width": 64,
            "height": 64,
            "steps": 3,
            "seed": 1,
            "options": options,
            **wishes,
        }
    )
    return engine.make(request, on_progress).data


def failing(error):
    def forward(*arguments, **named):
        raise error

    return forward


# -- Pictures -----------------------------------------------------------------------------------


def test_makes_a_png_of_the_size_asked_for(options):
    generated = engine.make(
        ImageRequest("a fox", width=72, height=64, steps=2, seed=1, options=options)
    )

    image = Image.open(io.BytesIO(generated.data))
    assert (image.format, image.mode, image.size, generated.params) == ("PNG", "RGB", (72, 64), {})


def test_a_seed_gives_the_same_bytes_again(options):
    first, again, other = (
        draw(options, seed=1),
        draw(options, seed=1),
        draw(options, seed=2**32 - 1),
    )

    assert first == again != other


def test_without_a_seed_each_picture_is_another(options):
    assert draw(options, seed=None) != draw(options, seed=None)


@pytest.mark.parametrize(
    "wish", [{"prompt": "a hen"}, {"negative_prompt": "red"}, {"guidance": 1.5}, {"steps": 4}]
)
def test_each_wish_changes_the_picture(options, wish):
    assert draw(options, **wish) != draw(options)


def test_extra_arguments_stand_in_for_what_a_request_leaves_open(options):
    fixed = options.model_copy(update={"extra": {"num_inference_steps": 2}})

    assert draw(fixed, steps=None) == draw(options, steps=2)
    assert draw(fixed, steps=3) == draw(options, steps=3)


def test_a_size_that_the_pipeline_rounds_is_reported(options, pipeline, monkeypatch):
    rounded = Image.new("RGB", (64, 56))
    monkeypatch.setattr(
        pipeline.image_processor, "postprocess", lambda *arguments, **named: [rounded]
    )

    generated = engine.make(ImageRequest("a fox", width=64, height=64, steps=1, options=options))

    assert generated.params == {"width": 64, "height": 56}


def test_a_pipeline_is_loaded_once(options, pipeline):
    again = engine.load(Diffusers(folder=options.folder, extra={"eta": 0.5}))

    assert again.pipeline is pipeline


def test_a_class_unknown_to_the_automatic_choice_works_too(copied):
    rename_class(copied, "StableDiffusionSAGPipeline")

    data = draw(Diffusers(folder=copied))

    assert Image.open(io.BytesIO(data)).size == (64, 64)


# -- Progress and the end of a run --------------------------------------------------------------


def test_progress_is_told_at_the_start_and_after_each_step(options, pipeline, monkeypatch):
    monkeypatch.setattr(engine, "PROGRESS_INTERVAL_SECONDS", 1000)
    told = []

    draw(options, lambda *progress: told.append(progress))

    assert told == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_progress_is_told_within_a_step(options, monkeypatch):
    monkeypatch.setattr(engine, "PROGRESS_INTERVAL_SECONDS", 0)
    told = []

    draw(options, lambda *progress: told.append(progress))

    assert min(told.count((done, 3)) for done in range(4)) > 5
    assert told == sorted(told)


def test_what_progress_raises_ends_the_run_at_once_and_unchanged(options, pipeline, monkeypatch):
    monkeypatch.setattr(engine, "PROGRESS_INTERVAL_SECONDS", 1000)
    told, stop = [], Stop()

    def on_progress(done, total):
        told.append(done)
        if done == 2:
            raise stop

    with pytest.raises(Stop) as raised:
        draw(options, on_progress, steps=50)

    assert (raised.value, told) == (stop, [0, 1, 2])


def test_a_run_broken_off_leaves_no_trace_in_the_next(options, pipeline, torch, monkeypatch):
    whole = draw(options)
    monkeypatch.setattr(engine, "PROGRESS_INTERVAL_SECONDS", 0)
    steps = iter(range(40))

    with pytest.raises(StopIteration):
        draw(options, lambda done, total: next(steps))
    # What a pipeline that decodes in another dtype leaves behind if it is broken off there.
    pipeline.vae.to(torch.float64)

    assert draw(options) == whole


@pytest.fixture
def without(options, monkeypatch):
    """Let the pipeline's call seem to have no arguments of these names."""
    loaded = engine.load(options)

    def hide(*names):
        arguments = {name: value for name, value in loaded.arguments.items() if name not in names}
        monkeypatch.setattr(engine, "load", lambda options: loaded._replace(arguments=arguments))

    return hide


def test_progress_of_a_pipeline_without_a_callback_is_told_after_each_step(
    options, without, monkeypatch
):
    monkeypatch.setattr(engine, "PROGRESS_INTERVAL_SECONDS", 1000)
    whole = draw(options)
    without("callback_on_step_end")
    told = []

    data = draw(options, lambda *progress: told.append(progress))

    assert told == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert data == whole


def test_a_pipeline_without_a_callback_ends_at_once_and_is_as_before(
    options, pipeline, without, monkeypatch
):
    monkeypatch.setattr(engine, "PROGRESS_INTERVAL_SECONDS", 1000)
    without("callback_on_step_end")
    told = []

    def on_progress(done, total):
        told.append(done)
        if done == 2:
            raise Stop

    with pytest.raises(Stop):
        draw(options, on_progress, steps=50)

    assert told == [0, 1, 2] and "step" not in vars(pipeline.scheduler)


# -- What a pipeline takes ------------------------------------------------------------------------


def arguments_of(class_name: str):
    pipeline_class = getattr(engine.import_diffusers(), class_name)
    return inspect.signature(pipeline_class.__call__).parameters


WISHES = {"negative_prompt": "rain", "guidance": 3.0, "steps": 4, "seed": 1}


@pytest.mark.parametrize(
    ("class_name", "sent", "unused"),
    [
        ("StableDiffusionPipeline", {"negative_prompt": "rain", "guidance_scale": 3.0}, []),
        ("QwenImagePipeline", {"negative_prompt": "rain", "true_cfg_scale": 3.0}, []),
        ("Flux2KleinPipeline", {"guidance_scale": 3.0}, ["negative_prompt"]),
        (
            "FluxPipeline",
            {"negative_prompt": "rain", "guidance_scale": 3.0},
            ["negative_prompt"],
        ),
    ],
)
def test_each_parameter_goes_where_the_pipeline_follows_it(
    torch, tmp_path, class_name, sent, unused
):
    request = ImageRequest("a fox", options=Diffusers(folder=tmp_path), **WISHES)
    supported = arguments_of(class_name)

    arguments = engine.call_arguments(request, supported, engine.ProgressReporter(print, 4))

    scales = ("negative_prompt", "guidance_scale", "true_cfg_scale")
    assert {name: arguments[name] for name in scales if name in arguments} == sent
    assert arguments["num_inference_steps"] == 4
    assert engine.unused_parameters(request, supported, arguments) == unused


def test_qwen_follows_its_guidance_without_a_negative_prompt_too(torch, tmp_path):
    request = ImageRequest("a fox", guidance=3.0, options=Diffusers(folder=tmp_path))

    arguments = engine.call_arguments(request, arguments_of("QwenImagePipeline"), no_reporter())

    assert (arguments["negative_prompt"], arguments["true_cfg_scale"]) == (" ", 3.0)


def test_flux_follows_a_negative_prompt_with_a_scale_of_its_own(torch, tmp_path):
    options = Diffusers(folder=tmp_path, extra={"true_cfg_scale": 2.0})
    request = ImageRequest("a fox", negative_prompt="rain", options=options)
    supported = arguments_of("FluxPipeline")

    arguments = engine.call_arguments(request, supported, no_reporter())

    assert engine.unused_parameters(request, supported, arguments) == []


def no_reporter():
    return engine.ProgressReporter(print, 1)


def test_what_the_pipeline_does_not_take_is_not_recorded_as_used(options, without):
    without("negative_prompt", "guidance_scale", "generator")
    request = ImageRequest("a fox", width=64, height=64, options=options, **WISHES)

    generated = engine.make(request)

    assert generated.params == {"negative_prompt": None, "guidance": None, "seed": None}


def test_check_names_what_the_pipeline_does_not_take(copied):
    rename_class(copied, "Flux2KleinPipeline")

    assert engine.check(Diffusers(folder=copied))[-1] == "takes no negative_prompt"


# -- What can go wrong in make() -----------------------------------------------------------------


@pytest.mark.parametrize("size", [(60, 64), (64, 65)])
def test_a_size_that_the_pipeline_refuses_is_told_to_the_owner(options, size):
    with pytest.raises(PermanentError) as raised:
        draw(options, width=size[0], height=size[1])

    assert (raised.value.code, raised.value.shown) == (
        "engine_refused",
        "width and height must be multiples of 8",
    )


def test_a_flagged_picture_is_refused(options, pipeline, monkeypatch):
    monkeypatch.setattr(
        pipeline, "run_safety_checker", lambda image, device, dtype: (image, [True])
    )

    with pytest.raises(PermanentError) as raised:
        draw(options)

    assert raised.value.code == "content_refused"


def test_an_error_that_quotes_the_prompt_is_left_out(options, pipeline, monkeypatch):
    monkeypatch.setattr(
        pipeline.unet, "forward", failing(ValueError("cannot draw: my secret prompt"))
    )

    with pytest.raises(PermanentError) as raised:
        draw(options)

    assert re.fullmatch(r"engine_error: ValueError at test_diffusers.py:\d+", str(raised.value))
    assert "secret" not in "".join(traceback.format_exception(raised.value))


def test_a_full_gpu_is_tried_again_later(options, pipeline, torch, monkeypatch):
    monkeypatch.setattr(
        pipeline.unet, "forward", failing(torch.OutOfMemoryError("CUDA out of memory"))
    )

    with pytest.raises(TransientError) as raised:
        draw(options)

    # An exception that hangs on this one would keep the memory of the run.
    assert (raised.value.code, raised.value.__context__) == ("engine_busy", None)


def test_a_broken_gpu_ends_the_process(options, pipeline, torch, monkeypatch):
    monkeypatch.setattr(
        pipeline.unet, "forward", failing(torch.AcceleratorError("CUDA error: illegal access"))
    )

    with pytest.raises(SystemExit, match="the GPU has failed"):
        draw(options)


def test_no_prompt_gets_into_the_output(options):
    program = f"""
import logging
logging.basicConfig(level=logging.DEBUG)
from engines import ImageRequest, diffusers
from engines.options import Diffusers
options = Diffusers(folder={str(options.folder)!r})
negative = "dodo " * 300
size = {{"width": 64, "height": 64}}
request = ImageRequest("quagga " * 300, negative, **size, steps=1, options=options)
print(len(diffusers.make(request).data))
"""

    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert int(done.stdout) > 1000
    assert not re.search("quagga|dodo|%", done.stderr)


# -- Folders and machines that will not do ------------------------------------------------------


def rename_class(folder, name):
    path = folder / "model_index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "_class_name": name}))


def pickle_weights(folder):
    weights = folder / "unet/diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))


def cut(folder):
    weights = folder / "vae/diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


DAMAGE = {
    "no pipeline is there: model_index.json: No such file": shutil.rmtree,
    "model_index.json: No such file": lambda folder: (folder / "model_index.json").unlink(),
    "model_index.json is damaged": lambda folder: (folder / "model_index.json").write_text(
        '{"_class_name": "Sta'
    ),
    "is damaged": lambda folder: (folder / "model_index.json").write_text("[]"),
    "code of its own": lambda folder: rename_class(folder, ["pipeline", "MyPipeline"]),
    "unet: is missing": lambda folder: shutil.rmtree(folder / "unet"),
    "unet: only pickled weights": pickle_weights,
    "diffusion_pytorch_model.safetensors: is damaged or cut short": cut,
    "unreadable.safetensors: Is a directory": lambda folder: (
        folder / "unet/unreadable.safetensors"
    ).mkdir(),
    "OSError: .*config": lambda folder: (folder / "vae/config.json").write_text("{"),
    "no file named": lambda folder: (folder / "vae/diffusion_pytorch_model.safetensors").unlink(),
    "no attribute Nonsense": lambda folder: rename_class(folder, "Nonsense"),
    "DDPMPipeline takes no prompt": lambda folder: rename_class(folder, "DDPMPipeline"),
}


@pytest.mark.parametrize("said", DAMAGE)
def test_a_broken_folder_stops_the_worker_with_one_line(copied, said):
    DAMAGE[said](copied)

    with pytest.raises(SettingError) as raised:
        engine.prepare(Diffusers(folder=copied))

    assert re.match(f"diffusers: {copied}.*{said}", str(raised.value))
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"device": "cuda:99"}, "device cuda:99: "),
        ({"device": "nonsense"}, "device nonsense: RuntimeError: "),
        ({"extra": {"clip_skipp": 2}}, "extra: StableDiffusionPipeline takes no clip_skipp"),
        ({"variant": "fp16"}, "variant=fp16"),
    ],
)
def test_options_that_do_not_fit_stop_the_worker(options, change, said):
    with pytest.raises(SettingError, match=said):
        engine.prepare(options.model_copy(update=change))


def test_a_broken_folder_is_no_news_of_the_job(copied):
    cut(copied)

    with pytest.raises(PermanentError) as raised:
        draw(Diffusers(folder=copied))

    assert raised.value.code == "engine_unavailable"


def test_check_says_what_runs_where_and_loads_nothing(copied, torch):
    device, *name = engine.describe_device(engine.find_device("auto")).split(" ", 1)

    offers = engine.check(Diffusers(folder=copied, dtype="float32"))

    assert offers == ["StableDiffusionPipeline", " ".join([device, *name]), "float32"]
    cut(copied)
    with pytest.raises(PermanentError, match="damaged or cut short"):
        engine.check(Diffusers(folder=copied))


@pytest.mark.parametrize(
    ("device", "stored", "expected"),
    [
        ("cpu", "bfloat16", "float32"),
        ("cuda", "float32", "float16"),
        ("cuda", "bfloat16", "bfloat16"),
    ],
)
def test_the_dtype_suits_the_device_and_the_weights(torch, tmp_path, device, stored, expected):
    from safetensors.torch import save_file

    (tmp_path / "unet").mkdir()
    weights = {"a": torch.zeros(1), "b": torch.zeros(64, dtype=getattr(torch, stored))}
    save_file(weights, tmp_path / "unet/model.safetensors")

    assert engine.choose_dtype("auto", torch.device(device), tmp_path) == expected


# -- Without torch ------------------------------------------------------------------------------


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """Options on a machine without torch."""
    monkeypatch.setitem(sys.modules, "torch", None)
    return Diffusers(folder=tmp_path)


def test_without_torch_the_worker_names_the_requirements_file(bare):
    with pytest.raises(
        SettingError, match=r"diffusers: torch.* requirements-gpu\.txt is not installed"
    ):
        engine.prepare(bare)


@pytest.mark.parametrize("call", [engine.check, draw])
def test_without_torch_the_engine_is_unavailable(bare, call):
    with pytest.raises(PermanentError, match=r"requirements-gpu\.txt is not installed") as raised:
        call(bare)

    assert raised.value.code == "engine_unavailable"


def test_a_worker_ends_with_the_line_alone(tmp_path):
    (tmp_path / "models.toml").write_text(
        block(PAGES[0], "toml").replace("/srv/models/sdxl", "nowhere")
    )
    environment = clean_environment(
        DATA_DIR=str(tmp_path), MODELS_FILE=str(tmp_path / "models.toml")
    )

    done = subprocess.run(
        [sys.executable, "worker.py"], cwd=ROOT, env=environment, capture_output=True, text=True
    )

    assert (done.returncode, done.stderr.count("\n")) == (os.EX_CONFIG, 1)
    assert done.stderr.startswith("diffusers: ")


# -- The documentation --------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=["English", "Chinese"])
def test_the_documented_section_is_valid(page, tmp_path):
    (tmp_path / "models.toml").write_text(block(page, "toml"))

    model = catalog.load(tmp_path / "models.toml")["sdxl"]

    assert (model.options.folder, model.options.device) == (Path("/srv/models/sdxl"), "cuda")


def test_both_languages_show_the_same_code():
    english, chinese = (
        re.findall(r"```(?:python|toml|sh)\n.*?```", page.read_text(), re.DOTALL) for page in PAGES
    )

    assert english == chinese


# -- Pictures that come with the prompt ---------------------------------------------------------


def drawn(options, **changes):
    given = {"width": 64, "height": 64, "steps": 4, "seed": 7, "options": options, **changes}
    return Image.open(io.BytesIO(engine.make(ImageRequest("a fox", **given)).data))


def distance(first, second):
    return sum(ImageStat.Stat(ImageChops.difference(first, second)).mean)


def test_a_picture_changes_the_result_and_the_same_gives_the_same(options):
    red, again, blue, none = (
        drawn(options, images=images, strength=0.5).tobytes()
        for images in ((plain("red"),), (plain("red"),), (plain("blue"),), ())
    )

    assert red == again and len({red, blue, none}) == 3


def test_strength_says_how_far_from_the_picture(options):
    images = (encoded(noise((64, 64))),)

    weak, strong = (drawn(options, images=images, strength=strength) for strength in (0.25, 1.0))

    assert distance(weak, strong) > 0


@pytest.mark.parametrize("strength", [0.0, 0.001, None])
def test_there_is_at_least_one_step(options, strength):
    assert drawn(options, images=(plain("red"),), strength=strength).size == (64, 64)


def test_what_the_mask_covers_stays_as_it_is(options):
    image = noise((64, 64))
    box = (16, 16, 48, 48)

    result = drawn(options, images=(encoded(image),), mask=hole((64, 64), box))

    inside = distance(result.crop(box), image.crop(box))
    result.paste(image.crop(box), box)
    assert inside > 10 and distance(result, image) == 0


def test_a_size_is_snapped_with_a_picture(options):
    result = drawn(options, images=(plain("red", (90, 30)),), width=67, height=61)

    assert result.size == (64, 64)


def test_progress_goes_on_with_a_picture(options):
    heard = []

    engine.make(
        ImageRequest(
            "x", width=64, height=64, steps=4, options=options, images=(plain("red"),), strength=0.5
        ),
        lambda done, total: heard.append((done, total)),
    )

    assert heard[-1] == (2, 2)


def offer(options, **images):
    table = {"name": "x", "label": "X", "engine": "diffusers", "images": images}
    table |= {side: {"min": 8, "max": 64, "default": 64} for side in ("width", "height")}
    return catalog.Model(**table, options=options.model_dump())


def test_what_the_pipeline_takes_is_checked_at_the_start(options):
    strength = {"min": 0, "max": 1, "default": 0.5}
    engines.prepare(offer(options, mask=True, strength=strength))

    with pytest.raises(SettingError, match=r"images\.max"):
        engines.prepare(offer(options, max=2))


def test_a_pipeline_without_a_kind_for_pictures_stops_the_worker(options, monkeypatch):
    class Other:
        from_pipe = staticmethod(lambda pipeline: 1 / 0)

    engine.load_for_pictures.cache_clear()
    monkeypatch.setattr(engine.import_diffusers(), "AutoPipelineForInpainting", Other)

    with pytest.raises(SettingError, match="no pipeline for mask"):
        engines.prepare(offer(options, mask=True))
