"""Pictures of a request on the ComfyUI server, where the nodes of a workflow load them by name.

They lie among its temporary files, which it deletes when it starts, in a folder and under names of
our own, so that no other client's file is ever written over.
"""

from typing import Any, NamedTuple

from PIL import Image

from engines import ImageRequest, masks

UPLOAD_PATH = "/upload/image"
FOLDER = "image-generator"
# What is written over a picture that is not needed any more.
NOTHING = masks.png(Image.new("L", (1, 1)))


class Picture(NamedTuple):
    """The picture that a placeholder stands for."""

    placeholder: str
    file_name: str
    data: bytes

    @property
    def name(self) -> str:
        """What nodes like LoadImage take."""
        return f"{FOLDER}/{self.file_name} [temp]"

    def form(self, data: bytes = b"") -> dict[str, Any]:
        """Return the body of an upload, of this picture or of other bytes in its place."""
        return {
            "files": {"image": (self.file_name, data or self.data, "application/octet-stream")},
            "data": {"type": "temp", "subfolder": FOLDER, "overwrite": "true"},
        }


def pictures_of(request: ImageRequest, client_id: str) -> list[Picture]:
    pictures = []
    for number, image in enumerate(request.images, 1):
        placeholder = f"image{number}"
        file_name = f"{client_id}-{placeholder}.{image.extension}"
        pictures.append(Picture(placeholder, file_name, image.data))
    if request.mask:
        mask = masks.in_both_ways(request.mask)
        pictures.append(Picture("mask", f"{client_id}-mask.png", mask))
    return pictures


def names_of(pictures: list[Picture]) -> dict[str, str]:
    return {picture.placeholder: picture.name for picture in pictures}
