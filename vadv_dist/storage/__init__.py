"""The one door to files and objects: places, and one set of verbs for both."""

from vadv_dist.storage.copies import FileContent, content_of
from vadv_dist.storage.folders import (
    Upload,
    atomic_directory,
    discard,
    file_entries,
    local_copy,
    remove_tree,
    require_absent,
)
from vadv_dist.storage.lines import LineFile, LineReader
from vadv_dist.storage.locks import exclusive
from vadv_dist.storage.names import join, local_path, location, on_disk, same_place
from vadv_dist.storage.object_client import STORE_SETTINGS, ConflictError, store_settings, use_store_settings
from vadv_dist.storage.objects import Location
from vadv_dist.storage.reads import (
    clock_skew_s,
    etag,
    file_content,
    file_size,
    files_below,
    free_bytes,
    open_binary,
    open_ranges,
    read_json,
    reads_at_once,
    sha256_bytes,
    sha256_file,
)
from vadv_dist.storage.writes import atomic_file, disk_faults, scratch_folder, sweep, write_json, write_text

__all__ = [
    "STORE_SETTINGS",
    "ConflictError",
    "FileContent",
    "LineFile",
    "LineReader",
    "Location",
    "Upload",
    "atomic_directory",
    "atomic_file",
    "clock_skew_s",
    "content_of",
    "discard",
    "disk_faults",
    "etag",
    "exclusive",
    "file_content",
    "file_entries",
    "file_size",
    "files_below",
    "free_bytes",
    "join",
    "local_copy",
    "local_path",
    "location",
    "on_disk",
    "open_binary",
    "open_ranges",
    "read_json",
    "reads_at_once",
    "remove_tree",
    "require_absent",
    "same_place",
    "scratch_folder",
    "sha256_bytes",
    "sha256_file",
    "store_settings",
    "sweep",
    "use_store_settings",
    "write_json",
    "write_text",
]
