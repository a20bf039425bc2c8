# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Controller, pure. What each module may answer from a host, as data; and reading an answer by that.

A host's root decides what its modules answer. Nothing of an answer is used, shown or registered that has not passed
here, so a host can lie about itself, and do nothing else. A key that a module returns has a line in this file;
C(tests/unit/plugins/plugin_utils/test__results.py) compares them with the modules' documentation.
"""

from __future__ import annotations

import json
import typing as t

from ansible.module_utils.json_utils import _filter_non_json_lines

from ..module_utils import _schema, _state
from ..module_utils._errors import shown
from ..module_utils._schema import OUTCOMES, PHASE_STATES
from ._schema import ANY, Fields, Flag, Items, Kind, MalformedError, Maybe, Names, Number, Text, VersionText

if t.TYPE_CHECKING:
    from collections.abc import Mapping

    Data = dict[str, t.Any]

MALFORMED = "host.malformed_answer"
FOREIGN_FACTS = "host.sets_variables"

LARGEST = 8 * 1024 * 1024
"""Characters of an answer. A larger one is refused before it is read."""

PREFIXES = ("upgrade_", "__upgrade")
"""How the variables of this collection begin."""

_ANSIBLE_ADDS = frozenset({"invocation"})
"""What ansible-core puts into a module's result on the host, and nobody needs here."""

_HOST_NAME = r"[A-Za-z0-9][A-Za-z0-9_.+~-]*"
NAME = Text(most=250, pattern=_HOST_NAME, cut=False)
_INSTANCE = r"(@[A-Za-z0-9][A-Za-z0-9_.-]*)?"
KEY = Text(most=_schema.MOST_KEY, pattern=f"{_HOST_NAME}{_INSTANCE}", cut=False)
STEP = Text(most=500, pattern=f"{_HOST_NAME}{_INSTANCE}@{_HOST_NAME}", cut=False)
ID = Text(most=500, cut=False)
PATH = Text(most=4096, cut=False)
URL = Text(most=4096, cut=False)
LINE = Text()
TEXT = Text(most=8000, lines=True)
MESSAGE = Text(most=8000)
LINES = Items(Text(), most=1000)
WHOLE = Number()
SECONDS = Number(whole=False)
TIME = Text(most=50, cut=False)
SEVERITY = Text(one_of=("blocker", "accepted", "warning", "held", "skipped", "info"))

_FINDING = Fields(
    {"key": ID, "severity": SEVERITY, "component": Maybe(ID), "message": LINE, "evidence": ANY, "fix": LINE},
    needed=("key", "severity", "message", "fix"),
)
_VERDICT = Fields({"probe": ID, "ok": Flag(), "seen": LINE, "wanted": LINE}, needed=("probe", "ok"))

# -- the state of a host: docs/state.schema.json. Keys that are not named there survive ----------------------------

_OUTCOME = Text(one_of=OUTCOMES)
_RESTORE_POINT = Fields(
    {"id": ID, "version": Maybe(ID), "created_at": TIME, "marked": Flag()},
    needed=("id", "version", "created_at"),
    more=True,
)
_INVENTORY = Fields(
    {
        "current_version": ID,
        "previous_version": Maybe(ID),
        "installed_at": TIME,
        "upgraded_at": TIME,
        "paths": Items(PATH),
        "sha256": Maybe(ID),
        "restore_points": Items(_RESTORE_POINT),
    },
    more=True,
)
_RECORD = Fields(
    {
        "state": Text(one_of=tuple(_state.COMPONENT_TRANSITIONS)),
        "attempts": WHOLE,
        "from_version": Maybe(ID),
        "to_version": NAME,
        "upgrade_id": Maybe(ID),
        "started_at": TIME,
        "updated_at": TIME,
        "finished_at": Maybe(TIME),
        "outcome": Maybe(_OUTCOME),
        "last_error": Maybe(TEXT),
        "skip_reason": Maybe(TEXT),
        "restored_from": Maybe(ID),
        "backup_id": Maybe(ID),
        "inventory": _INVENTORY,
    },
    needed=("state",),
    more=True,
)
_PHASE = Fields(
    {"state": Text(one_of=PHASE_STATES), "steps": Items(ID), "error": Maybe(TEXT)},
    needed=("state", "steps"),
    more=True,
)
_UPGRADE = Fields(
    {
        "state": Text(one_of=tuple(_state.UPGRADE_TRANSITIONS)),
        "upgrade_id": ID,
        "phase": Maybe(ID),
        "plan_digest": Maybe(ID),
        "component": Maybe(ID),
        "steps": Names(STEP, Text(one_of=("pending", *OUTCOMES))),
        "phases": Names(ID, _PHASE),
        "outcome": _OUTCOME,
    },
    needed=("state",),
    more=True,
)
STATE = Fields(
    {"schema_version": WHOLE, "revision": WHOLE, "upgrade": _UPGRADE, "components": Names(KEY, _RECORD)},
    needed=("upgrade", "components"),
    more=True,
)

