# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Io ring. A candidate's own word, before anything is touched: does it take this host's configuration and arguments?

Each trial is a program of the candidate with some arguments, run once in the sandbox as the unit's user. Its exit
status decides. What it is asked is data: C(trials) in docs/catalog.md.
"""

from __future__ import annotations

import itertools
import os
import re
import typing as t

from . import _argv, _elf, _files, _output, _process, _processes, _sandbox, _systemd, _unit_disk
from ._errors import HostError
from ._sandbox import Answer
from ._state import is_accepted

if t.TYPE_CHECKING:
    from ._command import Run

    Data = dict[str, t.Any]

TIMEOUT = 60
"""Seconds that one answer may take."""

_MOST_FLAGS = 20
_FACT = re.compile(r"\{(config|web_config|data)\}")
_ARGUMENTS = "{arguments}"

# How kingpin, Go's own package flag, pflag and kong call a flag that they don't know.
_UNKNOWN_FLAG = re.compile(
    r"(?:unknown (?:long |short )?flag:? |unknown shorthand flag: '.' in |flag provided but not defined: )"
    r"'?(-{1,2}\w[\w.-]*)"
)
_HELP_FLAG = re.compile(r"(?<![\w.-])--?(?:\[no-\])?([A-Za-z][\w.-]*)")

_REFUSED = {
    # about: what the key ends with, what is said, what to do
    "config": (
        "config_refused",
        "{candidate} refuses {config}: {reason}",
        "change {config} so that both versions take it",
    ),
    "web_config": (
        "web_config_refused",
        "{candidate} refuses {web_config}: {reason}",
        "change {web_config} so that both versions take it",
    ),
    "flags": (
        "flags_refused",
        "{candidate} refuses the arguments of {unit}: {reason}",
        "change the arguments of {unit} so that both versions take them",
    ),
    "start": ("start_refused", "{candidate} can't work on this host: {reason}", "give it what it asks for"),
}


class Case(t.NamedTuple):
    """A candidate, and what it is asked.

    ``programs`` are its files on the host, by name, the one that the unit starts first. ``facts`` are the paths of what
    is in place: config, web_config, data. ``help_args`` make it print its flags, where it can't be asked by a trial.
    ``removed_flags`` is what the catalog knows of flags. ``hidden`` are paths that it must not see. With ``required``,
    what could not be asked is a blocker.
    """

    component: str
    version: str
    unit: str
    programs: dict[str, str]
    trials: list[Data]
    facts: Data
    help_args: list[str]
    removed_flags: list[Data]
    hidden: tuple[str, ...] = ()
    required: bool = False

    @property
    def candidate(self) -> str:
        return f"{self.component} {self.version}"

    def finding(self, what: str, severity: str, message: str, fix: str, evidence: t.Sequence[str] = ()) -> Data:
        return {
            "key": f"{self.component}.{what}",
            "severity": severity,
            "component": self.component,
            "message": message,
            "evidence": list(evidence),
            "fix": fix,
        }

    def not_run(self, about: str, why: str, evidence: t.Sequence[str] = ()) -> Data:
        message = f"{self.candidate} could not be asked about {about}: {why}"
        fix = "nothing, if you know that it takes them as they are; the probes after its start will tell"
        return self.finding("trial_not_run", "blocker" if self.required else "warning", message, fix, evidence)


def hold(run: Run, case: Case, *, accept: t.Collection[str] = ()) -> list[Data]:
    """Ask a candidate all that there is to ask. What speaks against it is found as a blocker, or, where its key is in
    ``accept``, as accepted."""
    trials = [trial for trial in case.trials if all(map(case.facts.get, _facts(trial)))]
    trials.sort(key=lambda trial: trial["about"] != "flags")  # others are asked without the flags that it doesn't know
    if not trials and not case.help_args:
        return []
    try:
        unit = _unit_disk.next_start(run, case.unit, more=_sandbox.PROPERTIES)
    except HostError as exc:
        return [_accepted(case.not_run("anything", str(exc)), accept)]
    if not unit.is_loaded:
        found = case.not_run("anything", f"there is no unit {case.unit}, as whose user it would run")
        return [_accepted(found, accept)]
    hearing = _Hearing(run, case, unit)
    findings = [finding for trial in trials for finding in hearing.ask(trial)]
    if case.help_args:
        findings.extend(hearing.compare_help())
    unique = {(each["key"], each["message"]): each for each in reversed(findings)}
    return [_accepted(each, accept) for each in reversed(list(unique.values()))]


def refused(findings: t.Iterable[Data]) -> list[Data]:
    """Those that speak against the candidate, and that nobody accepts."""
    return [each for each in findings if each["severity"] == "blocker"]


def not_run(findings: t.Iterable[Data]) -> list[Data]:
    """Those of what could not be asked, where that keeps nobody from going on."""
    return [each for each in findings if each["key"].endswith(".trial_not_run") and each["severity"] != "blocker"]


def in_words(findings: t.Iterable[Data]) -> str:
    """A line for each finding: what it is, what to do, and the key by which it is accepted."""
    return "\n".join(
        f"{each['message']}. What to do: {each['fix']}. To go on all the same: accept {each['key']}"
        for each in findings
    )


def _accepted(finding: Data, accept: t.Collection[str]) -> Data:
    planned = finding["key"].replace(".flag_removed.", ".removed.")  # as the plan calls it, where the catalog knows it
    keys = (finding["key"], planned)
    if finding["severity"] == "blocker" and any(is_accepted(key, finding["component"], accept) for key in keys):
        return {**finding, "severity": "accepted"}
    return finding


def _facts(trial: Data) -> list[str]:
    return [name for word in trial["args"] for name in _FACT.findall(word)]


class _Hearing:
    """One candidate, asked as the program of one unit."""

    def __init__(self, run: Run, case: Case, unit: _systemd.Unit) -> None:
        self._run = run
        self._case = case
        self._properties = unit.properties
        self._numbers = itertools.count(1)
        self._program = next(iter(case.programs))
        argv = started_with(run, unit, case.programs)
        own = program_position(argv, case.programs)
        self._in_place = argv[own] if own is not None else ""
        self._arguments = argv[own + 1 :] if own is not None else None
        self._secrets = _systemd.secrets_of(unit, files=[case.facts.get("config"), case.facts.get("web_config")])

    def ask(self, trial: Data) -> list[Data]:
        """Hold one trial. Of flags that it doesn't know a program names the first; it is asked again without it."""
        about = trial["about"]
        findings: list[Data] = []
        if (trial["program"] or self._program) not in self._case.programs:
            return [self._case.not_run(_ABOUT[about], f"{trial['program']} isn't among what was taken of the release")]
        if self._arguments is None and _ARGUMENTS in trial["args"]:
            return [self._unknown_arguments(about)]
        for _attempt in range(_MOST_FLAGS):
            answer = self._answer(trial, self._case.programs)
            if not answer.trouble and answer.status in trial["status"]:
                return findings
            flag = _UNKNOWN_FLAG.search(answer.text)
            unknown = flag.group(1) if flag else ""
            if flag and not answer.trouble and self._sets(trial, unknown):
                findings.append(self._flag_removed(unknown, self._shown(answer.text)))
                self._arguments = without_flag(self._arguments or [], unknown)
                continue
            trouble = answer.trouble or (f"it doesn't know {unknown}" if unknown in trial["args"] else "")
            if trouble:
                return [*findings, self._case.not_run(_ABOUT[about], trouble, self._shown(answer.text))]
            return [*findings, self._refusal(trial, answer)]
        return findings

    def compare_help(self) -> list[Data]:
        """Flags of the unit that the candidate's help doesn't list; they matter where that in place lists them."""
        if self._arguments is None:
            return [self._unknown_arguments("flags")]
        new = self._help(self._case.programs[self._program])
        if new.trouble or not _HELP_FLAG.search(new.text):
            why = new.trouble or f"{' '.join(self._case.help_args)} lists none"
            return [self._case.not_run(_ABOUT["flags"], why, self._shown(new.text))]
        missing = [flag for flag in _argv.flag_names(self._arguments) if not _lists(new.text, flag)]
        old = self._help(self._in_place).text if missing else ""
        return [self._unlisted(flag, lists=_lists(old, flag)) for flag in missing if not self._is_ignored(flag)]

    # -- what it says -----------------------------------------------------------------------------------------------

    def _unknown_arguments(self, about: str) -> Data:
        why = f"it can't be told what {self._case.unit} starts it with, for it is started by another program"
        return self._case.not_run(_ABOUT[about], why)

    def _unlisted(self, flag: str, *, lists: bool) -> Data:
        if lists:
            return self._flag_removed(f"--{flag}", [])
        message = f"the help of {self._case.candidate} doesn't list --{flag}, which {self._case.unit} sets"
        fix = "nothing, if it is a hidden flag, as the version in place doesn't list it either"
        return self._case.finding(f"flag_unlisted.{flag}", "warning", message, fix)

    def _flag_removed(self, flag: str, evidence: list[str]) -> Data:
        name = flag.lstrip("-")
        message = f"{self._case.candidate} doesn't know {flag}, which {self._case.unit} sets"
        fix = f"take {flag} out of {self._case.unit}, or put there what replaces it"
        removal = self._removal(name)
        if removal:
            since = f" was removed in {removal['since']}" if removal.get("since") else " was removed"
            fix = f"--{name}{since}: {'use ' if removal['use'].startswith('-') else ''}{removal['use']}"
        return self._case.finding(f"flag_removed.{name}", "blocker", message, fix, evidence)

    def _refusal(self, trial: Data, answer: Answer) -> Data:
        what, message, fix = _REFUSED[trial["about"]]
        words = {
            "candidate": self._case.candidate,
            "unit": self._case.unit,
            "config": self._case.facts.get("config") or "its configuration",
            "web_config": self._case.facts.get("web_config") or "its web configuration",
            "reason": self._clean(_output.reason(answer.text)),
        }
        message = message.format(**words)
        if self._refuses_in_place(trial):
            message += " (so does the version in place)"
        evidence = [*self._shown(answer.text), f"exit status {answer.status}"]
        return self._case.finding(what, "blocker", message, trial.get("fix") or fix.format(**words), evidence)

    def _refuses_in_place(self, trial: Data) -> bool:
        """Whether what is in place says no, too: then it isn't the candidate that is at fault."""
        program = trial["program"] or self._program
        path = self._in_place
        if path and program != self._program:
            path = os.path.join(os.path.dirname(path), program)
        if _elf.header_of(path) is None or _sandbox.runs_as_root(self._properties):
            return False  # what is in place isn't proven as the candidate is: no script, and nothing for root to run
        answer = self._answer(trial, {program: path})
        return not (answer.trouble or answer.status in trial["status"] or _UNKNOWN_FLAG.search(answer.text))

    def _removal(self, name: str) -> Data | None:
        return next((each for each in self._case.removed_flags if each["flag"] == name), None)

    def _is_ignored(self, name: str) -> bool:
        """Whether the flag is known to do nothing any more, and no harm."""
        return (self._removal(name) or {}).get("level") == "warning"

    def _sets(self, trial: Data, flag: str) -> bool:
        """Whether the unit sets a flag, and the trial shows the candidate what the unit sets."""
        arguments = self._arguments or []
        return _ARGUMENTS in trial["args"] and without_flag(arguments, flag) != arguments

    def _shown(self, text: str) -> list[str]:
        return _output.excerpt(self._clean(text))

    def _clean(self, text: str) -> str:
        return _output.redact(text, self._secrets)

    # -- asking -----------------------------------------------------------------------------------------------------

    def _answer(self, trial: Data, programs: dict[str, str]) -> Answer:
        words = filled(trial["args"], self._case.facts, self._arguments or [])
        return self._once(programs, [trial["program"] or self._program, *words], starts=trial["about"] == "start")

    def _help(self, path: str) -> Answer:
        """What a program prints of its flags. To do that it needs nothing of its unit."""
        if _elf.header_of(path) is None:
            return Answer(-1, "", "it is no ELF program")
        sandbox = _sandbox.bare(
            self._properties, name=self._name(), programs={self._program: path}, hidden=self._case.hidden
        )
        return _sandbox.once(self._run, sandbox, [self._program, *self._case.help_args], timeout=TIMEOUT)

    def _name(self) -> str:
        return f"observability-trial-{_systemd.in_unit_name(self._case.component)}-{os.getpid()}-{next(self._numbers)}"

    def _once(self, programs: dict[str, str], argv: list[str], *, starts: bool) -> Answer:
        """Run a program once. Only for a trial of its start may it reach what it works with."""
        sandbox = _sandbox.of_unit(
            self._properties,
            name=self._name(),
            programs=programs,
            network="host" if starts else "private",
            sockets=starts,
            hidden=self._case.hidden,
        )
        answer = _sandbox.once(self._run, sandbox, argv, timeout=TIMEOUT)
        return answer._replace(trouble=self._clean(answer.trouble))  # systemd-run quotes its own arguments


