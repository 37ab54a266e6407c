"""The inference engine: ONNX files in, arrays out; usable without a server.

```python
from nnz_service.engine import load

model = load("m.onnx", threads=1)
outputs = model.run({"x": array})
```
"""

from nnz_service.engine.graph import TensorInfo
from nnz_service.engine.model import Model, inspect, load

__all__ = ["Model", "TensorInfo", "inspect", "load"]
