"""The course in two commands, with Python alone:

    python course.py            open the course in JupyterLab (the same as: python course.py lab)
    python course.py test       run all tests: the library's, the course's, every notebook

The first call makes an environment in .venv, beside this file, and installs what the command
needs, in the versions of constraints.txt; that takes a minute or two and needs the network.
Later calls start at once, and install again only when pyproject.toml or constraints.txt changed.
If uv is on the PATH it does the installing, else pip does. To start afresh, remove .venv.

Other arguments are passed on:

    python course.py lab --no-browser --port 9999       to JupyterLab
    python course.py test tests/engine -k softmax -x    to pytest

Options:

    -h, --help    show this text
    --parity      (test) also install PyTorch, nbgrader, and on Linux CuPy and NVIDIA's compiler,
                  and compare with them; they are large, and without them those tests are skipped

Python 3.11 or newer is needed; Linux, macOS and Windows will do.
"""

# Python 3.6 must be able to read this file, if only to say that it is too old to run it.

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

MINIMUM = (3, 11)
ROOT = Path(__file__).resolve().parent
ENVIRONMENT = ROOT / ".venv"
START = "notebooks/00_start_here.ipynb"
EXTRAS = {"lab": ["course"], "test": ["course", "dev"]}

OFFLINE = (
    "Failed to establish a new connection",
    "NameResolutionError",
    "Temporary failure in name resolution",
    "Max retries exceeded",
    "ConnectTimeoutError",
    "Connection refused",
    "dns error",
    "error sending request",
)

# JupyterLab asks about news at its first start; a lesson should be the first thing to be seen.
JUPYTERLAB_SETTINGS = {
    "@jupyterlab/apputils-extension:notification": {"checkForUpdates": False, "fetchNews": "false"}
}


class SetupError(Exception):
    """Something that the user has to mend; the message says how."""


def parse(arguments):
    """Return the command, the extras it needs, and what is passed on."""
    command, rest = "lab", list(arguments)
    if rest and not rest[0].startswith("-"):
        command = rest.pop(0)
        if command not in EXTRAS:
            raise SetupError(
                f"There is no command {command!r}. There are lab and test: python course.py --help"
            )
    extras = list(EXTRAS[command])
    if command == "test" and "--parity" in rest:
        rest.remove("--parity")
        extras.append("parity")
    return command, extras, rest


def too_old(version, executable):
    """Say that this Python is too old, and which of this computer's would do."""
    names = [f"python3.{minor}" for minor in (14, 13, 12, 11)]
    newer = [name for name in names if shutil.which(name)]
    advice = (
        f"Run: {newer[0]} course.py"
        if newer
        else "Install a newer one from your system's packages or from python.org."
    )
    wanted, found = (".".join(map(str, v)) for v in (MINIMUM, version[:3]))
    return f"Python {wanted} or newer is needed; {executable} is Python {found}. {advice}"


# ---------------------------------------------------------------- the environment


