"""Reports: one HTML file that opens offline and says how good a policy is, why it fails, and how to repeat it."""

from understudy.report.charts import StudyPoint
from understudy.report.contents import Clip, Report
from understudy.report.failures import FailureMap, map_failures
from understudy.report.of_run import write_run_report
from understudy.report.page import write_report

__all__ = ["Clip", "FailureMap", "Report", "StudyPoint", "map_failures", "write_report", "write_run_report"]
