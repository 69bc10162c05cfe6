"""Which device to compute on."""

import torch

from cervical_d2.errors import UserError

# What torch raises for a word that it does not know, a device that is not there, and one that it was built without.
UNUSABLE = (RuntimeError, AssertionError, ImportError)


def usable_device(name: str | None) -> str:
    """`name` ("cpu", "cuda", "cuda:1", ...), or without one CUDA where there is one, else the CPU.

    Raises:
        UserError: torch cannot compute there.
    """
    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=name).cpu()
    except UNUSABLE as error:
        reason = str(error).strip().partition("\n")[0][:120]
        raise UserError(f"device {name}: not usable here ({reason}); leave it out, or name cpu") from error
    return name
