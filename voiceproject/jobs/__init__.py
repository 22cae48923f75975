"""Jobs of every kind: their life, their queue and what is told of them.

`job` has the abstract model and its transitions, with the table of who may do what; `statements` the prepared UPDATE
that ends one, `status` the states, `files` what becomes of its files, `queue` whose turn it is. `signals` announces an
end to other rooms. `heartbeat` keeps a running job alive, `attempt` runs its
stages and commands, `events` and `watch` tell clients of changes, `idempotency`
keeps a request from being done twice, `suspension` blocks a tenant. `broker` is Dramatiq's, `api` what lists share.
"""
