"""Operations of a captured update besides the maths, on the device: gather its batch, record metrics, replace parameters.

A recorded update works on arrays that stay in place, so what differs from update to update comes from row `at` of a table.
"""

from bptt.backend import Array, device, namespace
from bptt.data.batches import gather
from bptt.dispatch import accelerated


@accelerated
def batch(ids: Array, columns: Array, at: Array, ramp: Array, ones: Array, full: bool) -> tuple[Array, Array, Array]:
    """Gather inputs, targets and mask (T, B) of row `at` (1,) of the columns (K, 2, W), of which the first B count.

    `ids`, `ramp`, `ones` and `full` are those of `batches.gather`.
    """
    row = namespace(ids).take(columns, at, axis=0)
    return gather(ids, row[0, :, : ones.shape[1]], ramp, ones, full)


@accelerated
def finish(finite: Array, loss: Array, norm: Array, measured: Array, at: Array) -> None:
    """Record loss, norm and finiteness of an update in row `at` (1,) of `measured` (K, 2), and advance `at`."""
    xp = namespace(loss)
    rows = xp.reshape(xp.arange(measured.shape[0], dtype=at.dtype, device=device(at)), (-1, 1))
    measured[...] = xp.where(rows == at, xp.stack([loss, norm]), measured)
    finite[...] = finite & xp.isfinite(loss) & xp.isfinite(norm)
    at[...] = at + 1


@accelerated
def replace(finite: Array, array: Array, updated: Array) -> None:
    """Replace the elements of an array by those of an updated one, unless something is not finite."""
    array[...] = namespace(array).where(finite, updated, array)
