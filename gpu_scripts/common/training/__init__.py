"""What the scripts `*_train.py` share: fine-tuning that is checked first, goes on where it was stopped, and is counted.

`tell`: what the caller hears; `work`: the scratch folder, its state and its lock; `guard` and `children`: other
projects' programs as processes that nothing outlives; `dataset`, `sound` and `report`: recordings, what they are like,
and whether they will do; `transcripts`: what is said in them; `interpreter` and `steps`: the engine's packages, in
processes of their own; `publishing`: the result, renamed into place as a whole.
"""
