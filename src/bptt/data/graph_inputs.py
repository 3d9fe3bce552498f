"""What a recorded update does besides the maths: read its batch, note its numbers, replace the parameters; all on the device.

A recorded update works on arrays that stay in place, so what differs from update to update comes from row `at` of a table.
"""

from bptt.backend import Array, device, namespace
from bptt.data.batches import gather
from bptt.dispatch import accelerated


@accelerated
def batch(ids: Array, columns: Array, at: Array, ramp: Array, ones: Array, full: bool) -> tuple[Array, Array, Array]:
    """Inputs, targets and mask (T, B) of the columns (K, 2, W) in row `at` (1,), of which the first B count.

    `ids`, `ramp`, `ones` and `full` are those of `batches.gather`.
    """
    own = namespace(ids).take(columns, at, axis=0)
    return gather(ids, own[0, :, : ones.shape[1]], ramp, ones, full)


@accelerated
def finish(finite: Array, loss: Array, norm: Array, measured: Array, at: Array) -> None:
    """Write down the loss and norm of an update in row `at` (1,) of `measured` (K, 2), whether all was finite, and go on."""
    xp = namespace(loss)
    rows = xp.reshape(xp.arange(measured.shape[0], dtype=at.dtype, device=device(at)), (-1, 1))
    measured[...] = xp.where(rows == at, xp.stack([loss, norm]), measured)
    finite[...] = finite & xp.isfinite(loss) & xp.isfinite(norm)
    at[...] = at + 1


@accelerated
def replace(finite: Array, params_vector: Array, new_params_vector: Array, states: Array, new_states: Array) -> None:
    """Let new parameters and states take the place of the old ones, unless something was not finite."""
    xp = namespace(params_vector)
    params_vector[...], states[...] = xp.where(finite, new_params_vector, params_vector), xp.where(finite, new_states, states)
