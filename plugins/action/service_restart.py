# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The controller's half of service_restart: it passes on what a host may answer."""

from __future__ import annotations

from ..plugin_utils._host_action import HostAction


class ActionModule(HostAction):
    """Runs the module on the host, and reads its answer by a schema."""

    module = "service_restart"
