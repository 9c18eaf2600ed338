"""What is in a dataset, before anything is trained on it: `lungdet check data=NAME`."""
