# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A run does what its playbooks say, whatever Ansible's configuration sets and whichever playbooks ran before it."""

from __future__ import annotations

import contextlib
import json
import pathlib
import shutil
import tempfile
import typing as t

import rows
from conftest import CHECKOUT
from rows import Fleet, way

pytest_plugins = ["rows"]

DIES = "1.99.1"  # a release of node_exporter that exits at its start
ALL_AT_ONCE = ["100%"]
WINDOW = {"node_exporter": {"probe_window": 5, "probe_timeout": 20}}


@contextlib.contextmanager
def playbook(text: str) -> t.Iterator[str]:
    """The path of a playbook of the operator's own."""
    directory = pathlib.Path(tempfile.mkdtemp(prefix="runs-"))
    try:
        path = directory / "site.yml"
        path.write_text(text.replace("PLAYBOOKS", f"{CHECKOUT}/playbooks"))
        yield str(path)
    finally:
        shutil.rmtree(directory)


def test_the_documentation_has_this_table() -> None:
    assert rows.DOCUMENT.read_text(encoding="utf-8") == rows.document(), "run molecule/runs/tests/rows.py"


# -- settings of Ansible ----------------------------------------------------------------------------------------------


def fails_on_one_of_two(fleet: Fleet, run: str = "upgrade", **how: t.Any) -> None:
    """Upgrade two hosts at once, one of them to a release that dies: only that one is rolled back."""
    bad, good = fleet.servers
    request = {"node_exporter": f"{{{{ '{DIES}' if inventory_hostname == '{bad.name}' else '{fleet.newer}' }}}}"}
    given = {"upgrade_waves": ALL_AT_ONCE, "upgrade_overrides": WINDOW, **how}
    played = fleet.play(run, code=2, upgrade_versions=request, **given)
    assert played.recap[bad.name]["rescued"] >= 1, played.output
    assert bad.is_healthy("node_exporter", fleet.older)
    assert good.is_healthy("node_exporter", fleet.newer)
    assert bad.component("node_exporter")["state"] == "rolled_back"
    assert good.component("node_exporter")["state"] == "success"
    assert all(server.is_at_rest() for server in fleet.servers)


FAILING = "one of two hosts fails"
ROLLED_BACK = "The host that failed is rolled back, its neighbour is upgraded"


@way(f"`any_errors_fatal` in ansible.cfg; {FAILING}", ROLLED_BACK, hosts=2)
def test_any_errors_fatal(fleet: Fleet) -> None:
    """A failed host ended the run of its whole wave before the rollback."""
    fails_on_one_of_two(fleet, settings={"ANSIBLE_ANY_ERRORS_FATAL": "true"})


@way(f"`task_timeout: 3` in ansible.cfg; {FAILING}", ROLLED_BACK, hosts=2)
def test_task_timeout(fleet: Fleet) -> None:
    """It ended the probe window, and that of the old version, too."""
    fails_on_one_of_two(fleet, settings={"ANSIBLE_TASK_TIMEOUT": "3"})


@way(f"`strategy: free` in ansible.cfg; {FAILING}", ROLLED_BACK, hosts=2)
def test_strategy_free(fleet: Fleet) -> None:
    fails_on_one_of_two(fleet, settings={"ANSIBLE_STRATEGY": "free"})


@way(f"`enable_task_debugger` and `strategy: debug` in ansible.cfg, at a terminal; {FAILING}", ROLLED_BACK, hosts=2)
def test_the_debugger_does_not_come_between_a_failure_and_its_rollback(fleet: Fleet) -> None:
    settings = {"ANSIBLE_ENABLE_TASK_DEBUGGER": "true", "ANSIBLE_STRATEGY": "debug"}
    fails_on_one_of_two(fleet, settings=settings)


