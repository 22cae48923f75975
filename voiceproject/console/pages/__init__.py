"""What the console's pages show that are neither a list nor one row: `failures`, by their cause."""
