"""The machinery around the maths: training, evaluation, sampling, saving."""
