import io
import random
import struct
import zlib

import pytest
from PIL import Image

from files import pictures
from tests.pictures import (
    animation,
    jpeg_with,
    opened,
    photo_with_gps,
    picture,
    png_bomb,
    png_chunk,
    png_with,
)


def problem(data: bytes) -> str:
    with pytest.raises(pictures.BadPicture) as refused:
        pictures.make_avatar(data)
    return refused.value.fields["avatar"][0]


@pytest.mark.parametrize(
    ("kind", "extension"), [("PNG", "png"), ("JPEG", "jpg"), ("GIF", "gif"), ("WEBP", "webp")]
)
def test_each_promised_format_is_taken_and_kept(kind, extension):
    result = pictures.make_avatar(picture(kind))

    assert (opened(result.data).format, result.extension) == (kind, extension)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16"])
def test_every_kind_of_png_is_taken(mode):
    result = pictures.make_avatar(picture("PNG", mode=mode))

    assert opened(result.data).mode in ("RGB", "RGBA")


def test_sixteen_bit_grey_keeps_its_brightness():
    grey = Image.new("I;16", (20, 20), 32768)
    output = io.BytesIO()
    grey.save(output, format="PNG")

    pixel = opened(pictures.make_avatar(output.getvalue()).data).getpixel((5, 5))

    assert 120 <= pixel[0] <= 136


def test_a_cmyk_photograph_is_taken():
    assert opened(pictures.make_avatar(picture("JPEG", mode="CMYK")).data).mode == "RGB"


def test_transparency_is_kept():
    clear = Image.new("RGBA", (20, 20), (255, 0, 0, 0))
    output = io.BytesIO()
    clear.save(output, format="PNG")

    assert opened(pictures.make_avatar(output.getvalue()).data).getpixel((5, 5))[3] == 0


@pytest.mark.parametrize(
    ("size", "expected"),
    [((3000, 1500), (512, 256)), ((100, 2000), (26, 512)), ((10, 10), (10, 10))],
)
def test_a_large_picture_is_made_small_and_a_small_one_stays(size, expected):
    assert opened(pictures.make_avatar(picture("JPEG", size)).data).size == expected


def test_orientation_is_applied_and_metadata_removed():
    result = pictures.make_avatar(photo_with_gps())

    assert opened(result.data).size == (20, 40)
    assert b"Exif" not in result.data and b"SecretCamera" not in result.data


def test_comments_and_text_are_removed():
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("Comment", "a secret")

    assert b"secret" not in pictures.make_avatar(picture("PNG", pnginfo=info)).data
    assert b"secret" not in pictures.make_avatar(picture("GIF", comment=b"a secret")).data


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_a_small_animation_keeps_moving(kind):
    result = opened(pictures.make_avatar(animation(kind, frames=4)).data)

    assert (result.format, result.n_frames) == (kind, 4)
    assert result.info["duration"] == 80


def test_a_large_animation_is_made_small():
    result = opened(pictures.make_avatar(animation("GIF", frames=3, size=(1000, 500))).data)

    assert (result.size, result.n_frames) == ((512, 256), 3)


def test_an_endless_animation_becomes_its_first_picture():
    result = opened(
        pictures.make_avatar(
            animation("GIF", frames=pictures.MAX_ANIMATION_FRAMES + 1, size=(8, 8))
        ).data
    )

    assert result.n_frames == 1


def test_a_pixel_bomb_is_refused_before_it_is_decoded(monkeypatch):
    monkeypatch.setattr(Image.Image, "load", lambda image: pytest.fail("the bomb was decoded"))
    monkeypatch.setattr(
        "PIL.ImageFile.ImageFile.load", lambda image: pytest.fail("the bomb was decoded")
    )

    assert problem(png_bomb(30_000, 30_000)) == "picture_pixels"
    assert problem(png_bomb(6_000, 6_000)) == "picture_pixels"


