"""Several processes that train one model: who they are, and how they add up their gradients."""
