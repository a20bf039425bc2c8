# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Io ring. How a unit runs its component: its flags and files, and where the component answers.

What runs is read from the process: its arguments, its working directory, its variables and its sockets. The text of
the unit counts where nothing runs, or where the process can't be read.
"""

from __future__ import annotations

import functools
import os
import pwd
import re
import typing as t
import urllib.parse

from . import _argv, _files, _http, _process, _sockets, _systemd, _web_config

if t.TYPE_CHECKING:
    from ._command import Run
    from ._sockets import Socket

    Spec = dict[str, t.Any]

_ASK_TIMEOUT = 2.0
"""Seconds for a question at a socket: whether TLS is spoken, and whether a login is asked for."""

_TLS_NAME = re.compile(r"(?:^|[._-])(?:tls|ssl|https)(?:$|[._-])", re.IGNORECASE)
_TLS_SETTING = re.compile(r"^[ \t]*[\"']?(?:http_tls_config|tls_server_config|tls_cert|cert_file)\b", re.MULTILINE)
_NO_PATH = re.compile(r"(?!file:)[A-Za-z][A-Za-z0-9+.-]*:")
_OF_CLIENTS = ("SSL_CERT_FILE", "SSL_CERT_DIR")
"""Variables that tell a program whom to trust, and nothing of its own TLS."""

_WILDCARDS = ("0.0.0.0", "::", "*", "")
_MOST_FILES = 100
_OWN_VARIABLES = {
    *("PATH", "LANG", "HOME", "USER", "LOGNAME", "SHELL", "PWD", "SHLVL", "_", "INVOCATION_ID", "JOURNAL_STREAM"),
    *(
        "SYSTEMD_EXEC_PID",
        "MEMORY_PRESSURE_WATCH",
        "MEMORY_PRESSURE_WRITE",
        "LISTEN_PID",
        "LISTEN_FDS",
        "LISTEN_FDNAMES",
    ),
    *("NOTIFY_SOCKET", "MANAGERPID", "MAINPID", "WATCHDOG_PID", "WATCHDOG_USEC", "OLDPWD", "TERM"),
}
"""Variables that systemd and shells set for any service."""


def set_up(
    spec: Spec, unit: _systemd.Unit, argv: list[str], *, pid: int = 0, run: Run | None = None
) -> dict[str, t.Any]:
    """How a unit runs its component: flags, files, and where it answers.

    :param argv: the component's command line, as C(_systemd.command_line) gives it.
    :param pid: the component's process; by default the unit's main process.
    :param run: runs systemctl, for what the unit's properties do not tell.
    """
    return _Setup(spec, unit, argv, pid or unit.main_pid, run).facts()


def on_host(unit: _systemd.Unit, path: str) -> str:
    """Where a path of a unit's own file system is on the host: below its C(RootDirectory), if it has one."""
    root = unit.properties.get("RootDirectory", "")
    return os.path.join(root, path.lstrip("/")) if root and root != "/" else path


