"""What becomes of an engine's bytes: checked, kept or turned into PNG, described, labelled."""

import io
import json
import re
import struct
import zlib
from xml.etree import ElementTree

import pytest
from PIL import Image

from engines import GeneratedImage, painter
from files import metadata
from images import results
from tests.pictures import (
    animation,
    label_of,
    opened,
    photo_with_gps,
    picture,
    png_bomb,
    png_chunk,
    png_with,
    stripped,
    with_text,
)
from tests.servers import ROOT

PROMPT = "一只狐狸 a fox"


@pytest.fixture
def made(alice, monkeypatch):
    """Let the engine give these bytes; return (bytes of the stored image, its record)."""

    def make(data: bytes | None = None, params: dict | None = None, **body):
        if data is not None:
            generated = GeneratedImage(data, params or {})
            monkeypatch.setattr(painter, "make", lambda request, on_progress: generated)
        small = {"width": 64, "height": 64, "steps": 1, "seed": 7}
        alice.post("/api/v1/images/generate", json={"prompt": PROMPT, **small, **body})
        work()
        record = alice.history()["records"][0]
        return (alice.get(record["imageUrl"]).data if record["imageUrl"] else b""), record

    return make


def work() -> None:
    from images import jobs

    while job := jobs.acquire(["test_model"]):
        jobs.run(job)


def test_an_image_says_how_it_was_made(made):
    data, _ = made(negative_prompt="rain")

    assert opened(data).text == {
        "parameters": f"{PROMPT}\nNegative prompt: rain\nSteps: 1, Seed: 7, Size: 64x64,"
        " Model: test_model_v1, Version: image-generator-backend"
    }


@pytest.mark.parametrize(
    ("setting", "wanted", "says"), [(True, False, False), (False, None, False), (False, True, True)]
)
def test_an_image_says_nothing_if_it_should_not(made, settings, setting, wanted, says):
    settings.EMBED_METADATA = setting

    data, _ = made(**({} if wanted is None else {"embed_metadata": wanted}))

    assert ("parameters" in opened(data).text) == says and (b"fox" in data) == says


def test_what_an_engine_wrote_goes_too_if_nothing_is_to_be_said(made):
    given = with_text(picture(), {"parameters": PROMPT})

    data, _ = made(given, embed_metadata=False)

    assert opened(data).text == {}


@pytest.mark.parametrize(("kind", "extension"), [("PNG", "png"), ("JPEG", "jpg"), ("WEBP", "webp")])
def test_common_formats_keep_their_bytes(made, settings, kind, extension):
    settings.EMBED_METADATA = False
    given = picture(kind)

    data, record = made(given)

    assert data == stripped(given)
    assert record["imageUrl"].endswith(f".{extension}")
    assert (record["width"], record["height"], record["params"]["width"]) == (40, 30, 40)


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "AVIF"])
def test_other_formats_become_png(made, kind):
    data, record = made(picture(kind))

    assert opened(data).format == "PNG" and record["imageUrl"].endswith(".png")


def test_a_picture_that_lies_on_its_side_is_turned(made):
    data, record = made(photo_with_gps())

    assert (record["width"], record["height"]) == opened(data).size == (20, 40)
    assert b"SecretCamera" not in data


@pytest.mark.parametrize(
    "given",
    [b"", b"<html>busy</html>", picture()[:-40], png_bomb(), picture("WEBP")[:60], b"GIF89a"],
)
def test_what_is_no_picture_fails_with_a_reason(made, given):
    _, record = made(given)

    assert (record["status"], record["errorCode"]) == ("failed", "bad_picture")


def test_a_picture_only_a_decoder_understands_is_written_anew(made):
    data, _ = made(picture()[:-12])  # Pillow does without an IEND

    assert opened(data).text["parameters"].startswith(PROMPT)


def test_signed_pictures_keep_every_byte(made):
    given = picture()
    credential = b"caBXjumb"
    given = (
        given[:33]
        + struct.pack(">I", 4)
        + credential
        + struct.pack(">I", zlib.crc32(credential))
        + given[33:]
    )

    data, _ = made(given)

    assert data == given


def test_what_was_really_used_is_recorded(made):
    data, record = made(picture(), {"seed": 99, "revised_prompt": "half \ud83d a character"})

    assert (
        record["params"]["seed"] == 99
        and record["params"]["revised_prompt"] == "half ? a character"
    )
    assert "Seed: 99, Size: 40x30" in opened(data).text["parameters"]


def test_a_retry_asks_for_what_was_asked_for(made, alice):
    _, record = made(picture(size=(72, 56)), {"seed": 2**40, "sampler": "other"})

    again = alice.post(f"/api/v1/images/{record['id']}/retry").json["data"]["records"][0]

    assert record["params"]["requested"] == {"seed": 7, "width": 64, "height": 64}
    assert (again["params"]["seed"], again["width"], again["height"]) == (7, 64, 64)


