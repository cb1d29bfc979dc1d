"""Errors of the operating system, and defects of ours, as text for the controller."""


def describe(error: OSError) -> str:
    """An operating system's error for a person: `/etc/x: Permission denied`."""
    text = error.strerror or str(error)
    return f"{error.filename}: {text}" if error.filename else text


def locate(error: BaseException) -> str:
    """A defect with the line that it came from."""
    import traceback  # see processes.py for what it costs

    frames = traceback.extract_tb(error.__traceback__)
    at = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{at}"
