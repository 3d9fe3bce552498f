"""Data parallel training: the processes that train one model, and the all-reduce of their gradients."""
