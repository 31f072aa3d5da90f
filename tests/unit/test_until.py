"""Both ways of waiting return the first true answer, and say what did not come true."""

import pytest

from tests.until import NotInTime, until, wait_until


def test_first_true_answer_is_returned() -> None:
    answers = iter([0, "", 3, 4])
    assert wait_until(lambda: next(answers)) == 3


@pytest.mark.anyio
async def test_first_true_answer_is_returned_whether_it_is_awaited_or_not() -> None:
    answers = iter([None, 2, None, 4])

    async def ask() -> int | None:
        return next(answers)

    assert await until(lambda: next(answers)) == 2
    assert await until(ask) == 4


def test_failure_names_what_did_not_come_true_and_the_last_answer() -> None:
    with pytest.raises(NotInTime, match=r"not within 0 s: the sun rises \(the last result was 0\)"):
        wait_until(lambda: 0, "the sun rises", 0.02)


@pytest.mark.anyio
async def test_failure_without_a_name_shows_the_condition() -> None:
    with pytest.raises(NotInTime, match=r"until\(lambda: False"):
        await until(lambda: False, timeout_s=0.02)
