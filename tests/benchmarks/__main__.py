"""Run every benchmark, print a table and keep benchmarks.json beside the hardware and versions it was measured on.

LUNGDET_DATA=DIR python -m tests.benchmarks [name ..]
"""

import importlib
import json
import os
import sys
from datetime import date
from pathlib import Path

from rich.console import Console
from rich.table import Table

from lungdet.machine import hardware
from lungdet.runs.software import versions


def main() -> None:
    """The named benchmarks, or all of them."""
    if "LUNGDET_DATA" not in os.environ:
        sys.exit("benchmarks are measured on real radiographs: set LUNGDET_DATA to the folder that holds ChestX-ray14")
    data = Path(os.environ["LUNGDET_DATA"]).resolve()
    names = sys.argv[1:] or sorted(path.stem[6:] for path in Path(__file__).parent.glob("bench_*.py"))
    results = []
    for name in names:
        print(f"measuring {name} ..", flush=True)
        results += importlib.import_module(f"tests.benchmarks.bench_{name}").run(data)
    facts = {"date": date.today().isoformat(), "hardware": hardware.describe(), "versions": versions()}
    Path("benchmarks.json").write_text(json.dumps({**facts, "results": results}, indent=1) + "\n")
    table = Table("benchmark", "median", "quartiles", "rates", "measured on", title=facts["hardware"]["device"])
    for result in results:
        if "ratio" in result:
            middle = f"{result['ratio']:.3g}"
            rates = f"{result['ours']:,.0f} / {result['theirs']:,.0f} {result['unit']}"
        elif "seconds" in result:
            middle, rates = f"{result['seconds']:.2f} s", ""
        else:
            middle, rates = f"{result['value']:.3g} {result['unit']}", ""
        table.add_row(result["name"], middle, f"{result['low']:.3g} .. {result['high']:.3g}", rates, result["detail"])
    Console(width=None if sys.stdout.isatty() else 160).print(table)


main()
