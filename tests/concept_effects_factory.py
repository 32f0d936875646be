"""Small effects of a generator's units on concepts, random but the same for a unit whenever it is made."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from ndissect.store.concept_effects import ConceptEffects, EffectPictures

HOW = "mean share of pixels over the samples, unit set to zero; 95 % by the paired change"


def effects_of(
    concepts: int, units: int, ablated: tuple[int, ...], *, samples: int = 20, coefficients: tuple[int, ...] = (1, 4)
) -> ConceptEffects:
    """Unit u takes half of concept u (modulo their number) away; ``coefficients``: the concepts that have some."""
    rng = np.random.default_rng(samples)
    before = rng.uniform(0.1, 0.3, concepts)
    after = np.array([before * np.where(np.arange(concepts) == u % concepts, 0.5, 0.99) for u in ablated])
    after = after.reshape(len(ablated), concepts)
    learned = np.array([np.linspace(0, 1, units) ** (k + 1) for k in coefficients]).reshape(len(coefficients), units)
    return ConceptEffects(
        np.array(ablated, np.int32),
        before,
        after,
        after - 0.01,
        after + 0.01,
        samples,
        HOW,
        learned,
        np.array(coefficients, np.int32),
    )


def pictures_of(units: tuple[int, ...]) -> EffectPictures:
    """Of each unit a red and a blue picture of 16 pixels."""
    return EffectPictures(np.array(units, np.int32), tuple((_jpeg((200, u, 0)), _jpeg((0, u, 200))) for u in units))


def _jpeg(colour: tuple[int, int, int]) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (16, 16), colour).save(file, "JPEG")
    return file.getvalue()
