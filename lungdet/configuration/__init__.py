"""What a command line asks for, refused before anything is done where nothing would heed it."""
