"""The worker: resident servables, the queue, the batcher and the job runner."""

from nnz_service.worker.batcher import Limits
from nnz_service.worker.host import Host
from nnz_service.worker.sweeper import Sweeper
from nnz_service.worker.toolbox import Toolbox, choose_backend, facts_of

__all__ = ["Host", "Limits", "Sweeper", "Toolbox", "choose_backend", "facts_of"]