@pytest.mark.parametrize("kind", ["BMP", "TIFF", "ICO", "PPM", "TGA"])
def test_other_formats_are_refused(kind):
    assert problem(picture(kind)) == "picture_format"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GIF89a",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff\xe0",
        b"RIFF\x10\0\0\0WEBPVP8 ",
        b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>",
        b"<?php system($_GET['c']); ?>",
        b"%PDF-1.7",
        b"\0" * 1000,
    ],
)
def test_what_is_no_picture_is_refused(data):
    assert problem(data) in ("picture_format", "picture_broken")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_file_cut_short_is_refused(kind, share):
    noise = Image.effect_noise((300, 300), 80).convert("RGB")
    output = io.BytesIO()
    noise.save(output, format=kind)

    assert problem(output.getvalue()[: int(len(output.getvalue()) * share)]) in (
        "picture_broken",
        "picture_format",
    )


def test_a_script_hidden_behind_a_picture_is_gone():
    result = pictures.make_avatar(picture("PNG") + b"<?php evil(); ?>")

    assert b"php" not in result.data


def test_too_large_a_file_is_refused():
    assert problem(b"\x89PNG" + b"\0" * pictures.AVATAR_BYTES) == "avatar_too_large"


def test_a_phones_double_picture_is_taken_as_a_photograph():
    first, second = Image.new("RGB", (40, 30), "red"), Image.new("RGB", (40, 30), "blue")
    output = io.BytesIO()
    first.save(output, format="MPO", save_all=True, append_images=[second])

    assert pictures.make_avatar(output.getvalue()).extension == "jpg"


# -- Large pictures -----------------------------------------------------------------------------


def noise(size: tuple[int, int], mode: str = "RGB", seed: int = 1) -> Image.Image:
    count = size[0] * size[1] * len(mode)
    return Image.frombytes(mode, size, random.Random(seed).randbytes(count))


def saved(image: Image.Image, kind: str, **options) -> bytes:
    output = io.BytesIO()
    image.save(output, format=kind, **options)
    return output.getvalue()


@pytest.mark.parametrize("size", [(8064, 6048), (12_000, 4000)])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_large_photograph_is_taken(size, progressive):
    exif = Image.Exif()
    exif[0x0112] = 6
    data = picture("JPEG", size, exif=exif, progressive=progressive)

    avatar = opened(pictures.make_avatar(data).data)

    assert avatar.size == (round(512 * size[1] / size[0]), 512)


@pytest.mark.parametrize(
    ("kind", "size"),
    [("PNG", (5001, 5000)), ("GIF", (5001, 5000)), ("WEBP", (3550, 3550)), ("JPEG", (10_100,) * 2)],
)
def test_more_pixels_than_memory_allows_are_refused_unseen(monkeypatch, kind, size):
    data = picture(kind, size, mode="L" if kind != "WEBP" else "RGB")
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda image: pytest.fail("decoded"))
    monkeypatch.setattr("PIL.Image.open", lambda *_, **options: pytest.fail("opened"))

    assert problem(data) == "picture_pixels"
    with pytest.raises(pictures.BadPicture):
        pictures.check_avatar(data)


def test_a_gif_whose_frames_grow_is_refused_unseen(monkeypatch):
    monkeypatch.setattr("PIL.Image.open", lambda *_, **options: pytest.fail("opened"))
    small, large = (
        b"\x2c" + struct.pack("<4HB", 0, 0, side, side, 0) + b"\x02\x02\x44\x01\0"
        for side in (1, 13_000)
    )

    assert problem(b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0, 0, 0) + small + large + b";") == (
        "picture_pixels"
    )


def test_a_jpeg_of_endless_scans_is_refused():
    data = picture("JPEG", (3000, 3000), progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]

    assert problem(data[:-2] + last * 200 + data[-2:]) == "picture_pixels"


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_a_large_picture_looks_the_same_in_strips(mode):
    image = Image.linear_gradient("L").resize((2100, 3000))
    data = saved(image if mode == "I;16" else image.convert(mode), "PNG")
    if mode == "I;16":
        data = saved(image.convert("I").point(lambda level: level * 257).convert(mode), "PNG")

    avatar = opened(pictures.make_avatar(data).data).convert("L")

    assert avatar.size == (358, 512)
    for share in (0.1, 0.5, 0.9):
        assert abs(avatar.resize((1, 512)).getpixel((0, int(512 * share))) - 255 * share) < 20


def test_a_line_of_one_pixel_is_taken():
    assert opened(pictures.make_avatar(picture("PNG", (1, 20_000))).data).size == (1, 512)


