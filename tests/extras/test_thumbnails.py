from __future__ import annotations

import io
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from flask_comfy_files import FileManager
from flask_comfy_files.core import pictures, thumbnails
from flask_comfy_files.core.errors import (
    InvalidInputError,
    NameNotFoundError,
    RecordNotFoundError,
)
from flask_comfy_files.core.layout import THUMBNAILS
from flask_comfy_files.core.pictures import source
from flask_comfy_files.core.thumbnails import Thumbnail
from tests.conftest import MakeTree, OpenManager
from tests.extras.pictures import (
    BLACK,
    BLUE,
    GREEN,
    RED,
    bmp_of,
    color_at,
    encoded,
    file_of,
    film,
    gif_of,
    halves,
    is_about,
    opened,
    png_of,
)
from tests.trees import NOW, Link, recording, set_modified

Manage = Callable[..., FileManager]


@pytest.fixture
def manage(make_tree: MakeTree, open_manager: OpenManager) -> Manage:
    """Return what makes a manager over an output folder with some files."""

    def make(tree: dict[str, Any], **options: Any) -> FileManager:
        # Old enough, so that what is cut short is not taken for one that is still being written.
        return open_manager(make_tree(tree, NOW - timedelta(days=3)), **options)

    return make


def thumbnail_of(manager: FileManager, name: str, size: int = 256) -> Thumbnail:
    return manager.get_thumbnail(file_of(manager, name), size)


def kept(manager: FileManager) -> list[str]:
    folder = Path(manager.settings.output_dir, THUMBNAILS)
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


STILLS = {
    "a.png": encoded(halves(1200, 600), "PNG"),
    "palette.png": encoded(halves(1200, 600, "P"), "PNG"),
    "a.jpg": encoded(halves(1200, 600), "JPEG", quality=95),
    "cmyk.jpg": encoded(halves(1200, 600, "CMYK"), "JPEG", quality=95),
    "a.webp": encoded(halves(1200, 600), "WEBP", lossless=True),
    "a.gif": encoded(halves(1200, 600), "GIF"),
    "a.tiff": encoded(halves(1200, 600), "TIFF"),
    "deflated.tif": encoded(halves(1200, 600), "TIFF", compression="tiff_adobe_deflate"),
    "a.bmp": encoded(halves(1200, 600), "BMP"),
}


@pytest.mark.parametrize("name", STILLS)
def test_an_image_of_every_format_becomes_a_small_picture_of_itself(
    manage: Manage, name: str
) -> None:
    thumbnail = thumbnail_of(manage({name: STILLS[name]}), name, 128)
    image = opened(thumbnail)
    assert (thumbnail.media_type, image.format, image.size) == ("image/webp", None, (128, 64))
    assert is_about(color_at(image, 0.1, 0.5), RED, 40)
    assert is_about(color_at(image, 0.9, 0.5), BLUE, 40)