class _Setup:
    """One unit and its process."""

    def __init__(self, spec: Spec, unit: _systemd.Unit, argv: list[str], pid: int, run: Run | None) -> None:
        self.spec = spec
        self.unit = unit
        self.pid = pid
        self._run = run
        self.network = _sockets.network_of(pid)
        self.base = _working_directory(unit, pid)
        self.argv = _argv.with_files(argv, lambda path: _read(self.place(path)))
        own = _systemd.environment_of(unit, _files.read_text, run)
        live = _process.environment(pid) if pid else {}
        # A process can give itself any arguments and variables. Which files are read, and where a login is sent,
        # follows from the unit, which is root's, wherever that starts the program itself.
        names = [os.path.basename(word) for word in argv[:1]]
        declared = _systemd.start_line(unit, _files.read_text, run=run, names=names)
        self.is_declared = bool(declared and argv) and os.path.basename(declared[0]) == os.path.basename(argv[0])
        self.trusted = declared if self.is_declared else self.argv
        self.environment = own if self.is_declared else {**own, **live}
        self.own_names = sorted({*own, *filter(_is_told, live)})
        self.config_text = ""

    def facts(self) -> dict[str, t.Any]:
        spec, unit = self.spec, self.unit
        config = self._config()
        self.config_text = _files.read_text(config) if config else ""
        values = _config_values(spec, self.config_text)
        web_config = self.place(self.value("web_config"))
        data = self.place(self.value("data") or values.get("data")) or self._usual("default_data")
        listens = _sockets.of_unit(unit.name, self.pid) if self.pid else None
        url = self._url(values, listens, web_config)
        told = [] if listens is None else [each._asdict() for each in listens]
        more = _config_files(map(self.place, self._values("config")))
        missing = self._missing(config, web_config)
        return {
            "main_pid": self.pid,
            "state": {"active": unit.active, "sub": unit.sub, "n_restarts": unit.n_restarts},
            "user": unit.properties.get("User") or "root",
            "unit_files": unit.files(),
            "command_line": _argv.redact(self.argv),
            "flags": _argv.flag_names(self.argv),
            **_flag_values(spec, self.argv),
            "settings": settings(spec, self.config_text),
            "environment": self.own_names,
            "config": config,
            "web_config": web_config,
            "data": data,
            **({"config_files": more} if more not in ([], [config]) else {}),
            **({"missing": missing} if missing else {}),
            **({"listens": told} if listens is not None else {}),
            **({"unseen": _UNSEEN} if self.pid and listens is None else {}),
            "url": f"{url}{_prefix(self.value('route_prefix'), self.value('external_url'))}",
            "metrics_path": self.value("metrics_path") or spec["metrics_path"],
            "protected": self._is_protected(url, web_config),
        }

    # -- what is set ------------------------------------------------------------------------------------------------

    def value(self, meaning: str) -> str | None:
        """The value of a flag, by what it means to the catalog; if it isn't set, that of the program's variable."""
        values = self._values(meaning)
        return values[-1] if values else None

    def _values(self, meaning: str) -> list[str]:
        flags = self.spec.get("flags", {})
        names = [
            *([flags[meaning]] if meaning in flags else []),
            *self.spec.get("former_flags", {}).get(meaning, []),
        ]
        values = [value for name in names for value in _argv.flag_values(self.trusted, name)]
        variables = self.spec.get("flag_variables", {}).get(meaning, [])
        return values or [self.environment[name] for name in variables if self.environment.get(name)][:1]

    def place(self, path: str | None) -> str | None:
        """Where on the host a file of the program is. A relative path begins at its working directory."""
        if not path or _NO_PATH.match(path):
            return None
        path = path.removeprefix("file:")
        return on_host(self.unit, path if path.startswith("/") else os.path.normpath(os.path.join(self.base, path)))

    def _config(self) -> str | None:
        """The configuration: of several that one flag names, separated by commas, the first that is there."""
        named = self.value("config")
        if not named:
            return self._usual("default_config")
        several = named.split(",")
        places = map(self.place, [named, *several])
        return next((path for path in places if path and os.path.exists(path)), self.place(several[0]))

    def _usual(self, field: str) -> str | None:
        """The first that is there of the paths that the program, or its packages, use by default."""
        places = map(self.place, _argv.as_list(self.spec.get(field)))
        return next((path for path in places if path and os.path.exists(path)), None)

    def _missing(self, config: str | None, web_config: str | None) -> list[str]:
        """The files that the unit declares and a restore point can't keep, since they can't be read safely."""
        declared = [config if self.value("config") else None, web_config]
        return [
            path
            for path in declared
            if path and not os.path.isdir(path) and not any(map(_files.is_file, _files.matching(path)))
        ]

    # -- where it answers -------------------------------------------------------------------------------------------

    def _url(self, values: dict[str, str], listens: list[Socket] | None, web_config: str | None) -> str:
        """Where the component answers: the address that its flag names if a socket is there, or else its socket."""
        flags = self._values("listen")
        texts = flags or [":".join(values.get(key, "") for key in ("address", "port"))]
        wanted = [_argv.listen_address(text, port=self.spec["port"]) for text in texts]
        sockets = listens or self._declared_sockets()
        plain = self._chosen(wanted, sockets)
        hinted = web_config or values.get("protocol") or self._hints_at_tls()
        spoken = _http.speaks_tls(plain, timeout=_ASK_TIMEOUT, network=self.network) if hinted and self.pid else None
        if spoken is None:
            spoken = values.get("protocol") == "https" or _web_config.names_certificate(_read(web_config))
        return plain.replace("http", "https", 1) if spoken else plain

    def _chosen(self, wanted: list[_argv.ListenAddress], sockets: list[Socket]) -> str:
        """The URL, without TLS, of the socket to ask: one that was declared, one at a declared port, one at the usual
        port, and else the first. Where none is known, what was declared."""
        for address in wanted:
            if any(_is_at(each, address) and not self._may_be_ipv6_only(each) for each in sockets):
                return _url_of(*address)
        internet = sorted((each for each in sockets if each.port), key=_preference)
        ports = [*(address.port for address in wanted), self.spec["port"]]
        for port in ports:
            found = next((each for each in internet if each.port == port), None)
            if found:
                return self._reachable(found)
        if len(internet) > 1:
            internet.sort(key=lambda each: not self._serves_metrics(each))
        if internet:
            return self._reachable(internet[0])
        # A process can have a path in a file system of its own, which is another socket on the host.
        local = {each.unix for each in sockets if each.unix} & {each.unix for each in self._declared_sockets()}
        if local:
            return _http.unix_url(min(local))
        return _url_of(*wanted[-1]) if self.is_declared or not self.pid else _url_of("127.0.0.1", self.spec["port"])

    def _reachable(self, found: Socket) -> str:
        """The URL of a socket. One that is bound to all addresses of IPv6 takes those of IPv4, too, unless it was told
        not to, as by the BindIPv6Only of a socket unit."""
        if self._may_be_ipv6_only(found):
            both = _http.get(_url_of("127.0.0.1", found.port), timeout=_ASK_TIMEOUT, network=self.network)
            return _url_of("127.0.0.1" if both.status else "::1", found.port)
        return _url_of("127.0.0.1" if found.address in _WILDCARDS else found.address, found.port)

    def _may_be_ipv6_only(self, each: Socket) -> bool:
        return each.address == "::" and bool(self.pid and self.unit.properties.get("TriggeredBy"))

    def _serves_metrics(self, each: Socket) -> bool:
        url = f"{self._reachable(each)}{self.value('metrics_path') or self.spec['metrics_path']}"
        return _http.get(url, timeout=_ASK_TIMEOUT, network=self.network).status in (200, 400, 401)

    def _declared_sockets(self) -> list[Socket]:
        """The sockets that systemd listens at for the unit, where its process can't be seen."""
        names = [name for name in self.unit.properties.get("TriggeredBy", "").split() if name.endswith(".socket")]
        if not names or not self._run:
            return []
        shown = self._run(["systemctl", "show", "--property=Listen", "--value", "--", *names], timeout=30)
        return _sockets.declared(shown.out) if shown.rc == 0 else []

    def _hints_at_tls(self) -> bool:
        names = [*_argv.flag_names(self.argv), *(name for name in self.own_names if name not in _OF_CLIENTS)]
        return any(map(_TLS_NAME.search, (name.replace("_", "-") for name in names))) or bool(
            _TLS_SETTING.search(self.config_text)
        )

    def _is_protected(self, url: str, web_config: str | None) -> bool:
        """Whether a login is asked for. Where the service doesn't answer, whether its configuration names users."""
        if not web_config:
            return False
        status = _http.get(f"{url}/", timeout=_ASK_TIMEOUT, network=self.network).status if self.pid else None
        return _web_config.names_users(_read(web_config)) if status is None else status == 401