@pytest.mark.parametrize("kind", ["PNG", "GIF", "WEBP"])
def test_a_stored_animation_has_at_most_a_megabyte(kind):
    images = [noise((360, 360), seed=seed) for seed in range(12)]
    data = saved(images[0], kind, save_all=True, append_images=images[1:], quality=60)

    result = pictures.make_avatar(data)

    assert len(result.data) <= 1_000_000
    assert (opened(result.data).format, opened(result.data).n_frames) == (kind, 12)


def test_a_stored_still_picture_has_at_most_a_megabyte():
    data = saved(noise((520, 520), "RGBA"), "PNG")

    assert len(pictures.make_avatar(data).data) <= 1_000_000


@pytest.mark.parametrize("kind", ["PNG", "GIF", "WEBP"])
def test_an_animation_of_too_many_pixels_becomes_its_first_picture(kind):
    result = opened(pictures.make_avatar(animation(kind, 6, (1000, 900))).data)

    assert result.n_frames == 1
    assert result.convert("RGB").getpixel((9, 9))[0] < 10


# -- Animations ---------------------------------------------------------------------------------


def moving(kind: str, **options) -> bytes:
    red, blue, green = (Image.new("RGB", (40, 30), name) for name in ("red", "blue", "lime"))
    return saved(red, kind, save_all=True, append_images=[blue, green], **options)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
@pytest.mark.parametrize("times", [0, 1, 3])
def test_an_animation_plays_as_often_as_before(kind, times):
    result = pictures.make_avatar(moving(kind, loop=times, duration=80))

    assert opened(result.data).info["loop"] == times


def test_a_gif_that_does_not_say_how_often_plays_once():
    result = pictures.make_avatar(moving("GIF", duration=80))

    assert "loop" not in opened(result.data).info and b"NETSCAPE" not in result.data


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_each_frame_is_shown_as_long_as_before(kind):
    durations = [0, 250, 90]

    image = Image.open(
        io.BytesIO(pictures.make_avatar(moving(kind, duration=durations, loop=0)).data)
    )

    seen = []
    for index in range(3):
        image.seek(index)
        image.load()
        seen.append(image.info.get("duration", 0))
    assert seen == durations


def test_the_hidden_picture_of_a_png_is_no_frame():
    data = moving("PNG", default_image=True, duration=80, loop=2)

    avatar = opened(pictures.make_avatar(data).data)
    thumbnail = opened(pictures.check_generated(data).thumbnail)

    assert (avatar.n_frames, avatar.info["loop"]) == (2, 2)
    assert avatar.convert("RGB").getpixel((5, 5)) == (0, 0, 255)
    assert thumbnail.convert("RGB").getpixel((5, 5))[2] > 200


def test_of_a_hidden_picture_and_one_frame_the_frame_is_left():
    hidden, only = Image.new("RGB", (40, 30), "red"), Image.new("RGB", (40, 30), "blue")
    data = saved(hidden, "PNG", save_all=True, append_images=[only], default_image=True)

    assert opened(pictures.make_avatar(data).data).getpixel((5, 5)) == (0, 0, 255)


@pytest.mark.parametrize("times", [None, 0, 3])
def test_a_moving_gif_of_an_engine_becomes_a_moving_png(times):
    options = {} if times is None else {"loop": times}

    result = opened(pictures.check_generated(moving("GIF", duration=80, **options)).data)

    assert (result.format, result.n_frames, result.info["duration"]) == ("PNG", 3, 80)
    assert result.info["loop"] == (1 if times is None else times)


# -- Metadata that cannot be read ---------------------------------------------------------------

BOMB = zlib.compress(bytes(3_000_000))
UNREADABLE_PNG = [
    (b"zTXt", b"a\0\0" + BOMB),
    (b"zTXt", b"a\0\x07" + BOMB[:9]),
    (b"iTXt", b"a\0\1\0\0\0" + BOMB),
    (b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + BOMB),
    (b"tEXt", b"\xff\xff"),
    (b"tEXt", b"Raw profile type exif\0\nexif\n 99999999\nzz"),
    (b"zTXt", b"Raw profile type icc\0\0" + BOMB),
    (b"eXIf", b"Exif\0\0II*\0\xff\xff\xff\xff"),
    (b"eXIf", b"broken"),
    (b"iCCP", b"a\0\0" + BOMB),
    (b"iCCP", b"a\0\x09"),
    (b"pHYs", b"\1"),
    (b"gAMA", b""),
    (b"sRGB", b""),
    (b"acTL", b"\0\0\0\3"),
    (b"fcTL", b""),
]


