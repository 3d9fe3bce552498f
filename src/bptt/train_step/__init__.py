"""One update of the parameters, and the ways to make it: threads, micro-batches (gradient accumulation), CUDA graphs."""
