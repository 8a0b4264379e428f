"""What the user can mend."""


class LikemindError(ValueError):
    """A mistake that the user can mend.

    The message is one sentence that names the file, row or argument, and the mend. The command line prints it without a
    traceback and exits with code 2; every other exception is ours, and exits with code 1.
    """
