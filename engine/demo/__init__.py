"""The bundled demonstration: procedural labelled scenes in Broden's format and a small network trained on them."""
