"""Pictures that come with the prompt: their colours, and what stays of them in the drawing."""

from PIL import Image

from engines import ImageRequest, masks
from engines.painter.colours import Colour, Palette

# How far a drawing may be from its reference, if the request does not say.
STRENGTH = 0.6
# The rows that a reference is reduced to: its sky above, its land below.
ROWS = 8
SKY_ROWS = 5
ACCENTS = 5


class Reference:
    """The pictures of a request, laid over each other, in the size of the drawing."""

    def __init__(self, request: ImageRequest):
        size = (request.width, request.height)
        self.first = masks.fitted(masks.opened(request.images[0]), size)
        self.image = masks.flat(self.first)
        for number, other in enumerate(request.images[1:], 2):
            layer = masks.flat(masks.fitted(masks.opened(other), size))
            self.image = Image.blend(self.image, layer, 1 / number)
        self.change = masks.change(request.mask, size) if request.mask else None
        self.strength = STRENGTH if request.strength is None else request.strength

    def palette(self) -> Palette:
        """Return its colours: from the top to the bottom, and the most frequent of them."""
        column = self.image.resize((1, ROWS), Image.Resampling.BOX)
        rows = [column.getpixel((0, row)) for row in range(ROWS)]
        few = self.image.resize((64, 64), Image.Resampling.BOX).quantize(ACCENTS)
        found = triples(few.getpalette())
        accents = (found * ACCENTS)[:ACCENTS]  # a plain picture has fewer
        return Palette(
            sky=rows[:SKY_ROWS],
            light=max(accents, key=sum),
            far=rows[SKY_ROWS],
            near=rows[-1],
            accents=accents,
        )

    def merge(self, drawing: Image.Image) -> Image.Image:
        """Return the drawing with what stays of the reference.

        With a mask, what is not to change is the reference's, pixel by pixel.
        """
        drawing = Image.blend(self.image, drawing, self.strength)
        if not self.change:
            return drawing
        return Image.composite(drawing.convert(self.first.mode), self.first, self.change)


def triples(levels: list[int]) -> list[Colour]:
    return list(zip(levels[::3], levels[1::3], levels[2::3], strict=True))
