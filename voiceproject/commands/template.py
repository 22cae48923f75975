"""An operator's command line, its placeholders, and the environment that a command gets."""

from __future__ import annotations

import fnmatch
import os
import re
import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

PROJECT_DIR = Path(__file__).resolve().parents[2]

SERVE = "--serve"  # asks a script to take job after job (resident.py)

# What a command sees of the worker's environment; all else, above all its secrets, stays behind.
PASSED_ENVIRONMENT = (
    *("PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "LC_*", "TZ"),
    *("LD_LIBRARY_PATH", "CUDA_*", "NVIDIA_*", "HIP_*", "ROCR_*", "PYTORCH_*", "TORCH_*"),
    *("OMP_*", "MKL_*", "OPENBLAS_*", "HF_*", "XDG_CACHE_HOME", "SSL_CERT_FILE", "SSL_CERT_DIR"),
)


class CommandTemplate:
    """An operator's command line with placeholders: `{python_exec} gpu_scripts/x.py --input {song_input}`.

    It is split into arguments once, by the rules of a POSIX shell's quoting and nothing else of a shell.
    Values are put inside the arguments and never split again, so that blanks, quotes and braces in them mean
    nothing. A value that may begin with a dash belongs in the form `--name={value}`. `{{` and `}}` are
    literal braces.

    A relative program with a slash, and a relative script (`scripts/x.py`), are the project's, not the
    working directory's; `scripts/x.py` is `gpu_scripts/x.py` where only that exists.

    Constructing never fails: `check` says what is wrong, and `argv` raises ValueError for such a template.
    """

    _TOKEN = re.compile(r"(\{\{)|(\}\})|\{([^{}]*)\}|([{}])")

    def __init__(self, template: str, allowed: frozenset[str], project_dir: Path = PROJECT_DIR) -> None:
        self.template = template
        self.project_dir = project_dir
        self.problems: list[str] = []
        self.placeholders: set[str] = set()
        # Every argument is literals at even places and names of placeholders at odd ones.
        self._arguments: list[list[str]] = []
        try:
            words = shlex.split(template)
        except ValueError as error:
            self.problems.append(f"it cannot be split into arguments: {str(error).lower()}")
            return
        if not words or not words[0]:
            self.problems.append("it is empty")
            return
        if "\0" in template:
            self.problems.append("it contains a null character")
        self._arguments = [self._parse(word) for word in words]
        for name in sorted(self.placeholders - allowed):
            known = ", ".join(sorted(allowed))
            self.problems.append(f"unknown placeholder {{{name}}}; known are: {known}")
        self._script = self._find_script()
        if self._script:
            self._arguments[self._script] = [self._in_project(self._arguments[self._script][0])]

    def _parse(self, word: str) -> list[str]:
        parts, literal, at = [], "", 0
        for token in self._TOKEN.finditer(word):
            literal += word[at : token.start()]
            at = token.end()
            opening, closing, name, stray = token.groups()
            if opening or closing:
                literal += "{" if opening else "}"
            elif stray:
                self.problems.append(f"unbalanced brace in {word!r}; a literal one is written twice")
            else:
                self.placeholders.add(name)
                parts += [literal, name]
                literal = ""
        return [*parts, literal + word[at:]]

    def _find_script(self) -> int:
        """The place of the script that the program is to run; 0 when there is none to be seen."""
        for place, parts in enumerate(self._arguments[1:], start=1):
            if parts[0].startswith("--"):
                break
            if len(parts) == 1 and parts[0].endswith((".py", ".sh")):
                return place
        return 0

    def _in_project(self, path: str) -> str:
        """A relative path below the project's folder; links are not resolved, a venv's python is one."""
        found = self.project_dir / path
        if not found.exists() and Path(path).parts[:1] == ("scripts",):
            moved = self.project_dir / "gpu_scripts" / Path(*Path(path).parts[1:])
            if moved.exists():
                return str(moved)
        return str(found)

    def check(self, values: Mapping[str, str] | None = None) -> list[str]:
        """What is wrong with the template, a sentence each; empty when all is well.

        values: placeholders whose value is known beforehand, such as the interpreter. A program whose value
            is not known is not looked for.
        """
        problems = list(self.problems)
        if not self._arguments:
            return problems
        values = values or {}
        if set(self._arguments[0][1::2]) <= values.keys():
            program = self._program(self._fill(self._arguments[0], values))
            if shutil.which(program) is None:
                problems.append(f"the program {program!r} is missing or not executable")
        if self._script and not os.path.isfile(self._arguments[self._script][0]):
            problems.append(f"the script {self._arguments[self._script][0]!r} is missing")
        return problems

    def argv(self, values: Mapping[str, str]) -> list[str]:
        """One argument for each in the template. Raises ValueError: a template with problems, a value that is
        missing or holds a null character. Values that the template does not use are allowed."""
        if self.problems:
            raise ValueError("; ".join(self.problems))
        missing = self.placeholders - values.keys()
        if missing:
            raise ValueError(f"no value for {', '.join(sorted(missing))}")
        argv = [self._fill(parts, values) for parts in self._arguments]
        if any("\0" in argument for argument in argv):
            raise ValueError("a value contains a null character")
        return [self._program(argv[0]), *argv[1:]]

    def serving(self, values: Mapping[str, str], lasting: frozenset[str]) -> tuple[list[str], list[str]] | None:
        """(the command that takes job after job, the arguments of the job that `values` are of), or None where the
        program itself is another for each job. Raises as `argv` does.

        lasting: the placeholders that have the same value for all jobs. The command is the program, its script,
        `--serve`, and those arguments that are the same for all jobs, for what a script has to know before it loads
        anything; a job's arguments are everything after the script.
        """
        argv = self.argv(values)
        after = self._script + 1

        def lasts(parts: list[str]) -> bool:
            return set(parts[1::2]) <= lasting

        if not all(map(lasts, self._arguments[:after])):
            return None
        kept: list[str] = []
        for argument, parts in zip(argv[after:], self._arguments[after:], strict=True):
            if lasts(parts):
                kept.append(argument)
            elif kept and kept[-1].startswith("--") and "=" not in kept[-1]:
                kept.pop()  # the option whose value changes
        return [*argv[:after], SERVE, *kept], argv[after:]

    @staticmethod
    def _fill(parts: list[str], values: Mapping[str, str]) -> str:
        return "".join(values[part] if place % 2 else part for place, part in enumerate(parts))

    def _program(self, program: str) -> str:
        return self._in_project(program) if "/" in program else program


def child_environment(
    scratch_dir: str | os.PathLike[str],
    extra: Mapping[str, str] | None = None,
    passed: Sequence[str] = (),
    source: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The environment of a command: PASSED_ENVIRONMENT of the worker's, and no more, so that SECRET_KEY,
    API_KEY, DATABASE_URL and their like never reach an engine.

    passed: more names (or patterns) to pass through; extra: variables to set; source: os.environ by default.
    TMPDIR is the scratch folder. Python programs do not buffer output, so that progress is seen when made.
    """
    source = os.environ if source is None else source
    patterns = (*PASSED_ENVIRONMENT, *passed)
    environment = {name: value for name, value in source.items() if any(fnmatch.fnmatchcase(name, p) for p in patterns)}
    if not {"LANG", "LC_ALL", "LC_CTYPE"} & environment.keys():
        environment["LANG"] = "C.UTF-8"
    environment |= {"TMPDIR": os.fspath(scratch_dir), "PYTHONUNBUFFERED": "1"}
    return environment | dict(extra or {})


# What a command is told of the job that it works for. REQUEST_ID is the older name of VOICEPROJECT_REQUEST_ID.
IDENTITY = {"request_id": "VOICEPROJECT_REQUEST_ID", "job": "VOICEPROJECT_JOB_ID", "tenant": "VOICEPROJECT_TENANT_ID",
            "key": "VOICEPROJECT_KEY_ID"}  # fmt: skip
JOB_VARIABLES = frozenset({*IDENTITY.values(), "REQUEST_ID", "TRACEPARENT"})


def identity(ids: Mapping[str, str], traceparent: str = "") -> dict[str, str]:
    """The environment variables that tell a command the ids of `ids` (request_id, job, tenant, key) and its trace."""
    told = {variable: ids[name] for name, variable in IDENTITY.items() if name in ids}
    told["REQUEST_ID"] = ids.get("request_id", "")
    return told | ({"TRACEPARENT": traceparent} if traceparent else {})
