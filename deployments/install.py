"""Makes `.venv` and installs Polyvec into it, torch first. Stdlib only: nothing else is there yet.

    python3 deployments/install.py [EXTRA ...]

torch goes first and alone because its wheel is chosen by the machine, which a requirement cannot
say: without an NVIDIA GPU the CPU build, from PyTorch's CPU index where that answers, else what pip
is configured with, unless that is the CUDA build (gigabytes). `POLYVEC_TORCH=cpu|cuda` overrides.
Two names stand for extras that the machine decides about: `vllm` is `gpu` or `cpu`, and `auto` is
`gpu` or nothing, because the engine `auto` is vLLM on a GPU alone.
A stamp in `.venv`, or the folder that `POLYVEC_VENV` names instead, makes the next run return at
once. Extras add up: no verb undoes another's.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

__all__ = ["Refusal", "by_machine", "closure", "install", "is_cuda", "main", "pins", "wanted_build"]

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / os.environ.get("POLYVEC_VENV", ".venv")
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "polyvec-install.json"
LOG = VENV / "polyvec-install.log"

_OLDEST = (3, 11)
_PIP = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", "--no-input"]
_QUIET = ["--quiet", "--progress-bar", "off"]
# The first answer of an index, in seconds; a download that has begun may take as long as it likes.
_PROBE_S = 20.0
_PROBE_ENVIRONMENT = {
    "UV_HTTP_TIMEOUT": "8",
    "UV_HTTP_CONNECT_TIMEOUT": "8",
    "UV_HTTP_RETRIES": "0",
}


class Refusal(Exception):
    """`Refusal(sentence)`: the installation cannot go on, and what to do about it."""


def main(arguments: list[str] | None = None) -> int:
    """The command: installs, and answers with an exit code."""
    if sys.version_info < _OLDEST:
        _say("Polyvec needs Python 3.11 or later; this is %s." % platform.python_version())
        _say("Name another one: make PYTHON=python3.12")
        return 1
    try:
        with open(__file__) as lock:  # two verbs at once must not build the same .venv
            fcntl.flock(lock, fcntl.LOCK_EX)
            install(sys.argv[1:] if arguments is None else arguments)
    except Refusal as refusal:
        _say(str(refusal))
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def install(extras: list[str]) -> None:
    """Bring `.venv` to what `pyproject.toml` and `extras` ask for; usually it is there already."""
    project = _project()
    stamp = _read_stamp()
    build = os.environ.get("POLYVEC_TORCH", "")
    state = {"project": _digest(), "python": _minor(), "root": str(ROOT), "torch": build}
    known = stamp.get("extras", [])
    asked = closure(project, by_machine(extras))
    if all(stamp.get(key) == value for key, value in state.items()) and asked <= set(known):
        return
    started = time.monotonic()
    _make_venv(stale=stamp.get("root", str(ROOT)) != str(ROOT))
    STAMP.unlink(missing_ok=True)  # until the end, this .venv promises nothing
    every = asked | (set(known) & set(_extras(project)))
    _install_torch(pins(project, every), wanted_build())
    label = f"polyvec[{','.join(sorted(every))}]" if every else "polyvec"
    target = f"{ROOT}[{','.join(sorted(every))}]" if every else str(ROOT)
    _step(f"{label} and what it needs", [*_PIP, "install", *_QUIET, "--editable", target])
    STAMP.write_text(json.dumps({**state, "extras": sorted(every)}, indent=1) + "\n")
    _say(f"installed in {time.monotonic() - started:.0f} s")


def by_machine(extras: list[str]) -> list[str]:
    """Those extras, with `vllm` and `auto` in the words of this machine. vLLM is for Linux."""
    if not {"auto", "vllm"} & set(extras):
        return extras
    found = [extra for extra in extras if extra not in ("auto", "vllm")]
    if sys.platform != "linux":
        return found
    if wanted_build() == "cuda":
        return [*found, "gpu"]
    return [*found, "cpu"] if "vllm" in extras else found


def closure(project: dict[str, Any], extras: list[str]) -> set[str]:
    """The extras asked for, and those that they contain (`test` has `polyvec[demo]`)."""
    table = _extras(project)
    found: set[str] = set()
    waiting = list(extras)
    while waiting:
        extra = waiting.pop()
        if extra not in table:
            raise Refusal(f"no extra {extra!r}; there are {', '.join(sorted(table))}")
        if extra not in found:
            found.add(extra)
            for requirement in table[extra]:
                inner = re.match(r"polyvec\[(.+)\]", requirement)
                waiting += inner.group(1).split(",") if inner else []
    return found


def pins(project: dict[str, Any], extras: set[str]) -> list[str]:
    """`torch==…` and, where an extra pins it, its twin `torchvision==…`, without a build's name."""
    listed = list(project["dependencies"])
    for extra in sorted(extras):
        listed += _extras(project)[extra]
    found = [re.match(r"(torch|torchvision)==([\w.]+)", requirement) for requirement in listed]
    return sorted({f"{pin.group(1)}=={pin.group(2)}" for pin in found if pin})


