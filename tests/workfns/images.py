"""Functions of a module that imports Pillow."""

import io

from PIL import Image


def thumbnail(picture: bytes, size: int) -> bytes:
    image = Image.open(io.BytesIO(picture))
    image.thumbnail((size, size))
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def make(width: int, height: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (width, height), (200, 100, 50)).save(out, "PNG")
    return out.getvalue()


def rotated(image: Image.Image) -> Image.Image:
    return image.rotate(90, expand=True)