# -- component_version ----------------------------------------------------------------------------------------------

_COMPONENT = Fields(
    {
        "instance_of": NAME,
        "shared_by": Items(
            Fields(
                {"unit": Maybe(ID), "pid": WHOLE, "program": LINE, "container": Flag()},
                needed=("unit", "pid", "program", "container"),
            ),
            most=1000,
        ),
        "not_upgradable": Fields(
            {"key": Text(most=50, pattern=r"[a-z][a-z_]*", cut=False), "reason": LINE, "fix": LINE},
            needed=("key", "reason", "fix"),
        ),
        "not_read": LINE,
        "installed": Flag(),
        "version": Maybe(VersionText()),
        "running": Maybe(VersionText()),
        "restart_pending": Flag(),
        "version_source": Maybe(Text(one_of=("sha256", "service", "program"))),
        "version_unknown": Maybe(LINE),
        "running_unknown": Maybe(LINE),
        "unit": Maybe(ID),
        "state": Fields({"active": ID, "sub": ID, "n_restarts": WHOLE, "enabled": Maybe(ID)}, needed=("active", "sub")),
        "need_reload": Flag(),
        "binary": PATH,
        "files": Items(
            Fields({"name": ID, "path": PATH, "size": WHOLE, "sha256": ID, "identity": ID}, needed=("name", "path")),
            most=100,
        ),
        "package": Maybe(Fields({"manager": Text(one_of=("apt", "dnf")), "name": ID}, needed=("manager", "name"))),
        "architecture": ID,
        "user": ID,
        "unit_files": Items(PATH),
        "command_line": Items(Text()),
        "flags": Items(ID),
        "environment": Items(ID),
        "flag_values": Names(ID, Items(ID)),
        "lookalike": LINE,
        "settings": Items(ID),
        "config": Maybe(PATH),
        "config_files": Items(PATH, most=100),
        "missing": Items(PATH, most=10),
        "unseen": LINE,
        "listens": Items(Fields({"address": ID, "port": Number(most=65535), "unix": PATH}), most=50),
        "web_config": Maybe(PATH),
        "data": Maybe(PATH),
        "restore_point_bytes": WHOLE,
        "url": URL,
        "metrics_path": URL,
        "protected": Flag(),
    },
    needed=("installed", "unit", "files", "version", "running", "restart_pending"),
    needed_with=(
        (("installed",), ("binary", "architecture", "package")),
        (
            ("installed", "unit"),
            (
                *("state", "user", "unit_files", "flags", "environment", "settings", "config", "web_config", "data"),
                *("url", "metrics_path", "protected"),
            ),
        ),
    ),
)
_LEASE: Mapping[str, Kind] = {
    "upgrade_id": Maybe(ID),
    "user": Maybe(LINE),
    "controller": Maybe(LINE),
    "job": Maybe(LINE),
    "origin": Maybe(LINE),
    "pid": Maybe(Number(most=2**31)),
    "start_ticks": Maybe(Number(most=2**53)),
    "boot": Maybe(LINE),
    "acquired": SECONDS,
    "renewed": SECONDS,
    "expires": SECONDS,
}
# Without an upgrade_id no run has it.
_ANY_LEASE = Fields(_LEASE, more=True)

_COMPONENT_VERSION = Fields(
    {
        "components": Names(KEY, _COMPONENT),
        "state": Maybe(STATE),
        "unfinished": Names(KEY, Text(one_of=("old", "new", "mixed", "other"))),
        "staged": Names(STEP, ID),
        "lease": _ANY_LEASE,
        "stale_lease": _ANY_LEASE,
    },
    needed=("components", "state", "unfinished", "staged", "lease", "stale_lease"),
)

# -- the others -----------------------------------------------------------------------------------------------------

_SERVICE = Fields(
    {
        "component": ID,
        "healthy": Flag(),
        "ready_after": Maybe(SECONDS),
        "reason": LINE,
        "verdicts": Items(_VERDICT),
        "journal": LINES,
    },
    needed=("component", "healthy", "reason", "verdicts", "journal"),
)
_UNIT_STATE = Fields({"state": ID, "main_pid": WHOLE, "n_restarts": WHOLE})
_POINT = Fields(
    {"id": ID, "component": KEY, "version": Maybe(ID), "created_at": TIME, "path": PATH, "marked": Flag()},
    needed=("id", "component", "version", "created_at"),
    more=True,
)

