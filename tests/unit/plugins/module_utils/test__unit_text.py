# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every expected value below is what systemd 252 did with the same text."""

from __future__ import annotations

import pytest
from ansible_collections.observability.stack.plugins.module_utils import _unit_text
from ansible_collections.observability.stack.plugins.module_utils._unit_text import Command

ENVIRONMENT = {
    "A": "one two",
    "B": "b",
    "Q": "x 'y z' w",
    "ODD": "it's --b",
    "E": "",
    "D": "a\\b $B",
    "BS": "x\\y",
}


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        (r'/x --a=^/(sys|proc)($$|/) "--b=^(tmpfs|my fs)$$"', ["--a=^/(sys|proc)($|/)", "--b=^(tmpfs|my fs)$"]),
        (
            "-/x $A ${A} --x=$A --y=${A}/b pre$B $B/post",
            ["one", "two", "one two", "--x=$A", "--y=one two/b", "pre$B"],
        ),
        ("@/x name $Q \"$Q\" '${Q}' ", ["x", "y z", "w", "x", "y z", "w", "x 'y z' w"]),
        (":/x $A ${A} $$ --z=${B}", ["$A", "${A}", "$$", "--z=${B}"]),
        ('+/x $ODD $E ${E} $NONE ${NONE} a${NONE}b "" ', ["its --b", "", "", "ab", ""]),
        (
            r"""!/x a\tb a\x41b \u00e9 \303\251 a\sb \d x\\y 'a\nb' "q\"q" """,
            ["a\tb", "aAb", "é", "é", "a b", "\\d", "x\\y", "a\nb", 'q"q'],
        ),
        (r"""!!/x mid"dle q"uote 'sing'le a\;b \; c""", ["middle quote", "single", "a\\;b", ";", "c"]),
        ("/x \\\n   --a \\\n   # comment\n   ; other\n   --b \\\n   --c", ["--a", "--b", "--c"]),
        (
            "/x $D ${D} $BS ${BS} $$$$ $$A ${ $ x$ $",
            ["ab", "$B", "a\\b $B", "xy", "x\\y", "$$", "$A", "${", "x$"],
        ),
        ("/x ${A} ${A:-x} ${A-x} $A: $A-b ${A", ["one two", "${A:-x}", "", "${A"]),
        (r"/x trailing\\", ["trailing\\"]),
        ("""/x a""b "" '' x"y"'z' """, ["ab", "", "", "xyz"]),
    ],
)
def test_a_command_is_read_and_filled_in_as_systemd_does(text: str, arguments: list[str]) -> None:
    values = _unit_text.settings([f"[Service]\nExecStart={text}\n"], "Service", "ExecStart")
    (command,) = _unit_text.commands(values[0])
    assert _unit_text.expand(command, ENVIRONMENT)[1:] == arguments


@pytest.mark.parametrize(
    ("text", "commands"),
    [
        ('/a one ; /b two "th ree"', [Command("/a", ["/a", "one"]), Command("/b", ["/b", "two", "th ree"])]),
        ("@-/a name --x", [Command("/a", ["name", "--x"], "@-")]),
        ("-a --x", [Command("a", ["a", "--x"], "-")]),
        ("!!:/a", [Command("/a", ["/a"], "!!:")]),
        ("", []),
    ],
)
def test_commands_have_prefixes_names_and_separators(text: str, commands: list[Command]) -> None:
    assert _unit_text.commands(text) == commands


def test_a_quote_that_is_not_closed_is_refused_as_systemd_refuses_it() -> None:
    with pytest.raises(ValueError, match="not closed"):
        _unit_text.commands('/x "a')


