"""The schedule in iterations, computed from epochs, batch size and number of images."""

import math

from detectron2.config import CfgNode

from cervical_d2.errors import UserError


def above_floor(solver: CfgNode) -> tuple[int, ...]:
    """`solver.STEPS` without the drops that would take the learning rate below `LR_FLOOR`.

    Raises:
        UserError: the scheduler has no steps, or the rate starts below the floor.
    """
    if not solver.LR_FLOOR:
        return tuple(solver.STEPS)
    if "MultiStep" not in solver.LR_SCHEDULER_NAME or not 0 < solver.LR_FLOOR <= solver.BASE_LR:
        raise UserError(
            f"SOLVER.LR_FLOOR is {solver.LR_FLOOR:g}; it needs WarmupMultiStepLR and a value from 0 (off) to "
            f"SOLVER.BASE_LR {solver.BASE_LR:g}"
        )
    slack = 1 + 1e-9  # 0.01 * 0.1 ** 3 is a little less than 1e-5
    rates = (solver.BASE_LR * solver.GAMMA**number for number in range(1, len(solver.STEPS) + 1))
    return tuple(step for step, rate in zip(solver.STEPS, rates, strict=True) if rate * slack >= solver.LR_FLOOR)


def resolve_schedule(cfg: CfgNode, images: int) -> list[str]:
    """Convert all lengths in `cfg` to iterations, in place, and return log lines. `images`: images per epoch.

    With `SOLVER.REFERENCE_BATCH` b > 0 the learning rate is multiplied by IMS_PER_BATCH / b (Goyal et al. 2017), and
    lengths in iterations are divided by it, so that the number of images stays the same. A resolved config does not
    change when it is resolved again.
    """
    solver, test = cfg.SOLVER, cfg.TEST
    per_epoch = images / solver.IMS_PER_BATCH
    lines = []
    if solver.REFERENCE_BATCH and solver.REFERENCE_BATCH != solver.IMS_PER_BATCH:
        factor = solver.IMS_PER_BATCH / solver.REFERENCE_BATCH
        lines.append(f"batch {solver.REFERENCE_BATCH} -> {solver.IMS_PER_BATCH}: learning rate x {factor:g}")
        solver.BASE_LR *= factor
        solver.MAX_ITER = math.ceil(solver.MAX_ITER / factor)
        solver.STEPS = tuple(round(step / factor) for step in solver.STEPS)
        solver.WARMUP_ITERS = round(solver.WARMUP_ITERS / factor)
        test.EVAL_PERIOD = round(test.EVAL_PERIOD / factor)
        solver.REFERENCE_BATCH = solver.IMS_PER_BATCH
    if solver.MAX_EPOCHS:
        solver.MAX_ITER = math.ceil(solver.MAX_EPOCHS * per_epoch)
    if solver.EPOCH_STEPS:
        solver.STEPS = tuple(round(epoch * per_epoch) for epoch in solver.EPOCH_STEPS)
    if test.EVAL_EPOCHS:
        test.EVAL_PERIOD = max(1, round(test.EVAL_EPOCHS * per_epoch))
    solver.STEPS = above_floor(solver)
    # Detectron2 refuses steps beyond the end, which remain if MAX_ITER was shortened.
    solver.STEPS = tuple(step for step in solver.STEPS if step < solver.MAX_ITER)
    steps = f", drops after {', '.join(map(str, solver.STEPS))}" if "MultiStep" in solver.LR_SCHEDULER_NAME else ""
    lines.append(
        f"{solver.MAX_ITER} iterations of {solver.IMS_PER_BATCH} images = {solver.MAX_ITER / per_epoch:.1f} epochs "
        f"of {images} images; learning rate {solver.BASE_LR:g} ({solver.LR_SCHEDULER_NAME}), "
        f"warm-up {solver.WARMUP_ITERS}{steps}; evaluation every {test.EVAL_PERIOD or 'end'}"
    )
    return lines