HARMLESS: dict[str, tuple[str, dict[str, str]]] = {
    "host_pinned": (
        "`strategy: host_pinned`, `forks: 1`, `force_handlers`, `gathering: smart`, and facts cached in files",
        {
            "ANSIBLE_STRATEGY": "host_pinned",
            "ANSIBLE_FORKS": "1",
            "ANSIBLE_FORCE_HANDLERS": "true",
            "ANSIBLE_GATHERING": "smart",
            "ANSIBLE_CACHE_PLUGIN": "jsonfile",
            "ANSIBLE_CACHE_PLUGIN_CONNECTION": "/tmp/runs-facts",  # noqa: S108  # what runs of several rows may share
        },
    ),
    "variables": (
        "`error_on_undefined_vars: false`, `hash_behaviour: merge`, `inject_facts_as_vars: false`, "
        "`private_role_vars`, and `precedence` in another order",
        {
            "ANSIBLE_ERROR_ON_UNDEFINED_VARS": "false",
            "ANSIBLE_HASH_BEHAVIOUR": "merge",
            "ANSIBLE_INJECT_FACT_VARS": "false",
            "ANSIBLE_PRIVATE_ROLE_VARS": "true",
            "ANSIBLE_PRECEDENCE": "all_plugins_play,groups_plugins_play,all_inventory,groups_inventory,"
            "all_plugins_inventory,groups_plugins_inventory",
        },
    ),
    "templates": (
        "`jinja2_extensions`, `jinja2_native: false`, `invalid_task_attribute_failed: false`, "
        "`allow_broken_conditionals`, and `duplicate_dict_key: error`",
        {
            "ANSIBLE_JINJA2_EXTENSIONS": "jinja2.ext.do,jinja2.ext.loopcontrols",
            "ANSIBLE_JINJA2_NATIVE": "false",
            "ANSIBLE_INVALID_TASK_ATTRIBUTE_FAILED": "false",
            "ANSIBLE_ALLOW_BROKEN_CONDITIONALS": "true",
            "ANSIBLE_DUPLICATE_YAML_DICT_KEY": "error",
        },
    ),
    "output": (
        "`stdout_callback: minimal`, `display_skipped_hosts: false`, `diff: always`, `verbosity: 2`, and `no_log`",
        {
            "ANSIBLE_STDOUT_CALLBACK": "minimal",
            "ANSIBLE_DISPLAY_SKIPPED_HOSTS": "false",
            "ANSIBLE_DIFF_ALWAYS": "true",
            "ANSIBLE_VERBOSITY": "2",
            "ANSIBLE_NO_LOG": "true",
        },
    ),
    "inventory": (
        "`stdout_callback: oneline`, `host_pattern_mismatch: error`, `transform_invalid_group_chars: always`, "
        "`run_vars_plugins: start`, no pipelining, and `keep_remote_files`",
        {
            "ANSIBLE_STDOUT_CALLBACK": "oneline",
            "ANSIBLE_HOST_PATTERN_MISMATCH": "error",
            "ANSIBLE_TRANSFORM_INVALID_GROUP_CHARS": "always",
            "ANSIBLE_RUN_VARS_PLUGINS": "start",
            "ANSIBLE_PIPELINING": "false",
            "ANSIBLE_KEEP_REMOTE_FILES": "true",
        },
    ),
}


def harmless(told: str, settings: dict[str, str]) -> t.Callable[..., None]:
    @way(f"{told} in ansible.cfg", "The run is as without them")
    def test(fleet: Fleet) -> None:
        fleet.play("upgrade", settings=settings)
        assert fleet.runs(fleet.newer)

    return test


for _name, (_told, _settings) in HARMLESS.items():
    vars()[f"test_settings_{_name}"] = harmless(_told, _settings)


# -- roles in plays of the operator -----------------------------------------------------------------------------------

ROLE = """
- hosts: all
  gather_facts: false
  become: true
  {keywords}
  tasks:
    - ansible.builtin.include_role: {{name: observability.stack.upgrade}}
"""


@way("Role `upgrade` in a play with `strategy: free`", "Refused in one sentence")
def test_role_with_strategy_free(fleet: Fleet) -> None:
    with playbook(ROLE.format(keywords="strategy: free")) as site:
        fleet.refused(site, says="set 'strategy: linear' in the play that uses a role of observability.stack")


@way(
    f"Role `upgrade` in a play with `any_errors_fatal`, `max_fail_percentage: 0`, `ignore_unreachable`; {FAILING}",
    ROLLED_BACK,
    hosts=2,
)
def test_role_in_a_play_with_other_rules_for_failures(fleet: Fleet) -> None:
    keywords = "any_errors_fatal: true\n  ignore_unreachable: true\n  max_fail_percentage: 0"
    with playbook(ROLE.format(keywords=keywords)) as site:
        fails_on_one_of_two(fleet, site)


