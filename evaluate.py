"""Finished runs become a report with every number and comparison.

    python evaluate.py runs=outputs/sweeps/FOLDER
    python evaluate.py 'runs=[RUN_A,RUN_B]' threshold.rule=sensitivity threshold.at=0.95
    python evaluate.py runs=RUN data=montgomery data.root=DIR

What it does stands in lungdet/programs/evaluate.py; `lungdet evaluate` is the same.
"""

from lungdet.programs.evaluate import start

if __name__ == "__main__":
    start()
