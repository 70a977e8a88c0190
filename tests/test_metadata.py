import io
import json
import random
import struct
import time
import zlib
from functools import cache
from html import escape
from xml.etree import ElementTree

import pytest
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo

from files.metadata import parse
from tests.pictures import has_credentials, label_of, stripped, with_label, with_text

LABEL = {
    "Label": "1",
    "ContentProducer": "001191110000000000000X00000",
    "ProduceID": "a<b>&'c",
    "ReservedCode1": "",
}
OTHER = {"Label": "2", "ContentProducer": "somebody", "ProduceID": "7"}
SECRET = "a secret fox\nSteps: 20, Sampler: Euler"
TC260 = "http://www.tc260.org.cn/ns/AIGC/1.0/"
XMP = """<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">
<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><!-- </rdf:RDF> -->{}</rdf:RDF >
</x:xmpmeta><?xpacket end="w"?>"""
PROVIDER = XMP.format('<rdf:Description rdf:about="uuid:1" xmlns:dc="dc" dc:source="a provider"/>')
PLAIN = escape(json.dumps(OTHER))


def gradient(mode: str = "RGB") -> Image.Image:
    image = Image.linear_gradient("L").resize((41, 31))
    return Image.merge(mode, [image.rotate(90 * turn, expand=False) for turn in range(len(mode))])


def made(kind: str, mode: str = "RGB", **options) -> bytes:
    output = io.BytesIO()
    gradient(mode).save(output, format=kind, **options)
    return output.getvalue()


def moving(kind: str) -> bytes:
    return made(
        kind,
        "RGBA",
        save_all=True,
        append_images=[gradient("RGBA").rotate(9)],
        duration=80,
        lossless=True,
    )


@cache
def pictures() -> dict[str, bytes]:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = b"ASCII\0\0\0" + SECRET.encode()
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return {
        "png": made("PNG"),
        "png-alpha": made("PNG", "RGBA", exif=exif, dpi=(72, 72), icc_profile=profile),
        "png-animated": moving("PNG"),
        "jpeg": made("JPEG"),
        "jpeg-progressive": made(
            "JPEG", exif=exif, progressive=True, comment=SECRET, icc_profile=profile
        ),
        "jpeg-cmyk": made("JPEG", "CMYK", xmp=PROVIDER.encode()),
        "webp-lossy": made("WEBP"),
        "webp-lossless": made("WEBP", lossless=True),
        "webp-lossless-alpha": made("WEBP", "RGBA", lossless=True),
        "webp-alpha": made("WEBP", "RGBA", exif=exif),
        "webp-animated": moving("WEBP"),
        "webp-icc": made("WEBP", icc_profile=profile, exif=exif, xmp=PROVIDER.encode()),
    }


KINDS = [*pictures()]
every_kind = pytest.mark.parametrize("kind", KINDS)
OPERATIONS = {
    "with_text": lambda data: with_text(data, {"prompt": "狐狸"}),
    "with_label": lambda data: with_label(data, LABEL),
    "label_of": label_of,
    "stripped": stripped,
    "has_credentials": has_credentials,
}


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def frames(data: bytes) -> list[tuple]:
    """Return all that is seen: each frame's size, mode and pixels, and the colour profile."""
    image = Image.open(io.BytesIO(data))
    seen = []
    for index in range(getattr(image, "n_frames", 1)):
        image.seek(index)
        seen.append((image.size, image.mode, image.tobytes(), image.info.get("icc_profile")))
    return seen


def xmp_of(data: bytes) -> str:
    xmp = opened(data).info["xmp"]
    return xmp if isinstance(xmp, str) else xmp.decode()


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def with_chunk(data: bytes, name: bytes, body: bytes) -> bytes:
    """Put a chunk behind a PNG's header."""
    return data[:33] + chunk(name, body) + data[33:]


def with_segment(data: bytes, marker: bytes, body: bytes) -> bytes:
    """Put a segment behind a JPEG's first one."""
    at = 4 + int.from_bytes(data[4:6])
    return data[:at] + b"\xff" + marker + struct.pack(">H", len(body) + 2) + body + data[at:]


def with_riff_chunk(data: bytes, name: bytes, body: bytes) -> bytes:
    """Put a chunk at the end of a WebP."""
    added = name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)
    return data[:4] + struct.pack("<I", len(data) + len(added) - 8) + data[8:] + added


