"""Names under which another program's output is looked up: those that are unique to a clip."""

from vadv_dist.features.listing import own_names, path_tails


def test_a_name_shared_by_two_files_is_not_used() -> None:
    clips = [("p_1", "Raw/p/1.mp4"), ("q_1", "Raw/q/1.mp4"), ("r_2", "Raw/r/2.mp4")]
    assert own_names(clips) == [
        ("p_1", "Raw/p/1", "p/1"),
        ("q_1", "Raw/q/1", "q/1"),
        ("r_2", "Raw/r/2", "r/2", "2"),
    ]


def test_clips_that_are_parts_of_one_file_share_its_name() -> None:
    assert own_names([("t_1", "talk.mp4"), ("t_2", "./talk.mp4")]) == [("t_1", "talk"), ("t_2", "talk")]


def test_an_id_that_is_the_name_of_another_file_is_not_used() -> None:
    assert own_names([("1", "p/1.mp4"), ("x", "q/1.mp4")]) == [("p/1",), ("x", "q/1")]
    assert own_names([("a", "b.mp4"), ("b", "c.mp4")]) == [("a",), ("c",)]
    assert own_names([("a", "x/a.mp4"), ("b", "x/a.avi")]) == [(), ("b",)]


def test_roots_schemes_and_parent_folders_are_not_part_of_a_name() -> None:
    assert path_tails("/data/v.1/a.b.mp4") == ("data/v.1/a.b", "v.1/a.b", "a.b")
    assert path_tails("s3://bucket/../x/a.mp4") == ("x/a", "a")
    assert path_tails("../x/./a") == ("x/a", "a")
