# SPDX-License-Identifier: LGPL-2.1-or-later
"""A machine that is out of order: a slow or full disk under the journal, a clock that is wrong. See faults.c."""
import os

from process import BUILD


class Faults:
    """t.service(wrap=faults.wrap) is a service on such a machine; set() and clear() are in force at once.

        faults = Faults(t)
        faults.set("slow", 200)     # each fdatasync of the journal takes 200 ms
        faults.set("full")          # nothing more can be written to the journal
        faults.set("clock", -3600)  # the clock is an hour behind
    """

    def __init__(self, t):
        self.folder = t.path("faults")
        os.makedirs(self.folder)

    @property
    def wrap(self):
        # With sanitizers, their library need not come first.
        return ["env", f"LD_PRELOAD={BUILD}/tests/faults.so", f"FAULTS_FOLDER={self.folder}",
                "ASAN_OPTIONS=" + ":".join(filter(None, [os.environ.get("ASAN_OPTIONS"), "verify_asan_link_order=0"]))]

    def set(self, name, value=0):
        with open(f"{self.folder}/.new", "w") as f:
            f.write(str(value))
        os.rename(f"{self.folder}/.new", f"{self.folder}/{name}")

    def clear(self, name):
        os.unlink(f"{self.folder}/{name}")
