"""Fetching the public datasets: `lungdet download montgomery|shenzhen|chestxray14 root=DIR`."""
