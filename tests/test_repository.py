"""What the repository promises of itself: one list of packages, imports that go one way."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "minitorch_attn"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CONDA = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
CONSTRAINTS = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()

# The lower a room, the earlier it stands; rooms of one line may use one another.
ROOMS = [
    {"engine", "simulator"},
    {"cuda", "ops"},
    {"functional"},
    {"nn"},
    {"attention"},
    {"models"},
    {
        "amp",
        "checkpoint",
        "data",
        "distributed",
        "metrics",
        "optim",
        "retrieval",
        "serialization",
        "training",
        "viz",
    },
    {"command_line", "compare", "reproduce", "training_cli"},
    {"course"},
    {"classroom"},
]
# They hold the rooms together, or start them.
ABOVE_ALL = {"__init__", "__main__"}


# ---------------------------------------------------------------- one list of packages


def requirements(*extras):
    """Packages of the project and of some extras, extras of its own resolved."""
    names = list(PROJECT["dependencies"])
    for extra in extras:
        names += PROJECT["optional-dependencies"][extra]
    found = []
    for requirement in map(Requirement, names):
        own = requirement.name == PROJECT["name"]
        found += requirements(*requirement.extras) if own else [requirement]
    return found


def pins():
    lines = [line for line in CONSTRAINTS if line and not line.startswith("#")]
    return {pin.name: pin for pin in map(Requirement, lines)}


def conda_packages():
    return [spec for spec in CONDA["dependencies"] if isinstance(spec, str)]


def conda_pip_lines():
    (section,) = (spec for spec in CONDA["dependencies"] if isinstance(spec, dict))
    assert set(section) == {"pip"}
    return section["pip"]


def test_conda_environment_has_only_keys_that_conda_knows():
    assert set(CONDA) == {"name", "channels", "dependencies"}
    assert CONDA["name"] == PROJECT["name"]


def test_conda_environment_takes_its_packages_from_pyproject():
    """Python and pip from conda, all else from the extras: nothing is listed twice."""
    assert {spec.split()[0] for spec in conda_packages()} == {"python", "pip"}
    constraints, editable = conda_pip_lines()
    assert constraints == "-c constraints.txt"
    extras = re.fullmatch(r"-e \.\[([\w,]+)\]", editable)[1].split(",")
    assert set(extras) == {"course", "dev"} <= set(PROJECT["optional-dependencies"])


def test_conda_environment_has_the_python_of_pyproject():
    (python,) = (spec for spec in conda_packages() if spec.startswith("python"))
    assert python == f"python {PROJECT['requires-python']}"


@pytest.mark.parametrize("spec", conda_packages())
def test_conda_package_is_a_valid_spec(spec):
    rattler = pytest.importorskip("rattler")
    assert str(rattler.MatchSpec(spec, strict=True).name.normalized) == spec.split()[0]


def test_the_parser_of_conda_specs_refuses_what_conda_refuses():
    rattler = pytest.importorskip("rattler")
    with pytest.raises(Exception, match="(?i)invalid|unable|parse"):
        rattler.MatchSpec("numpy>==2", strict=True)


def test_constraints_name_no_host_and_no_folder():
    for line in CONSTRAINTS:
        assert not re.search(r"://|^/|\s/|file:|@", line), line


@pytest.mark.parametrize("extra", ["course", "dev", "nbgrader", "cluster"])
def test_constraints_pin_each_package_within_what_pyproject_asks(extra):
    pinned = pins()
    for requirement in requirements(extra):
        (specifier,) = pinned[requirement.name].specifier
        assert specifier.operator == "=="
        assert Version(specifier.version) in requirement.specifier, requirement


def test_constraints_leave_the_choice_of_a_cuda_build_open():
    assert not [name for name in pins() if re.match(r"torch|nvidia|cupy|triton", name)]


# ---------------------------------------------------------------- imports go one way


def room(module):
    """Index of the room that a module's name, seen from the package, is in."""
    top = module.split(".")[0] or "optim"  # minitorch_attn itself holds all up to the optimisers
    for index, names in enumerate(ROOMS):
        if top in names:
            return index
    raise AssertionError(f"minitorch_attn.{top} is not in ROOMS: where does it belong?")


def imports(source, module, is_package=False):
    """Names of all modules that a source imports, at its top or within a function."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                parts = parts[: len(parts) - node.level + is_package]
                base = ".".join([*parts, *filter(None, [node.module])])
            # `from minitorch_attn import nn` imports a module, `from x.y import z` the module x.y.
            names = (f"{base}.{alias.name}" for alias in node.names)
            yield from names if base == "minitorch_attn" else [base]


def package_files():
    """Each file of the package but those above all, with its module's name in the package."""
    paths = sorted(PACKAGE.rglob("*.py"))
    modules = [".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in paths]
    return [(p, m) for p, m in zip(paths, modules) if m.split(".")[0] not in ABOVE_ALL]


def module_name(value):
    return value if isinstance(value, str) else ""


def wrong_way(source, module, is_package=False):
    """Imports of a module that go up to a higher room."""
    found = imports(source, f"minitorch_attn.{module}".removesuffix(".__init__"), is_package)
    own = [name.partition(".")[2] for name in found if name.split(".")[0] == "minitorch_attn"]
    return [name for name in own if room(name) > room(module)]


@pytest.mark.parametrize(("path", "module"), package_files(), ids=module_name)
def test_imports_go_one_way(path, module):
    source = path.read_text(encoding="utf-8")
    assert wrong_way(source, module, path.name == "__init__.py") == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("engine.tensor", "from minitorch_attn.ops import activation"),
        ("engine.tensor", "def f():\n    import minitorch_attn.nn as nn"),
        ("ops.loss", "from minitorch_attn import functional as F"),
        ("ops.loss", "from ..nn.module import Module"),
        ("nn.layers", "from .. import attention"),
        ("models.resnet", "from minitorch_attn.course.checks import x"),
        ("nn.layers", "import minitorch_attn as mt"),
    ],
)
def test_an_import_that_goes_up_is_found(module, source):
    assert len(wrong_way(source, module)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("engine.tensor", "from .graph import Node"),
        ("nn.layers", "from minitorch_attn import functional as F"),
        ("training", "from minitorch_attn.optim import SGD\nimport numpy as np"),
        ("course.build", "from minitorch_attn.engine.optional import require"),
        ("course.checking", "import minitorch_attn as mt"),
    ],
)
def test_an_import_that_goes_down_is_passed(module, source):
    assert wrong_way(source, module) == []