def with_xmp(kind: str, xmp: str) -> bytes:
    if kind == "png":
        return with_chunk(pictures()["png"], b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp.encode())
    if kind == "jpeg":
        return with_segment(
            pictures()["jpeg"], b"\xe1", b"http://ns.adobe.com/xap/1.0/\0" + xmp.encode()
        )
    return made("WEBP", xmp=xmp.encode())


def riff_chunks(data: bytes) -> list[bytes]:
    names, at = [], 12
    while at < len(data):
        names.append(data[at : at + 4])
        at += 8 + int.from_bytes(data[at + 4 : at + 8], "little")
        at += at % 2
    return names


# ---------------------------------------------------------------------------
# Texts
# ---------------------------------------------------------------------------
@pytest.mark.parametrize(
    "value", ["a fox", "café ü", "two\nlines", "一只狐狸", "🦊 fox", "tab\there", "", "x" * 70_000]
)
def test_text_is_read_back_by_others(value):
    data = with_text(pictures()["png"], {"prompt": value, "Software": "us"})

    assert opened(data).text == {"prompt": value, "Software": "us"}
    assert frames(data) == frames(pictures()["png"])


@pytest.mark.parametrize(
    ("value", "name"), [("café\nü", b"tEXt"), ("狐", b"iTXt"), ("a\x07b", b"iTXt")]
)
def test_plainest_chunk_stands_directly_before_the_pixels(value, name):
    data = with_text(pictures()["png"], {"prompt": value})

    assert data[data.index(b"prompt\0") - 4 :].startswith(name)
    added = len(data) - len(pictures()["png"])
    assert data.index(b"IDAT") - data.index(name) == added


def test_text_replaces_those_of_the_same_keyword():
    texts = PngInfo()
    texts.add_text("prompt", SECRET, zip=True)
    texts.add_itxt("prompt", SECRET)
    texts.add_text("prompts", "stays")

    data = with_text(made("PNG", pnginfo=texts), {"prompt": "a hen"})

    assert opened(data).text == {"prompt": "a hen", "prompts": "stays"}
    assert with_text(data, {"prompt": "a hen"}) == data


def test_what_is_no_text_gets_a_mark_instead():
    data = with_text(pictures()["png"], {"prompt": "a\0b \ud83d"})

    assert opened(data).text == {"prompt": "a?b ?"}


@pytest.mark.parametrize(
    "data", [made("GIF", "L"), pictures()["jpeg"], pictures()["webp-lossy"], b"", b"text"]
)
def test_text_leaves_other_formats_alone(data):
    assert with_text(data, {"prompt": "a fox"}) == data


# ---------------------------------------------------------------------------
# The label
# ---------------------------------------------------------------------------
@every_kind
def test_label_is_written_once_and_pixels_stay(kind):
    before = pictures()[kind]

    data = with_label(before, LABEL)

    assert label_of(before) is None
    assert label_of(data) == LABEL
    assert list(label_of(data)) == list(LABEL)
    assert frames(data) == frames(before)
    assert with_label(data, OTHER) == data


@every_kind
def test_other_readers_find_the_label_where_the_standard_has_it(kind):
    xmp = xmp_of(with_label(pictures()[kind], LABEL))

    found = ElementTree.fromstring(xmp).findall(f".//{{{TC260}}}AIGC")

    assert [element.text for element in found] == [json.dumps(LABEL, separators=(",", ":"))]


def test_plain_label_stands_in_the_bytes_as_plain_json():
    assert b'<TC260:AIGC>{"Label":"2","ContentProducer":"somebody",' in with_label(
        pictures()["webp-lossy"], OTHER
    )


@pytest.mark.parametrize(
    "label", [{"Label": "1", "ContentProducer": "北京🦊"}, {"Label": '"]]>\\{}\x01\ud83d'}]
)
@pytest.mark.parametrize("kind", ["png", "jpeg", "webp-lossy"])
def test_label_may_hold_any_character(kind, label):
    assert label_of(with_label(pictures()[kind], label)) == label


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_xmp_of_a_provider_is_kept_beside_the_label(kind):
    data = with_label(with_xmp(kind, PROVIDER), LABEL)

    found = ElementTree.fromstring(xmp_of(data))[0]
    assert [description.get("{dc}source") for description in found] == ["a provider", None]
    assert label_of(data) == LABEL
    for half in PROVIDER.split("</rdf:RDF >"):
        assert half.encode() in data


