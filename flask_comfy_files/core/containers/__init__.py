"""What a file's bytes say: the extensions it may carry, whether it is whole, its extent.

ComfyUI writes under the final name, so a name proves nothing about the content. Each module knows
one family of formats and recognizes it by signature; ``recognize`` asks them in turn. The rule of
this folder: bytes are read with ``os.pread`` through a ``Window`` only, which limits how many, and
no content makes a reader raise or run long.
"""

from flask_comfy_files.core.containers.facts import Completeness, ContainerFacts
from flask_comfy_files.core.containers.recognize import read_facts

__all__ = ["Completeness", "ContainerFacts", "read_facts"]
