"""What is saved: the format of a checkpoint, reading and writing one, and the folder of a run."""
