"""What all HTTP views share.

`errors` makes answers of errors, `api` has limits on bodies, strict forms, pages and downloads with ranges, `slots`
bounds who may wait, `streams` keeps what stays open and `threads` the pool, `middleware` gives every request its id and
its log line, `schema` is the OpenAPI document, `pages` the studio and the docs, `static_files` and `compression` what
is sent small, `client_ip` who asks, `cors` what other origins' pages may send and read.
"""
