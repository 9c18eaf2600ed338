"""What computes and who shares it: hardware, processes, signals, files, commands."""