class Environment:
    """A folder with a Python of its own, and a stamp that says what was installed into it."""

    def __init__(self, folder, root):
        self.folder = folder
        self.root = root
        self.scripts = folder / ("Scripts" if os.name == "nt" else "bin")
        self.python = self.scripts / ("python.exe" if os.name == "nt" else "python")
        self.stamp = folder / "installed.json"
        self.log = folder / "install.log"

    def fingerprint(self):
        """Digest of all that decides what is installed, and where."""
        files = [self.root / "pyproject.toml", self.root / "constraints.txt"]
        files.append(self.folder / "pyvenv.cfg")
        parts = [str(self.root)] + [f.read_text(encoding="utf-8") for f in files if f.exists()]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def installed(self):
        """Return what the stamp says, or None where there is none."""
        try:
            return json.loads(self.stamp.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def write_stamp(self, fingerprint, extras):
        """Note what is installed; the fingerprint is empty while the folder is half-made."""
        content = {"fingerprint": fingerprint, "extras": sorted(extras)}
        self.stamp.write_text(json.dumps(content), encoding="utf-8")

    def has(self, extras):
        """Whether these extras are installed, as pyproject.toml and constraints.txt say now."""
        stamp = self.installed()
        return (
            stamp is not None
            and self.python.exists()
            and stamp["fingerprint"] == self.fingerprint()
            and set(extras) <= set(stamp["extras"])
        )

    def is_usable(self):
        """Whether its Python starts, is new enough, and has pip."""
        test = f"import sys, pip; sys.exit(sys.version_info < {MINIMUM})"
        try:
            return subprocess.call([str(self.python), "-c", test], stderr=subprocess.DEVNULL) == 0
        except OSError:
            return False

    def create(self):
        """Make the folder anew."""
        for module in ("venv", "ensurepip"):
            if importlib.util.find_spec(module) is None:
                raise SetupError(
                    f"This Python has no {module}, which makes environments. On Debian and Ubuntu "
                    "it is a package of its own: sudo apt install python3-venv. "
                    "Then run the same command again."
                )
        print(f"Making an environment in {self.folder}", flush=True)
        command = [sys.executable, "-m", "venv", "--clear", str(self.folder)]
        result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if result.returncode:
            words = result.stdout.decode(errors="replace").strip()
            raise SetupError(f"The environment could not be made:\n{words}")
        self.write_stamp("", [])

    def install(self, extras):
        """Install this project with some extras into the folder, which must be usable."""
        target = f".[{','.join(extras)}]"
        print(f"Installing {target}: a minute or two the first time", flush=True)
        arguments = ["install", "--constraint", "constraints.txt", "--editable", target]
        uv = shutil.which("uv")
        if uv:
            command = [uv, "pip", arguments[0], "--python", str(self.python)] + arguments[1:]
            if self.run_logged(command) == 0:
                return
            print("uv could not install it; trying pip", flush=True)
        quiet = ["--disable-pip-version-check", "--no-input"]
        if self.run_logged([str(self.python), "-m", "pip"] + arguments + quiet):
            raise SetupError(self.why_it_failed())

    def run_logged(self, command):
        """Run a command, its words into the log and a sign of life on the terminal."""
        packages = 0
        with self.log.open("w", encoding="utf-8") as log:
            process = subprocess.Popen(
                command, cwd=str(self.root), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
            for line in process.stdout:
                text = line.decode(errors="replace")
                log.write(text)
                packages += text.startswith("Collecting ")
                if sys.stdout.isatty():
                    phase = "writing" if text.startswith("Installing ") else "found"
                    print(f"\r  {packages} packages {phase} ", end="", flush=True)
        if sys.stdout.isatty():
            print()
        return process.wait()

    def is_offline(self):
        """Whether the last installation failed because the network could not be reached."""
        text = self.log.read_text(encoding="utf-8", errors="replace")
        return any(words in text for words in OFFLINE)

    def why_it_failed(self):
        """Say why the last installation failed, from its log."""
        text = self.log.read_text(encoding="utf-8", errors="replace")
        whole = f"All that was said is in {self.log}."
        if self.is_offline():
            return (
                "Installing failed: the package index could not be reached. Is this computer "
                "online, and does it need a proxy (HTTPS_PROXY)? Then run the same command again; "
                f"what was downloaded already is kept. {whole}"
            )
        last = "\n".join("    " + line for line in text.strip().splitlines()[-12:])
        afresh = f"To start afresh, remove {self.folder} and run the same command again."
        return f"Installing failed:\n{last}\n{whole}\n{afresh}"

    def prepare(self, extras):
        """Make it have these extras: at once if it has them, mending it where it is broken."""
        if self.has(extras):
            return
        stamp = self.installed() or {"fingerprint": None, "extras": []}
        extras = sorted(set(extras) | set(stamp["extras"]))
        fresh = not self.is_usable()
        if fresh:
            if self.folder.exists():
                print("The environment in .venv does not work: making it anew", flush=True)
            self.create()
        try:
            self.install(extras)
        except SetupError:
            # An earlier call that was cut off may have left packages that pip cannot mend.
            half_made = stamp["fingerprint"] == ""
            if fresh or not half_made or self.is_offline():
                raise
            self.create()
            self.install(extras)
        self.write_jupyterlab_settings()
        self.write_stamp(self.fingerprint(), extras)

    def write_jupyterlab_settings(self):
        """Set JupyterLab up inside the environment; the user's own settings stay untouched."""
        folder = self.folder / "share" / "jupyter" / "lab" / "settings"
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(JUPYTERLAB_SETTINGS, indent=2)
        (folder / "overrides.json").write_text(text, encoding="utf-8")

    def variables(self):
        """Environment variables under which `python` and every kernel are this environment's."""
        variables = dict(os.environ)
        for name in ("JUPYTER_PATH", "PYTHONHOME"):
            variables.pop(name, None)
        variables["PATH"] = os.pathsep.join([str(self.scripts), variables.get("PATH", "")])
        variables["VIRTUAL_ENV"] = str(self.folder)
        variables["JUPYTER_PREFER_ENV_PATH"] = "1"
        # Tabs that are open belong to this course, not to the user's other JupyterLabs.
        workspaces = self.folder / "share" / "jupyter" / "lab" / "workspaces"
        variables["JUPYTERLAB_WORKSPACES_DIR"] = str(workspaces)
        return variables


# ---------------------------------------------------------------- the commands


def lab_command(python, arguments):
    """Command line that opens the course in JupyterLab, the whole checkout in its file browser."""
    command = [str(python), "-m", "jupyterlab", f"--ServerApp.root_dir={ROOT}"]
    command.append(f"--LabApp.default_url=/lab/tree/{START}")
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")
    return command + arguments


def test_command(python, arguments):
    """Command line that runs the tests, on up to eight processors."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return [str(python), "-m", "pytest", "-n", str(min(cores or 1, 8))] + arguments


def hand_over(command, variables):
    """Become this command: it gets the terminal, its signals, and the last word on the status."""
    os.chdir(str(ROOT))
    sys.stdout.flush()
    if os.name == "posix":
        os.execve(command[0], command, variables)
    process = subprocess.Popen(command, env=variables)
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            pass  # the command got it too, and knows what to do


def main(arguments):
    """Run a command of this script; return its exit status."""
    if sys.version_info < MINIMUM:
        print(too_old(sys.version_info, sys.executable), file=sys.stderr)
        return 1
    if "-h" in arguments or "--help" in arguments:
        print(__doc__.strip())
        return 0
    try:
        command, extras, rest = parse(arguments)
        environment = Environment(ENVIRONMENT, ROOT)
        environment.prepare(extras)
    except SetupError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. The same command goes on from here.", file=sys.stderr)
        return 130
    line = {"lab": lab_command, "test": test_command}[command](environment.python, rest)
    return hand_over(line, environment.variables())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
