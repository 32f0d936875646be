"""What must hold of a network before it is dissected."""