@pytest.mark.parametrize(
    "xmp",
    [
        "",
        "no XML",
        PROVIDER[:-60],
        "<rdf:RDF/>",
        '<!DOCTYPE x [<!ENTITY a "aa">]>' + PROVIDER,
        XMP.format(f'<rdf:Description xmlns:TC260="{TC260}" TC260:AIGC="[1]"/>'),
        XMP.format(f'<rdf:Description xmlns:TC260="{TC260}"><TC260:AIGC/></rdf:Description>'),
        XMP.format("<dc:x>" + "x" * 65_000 + "</dc:x>"),
    ],
)
def test_xmp_that_cannot_take_the_label_gives_way(xmp):
    data = with_label(with_xmp("jpeg", xmp), LABEL)

    assert label_of(data) == LABEL
    assert len(ElementTree.fromstring(xmp_of(data))[0]) == 1
    assert data.count(b"http://ns.adobe.com/xap/1.0/\0") == 1


@pytest.mark.parametrize(
    "body",
    [
        f'<rdf:Description xmlns:TC260="{TC260}"><TC260:AIGC>{PLAIN}</TC260:AIGC>'
        "</rdf:Description>",
        f'<rdf:Description xmlns:TC260="{TC260}">\n<TC260:AIGC>\n{json.dumps(OTHER)}\n</TC260:AIGC>'
        "</rdf:Description>",
        f'<a:b xmlns:TC260="{TC260}"><TC260:AIGC><![CDATA[{json.dumps(OTHER)}]]></TC260:AIGC>'
        "</a:b>",
        f'<rdf:Description xmlns:TC260="{TC260}" TC260:AIGC="{PLAIN}"/>',
        f"<rdf:Description xmlns:t='{TC260}' t:AIGC='{json.dumps(OTHER)}'/>",
        f'<rdf:Description xmlns:C260="{TC260}" TC260:AIGC="{PLAIN}"/>',
        f'<rdf:Description xmlns:TC260="{TC260}"'
        f' TC260:AIGC="{escape(json.dumps({"AIGC": OTHER}))}"/>',
    ],
)
@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_label_of_other_writers_is_read_and_not_written_again(kind, body):
    data = with_xmp(kind, XMP.format(body))

    assert label_of(data) == OTHER
    assert with_label(data, LABEL) == data
    assert label_of(stripped(data)) == OTHER


def test_label_outside_xmp_is_read_and_moved_there_by_stripping():
    plain, exif = (
        json.dumps(OTHER).encode(),
        b'II*\0ASCII\0\0\0{"AIGC": ' + json.dumps(OTHER).encode() + b"}\0",
    )
    files = [
        with_chunk(pictures()["png"], b"tEXt", b"AIGC\0" + plain),
        with_chunk(pictures()["png"], b"eXIf", exif),
        with_segment(pictures()["jpeg"], b"\xe1", b"Exif\0\0" + exif),
        with_riff_chunk(pictures()["webp-alpha"], b"EXIF", exif),
    ]

    # Of two EXIF chunks the first counts: the label in the second of the last file is ignored.
    assert [label_of(data) for data in files] == [OTHER, OTHER, OTHER, None]
    assert [label_of(stripped(data)) for data in files] == [OTHER, OTHER, OTHER, None]
    assert (
        ElementTree.fromstring(xmp_of(stripped(files[0]))).find(f".//{{{TC260}}}AIGC") is not None
    )


