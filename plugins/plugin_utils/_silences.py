# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Controller. Silences in an Alertmanager, by its API v2 (api/v2/openapi.yaml in its sources; since 0.16).

Nothing is remembered here: which silences belong to an upgrade of a host is told by their comments.
"""

from __future__ import annotations

import base64
import datetime as dt
import email.utils
import json
import re
import time
import typing as t

from ..module_utils import _output, _web
from ..module_utils._argv import redact_url as shown
from ..module_utils._errors import InputError, UpgradeError
from . import _ask

CREATED_BY = "observability.stack"
ENOUGH = 0.9
"""Share of the duration that may be left of a silence without its being extended."""

_ALIVE = ("active", "pending")
_EXPIRED_BEFORE = "already expired"  # what Alertmanager answers with status 500 then


class SilenceError(UpgradeError):
    """An Alertmanager can't be asked, or refuses."""

    default_key = "silence.unavailable"


class Matcher(t.NamedTuple):
    """Which alerts are meant: those whose label has this value. Alertmanager anchors a regular expression."""

    name: str
    value: str
    is_regex: bool = False

    @property
    def asked(self) -> dict[str, t.Any]:
        return {"name": self.name, "value": self.value, "isRegex": self.is_regex}


class Owner(t.NamedTuple):
    """What a silence is for."""

    upgrade_id: str
    host: str

    @property
    def words(self) -> str:
        """How all comments of its silences begin."""
        return f"{CREATED_BY}: upgrade {self.upgrade_id}, host {self.host}, component "

    def comment(self, component: str) -> str:
        return f"{self.words}{component or 'any'}"


class Silence(t.NamedTuple):
    """A silence as an Alertmanager has it. Times are seconds since 1970."""

    id: str
    comment: str
    matchers: frozenset[Matcher]
    starts_at: str
    ends: float

    @property
    def told(self) -> dict[str, t.Any]:
        return {"id": self.id, "ends_at": _text(self.ends), "comment": self.comment}


class Outcome(t.NamedTuple):
    """What became of a request: the Alertmanagers that did it, its silences, and who couldn't be asked."""

    changed: bool
    url: str
    silences: list[dict[str, t.Any]]
    warnings: list[str]


def of_instances(names: t.Sequence[str]) -> list[Matcher]:
    """Alerts of some hosts: their label C(instance) is one of the names, with any port or none."""
    if not names or not all(names):
        raise InputError("instances has no name, or an empty one: give the names that alerts have as instance")
    either = "|".join(rf"\[?{re.escape(name)}\]?" if ":" in name else re.escape(name) for name in names)
    return [Matcher("instance", f"^(?:{either})(?::[0-9]+)?$", is_regex=True)]


def matchers(given: t.Sequence[t.Mapping[str, t.Any]]) -> list[Matcher]:
    """Matchers as an operator writes them.

    :raises InputError: if one could mean all alerts.
    """
    found = [Matcher(each["name"], each["value"], bool(each.get("isRegex"))) for each in given]
    for each in found:
        if not each.name or not each.value:
            raise InputError(f"matchers: {each.name!r} = {each.value!r} has no name or no value: give both")
    if not found:
        raise InputError("matchers is empty, which is all alerts: give one, or leave it out")
    return found