@pytest.mark.parametrize("size", [64, 128, 256, 512, 1024])
def test_the_longer_side_has_the_size_that_was_asked_for(manage: Manage, size: int) -> None:
    upright = encoded(halves(900, 1800), "PNG")
    assert opened(thumbnail_of(manage({"a.png": upright}), "a.png", size)).size == (size // 2, size)


def test_a_small_image_is_not_made_larger(manager: FileManager) -> None:
    assert opened(thumbnail_of(manager, "batch_00001_.png", 1024)).size == (64, 64)


@pytest.mark.parametrize("size", [0, -64, 65, 2048, True, "64", None, 64.0])
def test_any_other_size_is_refused_with_those_that_there_are(
    manager: FileManager, size: Any
) -> None:
    with pytest.raises(InvalidInputError, match="64, 128, 256, 512 and 1024"):
        thumbnail_of(manager, "batch_00001_.png", size)


RECORDED = [
    *("batch_00001_.png", "anim/apng_00001_.png", "anim/webp_00001_.webp", "vhs/loop_00001.gif"),
    *("video/ComfyUI_00001_.mp4", "video/clip_00001_.webm", "video/clip_00002_.mkv"),
    *("AnimateDiff_00002-audio.mp4", "tagged/t_00005_.webm"),
]


@pytest.mark.parametrize("name", RECORDED)
def test_what_comfyui_writes_has_a_picture(manager: FileManager, name: str) -> None:
    image = opened(thumbnail_of(manager, name, 64))
    assert image.size == (64, 64)
    darkest, lightest = image.convert("L").getextrema()
    assert float(str(lightest)) - float(str(darkest)) > 50, "it shows nothing"


def test_a_camera_that_was_turned_is_allowed_for(manage: Manage) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6  # the first row is the right side (EXIF 2.3, Orientation)
    tree = {
        "a.jpg": encoded(halves(800, 400), "JPEG", exif=turned, quality=95),
        "b.png": encoded(halves(800, 400), "PNG", exif=turned),
        "c.tif": encoded(halves(800, 400), "TIFF", exif=turned),
    }
    manager = manage(tree)
    for name in tree:
        image = opened(thumbnail_of(manager, name, 128))
        assert image.size == (64, 128), name
        assert is_about(color_at(image, 0.5, 0.1), RED, 30), name
        assert is_about(color_at(image, 0.5, 0.9), BLUE, 30), name


def test_what_is_transparent_stays_so(manage: Manage) -> None:
    image = halves(400, 400, "RGBA")
    image.paste((0, 0, 0, 0), (0, 0, 200, 200))
    palette = Image.new("P", (400, 400), 1)
    palette.putpalette([0, 0, 0, *BLUE])
    palette.paste(0, (0, 0, 200, 200))
    tree = {
        "a.png": encoded(image, "PNG"),
        "b.gif": encoded(palette, "GIF", transparency=0),
        "c.webp": encoded(image, "WEBP", lossless=True),
    }
    manager = manage(tree)
    for name in tree:
        drawn = opened(thumbnail_of(manager, name, 64))
        assert color_at(drawn, 0.2, 0.2)[3] < 10, name
        assert color_at(drawn, 0.8, 0.8)[3] > 245, name


def test_sixteen_bits_are_as_light_as_eight(manage: Manage) -> None:
    depth = Image.new("I;16", (300, 300), 0x8080)
    depth.paste(0xFFFF, (0, 0, 300, 100))
    depth.paste(0, (0, 200, 300, 300))
    floating = Image.new("F", (300, 300), 0.5)
    floating.paste(1.0, (0, 0, 300, 100))
    floating.paste(0.0, (0, 200, 300, 300))
    tree = {"a.png": encoded(depth, "PNG"), "b.tif": encoded(floating, "TIFF")}
    manager = manage(tree)
    for name in tree:
        image = opened(thumbnail_of(manager, name, 64))
        lights = [color_at(image, 0.5, y)[0] for y in (0.1, 0.5, 0.9)]
        assert is_about(lights, [255, 128, 0], 6), name


def test_of_an_animation_the_first_frame_is_shown(manage: Manage) -> None:
    frames = [Image.new("RGB", (200, 200), color) for color in (GREEN, RED, BLUE)]
    animated = {"save_all": True, "append_images": frames[1:], "duration": 100}
    tree = {
        "a.gif": encoded(frames[0], "GIF", **animated),
        "b.webp": encoded(frames[0], "WEBP", **animated),
        "c.png": encoded(frames[0], "PNG", **animated),
    }
    manager = manage(tree)
    for name in tree:
        image = opened(thumbnail_of(manager, name, 64))
        assert is_about(color_at(image, 0.5, 0.5), GREEN), name


@pytest.mark.parametrize(
    ("name", "container", "codec"),
    [
        ("a.mp4", "mp4", "libx264"),
        ("a.mov", "mov", "mpeg4"),
        ("a.webm", "webm", "libvpx-vp9"),
        ("a.mkv", "matroska", "libx264"),
        ("a.avi", "avi", "mpeg4"),
    ],
)
def test_a_video_is_shown_by_a_frame_a_little_way_in_and_not_by_a_black_one(
    manage: Manage, name: str, container: str, codec: str
) -> None:
    frames = [*[GREEN] * 3, *[BLACK] * 9, *[BLUE] * 3, *[GREEN] * 30]
    image = opened(thumbnail_of(manage({name: film(frames, container, codec)}), name, 128))
    assert image.size == (128, 72)
    assert is_about(color_at(image, 0.5, 0.5), BLUE, 30)


@pytest.mark.parametrize(
    ("colors", "shown"), [([GREEN], GREEN), ([BLACK] * 30, BLACK), ([BLACK, RED], RED)]
)
def test_a_video_of_few_frames_or_black_ones_is_shown_as_well(
    manage: Manage, colors: list[tuple[int, int, int]], shown: tuple[int, int, int]
) -> None:
    image = opened(thumbnail_of(manage({"a.mp4": film(colors)}), "a.mp4"))
    assert is_about(color_at(image, 0.5, 0.5), shown, 30)


def test_a_picture_holds_nothing_of_what_was_embedded(manager: FileManager) -> None:
    assert b"prompt" in recording("batch_00001_.png")
    content = thumbnail_of(manager, "batch_00001_.png").content
    assert b"prompt" not in content
    assert b"class_type" not in content


WITHOUT_PICTURE = [
    *("audio/ComfyUI_00001.flac", "audio/ComfyUI_00002.mp3", "3d/ComfyUI_00001_.glb"),
    *("captions/cap_00001.txt", "latents/ComfyUI_00001_.latent", "svg/ComfyUI_00001_.svg"),
    "adv_00002.exr",
]


@pytest.mark.parametrize("name", WITHOUT_PICTURE)
def test_a_file_of_a_kind_that_shows_nothing_gets_the_placeholder(
    manager: FileManager, name: str
) -> None:
    thumbnail = thumbnail_of(manager, name)
    assert (thumbnail.placeholder, thumbnail.media_type) == ("no_picture", "image/png")
    with Image.open(io.BytesIO(thumbnail.content)) as image:
        image.load()
        assert image.size == (64, 64)
    assert kept(manager) == []


def test_a_vector_image_is_not_drawn_whatever_it_is_called(manage: Manage) -> None:
    manager = manage({"a.png": recording("svg/ComfyUI_00001_.svg")})
    assert thumbnail_of(manager, "a.png").placeholder == "no_picture"


@pytest.mark.parametrize(
    ("name", "recorded"),
    [("a.mp4", "audio/ComfyUI_00001.flac"), ("a.m4a", "video/ComfyUI_00001_.mp4")],
)
def test_sound_is_not_shown_whatever_it_is_called(manage: Manage, name: str, recorded: str) -> None:
    thumbnail = thumbnail_of(manage({name: recording(recorded)}), name)
    assert thumbnail.placeholder == "no_picture"


def test_what_takes_too_long_is_given_up_and_tried_again(
    manager: FileManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["batch_00001_.png", "video/ComfyUI_00001_.mp4"]
    file_ids = [file_of(manager, name, f"job_{number}") for number, name in enumerate(names)]
    with monkeypatch.context() as patched:
        patched.setattr(source, "_LONGEST_S", -1.0)
        for file_id in file_ids:
            assert manager.get_thumbnail(file_id).placeholder == "too_slow"
    for file_id in file_ids:
        assert manager.get_thumbnail(file_id).placeholder is None


def test_a_file_of_more_bytes_than_are_read_gets_the_placeholder(manage: Manage) -> None:
    manager = manage({"a.webp": STILLS["a.webp"]})
    path = Path(manager.settings.output_dir, "a.webp")
    with path.open("r+b") as file:
        file.truncate(65 * 1024**2)
    set_modified(path, NOW - timedelta(days=3))
    assert thumbnail_of(manager, "a.webp").placeholder == "too_large"


def test_a_damaged_file_is_not_decoded_again_with_each_request(manage: Manage) -> None:
    """Seen by putting a whole file of the same size in its place."""
    manager = manage({"cut.png": BROKEN["cut.png"]})
    thumbnail = thumbnail_of(manager, "cut.png")
    assert thumbnail.placeholder == "unreadable"
    path = Path(manager.get_file_metadata(thumbnail.file_id).file_path)
    whole = encoded(Image.new("RGB", (8, 8)), "PNG")
    assert len(whole) < path.stat().st_size
    path.write_bytes(whole.ljust(path.stat().st_size, b"\0"))
    assert manager.get_thumbnail(thumbnail.file_id, 64).placeholder == "unreadable"
    other = FileManager(manager.settings.output_dir)
    assert other.get_thumbnail(thumbnail.file_id, 64).placeholder is None
    other.close()


def test_a_damaged_file_is_tried_once_an_hour(
    manage: Manage, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = manage({"cut.png": BROKEN["cut.png"]})
    tried = []
    draw = pictures.draw

    def count(*arguments: Any) -> bytes:
        tried.append(arguments)
        return draw(*arguments)

    monkeypatch.setattr(pictures, "draw", count)
    now = time.monotonic()
    file_id = thumbnail_of(manager, "cut.png").file_id
    for hour in (1, 2, 3):
        monkeypatch.setattr(time, "monotonic", lambda hour=hour: now + hour * 3601)
        for _ in range(3):
            assert manager.get_thumbnail(file_id, 64).placeholder == "unreadable"
    assert len(tried) == 4


HUGE = film([GREEN], "mov", "png", (8448, 8192))


def larger_than_it_says() -> bytes:
    """Return a video of which the container says 64 x 64, and each frame 8448 x 8192."""
    content = HUGE
    at = content.index(b"png ") + 4 + 24  # the sample description's width and height
    assert content[at : at + 4] == bytes.fromhex("21002000")
    shown = bytes.fromhex("2100000020000000")  # the track's width and height, in 16.16 bits
    assert content.count(shown) == 1
    content = content.replace(shown, bytes.fromhex("0040000000400000"))
    return content[:at] + bytes.fromhex("00400040") + content[at + 4 :]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.png", png_of(50_000, 50_000)),
        ("b.bmp", bmp_of(50_000, 50_000)),
        ("b.tif", encoded(Image.new("1", (9000, 9000)), "TIFF", compression="group4")),
        ("c.gif", gif_of(65_535, 65_535)),
        ("d.mov", HUGE),
        ("e.webp", encoded(Image.new("RGB", (5000, 4000)), "WEBP", method=0)),
    ],
    ids=["png", "bmp", "tiff", "gif", "video", "webp"],
)
@pytest.mark.usefixtures("no_waiting")
def test_a_bomb_is_known_by_its_header_and_gets_the_placeholder(
    manage: Manage, caplog: pytest.LogCaptureFixture, name: str, content: bytes
) -> None:
    manager = manage({name: content})
    file_id = file_of(manager, name)
    caplog.clear()
    for _ in range(3):
        assert manager.get_thumbnail(file_id).placeholder == "too_large"
    (line,) = caplog.records
    assert (line.levelno, line.exc_info) == (logging.WARNING, None)
    assert "larger than what is decoded" in line.getMessage()
    assert manager.settings.output_dir not in line.getMessage()
    assert kept(manager) == []


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.mov", larger_than_it_says()), ("b.avi", film([GREEN], "avi", "png", (8448, 8192)))],
    ids=["said-otherwise", "not-said-to-us"],
)
def test_a_frame_that_is_too_large_is_not_decoded_whatever_its_container_says(
    manage: Manage, name: str, content: bytes
) -> None:
    assert thumbnail_of(manage({name: content}), name).placeholder == "unreadable"


