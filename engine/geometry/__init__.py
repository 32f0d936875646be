"""Where a layer's maps lie: on the image, and on the grid of labels."""
