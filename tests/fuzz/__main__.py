"""The long run: ``python -m tests.fuzz --inputs N --seed S``.

Every input is made from the seed and its number alone, so that one can be looked at again with ``--only NUMBER``. What
escapes is printed as a transcript, as small as leaving out steps makes it; the exit status is 1 then.
"""

from __future__ import annotations

import argparse
import random
import resource
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from mcp_tap.protocol.transcript import Step, Transcript, write
from tests.fuzz.mutate import Mutator
from tests.fuzz.promises import record
from tests.transcripts.play import FILES, load

#: Seconds between two lines that say how far it is.
SAY_EVERY = 15.0


def escapes(steps: Sequence[Step]) -> str | None:
    """Play steps and return what escaped, if anything."""
    try:
        record(steps)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def shrunk(steps: Sequence[Step], escape: str) -> list[Step]:
    """Leave out steps as long as the same thing escapes."""
    small = list(steps)
    at = 0
    while at < len(small):
        without = small[:at] + small[at + 1 :]
        if escapes(without) == escape:
            small = without
        else:
            at += 1
    return small


def main() -> int:
    """Run and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    parser.add_argument("--only", type=int, help="play this one input and show where it fails")
    parser.add_argument("--save", type=Path, help="write the transcripts of escapes into this folder")
    parser.add_argument("--most", type=int, default=10, help="stop after so many different escapes")
    options = parser.parse_args()
    mutator = Mutator([load(path).steps for path in FILES])

    def made(number: int) -> list[Step]:
        return mutator.make(random.Random(options.seed << 32 | number))

    if options.only is not None:
        try:
            record(made(options.only))
        except Exception:
            traceback.print_exc()
            print(write(Transcript(made(options.only))))
            return 1
        return 0
    print(f"seed {options.seed}, {options.inputs} inputs from {len(FILES)} transcripts", flush=True)
    found: dict[str, int] = {}
    count = 0
    worst = (0.0, 0)
    began = said = time.monotonic()
    for number in range(options.inputs):
        steps = made(number)
        cpu = time.process_time()
        escape = escapes(steps)
        worst = max(worst, (time.process_time() - cpu, number))
        if escape is not None:
            count += 1
            if escape not in found:
                found[escape] = number
                show(escape, number, steps, options.save)
                if len(found) >= options.most:
                    break
        now = time.monotonic()
        if now - said >= SAY_EVERY:
            said = now
            say(number + 1, now - began, count, worst)
    say(number + 1, time.monotonic() - began, count, worst)
    return 1 if found else 0


def say(inputs: int, seconds: float, count: int, worst: tuple[float, int]) -> None:
    """Print how far it is."""
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
    print(
        f"{inputs} inputs in {seconds:.0f} s, {inputs / seconds:.0f} a second, {count} escapes; "
        f"worst {worst[0] * 1000:.0f} ms (--only {worst[1]}); {megabytes:.0f} MB at most",
        flush=True,
    )


def show(escape: str, number: int, steps: list[Step], folder: Path | None) -> None:
    """Print an escape and what brings it about."""
    transcript = Transcript(shrunk(steps, escape), comments=[escape, f"--only {number}"])
    text = write(transcript)
    print(f"\nescape: {escape} (--only {number})\n{text if len(text) < 6000 else text[:6000] + '…'}", flush=True)
    if folder is not None:
        folder.mkdir(exist_ok=True)
        (folder / f"escape-{number}.txt").write_text(text)


if __name__ == "__main__":
    sys.exit(main())
