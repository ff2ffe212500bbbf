"""What ComfyUI embeds in the files it saves: our tag, and the graph that made the file.

ComfyUI writes every key of ``extra_data.extra_pnginfo`` into the file, each format in its own way.
Each module reads one family of formats and yields the texts that stand under a key; ``tag`` asks
the one that fits the extension and judges what it finds. The rule of this folder: files are read
through a ``Source`` only, which limits bytes, reads and unpacking, and no content makes a reader
raise or run long. What a file says is a claim by whoever wrote it, never a proof.
"""

from flask_comfy_files.core.tags.tag import KEY, Tag, read_graph, read_tag

__all__ = ["KEY", "Tag", "read_graph", "read_tag"]
