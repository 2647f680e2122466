from tests.search.conftest import mergetune  # noqa: F401  # pytest finds the fixture here
