"""`python -m lungdet ..` is `lungdet ..`."""

from lungdet.cli import main

main()
