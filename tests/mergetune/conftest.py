"""Toy studies, as the tests of ``search`` have them."""

from tests.search.conftest import empty_database, nothing_is_read_twice, study

__all__ = ["empty_database", "nothing_is_read_twice", "study"]
