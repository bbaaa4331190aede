"""Teacher and students: plain torch modules with plain arguments."""

from vadv_dist.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "Teacher": "teacher",
        "TeacherOutputs": "teacher",
        "TextStudent": "text_student",
        "build_encoder": "encoders",
        "build_tokenizer": "encoders",
    },
)
