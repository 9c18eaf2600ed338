"""The measured claims: `make bench` runs them all."""
