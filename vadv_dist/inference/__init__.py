"""The student alone: prediction and export."""

from vadv_dist.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "Student": "predict",
        "export_run": "export",
        "load_student": "export",
        "predict_file": "predicted_files",
        "predict_texts": "predict",
    },
)
