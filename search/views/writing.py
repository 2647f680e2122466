"""What the writing of a model folder will come to."""

from __future__ import annotations

from merge_core.inspect.forecast import Forecast


def forecast(found: Forecast) -> None:
    """Print what a merge will come to."""
    files = "1 file" if found.files == 1 else f"{found.files} files"
    print(f"{found.merge_method} of {', '.join(found.models)}; config of {found.config_from}")
    print(f"result     {found.parameters:,} parameters in {found.tensors} tensors, {found.dtype}")
    free = f"{found.free_bytes / 1e9:.1f} GB are free there"
    print(f"disk       {found.weights_bytes / 1e9:.2f} GB of weights in {files}; {free}")
    far = f", and {found.device_bytes / 1e9:.2f} GB on {found.device}" if found.device_bytes else ""
    print(f"memory     about {found.memory_bytes / 1e9:.2f} GB at most{far}")
    print("nothing is written")
