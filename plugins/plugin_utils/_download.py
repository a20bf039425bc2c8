# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Controller. Transfers into the controller's cache: those of C(module_utils/_transfer), which hosts have as well."""

from __future__ import annotations

import functools

from ansible.module_utils.urls import open_url
from ansible.utils.display import Display

from ..module_utils import _transfer
from ..module_utils._errors import ReleaseError
from ..module_utils._transfer import LIMITS, About, Limits, Progress, Reporter, There, Tools, there, together
from . import _publish

__all__ = [
    "LIMITS",
    "TOOLS",
    "About",
    "Limits",
    "Progress",
    "ReleaseError",
    "Reporter",
    "There",
    "Tools",
    "download",
    "not_kept",
    "read_small",
    "there",
    "together",
]

TOOLS = Tools(
    open_url=open_url,
    machine="controller",
    setting="upgrade_cache_dir",
    say=_publish.say,
    warn=lambda text: Display().warning(text),
)

download = functools.partial(_transfer.download, tools=TOOLS)
read_small = functools.partial(_transfer.read_small, tools=TOOLS)


def not_kept(directory: str, exc: OSError) -> ReleaseError:
    """What an error of the operating system means for the cache."""
    return _transfer.not_kept(directory, exc, TOOLS)
