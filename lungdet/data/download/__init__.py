"""Fetching the public datasets: `python -m lungdet.data.download montgomery|shenzhen|chestxray14 root=DIR`."""
