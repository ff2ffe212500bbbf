"""The smallest files of each format that carry texts under keys, as ComfyUI and ffmpeg write them."""

from __future__ import annotations

import json
import struct
import tempfile
import zlib
from collections.abc import Callable, Sequence

from flask_comfy_files.core.tags import KEY, Tag, read_tag
from tests.core.containers.samples import FTYP, box, declared_json, riff

Texts = Sequence[tuple[str, str]]

TAG = Tag(job_id="job_1", project_id="ep01", run="r1")
TAG_TEXT = '{"job_id": "job_1", "project_id": "ep01", "run": "r1"}'
OTHER_TEXT = '{"job_id": "job_2", "project_id": "ep01", "run": "r1"}'


def tag_of(
    content: bytes, extension: str, *, key: str = KEY, size: int | None = None
) -> Tag | None:
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        return read_tag(file.fileno(), len(content) if size is None else size, extension, key=key)


def chunk(kind: bytes, content: bytes = b"") -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


def png(*chunks: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 3, 2, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IEND")


def plain_png(texts: Texts) -> bytes:
    return png(*(chunk(b"tEXt", f"{key}\0{text}".encode("latin-1")) for key, text in texts))


def apng(texts: Texts) -> bytes:
    pixels = chunk(b"IDAT", b"pixels"), chunk(b"fdAT", b"more")
    return png(*pixels, *(chunk(b"comf", f"{key}\0{text}".encode()) for key, text in texts))


def packed_png(texts: Texts) -> bytes:
    return png(
        *(chunk(b"zTXt", key.encode() + b"\0\0" + zlib.compress(t.encode())) for key, t in texts)
    )


def international_png(texts: Texts) -> bytes:
    return png(*(chunk(b"iTXt", f"{key}\0\0\0ja\0{key}\0{t}".encode()) for key, t in texts))


def packed_international_png(texts: Texts) -> bytes:
    return png(
        *(
            chunk(b"iTXt", key.encode() + b"\0\1\0\0\0" + zlib.compress(t.encode()))
            for key, t in texts
        )
    )


def riff_chunk(kind: bytes, content: bytes) -> bytes:
    return kind + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)


def exif(texts: Texts, order: str) -> bytes:
    """Return a TIFF header with one field per text, counted down from ``Make`` as ComfyUI does."""
    values = [f"{key}:{text}".encode() + b"\0" for key, text in texts]
    table = struct.pack(order + "H", len(values))
    at = 8 + 2 + 12 * len(values) + 4
    for number, value in enumerate(values):
        table += struct.pack(order + "HHII", 0x010F - number & 0xFFFF, 2, len(value), at)
        at += len(value)
    mark = {">": b"MM\0*", "<": b"II*\0"}[order]
    return mark + struct.pack(order + "I", 8) + table + bytes(4) + b"".join(values)


def webp(texts: Texts) -> bytes:
    fields = riff_chunk(b"EXIF", b"Exif\0\0" + exif(texts, ">"))
    return riff(b"WEBP", riff_chunk(b"VP8X", bytes(10)) + riff_chunk(b"ANMF", bytes(7)) + fields)


def webp_by_the_book(texts: Texts) -> bytes:
    return riff(b"WEBP", riff_chunk(b"EXIF", exif(texts, "<")))


def svg(texts: Texts) -> bytes:
    members = ", ".join(f"{json.dumps(key)}: {text}" for key, text in texts)
    metadata = f"<metadata>\n        <![CDATA[\n    {{{members}}}\n    ]]>\n    </metadata>"
    return f'<svg xmlns="http://www.w3.org/2000/svg">\n  {metadata}<rect/></svg>'.encode()


def exr_attribute(name: str, kind: str, value: bytes) -> bytes:
    return f"{name}\0{kind}\0".encode() + struct.pack("<I", len(value)) + value


def exr(texts: Texts) -> bytes:
    strings = b"".join(exr_attribute(key, "string", text.encode()) for key, text in texts)
    return (
        b"\x76\x2f\x31\x01\2\0\0\0"
        + exr_attribute("lineOrder", "lineOrder", b"\0")
        + strings
        + b"\0"
    )


def keys_and_items(texts: Texts, kind: int = 1) -> bytes:
    keys = b"".join(box(b"mdta", key.encode()) for key, _ in texts)
    items = b"".join(
        box(struct.pack(">I", number), box(b"data", struct.pack(">II", kind, 0) + text.encode()))
        for number, (_, text) in enumerate(texts, 1)
    )
    handler = box(b"hdlr", bytes(8) + b"mdta" + bytes(13))
    return handler + box(b"keys", struct.pack(">II", 0, len(texts)) + keys) + box(b"ilst", items)


def mp4(texts: Texts) -> bytes:
    metadata = box(b"udta", box(b"meta", bytes(4) + keys_and_items(texts)))
    return FTYP + box(b"mdat", b"pictures") + box(b"moov", box(b"mvhd", bytes(100)) + metadata)


def quicktime(texts: Texts) -> bytes:
    return FTYP + box(b"moov", box(b"meta", keys_and_items(texts))) + box(b"mdat", b"pictures")


def element(identifier: str, content: bytes) -> bytes:
    return bytes.fromhex(identifier) + (len(content) | 1 << 56).to_bytes(8, "big") + content