class Alertmanager:
    """One Alertmanager, and who asks it.

    :param url: its address, with its prefix; a login in it is used for this host.
    :param authorization: the value of the header, for its host only; empty for none.
    :param open_url: that of C(ansible.module_utils.urls), or with more arguments filled in.
    :param timeout: seconds for all requests to it.
    """

    def __init__(self, url: str, *, authorization: str, open_url: t.Callable[..., t.Any], timeout: float) -> None:
        if not re.match("https?://[^/]", url) or re.search(r"[\s?#]", url):
            raise InputError(f"url: {shown(url)!r} is no address of an Alertmanager: write http://host:9093")
        self.base = url.rstrip("/")
        self._open_url, self._authorization, self._timeout = open_url, authorization, timeout
        self._behind = 0.0
        self._began: float | None = None

    @property
    def name(self) -> str:
        return shown(self.base)

    def now(self) -> float:
        """The time as this Alertmanager told it last: a silence that begins in its future silences nothing."""
        return time.time() - self._behind

    def alive(self, owner: Owner) -> list[Silence]:
        """The silences of an owner that hold, or will: the one that ends last comes first."""
        body = self._ask("silences")
        try:
            own = [each for each in json.loads(body) if _is_of(each, owner)]
            return sorted(map(_silence, own), key=lambda each: each.ends, reverse=True)
        except (ValueError, TypeError, LookupError, AttributeError) as exc:
            raise SilenceError(
                f"{self.name}/api/v2/silences doesn't answer as an Alertmanager does: is its prefix in url?",
                key="silence.not_alertmanager",
            ) from exc

    def post(self, wanted: t.Sequence[Matcher], comment: str, *, ends: float, instead: Silence | None) -> Silence:
        """Make a silence, or make one of them longer, which may give it another id."""
        starts = instead.starts_at if instead else _text(self.now())
        silence = {
            **({"id": instead.id} if instead else {}),
            "matchers": [each.asked for each in wanted],
            "startsAt": starts,
            "endsAt": _text(ends),
            "createdBy": CREATED_BY,
            "comment": comment,
        }
        body = self._ask("silences", method="POST", data=silence)
        try:
            identity = str(json.loads(body)["silenceID"])
        except (ValueError, TypeError, LookupError) as exc:
            raise SilenceError(
                f"{self.name}/api/v2/silences didn't tell the silence that it made: look whether there is one",
                key="silence.not_alertmanager",
            ) from exc
        return Silence(identity, comment, frozenset(wanted), starts, ends)

    def expire(self, silence: Silence) -> None:
        """End a silence. It may have ended meanwhile."""
        self._ask(f"silence/{silence.id}", method="DELETE", gone=True)

    def _ask(
        self, path: str, *, method: str = "GET", data: dict[str, t.Any] | None = None, gone: bool = False
    ) -> bytes:
        """The body of an answer.

        :param gone: whether that it isn't there any more is a success.
        """
        url = f"{self.base}/api/v2/{path}"
        self._began = self._began or time.monotonic()

        def exchange() -> tuple[bytes, int, str | None]:
            with _web.answered(
                url,
                open_url=self._opener(data),
                headers={"Content-Type": "application/json"} if data else None,
                secrets=self._secrets,
                method=method,
                timeout=self._timeout,
            ) as response:
                return _ask.body(response), response.status, response.headers.get("Date")

        try:
            body, status, date = _ask.in_time(self._timeout, exchange, began=self._began)
            self._behind = _behind(date)
        except (_web.TransferError, OSError, ValueError) as exc:
            raise SilenceError(f"{shown(url)} can't be asked: {getattr(exc, 'why', '') or exc}") from exc
        if 200 <= status < 300 or (gone and _is_gone(status, body)):
            return body
        said = _output.redact(body.decode("utf-8", "replace"), self._known())
        raise _refusal(shown(url), status, said)

    def _known(self) -> list[str]:
        """What an answer may repeat of the login."""
        scheme, _space, value = self._authorization.partition(" ")
        password = base64.b64decode(value).decode().partition(":")[2] if scheme == "Basic" else ""
        return [*_output.secrets_of([self.base]), *filter(None, [value, password])]

    def _opener(self, data: dict[str, t.Any] | None) -> t.Callable[..., t.Any]:
        encoded = None if data is None else json.dumps(data).encode()

        def opened(url: str, **arguments: t.Any) -> t.Any:
            return self._open_url(url, data=encoded, **arguments)

        return opened

    def _secrets(self, host: str) -> dict[str, str]:
        own = self._authorization and host == _web.host_of(self.base)
        return {"Authorization": self._authorization} if own else {}


def silence(
    peers: t.Sequence[Alertmanager],
    owner: Owner,
    wanted: t.Sequence[Matcher],
    *,
    component: str,
    duration: float,
    check: bool,
) -> Outcome:
    """See that alerts are silenced for so many seconds. The first peer that does it is enough: peers tell each other.

    :raises SilenceError: if none does.
    """

    def by(peer: Alertmanager) -> Outcome:
        comment = owner.comment(component)
        same = next((each for each in peer.alive(owner) if each.comment == comment), None)
        kept = same and same.matchers == frozenset(wanted)
        if same and kept and same.ends >= peer.now() + ENOUGH * duration:
            return Outcome(False, peer.name, [same.told], [])
        ends = peer.now() + duration
        if check:
            return Outcome(True, peer.name, [{"id": None, "ends_at": _text(ends), "comment": comment}], [])
        return Outcome(True, peer.name, [peer.post(wanted, comment, ends=ends, instead=same).told], [])

    done, refused = _each(peers, by, enough=1)
    return done[0]._replace(warnings=refused)