@pytest.mark.parametrize("odd", [None, 0, "false", {}])
def test_only_true_and_false_say_whether_to_embed(alice, odd):
    image = alice.generate(embed_metadata=odd).json["data"]["imageUrl"]

    assert "parameters" in opened(alice.get(image).data).text


# -- Texts of engines ---------------------------------------------------------------------------

WORKFLOW = {"prompt": '{"3": {"class_type": "KSampler"}}', "workflow": '{"nodes": []}'}


def test_texts_of_comfyui_stay_beside_ours(made, alice):
    data, record = made(with_text(picture(), WORKFLOW))

    texts = opened(data).text
    assert {name: texts[name] for name in WORKFLOW} == WORKFLOW
    assert texts["parameters"].startswith(PROMPT)
    assert opened(alice.get(record["imageUrl"] + "?metadata=strip").data).text == {}


def test_parameters_that_an_engine_wrote_stay(made):
    theirs = "a fox\nSteps: 20, Sampler: Euler a, Seed: 7, Version: v1.10.1"

    data, _ = made(with_text(picture(), {"parameters": theirs}))

    assert opened(data).text == {"parameters": theirs}


def test_parameters_are_read_as_readers_of_them_do(made):
    data, _ = made(picture(), {"sampler": 'DPM++ 2M, "Karras"', "guidance": 7.5})

    last = opened(data).text["parameters"].splitlines()[-1]
    # The expression of AUTOMATIC1111's WebUI.
    found = re.findall(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)', last)
    assert dict(found) == {
        "Steps": "1",
        "Sampler": r'"DPM++ 2M, \"Karras\""',
        "CFG scale": "7.5",
        "Seed": "7",
        "Size": "40x30",
        "Model": "test_model_v1",
        "Version": "image-generator-backend",
    }


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (b"zTXt", b"workflow\0\0" + zlib.compress(bytes(2_000_000))),
        (b"iTXt", b"workflow\0\1\0\0\0" + zlib.compress(bytes(2_000_000))),
        (b"zTXt", b"a\0\x09broken"),
        (b"iCCP", b"a\0\0" + zlib.compress(bytes(2_000_000))),
        (b"gAMA", b"\1"),
    ],
)
def test_a_text_that_readers_stumble_over_is_left_out(made, kind, body):
    data, _ = made(png_with(picture(), {b"tEXt": b"b\0stays", kind: body}))

    assert opened(data).text.keys() == {"b", "parameters"}
    assert kind not in data or kind == b"iTXt"


@pytest.mark.parametrize("segment", [b"\xff\xe0\0\7JFIF\0", b"\xff\xee\0\7Adobe"])
def test_a_segment_that_readers_fail_at_is_left_out(made, segment):
    given = picture("JPEG")

    data, _ = made(given[:2] + segment + given[2:])

    assert opened(data).size == (40, 30)
    assert segment not in data


def test_so_many_texts_that_readers_stumble_over_them_are_left_out(made):
    text = png_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1_000_000)))

    data, _ = made(picture()[:33] + text * 80 + picture()[33:])

    assert "parameters" in opened(data).text


# -- Unusual forms ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF", "AVIF"])
def test_moving_results_keep_moving(made, kind):
    data, record = made(animation(kind))

    assert record["status"] == "completed"
    assert Image.open(io.BytesIO(data)).n_frames == 3


def test_a_moving_result_that_is_cut_becomes_its_first_frame(made):
    data, record = made(animation("GIF", frames=5)[:-40])

    assert (record["status"], opened(data).n_frames) == ("completed", 1)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "GIF", "JPEG", "AVIF", "WEBP"])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "F", "LAB"])
def test_no_mode_costs_a_result(made, kind, mode):
    try:
        given = picture(kind, mode=mode)
    except (OSError, ValueError, KeyError, RuntimeError):
        return  # the format has no such mode

    data, record = made(given)

    assert (record["status"], opened(data).size) == ("completed", (40, 30))


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "GIF"])
def test_thumbnails_keep_transparency(made, alice, kind):
    image = Image.new("RGBA", (900, 700), (0, 0, 0, 0))
    image.paste("red", (0, 0, 450, 700))
    output = io.BytesIO()
    image.save(output, kind)

    data, record = made(output.getvalue())

    for shown in (opened(data), opened(alice.get(record["thumbnailUrl"]).data)):
        alpha = shown.convert("RGBA").getchannel("A")
        assert (alpha.getpixel((10, 10)), alpha.getpixel((alpha.width - 10, 10))) == (255, 0)


def test_an_upscaled_result_is_kept(made):
    data, record = made(picture("PNG", (6144, 4096), "1"))

    assert (record["status"], record["width"], opened(data).size) == (
        "completed",
        6144,
        (6144, 4096),
    )


def test_a_result_of_too_many_pixels_fails_undecoded(made, settings):
    settings.MAX_RESULT_PIXELS = 1_000_000

    _, record = made(png_bomb(1001, 1000))

    assert (record["status"], record["errorCode"]) == ("failed", "bad_picture")