RESULTS: Mapping[str, Fields] = {
    "component_version": _COMPONENT_VERSION,
    "health_probe": Fields({"services": Items(_SERVICE)}, needed=("services",)),
    "release_rehearse": Fields(
        {
            "rehearsed": Flag(),
            "findings": Items(_FINDING),
            "seen": LINE,
            "ready_after": Maybe(SECONDS),
            "verdicts": Items(_VERDICT),
            "journal": LINES,
        },
        needed=("rehearsed", "findings"),
    ),
    "release_stage": Fields(
        {
            "files": Items(Fields({"name": ID, "path": PATH, "sha256": ID}, needed=("name", "path", "sha256"))),
            "findings": Items(_FINDING),
            "fetched": Flag(),
            "needs_archive": Flag(),
        },
        needed=("files", "findings", "needs_archive"),
    ),
    "safe_binary_swap": Fields(
        {
            "files": Items(Fields({"path": PATH, "before": Maybe(ID), "after": Maybe(ID)}, needed=("path",))),
            "backup_id": Maybe(ID),
            "version": Maybe(ID),
            "touched": Flag(),
        },
        needed=("files", "backup_id", "version"),
    ),
    "service_restart": Fields(
        {
            "before": _UNIT_STATE,
            "after": _UNIT_STATE,
            "others": Items(Fields({"unit": ID, "before": _UNIT_STATE, "after": _UNIT_STATE}, needed=("unit",))),
            "restarted_at": Maybe(SECONDS),
            "seconds": SECONDS,
            "strategy": Maybe(ID),
            "reason": Maybe(LINE),
            "killed": Flag(),
            "daemon_reload": Flag(),
            "restored_unit": Maybe(MESSAGE),
        },
        needed=("before", "after", "restarted_at"),
    ),
    "upgrade_lock": Fields(
        {
            "taken_from": Maybe(
                Fields({"upgrade_id": Maybe(ID), "user": Maybe(LINE), "controller": Maybe(LINE)}, more=True)
            ),
            "holder": LINE,
        },
        needed=("taken_from", "holder"),
    ),
    "upgrade_preflight": Fields(
        {
            "findings": Items(_FINDING),
            "facts": Fields(
                {
                    "file_systems": Items(Fields({"mount": PATH, "free": WHOLE, "needed": WHOLE})),
                    "memory": Maybe(WHOLE),
                    "kernel": ID,
                    "glibc": Maybe(ID),
                }
            ),
            "baselines": Items(KEY),
        },
        needed=("findings",),
    ),
    "upgrade_state": Fields(
        {"document": STATE, "finished": Flag(), "progress_percent": Number(most=100), "backup_id": Maybe(ID)},
        needed=("document",),
    ),
    "upgrade_state_info": Fields(
        {
            "document": STATE,
            "in_progress": Flag(),
            "can_resume": Flag(),
            "resume_point": Fields(
                {"state": ID, "phase": Maybe(ID), "component": Maybe(ID), "steps": Items(ID)},
            ),
            "next_phase": Maybe(ID),
            "progress_percent": Number(most=100),
            "summary": TEXT,
            "components": Names(KEY, Fields({}, more=True)),
            "is_upgraded": Flag(),
            "rollback_available": Flag(),
            "restore_points": Items(_POINT),
            "history": Items(Fields({}, more=True)),
            "lease": Fields({"held": Flag(), "stale": Flag(), "holder": LINE, "unreadable": LINE, **_LEASE}, more=True),
            "problems": LINES,
        },
        needed=("document", "lease"),
    ),
}
"""What each module that runs on a host returns, beside what all of them do."""

_COMMON: Mapping[str, Kind] = {
    "changed": Flag(),
    "failed": Flag(),
    "msg": MESSAGE,
    "key": ID,
    "rc": Number(least=-(2**31), most=2**31),
    "diff": Fields({"before": ANY, "after": ANY}),
}
_SAID = ("warnings", "deprecations", "exception")
"""What ansible-core's half on the host says beside a result: texts, or events that have a text in them."""

# -- reading an answer ------------------------------------------------------------------------------------------------


