"""One run: compose the configuration, start or continue the run, train.

    python train.py model=cnn_lstm
    python train.py -m model=cnn,cnn_lstm seed=0,1,2

What it does stands in lungdet/programs/train.py; `lungdet train` is the same.
"""

from lungdet.programs.train import start

if __name__ == "__main__":
    start()