@pytest.mark.parametrize(("kind", "body"), UNREADABLE_PNG)
def test_no_chunk_costs_a_png(kind, body):
    data = png_with(picture(), {kind: body})

    assert opened(pictures.make_avatar(data).data).size == (40, 30)
    assert pictures.check_generated(data).width == 40


def test_a_wrong_checksum_of_a_text_costs_nothing():
    data = png_with(picture(), {b"tEXt": b"a\0b"}).replace(b"a\0b", b"a\0c")

    assert opened(pictures.make_avatar(data).data).size == (40, 30)


@pytest.mark.parametrize(
    ("marker", "body"),
    [
        (0xE0, b"JFIF\0"),
        (0xE1, b"Exif\0\0broken"),
        (0xE1, b"Exif\0\0II*\0\xff\xff\xff\x7f"),
        (0xE1, b"http://ns.adobe.com/xap/1.0/\0<"),
        (0xE2, b"ICC_PROFILE\0\1\2"),
        (0xE2, b"MPF\0broken"),
        (0xED, b"Photoshop 3.0\08BIM\4\4\xff"),
        (0xEE, b"Adobe"),
        (0xFE, bytes(65_000)),
    ],
)
def test_no_segment_costs_a_jpeg(marker, body):
    data = jpeg_with(picture("JPEG"), marker, body)

    assert opened(pictures.make_avatar(data).data).size == (40, 30)
    assert pictures.check_generated(data).width == 40


@pytest.mark.parametrize("name", ["exif", "xmp", "icc_profile"])
def test_no_chunk_costs_a_webp(name):
    data = picture("WEBP", **{name: b"II*\0\xff\xff\xff\xff" * 9})

    assert opened(pictures.make_avatar(data).data).size == (40, 30)
    assert pictures.check_generated(data).width == 40


def test_no_comment_costs_a_gif():
    data = picture("GIF", comment=b"x" * 500)
    start = data.index(b"\x21\xfe")

    for block in (b"\x21\xfe\0", b"\x21\xff\2ab\0", b"\x21\xf9\1a\0", b"\0\0"):
        changed = data[:start] + block + data[start:]
        assert opened(pictures.make_avatar(changed).data).size == (40, 30)


def test_very_many_texts_cost_nothing():
    text = png_chunk(b"tEXt", b"a\0b")
    data = picture()

    assert pictures.make_avatar(data[:33] + text * 100_000 + data[33:]).extension == "png"


# -- Ends ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [b"", b"\xff", b"\0\0\0"])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_without_its_end_is_whole(end, progressive):
    whole = saved(noise((300, 300)), "JPEG", progressive=progressive)

    avatar = pictures.make_avatar(whole[:-2] + end)
    generated = pictures.check_generated(whole[:-2] + end)

    assert avatar == pictures.make_avatar(whole)
    assert generated.thumbnail == pictures.check_generated(whole).thumbnail


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}])
def test_no_picture_whose_lines_are_cut_is_taken(kind, options):
    whole = saved(noise((200, 200)), kind, **options)

    for cut in (40, 200, 1000, len(whole) // 2):
        assert problem(whole[:-cut]) == "picture_broken"
    with pytest.raises(pictures.BadPicture):
        pictures.check_generated(whole[:-200])


def test_a_jpeg_that_lacks_a_byte_of_its_lines_is_refused():
    whole = saved(noise((60, 45)), "JPEG")

    for cut in range(3, 80):
        assert problem(whole[:-cut]) == "picture_broken"


def test_a_jpeg_cut_between_two_lines_is_refused():
    whole = saved(noise((200, 200)), "JPEG", restart_marker_rows=1)
    last = max(whole.rindex(bytes([0xFF, 0xD0 + number])) for number in range(8))

    assert problem(whole[:last]) == "picture_broken"


@pytest.mark.parametrize("cut", [1, 4, 11, 12, 13, 16])
def test_a_png_without_its_end_is_whole(cut):
    whole = picture()

    assert pictures.make_avatar(whole[:-cut]) == pictures.make_avatar(whole)
    assert (
        pictures.check_generated(whole[:-cut]).thumbnail
        == pictures.check_generated(whole).thumbnail
    )
