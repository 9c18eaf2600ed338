"""The one kind of error that is the user's to mend, everywhere in the project."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class InputError(ValueError):
    """Something given to the program cannot be used; the message alone says what, where and what to do about it.

    The commands print such a message without a traceback. Each room has its own kind: `DatasetError`, `SplitError`,
    `RunError` ..
    """


@contextmanager
def told_plainly(program: str, alone: bool = True) -> Iterator[None]:
    """End the program with the message of an `InputError` that its block raises, or after Ctrl-C, without a traceback.

    Args:
        program: its name, which opens the message.
        alone: False in one of several jobs; the error then goes on, so that the others run and this one is told.
    """
    try:
        yield
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        raise SystemExit(130) from None  # as shells have it
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, InputError):
            cause = cause.__cause__  # Hydra wraps what an object's construction raises
        if cause is None or not alone:
            raise
        raise SystemExit(f"{program}: {cause}") from None
