"""The built-in engine: clones voices on the CPU with Python packages alone. Imports no Django.

`engine` is what the product uses. It sends sentences to child processes (`pool`, `child`), in which a base voice of
`languages` speaks and `synthesizer` converts its sound to the reference's (`profiles`, `conversion`, `world`).
`singing` converts the vocals of a song. `features/` holds what was computed of the base voices beforehand.
"""
