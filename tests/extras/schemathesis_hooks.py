"""What the description's own formats mean, for a program that makes requests out of it."""

from __future__ import annotations

import schemathesis
from hypothesis import strategies as st

from flask_comfy_files.core.course import Stage, cursor_of

CURSORS = {
    "cursor": "17-3f2a9c5e8b7d4f10a6c4e2d98b5f7a13",
    "verify-cursor": cursor_of(Stage.NOBODY, ("0" * 32,)),
}
PRINTABLE = st.text(
    st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=100
)

PART = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=20)
PATH = st.lists(PART.filter(lambda part: part.strip(".")), min_size=1, max_size=3).map("/".join)

schemathesis.openapi.format("printable", PRINTABLE)
schemathesis.openapi.format("relative-path", PATH)
for name, cursor in CURSORS.items():
    schemathesis.openapi.format(name, st.just(cursor))
