"""Why a file of weights is not read, and what to do then: the errors that several modules have in common."""

from __future__ import annotations

from pathlib import Path

from ndissect.store.errors import NDError


def damaged(path: Path, why: str) -> NDError:
    """The error for a file that is cut short, or no checkpoint at all; ``why`` says what was seen."""
    return NDError(f"{path} is damaged or not a checkpoint: {why[:200]}", "Copy or download the weights again")


def refused(path: Path, what: str) -> NDError:
    """The error for a file that holds ``what``, which is not read as weights."""
    return NDError(f"{path} holds {what}", "Give plain dense tensors: torch.save(network.state_dict(), FILE)")


def holds_code(path: Path, name: str, hint: str = "") -> NDError:
    """The error for a file whose weights are in an object of the class ``name``."""
    return NDError(
        f"{path} holds more than tensors ({name[:60]}); reading it could run code, so it was not read",
        hint
        or "If you trust its source, torch.load it with weights_only=False and torch.save the tensors alone: "
        'module.state_dict() of a whole module, checkpoint["state_dict"] of a checkpoint',
    )
