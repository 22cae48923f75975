"""What the scripts in the folder above share. They run in foreign interpreters, so nothing here imports Django or the
product's own packages, and nothing heavy is loaded before a script asks for it. A script finds this package because
its own folder is on sys.path. `script_io`: arguments, progress, exit codes, files and the two ways to run a script;
`engine_io`: how other projects' engines are called; `gptsovits_runtime`: GPT-SoVITS in this process; `sung_speech` and
`lyrics`: speech made to sing.
"""
