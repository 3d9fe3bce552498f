"""The maths: pure functions on arrays of any array-API library.

T steps, B sequences side by side, V symbols, H units (the hidden size), I inputs of a layer, P parameters in all. Time comes
first: states are (T, B, H), one row per sequence, so a product with a weight matrix W (out, in) is x @ W.T. A name with d in
front, `da`, is the gradient of the loss with respect to that thing. The standard has no x[t] on three axes, hence x[t, ...];
products outside the loops over time are written `matmul`.
"""