_UNSEEN = (
    "its process can't be read without the capability CAP_SYS_PTRACE: its sockets and its working directory are taken "
    "from its unit"
)


@functools.lru_cache(maxsize=64)
def _is_told(name: str) -> bool:
    """Whether a variable of a process is one to report by its name."""
    return bool(re.fullmatch(r"[A-Za-z_]\w{0,99}", name, re.ASCII)) and name not in _OWN_VARIABLES


def _read(path: str | None) -> str:
    return _files.read_text(path) if path else ""


def _working_directory(unit: _systemd.Unit, pid: int) -> str:
    """The directory in which the unit's program looks for relative paths, in its own file system."""
    rooted = unit.properties.get("RootDirectory") or unit.properties.get("RootImage")
    live = _process.directory(pid) if pid and not rooted else None
    named = unit.properties.get("WorkingDirectory", "").lstrip("!-")
    if live or named != "~":
        return live or named or "/"
    try:
        return pwd.getpwnam(unit.properties.get("User") or "root").pw_dir
    except KeyError:
        return "/"


def _is_at(each: Socket, address: _argv.ListenAddress) -> bool:
    """Whether a socket is the one that a flag names. Of names only localhost counts: any other could lead elsewhere."""
    if each.port != address.port:
        return False
    if address.host in (each.address, "localhost"):
        return True
    return each.address in _WILDCARDS and address.host in ("127.0.0.1", "::1")