_ABOUT = {
    "config": "the configuration",
    "web_config": "the web configuration",
    "flags": "the unit's flags",
    "start": "its start",
}


def started_with(run: Run, unit: _systemd.Unit, names: t.Collection[str]) -> list[str]:
    """What the unit's program is started with, next time: files of arguments and variables may have changed since the
    process started. Where the unit starts a shell, a script or another starter, what the process was started with: only
    the starter knows which of the words behind the program are its own (C(start-stop-daemon --exec x --pidfile y --)).

    :param names: of the program.
    """
    declared = _systemd.start_line(unit, _files.read_text, run=run, names=names)
    if program_position(declared, names) == 0 and _elf.header_of(declared[0]) is not None:
        return declared
    return _processes.arguments(unit, names) or _systemd.command_line(unit, _files.read_text, run=run, names=names)


def program_position(argv: list[str], names: t.Collection[str]) -> int | None:
    """Where in a unit's command line its own program stands. None where what starts it doesn't say so.

    :param names: of the program in the release; under another name it is known only as the first word.
    """
    if argv and not _process.is_starter(argv[0]):
        return 0
    return next((at for at, word in enumerate(argv) if at and os.path.basename(word) in names), None)


def filled(args: t.Iterable[str], facts: Data, arguments: list[str]) -> list[str]:
    """A trial's arguments, with what is in braces filled in."""
    words: list[str] = []
    for word in args:
        if word == _ARGUMENTS:
            words.extend(arguments)
        else:
            words.append(_FACT.sub(lambda found: str(facts[found.group(1)]), word))
    return words


def without_flag(arguments: list[str], flag: str) -> list[str]:
    """A command line without a flag, however often it is there, and its values."""
    kept, drop = [], False
    for word in arguments:
        is_value = drop and not word.startswith("-")
        drop = word.lstrip("-") == flag.lstrip("-") and word.startswith("-")
        if not (drop or is_value or (word.startswith("-") and word.lstrip("-").startswith(f"{flag.lstrip('-')}="))):
            kept.append(word)
    return kept


def _lists(text: str, flag: str) -> bool:
    """Whether a help text lists a flag, or that which it is the opposite of."""
    names = set(_HELP_FLAG.findall(text))
    return flag in names or (flag.startswith("no-") and flag[3:] in names)
