"""The environment variables of a launcher (mpiexec, srun); imports nothing slow."""

import os

LAUNCHER_VARIABLES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")  # hold the number of processes


def launched_processes() -> int:
    """Return the number of processes that the launcher started; 1 without a launcher."""
    return max((int(os.environ[name]) for name in LAUNCHER_VARIABLES if os.environ.get(name, "").isdigit()), default=1)
