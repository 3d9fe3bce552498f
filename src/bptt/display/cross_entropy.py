"""A cross-entropy as people read it: in nats and bits, and in words."""

import math


def bits(nats: float) -> float:
    """Convert nats to bits: 1 nat is 1.44 bits."""
    return nats / math.log(2)


def nats_and_bits(nats: float) -> str:
    """Format a cross-entropy in both units, as in 1.6286 nats (2.3496 bits)."""
    return f"{nats:.4f} nats ({bits(nats):.4f} bits)"


def per_held_out(nats: float) -> str:
    """Format a validation loss in both units, as in 1.6286 nats per held-out character (2.3496 bits)."""
    return f"{nats:.4f} nats per held-out character ({bits(nats):.4f} bits)"


def in_words(nats: float, symbols: str = "characters") -> str:
    """Explain a mean cross-entropy by its perplexity; `symbols` is what the text consists of, characters or bytes."""
    perplexity = math.exp(min(700.0, nats))
    number = f"{perplexity:,.1f}" if perplexity < 1e6 else f"{perplexity:.3g}"
    return f"as unsure as among {number} equally likely {symbols}"
