"""Look at a dataset before training on it: numbers, oddities, copies, what an official set lacks, and advice.

    lungdet check data=chestxray14 data.root=DIR [out=DIR]

takes the same `data` keys as training. What is printed also goes into check.json (all names) and check.html.
"""

import json
from pathlib import Path

import hydra
from omegaconf import DictConfig

from lungdet.configuration.program import CONF, run_program
from lungdet.errors import plain_errors


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="check")
def main(config: DictConfig) -> None:
    """Check the configured dataset."""
    from lungdet.data.check import showing
    from lungdet.data.check.examining import examine
    from lungdet.instantiation import instantiate
    from lungdet.machine.writing import require_writable, write_text

    with plain_errors():
        out = Path(config.out)
        require_writable("out", out)
        report = examine(instantiate("data", config.data, config.trust))
        facts = {key: value for key, value in report.items() if key not in ("tables", "sheet")}
        out.mkdir(parents=True, exist_ok=True)
        write_text(out / "check.json", json.dumps(facts, indent=1, allow_nan=False) + "\n")
        write_text(out / "check.html", showing.page(report))
        showing.show(report, config.named)
        print(f"written: {out / 'check.json'}, {out / 'check.html'}")


def start() -> None:
    """Check as the command line says."""
    run_program(main, "check")
