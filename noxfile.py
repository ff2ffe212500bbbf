"""The checks, one session each; `nox -l` lists them.

`lint`, `types` and `faults` use the tools installed beside nox (the `dev` extra, which pins them),
so they start at once; the others build an environment of their own.
"""

import os
import re
import sys
from configparser import ConfigParser
from pathlib import Path

import nox

nox.options.sessions = ["lint", "types", "tests", "tests_min", "package"]

TOOLS = Path(sys.executable).parent
IN_PARALLEL = ("-n", os.environ.get("WORKERS", "2"), "--dist", "worksteal")
EXTRAS_REPORT = "build/junit/extras_min.xml"  # beside the one that .ci/run asks of the other tests
EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"  # git's name for a tree with nothing in it

SMOKE = """
import sys
from importlib.resources import files
from pathlib import Path

from flask_comfy_files import FileManager

assert "site-packages" in sys.modules["flask_comfy_files"].__file__
assert files("flask_comfy_files").joinpath("py.typed").is_file()
assert FileManager(Path.cwd()).get_system_stats().total_files == 0
assert "flask" not in sys.modules

from flask import Flask
from flask_comfy_files import add_file_manager_routes

app = Flask("host")
add_file_manager_routes(app, output_dir=Path.cwd())
answer = app.test_client().get("/api/files/status")
assert answer.status_code == 200, answer.text
assert answer.json["total_files"] == 0, answer.text
"""


@nox.session(python=False)
def lint(session: nox.Session) -> None:
    """Check style, format, spelling, the direction of imports, and white space."""
    session.run(TOOLS / "ruff", "check")
    session.run(TOOLS / "ruff", "format", "--check")
    session.run(TOOLS / "codespell")
    session.run(TOOLS / "lint-imports")
    session.run("git", "diff", "--check", EMPTY_TREE, external=True)


@nox.session(python=False)
def types(session: nox.Session) -> None:
    """Check the types of the package, its tests and the example."""
    session.run(TOOLS / "mypy")


@nox.session(reuse_venv=True)
def tests(session: nox.Session) -> None:
    """Run the tests with the newest dependencies, and measure what they reach."""
    session.install("-e", ".[all,test]")
    session.run("pytest", "--cov", *session.posargs)


@nox.session(reuse_venv=True)
def tests_min(session: nox.Session) -> None:
    """Run the tests with the lowest dependencies that setup.cfg allows: first without the extras, then theirs.

    The core needs no package but `blinker` and `filelock`, which several processes at once try hardest; what
    else the core does is left to `make test`, as are the longest tests of what calls it.
    """
    optional = _optional_requirements()
    lowest = [_lowest(requirement) for requirement in [*_required(), *optional]]
    constraints = Path(session.create_tmp(), "lowest.txt")
    constraints.write_text("\n".join(lowest), encoding="utf-8")
    session.install("-e", ".[test]", "-c", str(constraints))
    extras = [re.split(r"[<>=]", requirement)[0] for requirement in optional]
    session.run("python", "-m", "pip", "uninstall", "--quiet", "--yes", *extras)  # of the last time
    left_out = ("core", "crash", "comfyui", "properties")
    long = (
        *("web/test_access.py", "web/test_completion.py", "web/test_keeping.py"),
        *("web/test_servers.py", "test_cli_keeping.py"),
    )
    ignored = [f"--ignore=tests/{path}" for path in (*left_out, *long, "extras")]
    session.run("pytest", *IN_PARALLEL, *ignored, *session.posargs)
    session.install("-e", ".[all,test]", "-c", str(constraints))
    session.run(
        "pytest", *IN_PARALLEL, "tests/extras", f"--junitxml={EXTRAS_REPORT}", *session.posargs
    )


@nox.session
def package(session: nox.Session) -> None:
    """Build sdist and wheel, and use the wheel in an environment that has nothing else."""
    scratch = Path(session.create_tmp())
    session.run(TOOLS / "python", "-m", "build", "--outdir", scratch / "dist", external=True)
    (wheel,) = (scratch / "dist").glob("*.whl")
    session.install(str(wheel))
    session.chdir(scratch)
    session.run("python", "-c", SMOKE)


@nox.session(python=False)
def faults(session: nox.Session) -> None:
    """Run the tests that need root, strace, mounts or programs that pip does not install."""
    session.run("sh", "tests/faults/run.sh", env={"PYTHON": sys.executable})


def _required() -> list[str]:
    return _setup()["options"]["install_requires"].split()


def _optional_requirements() -> list[str]:
    groups = _setup()["options.extras_require"]
    names = groups.keys() - {"all", "test", "dev"}
    return sorted({requirement for name in names for requirement in groups[name].split()})


def _setup() -> ConfigParser:
    config = ConfigParser()
    config.read("setup.cfg", encoding="utf-8")
    return config


def _lowest(requirement: str) -> str:
    return re.sub(r">=([^,]+).*", r"==\1", requirement)
