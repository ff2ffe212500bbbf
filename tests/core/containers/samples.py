"""Recordings of what ComfyUI wrote, and small files of each format built by hand."""

from __future__ import annotations

import io
import json
import struct
import tempfile
import wave
from pathlib import Path

from flask_comfy_files.core.containers import Completeness, ContainerFacts, read_facts

COMPLETE, CUT_SHORT, UNKNOWN = Completeness

OUTPUT = Path(__file__).parents[2] / "data/comfyui/outputs/output"
APNG = OUTPUT / "anim/apng_00001_.png"
PNG = OUTPUT / "ComfyUI_00001_.png"
GIF = OUTPUT / "vhs/loop_00001.gif"
SVG = OUTPUT / "svg/ComfyUI_00001_.svg"
WEBP = OUTPUT / "anim/webp_00001_.webp"
MP4_HEADER_LAST = OUTPUT / "AnimateDiff_00002-audio.mp4"
MP4_HEADER_FIRST = OUTPUT / "video/ComfyUI_00001_.mp4"
MKV = OUTPUT / "video/clip_00002_.mkv"
WEBM = OUTPUT / "video/webm_00001_.webm"
OPUS = OUTPUT / "audio/ComfyUI_00003.opus"
FLAC = OUTPUT / "audio/ComfyUI_00001.flac"
MP3 = OUTPUT / "audio/ComfyUI_00002.mp3"
GLB = OUTPUT / "3d/ComfyUI_00001_.glb"
LATENT = OUTPUT / "latents/ComfyUI_00001_.latent"
EXR = OUTPUT / "adv_00002.exr"
RECORDINGS = (
    *(APNG, PNG, GIF, SVG, WEBP, EXR),
    *(MP4_HEADER_LAST, MP4_HEADER_FIRST, MKV, WEBM),
    *(OPUS, FLAC, MP3, GLB, LATENT),
)


def facts_of(content: bytes) -> ContainerFacts:
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        return read_facts(file.fileno(), len(content))


def chunk(kind: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I", len(content)) + kind + content + b"\0\0\0\0"


def png(*chunks: bytes, width: int = 3, height: int = 2) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks)


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, 2 + len(content)) + content


def jpeg(*segments: bytes) -> bytes:
    return b"\xff\xd8" + segment(0xE0, b"JFIF\0") + b"".join(segments)


def riff(form: bytes, content: bytes = b"", *, size: int | None = None) -> bytes:
    declared = 4 + len(content) if size is None else size
    return b"RIFF" + struct.pack("<I", declared) + form + content


def wav() -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", "not compressed"))
        sound.writeframes(b"\0\0" * 4000)
    return file.getvalue()


def box(kind: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I", 8 + len(content)) + kind + content


def tensors(*offsets: object) -> bytes:
    header = {f"t{n}": {"dtype": "F32", "data_offsets": pair} for n, pair in enumerate(offsets)}
    return declared_json(json.dumps(header).encode())


def declared_json(header: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header


PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
JPEG_FRAME = segment(0xC2, struct.pack(">BHHB", 8, 480, 640, 1) + b"\x01\x11\x00")
JPEG_SCAN = segment(0xDA, b"\x01\x01\x00\x00\x3f\x00") + b"pixels"
FTYP = box(b"ftyp", b"isom\0\0\0\0mp42")
MOOV = box(b"moov", box(b"mvhd", bytes(12) + struct.pack(">II", 1000, 2500) + bytes(80)))
MDAT = box(b"mdat", b"pictures")