def test_xmp_in_a_compressed_or_old_text_chunk_is_merged_into_a_plain_one():
    packed = b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(PROVIDER.encode())
    files = [
        with_chunk(pictures()["png"], b"iTXt", packed),
        with_chunk(pictures()["png"], b"tEXt", b"XML:com.adobe.xmp\0" + PROVIDER.encode()),
        with_chunk(
            pictures()["png"], b"zTXt", b"XML:com.adobe.xmp\0\0" + zlib.compress(PROVIDER.encode())
        ),
    ]

    for data in [with_label(data, LABEL) for data in files]:
        assert "a provider" in xmp_of(data)
        assert label_of(data) == LABEL
        assert data.count(b"XML:com.adobe.xmp") == 1


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[1]", '"1"', "{", '{"Label": {"a": 1}}', "[" * 100_000, "9" * 9999, "{'a': 1}"],
)
def test_unreadable_label_is_none(text):
    xmp = XMP.format(f'<rdf:Description xmlns:TC260="{TC260}" TC260:AIGC="{escape(text)}"/>')

    assert (
        label_of(
            with_chunk(pictures()["png"], b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp.encode())
        )
        is None
    )
    assert label_of(with_chunk(pictures()["png"], b"tEXt", b"AIGC\0" + text.encode())) is None


def test_label_too_long_for_jpeg_is_refused():
    with pytest.raises(ValueError, match="too long"):
        with_label(pictures()["jpeg"], {"Label": "x" * 65_500})


def test_jpeg_keeps_jfif_and_exif_in_front_of_the_label():
    exif = with_segment(pictures()["jpeg"], b"\xe1", b"Exif\0\0II*\0\x08\0\0\0\0\0")

    data = with_label(exif, LABEL)

    assert (
        data.index(b"JFIF\0")
        < data.index(b"Exif\0")
        < data.index(b"http://ns.adobe.com")
        < data.index(b"\xff\xdb")
    )


@pytest.mark.parametrize(
    ("kind", "flags", "chunks"),
    [
        ("webp-lossy", 0x04, [b"VP8X", b"VP8 ", b"XMP "]),
        ("webp-lossless", 0x04, [b"VP8X", b"VP8L", b"XMP "]),
        ("webp-lossless-alpha", 0x14, [b"VP8X", b"VP8L", b"XMP "]),
        ("webp-alpha", 0x1C, [b"VP8X", b"ALPH", b"VP8 ", b"EXIF", b"XMP "]),
        ("webp-animated", 0x16, [b"VP8X", b"ANIM", b"ANMF", b"ANMF", b"XMP "]),
        ("webp-icc", 0x2C, [b"VP8X", b"ICCP", b"VP8 ", b"EXIF", b"XMP "]),
    ],
)
def test_webp_header_says_what_is_there_and_chunks_are_in_order(kind, flags, chunks):
    data = with_label(pictures()[kind], LABEL)

    assert riff_chunks(data) == chunks
    assert data[20] == flags
    assert data[24:30] == struct.pack("<HBHB", 40, 0, 30, 0)
    assert int.from_bytes(data[4:8], "little") == len(data) - 8
    assert stripped(data)[20] == flags & ~0x08


# ---------------------------------------------------------------------------
# Stripping
# ---------------------------------------------------------------------------
@every_kind
def test_stripped_picture_looks_the_same_and_tells_nothing(kind):
    data = stripped(pictures()[kind])

    assert frames(data) == frames(pictures()[kind])
    assert not {"exif", "xmp", "comment", "Software"} & set(opened(data).info)
    assert not any(word in data for word in (b"secret", b"a provider", b"Exif", b"xmpmeta"))
    assert stripped(data) == data


@every_kind
def test_label_survives_stripping_alone(kind):
    data = stripped(with_label(pictures()[kind], LABEL))

    assert label_of(data) == LABEL
    assert b"a provider" not in data and b"secret" not in data
    assert frames(data) == frames(pictures()[kind])
    assert stripped(data) == data == with_label(stripped(pictures()[kind]), LABEL)


@pytest.mark.parametrize(
    ("name", "body"),
    [
        (b"tEXt", b"parameters\0" + SECRET.encode()),
        (b"zTXt", b"parameters\0\0" + zlib.compress(SECRET.encode())),
        (b"iTXt", b"parameters\0\1\0\0\0" + zlib.compress(SECRET.encode())),
        (
            b"tEXt",
            b"prompt\0" + json.dumps({"3": {"class_type": "KSampler"}, "6": SECRET}).encode(),
        ),
        (b"iTXt", b"workflow\0\0\0\0\0" + json.dumps({"nodes": [SECRET]}).encode()),
        (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP.format(SECRET).encode()),
        (b"eXIf", b"II*\0" + SECRET.encode()),
        (b"tIME", b"\x07\xea\1\1\1\1\1"),
        (b"prVt", SECRET.encode()),
    ],
)
def test_stripped_png_lost_the_chunk_whole(name, body):
    data = stripped(with_chunk(pictures()["png"], name, body))

    assert data == stripped(pictures()["png"])
    assert name not in data


@pytest.mark.parametrize(
    ("marker", "body"),
    [
        (b"\xe1", b"Exif\0\0II*\0" + SECRET.encode()),
        (b"\xe1", b"http://ns.adobe.com/xap/1.0/\0" + XMP.format(SECRET).encode()),
        (b"\xe1", b"http://ns.adobe.com/xmp/extension/\0" + SECRET.encode()),
        (b"\xe2", b"MPF\0" + SECRET.encode()),
        (b"\xed", b"Photoshop 3.0\x008BIM" + SECRET.encode()),
        (b"\xec", b"Ducky" + SECRET.encode()),
        (b"\xfe", SECRET.encode()),
    ],
)
def test_stripped_jpeg_lost_the_segment_whole(marker, body):
    assert stripped(with_segment(pictures()["jpeg"], marker, body)) == stripped(pictures()["jpeg"])


def test_bytes_between_the_segments_of_a_jpeg_go_too():
    plain = stripped(pictures()["jpeg"])

    assert stripped(plain[:20] + SECRET.encode() + plain[20:]) == plain


def test_comment_between_the_scans_of_a_jpeg_goes_too():
    progressive = pictures()["jpeg-progressive"]
    at = progressive.rindex(b"\xff\xda")
    data = progressive[:at] + b"\xff\xfe\0\x0esecret again" + progressive[at:]

    assert stripped(data) == stripped(progressive)


@pytest.mark.parametrize("name", [b"EXIF", b"XMP ", b"PRMT"])
def test_stripped_webp_lost_the_chunk_whole(name):
    before = pictures()["webp-animated"]

    assert stripped(with_riff_chunk(before, name, SECRET.encode())) == stripped(before)


@pytest.mark.parametrize("name", ["gAMA", "pHYs", "cHRM", "sBIT", "bKGD", "iCCP"])
def test_what_colours_need_stays(name):
    data = with_chunk(pictures()["png"], name.encode(), b"12345678")

    assert chunk(name.encode(), b"12345678") in stripped(data)


@every_kind
def test_what_follows_the_picture_is_dropped_by_stripping_only(kind):
    data = pictures()[kind] + b"second picture"

    assert with_label(data, LABEL) == with_label(pictures()[kind], LABEL) + b"second picture"
    assert stripped(data) == stripped(pictures()[kind])


# ---------------------------------------------------------------------------
# Credentials
# ---------------------------------------------------------------------------
JUMBF = (
    b"JP\0\1\0\0\0\1\0\0\0\x2ajumb\0\0\0\x1ejumdc2pa"
    b"\0\x11\0\x10\x80\0\0\xaa\0\x38\x9b\x71\3c2pa\0 odd"
)
CREDENTIALS = {
    "png": (with_chunk(pictures()["png"], b"caBX", JUMBF[8:]), chunk(b"caBX", JUMBF[8:])),
    "jpeg": (
        with_segment(pictures()["jpeg"], b"\xeb", JUMBF),
        b"\xff\xeb\0" + bytes([len(JUMBF) + 2]) + JUMBF,
    ),
    "webp": (
        with_riff_chunk(pictures()["webp-alpha"], b"C2PA", JUMBF[8:]),
        b"C2PA" + struct.pack("<I", 42) + JUMBF[8:],
    ),
}


@pytest.mark.parametrize("kind", CREDENTIALS)
def test_credentials_are_seen_and_survive_byte_for_byte(kind):
    before, manifest = CREDENTIALS[kind]

    for change in (OPERATIONS["with_text"], OPERATIONS["with_label"], stripped):
        assert manifest in change(before)
        assert has_credentials(change(before))
        assert frames(change(before)) == frames(before)


@every_kind
def test_picture_without_credentials_has_none(kind):
    assert not has_credentials(pictures()[kind])


def test_other_app11_segments_are_no_credentials():
    assert not has_credentials(with_segment(pictures()["jpeg"], b"\xeb", b"HDR_RI ver=11"))


# ---------------------------------------------------------------------------
# Several changes of a parsed file
# ---------------------------------------------------------------------------
@every_kind
def test_file_that_was_only_read_stays_the_same(kind):
    picture = parse(pictures()[kind])

    assert (picture.label, picture.has_credentials) == (None, False)
    assert picture.to_bytes() is pictures()[kind]


@every_kind
def test_changes_of_a_parsed_file_are_those_of_separate_calls(kind):
    picture = parse(pictures()[kind])

    picture.put_texts({"prompt": "a fox"})
    picture.add_label(LABEL)
    labelled = picture.to_bytes()
    picture.strip()

    written = parse(pictures()[kind])
    written.put_texts({"prompt": "a fox"})
    assert labelled == with_label(written.to_bytes(), LABEL)
    assert picture.label == LABEL
    assert picture.to_bytes() == stripped(labelled)


# ---------------------------------------------------------------------------
# Hostile files
# ---------------------------------------------------------------------------
def broken(data: bytes, chance: random.Random) -> bytes:
    """Cut the file, flip a few bytes, or repeat or lose a stretch."""
    result, at = bytearray(data), chance.randrange(len(data))
    how = chance.randrange(4)
    if how == 0:
        return bytes(result[:at])
    if how == 1:
        return bytes(result[:at] + result[at // 2 :])
    if how == 2:
        return bytes(result[:at] + result[at + chance.randrange(20) :])
    for _ in range(chance.randrange(1, 5)):
        result[chance.randrange(min(len(result), 400))] = chance.choice(
            (0, 1, 0x7F, 0xFF, chance.randrange(256))
        )
    return bytes(result)


@pytest.mark.parametrize("name", OPERATIONS)
@every_kind
def test_broken_file_raises_value_error_or_nothing(kind, name):
    chance = random.Random(f"{kind} {name}")
    whole = with_label(pictures()[kind], LABEL)

    for _ in range(150):
        try:
            OPERATIONS[name](broken(whole, chance))
        except ValueError as error:
            assert type(error) is ValueError
            assert len(str(error)) < 80


@pytest.mark.parametrize("name", [b"zTXt", b"iCCP"])
def test_of_endless_compressed_texts_few_are_read(name, monkeypatch):
    read = []
    monkeypatch.setattr("files.metadata.png.decompress", lambda data: read.append(data) or b"")
    bombs = chunk(name, b"a\0\0bomb") * 1000
    picture = parse(pictures()["png"][:33] + bombs + pictures()["png"][33:])

    picture.drop_unreadable()

    assert len(read) < 100
    assert picture.to_bytes() == pictures()["png"]


def test_what_is_readable_is_not_dropped():
    texts = PngInfo()
    texts.add_text("workflow", SECRET, zip=True)
    texts.add_itxt("prompt", "狐" * 300_000, zip=True)
    texts.add_text("empty", "")
    picture = parse(made("PNG", pnginfo=texts, dpi=(72, 72), exif=Image.Exif()))

    picture.drop_unreadable()

    assert picture.to_bytes() is picture.original


@pytest.mark.parametrize("data", [pictures()["png-animated"], pictures()["png"]])
@pytest.mark.parametrize("cut", [1, 5, 11, 12, 13, 15])
def test_png_without_its_end_gets_one(data, cut):
    assert frames(parse(data[:-cut]).to_bytes()) == frames(data)


@pytest.mark.parametrize("end", [b"", b"\xff"])
@pytest.mark.parametrize("kind", ["jpeg", "jpeg-progressive", "jpeg-cmyk"])
def test_jpeg_without_its_end_gets_one(kind, end):
    assert frames(parse(pictures()[kind][:-2] + end).to_bytes()) == frames(pictures()[kind])


def test_file_of_too_many_chunks_is_refused():
    with pytest.raises(ValueError, match="too many chunks"):
        parse(pictures()["png"][:33] + chunk(b"tEXt", b"") * 120_001)


def test_xmp_of_many_megabytes_gives_way_to_the_label():
    assert label_of(with_label(with_xmp("png", XMP.format("<a/>" * 500_000)), LABEL)) == LABEL


@pytest.mark.parametrize("name", ["with_label", "label_of", "stripped", "has_credentials"])
@pytest.mark.parametrize(
    "data", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF\0\0\0\0WEBP", b"RIFF"]
)
def test_what_is_no_picture_is_refused(name, data):
    with pytest.raises(ValueError):
        OPERATIONS[name](data)


@pytest.mark.parametrize(
    "data",
    [
        with_xmp("png", XMP.format("<a:AIGC>" * 100_000)),
        with_xmp(
            "png",
            XMP.format("<a " + " ".join(f'b{index}:AIGC="{{"' for index in range(50_000)) + "/>"),
        ),
        with_xmp("png", "<" * 1_000_000),
        with_chunk(pictures()["png"], b"eXIf", b'{"AIGC"   ' * 100_000),
        with_chunk(
            pictures()["png"],
            b"iTXt",
            b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b"<" * 50_000_000),
        ),
        pictures()["png"][:33] + chunk(b"tEXt", b"") * 50_000 + pictures()["png"][33:],
        b"\xff\xd8" + b"\xff\xfe\0\2" * 50_000 + pictures()["jpeg"][2:],
        b"\xff\xd8" + b"\xff" * 1_000_000 + pictures()["jpeg"][3:],
    ],
    ids=range(8),
)
def test_hostile_file_is_read_in_linear_time(data):
    started = time.monotonic()

    for operation in OPERATIONS.values():
        operation(data)

    assert time.monotonic() - started < 60


# -- The comment of JPEG and WebP ---------------------------------------------------------------

COMMENT = "一只狐狸 🦊 a fox\nSteps: 20, Seed: 7, Size: 41x31"


def user_comment(data: bytes) -> str:
    """Return the comment as AUTOMATIC1111's WebUI reads it, by Pillow."""
    exif = Image.open(io.BytesIO(data)).getexif()
    comment = exif.get_ifd(0x8769)[0x9286]
    assert comment.startswith(b"UNICODE\0")
    return comment[8:].decode("utf-16-le" if exif.endian == "<" else "utf-16-be")


def commented(data: bytes, text: str = COMMENT) -> bytes:
    picture = parse(data)
    picture.put_texts({"parameters": text})
    return picture.to_bytes()


@pytest.mark.parametrize(
    ("kind", "mode"), [("JPEG", "RGB"), ("JPEG", "L"), ("WEBP", "RGB"), ("WEBP", "RGBA")]
)
def test_a_comment_is_written_and_read_again(kind, mode):
    plain = made(kind, mode)

    data = commented(plain)

    assert user_comment(data) == COMMENT == parse(data).text("parameters")
    assert Image.open(io.BytesIO(data)).tobytes() == Image.open(io.BytesIO(plain)).tobytes()
    assert parse(plain).text("parameters") == ""


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_a_comment_replaces_only_itself(kind):
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "a maker"

    data = commented(commented(made(kind, exif=exif), "an older one"))

    kept = Image.open(io.BytesIO(data)).getexif()
    assert (kept[0x0112], kept[0x010F], user_comment(data)) == (6, "a maker", COMMENT)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_a_comment_in_little_endian_data_is_read_back(kind):
    exif = Image.Exif()
    exif.endian = "<"
    exif[0x0112] = 1

    data = commented(made(kind, exif=exif.tobytes()))

    assert user_comment(data) == COMMENT == parse(data).text("parameters")


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
@pytest.mark.parametrize("exif", [b"nonsense", b"MM\0*\xff\xff\xff\xff", b"II*\0" + bytes(9)])
def test_odd_exif_data_costs_no_picture(kind, exif):
    data = commented(made(kind, exif=b"Exif\0\0" + exif))

    Image.open(io.BytesIO(data)).load()
    assert parse(data).text("parameters") in ("", COMMENT)


@pytest.mark.parametrize("character", ["x", "长", "🦊"])
def test_a_long_comment_keeps_its_last_line(character):
    data = commented(made("JPEG"), character * 32000 + "\nSteps: 20, Seed: 7")

    text = user_comment(data)
    # Two bytes a unit, in a segment of 64 KB.
    kept = 16_000 if character == "🦊" else 31_700
    assert text.startswith(character * kept) and text.endswith("\nSteps: 20, Seed: 7")
    assert set(text.partition("\n")[0]) == {character}


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_a_comment_is_stripped_and_a_label_stays(kind):
    picture = parse(made(kind))
    picture.put_texts({"parameters": COMMENT})
    picture.add_label(LABEL)

    data = stripped(picture.to_bytes())

    assert label_of(data) == LABEL and parse(data).text("parameters") == ""
    assert "fox".encode("utf-16-be") not in data
