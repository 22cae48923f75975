"""What the scripts in the folder above share. They run in foreign interpreters, so nothing here imports Django or the
product's own packages, and nothing heavy is loaded before a script asks for it. A script finds this package because
its own folder is on sys.path. `script_io`: progress, exit codes and the two ways to run a script; `options`: arguments
that several scripts take; `audio`: files in and out; `foreign` and `failures`: other projects' engines in this process,
and what they say when they fail; `gptsovits`: that engine; `sung_speech`: speech made to sing.
"""
