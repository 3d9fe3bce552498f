"""From a text to batches: source, tokenizer (vocabulary), dataset with a validation set, sequences, batches."""
