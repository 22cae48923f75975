"""How text is read before an engine speaks it. `languages` tells languages by their scripts, `sentences` cuts a text
into sentences of one language each, `pieces` cuts those that are too long. Pure Python, imports no Django.
"""
