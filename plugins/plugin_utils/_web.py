# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Controller. URLs for people: see C(module_utils/_web)."""

from __future__ import annotations

from ..module_utils._web import shown

__all__ = ["shown"]
