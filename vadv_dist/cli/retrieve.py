"""`vadv retrieve`: the nearest clips of the other modality."""

import argparse

from vadv_dist.cli.overwrite import add_overwrite, foreign_to_retrieved, overwriting
from vadv_dist.cli.parser import Commands, place
from vadv_dist.runtime.terminal import counted, json_line


def add_retrieve_command(commands: Commands) -> None:
    """Add `retrieve`."""
    parser = commands.add_parser(
        "retrieve",
        help="find the nearest clips of the other modality with the student of retrieval",
        description="Embeds the vectors of both files and finds, for each query, the clips of the gallery with the "
        "highest cosine; the search is exact. A file has a column of ids (clip_id or id) and the vectors of the clips: "
        "in Parquet a column of lists or tensors named audio or visual (as in the shards of a data set), in npz an "
        "array [rows, width] of that name, in CSV one column per value (audio_0, audio_1, …). The gallery may be "
        "larger than memory.",
    )
    parser.add_argument("run", type=place, metavar="RUN_OR_EXPORT")
    parser.add_argument("--query", type=place, required=True, metavar="FILE", help="queries: .csv, .parquet or .npz")
    parser.add_argument("--gallery", type=place, required=True, metavar="FILE", help="clips to search, likewise")
    parser.add_argument("--k", type=int, default=10, help="number of clips to find for each query")
    parser.add_argument(
        "--from",
        dest="modality",
        choices=("audio", "visual"),
        help="modality of the queries; the gallery has the other one (default: the only one that the files allow)",
    )
    parser.add_argument("--id-column", help="column of the ids in both files (default: clip_id or id)")
    parser.add_argument(
        "--out", type=place, help="a .csv, .parquet or .npz file to write, instead of printing the results"
    )
    add_overwrite(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(call=_retrieve)


def _retrieve(options: argparse.Namespace) -> int:
    from vadv_dist.inference.retrieve import Retrieved, require_output, retrieve, write_retrieved

    def call() -> Retrieved:
        out = None if options.out is None else require_output(options.out)
        found = retrieve(
            options.run,
            options.query,
            options.gallery,
            k=options.k,
            modality=options.modality,
            id_column=options.id_column,
        )
        if out is not None:
            write_retrieved(found, out)
        return found

    out = options.out
    found = call() if out is None else overwriting(options, out, foreign_to_retrieved, call)
    if options.json:
        print(json_line({"from": found.query_modality, "rows": list(found.rows())}))
    elif out is not None:
        kind = found.query_modality
        queries = counted(len(found.query_id), f"{kind} query", f"{kind} queries")
        print(f"wrote {out}: the nearest {options.k} of {counted(found.num_items, 'clip')} for {queries}")
    else:
        for row in found.rows():
            print(f"{row['query_id']}\t{row['rank']}\t{row['gallery_id']}\t{row['cosine']:.4f}")
    return 0
