"""Links under which anybody may hear one thing that was made: signed, for a time, taken back on demand.

`models` has the links, `api` what their tenants do with them, below the job's own routes, and `pages` what those see
who follow one. `SHARING=false` turns all of it off.
"""
