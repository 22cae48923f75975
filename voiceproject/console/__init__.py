"""The operators' console.

`site` is the admin site with its side bar, `numbers` and `charts` make its first page (`background` finds what takes
long), `admin` has the pages of users, limits, hosts, webhooks and the audit log. For the apps' own pages there are
`base` (every page), `filters` (lists) and `jobs` (a job's page: its `timeline`, its `audio`, its `job_actions`).
The apps tell in `panels` what is shown of them; the console imports none.
"""
