"""Files on disks and in object stores, behind one set of functions."""

from vadv_dist.storage.earlier import earlier_of, put_aside, remove_earlier
from vadv_dist.storage.lines import LineFile, LineReader
from vadv_dist.storage.locks import exclusive
from vadv_dist.storage.names import join, local_path, location, on_disk
from vadv_dist.storage.object_client import STORE_SETTINGS, ConflictError, store_settings, use_store_settings
from vadv_dist.storage.objects import Location
from vadv_dist.storage.reads import (
    FileContent,
    clock_skew_s,
    content_of,
    copy_of_folder,
    etag,
    file_content,
    file_entries,
    file_size,
    file_version,
    files_below,
    find_json,
    free_bytes,
    local_copy,
    open_binary,
    open_ranges,
    read_json,
    sha256_file,
)
from vadv_dist.storage.writes import (
    JointDirectory,
    atomic_directory,
    atomic_file,
    clear,
    discard,
    json_text,
    remove_tree,
    require_absent,
    scratch_folder,
    sweep,
    write_json,
    write_new,
    write_text,
)
