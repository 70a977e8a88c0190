"""The reference client's pictures in: references, masks, and what is made of them."""

import io

import pytest
import requests
from PIL import Image, ImageChops

from tests.browser import use
from tests.servers import ROOT, wait_until

PASSWORD = "secret1"
SIDE = 512
MODELS = """
[words]
label = "Words alone"
engine = "painter"
width = { min = 64, max = 1024, default = 64 }
height = { min = 64, max = 1024, default = 64 }

[edits]
label = "Edits alone"
engine = "painter"
width = { min = 64, max = 1024, default = 64 }
height = { min = 64, max = 1024, default = 64 }
images = { min = 1, max = 1 }

[shapes]
label = "Sizes by their shape"
engine = "painter"
aspect_ratio = ["1:1", "16:9", "auto"]
resolution = ["1K"]
background = ["auto", "opaque"]
output_format = ["png", "jpeg"]
output_compression = { min = 0, max = 100, default = 90 }
prompt_max = 400
n_max = 10
seed_max = 100
"""


class Account:
    def __init__(self, url: str):
        self.url = url
        account = {"username": "wanda", "email": "wanda@example.com", "password": PASSWORD}
        requests.post(f"{url}/api/auth/register", data=account).raise_for_status()
        answer = requests.post(f"{url}/api/auth/login", json=account).json()
        self.token = answer["data"]["token"]
        self.headers = {"Authorization": f"Bearer {self.token}"}

    def get(self, path: str) -> dict:
        answer = requests.get(f"{self.url}/api/v1/{path}", headers=self.headers)
        answer.raise_for_status()
        return answer.json()["data"]

    def make(self) -> int:
        """Have a picture drawn; return its id."""
        body = {"prompt": "a quiet lake", "params": {"width": SIDE, "height": SIDE}}
        path = f"{self.url}/api/v1/images/generate-test"
        requests.post(path, json=body, headers=self.headers).raise_for_status()
        return self.get("images/history")["records"][0]["id"]

    def picture(self, path: str) -> Image.Image:
        return Image.open(io.BytesIO(requests.get(self.url + path).content))


def write_pictures(folder) -> None:
    """Write pictures that nobody would take for one another."""
    for name, colour in (("a", "teal"), ("b", "orange"), ("c", "purple")):
        image = Image.radial_gradient("L").resize((SIDE, SIDE))
        ground = Image.new("RGB", image.size, colour)
        Image.merge("RGB", [ImageChops.add(image, band) for band in ground.split()]).save(
            folder / f"{name}.png"
        )


def check_change(account: Account, generation_id: int) -> None:
    """Check that a result is its picture where the mask is opaque, and another elsewhere."""
    record = account.get(f"images/{generation_id}")
    picture, mask = (
        account.picture(account.get(f"uploads/{one['id']}")["signedUrl"])
        for one in record["inputs"]
    )
    result = account.picture(record["signedImageUrl"])
    assert result.size == picture.size == mask.size == (SIDE, SIDE)
    changed = ImageChops.difference(result.convert("RGB"), picture.convert("RGB")).convert("L")
    opaque = mask.convert("RGBA").getchannel("A").point(lambda level: 255 * (level == 255))
    clear = mask.convert("RGBA").getchannel("A").point(lambda level: 255 * (level == 0))
    assert 0 < clear.histogram()[255] < SIDE * SIDE / 2
    assert ImageChops.multiply(changed, opaque).getbbox() is None
    box = ImageChops.multiply(changed, clear).getbbox()
    assert box and box[2] - box[0] > SIDE / 10


@pytest.mark.parametrize("empty_database", ["sqlite"], indirect=True)
@pytest.mark.parametrize(("size", "language"), [("laptop", "en"), ("phone", "zh")])
def test_pictures_are_brought_painted_on_and_gone_on_from(
    live, start_worker, settings, tmp_path, size, language
):
    settings.MODELS_FILE = tmp_path / "models.toml"
    settings.MODELS_FILE.write_text((ROOT / "models.toml").read_text() + MODELS)
    url = live(MODELS_FILE=str(settings.MODELS_FILE)).url
    start_worker("worker.py")
    wait_until(lambda: requests.get(f"{url}/api/health/ready").ok, what="a worker")
    account = Account(url)
    picture = account.make()
    write_pictures(tmp_path)

    seen = use("mask_page.mjs", url, tmp_path, size, language, account.token, str(picture))

    for generation_id in (seen.pop("byHand"), seen.pop("byKeys")):
        check_change(account, generation_id)
    assert seen == {
        "errors": 0,
        "moved": True,
        "kept": 3,
        "undone": True,
        "inverted": True,
        "focus": True,
        "paintedAgain": True,
        "goesOn": [{"image": picture}],
        "parent": picture,
        "wordless": ["", 1],
        "shapes": ["16:9", "jpeg", 100],
    }
