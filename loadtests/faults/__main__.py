"""Break one part after another, and say what became of the requests.

    python -m loadtests.faults --list
    python -m loadtests.faults                # all of them
    python -m loadtests.faults replica gcs

Each takes a minute or two, in processes of its own. Exits 1 where an accepted request was lost or
something was billed twice.
"""

from __future__ import annotations

import argparse
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path

from loadtests.faults.books import table
from loadtests.faults.run import Options, Outcome, run
from loadtests.faults.strikes import FAULTS

__all__ = ["main"]


def main() -> int:
    """The command."""
    options = _options()
    if options.list:
        for fault in FAULTS.values():
            print(f"{fault.name:14} {fault.what}")
        return 0
    if options.into is not None:
        [name] = options.name
        found = run(FAULTS[name], Options(options.rate, options.before, options.after))
        options.into.write_bytes(pickle.dumps(found))
        return 0
    outcomes: dict[str, Outcome] = {}
    failed = []
    for name in options.name or FAULTS:
        outcome = _apart(name, options)
        if outcome is None:
            failed.append(name)
            continue
        outcomes[name] = outcome
        _tell(name, outcome)
    print("\n" + table({n: (o.verdict, o.healed_s, o.sound) for n, o in outcomes.items()}))
    if failed:
        print(f"could not be done: {', '.join(failed)}")
    return int(bool(failed) or not all(outcome.sound for outcome in outcomes.values()))


def _apart(name: str, options: argparse.Namespace) -> Outcome | None:
    """One fault in a process of its own: Ray reads its environment once."""
    with tempfile.TemporaryDirectory() as folder:
        into = Path(folder) / "outcome"
        command = [sys.executable, "-m", "loadtests.faults", name, "--into", str(into)]
        for word in ("rate", "before", "after"):
            command += [f"--{word}", str(getattr(options, word))]
        # Ray tells its driver of every process that dies, which here is the point.
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if into.exists():
            found: Outcome = pickle.loads(into.read_bytes())
            return found
        print(f"{name}: could not be done\n{done.stderr[-4000:]}", flush=True)
        return None


def _tell(name: str, outcome: Outcome) -> None:
    one = outcome.verdict
    print(
        f"{name}: {FAULTS[name].what}\n"
        f"  sent {one.sent}, answered {one.answered}, retried {one.retried}, slow {one.slow}; "
        f"lost {one.lost}, unbilled {one.unbilled}, billed twice {one.twice}\n"
        f"  healed after {outcome.healed_s:.1f} s, recovered after {one.recovered_s:.1f} s, "
        f"the longest wait {one.worst_s:.1f} s"
    )
    for what, times in one.trouble.items():
        print(f"  {times} x {what}")
    for note in outcome.notes:
        print(f"  {note}")
    sys.stdout.flush()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.faults",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    default = Options()
    add = parser.add_argument
    add("name", nargs="*", metavar="NAME", help="which (default: all)")
    add("--list", action="store_true", help="say which there are")
    add("--rate", type=float, default=default.rate, help="requests a second")
    add("--before", type=float, default=default.before_s, help="seconds before the fault")
    add("--after", type=float, default=default.after_s, help="seconds after it is healed")
    add("--into", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if unknown := [name for name in options.name if name not in FAULTS]:
        parser.error(f"no fault {', '.join(unknown)}; there are {', '.join(FAULTS)}")
    return options


if __name__ == "__main__":
    sys.exit(main())