def simple_tags(texts: Texts) -> bytes:
    tags = (
        element("67c8", element("45a3", key.upper().encode()) + element("4487", text.encode()))
        for key, text in texts
    )
    return element("1254c367", element("7373", element("63c0", b"") + b"".join(tags)))


def matroska(texts: Texts) -> bytes:
    clusters = element("1f43b675", b"pictures")
    head = element("1a45dfa3", element("4282", b"webm"))
    return head + element("18538067", element("ec", bytes(9)) + simple_tags(texts) + clusters)


def comments(texts: Texts) -> bytes:
    entries = [f"{key.upper()}={text}".encode() for key, text in texts]
    listed = b"".join(struct.pack("<I", len(entry)) + entry for entry in entries)
    return struct.pack("<I", 4) + b"Lavf" + struct.pack("<I", len(entries)) + listed


def flac_block(kind: int, content: bytes) -> bytes:
    return bytes([kind]) + len(content).to_bytes(3, "big") + content


def flac(texts: Texts) -> bytes:
    return b"fLaC" + flac_block(0, bytes(34)) + flac_block(0x84, comments(texts)) + b"\xff\xf8sound"


def ogg_page(serial: int, lengths: bytes, content: bytes) -> bytes:
    head = b"OggS\0\0" + bytes(8) + struct.pack("<III", serial, 0, 0)
    return head + bytes([len(lengths)]) + lengths + content


def laced(packet: bytes) -> bytes:
    return b"\xff" * (len(packet) // 255) + bytes([len(packet) % 255])


def ogg(first: bytes, second: bytes) -> bytes:
    """Return a stream whose comment header runs over pages, with one of another stream between."""
    lengths = laced(second)
    pages, at = [ogg_page(7, laced(first), first)], 0
    for start in (0, *range(1, len(lengths), 255)):
        page = lengths[start : start + 255] if start else lengths[:1]
        pages += [ogg_page(7, page, second[at : at + sum(page)]), ogg_page(8, b"\5", b"other")]
        at += sum(page)
    return b"".join(pages) + ogg_page(7, b"\5", b"sound")


def opus(texts: Texts) -> bytes:
    return ogg(b"OpusHead" + bytes(11), b"OpusTags" + comments([("title", "x" * 300), *texts]))


def vorbis(texts: Texts) -> bytes:
    head = comments([("title", "x" * 300), *texts])
    return ogg(b"\x01vorbis" + bytes(23), b"\x03vorbis" + head + b"\1")


def seven_bits(size: int) -> bytes:
    return bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))


def id3(version: int, frames: bytes, *, flags: int = 0) -> bytes:
    return b"ID3" + bytes([version, 0, flags]) + seven_bits(len(frames)) + frames + b"\xff\xfbsound"


def user_text(content: bytes, *, version: int = 4, flags: int = 0) -> bytes:
    size = seven_bits(len(content)) if version == 4 else struct.pack(">I", len(content))
    return b"TXXX" + size + bytes([0, flags]) + content


def mp3(texts: Texts) -> bytes:
    frames = (user_text(f"\3{key}\0{text}\0".encode()) for key, text in texts)
    return id3(4, b"TSSE\0\0\0\2\0\0\3x" + b"".join(frames) + bytes(10))


def older_mp3(texts: Texts) -> bytes:
    marked = [(f"{key}\0".encode("utf-16"), text.encode("utf-16")) for key, text in texts]
    return id3(3, b"".join(user_text(b"\1" + key + text, version=3) for key, text in marked))


def glb_of(document: bytes, version: int = 2) -> bytes:
    json_chunk = struct.pack("<I", len(document)) + b"JSON" + document
    return b"glTF" + struct.pack("<II", version, 12 + len(json_chunk)) + json_chunk


def glb(texts: Texts) -> bytes:
    members = ", ".join(f"{json.dumps(key)}: {json.dumps(text)}" for key, text in texts)
    return glb_of(f'{{"asset": {{"version": "2.0", "extras": {{{members}}}}}}}'.encode())


def latent(texts: Texts) -> bytes:
    members = ",".join(f"{json.dumps(key)}:{json.dumps(text)}" for key, text in texts)
    return declared_json(f'{{"__metadata__":{{{members}}}}}'.encode())


FORMATS: dict[str, tuple[str, Callable[[Texts], bytes]]] = {
    "png": (".png", plain_png),
    "apng": (".png", apng),
    "packed png": (".png", packed_png),
    "international png": (".png", international_png),
    "packed international png": (".apng", packed_international_png),
    "webp": (".webp", webp),
    "webp by the book": (".webp", webp_by_the_book),
    "svg": (".svg", svg),
    "exr": (".exr", exr),
    "mp4": (".mp4", mp4),
    "quicktime": (".mov", quicktime),
    "matroska": (".mkv", matroska),
    "webm": (".webm", matroska),
    "flac": (".flac", flac),
    "opus": (".opus", opus),
    "vorbis": (".ogg", vorbis),
    "mp3": (".mp3", mp3),
    "older mp3": (".mp3", older_mp3),
    "glb": (".glb", glb),
    "latent": (".latent", latent),
}
