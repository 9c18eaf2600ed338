"""Who is in which part: splits, protocols, narrowing, and the search for leaks."""
