"""A reader that asks the API all the time, and requires of each answer what the one before contained."""

import threading
from datetime import datetime

import httpx

from simulator.endpoints import Api
from tests.acceptance.chaos.processes import Stuck

_PAUSE_S = 0.02
_PATIENCE_S = 10.0


class Reader:
    """Asks in a `with` block, whose end raises `Stuck` if an answer was an error or showed an earlier state."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask_always)
        self._wrong: str | None = None
        self.answers = 0

    def __enter__(self) -> "Reader":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._over.set()
        self._thread.join()
        if self._wrong is not None and kind is None:
            raise Stuck(f"a reader got {self._wrong} after {self.answers} answers")

    def count(self, metric: str) -> float:
        """The sum of a metric of the API over its labels."""
        text = httpx.get(f"{self._api.url}/metrics", headers=self._api.headers, timeout=_PATIENCE_S).text
        return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(metric))

    def _ask_always(self) -> None:
        as_of: dict[str, str] = {}
        with httpx.Client(base_url=self._api.url, headers=self._api.headers, timeout=_PATIENCE_S) as client:
            while not self._over.wait(_PAUSE_S) and self._wrong is None:
                try:
                    answer = client.get("/v1/live/vehicles", params={"limit": "1", **as_of})
                except httpx.TransportError as error:
                    self._wrong = f"no answer ({error!r})"
                else:
                    as_of = self._judged(answer, as_of)

    def _judged(self, answer: httpx.Response, before: dict[str, str]) -> dict[str, str]:
        """What the next answer must contain."""
        if answer.status_code != httpx.codes.OK:
            self._wrong = f"{answer.status_code} {answer.text}"
            return before
        after = {"asOf": answer.headers["X-As-Of"]}
        if before and datetime.fromisoformat(after["asOf"]) < datetime.fromisoformat(before["asOf"]):
            self._wrong = f"the state of {after['asOf']} after that of {before['asOf']}"
        self.answers += 1
        return after
