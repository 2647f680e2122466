from tests.merge_core.parents.conftest import bases

__all__ = ["bases"]
