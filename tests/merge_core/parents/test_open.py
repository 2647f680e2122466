from safetensors.torch import load_file

from merge_core.parents.open import open_parents
from merge_core.parents.weight_files import SINGLE


def test_parents_open_by_reference_and_know_the_commit_they_come_from(family, monkeypatch):
    import huggingface_hub

    root = family()
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(root / "two"))
    parents = open_parents(["one", "owner/two"], [root])
    assert [(p.reference, p.folder, p.located.pinned()) for p in parents.values()] == [
        ("one", root / "one", None),
        ("owner/two", root / "two", "owner/two@two"),
    ]
    assert parents["one"].tensors.keys() == load_file(root / "one" / SINGLE).keys()
