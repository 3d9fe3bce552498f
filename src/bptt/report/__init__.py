"""A page about a model and how it was trained: what its units do, what it expects, how far its gradients reach."""
