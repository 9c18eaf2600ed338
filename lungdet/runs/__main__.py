"""`python -m lungdet.runs FOLDER`."""

from lungdet.runs.listing import main

main()
