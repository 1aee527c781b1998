"""Callers of an endpoint: an unmodified boto3 that asks without a pause, and the count of who answered."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import sqrt
from types import TracebackType
from typing import TYPE_CHECKING, Self

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from demo.surroundings import DemoError

if TYPE_CHECKING:
    from mypy_boto3_sagemaker_runtime import SageMakerRuntimeClient

CALLERS = 2
CALL_SECONDS = 10
# Two sides of a normal distribution beyond this are one in a million: a right split is called wrong as rarely as that.
_SIGMAS = 4.9


@dataclass(frozen=True, slots=True)
class Tally:
    """Answers since the last `restart`, by who gave them, and the share that each should have."""

    expected: Mapping[str, float] = field(default_factory=dict)
    answers: Mapping[str, int] = field(default_factory=dict)
    failures: int = 0
    """Of all calls since the first: those that nobody answered. A model's own error is its answer."""

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self.answers.values())

    def share(self, name: str) -> float:
        """Somebody's part of the answers, 0 to 1."""
        return self.answers.get(name, 0) / self.total if self.total else 0.0

    def words(self) -> str:
        """One line that says it all."""
        others = sorted(self.answers.keys() - self.expected.keys())
        shares = ", ".join(f"{name} {self.share(name):.1%}" for name in (*self.expected, *others))
        return f"{self.total} answers: {shares}; {self.failures} lost"

    def wrong(self) -> list[str]:
        """What cannot be by chance: for each whose count is too far from its share, a sentence."""
        said = [f"{name} answered {self.answers[name]} times, expected not at all"
                for name in self.answers if name not in self.expected]  # fmt: skip
        for name, share in self.expected.items():
            deviation = sqrt(self.total * share * (1 - share))
            count = self.answers.get(name, 0)
            if abs(count - self.total * share) > _SIGMAS * deviation:
                said.append(
                    f"{name} answered {count} of {self.total}, expected is {share:.1%} "
                    f"give or take {_SIGMAS * deviation / self.total:.1%}"
                )
        return said


@dataclass(frozen=True, slots=True)
class Answer:
    """What one call brought: from which variant, and what its model said."""

    variant: str
    prediction: str

    @property
    def model(self) -> str:
        """The model that names itself in its prediction, as `tree` in `setosa by tree`; else all that it said."""
        return self.prediction.rpartition(" by ")[2]


class Callers:
    """Threads that invoke one endpoint one call after the other, until the block ends.

    `teller` says whom an answer counts for. A model's error (ModelError, SageMaker's 424) is an answer too: it says
    `error 500`, with the model's own status.
    """

    def __init__(
        self,
        url: str,
        region: str,
        endpoint_name: str,
        body: str,
        teller: Callable[[Answer], str] = lambda answer: answer.variant or answer.prediction,
    ) -> None:
        session = boto3.Session(
            aws_access_key_id="demo",
            aws_secret_access_key="demo",  # noqa: S106 - the router accepts any signature
            region_name=region,
        )
        # A lost answer is to be seen, not tried again.
        config = Config(
            connect_timeout=3, read_timeout=CALL_SECONDS, proxies={}, retries={"total_max_attempts": 1},
            max_pool_connections=CALLERS,
        )  # fmt: skip
        self._client: SageMakerRuntimeClient = session.client("sagemaker-runtime", endpoint_url=url, config=config)
        self._endpoint_name, self._body, self._teller = endpoint_name, body, teller
        self._changed = threading.Condition()
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=self._call, name=f"caller-{n}", daemon=True) for n in range(CALLERS)]
        self._expected: Mapping[str, float] = {}
        self._answers: Counter[str] = Counter()
        self._errors: list[str] = []
        self._epoch = 0

    @property
    def tally(self) -> Tally:
        """The count now."""
        with self._changed:
            return Tally(dict(self._expected), dict(self._answers), len(self._errors))

    def ask(self) -> Answer:
        """One call. Raises DemoError where nobody answers it."""
        try:
            answer = self._client.invoke_endpoint(
                EndpointName=self._endpoint_name, ContentType="application/json", Body=self._body
            )
            prediction = json.loads(answer["Body"].read())["predictions"][0]
        except self._client.exceptions.ModelError as error:
            return Answer("", f"error {dict(error.response)['OriginalStatusCode']}")
        except (ClientError, BotoCoreError, ValueError, KeyError) as error:
            raise DemoError(f"InvokeEndpoint {self._endpoint_name}: {error}") from error
        return Answer(str(answer["InvokedProductionVariant"]), str(prediction))

    def restart(self, weights: Mapping[str, float]) -> None:
        """Count from nought, with the shares that these weights stand for; calls that are out are not counted.

        Lost calls stay counted."""
        with self._changed:
            whole = sum(weights.values())
            self._expected = {name: weight / whole for name, weight in weights.items()}
            self._answers = Counter()
            self._epoch += 1

    def until(self, answers: int, *, seconds: float) -> Tally:
        """Wait for so many answers. Raises DemoError when one is lost, or when they take too long."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while self._answers.total() < answers:
                left = deadline - time.monotonic()
                if self._errors:
                    raise DemoError(f"a call was lost: {self._errors[0]}")
                if left <= 0:
                    raise DemoError(f"only {self._answers.total()} of {answers} answers within {seconds:.0f} s")
                self._changed.wait(left)
        return self.tally

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join(CALL_SECONDS + 5)

    def _call(self) -> None:
        while not self._ending.is_set():
            epoch = self._epoch
            try:
                teller = self._teller(self.ask())
            except DemoError as error:
                with self._changed:
                    self._errors.append(str(error))
                    self._changed.notify_all()
                self._ending.wait(0.2)
                continue
            with self._changed:
                if epoch == self._epoch:
                    self._answers[teller] += 1
                    self._changed.notify_all()
