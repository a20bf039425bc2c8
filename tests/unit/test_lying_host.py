# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A host that answers what it likes: 10,000 answers that were recorded from real hosts, each changed in some places.

Each of them is either refused by name, or taken; and what is taken changes no plan of another host, no place on the
controller, and sends nothing unprintable to the display.
"""

from __future__ import annotations

import copy
import json
import pathlib
import random
import typing as t

import pytest
from ansible.plugins.loader import lookup_loader
from ansible_collections.observability.stack.plugins.filter import upgrade
from ansible_collections.observability.stack.plugins.module_utils._errors import InputError
from ansible_collections.observability.stack.plugins.plugin_utils import _catalog, _planner, _results, _rollback
from ansible_collections.observability.stack.plugins.plugin_utils._schema import MalformedError
from ansible_collections.observability.stack.tests.unit.surveys import STACK, listed, survey

Data = dict[str, t.Any]

RECORDED = json.loads((pathlib.Path(__file__).parent / "answers.json").read_text(encoding="utf-8"))
CATALOG = _catalog.load()
CASES = 10_000
PARTS = 20
FILTERS = {name.removeprefix("_"): function for name, function in upgrade.FilterModule().filters().items()}
VERSIONS = {"prometheus": "3.5.3", "node_exporter": "1.9.0", "alertmanager": "0.28.1"}
RELEASES = {
    f"github:prometheus/{name}": listed(version, source=f"github:prometheus/{name}")
    for name, version in VERSIONS.items()
}
NASTY: list[t.Any] = [
    *("\x1b]52;c;ZXZpbA==\x07", "1.5.0\nhost9  IDLE  forged  row", "\u202egnp.exe", "\ud800", "\x9b2J", "\u2028", ""),
    *("../../../etc/passwd", "/etc/shadow", "{{ lookup('pipe', 'id') }}", "{0.__class__}", "%s%n", "x" * 300_000),
    *("unknown", "1.2.3", "99.0.0", "0.0.1", "3.5.3", "2.53.3-", "1", "v1.2", "node_exporter@1.9.0", "prometheus"),
    *("succeeded", "pending", "new", "mixed", "UPGRADING", "COMPLETED", "success", "activated", "blocker", "warning"),
    *(-1, 0, 1, 2**62, 10**40, 1.5, -0.0, float("nan"), float("inf"), True, False, None, [], {}, [{}], {"a": 1}),
    *(
        ["x"] * 5000,
        {"__ansible_type": "TrustedAsTemplate", "value": "{{ 1 }}"},
        [[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]],
    ),
]
STEERING = ("ansible_facts", "add_host", "add_group", "ansible_stats", "_ansible_no_log", "wish", "skipped", "results")


def places(value: t.Any, above: tuple[t.Any, ...] = ()) -> t.Iterator[tuple[t.Any, ...]]:
    """Where something can be changed: the ways to all values in a value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*above, key)
        yield from places(inner, (*above, key))


def changed(answer: Data, chance: random.Random) -> Data:
    """The answer with some places replaced, removed, renamed, added to, or swapped with each other."""
    answer = copy.deepcopy(answer)
    for _time in range(chance.choice([1, 1, 1, 2, 3, 5])):
        way = chance.choice(list(places(answer)) or [("changed",)])
        place = answer
        for key in way[:-1]:
            place = place[key]
        kind, key = chance.random(), way[-1]
        if kind < 0.7 or isinstance(place, list):
            alike = [each for each in NASTY if kind > 0.2 and type(each) is type(place[key])]
            place[key] = copy.deepcopy(chance.choice(alike or NASTY))
        elif kind < 0.75:
            place.pop(key, None)
        elif kind < 0.8:
            place[str(chance.choice(NASTY))[:300]] = place.pop(key, None)
        elif kind < 0.9:
            place[chance.choice([*STEERING, *CATALOG])] = copy.deepcopy(place.get(key))
        else:
            place[key] = copy.deepcopy(chance.choice([place.get(each) for each in place] or [None]))
    return answer


def said(answer: Data, chance: random.Random) -> str:
    """The answer as the host prints it; now and then broken."""
    text = json.dumps(answer)
    if chance.random() < 0.05:
        cut = chance.randrange(len(text))
        return text[:cut] + chance.choice(["", "\x1b[2J", "}", '"', "NaN"]) + text[cut + chance.randrange(3) :]
    return text


def check_shown(*texts: str) -> None:
    for text in texts:
        assert all(line.isprintable() for line in text.split("\n")), repr(text)
        assert max(map(len, text.split("\n"))) < 10_000


def wishes(*, apart: bool) -> Data:
    wish = {"versions": VERSIONS}
    return {"victim": wish, "liar": {**wish, "stack": "its own"} if apart else wish}


def plan(surveys: Data, *, apart: bool) -> Data:
    return t.cast("Data", _planner.plan_upgrade(surveys, wishes(apart=apart), answers=RELEASES))


VICTIM = survey(STACK)
EXPORTERS_ONLY = survey({"node_exporter": STACK["node_exporter"]})


def part_of(document: Data, host: str) -> t.Any:
    """What a plan does to a host, in order."""
    return document["hosts"].get(host), FILTERS["host_phases"](document, host)