def wanted_build() -> str:
    """`cuda` on a machine with an NVIDIA GPU, else `cpu`; `POLYVEC_TORCH` knows better."""
    asked = os.environ.get("POLYVEC_TORCH", "")
    if asked:
        if asked not in ("cpu", "cuda"):
            raise Refusal(f"POLYVEC_TORCH is {asked!r}; it may be cpu or cuda")
        return asked
    if any(Path("/proc/driver/nvidia/gpus").glob("*")):
        return "cuda"
    listing = shutil.which("nvidia-smi")  # elsewhere, as under WSL, only the tool knows
    if listing is None:
        return "cpu"
    try:
        answer = subprocess.run([listing, "-L"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return "cpu"
    return "cuda" if answer.returncode == 0 and "GPU " in answer.stdout else "cpu"


def is_cuda(requirements: list[str]) -> bool:
    """Whether a torch wheel with these requirements is a CUDA build."""
    named = [r for r in requirements if "extra ==" not in r]
    return sys.platform == "linux" and any(r.startswith(("nvidia-", "cuda-")) for r in named)


def _install_torch(wanted: list[str], build: str) -> None:
    torch = wanted[0]
    if all(_installed_build(pin) == build for pin in wanted if pin == torch) and all(
        _installed_build(pin) is not None for pin in wanted
    ):
        return
    if build == "cpu" and _from_torch_index(wanted, "cpu"):
        return
    if not _has_modern_pip():
        _step("pip", [*_PIP, "install", *_QUIET, "--upgrade", "pip"])
    offered = _offered_build(torch)
    if offered != build and build == "cuda" and _from_torch_index(wanted, "auto"):
        return
    if offered != build:
        raise Refusal(_WRONG_BUILD[build].format(torch=torch))
    again = ["--force-reinstall"] if _installed_build(torch) else []
    what = f"{', '.join(wanted)}, {build} build, from where pip is configured to look"
    _step(what, [*_PIP, "install", *_QUIET, "--no-deps", *again, *wanted])


_WRONG_BUILD = {
    "cpu": (
        "This machine has no NVIDIA GPU, but where pip looks {torch} is the CUDA build "
        "(gigabytes), and PyTorch's CPU wheel index did not answer. Point pip at a CPU build with "
        "PIP_FIND_LINKS or PIP_INDEX_URL, or set POLYVEC_TORCH=cuda to accept the CUDA build."
    ),
    "cuda": (
        "This machine has an NVIDIA GPU, but where pip looks {torch} is a CPU build, and PyTorch's "
        "wheel index did not answer. Point pip at a CUDA build with PIP_FIND_LINKS or "
        "PIP_INDEX_URL, or set POLYVEC_TORCH=cpu to serve without the GPU."
    ),
}


def _from_torch_index(wanted: list[str], backend: str) -> bool:
    """PyTorch's own index, asked through uv, which knows where it is. False where it is silent."""
    uv = VENV / "bin" / "uv"
    if not uv.exists() and not _try([*_PIP, "install", *_QUIET, "uv"]):
        return False
    command = [str(uv), "pip", "install", "--python", str(PYTHON), "--no-deps"]
    command += [f"--torch-backend={backend}", *wanted]
    if not _try([*command, "--dry-run"], {**os.environ, **_PROBE_ENVIRONMENT}, _PROBE_S):
        return False
    _step(f"{', '.join(wanted)}, {backend} build, from PyTorch's index", command)
    return True


def _offered_build(torch: str) -> str:
    """What pip would take: `cpu` or `cuda`. Reads the wheel's metadata, not the wheel."""
    command = [*_PIP, "install", "--quiet", "--dry-run", "--ignore-installed", "--no-deps"]
    # Without fast-deps, pip fetches half a gigabyte from an index that has no metadata files.
    command += ["--use-feature=fast-deps", "--report", "-", torch]
    answer = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if answer.returncode:
        raise Refusal(f"pip cannot have {torch}:\n{_tail(answer.stderr)}")
    metadata = json.loads(answer.stdout)["install"][0]["metadata"]
    return "cuda" if is_cuda(metadata.get("requires_dist", [])) else "cpu"


def _installed_build(pin: str) -> str | None:
    """The build that lies in `.venv`, or None where it is absent or of another version."""
    name, version = pin.split("==")
    for folder in VENV.glob(f"lib/python3.*/site-packages/{name}-*.dist-info"):
        if folder.name[len(name) + 1 : -len(".dist-info")].partition("+")[0] == version:
            listed = re.findall(r"(?m)^Requires-Dist: (.+)$", (folder / "METADATA").read_text())
            return "cuda" if is_cuda(listed) else "cpu"
    return None


def _has_modern_pip() -> bool:
    """Whether pip reads metadata without its wheel in a dry run (24 and later)."""
    found = [p.name.split("-")[1] for p in VENV.glob("lib/python3.*/site-packages/pip-*.dist-info")]
    return any(int(version.split(".")[0]) >= 24 for version in found)


def _make_venv(stale: bool) -> None:
    this = VENV / "lib" / f"python{_minor()}"
    if PYTHON.exists() and this.exists() and not stale:
        if not any(this.glob("site-packages/pip")):
            _step("pip", [str(PYTHON), "-m", "ensurepip", "--upgrade"])
        return
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        raise Refusal(
            "This Python cannot make virtual environments: it lacks the venv or ensurepip module. "
            f"On Debian and Ubuntu: apt install python{_minor()}-venv. Then run this again."
        ) from None
    clear = ["--clear"] if VENV.exists() else []
    VENV.mkdir(exist_ok=True)
    _step(f".venv with Python {platform.python_version()}", _venv_command(clear))


def _venv_command(options: list[str]) -> list[str]:
    return [sys.executable, "-m", "venv", *options, str(VENV)]


def _step(what: str, command: list[str]) -> None:
    """Run a command under one line of progress; its own output is shown only if it fails."""
    started = time.monotonic()
    live = sys.stderr.isatty()
    _say(what + " ...", end="" if live else "\n")
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as child:
        output = _watch(child, what, started, live)
    if live:
        _say(f"{what} ... {time.monotonic() - started:.0f} s", start="\r")
    if VENV.exists():
        LOG.write_text(f"{' '.join(command)}\n{output}")
    if child.returncode:
        raise Refusal(f"that failed; the last lines were:\n{_tail(output)}\nAll of them: {LOG}")


def _watch(child: subprocess.Popen[str], what: str, started: float, live: bool) -> str:
    while True:
        try:
            return child.communicate(timeout=1)[0]
        except subprocess.TimeoutExpired:
            if live:
                _say(f"{what} ... {time.monotonic() - started:.0f} s", start="\r", end="")


def _try(command: list[str], env: dict[str, str] | None = None, limit_s: float = 120.0) -> bool:
    try:
        done = subprocess.run(
            command, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=limit_s
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def _project() -> dict[str, Any]:
    import tomllib  # here, because an old Python must get as far as being told that it is old

    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]  # type: ignore[no-any-return]


def _extras(project: dict[str, Any]) -> dict[str, list[str]]:
    return dict(project.get("optional-dependencies", {}))


def _read_stamp() -> dict[str, Any]:
    try:
        found = json.loads(STAMP.read_text()) if PYTHON.exists() else {}
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _digest() -> str:
    parts = [ROOT / "pyproject.toml", Path(__file__)]
    return hashlib.sha256(b"".join(part.read_bytes() for part in parts)).hexdigest()


def _minor() -> str:
    return f"{sys.version_info[0]}.{sys.version_info[1]}"


def _tail(output: str, lines: int = 15) -> str:
    told = [line for line in output.splitlines() if line.strip() and "WARNING:" not in line]
    return "\n".join("    " + line for line in told[-lines:])


def _say(line: str, start: str = "", end: str = "\n") -> None:
    print(f"{start}[install] {line}", end=end, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
