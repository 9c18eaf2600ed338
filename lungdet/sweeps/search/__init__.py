"""A search for hyper-parameters: `sweep=optuna`."""
