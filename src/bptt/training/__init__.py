"""One run: set up, train, evaluate, save, resume."""
