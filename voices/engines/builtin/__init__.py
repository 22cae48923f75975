"""The built-in speech engine: runs on the CPU with nothing but Python packages. Nothing here imports Django."""