@way("Role `upgrade` in a play with `ignore_errors`; the release dies", "The host is rolled back")
def test_role_in_a_play_that_ignores_errors(fleet: Fleet) -> None:
    """What failed was ignored, and the next step was taken."""
    with playbook(ROLE.format(keywords="ignore_errors: true")) as site:
        fleet.play(site, upgrade_versions={"node_exporter": DIES})
    assert fleet.runs(fleet.older)
    assert fleet.server.component("node_exporter")["state"] == "rolled_back"


RESCUED = """
- hosts: all
  gather_facts: false
  become: true
  tasks:
    - block:
        - ansible.builtin.include_role: {name: observability.stack.upgrade}
          vars: {upgrade_versions: {node_exporter: DIES}}
      rescue:
        - ansible.builtin.include_role: {name: observability.stack.upgrade}
          vars: {upgrade_versions: {node_exporter: INSTEAD}}
"""


@way(
    "Role `upgrade` to a release that dies, and in `rescue` the same role to another one",
    "The first is rolled back, the second succeeds",
)
def test_a_failure_that_was_rescued_does_not_fail_the_next_run_of_a_role(fleet: Fleet) -> None:
    """The next run was told that it had failed already, and did no step."""
    with playbook(RESCUED.replace("DIES", DIES).replace("INSTEAD", fleet.newer)) as site, fleet.run(site) as run:
        played = run.end()
    assert fleet.runs(fleet.newer), played.output
    assert played.code == 0, played.output
    assert fleet.server.component("node_exporter")["state"] == "success"


# -- several playbooks in one run -------------------------------------------------------------------------------------

IMPORT = "- import_playbook: PLAYBOOKS/{name}.yml\n  vars: {{{given}}}\n"


def several(*plays: tuple[str, str]) -> t.ContextManager[str]:
    return playbook("".join(IMPORT.format(name=name, given=given) for name, given in plays))


@way(
    "`plan` of two hosts, then `upgrade` with `upgrade_hosts` of one of them, in one run",
    "Only the host of `upgrade_hosts` is upgraded",
    hosts=2,
)
def test_plan_then_upgrade_of_one_host(fleet: Fleet) -> None:
    """The hosts of a plan stayed in a group for the rest of the run."""
    meant, other = fleet.servers
    before = other.snapshot()
    with several(("plan", ""), ("upgrade", f"upgrade_hosts: {meant.name}")) as site:
        fleet.play(site)
    assert meant.is_healthy("node_exporter", fleet.newer)
    assert other.snapshot() == before


def of_each_play(fleet: Fleet) -> dict[str, t.Any]:
    """Variables of a run whose playbooks say themselves, in C(request), what they want: extra variables win."""
    return {**fleet.request, "upgrade_versions": "{{ request }}"}


@way(
    "`upgrade` of one host, then `upgrade` of the other one to another version, in one run",
    "Each host has its own version, and one upgrade in its history",
    hosts=2,
)
def test_upgrade_of_one_host_then_of_another(fleet: Fleet) -> None:
    """The first host was upgraded again by the second playbook, with its old plan, and recorded as failed."""
    first, second = fleet.servers
    with several(
        ("upgrade", f"upgrade_hosts: {first.name}, request: {{node_exporter: '{fleet.newer}'}}"),
        ("upgrade", f"upgrade_hosts: {second.name}, request: {{node_exporter: '{fleet.newest}'}}"),
    ) as site:
        fleet.play(site, **of_each_play(fleet))
    for server, version in ((first, fleet.newer), (second, fleet.newest)):
        assert server.is_healthy("node_exporter", version)
        assert server.state()["upgrade"]["state"] == "COMPLETED"
        assert len(server.out("ls /var/lib/observability-upgrades/history").split()) == 1


