"""Running networks over labelled images and counting what their units detect."""
