"""Text on its way in: symbols to ids, files to sequences, sequences to batches."""