@way(
    "`upgrade` twice, to one version and the next, then `rollback` of one host, and `rollback` that lists, in one run",
    "Each does its own work, and the last one none",
    hosts=2,
)
def test_upgrade_twice_then_rollback(fleet: Fleet) -> None:
    back, stays = fleet.servers
    with several(
        ("upgrade", f"request: {{node_exporter: '{fleet.newer}'}}"),
        ("upgrade", f"request: {{node_exporter: '{fleet.newest}'}}"),
        ("rollback", f"upgrade_hosts: {back.name}, upgrade_rollback_to: previous, request: {{}}"),
        ("rollback", "request: {}"),
    ) as site:
        fleet.play(site, upgrade_waves=ALL_AT_ONCE, **of_each_play(fleet))
    assert back.is_healthy("node_exporter", fleet.newer)
    assert stays.is_healthy("node_exporter", fleet.newest)
    for server, number in ((back, 3), (stays, 2)):
        assert server.state()["upgrade"]["state"] == "COMPLETED"
        assert len(server.out("ls /var/lib/observability-upgrades/history").split()) == number


@way(
    "`upgrade` with `upgrade_download_only`, then `upgrade`, in one run",
    "The releases are brought onto the hosts, then used",
)
def test_prestaging_then_upgrade(fleet: Fleet) -> None:
    with several(("upgrade", "upgrade_download_only: true"), ("upgrade", "")) as site:
        fleet.play(site)
    assert fleet.runs(fleet.newer)


@way(
    "`upgrade` to a release that dies, then `upgrade` of another host, in one run",
    "The first host is rolled back. Ansible ends the run there, so the other one is left unchanged",
    hosts=2,
)
def test_a_failure_of_one_playbook_then_another_host(fleet: Fleet) -> None:
    """Ansible begins no further play once all hosts of one have failed."""
    bad, other = fleet.servers
    with several(
        ("upgrade", f"upgrade_hosts: {bad.name}, request: {{node_exporter: '{DIES}'}}"),
        ("upgrade", f"upgrade_hosts: {other.name}, request: {{node_exporter: '{fleet.newer}'}}"),
    ) as site:
        fleet.play(site, code=2, **of_each_play(fleet))
    assert bad.is_healthy("node_exporter", fleet.older)
    assert bad.is_at_rest()
    assert Fleet([other], fleet.versions).untouched


LOSES = "systemctl stop ssh; pkill -KILL sshd"
COMES_BACK = "systemd-run --quiet sh -c 'sleep 1; {loses}; sleep 45; systemctl start ssh'"


@way(
    "`upgrade` of a host that is lost meanwhile, then `upgrade` of another host, in one run",
    "The lost host undoes its step by itself. Ansible ends the run, and the other one is left unchanged",
    hosts=2,
)
def test_a_host_that_is_lost_then_another_host(fleet: Fleet) -> None:
    """Ansible begins no further play once all hosts of one are lost."""
    lost, other = fleet.servers
    with (
        several(
            ("upgrade", f"upgrade_hosts: {lost.name}, upgrade_confirm_within: 20"),
            ("upgrade", f"upgrade_hosts: {other.name}"),
        ) as site,
        fleet.run(site, upgrade_overrides=WINDOW) as run,
    ):
        lost.await_state("node_exporter", "verifying", then=COMES_BACK.format(loses=LOSES))
        played = run.end()
    assert played.code == 4, played.output
    assert other.is_healthy("node_exporter", fleet.older), played.output
    while lost.host.run("true").rc != 0:  # until sshd is there again
        pass
    lost.await_state("node_exporter", "rolled_back")
    assert lost.is_healthy("node_exporter", fleet.older)


# -- tags, tasks and hosts --------------------------------------------------------------------------------------------


@way("`--tags node_exporter`", "Refused in one sentence that names `upgrade_only`")
def test_tags(fleet: Fleet) -> None:
    """One task was run, and the run ended with 0."""
    fleet.refused("upgrade", "--tags", "node_exporter", says="--tags node_exporter would skip all of the work")


@way("`--skip-tags all`, or `ANSIBLE_RUN_TAGS`, that skip the work", "Refused in one sentence")
def test_skipped_tags(fleet: Fleet) -> None:
    fleet.refused("plan", "--skip-tags", "all", says="would skip all of the work")
    fleet.refused("upgrade", settings={"ANSIBLE_RUN_TAGS": "x"}, says="--tags x would skip all of the work")


