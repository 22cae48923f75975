"""What the scripts `*_train.py` share: fine-tuning that is checked first, goes on where it was stopped, and is counted.

`tell`: what the caller hears; `work`: the scratch folder, its state and its lock; `guard` and `children`: other
projects' programs as processes that nothing outlives; `dataset`, `sound` and `report`: recordings, what they are like,
and whether they will do; `transcripts`: what is said in them; `steps`: what needs the engine's packages, in processes
of its own; `publishing`: the result, renamed into place as a whole.
"""
