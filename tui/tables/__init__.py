"""What tables and screens show, as plain data."""