# ---------------------------------------------------------------- NumPy alone

ALLOWED = {"numpy", "minitorch_attn"} | sys.stdlib_module_names
EXCEPTIONS = {
    "engine.backend": {"cupy", "cupyx"},
    "viz.figure": {"matplotlib"},  # a class of matplotlib's kind, imported where one is drawn
}


def third_party(source):
    """Packages that a source imports plainly, not where their absence is provided for."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        for_types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        provided = isinstance(node, ast.Try) and "ImportError" in ast.unparse(node.handlers)
        if for_types or provided:
            node.body = [ast.Pass()]
    names = imports(ast.unparse(tree), "minitorch_attn.as.deep.as.it.goes")
    return {name.split(".")[0] for name in names} - ALLOWED


@pytest.mark.parametrize(("path", "module"), package_files(), ids=module_name)
def test_optional_packages_are_imported_through_require(path, module):
    assert third_party(path.read_text(encoding="utf-8")) <= EXCEPTIONS.get(module, set())


def test_a_plain_import_of_an_optional_package_is_found():
    assert third_party("def f():\n    from matplotlib import pyplot") == {"matplotlib"}


def importable_rooms():
    names = {module.split(".")[0] for _, module in package_files()}
    return ["minitorch_attn", *sorted(f"minitorch_attn.{name}" for name in names)]


@pytest.mark.parametrize("module", importable_rooms())
def test_importing_a_room_needs_numpy_alone(module):
    program = (
        f"import sys; before = set(sys.modules); import {module};"
        "names = {name.split('.')[0] for name in set(sys.modules) - before};"
        "print(*sorted(names - set(sys.stdlib_module_names)))"
    )
    command = [sys.executable, "-c", program]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    inner = re.compile(r"_|cython_runtime")  # parts of Python's and NumPy's own
    names = {name for name in loaded.stdout.split() if not inner.match(name)}
    assert names == {"minitorch_attn", "numpy"}


# ---------------------------------------------------------------- the command line


def run_module(*arguments, code=None):
    command = [sys.executable, "-c", code] if code else [sys.executable, "-m", "minitorch_attn"]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, cwd=ROOT)


def test_help_names_the_commands_and_imports_none():
    code = (
        "import sys; from minitorch_attn.__main__ import COMMANDS, main\n"
        "try: main(['--help'])\n"
        "except SystemExit: print(*(name for name, _ in COMMANDS.values() if name in sys.modules))"
    )
    told = run_module(code=code)
    assert all(word in told.stdout for word in ("train", "grade", "progress", "build"))
    assert told.stdout.splitlines()[-1] == ""


def test_version_is_the_one_of_pyproject():
    assert run_module("--version").stdout.strip() == f"minitorch_attn {PROJECT['version']}"


def test_the_commands_are_there_in_a_checkout_that_is_not_installed():
    code = (
        "import importlib.metadata as facts, sys\n"
        "def version(name): raise facts.PackageNotFoundError(name)\n"
        "facts.version = version\n"
        "from minitorch_attn.__main__ import main\n"
        "main(sys.argv[1:])"
    )
    told = run_module("--version", code=code)
    assert told.stdout == "minitorch_attn of a checkout that is not installed\n", told.stderr


def test_unknown_command_is_told():
    told = run_module("tarin")
    assert told.returncode == 2 and "invalid choice: 'tarin'" in told.stderr


@pytest.mark.parametrize("command", ["train", "compare", "grade", "progress", "build"])
def test_each_command_has_its_help(command):
    told = run_module(command, "--help")
    assert told.returncode == 0, told.stderr
    assert f"usage: python -m minitorch_attn {command}" in told.stdout


# ---------------------------------------------------------------- optional packages


def test_missing_package_is_told_with_its_purpose_and_its_extra():
    from minitorch_attn.engine.optional import require

    with pytest.raises(ImportError) as told:
        require("no_such_package.part", extra="course", purpose="draw a graph")
    assert "To draw a graph" in str(told.value)
    assert "'no_such_package'" in str(told.value)
    assert 'pip install "minitorch-attn[course]"' in str(told.value)
    assert told.value.name == "no_such_package"


def test_package_that_is_there_but_broken_tells_its_own_error(tmp_path, monkeypatch):
    from minitorch_attn.engine.optional import require

    (tmp_path / "half_installed.py").write_text("import something_it_needs\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="something_it_needs"):
        require("half_installed", extra="course", purpose="draw a graph")


def test_every_extra_that_the_library_names_exists():
    named = {
        extra
        for path, _ in package_files()
        for extra in re.findall(r'extra="([\w-]+)"', path.read_text(encoding="utf-8"))
    }
    assert named and named <= set(PROJECT["optional-dependencies"])
