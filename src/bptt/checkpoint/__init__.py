"""What is saved: the checkpoint format, reading and writing a checkpoint, the run folder."""
