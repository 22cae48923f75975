"""The built-in engine: clones voices on the CPU with Python packages alone. Imports no Django.

`engine` is what the product uses. It sends sentences to child processes (`pool`, `child`; `turns` says whose is next).
In a child, a base voice of `languages` speaks, and `synthesizer` converts its sound to the reference's: `base_voices`
and `profiles` hold what is known of the two, `conversion` and `world` compute, `prosody` varies the melody.
`singing` converts the vocals of a song. `features/` holds what was computed of the base voices beforehand.
"""
