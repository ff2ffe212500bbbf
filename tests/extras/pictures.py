"""Pictures that are made for tests, and what a thumbnail shows."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import av
from PIL import Image

from flask_comfy_files import FileManager
from flask_comfy_files.core.thumbnails import Thumbnail

RED, GREEN, BLUE, BLACK = (220, 30, 30), (30, 200, 60), (30, 60, 220), (0, 0, 0)


def encoded(image: Image.Image, image_format: str, **options: Any) -> bytes:
    """Return an image as a file's bytes."""
    content = io.BytesIO()
    image.save(content, image_format, **options)
    return content.getvalue()


def halves(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """Return an image that is red on its left and blue on its right."""
    image = Image.new("RGB", (width, height), RED)
    image.paste(BLUE, (width // 2, 0, width, height))
    return image.convert(mode)


def film(
    colors: Sequence[tuple[int, int, int]],
    container: str = "mp4",
    codec: str = "libx264",
    size: tuple[int, int] = (320, 180),
) -> bytes:
    """Return a video of ten frames a second, each of one color."""
    content = io.BytesIO()
    with av.open(content, "w", format=container) as target:
        stream: Any = target.add_stream(codec, rate=10)
        frame_of: Any = av.VideoFrame.from_image
        stream.width, stream.height = size
        stream.pix_fmt = "rgb24" if codec == "png" else "yuv420p"
        for color in colors:
            target.mux(stream.encode(frame_of(Image.new("RGB", size, color))))
        target.mux(stream.encode())
    return content.getvalue()


def png_of(width: int, height: int) -> bytes:
    """Return a PNG that says how large it is, and of which nearly nothing follows."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )


def bmp_of(width: int, height: int) -> bytes:
    """Return the same as a BMP."""
    facts = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 2835, 2835, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + 1000, 0, 0, 54) + facts + bytes(1000)


def gif_of(width: int, height: int) -> bytes:
    """Return the same as a GIF."""
    image = b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x02\x02\x4c\x01\x00;"
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6) + image


def opened(thumbnail: Thumbnail) -> Image.Image:
    """Return the picture that a thumbnail is."""
    assert thumbnail.placeholder is None
    with Image.open(io.BytesIO(thumbnail.content)) as image:
        image.load()
        return image.copy()


def color_at(image: Image.Image, x: float, y: float) -> tuple[int, ...]:
    """Return the color at a place, by parts of width and height."""
    width, height = image.size
    color = image.convert("RGBA").getpixel((int(x * (width - 1)), int(y * (height - 1))))
    assert isinstance(color, tuple)
    return color


def is_about(color: Sequence[int], expected: Sequence[int], tolerance: int = 14) -> bool:
    """Say whether a color is as good as another; compression changes it a little."""
    return all(
        abs(part - wanted) <= tolerance for part, wanted in zip(color, expected, strict=False)
    )


def file_of(manager: FileManager, name: str, job_id: str = "job_1") -> str:
    """Organize one file for a job, and return its id."""
    report = manager.organize_output(job_id, files=[name])
    (record,) = (record for record in report if record.original_path == name)
    return record.file_id
