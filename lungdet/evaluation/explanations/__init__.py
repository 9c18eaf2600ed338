"""Whether heat maps point at disease: maps of a run's test images, and what they are measured beside."""
