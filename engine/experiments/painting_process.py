"""A painter in a process of its own, which is asked by lines of JSON: ``nd paint STORE --serve --layer LAYER``.

What asks it needs neither torch nor the network. It writes one line on the standard output when it is ready, and then
reads a line on the standard input, and answers by one line, until it is told to quit or the input ends. What the
network's own code prints goes to the standard error.

Ready::

    {"ready": true, "store": "x.nd.h5", "layer": "layer4", "concepts": ["tree", ...], "map_size": [h, w],
     "picture_size": [H, W], "samples": 10000, "units": 20, "notes": [...]}

Asked, and answered::

    {"do": "sample", "number": 17}      {"sample": 17, "picture": PNG}
    {"do": "paint", "edits": [EDIT, ...], "label": true}
                                        {"picture": PNG, "changed_inside": 96, "pixels_inside": 96,
                                         "changed_outside": 0, "pixels_outside": 928, "largest_outside": 0,
                                         "concepts": [{"concept": "tree", "before": 0, "after": 96}, ...]}
    {"do": "save", "path": "x.png", "force": false}
                                        {"saved": "x.png", "edits": "x.json"}
    {"do": "quit"}                      {"quit": true}

PNG: the picture as a PNG file in base64. EDIT: ``{"concept": "tree", "action": "add" or "remove", "cells": [[row,
column], ...], "strength": 1.0}``, cells of the layer's map, counted from 0. The edits of a command are all edits of the
current sample in their order: to undo one, ask without it. ``"label": false`` leaves out the labeller, which can take
longer than the picture; ``concepts`` is empty then. ``save`` writes the picture that was answered last, and beside it
the edits (:mod:`ndissect.engine.experiments.edits`), which `nd paint STORE --edits x.json -o y.png` makes again.

A command that fails is answered by ``{"error": MESSAGE, "hint": HINT}``, and the next one is read. So is the first
line where the painter cannot be opened, with which the process ends; its exit code is that of any command of nd.
"""

from __future__ import annotations
