"""The waiting protocol (docs/waiting.md) under spin: searched in full, and with mistakes that have to be found.

By hand, for the steps that lead to an error::

    cd tests/model && spin -a -DONE_SLOW=2 ... waiting.pml && cc -O1 -DSAFETY -DNOCLAIM -o pan pan.c && ./pan
    spin -p -t -k waiting.pml.trail -DONE_SLOW=2 ... waiting.pml

LIBAIO_SHIM_DEEP_MODEL=1 adds searches that take minutes.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
DEPTH = 200_000
MEMORY_MB = 900
DEEP_MEMORY_MB = 4000
TIMEOUT_S = 1000  # for the deep searches; others end by the limit that all tests have

pytestmark = pytest.mark.skipif(
    not (shutil.which("spin") and shutil.which("cc")), reason="spin or cc is not installed (apt-get install spin gcc)"
)

# What the two threads of waiting.pml do: what each submits, how many events it waits for, and what may go wrong.
PROGRAMS = {
    "second-thread": "ONE_SLOW=2 ONE_WAITS=2 TWO_QUICK=1 TWO_WAITS=1",
    "many-at-once": "ONE_SLOW=3 ONE_WAITS=3 TWO_QUICK=1 TWO_WAITS=1",
    "alone": "ONE_QUICK=1 ONE_SLOW=1 ONE_WAITS=2 ALONE",
    "elsewhere": "ONE_SLOW=1 ONE_CREW=1 ONE_WAITS=2 TWO_CREW=1 TWO_WAITS=1",
    "beside": "ONE_SLOW=1 ONE_WAITS=1 TWO_CREW=2 TWO_WAITS=2",
    "refusals": "ONE_SLOW=2 ONE_WAITS=2 TWO_QUICK=1 TWO_WAITS=1 REFUSALS",
    "kicks-fail": "ONE_SLOW=2 ONE_WAITS=2 TWO_QUICK=1 TWO_WAITS=1 SLICES",
    "destroyed": "ONE_SLOW=2 ONE_WAITS=3 DESTROYS",
    "jumps-away": "ONE_QUICK=1 ONE_WAITS=1 TWO_QUICK=1 TWO_WAITS=1 JUMPS=true",
    "slowed": "ONE_QUICK=1 ONE_WAITS=1 TWO_QUICK=1 TWO_WAITS=1 SLICES SLOWED",
}
DEEP = {
    "all-lanes": "ONE_QUICK=1 ONE_SLOW=1 ONE_WAITS=2 TWO_QUICK=1 TWO_CREW=1 TWO_WAITS=1",
    "jumps-or-slow": "ONE_QUICK=1 ONE_WAITS=1 TWO_QUICK=1 TWO_WAITS=1 JUMPS=true SLICES SLOWED",
}
MODELS = {f"waiting-{name}": ("waiting", macros) for name, macros in PROGRAMS.items()} | {
    "request": ("request", ""),
    "reaper": ("reaper", ""),
    "waiters": ("waiters", "FIRST=1 SECOND=1 THIRD=2 TOGETHER=2"),
    "waiters-alike": ("waiters", "FIRST=1 SECOND=1 THIRD=1 TOGETHER=1"),
    "waiters-at-once": ("waiters", "FIRST=1 SECOND=1 THIRD=1 TOGETHER=2"),
    "waiters-greedy": ("waiters", "FIRST=1 SECOND=2 THIRD=2 TOGETHER=2 MORE=1"),
    "announce": ("announce", ""),
    "announce-past": ("announce", "PAST"),
    "announce-cancelled": ("announce", "PAST CANCELLED"),
}
# Everybody who waits is served in the end, if every thread that can go on does.
LIVE = ["waiting-alone", "waiting-elsewhere", "waiting-destroyed", "request", "reaper"]
# A mistake, and where it must be found.
MUTATIONS = {
    "SHARE_SILENTLY": "waiting-second-thread",  # a second thread lets the leader count on several events
    "SHARE_UNSEEN": "waiting-second-thread",  # the leader does not look for one again (no fence in lead())
    "SEQ_UNLOCKED": "waiting-second-thread",  # a follower reads seq after it has let go of the lock
    "DRAIN_BESIDE_LEADER": "waiting-second-thread",  # events are taken in memory while somebody leads
    "KICK_ONCE": "waiting-many-at-once",  # a kick is one event, whatever the leader waits for
    "POST_SILENTLY": "waiting-alone",  # a post does not tell a leader that counts on several
    "STEAL_KICKS": "waiting-beside",  # who takes events beside the leader takes its kicks, too, and says nothing
    "KICK_NOBODY": "waiting-second-thread",  # the leader does not hear of an event that no follower is woken for
    "KEEP_LATER": "waiting-elsewhere",  # wake_at is the last of the waiters' counts, not the first
    "DESTROY_SILENTLY": "waiting-destroyed",  # io_destroy wakes nobody
    "LOSE_TAKEN": "waiting-jumps-away",  # what a leader had taken is on its stack
    "MEMORY_BESIDE_LATE": "waiting-slowed",  # a late leader is taken for one that has gone
    "NO_DRAIN": "request",  # the submitter does not look at the hidden ring before it is back
    "NO_HOLD": "request",  # nor hold what a leader may have in its hands
    "CLAIM_UNLOCKED": "request",  # a leader claims after it has left
    "TWO_STEPS": "request",  # the phase is read, then written, not exchanged
    "KEEP_WAKE_UP": "waiters",  # who was woken for what is not enough for it says nothing
    "WAKE_ONE_EACH": "waiters-at-once",  # events that come together wake one thread
    "NOT_ARMED": "waiters-alike",  # those that sleep on while others were woken are forgotten
    "SEQ_KEPT": "waiters-alike",  # seq does not change when few are woken
    "WATCH_FIRST": "reaper",  # a submitter looks for the reaper, then adds (no fence in las_reaper_watch())
    "SLEEP_UNSEEN": "reaper",  # the reaper does not look again before it sleeps
    "END_UNASKED": "reaper",  # it ends though it has been woken
    "AWAKE_BEFORE_START": "reaper",  # it counts as awake before it is known to exist
    "RAISE_FIRST": "announce",  # the kernel raises the eventfd before the event is in its ring
    "NO_HANDS": "announce",  # who has read the eventfd does not wait for what others are moving on
    "HANDS_FIRST": "announce",  # it does so before it looks at the hidden ring
    "HANDS_AFTER": "announce",  # others say so after they have taken events
    "ARRIVES_FIRST": "announce",  # it counts its arrival before it has looked
    "NO_READING": "announce",  # between the read and the look nobody knows of it
    "NO_TELL": "announce-past",  # who reads past the library is not told again
    "DROP_DOUBT": "announce-cancelled",  # nor while another thread seems to be on its way
}


def run(command: list[str], directory: Path) -> str:
    """What it printed, on either stream; it has to end well."""
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    output = done.stdout + done.stderr
    assert done.returncode == 0, f"{' '.join(command)}\n{output}"
    return output


def search(model: str, macros: str, directory: Path, live: bool = False, memory_mb: int = MEMORY_MB) -> tuple[int, str]:
    """Searches all of it: how many errors there are, and pan's report."""
    shutil.copy(HERE / f"{model}.pml", directory)
    run(["spin", *(f"-D{macro}" for macro in macros.split()), "-a", f"{model}.pml"], directory)
    kind = ["-DNFAIR=3"] if live else ["-DSAFETY", "-DNOCLAIM"]
    # Not optimised: for searches as short as these the compiler would take longer than the search.
    run(["cc", "-O0", "-w", *kind, f"-DMEMLIM={memory_mb}", "-o", "pan", "pan.c"], directory)
    report = run(["./pan", "-w22", f"-m{DEPTH}", *(["-a", "-f"] if live else [])], directory)
    errors = re.search(r"errors: (\d+)", report)
    assert errors, report
    assert "reached -DMEMLIM" not in report, report
    assert "max search depth too small" not in report, report
    return int(errors[1]), report


