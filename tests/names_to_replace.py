"""Names that the package still has and should lose, by module (test_names.py). These lists may only shrink."""

STILL_DEFINED: dict[str, str] = {}
STILL_IN_CUDA: dict[str, str] = {}
STILL_VAGUE: dict[str, str] = {
    "inference.language_model": "found",
    "kernels.cpu.__init__": "found given",
    "kernels.cpu.cells": "here whole",
    "kernels.cpu.gemm": "some whole",
    "kernels.cpu.gradient": "found own",
    "kernels.cpu.loss": "found some whole",
    "kernels.cpu.simd": "some whole",
    "kernels.cuda.elementwise": "found given",
    "kernels.cuda.gemm": "found",
    "kernels.cuda.recurrence": "found given",
    "kernels.cuda.stepwise": "found given",
    "kernels.cuda.tiling": "found",
    "nn.cells": "found",
}
