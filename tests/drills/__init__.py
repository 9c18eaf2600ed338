"""Long simulations of what the statistics promise; `make drills`."""
