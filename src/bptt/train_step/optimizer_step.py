"""What follows the gradient in an update: clipping, the learning rate, the optimizer and the average of the parameters."""

from typing import Any

from bptt.backend import Array
from bptt.config.defaults import Hyperparameters
from bptt.config.settings import Settings
from bptt.nn import model, optimizers, parametrization, schedules
from bptt.nn.optimizers import OPTIMIZERS
from bptt.train_step.state import TrainTask

WARMUP = 200  # updates in which the learning rate rises; a tenth of a run of fewer than 2,000


def apply_optimizer(
    task: TrainTask, params_vector: Array, opt_state: Any, average: Array | None, grad: Array, learning_rate: Array | float
) -> tuple[Array, Any, Array | None, Array]:
    """The parameters (P,), the optimizer's state and the average after an update, and the gradient's norm before clipping."""
    grad, norm = clip(task.settings, grad)
    params_vector, opt_state, average = optimizer_step(task, params_vector, opt_state, average, grad, learning_rate)
    return params_vector, opt_state, average, norm


def optimizer_step(
    task: TrainTask, params_vector: Array, opt_state: Any, average: Array | None, grad: Array, learning_rate: Array | float
) -> tuple[Array, Any, Array | None]:
    """The parameters (P,), the optimizer's state and the average after a step with a gradient that was clipped."""
    optimizer = OPTIMIZERS[task.settings.optimizer]
    params_vector, opt_state = optimizer.update(params_vector, grad, opt_state, learning_rate, **task.optimizer_options)
    if average is not None:
        average = optimizers.average_update(average, params_vector, task.plan.average)
    return params_vector, opt_state, average


def optimizer_options(config: model.Config, settings: Settings, plan: Hyperparameters) -> dict[str, Any]:
    """The keyword arguments of the optimizer: what the settings say, and its own defaults for the rest."""
    options = {
        "beta1": settings.beta1,
        "beta2": settings.beta2,
        "weight_decay": plan.weight_decay,
        "groups": parametrization.param_groups(config, plan.parametrization),
    }
    names = OPTIMIZERS[settings.optimizer].options
    return {name: value for name, value in options.items() if name in names and value is not None}


def clip(settings: Settings, grad: Array) -> tuple[Array, Array]:
    """The gradient after clipping by norm, if the settings ask for it, and its norm before."""
    return optimizers.clip_by_norm(grad, settings.clip_norm) if settings.clip_norm else (grad, optimizers.norm(grad))


def learning_rate_at(task: TrainTask, step: int) -> float:
    """The learning rate of the update after `step` others."""
    plan, settings = task.plan, task.settings
    warmup = min(WARMUP, plan.steps // 10) if settings.warmup is None else settings.warmup
    return schedules.learning_rate(
        step,
        plan.learning_rate,
        schedule=settings.schedule,
        warmup=warmup,
        total_steps=plan.steps,
        final_rate=settings.final_rate,
    )
