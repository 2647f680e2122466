from __future__ import annotations

import logging
import sys
import warnings

import pytest

from evaluators.log_control import hushed


def test_bars_warnings_and_logs_are_swallowed(capfd):
    with hushed():
        print("a bar", file=sys.stderr)
        warnings.warn("a warning", stacklevel=1)
        logging.getLogger("lm_eval.api").warning("a log line")
    assert capfd.readouterr() == ("", "")


def test_levels_are_put_back_after_an_exception():
    logger = logging.getLogger("lm_eval")
    before = logger.level
    with pytest.raises(ZeroDivisionError, match="division"), hushed():
        1 / logging.getLogger("lm_eval").isEnabledFor(logging.WARNING)
    assert logger.level == before
