"""`bptt report`: a page about a model and its run, with curves, units, expectations and gradient flow."""
