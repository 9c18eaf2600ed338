"""What people start: `lungdet train`, `lungdet evaluate` .., each a module with `start`, listed in `lungdet.cli`."""
