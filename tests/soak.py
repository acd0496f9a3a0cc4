"""A lab that lives for a long time: `python -m tests.soak --operations 1000000`.

Random things happen to it, one after the other, and after each of them what the scheduler decides
is checked (`tests/domain/truths.py`). A seed gives the same life again.
"""

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Callable

from tests.domain.lab_machine import LabMachine

LIFE = 400
"""Operations in one lab's life; then another begins, with another policy."""
THOROUGHLY = 20
"""One plan in so many is also checked by what needs the scheduler again."""


def happenings(lab: LabMachine, chance: random.Random) -> list[tuple[int, Callable[[], None]]]:
    """What may happen, and how often that is so beside the rest."""

    def some() -> int:
        return chance.randrange(1000)

    return [
        (
            30,
            lambda: lab.ask(
                some(), some(), chance.choice((1, 1, 1, 2, 2, 3, 4)), some(),
                chance.choice((5, 20, 60, 240, 600, 3000)), some() % 2,
            ),
        ),
        (5, lambda: lab.release(some())),
        (4, lambda: lab.extend(some(), chance.choice((5, 60, 300)))),
        (1, lambda: lab.stop(some())),
        (2, lambda: lab.start(some())),
        (16, lambda: lab.arrive(some())),
        (1, lambda: lab.fail_to_arrive(some())),
        (16, lambda: lab.have_left(some())),
        (20, lambda: lab.deliver(some())),
        (8, lambda: lab.pass_time(chance.choice((0, 1, 5, 15, 61, -1, -7, -90)))),
        (14, lab.wait_for_the_next_moment),
        (1, lambda: lab.spoil(some())),
        (3, lambda: lab.mend(some())),
        (1, lambda: lab.lose_or_find_a_node(some(), chance.random() < 0.8)),
        (1, lambda: lab.share(some(), chance.choice((1, 2, 3)))),
        (2, lambda: lab.set_maximum(some(), chance.choice((0, 6, 12, 12)))),
        (
            2,
            lambda: lab.set_group(
                some(), chance.randrange(6), chance.choice((None, None, 4, 8)),
                chance.choice((0.5, 1.0, 3.0)),
            ),
        ),
        (1, lambda: lab.move(some(), some())),
        (2, lambda: lab.count_usage(some(), chance.randrange(100))),
    ]  # fmt: skip


def soak(operations: int, seed: int, *, first: int = 0, say: bool = False) -> Counter[str]:
    """Have so many things happen. What was decided and said, counted by kind.

    `first`: begin with the life of that number, as the message about a failure has it.
    """
    said: Counter[str] = Counter()
    began = time.monotonic()
    for life in range(first, first + operations, LIFE):
        chance = random.Random(f"{seed}-{life}")
        lab = LabMachine.open(
            protection=chance.choice((0, 5, 60)), warning=chance.choice((0, 1, 10))
        )
        weights, actions = zip(*happenings(lab, chance), strict=True)
        done = 0
        try:
            for action in chance.choices(actions, weights, k=min(LIFE, first + operations - life)):
                done += 1
                lab.thoroughly = done % THOROUGHLY == 0
                action()
                plan = lab.plan
                said.update(f"wait: {why.waiting}" for why in plan.explanations.values())
                for what in ("grants", "expired", "warn", "reclaim", "pardon"):
                    said[what] += len(getattr(plan, what))
            lab.besiege()
            lab.run_dry()
        except AssertionError:
            print(f"--seed {seed} --first {life}: operation {done}", file=sys.stderr)
            raise
        if say and (life - first) % (50 * LIFE) == 0:
            print(
                f"{life - first + done:,} operations, {time.monotonic() - began:.0f} s", flush=True
            )
    return said


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--operations", type=int, default=1_000_000, metavar="N")
    parser.add_argument("--seed", type=int, default=1, metavar="N")
    parser.add_argument("--first", type=int, default=0, metavar="N", help="the first life")
    asked = parser.parse_args()
    said = soak(asked.operations, asked.seed, first=asked.first, say=True)
    print(", ".join(f"{count:,} {what}" for what, count in sorted(said.items())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
