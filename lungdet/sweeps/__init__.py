"""What stands around the jobs of a multirun: what precedes it, the search, the report at its end."""
