"""A headless Chromium as a test uses it: pages, what they say of themselves, pictures; by its protocol over a pipe."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

PATIENCE = 60.0
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars")


def program() -> str | None:
    """Chromium's path, or None where it is not installed."""
    return next(
        (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
    )


def _above(handle: int) -> int:
    """The handle under a number that the shell's own redirections do not meet."""
    moved = fcntl.fcntl(handle, fcntl.F_DUPFD, 20)
    os.close(handle)
    return moved


class Browser:
    """One process with one page. `dialogs` counts what a script of a page opened."""

    def __init__(self, folder: Path) -> None:
        chromium = program()
        assert chromium is not None
        asked, self._out = os.pipe()
        self._in, answered = os.pipe()
        asked, answered = _above(asked), _above(answered)
        command = [chromium, *FLAGS, f"--user-data-dir={folder}", "--remote-debugging-pipe", "about:blank"]
        shell = ["bash", "-c", f'exec 3<&{asked} 4>&{answered}; exec "$@"', "bash", *command]
        self._process = subprocess.Popen(shell, pass_fds=(asked, answered), stderr=subprocess.DEVNULL)
        os.close(asked)
        os.close(answered)
        self._buffer, self._number, self.dialogs = b"", 0, 0
        self._session = ""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.call("Page.enable")

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._out)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._in)

    def call(self, method: str, **params: Any) -> Mapping[str, Any]:
        """The result of one call of the protocol."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        return self._until(lambda each: each.get("id") == self._number)

    def _until(self, wanted: Any) -> Mapping[str, Any]:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            while b"\0" not in self._buffer:
                part = os.read(self._in, 1 << 20)
                assert part, "the browser went away"
                self._buffer += part
            line, _, self._buffer = self._buffer.partition(b"\0")
            told = json.loads(line)
            self.dialogs += told.get("method") == "Page.javascriptDialogOpening"
            if wanted(told):
                assert "error" not in told, told["error"]
                result = told.get("result", told.get("params", {}))
                assert isinstance(result, dict)
                return result
        raise TimeoutError("no answer of the browser")

    def open(self, page: Path, *, width: int = 1280, dark: bool = False, media: str = "") -> None:
        """Load a file at this width of the window, in CSS pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media=media, features=[scheme])
        self._number += 1
        message = {"id": self._number, "method": "Page.navigate", "params": {"url": page.as_uri()}}
        os.write(self._out, json.dumps({**message, "sessionId": self._session}).encode() + b"\0")
        self._until(lambda each: each.get("method") == "Page.loadEventFired")

    def evaluate(self, script: str) -> Any:
        """What an expression comes to on the page; a promise is waited for."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def key(self, name: str, code: int) -> None:
        """Press and release one key."""
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=name, code=name, windowsVirtualKeyCode=code)

    def picture(self, path: Path, *, whole: bool = True) -> None:
        """The page as a PNG."""
        found = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))
