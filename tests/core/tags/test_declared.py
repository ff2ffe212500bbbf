from __future__ import annotations

import json

import pytest

from flask_comfy_files.core.tags import KEY
from tests.core.containers.samples import declared_json
from tests.core.tags.samples import TAG, TAG_TEXT, glb_of, tag_of

QUOTED = json.dumps(TAG_TEXT)


@pytest.mark.parametrize(
    ("document", "is_found"),
    [
        (f'{{"asset": {{"extras": {{"{KEY}": {QUOTED}}}}}}}', True),
        (f'{{"asset": {{"extras": {{"{KEY}": {TAG_TEXT}}}}}}}', True),
        (f'{{"asset": {{"extras": {{"{KEY}": {TAG_TEXT}}}}}}}    ', True),
        (f'{{"extras": {{"{KEY}": {QUOTED}}}}}', False),
        (f'{{"asset": {{"extras": [{{"{KEY}": {QUOTED}}}]}}}}', False),
        (f'{{"asset": {{"extras": {QUOTED}}}}}', False),
        ('{"asset": {}}', False),
        ('{"asset": []}', False),
        ("[]", False),
        ("", False),
    ],
)
def test_a_model_has_its_tag_in_the_extras_of_its_asset(document: str, *, is_found: bool) -> None:
    assert tag_of(glb_of(document.encode()), ".glb") == (TAG if is_found else None)


def test_only_a_json_chunk_of_version_2_is_read() -> None:
    document = f'{{"asset": {{"extras": {{"{KEY}": {QUOTED}}}}}}}'.encode()
    assert tag_of(glb_of(document), ".glb") == TAG
    assert tag_of(glb_of(document, version=1), ".glb") is None
    assert tag_of(glb_of(document).replace(b"JSON", b"BIN\0"), ".glb") is None


@pytest.mark.parametrize(
    ("header", "is_found"),
    [
        (f'{{"__metadata__": {{"{KEY}": {QUOTED}}}}}', True),
        (f'{{"t": {{"data_offsets": [0, 4]}}, "__metadata__": {{"{KEY}": {TAG_TEXT}}}}}', True),
        (f'{{"{KEY}": {QUOTED}}}', False),
        (f'{{"__metadata__": {QUOTED}}}', False),
        (f'{{"__metadata__": {{"{KEY}": "\\ud800"}}}}', False),
        ("[]", False),
        ("", False),
    ],
)
def test_a_latent_has_its_tag_in_the_metadata_of_its_header(header: str, *, is_found: bool) -> None:
    assert tag_of(declared_json(header.encode()), ".latent") == (TAG if is_found else None)


def test_a_header_longer_than_the_file_is_none() -> None:
    header = declared_json(f'{{"__metadata__": {{"{KEY}": {QUOTED}}}}}'.encode())
    assert tag_of(header[:-1], ".latent") is None
