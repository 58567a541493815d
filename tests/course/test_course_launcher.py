"""course.py, the two commands: what it decides, without a network and without installing."""

import ast
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def launcher():
    spec = importlib.util.spec_from_file_location("course_launcher", ROOT / "course.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def checkout(tmp_path):
    """A checkout in a path with a space in it."""
    root = tmp_path / "my course"
    root.mkdir()
    (root / "pyproject.toml").write_text("[project]\n")
    (root / "constraints.txt").write_text("numpy==2.4.6\n")
    return root


@pytest.fixture
def environment(launcher, checkout):
    """An environment that looks as if it had been made."""
    environment = launcher.Environment(checkout / ".venv", checkout)
    environment.scripts.mkdir(parents=True)
    environment.python.touch()
    (environment.folder / "pyvenv.cfg").write_text("version = 3.11.7\n")
    return environment


class Recorder:
    """Stands in for the slow steps of an environment, and notes them."""

    def __init__(self, environment, monkeypatch, usable=True, failures=()):
        self.steps = []
        self.failures = list(failures)
        monkeypatch.setattr(environment, "is_usable", lambda: usable)
        monkeypatch.setattr(environment, "create", self.create)
        monkeypatch.setattr(environment, "install", self.install)
        self.environment = environment

    def create(self):
        self.steps.append("create")
        self.environment.write_stamp("", [])

    def install(self, extras):
        self.steps.append(f"install {' '.join(extras)}")
        if self.failures:
            self.environment.log.write_text(self.failures.pop(0))
            raise self.environment_error("installing failed")

    environment_error = None


@pytest.fixture
def recorder(launcher, environment, monkeypatch):
    Recorder.environment_error = launcher.SetupError
    return lambda **options: Recorder(environment, monkeypatch, **options)


# ---------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], ("lab", ["course"], [])),
        (["lab"], ("lab", ["course"], [])),
        (["--no-browser"], ("lab", ["course"], ["--no-browser"])),
        (["lab", "--port", "9999"], ("lab", ["course"], ["--port", "9999"])),
        (["test"], ("test", ["course", "dev"], [])),
        (["test", "-k", "relu", "-x"], ("test", ["course", "dev"], ["-k", "relu", "-x"])),
        (["test", "-x", "--parity"], ("test", ["course", "dev", "parity"], ["-x"])),
    ],
)
def test_arguments_are_kept_or_passed_on(launcher, arguments, expected):
    assert launcher.parse(arguments) == expected


def test_extras_are_those_of_pyproject(launcher):
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = {extra for command in launcher.EXTRAS.values() for extra in command} | {"parity"}
    assert extras <= set(project["optional-dependencies"])


def test_minimum_python_is_that_of_pyproject(launcher):
    wanted = ".".join(map(str, launcher.MINIMUM))
    assert f'requires-python = ">={wanted}"' in (ROOT / "pyproject.toml").read_text()


def test_unknown_command_is_told(launcher, capsys):
    assert launcher.main(["tset"]) == 1
    assert "no command 'tset'. There are lab and test" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--help"], ["test", "-h"]])
def test_help_installs_nothing_and_names_both_commands(launcher, capsys, monkeypatch, arguments):
    monkeypatch.setattr(launcher.Environment, "prepare", None)
    assert launcher.main(arguments) == 0
    told = capsys.readouterr().out
    assert "python course.py test" in told and "--parity" in told


# ---------------------------------------------------------------- old Pythons


def test_old_python_can_read_the_script():
    ast.parse((ROOT / "course.py").read_text(encoding="utf-8"), feature_version=(3, 6))


