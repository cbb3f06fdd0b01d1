#!/usr/bin/env python3
"""Shows that the tests of durability notice a store that is broken on purpose.

Usage: mutation_check.py FOLDER_OF_TEST_BINARIES. Run it with `ninja -C build mutation_check`, which
builds what it needs. Each broken build has one guarantee removed by a compile-time seam in
statestore/; the tests that run against it are those that run against the real one. It is caught if
they fail within 100 runs (seeds). The real store has to pass the same tests first.
"""
import os
import re
import subprocess
import sys
from pathlib import Path

RUNS = 100
POWER_LOSS = "PowerLossTest.NothingAcknowledgedIsLostAtAnyMoment"
LOG_DAMAGE = "DamageTest.DamageInsideTheLogIsNoSilentRollback"
# What was removed, the test binary without its suffix, and the test that must fail.
BROKEN = (("no_sync", "power_loss", POWER_LOSS), ("early_answer", "power_loss", POWER_LOSS),
          ("no_directory_sync", "power_loss", POWER_LOSS),
          ("no_mark_check", "damage", LOG_DAMAGE), ("no_journal_sync", "power_loss", POWER_LOSS),
          ("no_redo", "power_loss", POWER_LOSS))


def run(binary, test, first_seed, seeds):
    environment = dict(os.environ, ANABRANCH_POWER_LOSS_SEEDS=str(seeds),
                       ANABRANCH_POWER_LOSS_FIRST_SEED=str(first_seed))
    return subprocess.run([binary, f"--gtest_filter={test}", "--gtest_brief=1"], env=environment,
                          capture_output=True, text=True, timeout=1800)


def main():
    folder = Path(sys.argv[1])
    for test, name in ((POWER_LOSS, "power_loss_test"), (LOG_DAMAGE, "damage_test")):
        result = run(folder / name, test, 1, 10)
        if result.returncode != 0:
            print(result.stdout, result.stderr)
            return f"the real store does not pass {test}"
        print(f"real store: passes {test}")
    missed = []
    for broken, name, test in BROKEN:
        # The test ends at the first seed that fails, and says which.
        result = run(folder / f"{name}_{broken}", test, 1, RUNS)
        seed = re.search(r"FIRST_SEED=(\d+)", result.stdout)
        if result.returncode == 0:
            missed.append(broken)
            print(f"{broken}: NOT caught in {RUNS} runs")
        else:
            print(f"{broken}: caught by {test}, run {seed.group(1) if seed else 1}")
    return f"not caught: {', '.join(missed)}" if missed else 0


if __name__ == "__main__":
    sys.exit(main())
