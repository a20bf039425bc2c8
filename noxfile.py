# Copyright: Contributors to the observability.stack collection
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# /// script
# dependencies = ["nox>=2025.02.09", "antsibull-nox"]
# ///

"""The sessions that antsibull-nox.toml asks for."""

import sys

import nox

try:
    import antsibull_nox
except ImportError:
    sys.exit("You need to install antsibull-nox in the same Python environment as nox.")

antsibull_nox.load_antsibull_nox_toml()

# Allow to run the noxfile with `pipx run noxfile.py`, or `uv run noxfile.py`.
if __name__ == "__main__":
    nox.main()
