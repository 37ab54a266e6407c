"""The shapes of JSON bodies, for the description of the interface."""

from nnz_service.web.schemas.oip import IndexQuery, LoadParameters, RegionIn, TensorsIn
from nnz_service.web.schemas.v1 import ChainIn, JobIn, OpIn

#: Bodies that routes read by hand, so that FastAPI does not find them.
BODIES = (ChainIn, IndexQuery, JobIn, LoadParameters, OpIn, RegionIn, TensorsIn)
