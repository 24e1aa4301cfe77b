import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data():
    """The folder of published demonstrations and experts: $UNDERSTUDY_DATA, or shared/data beside the repository."""
    path = Path(os.environ.get("UNDERSTUDY_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"no data in {path}; set UNDERSTUDY_DATA")
    return path
