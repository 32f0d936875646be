"""How the names of concepts are compared, and which names say that there is no concept."""

from __future__ import annotations

#: What means that pixels or images have no concept, as :func:`normal_name` writes it.
NO_CONCEPT = frozenset(
    (
        *("", "none", "n/a", "background", "bg", "void", "ignore", "ignored"),
        *("unlabeled", "unlabelled", "unlabel", "other", "others"),
    )
)


def normal_name(name: str) -> str:
    """``name`` as names are compared: without case, ``_`` and ``-`` as spaces."""
    return " ".join(name.replace("_", " ").replace("-", " ").casefold().split())


def is_no_concept(name: str) -> bool:
    """Whether something that is called ``name`` is no concept, as background and void are not."""
    return normal_name(name) in NO_CONCEPT