TAGGED = """
- import_playbook: PLAYBOOKS/upgrade.yml
  tags: [stack]
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.debug: {msg: "site's own"}
      tags: [config]
"""


@way("`--tags stack`, where `import_playbook` has `tags: [stack]`", "The run is as without tags")
def test_tags_of_an_import(fleet: Fleet) -> None:
    with playbook(TAGGED) as site:
        fleet.play(site, "--tags", "stack")
    assert fleet.runs(fleet.newer)


@way("`--tags config`, where another play of the site has that tag", "Only that play is run")
def test_tags_of_another_play(fleet: Fleet) -> None:
    with playbook(TAGGED) as site:
        assert "site's own" in fleet.play(site, "--tags", "config").output
    assert fleet.untouched


@way("`--start-at-task` with a task of the collection", "Refused in one sentence")
def test_start_at_task(fleet: Fleet) -> None:
    task = "Show | Show the plan, and stop if something stands in its way"
    fleet.refused("upgrade", "--start-at-task", task, code=4, says="would skip checks and the survey")


@way("`--start-at-task` with a task of the site after the import", "The run starts there")
def test_start_at_a_task_of_the_site(fleet: Fleet) -> None:
    own = TAGGED.replace("ansible.builtin.debug", "name: Smoke\n      ansible.builtin.debug")
    with playbook(own) as site:
        assert "site's own" in fleet.play(site, "--start-at-task", "Smoke").output
    assert fleet.untouched


@way("`--step`, and `continue` as the answer", "The run is as without it")
def test_step(fleet: Fleet) -> None:
    fleet.play("upgrade", "--step", under=["sh", "-c", 'echo c | "$@"', "sh"])
    assert fleet.runs(fleet.newer)


@way("`--syntax-check`, `--list-tasks`, `--list-tags`, `--list-hosts`", "They list, and do nothing")
def test_listings(fleet: Fleet) -> None:
    for option in ("--syntax-check", "--list-tasks", "--list-tags", "--list-hosts"):
        with fleet.run("upgrade", option) as run:
            played = run.end()
        assert played.code == 0, played.output
    assert fleet.untouched


@way("`upgrade_hosts=typo`", "Refused, with the pattern")
def test_hosts_that_are_none(fleet: Fleet) -> None:
    """The run ended with 0, and its recap was empty."""
    for name in ("upgrade", "plan", "verify"):
        fleet.refused(name, code=4, upgrade_hosts="typo", says="upgrade_hosts is 'typo', which matches no host")


@way("`upgrade_hosts` that matches nothing within `--limit`", "Refused, with both")
def test_hosts_beyond_the_limit(fleet: Fleet) -> None:
    fleet.refused("upgrade", code=4, upgrade_hosts="all:!all", says="which matches no host")
    (other, *_rest) = [name for name in ("host1", "host2") if name not in fleet.names]
    fleet.refused("upgrade", code=4, upgrade_hosts=other, says=f"within --limit '{fleet.names[0]}'")


@way("`-l typo`", "Refused by Ansible")
def test_a_limit_that_is_none(fleet: Fleet) -> None:
    fleet.refused("upgrade", "-l", "typo", code=1, says="leaves us with no hosts to target")


# -- plans and questions ----------------------------------------------------------------------------------------------


def plan_of(fleet: Fleet, directory: str) -> pathlib.Path:
    fleet.play("plan", upgrade_report_dir=directory)
    (path,) = pathlib.Path(directory).glob("plan-*.json")
    return path


@way("`upgrade_plan` as a path from the working directory", "That plan is carried out")
def test_a_plan_by_a_relative_path(fleet: Fleet) -> None:
    own = CHECKOUT / ".cache"
    own.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=own) as directory:
        path = plan_of(fleet, directory)
        fleet.play("upgrade", upgrade_plan=str(path.relative_to(CHECKOUT)))
    assert fleet.runs(fleet.newer)


