"""Upload an export to the Hugging Face Hub, or to any server with its interface (`HF_ENDPOINT`)."""

from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from typing import Any

from vadv_dist.errors import MachineError, UserError, one_line
from vadv_dist.inference.card_metadata import public_config, public_data, without_place
from vadv_dist.inference.manifest import MANIFEST, listed_files, read_manifest, verify_files
from vadv_dist.storage import Location, json_text, local_copy, location

# Files of earlier exports in the repository, which must not be mixed with this one. Others, such as a license, stay.
_FILES_OF_EXPORTS = (
    *("*.safetensors", "*.onnx", "*.onnx.data", "modeling_*.py", "modules.json", "1_Pooling/*", "*_Dense/*"),
    *("config.json", "sentence_bert_config.json", "tokenizer*", "special_tokens_map.json", "vocab*", "merges.txt"),
    *("*.model", "added_tokens.json"),
)


def push_export(source: str | Location, repo: str, *, public: bool = False) -> str:
    """Upload a folder that `vadv export` wrote as one commit, and create its repository if there is none.

    The token is that of `hf auth login`, or `HF_TOKEN`. Places of this machine in `vadv_export.json` are not uploaded.

    Args:
        source: the export.
        repo: `owner/name`, or `name` for the token's owner.
        public: whether everybody may see it; otherwise the repository must be private.
    Returns:
        the repository's URL.
    Raises:
        UserError: not an export, a damaged one, an invalid name, no token or one that is refused, or the repository is
            public and `public` is false.
        MachineError: the Hub cannot be reached or failed.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token

    source = location(source)
    raw = read_manifest(source)
    token = get_token()
    if not token:
        raise UserError("No token for the Hub. Run `hf auth login`, or set HF_TOKEN to a token with write access.")
    with local_copy(source) as folder:
        files = listed_files(raw)
        verify_files(folder, files)
        uploads: list[CommitOperationAdd | CommitOperationDelete] = [
            CommitOperationAdd(MANIFEST, json_text(public_manifest(raw)).encode()),
            *(CommitOperationAdd(name, folder / name) for name in sorted(files)),
        ]
        with _hub_faults(repo, token):
            api = HfApi(token=token, library_name="vadv")
            created = api.create_repo(repo, private=not public, exist_ok=True)
            if not public and not api.model_info(created.repo_id).private:
                raise UserError(f"The repository {created.repo_id} is public. Give --public to push to it.")
            old = set(api.list_repo_files(created.repo_id)) - {MANIFEST, *files}
            stale = [name for name in sorted(old) if any(fnmatch(name, known) for known in _FILES_OF_EXPORTS)]
            # Not `upload_folder`, which may divide the upload into several commits.
            api.create_commit(
                created.repo_id,
                [*uploads, *map(CommitOperationDelete, stale)],
                commit_message=f"Upload {raw.get('name', 'student')} with vadv",
            )
    return str(created)


def public_manifest(raw: dict[str, Any]) -> dict[str, Any]:
    """A manifest without places of the machine that wrote it."""
    found = {**raw, "data": public_data(raw.get("data", [])), "config": public_config(raw.get("config", {}))}
    if isinstance(raw.get("encoder"), str):
        found["encoder"] = without_place(raw["encoder"])
    return found


@contextmanager
def _hub_faults(repo: str, token: str) -> Iterator[None]:
    """Report what the Hub refuses, and what keeps it out of reach, without the token."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    # The base class of its HTTP library, httpx or httpx2.
    http_error: type[Exception] = HfHubHTTPError.__bases__[0]
    try:
        yield
    except HFValidationError as error:
        raise UserError(f"{repo!r} is not the name of a repository: {one_line(error)} Use OWNER/NAME.") from None
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise UserError(
                f"The Hub refused the token for {repo} (HTTP {status}). Use a token with write access to that "
                "namespace: `hf auth login`, or HF_TOKEN."
            ) from None
        said = one_line(error).replace(token, "…")
        raise MachineError(f"The Hub refused the upload to {repo} (HTTP {status}): {said}") from None
    except OfflineModeIsEnabled:
        raise UserError("HF_HUB_OFFLINE is set, so nothing can be pushed. Unset it.") from None
    except (http_error, ConnectionError) as error:
        said = one_line(error).replace(token, "…")
        raise MachineError(
            f"The Hub cannot be reached ({said}). Nothing of {repo} is complete there; push again."
        ) from None