def unsilence(peers: t.Sequence[Alertmanager], owner: Owner, *, check: bool) -> Outcome:
    """End all silences of an upgrade of a host. Each peer is asked: one that is cut off from the others has its own.

    :raises SilenceError: if none answers.
    """

    def by(peer: Alertmanager) -> Outcome:
        found = peer.alive(owner)
        for each in found:
            if not check:
                peer.expire(each)
        return Outcome(bool(found), peer.name, [each.told for each in found], [])

    done, refused = _each(peers, by, enough=len(peers))
    first = next((each for each in done if each.changed), done[0])
    ended = {told["id"]: told for each in done for told in each.silences}
    return Outcome(first.changed, first.url, list(ended.values()), refused)


def _each(
    peers: t.Sequence[Alertmanager], act: t.Callable[[Alertmanager], Outcome], *, enough: int
) -> tuple[list[Outcome], list[str]]:
    """What peers did, until enough have, and what kept the others from it."""
    done: list[Outcome] = []
    failures: list[SilenceError] = []
    for peer in peers:
        try:
            done.append(act(peer))
        except SilenceError as exc:
            failures.append(exc)
        if len(done) == enough:
            break
    if not done:
        raise SilenceError("; ".join(map(str, failures)), key=failures[0].key)
    return done, list(map(str, failures))


def basic(user: str, password: str) -> str:
    """The header that tells a name and a password (RFC 7617)."""
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


def bearer(token: str) -> str:
    """The header that tells a token."""
    if not re.fullmatch("[!-~]+", token):  # http.client would tell the whole of it in its error
        raise InputError("token has spaces or other characters in it that no token has, or is empty")
    return f"Bearer {token}"


def _is_of(given: t.Any, owner: Owner) -> bool:
    mine = given["createdBy"] == CREATED_BY and given["comment"].startswith(owner.words)
    return mine and given["status"]["state"] in _ALIVE


def _silence(given: dict[str, t.Any]) -> Silence:
    found = frozenset(
        # isEqual: false is never ours, and must not look like it
        Matcher(("" if each.get("isEqual", True) else "!") + each["name"], each["value"], each["isRegex"])
        for each in given["matchers"]
    )
    return Silence(str(given["id"]), given["comment"], found, given["startsAt"], _seconds(given["endsAt"]))


def _is_gone(status: int, body: bytes) -> bool:
    return status in (404, 410) or (status == 500 and _EXPIRED_BEFORE in body.decode("utf-8", "replace"))


_HINTS = {
    401: ("silence.forbidden", "give a login that it takes"),
    403: ("silence.forbidden", "give a login that may silence alerts"),
    404: ("silence.not_alertmanager", "is its prefix in url, and is it 0.16 or newer?"),
}


def _refusal(name: str, status: int, body: str) -> SilenceError:
    key, hint = _HINTS.get(status, ("silence.refused", ""))
    says = hint or " ".join(body[:500].split()) or "it didn't say why"
    return SilenceError(f"{name} answered {status}: {says}", key=key)


def _behind(date: str | None) -> float:
    """Seconds by which a server's clock is behind ours, by what its answer says; 0 if it doesn't."""
    try:
        behind = time.time() - email.utils.parsedate_to_datetime(date or "").timestamp()
    except (TypeError, ValueError):
        return 0.0
    return behind if abs(behind) > 2 else 0.0  # the header tells whole seconds, and the way takes time


def _text(seconds: float) -> str:
    """A time as RFC 3339 has it."""
    moment = dt.datetime.fromtimestamp(seconds, tz=dt.timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def _seconds(text: str) -> float:
    """The time that such a text tells, to the second: an Alertmanager writes fractions of any length."""
    whole = re.fullmatch(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.\d+)?([Zz]|[+-]\d\d:\d\d)", text)
    if not whole:
        raise ValueError(f"{text!r} is no time")
    zone = "+00:00" if whole[3] in "Zz" else whole[3]
    return dt.datetime.fromisoformat(f"{whole[1]}T{whole[2]}{zone}").timestamp()