BROKEN = {
    "cut.png": STILLS["a.png"][: len(STILLS["a.png"]) // 2],
    "cut.jpg": STILLS["a.jpg"][:600],
    "cut.webp": STILLS["a.webp"][: len(STILLS["a.webp"]) // 2],
    "cut.gif": STILLS["a.gif"][: len(STILLS["a.gif"]) // 2],
    "cut.tiff": STILLS["a.tiff"][:5000],
    "cut.mp4": recording("video/ComfyUI_00001_.mp4")[:3000],
    "cut.webm": recording("video/clip_00001_.webm")[:400],
    "noise.png": bytes(range(256)) * 20,
    "noise.mp4": bytes(range(256)) * 20,
    "playlist.mp4": b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_damaged_file_gets_the_placeholder_and_one_line_in_the_log(
    manage: Manage, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    manager = manage({name: BROKEN[name]})
    file_id = file_of(manager, name)
    caplog.clear()
    for size in (64, 64, 512):
        assert manager.get_thumbnail(file_id, size).placeholder == "unreadable"
    (line,) = caplog.records
    assert (line.levelno, line.exc_info) == (logging.WARNING, None)
    assert manager.settings.output_dir not in line.getMessage()
    assert kept(manager) == []


def test_a_picture_is_made_once_and_shared_by_files_of_the_same_bytes(manager: FileManager) -> None:
    root = Path(manager.settings.output_dir)
    (root / "twin_00001_.png").write_bytes(recording("batch_00001_.png"))
    first = thumbnail_of(manager, "batch_00001_.png")
    assert first.path is not None
    assert kept(manager) == [first.path.removeprefix(f"{THUMBNAILS}/")]
    (root / first.path).write_bytes(b"what was kept")
    again = thumbnail_of(manager, "batch_00001_.png")
    twin = manager.get_thumbnail(file_of(manager, "twin_00001_.png", "twin"))
    assert again.content == twin.content == b"what was kept"
    assert again.etag == twin.etag != first.etag
    assert len(kept(manager)) == 1


def test_another_manager_finds_what_was_kept(
    manager: FileManager, open_manager: OpenManager
) -> None:
    first = thumbnail_of(manager, "batch_00001_.png")
    path = Path(manager.settings.output_dir, str(first.path))
    made_at = path.stat().st_mtime_ns
    other = open_manager(Path(manager.settings.output_dir))
    assert other.get_thumbnail(first.file_id) == first
    assert path.stat().st_mtime_ns == made_at


def test_the_kept_pictures_take_no_more_room_than_they_may(manage: Manage) -> None:
    names = [f"{number}.png" for number in range(12)]
    tree = {
        name: encoded(Image.effect_noise((400, 400), 40 + number), "PNG")
        for number, name in enumerate(names)
    }
    manager = manage(tree, thumbnail_cache_bytes=256 * 20_000)
    folder = Path(manager.settings.output_dir, THUMBNAILS)
    for name in names:
        for size in (64, 128):
            thumbnail_of(manager, name, size)
    assert 12 < len(kept(manager)) <= 24
    for below in folder.iterdir():
        assert sum(path.stat().st_size for path in below.iterdir()) <= 20_000
    large = thumbnail_of(manager, names[0], 512)
    assert (large.path, len(large.content) > 20_000) == (None, True)


def test_nothing_is_kept_where_no_room_is_given(manage: Manage) -> None:
    manager = manage({"a.png": STILLS["a.png"]}, thumbnail_cache_bytes=0)
    assert thumbnail_of(manager, "a.png").path is None
    assert kept(manager) == []


def test_nothing_is_kept_where_the_disk_is_as_full_as_it_may_be(
    manage: Manage, open_manager: OpenManager
) -> None:
    manager = manage({"a.png": STILLS["a.png"]})
    file_id = file_of(manager, "a.png")
    full = open_manager(Path(manager.settings.output_dir), min_free_bytes=2**60)
    assert opened(full.get_thumbnail(file_id)).size == (256, 128)
    assert kept(manager) == []


@pytest.mark.parametrize("obstacle", ["a file", "a link"])
def test_where_it_cannot_be_kept_it_is_drawn_all_the_same(
    manager: FileManager, tmp_path: Path, obstacle: str
) -> None:
    file_id = file_of(manager, "batch_00001_.png")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    place = Path(manager.settings.output_dir, THUMBNAILS)
    if obstacle == "a file":
        place.write_bytes(b"in the way")
    else:
        place.symlink_to(elsewhere)
    thumbnail = manager.get_thumbnail(file_id)
    assert (thumbnail.path, opened(thumbnail).size) == (None, (64, 64))
    assert list(elsewhere.iterdir()) == []


def test_nothing_is_written_to_a_library_that_is_not_the_one_we_know(
    manager: FileManager, open_manager: OpenManager
) -> None:
    file_id = file_of(manager, "batch_00001_.png")
    other = open_manager(Path(manager.settings.output_dir), library_id="another")
    assert other.get_system_stats().health.state == "unavailable"
    thumbnail = other.get_thumbnail(file_id)
    assert (thumbnail.path, opened(thumbnail).size) == (None, (64, 64))
    assert kept(manager) == []


def test_a_file_that_has_changed_shows_what_it_is_now_and_that_is_not_kept(
    manager: FileManager,
) -> None:
    before = thumbnail_of(manager, "batch_00001_.png")
    record = manager.get_file_metadata(before.file_id)
    Path(record.file_path).write_bytes(encoded(Image.new("RGB", (300, 300), GREEN), "PNG"))
    after = manager.get_thumbnail(before.file_id)
    assert (opened(after).size, after.path) == ((256, 256), None)
    assert after.etag != before.etag
    assert len(kept(manager)) == 1


def test_a_file_that_has_vanished_has_no_thumbnail_though_one_is_kept(manager: FileManager) -> None:
    thumbnail = thumbnail_of(manager, "batch_00001_.png")
    path = Path(manager.get_file_metadata(thumbnail.file_id).file_path)
    content = path.read_bytes()
    path.unlink()
    with pytest.raises(NameNotFoundError):
        manager.get_thumbnail(thumbnail.file_id)
    elsewhere = path.with_name("elsewhere")
    elsewhere.write_bytes(content)
    path.symlink_to(elsewhere)
    with pytest.raises(NameNotFoundError):
        manager.get_thumbnail(thumbnail.file_id)


def test_a_deleted_file_has_no_thumbnail_until_it_is_restored_and_none_is_left_for_good(
    manager: FileManager,
) -> None:
    thumbnail = thumbnail_of(manager, "batch_00001_.png")
    manager.delete_job_files("job_1")
    with pytest.raises(RecordNotFoundError):
        manager.get_thumbnail(thumbnail.file_id)
    manager.restore_job_files("job_1")
    assert manager.get_thumbnail(thumbnail.file_id) == thumbnail
    manager.destroy_job_files("job_1")
    with pytest.raises(RecordNotFoundError):
        manager.get_thumbnail(thumbnail.file_id)
    assert kept(manager) == []


def test_threads_that_ask_for_the_same_pictures_get_the_same(manage: Manage) -> None:
    names = [f"{number}.png" for number in range(4)]
    manager = manage(
        {name: encoded(halves(700 + number, 700), "PNG") for number, name in enumerate(names)}
    )
    wanted = [(file_of(manager, name), size) for name in names for size in (64, 256)] * 4
    with ThreadPoolExecutor(8) as pool:
        drawn = list(pool.map(lambda asked: manager.get_thumbnail(*asked), wanted))
    assert {(one.file_id, one.size) for one in drawn} == set(wanted)
    assert {one.placeholder for one in drawn} == {None}
    assert len({(one.file_id, one.size, one.etag) for one in drawn}) == len(set(wanted))
    assert len(kept(manager)) == len(set(wanted))


def test_no_more_are_drawn_at_once_than_may_be_and_who_waits_too_long_is_told(
    manager: FileManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    file_ids = [file_of(manager, f"batch_0000{number}_.png") for number in (1, 2, 3)]
    begun, may_end = threading.Semaphore(0), threading.Event()
    draw = pictures.draw

    def draw_slowly(*asked: Any) -> bytes:
        begun.release()
        assert may_end.wait(30)
        return draw(*asked)

    monkeypatch.setattr(pictures, "draw", draw_slowly)
    monkeypatch.setattr(thumbnails, "_WAIT_S", 0.01)
    with ThreadPoolExecutor(2) as pool:
        at_work = [pool.submit(manager.get_thumbnail, file_id) for file_id in file_ids[:2]]
        for _ in at_work:
            assert begun.acquire(timeout=30)
        assert manager.get_thumbnail(file_ids[2]).placeholder == "busy"
        may_end.set()
        assert [one.result().placeholder for one in at_work] == [None, None]
    assert manager.get_thumbnail(file_ids[2]).placeholder is None


DRAW_ALL = """
import sys
from flask_comfy_files import FileManager
with FileManager(sys.argv[1]) as manager:
    for file_id in sys.argv[2:]:
        for size in (64, 128, 256, 512, 1024):
            print(manager.get_thumbnail(file_id, size).etag)
"""


def test_processes_that_draw_the_same_pictures_at_once_do_not_disturb_each_other(
    manage: Manage,
) -> None:
    names = [f"{number}.png" for number in range(4)]
    manager = manage(
        {name: encoded(halves(1100 + number, 700), "PNG") for number, name in enumerate(names)}
    )
    file_ids = [file_of(manager, name) for name in names]
    root = manager.settings.output_dir
    command = [sys.executable, "-c", DRAW_ALL, root, *file_ids]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path.cwd())
        for _ in range(3)
    ]
    answers = [process.communicate(timeout=60)[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert answers[0] == answers[1] == answers[2]
    assert len(answers[0]) == 20
    assert len(kept(manager)) == 20
    for name in kept(manager):
        with Image.open(Path(root, THUMBNAILS, name)) as image:
            image.load()


def test_a_link_in_the_place_of_a_kept_picture_is_not_followed(
    manage: Manage, tmp_path: Path, make_tree: MakeTree
) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"what is nobody's business")
    manager = manage({"a.png": STILLS["a.png"]})
    first = thumbnail_of(manager, "a.png")
    place = Path(manager.settings.output_dir, str(first.path))
    place.unlink()
    make_tree({str(first.path): Link(str(secret))})
    assert manager.get_thumbnail(first.file_id).content == first.content
    assert secret.read_bytes() == b"what is nobody's business"
