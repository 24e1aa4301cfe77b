"""Episodes on disk: saved means saved, corruption is noticed, bad data are named. No torch here."""

from understudy.dataset.doctor import Diagnosis, diagnose
from understudy.dataset.findings import DEFECTS, Defect
from understudy.dataset.folder import DatasetWarning
from understudy.dataset.formats import import_dataset
from understudy.dataset.index import Row
from understudy.dataset.journal import Journal
from understudy.dataset.record import record
from understudy.dataset.store import Dataset

__all__ = [
    "DEFECTS",
    "Dataset",
    "DatasetWarning",
    "Defect",
    "Diagnosis",
    "Journal",
    "Row",
    "diagnose",
    "import_dataset",
    "record",
]
