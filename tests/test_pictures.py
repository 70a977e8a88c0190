import io

import pytest
from PIL import Image

from files import pictures
from tests.pictures import animation, opened, photo_with_gps, picture, png_bomb


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
