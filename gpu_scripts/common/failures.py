"""What torch, CUDA and ONNX Runtime say when they fail: only their words tell, since their exceptions differ."""

from __future__ import annotations

import re

OUT_OF_MEMORY = re.compile(
    r"out of memory|OutOfMemory|can't allocate memory|(CUBLAS|CUDNN)_STATUS_ALLOC_FAILED|Failed to allocate memory",
    re.IGNORECASE,
)
# The CUDA context is lost with these, and only a new process helps.
BROKEN_CUDA = re.compile(r"CUDA error|CUDA failure|device-side assert|CUDNN_STATUS_EXECUTION", re.IGNORECASE)