@pytest.mark.parametrize(
    ("texts", "values"),
    [
        (["[Service]\nExecStart=/a\n", "[Service]\nExecStart=\nExecStart=/b\n"], ["/b"]),
        (["[Service]\nExecStart=/a\n", "[Service]\nExecStart=/b\n"], ["/a", "/b"]),
        (["[Unit]\nExecStart=/no\n[Service]\n ExecStart = /a b \n"], ["/a b"]),
        (["[Service]\n# ExecStart=/no\n;ExecStart=/no\nExecStartPre=/no\n"], []),
        (["[Service]\nExecStart=/a \\\n\n--no\n"], ["/a"]),
        (["[Service]\nExecStart=/a \\"], ["/a"]),
    ],
)
def test_drop_ins_reset_and_add(texts: list[str], values: list[str]) -> None:
    assert _unit_text.settings(texts, "Service", "ExecStart") == values


@pytest.mark.parametrize(
    ("text", "joined", "argv"),
    [
        ('/x "a b" c', "/x a b c", ["/x", "a b", "c"]),
        ('/x "%i x" %%d --t=%t/x "sp ace %i"', "/x in x %d --t=/run/x sp ace in", None),
        ("/x --other", "/x a b", ["/x", "a", "b"]),
    ],
)
def test_words_come_from_the_text_and_specifiers_from_systemd(text: str, joined: str, argv: list[str] | None) -> None:
    found = _unit_text.exact([("/x", joined)], _unit_text.commands(text))
    assert found[0].argv == (argv or ["/x", "in x", "%d", "--t=/run/x", "sp ace in"])


@pytest.mark.parametrize(
    ("text", "environment"),
    [
        ('ARGS="--a --b=c"\n', {"ARGS": "--a --b=c"}),
        ("# comment\n; comment\n\nA=1\nB='x y'\n", {"A": "1", "B": "x y"}),
        ('A="\n', {"A": "\n"}),
        ("A=1\\\n2\n", {"A": "12"}),
        ('A="a\nb"\nB=2\n', {"A": "a\nb", "B": "2"}),
        ("A='x\n y' tail\n", {"A": "x\n ytail"}),
        ("A = spaced  \n", {"A": "spaced"}),
        ('A=x "y" z\n', {"A": 'x "y" z'}),
        ('A="x" "y"\n', {"A": "xy"}),
        ("# c \\\nA=1\nB=2\n", {"B": "2"}),
        ("export A=1\nno assignment\n=x\n", {}),
        ("A=a\\ b\\\\c\n", {"A": "a b\\c"}),
        ('A="q\\"x \\$5 \\d\\\nn"\n', {"A": 'q"x $5 \\dn'}),
        ("A='\\d \\\"'\n", {"A": '\\d \\"'}),
        ("A=b # no comment\n", {"A": "b # no comment"}),
        ('A="x"y z \n', {"A": "xy z"}),
        ("1A=2\n=3\nA\nB=5", {"B": "5"}),
        ("A='it'\"s\"\n", {"A": "its"}),
        ("A=x\\", {"A": "x"}),
        (" A=1\n\tB=2\r\n", {"A": "1", "B": "2"}),
        ("A='--re=^(a|b)$'\n", {"A": "--re=^(a|b)$"}),
        ("URL=http://h/?a=b\n", {"URL": "http://h/?a=b"}),
    ],
)
def test_an_environment_file_is_read_as_systemd_does(text: str, environment: dict[str, str]) -> None:
    assert _unit_text.environment(text) == environment


def test_what_systemctl_prints_is_read_back() -> None:
    shown = '"A=one two" B=b "Q=x \'y z\' w" "ODD=it\'s --b" E= "D=a\\\\b \\$B" "BS=x\\\\y"'
    assert dict(word.split("=", 1) for word in _unit_text.shown_words(shown)) == ENVIRONMENT
    assert _unit_text.shown_words('A="b') == ['A="b']


def test_the_variables_that_a_command_needs() -> None:
    (command,) = _unit_text.commands("/x $A --b=${B} $$C $${D} e$F")
    assert _unit_text.references(command) == {"A", "B"}
    assert _unit_text.references(command._replace(prefixes=":")) == set()
