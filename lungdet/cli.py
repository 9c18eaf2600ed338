"""The command `lungdet`: one table of what can be started, and what it is called with.

A program is imported when it is asked for, so that help and mistakes are answered at once.
"""

import os
import sys
from importlib import import_module
from importlib.metadata import version

PROGRAMS = {
    "train": "train a model, or with -m many: a run folder with checkpoints, metrics and predictions",
    "evaluate": "compare finished runs: report.html, every number and interval",
    "predict": "have a finished run look at new radiographs: a worklist, most suspicious first",
    "export": "write a finished run as one file that needs no lungdet: ONNX, TorchScript, torch.export",
    "runs": "list the runs in a folder: state, validation, time",
    "check": "look at a dataset before training on it: numbers, oddities, copies, advice",
    "prepare": "decode a dataset's images without training on them",
    "download": "fetch a public dataset",
}
"""Each the name of a module of `lungdet.programs`, and what it is for."""


def main() -> None:
    """Start the program that the first word names."""
    words = sys.argv[1:]
    if words[:1] in (["-sc"], ["--shell-completion"]):
        complete(words)
    elif not words or words[0] in ("-h", "--help", "help"):
        print(usage())
    elif words[0] == "--version":
        from lungdet.runs.software import revision

        print(f"lungdet {version('lungdet')}", f"({revision()})" if revision() else "(no git checkout)")
    elif words[0] in PROGRAMS:
        start(words[0], words[1:])
    else:
        sys.exit(f"lungdet: {words[0]}: {mistake(words[0])}")


def start(program: str, words: list[str]) -> None:
    """Start a program, which calls itself and others as the user does: `lungdet train`."""
    sys.argv = [f"lungdet {program}", *words]
    import_module(f"lungdet.programs.{program}").start()


def usage() -> str:
    """What there is, a line each."""
    lines = "\n".join(f"  {name:10} {purpose}" for name, purpose in PROGRAMS.items())
    return f"""lungdet PROGRAM [key=value ..]

{lines}

  lungdet PROGRAM --help             its keys, choices and examples
  lungdet --version                  with git's revision, for a report of a bug
  eval "$(lungdet -sc install=bash)" completes programs, keys and choices with Tab in this shell"""


def mistake(word: str) -> str:
    """What to say of a first word that names no program."""
    from lungdet.configuration.nearest import hint

    if "=" in word:
        return f"name a program first: lungdet train {word}"
    return f"there is no such program{hint(word, PROGRAMS) or '; there are ' + ', '.join(PROGRAMS)}"


def complete(words: list[str]) -> None:
    """Answer a shell that completes a line: programs here, keys and choices in the program that the line names."""
    line = os.environ.get("COMP_LINE", "")
    name, *rest = line.split(" ")[:2] or [""]
    program = rest[0] if rest else ""
    if "query" in words[-1] and line.count(" ") < 2:
        print(" ".join(name for name in PROGRAMS if name.startswith(program)))
        return
    program = program if program in PROGRAMS else "train"
    os.environ["COMP_LINE"] = line.replace(f"{name} {program}", name, 1)
    sys.argv = ["lungdet", *words]  # what the shell is to complete
    import_module(f"lungdet.programs.{program}").start()