@pytest.mark.parametrize("name", MODELS)
def test_nothing_is_lost(name: str, tmp_path: Path) -> None:
    """No order of events breaks an assertion or leaves somebody asleep."""
    errors, report = search(*MODELS[name], tmp_path)
    assert errors == 0, report


@pytest.mark.parametrize("name", LIVE)
def test_everybody_is_served(name: str, tmp_path: Path) -> None:
    """Nobody goes on for ever without getting anywhere."""
    errors, report = search(*MODELS[name], tmp_path, live=True)
    assert errors == 0, report


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_mistake_is_found(mutation: str, tmp_path: Path) -> None:
    """The search can fail: this is what it is there to find."""
    model, macros = MODELS[MUTATIONS[mutation]]
    # One that loses the request leaves nothing to assert, but it is never finished.
    errors, report = search(model, f"{macros} {mutation}", tmp_path, live=mutation == "TWO_STEPS")
    assert errors, report
    assert re.search(r"assertion violated|invalid end state \(|acceptance cycle", report), report


def test_every_mistake_is_tried() -> None:
    """Each #ifdef of a mutation in the models is one of those above."""
    used = [macros for _, macros in MODELS.values()]
    options = {word.split("=")[0] for macros in [*used, *DEEP.values()] for word in macros.split()}
    conditions = {
        name for path in HERE.glob("*.pml") for name in re.findall(r"#ifn?def (\w+)|defined\((\w+)\)", path.read_text())
    }
    names = {name for pair in conditions for name in pair if name}
    assert names - options == set(MUTATIONS)


@pytest.mark.skipif(
    os.environ.get("LIBAIO_SHIM_DEEP_MODEL", "0") in ("", "0"),
    reason="n/a: a search of minutes (LIBAIO_SHIM_DEEP_MODEL=1)",
)
@pytest.mark.timeout(TIMEOUT_S)
@pytest.mark.parametrize("name", DEEP)
def test_nothing_is_lost_in_a_deep_search(name: str, tmp_path: Path) -> None:
    """The same with more going on at once."""
    errors, report = search("waiting", DEEP[name], tmp_path, memory_mb=DEEP_MEMORY_MB)
    assert errors == 0, report