ALONE = {
    True: part_of(plan({"victim": VICTIM}, apart=True), "victim"),
    False: part_of(plan({"victim": EXPORTERS_ONLY}, apart=False), "victim"),
}


def use_survey(taken: Data) -> None:
    """Everything that the controller makes of a survey."""
    for apart, victim in ((True, VICTIM), (False, EXPORTERS_ONLY)):
        surveys = {"liar": taken, "victim": victim}
        document = plan(surveys, apart=apart)
        assert part_of(document, "victim") == ALONE[apart]
        assert {step["key"].partition("@")[0] for step in document["hosts"].get("liar", {}).values()} <= set(VERSIONS)
        for url in FILTERS["plan_urls"](document):
            assert url.startswith("https://github.com/prometheus/")
            assert ".." not in url
        check_shown(FILTERS["plan_table"](document), *FILTERS["plan_problems"](document))
        check_rollback(surveys)
    FILTERS["release_sources"](surveys, wishes(apart=False))
    checked = FILTERS["check"](surveys, wishes(apart=False), RELEASES)
    check_shown(FILTERS["check_table"](checked), FILTERS["status_table"](surveys))
    check_shown(
        FILTERS["restore_point_table"]({host: FILTERS["restore_points"](each) for host, each in surveys.items()})
    )
    FILTERS["probe_targets"](taken)
    assert FILTERS["link_targets"](surveys, "victim") is not None
    lease = taken["lease"]
    if lease:
        lookup_loader.get("observability.stack.upgrade_run").run([], leases=[lease])


def check_rollback(surveys: Data) -> None:
    """The victim, which has no restore point, is in no plan to go back."""
    try:
        document = _rollback.plan_rollback(surveys, {host: {} for host in surveys}, to="previous", kinds=["binary"])
    except InputError as exc:
        assert "no host has a restore point" in str(exc)  # noqa: PT017  # anything else is a crash
    else:
        assert "victim" not in document["hosts"]
        check_shown(FILTERS["plan_table"](document))


def use_services(taken: Data) -> None:
    results = {"liar": taken["services"], "victim": []}
    check_shown(FILTERS["health_table"](results), *FILTERS["health_problems"](results))
    FILTERS["held_targets"]([{"component": "x"}], [{"component": "x"}], taken["services"])


def use_findings(taken: Data) -> None:
    document = plan({"victim": VICTIM}, apart=True)
    found = _planner.with_findings(document, {"liar": taken["findings"]})
    assert (found["hosts"], found["digest"]) == (document["hosts"], document["digest"])
    assert {each["host"] for each in found["findings"][len(document["findings"]) :]} <= {"liar"}
    check_shown(FILTERS["plan_table"](found), *FILTERS["plan_problems"](found))


def use_document(taken: Data) -> None:
    found = [{"inventory_hostname": "liar", "__upgrade_closed": taken, "__upgrade_failures": [{"stopped": True}]}]
    done = FILTERS["run_outcome"](found, {"hosts": {}, "kind": "upgrade", "digest": "0"}, ["liar"], "u1", False)
    check_shown(FILTERS["outcome_table"](done), json.dumps(done["outcome"]))


def use_failure(taken: Data) -> None:
    step = {"component": "node_exporter", "from": "1.5.0", "to": "1.9.0"}
    failure = {**FILTERS["failure"](step, "Step | Swap", taken), "outcome": "aborted"}
    whole = FILTERS["unready"]([step], "Phase | Begin", taken)
    check_shown(FILTERS["failure_text"]([failure], "liar"), FILTERS["failure_text"](whole, "liar"))


USES: dict[str, t.Callable[[Data], None]] = {
    "component_version": use_survey,
    "health_probe": use_services,
    "upgrade_preflight": use_findings,
    "upgrade_state": use_document,
    "upgrade_lock": lambda taken: check_shown(FILTERS["lock_table"]({"liar": taken})),
    "upgrade_state_info": lambda taken: check_shown(*FILTERS["record_problems"]({"liar": taken})),
}


def use(module: str, taken: Data) -> None:
    check_shown(json.dumps(taken)[:5000])
    if taken.get("failed"):
        use_failure(taken)
        check_shown(*FILTERS["left_out"]([{"inventory_hostname": "liar", "__upgrade_survey": taken}]).values())
        assert set(taken) <= {*_results.RESULTS[module].fields, *_results._COMMON, "warnings"}
    elif module in USES:
        USES[module](taken)


@pytest.mark.parametrize("part", range(PARTS))
def test_no_answer_reaches_beyond_its_host(part: int) -> None:
    chance = random.Random(part)  # noqa: S311  # the same answers each time
    modules = ["component_version"] * 4 + sorted(RECORDED)
    taken_as_valid = 0
    for _case in range(CASES // PARTS):
        module = chance.choice(modules)
        text = said(changed(chance.choice(RECORDED[module]), chance), chance)
        try:
            taken = _results.read(module, text)
            if module == "component_version" and not taken.get("failed"):
                _results.check_survey(taken, CATALOG)
        except MalformedError as exc:
            check_shown(str(exc))
            continue
        taken_as_valid += 1
        use(module, taken)
    assert 0 < taken_as_valid < CASES // PARTS
