"""What is in a dataset, before anything is trained on it: `python -m lungdet.data.check data=NAME`."""
