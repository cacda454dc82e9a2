"""Where work on text runs: in this process, in processes of this machine, on a Dask cluster."""

from insight.data.store.executors.base import Executor, ExecutorConfig
from insight.data.store.executors.dask_cluster import DaskCluster
from insight.data.store.executors.in_process import InProcess, InProcessExecutor
from insight.data.store.executors.local_processes import LocalProcesses, ProcessPool

__all__ = [
    "DaskCluster",
    "Executor",
    "ExecutorConfig",
    "InProcess",
    "InProcessExecutor",
    "LocalProcesses",
    "ProcessPool",
]