def test_script_needs_the_standard_library_alone():
    tree = ast.parse((ROOT / "course.py").read_text(encoding="utf-8"))
    names = {
        a.name.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names
    }
    names |= {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert names <= set(sys.stdlib_module_names)


def test_old_python_is_told_which_one_to_use(launcher, monkeypatch, capsys):
    monkeypatch.setattr(sys, "version_info", (3, 8, 10, "final", 0))
    monkeypatch.setattr(launcher.shutil, "which", lambda name: name if "12" in name else None)
    assert launcher.main([]) == 1
    told = capsys.readouterr().err
    assert "Python 3.11 or newer is needed" in told and "is Python 3.8.10" in told
    assert "Run: python3.12 course.py" in told


def test_old_python_alone_on_its_computer_is_told_where_to_get_another(launcher, monkeypatch):
    monkeypatch.setattr(launcher.shutil, "which", lambda name: None)
    assert "Install a newer one" in launcher.too_old((3, 8, 10), "/usr/bin/python3")


# ---------------------------------------------------------------- the stamp


def test_second_call_does_nothing(environment, recorder):
    recorder()
    environment.prepare(["course"])
    again = recorder()
    environment.prepare(["course"])
    assert again.steps == []


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_change_of_what_is_wanted_installs_again(environment, recorder, checkout, name):
    recorder()
    environment.prepare(["course"])
    (checkout / name).write_text("changed\n")
    again = recorder()
    environment.prepare(["course"])
    assert again.steps == ["install course"]


def test_change_of_python_installs_again(environment, recorder):
    recorder()
    environment.prepare(["course"])
    (environment.folder / "pyvenv.cfg").write_text("version = 3.12.1\n")
    again = recorder()
    environment.prepare(["course"])
    assert again.steps == ["install course"]


def test_checkout_that_moved_installs_again(launcher, environment, recorder, checkout):
    recorder()
    environment.prepare(["course"])
    elsewhere = checkout.rename(checkout.with_name("elsewhere"))
    assert not launcher.Environment(elsewhere / ".venv", elsewhere).has(["course"])


def test_extras_add_up(environment, recorder, checkout):
    recorder()
    environment.prepare(["course"])
    again = recorder()
    environment.prepare(["course", "dev"])
    environment.prepare(["course"])
    (checkout / "constraints.txt").write_text("changed\n")
    environment.prepare(["course"])
    assert again.steps == ["install course dev", "install course dev"]


def test_environment_whose_python_is_gone_is_made_anew(environment, recorder):
    recorder()
    environment.prepare(["course"])
    environment.python.unlink()
    again = recorder(usable=False)
    environment.prepare(["course"])
    assert again.steps == ["create", "install course"]


def test_stamp_that_cannot_be_read_counts_as_none(environment, recorder):
    environment.stamp.write_text("{")
    steps = recorder()
    environment.prepare(["course"])
    assert steps.steps == ["install course"]


# ---------------------------------------------------------------- mending


def test_environment_that_does_not_start_is_made_anew(environment, recorder, capsys):
    steps = recorder(usable=False)
    environment.prepare(["course"])
    assert steps.steps == ["create", "install course"]
    assert "making it anew" in capsys.readouterr().out


def test_folder_that_is_no_environment_is_not_usable(launcher, tmp_path):
    assert not launcher.Environment(tmp_path / ".venv", tmp_path).is_usable()


def test_environment_without_pip_is_not_usable(launcher, tmp_path):
    command = [sys.executable, "-m", "venv", "--without-pip", str(tmp_path / ".venv")]
    subprocess.run(command, check=True)
    assert not launcher.Environment(tmp_path / ".venv", tmp_path).is_usable()


def test_this_environment_is_usable(launcher, tmp_path):
    environment = launcher.Environment(tmp_path, tmp_path)
    environment.python = sys.executable
    assert environment.is_usable()


def test_half_made_environment_that_pip_cannot_mend_is_made_anew_once(environment, recorder):
    environment.write_stamp("", [])
    steps = recorder(failures=["RECORD file not found"])
    environment.prepare(["course"])
    assert steps.steps == ["install course", "create", "install course"]


def test_finished_environment_is_never_thrown_away(launcher, environment, recorder):
    environment.write_stamp("of an older pyproject.toml", ["course"])
    steps = recorder(failures=["RECORD file not found"])
    with pytest.raises(launcher.SetupError):
        environment.prepare(["course"])
    assert steps.steps == ["install course"]
    assert environment.installed()["extras"] == ["course"]


def test_environment_of_the_users_own_is_never_thrown_away(launcher, environment, recorder):
    steps = recorder(failures=["RECORD file not found"])
    with pytest.raises(launcher.SetupError):
        environment.prepare(["course"])
    assert steps.steps == ["install course"]


def test_half_made_environment_is_not_made_anew_for_want_of_a_network(
    launcher, environment, recorder
):
    environment.write_stamp("", [])
    steps = recorder(failures=["Temporary failure in name resolution"])
    with pytest.raises(launcher.SetupError):
        environment.prepare(["course"])
    assert steps.steps == ["install course"]


# ---------------------------------------------------------------- what is said when it fails


@pytest.mark.parametrize("missing", ["venv", "ensurepip"])
def test_python_without_venv_is_told_how_to_get_it(launcher, environment, monkeypatch, missing):
    find = lambda name: None if name == missing else object()  # noqa: E731
    monkeypatch.setattr(launcher.importlib.util, "find_spec", find)
    with pytest.raises(launcher.SetupError, match="apt install python3-venv"):
        environment.create()


def program(text):
    return [sys.executable, "-c", text]


def test_want_of_a_network_is_told(environment):
    words = "WARNING: Retrying: Failed to establish a new connection: no address"
    assert environment.run_logged(program(f"print({words!r}); raise SystemExit(1)")) == 1
    told = environment.why_it_failed()
    assert "could not be reached" in told and "HTTPS_PROXY" in told
    assert str(environment.log) in told


def test_any_other_failure_is_told_in_pips_own_words(environment):
    text = "import sys; print('ERROR: No space left', file=sys.stderr); sys.exit(2)"
    assert environment.run_logged(program(text)) == 2
    told = environment.why_it_failed()
    assert "No space left" in told and "remove" in told


def test_uv_installs_where_it_is_there_and_pip_where_it_fails(launcher, environment, monkeypatch):
    commands = []
    monkeypatch.setattr(launcher.shutil, "which", lambda name: "/bin/uv")
    run = lambda command: commands.append(command) or int(command[0] == "/bin/uv")  # noqa: E731
    monkeypatch.setattr(environment, "run_logged", run)
    environment.install(["course"])
    assert [command[0] for command in commands] == ["/bin/uv", str(environment.python)]
    for command in commands:
        assert command[command.index("--constraint") + 1] == "constraints.txt"
        assert command[command.index("--editable") + 1] == ".[course]"


# ---------------------------------------------------------------- what is started


def test_lab_opens_the_first_lesson_with_the_whole_checkout_beside_it(launcher, monkeypatch):
    monkeypatch.setattr(launcher.os, "geteuid", lambda: 1000, raising=False)
    command = launcher.lab_command("python", ["--port", "9999"])
    assert command[:3] == ["python", "-m", "jupyterlab"]
    assert f"--ServerApp.root_dir={ROOT}" in command
    assert "--LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb" in command
    assert command[-2:] == ["--port", "9999"] and "--allow-root" not in command


def test_root_may_open_it_in_a_container(launcher, monkeypatch):
    monkeypatch.setattr(launcher.os, "geteuid", lambda: 0, raising=False)
    assert "--allow-root" in launcher.lab_command("python", [])


def test_tests_get_the_users_arguments_last(launcher):
    command = launcher.test_command("python", ["-n", "0"])
    assert command[:3] == ["python", "-m", "pytest"] and command[-2:] == ["-n", "0"]


def test_kernels_are_those_of_the_environment(environment, monkeypatch):
    monkeypatch.setenv("JUPYTER_PATH", "/somewhere/else")
    variables = environment.variables()
    assert "JUPYTER_PATH" not in variables
    assert variables["JUPYTER_PREFER_ENV_PATH"] == "1"
    assert variables["PATH"].startswith(str(environment.scripts))


def test_jupyterlab_keeps_its_settings_in_the_environment(environment):
    environment.write_jupyterlab_settings()
    variables = environment.variables()
    assert str(environment.folder) in variables["JUPYTERLAB_WORKSPACES_DIR"]
    (overrides,) = environment.folder.rglob("overrides.json")
    settings = json.loads(overrides.read_text())
    assert settings["@jupyterlab/apputils-extension:notification"]["fetchNews"] == "false"
