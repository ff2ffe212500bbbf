"""What is installed is what setup.cfg says, and the two config files do not contradict each other."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from configparser import ConfigParser
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "flask_comfy_files"
MODULES = sorted(PACKAGE.rglob("*.py"))
LONGEST_MODULE = 400  # lines
COME_WITH_FLASK = {"click", "werkzeug"}
OPTIONAL = {"PIL": "pillow", "av": "av", "prometheus_client": "prometheus-client"}
"""What is imported where it is used, by the extra's package."""


@pytest.fixture
def setup_cfg() -> ConfigParser:
    config = ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    return config


def test_the_python_floor_is_the_same_for_installing_and_for_linting(
    setup_cfg: ConfigParser,
) -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    floor = setup_cfg["options"]["python_requires"].removeprefix(">=")
    assert pyproject["tool"]["ruff"]["target-version"] == "py" + floor.replace(".", "")
    assert f"Python :: {floor}" in setup_cfg["metadata"]["classifiers"]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"Python {floor} or later" in readme


def test_the_version_stands_in_setup_cfg_alone(setup_cfg: ConfigParser) -> None:
    version = setup_cfg["metadata"]["version"]
    files = [*MODULES, ROOT / "example_app.py", ROOT / "pyproject.toml", ROOT / "noxfile.py"]
    holding = [
        path.name
        for path in files
        if re.search(rf"(?<![\d.]){re.escape(version)}(?![\d.])", path.read_text("utf-8"))
    ]
    assert holding == []
    assert metadata.version("flask-comfy-files") == version


def test_there_is_no_project_table_that_would_compete_with_setup_cfg() -> None:
    assert "project" not in tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_installed_metadata_is_that_of_setup_cfg(setup_cfg: ConfigParser) -> None:
    installed = metadata.metadata("flask-comfy-files")
    assert installed["Requires-Python"] == setup_cfg["options"]["python_requires"]
    assert installed["License-Expression"] == "MIT"
    assert set(installed.get_all("Provides-Extra") or ()) == set(
        setup_cfg["options.extras_require"]
    )
    required = [
        Requirement(line)
        for line in metadata.requires("flask-comfy-files") or ()
        if "extra ==" not in line
    ]
    wanted = [Requirement(line) for line in setup_cfg["options"]["install_requires"].split()]
    assert sorted(map(str, required)) == sorted(map(str, wanted))


def test_every_dependency_has_a_lower_bound_that_can_be_tested(setup_cfg: ConfigParser) -> None:
    lines = [
        line
        for block in (
            setup_cfg["options"]["install_requires"],
            *setup_cfg["options.extras_require"].values(),
        )
        for line in block.split()
        if not line.startswith("flask-comfy-files[")
    ]
    bounded = [re.match(r"[\w-]+(>=|==)\d", line) for line in lines]
    assert [line for line, bound in zip(lines, bounded, strict=True) if bound is None] == []


def test_the_extras_for_testing_and_developing_are_there(setup_cfg: ConfigParser) -> None:
    extras = setup_cfg["options.extras_require"]
    assert {"pytest", "pytest-flask", "hypothesis"} <= {
        Requirement(line).name for line in extras["test"].split()
    }
    assert {"ruff", "mypy", "import-linter", "nox"} <= {
        Requirement(line).name for line in extras["dev"].split()
    }
    assert "flask-comfy-files[test]" in extras["dev"].split()


def test_the_wheel_holds_every_module_and_the_marker_for_types(setup_cfg: ConfigParser) -> None:
    folders = {path.parent for path in MODULES}
    assert [folder for folder in folders if not (folder / "__init__.py").is_file()] == []
    patterns = setup_cfg["options.package_data"]["flask_comfy_files"].split()
    shipped = {str(path.relative_to(PACKAGE)) for glob in patterns for path in PACKAGE.glob(glob)}
    other = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*")
        if path.is_file() and path.suffix not in {".py", ".pyc"}
    }
    assert other == shipped >= {"py.typed"}


def test_the_package_imports_nothing_that_it_does_not_require(setup_cfg: ConfigParser) -> None:
    required = {Requirement(line).name for line in setup_cfg["options"]["install_requires"].split()}
    extras = {
        Requirement(line).name
        for lines in setup_cfg["options.extras_require"].values()
        for line in lines.split()
    }
    optional = {name for name, package in OPTIONAL.items() if package in extras}
    allowed = (
        required | COME_WITH_FLASK | optional | sys.stdlib_module_names | {"flask_comfy_files"}
    )
    imported = {
        name.partition(".")[0] for path in MODULES for name in imports_of(path.read_text("utf-8"))
    }
    assert imported - allowed == set()


def imports_of(source: str) -> list[str]:
    names = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.append(node.module)
    return names


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_is_short_enough_to_be_read_at_once(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) < LONGEST_MODULE


def test_the_files_that_a_repository_is_looked_at_for_are_there() -> None:
    expected = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile"]
    assert [name for name in expected if not (ROOT / name).is_file()] == []
    assert "MIT License" in (ROOT / "LICENSE").read_text(encoding="utf-8")
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert changelog.index("## [Unreleased]") == changelog.index("## [")


def test_the_makefile_has_every_target_that_the_readme_names() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):.*##", makefile, re.MULTILINE))
    named = set(re.findall(r"(?:`|^)make ([a-z-]+)", readme, re.MULTILINE))
    assert {"demo", "test", "test-faults", "serve"} <= named <= targets