def _preference(each: Socket) -> tuple[bool, bool, int]:
    """The order in which sockets are asked: those at the loopback address first, those of a link last."""
    return each.address.startswith("fe80:"), each.address not in (*_WILDCARDS, "127.0.0.1", "::1"), each.port


def _url_of(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _config_files(paths: t.Iterable[str | None]) -> list[str]:
    """The files that make up a configuration which is a directory, has wildcards, or is named more than once."""
    found: list[str] = []
    for path in filter(None, paths):
        for each in _files.matching(path):
            found.extend(_files.files_below(each, most=_MOST_FILES) if os.path.isdir(each) else [each])
    return list(dict.fromkeys(path for path in found if _files.is_file(path)))[:_MOST_FILES]


def _flag_values(spec: Spec, argv: list[str]) -> dict[str, t.Any]:
    """Those values of flags that some version doesn't take any more. Nothing else is told: a value may be a secret."""
    found: dict[str, list[str]] = {}
    for removal in spec.get("removed_values", []):
        given = ",".join(_argv.flag_values(argv, removal["flag"])).split(",")
        if removal["value"] in (value.strip() for value in given):
            found.setdefault(removal["flag"], []).append(removal["value"])
    return {"flag_values": found} if found else {}


def _config_values(spec: Spec, text: str) -> dict[str, str]:
    """What the component's own configuration says, found by the catalog's expressions: hosts have no YAML parser."""
    values = {}
    for name, expression in spec.get("config_values", {}).items():
        found = re.search(expression, text, re.MULTILINE)
        if found:
            values[name] = found.group(1).strip("\"'")
    return values


def settings(spec: Spec, text: str) -> list[str]:
    """Those settings of the configuration that some version doesn't take any more."""
    return [
        removal["setting"]
        for removal in spec.get("removed_settings", [])
        if re.search(removal["pattern"], text, re.MULTILINE)
        and not (removal["unless"] and re.search(removal["unless"], text, re.MULTILINE))
    ]


def _prefix(route_prefix: str | None, external_url: str | None) -> str:
    """The path below which a service answers: its route prefix, which defaults to the path of its external URL."""
    path = route_prefix if route_prefix is not None else urllib.parse.urlsplit(external_url or "").path
    return f"/{path.strip('/')}" if path.strip("/") else ""