def test_a_jpeg_without_its_end_is_kept_with_one(made):
    data, record = made(picture("JPEG")[:-2])

    assert record["status"] == "completed" and data.endswith(b"\xff\xd9")


# -- The label of AI-made content ---------------------------------------------------------------


@pytest.fixture
def producer(settings):
    settings.AIGC_PRODUCER, settings.AIGC_LABEL = "91310000MA1FL0000X", True


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_image_and_thumbnail_are_labelled(made, alice, producer, kind):
    data, record = made(picture(kind))

    label = label_of(data)
    assert list(label) == [
        "Label",
        "ContentProducer",
        "ProduceID",
        "ReservedCode1",
        "ContentPropagator",
        "PropagateID",
        "ReservedCode2",
    ]
    assert (label["Label"], label["ContentProducer"], label["ProduceID"]) == (
        "1",
        "91310000MA1FL0000X",
        str(record["id"]),
    )
    assert label_of(alice.get(record["thumbnailUrl"]).data) == label


def test_the_label_is_where_readers_of_xmp_look(made, producer):
    data, _ = made()

    xmp = ElementTree.fromstring(opened(data).info["xmp"].strip(b"\0"))
    label = xmp.find(".//{http://www.tc260.org.cn/ns/AIGC/1.0/}AIGC").text
    assert json.loads(label)["Label"] == "1" and b"<TC260:AIGC>" in data


def test_without_a_producer_there_is_no_label(made):
    data, _ = made()

    assert label_of(data) is None


# -- ?metadata=strip ----------------------------------------------------------------------------


def test_a_download_without_metadata_keeps_the_label_and_the_pixels(made, alice, producer):
    data, record = made()

    bare = alice.get(record["imageUrl"] + "?metadata=strip")

    assert (bare.status_code, bare.mimetype) == (200, "image/png")
    assert (
        opened(data).text["parameters"].startswith(PROMPT)
        and PROMPT.encode() not in bare.data
        and b"fox" not in bare.data
    )
    assert label_of(bare.data) == label_of(data)
    assert opened(bare.data).tobytes() == opened(data).tobytes()


def test_a_signed_link_can_be_stripped_too(made, client):
    _, record = made()

    bare = client.get(record["signedImageUrl"] + "&metadata=strip")

    assert bare.status_code == 200 and not opened(bare.data).text


def test_a_stripped_download_can_be_cached(made, alice):
    _, record = made()
    first = alice.get(record["imageUrl"] + "?metadata=strip")

    again = alice.get(
        record["imageUrl"] + "?metadata=strip", headers={"If-None-Match": first.headers["ETag"]}
    )

    assert again.status_code == 304 and first.headers["Cache-Control"].startswith("private")


def test_only_strip_can_be_asked_for(made, alice, bob):
    _, record = made()

    assert alice.get(record["imageUrl"] + "?metadata=keep").json["fields"].keys() == {"metadata"}
    assert bob.get(record["imageUrl"] + "?metadata=strip").status_code == 403


def test_a_file_of_another_kind_is_not_stripped(made, alice, settings):
    _, record = made()
    image = settings.uploads_dir / record["imageUrl"].removeprefix("/api/uploads/")
    Image.new("RGB", (4, 4)).save(image, "GIF")

    assert alice.get(record["imageUrl"] + "?metadata=strip").status_code == 400


def test_what_was_not_used_is_recorded_as_asked_for_alone():
    asked = {"seed": 7, "sampler": "Euler", "steps": 20, "requested": {"model": "x"}}

    recorded = results.with_facts(asked, {"sampler": None, "steps": 4, "seed": None, "style": None})

    assert recorded == {
        "seed": None,
        "steps": 4,
        "requested": {"model": "x", "sampler": "Euler", "steps": 20, "seed": 7},
    }


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_other_formats_say_it_in_their_exif_data(made, kind):
    given = picture(kind)

    data, _ = made(given)

    text = metadata.parse(data).text("parameters")
    assert (
        text.startswith(f"{PROMPT}\nSteps: 1, Seed: 7, Size: ") and "Model: test_model_v1" in text
    )
    assert opened(data).tobytes() == opened(given).tobytes()


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_other_formats_say_nothing_if_they_should_not(made, kind):
    data, _ = made(picture(kind), embed_metadata=False)

    assert metadata.parse(data).text("parameters") == ""


def test_what_an_engine_wrote_into_exif_data_stays(made):
    theirs = metadata.parse(picture("JPEG"))
    theirs.put_texts({"parameters": "somebody else's words"})

    data, _ = made(theirs.to_bytes())

    assert metadata.parse(data).text("parameters") == "somebody else's words"


def test_a_seed_that_would_be_refused_is_not_shown(made, settings, tmp_path):
    settings.MODELS_FILE = tmp_path / "models.toml"
    text = (ROOT / "models.toml").read_text()
    settings.MODELS_FILE.write_text(text.replace("[test_model]", "[test_model]\nseed_max = 1000"))

    _, record = made(picture(), params={"seed": 4000})

    assert record["params"]["seed"] is None
    assert record["params"]["requested"]["seed"] == 7