@way("`upgrade_plan` as the content of a plan, where its file is gone", "That plan is carried out")
def test_a_plan_by_its_content(fleet: Fleet) -> None:
    with tempfile.TemporaryDirectory() as directory:
        plan = json.loads(plan_of(fleet, directory).read_text())
    changed = {**plan, "digest": "0" * 64}
    fleet.refused("upgrade", upgrade_plan=changed, says="its steps have another digest")
    fleet.refused("upgrade", upgrade_plan=plan, upgrade_approved="0" * 64, says="but upgrade_approved is")
    fleet.play("upgrade", upgrade_plan=plan, upgrade_approved=plan["digest"])
    assert fleet.runs(fleet.newer)


@way("`upgrade_plan` as JSON text, as a survey sends it", "That plan is carried out")
def test_a_plan_by_its_text(fleet: Fleet) -> None:
    with tempfile.TemporaryDirectory() as directory:
        text = plan_of(fleet, directory).read_text()
    fleet.play("upgrade", upgrade_plan=text)
    assert fleet.runs(fleet.newer)


@way("`upgrade_mode=safe` without a terminal", "Refused at once, with the digest to approve")
def test_safe_without_a_terminal(fleet: Fleet) -> None:
    fleet.refused("upgrade", upgrade_mode="safe", says="upgrade_approved=")


@way("`upgrade_mode=safe` at a terminal of AWX or ansible-runner", "Refused at once, with the digest to approve")
def test_safe_under_a_runner(fleet: Fleet) -> None:
    """Nobody reads that terminal: the run waited for an answer for ever."""
    for name in ("AWX_ISOLATED_DATA_DIR", "JOB_ID"):
        played = fleet.at_a_terminal("upgrade", answers=(), settings={name: "7"}, upgrade_mode="safe")
        assert played.code == 2, played.output
        assert "upgrade_approved=" in played.output
    assert fleet.untouched


@way("`upgrade_mode=safe` with `upgrade_approved`", "The plan is carried out without a question")
def test_safe_with_an_approval(fleet: Fleet) -> None:
    with tempfile.TemporaryDirectory() as directory:
        digest = json.loads(plan_of(fleet, directory).read_text())["digest"]
    fleet.play("upgrade", upgrade_mode="safe", upgrade_approved=digest, upgrade_pause=0)
    assert fleet.runs(fleet.newer)


# -- clocks -----------------------------------------------------------------------------------------------------------


@way(
    "`upgrade`, and the controller's clock is stepped by 1 s and 2 s meanwhile",
    "The run stays the same run and ends; another run is refused, by name, while it lives",
)
def test_a_clock_that_is_stepped_does_not_lock_a_run_out(fleet: Fleet) -> None:
    """The kernel tells its own start by the time of day, so /proc/stat follows each step of a clock."""
    with tempfile.TemporaryDirectory() as directory:
        clock = Clock(pathlib.Path(directory))
        with fleet.run("upgrade", under=clock.under, upgrade_overrides=WINDOW) as first:
            fleet.server.await_state("node_exporter", "activated")
            clock.step(1)
            fleet.server.await_state("node_exporter", "verifying")
            clock.step(2)
            upgrade = fleet.server.state()["upgrade"]["upgrade_id"]
            first.stop()
            second = fleet.play("upgrade", code=2, under=clock.under)
            first.go_on()
            ended = first.end()
    assert f"upgrade {upgrade} of" in second.output
    assert ended.code == 0, ended.output
    assert fleet.runs(fleet.newer)
    assert fleet.server.component("node_exporter")["state"] == "success"


class Clock:
    """The start of the kernel, as /proc/stat tells it, for programs in a mount namespace of their own."""

    def __init__(self, directory: pathlib.Path) -> None:
        self._file, self._lines = directory / "stat", pathlib.Path("/proc/stat").read_text().splitlines()
        self.step(0)

    @property
    def under(self) -> list[str]:
        mount = f'mount --bind {self._file} /proc/stat && exec "$@"'
        return ["unshare", "--mount", "--propagation=private", "sh", "-c", mount, "sh"]

    def step(self, seconds: int) -> None:
        """Step the clock by so many seconds, since this was made."""
        lines = [
            f"btime {int(line.split()[1]) + seconds}" if line.startswith("btime ") else line for line in self._lines
        ]
        self._file.write_text("\n".join(lines) + "\n")