def read(module: str, text: str) -> Data:
    """A module's answer as the controller may use it.

    :param module: the module's name.
    :param text: what the host printed. Lines around the JSON are what a login shell says, and are left out.
    :raises MalformedError: if it is something else than the module returns.
    """
    if len(text) > LARGEST:
        raise MalformedError("", f"is {len(text)} characters long, and may be at most {LARGEST}")
    try:
        found, _junk = _filter_non_json_lines(text, objects_only=True)
        answer = json.loads(found, parse_constant=_no_number)
    except (ValueError, RecursionError) as exc:
        raise MalformedError("", f"is no JSON ({shown(exc, most=100)})") from None
    return take(module, answer)


def take(module: str, answer: Data) -> Data:
    """What a schema knows of an answer.

    :raises MalformedError: naming the key and what is wrong with it.
    """
    schema = RESULTS[module]
    said = {name: _texts(answer[name]) for name in _SAID if answer.get(name)}
    rest = {name: value for name, value in answer.items() if name not in (*_ANSIBLE_ADDS, *_SAID)}
    failed = rest.get("failed") is True
    whole = Fields(
        {**schema.fields, **_COMMON},
        needed=() if failed else schema.needed,
        needed_with=() if failed else schema.needed_with,
    )
    taken = whole.take(rest, "")
    warnings = [*said.get("warnings", []), *said.get("deprecations", [])]
    if warnings:
        taken["warnings"] = warnings
    if failed and not taken.get("msg"):
        taken["msg"] = "; ".join(said.get("exception", [])) or f"{module} failed, and did not say why"
    return taken


def check_survey(survey: Data, names: t.Collection[str]) -> None:
    """See whether the parts of a survey fit together, and into what was asked.

    :param names: the components that were asked for.
    :raises MalformedError: if they do not.
    """
    for name, facts in survey["components"].items():
        if _state.name_of(name) not in names:
            raise MalformedError(f"components.{name}", "is a component that was not asked for")
        if name != _state.name_of(name) and facts.get("instance_of") != _state.name_of(name):
            raise MalformedError(f"components.{name}.instance_of", f"is not {_state.name_of(name)}")
        if facts["installed"] and (facts["version"] is None or not facts["files"]):
            raise MalformedError(f"components.{name}", "is installed, but has no version or no files")
    records = (survey["state"] or {}).get("components", {})
    for name in survey["unfinished"]:
        if not records.get(name, {}).get("to_version"):
            raise MalformedError(f"unfinished.{name}", "is no attempt that the state knows")


def _texts(value: t.Any) -> list[str]:
    """What a warning, or a list of them, says."""
    return [shown(_message(each), most=TEXT.most) for each in (value if isinstance(value, list) else [value])[:50]]


def _message(said: t.Any) -> str:
    """A text, or the text of an event: since ansible-core 2.19 a dictionary, with what caused it below C(chain)."""
    texts: list[str] = []
    while isinstance(said, dict) and len(texts) < 5:
        event = said.get("event", said)
        texts.append(str(event.get("msg", "")) if isinstance(event, dict) else "")
        chain = event.get("chain") if isinstance(event, dict) else None
        said = chain.get("event") if isinstance(chain, dict) else None
    return ": ".join(filter(None, texts)) if texts else str(said)


def _no_number(constant: str) -> t.NoReturn:
    raise ValueError(f"{constant} is no number")


# -- facts ------------------------------------------------------------------------------------------------------------


def foreign_facts(facts: Mapping[str, t.Any]) -> list[str]:
    """The facts of a host that would be variables of this collection. Ansible prefers facts to the inventory and to
    defaults, so they would decide what the controller does.

    :param facts: the host's C(ansible_facts).
    """
    return sorted(shown(name, most=100) for name in map(str, facts) if name.startswith(PREFIXES))


def foreign_facts_text(facts: Mapping[str, Mapping[str, t.Any]]) -> str:
    """Which hosts have such facts; empty if none has.

    :param facts: by host.
    """
    found = {host: foreign_facts(each) for host, each in facts.items()}
    told = [f"{host} has {_some(names)}" for host, names in found.items() if names]
    return _refusal(_some(told, "; ")) if told else ""


def _refusal(told: str) -> str:
    return (
        f"facts of hosts set variables of this collection: {told}. Facts come from hosts, and would decide what the "
        "controller does, so nothing is done. Find out where they come from (gather_facts, a cacheable set_fact, the "
        "fact cache), then clear them: ansible-playbook --flush-cache"
    )


def _some(texts: list[str], between: str = ", ") -> str:
    return between.join(texts[:10]) + (f" and {len(texts) - 10} more" if len(texts) > 10 else "")
