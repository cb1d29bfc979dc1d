from sparkops.core.errors import SparkopsError as SparkopsError
from sparkops.core.report import Report as Report
from sparkops.library import Cluster as Cluster
from sparkops.library import load as load
from sparkops.reports.formats import rendered as rendered
from sparkops.reports.run.findings import findings as findings

__all__ = ["Cluster", "Report", "SparkopsError", "__version__", "findings", "load", "rendered"]
__version__: str
