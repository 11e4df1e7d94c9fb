"""Data sets out of folders of pictures: what is found, decoded, kept, and refused."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from slimnet.data import Dataset, Source, fingerprint, hashes, load_dataset, split
from slimnet.data import cache as cache_module
from slimnet.data.listing import held_out_for_test, list_pictures, passed_over
from slimnet.data.pictures import read_picture
from slimnet.errors import SlimnetError
from slimnet.files import content_hash

Draw = Callable[..., Path]


def load(folder: Path, said: list[str] | None = None, **options: object) -> Dataset:
    def tell(what: str, done: int, total: int) -> None:
        if said is not None:
            said.append(what if total == 0 else f"{what} {done}/{total}")

    return load_dataset(Source("folder", folder), on_progress=tell, **options)  # type: ignore[arg-type]


# What is found


def test_folders_are_classes_and_a_fifth_of_each_is_held_out(draw: Draw) -> None:
    root = draw(count=10)
    listing = list_pictures(root)
    assert listing.classes == ("cat", "dog", "eel")
    assert listing.test_held_out
    assert [len(part) for part in (listing.train, listing.test)] == [24, 6]
    data = load(root)
    assert (data.classes, data.num_classes, data.image_shape) == (listing.classes, 3, (3, 10, 12))
    assert np.bincount(data.y_test).tolist() == [2, 2, 2]
    for part, pictures in (("train", listing.train), ("test", listing.test)):
        x, y = getattr(data, f"x_{part}"), getattr(data, f"y_{part}")
        for row, picture in enumerate(pictures):
            assert y[row] == picture.label
            np.testing.assert_array_equal(x[row], read_picture(root / picture.path, None))


def test_names_alone_decide_what_is_held_out(draw: Draw) -> None:
    paths = [f"cat/{number}.png" for number in range(50)]
    chosen = held_out_for_test(paths)
    assert len(chosen) == 10
    assert held_out_for_test(paths[::-1]) == chosen
    assert len(held_out_for_test([*paths, "cat/new.png"]) ^ chosen) <= 2
    root = draw(count=10)
    before = {picture.path for picture in list_pictures(root).test}
    shutil.copy(root / "cat" / "000.png", root / "dog" / "001.png")
    assert {picture.path for picture in list_pictures(root).test} == before


def test_parts_of_its_own_are_used(draw: Draw) -> None:
    draw("pets/Train", 6)
    draw("pets/val", 2, first=6)
    root = draw("pets/test", 3, first=8).parent
    (root / "notes").mkdir()
    data = load(root)
    assert [len(y) for y in (data.y_train, data.y_validation, data.y_test)] == [18, 6, 9]
    parts = split(data, validation=0.5, seed=3)
    assert [len(part) for part in (parts.train, parts.validation, parts.test)] == [18, 6, 9]


def test_classes_may_be_called_like_parts(draw: Draw) -> None:
    root = draw(count=4)
    (root / "cat").rename(root / "train")
    assert list_pictures(root).classes == ("dog", "eel", "train")


def test_what_is_no_picture_is_passed_over(draw: Draw) -> None:
    root = draw(count=4)
    (root / "cat" / "inner").mkdir()
    (root / "cat" / "000.png").rename(root / "cat" / "inner" / "000.PNG")
    for name in (".hidden.png", "Thumbs.db", "notes.txt", "no_suffix"):
        (root / "cat" / name).write_bytes(b"?")
    shutil.copytree(root / "dog", root / ".cache")
    shutil.copytree(root / "dog", root / "__MACOSX")
    shutil.copytree(root / "dog", root / "lost+found")
    assert [len(part) for part in (list_pictures(root).train, list_pictures(root).test)] == [9, 3]
    assert list_pictures(root).classes == ("cat", "dog", "eel")


def test_links_are_followed_to_each_folder_once(draw: Draw, tmp_path: Path) -> None:
    root = draw(count=4)
    (root / "cat").rename(tmp_path / "elsewhere")
    (root / "cat").mkdir()
    (root / "cat" / "more").symlink_to(tmp_path / "elsewhere")
    (root / "cat" / "again").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(root)
    found = [picture.path for part in list_pictures(root).parts.values() for picture in part]
    assert len(found) == len(set(found)) == 12
    (root / "cat" / "broken.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(SlimnetError, match=r"broken\.png cannot be read: it is a link to nothing; "):
        load(root)


def test_what_is_passed_over_is_told(draw: Draw) -> None:
    root = draw(count=4)
    (root / "cat" / "000.png").rename(root / "cat" / "000.heic")
    (root / "dog" / "000.png").rename(root / "000.png")
    told = "passed over: 1 file not named like a picture (.heic) and 1 picture in no class's folder"
    assert told in load(root).notes


def test_pictures_that_classes_link_to_are_not_passed_over(draw: Draw) -> None:
    root = draw("pets/all", count=4).parent
    (root / "all" / "eel" / "extra").mkdir()
    for name in ("cat", "dog", "eel"):
        folder = root / "train" / name
        folder.parent.mkdir(exist_ok=True)
        if name == "eel":  # file by file
            folder.mkdir()
            for number in range(4):
                (folder / f"{number}.png").symlink_to(root / "all" / name / f"{number:03}.png")
        else:
            folder.symlink_to(root / "all" / name)
    (root / "train" / "eel" / "broken.png").symlink_to("nowhere.png")
    assert passed_over(list_pictures(root)) == ""
    shutil.copy(root / "all" / "cat" / "000.png", root / "all" / "eel" / "extra")
    assert passed_over(list_pictures(root)) == "1 picture in no class's folder"


def test_a_folder_is_of_one_class(draw: Draw) -> None:
    root = draw(count=4)
    (root / "cat" / "also").symlink_to(root / "dog")
    with pytest.raises(SlimnetError, match=r"cat/also and .*dog are one folder, .* cat and dog; keep"):
        list_pictures(root)
    (root / "cat" / "also").unlink()
    (root / "puppy").symlink_to("dog")
    with pytest.raises(SlimnetError, match=r"dog and .*puppy are one folder"):
        list_pictures(root)


@pytest.mark.parametrize("part", ["test", "val"])
@pytest.mark.parametrize("linked", ["", "dog"])
def test_a_folder_is_in_one_part(draw: Draw, part: str, linked: str) -> None:
    train = draw("pets/train", count=4)
    root = train.parent
    if linked:
        shutil.copytree(train, root / part)
        shutil.rmtree(root / part / linked)
    (root / part / linked).symlink_to(train / linked)
    pair = rf"train/{linked or 'cat'} and .*/{part}/{linked or 'cat'} are one folder"
    other = "validation" if part == "val" else part
    with pytest.raises(SlimnetError, match=rf"{pair}, .* in two parts, train and {other}; keep .* held out"):
        list_pictures(root)


def test_labels_in_a_table_are_read_by_a_function(draw: Draw) -> None:
    root = draw(count=4)
    flat = (root / "cat").rename(root / "images")
    shutil.rmtree(root / "dog")
    shutil.rmtree(root / "eel")
    (root / "labels.csv").write_text("file,label")
    for folder, what in ((root, "a single class, images"), (flat, "no folder of pictures")):
        with pytest.raises(SlimnetError, match=f"holds {what}.* If labels.csv says which .* docs/data.md"):
            list_pictures(folder)
    (root / "labels.csv").rename(root / "package.json")
    with pytest.raises(SlimnetError, match=r"If package\.json says"):
        list_pictures(root)
    with pytest.raises(SlimnetError, match=r"no folder of pictures(?!.*package\.json)"):
        list_pictures(flat)


def test_sizes_differ_only_where_one_is_asked_for(draw: Draw) -> None:
    root = draw(odd=True)
    with pytest.raises(SlimnetError, match=r"from 12x10 to 16x16; .*image_size or --image-size, such as 32"):
        load(root)
    assert load(root, image_size=8).image_shape == (3, 8, 8)
    grey = load(root, image_size=8, channels=1, resize="pad")
    assert (grey.image_shape, grey.resize) == ((1, 8, 8), "pad")


# What is kept


def test_pictures_are_decoded_once(draw: Draw, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = draw()
    said: list[str] = []
    first = load(root, said)
    assert any("decoding pets 30/30" in line for line in said)
    assert any("there is no folder test" in note for note in first.notes)
    monkeypatch.setattr(cache_module, "_write", lambda *_: pytest.fail("decoded again"))
    said.clear()
    again = load(root, said)
    assert not any("decoding" in line for line in said)
    np.testing.assert_array_equal(again.x_train, first.x_train)
    assert again.notes == first.notes
    moved = root.rename(root.with_name("elsewhere"))
    assert fingerprint(Source("folder", moved)) == fingerprint(Source("folder", moved))


def test_the_same_pictures_elsewhere_are_found_by_their_content(draw: Draw) -> None:
    root = draw()
    before = fingerprint(Source("folder", root))
    copy = Path(shutil.copytree(root, root.with_name("copy")))
    assert fingerprint(Source("folder", copy)) == before
    (copy / "cat" / "000.png").rename(copy / "cat" / "new.png")
    assert fingerprint(Source("folder", copy)) != before


def test_a_changed_file_is_noticed_whatever_its_times_say(draw: Draw) -> None:
    root = draw()
    before = fingerprint(Source("folder", root))
    path = root / "cat" / "000.png"
    stamp = path.stat()
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert path.stat().st_size == stamp.st_size
    assert fingerprint(Source("folder", root)) != before


def test_files_that_stay_are_read_once(draw: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    root = draw()
    read: list[Path] = []
    monkeypatch.setattr(hashes, "SETTLED", -(10**18))  # as if they had been there for long

    def count(path: Path) -> str:
        read.append(path)
        return content_hash(path)

    monkeypatch.setattr(hashes, "content_hash", count)
    first = fingerprint(Source("folder", root))
    assert len(read) == 30
    assert fingerprint(Source("folder", root)) == first
    assert len(read) == 30
    (root / "cat" / "000.png").touch()
    assert fingerprint(Source("folder", root)) == first
    assert len(read) == 31


def test_processes_share_what_one_decodes(draw: Draw, data_dir: Path) -> None:
    root = draw(count=40)
    program = (
        "import sys; from pathlib import Path; from slimnet.data import Source, load_dataset\n"
        "said = []\n"
        "data = load_dataset(Source('folder', Path(sys.argv[1])), on_progress=lambda *a: said.append(a[0]))\n"
        "print(len(data.y_train), any('decoding' in what for what in said if 'waiting' not in what))"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", program, str(root)], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    answers = [process.communicate()[0].split() for process in started]
    assert [answer[0] for answer in answers] == ["96"] * 3
    assert sum(answer[1] == "True" for answer in answers) == 1
    assert [path.name for path in (data_dir / "pictures").glob("[!.]*")] == [
        path.name for path in (data_dir / "pictures").glob("pets-*")
    ]


def test_who_finds_another_process_decoding_waits_and_says_so(draw: Draw, data_dir: Path) -> None:
    root = draw()
    load(root)
    (kept,) = (data_dir / "pictures").glob("pets-*")
    shutil.rmtree(kept)
    waits = threading.Event()

    def tell(what: str, done: int, total: int) -> None:
        if what == "waiting for another process, which is decoding pets":
            waits.set()

    with ThreadPoolExecutor() as pool:
        with FileLock(kept.with_name(f".{kept.name}.lock")):
            loading = pool.submit(load_dataset, Source("folder", root), on_progress=tell)
            assert waits.wait(60)
            assert not loading.done()
        assert len(loading.result().y_train) == 24


def test_a_decoding_that_was_killed_leaves_nothing_behind(draw: Draw, data_dir: Path) -> None:
    root = draw()
    load(root)
    (kept,) = (data_dir / "pictures").glob("pets-*")
    shutil.rmtree(kept)
    (data_dir / "pictures" / f".{kept.name}.1234.aside").mkdir()
    load(root)
    assert [path.name for path in (data_dir / "pictures").iterdir() if path.is_dir()] == [kept.name]


def test_a_damaged_cache_says_what_to_remove(draw: Draw, data_dir: Path) -> None:
    root = draw()
    load(root)
    (kept,) = (data_dir / "pictures").glob("pets-*")
    os.truncate(kept / "train.pixels", 100)
    with pytest.raises(SlimnetError, match=rf"{kept.name} is damaged .*; remove it"):
        load(root)


def test_a_cache_that_may_not_be_read_is_not_damaged(draw: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    load(root := draw(count=4))
    read = Path.read_bytes

    def closed(path: Path) -> bytes:
        if path.name == "facts.json":
            raise PermissionError
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", closed)  # as root may read everything
    with pytest.raises(SlimnetError, match="may not be read; allow yourself to read it, or name another"):
        load(root)


def test_pictures_that_changed_under_a_study_are_not_decoded(draw: Draw) -> None:
    root = draw()
    before = fingerprint(Source("folder", root))
    (root / "cat" / "000.png").unlink()
    with pytest.raises(SlimnetError, match="have changed since"):
        load(root, fingerprint=before)


def test_statistics_are_those_of_the_pixels(draw: Draw) -> None:
    data = load(draw())
    parts = split(data, validation=0.25, seed=1)
    assert parts.train.rows is not None
    own = data.x_train[parts.train.rows.numpy()]
    np.testing.assert_allclose(parts.mean.flatten().numpy(), own.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(parts.std.flatten().numpy(), own.std((0, 1, 2)), rtol=1e-6)
    given = split(data, validation=0.25, seed=1, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))
    assert given.mean.flatten().tolist() == [127.5] * 3
    assert given.preprocessing.std == pytest.approx((0.2,) * 3)
    assert given.preprocessing.classes == ("cat", "dog", "eel")


# What is refused


def break_picture(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:60])


def test_a_few_unreadable_pictures_are_named_and_left_out(draw: Draw) -> None:
    root = draw(count=20)
    trained = [picture.path for picture in list_pictures(root).train]
    break_picture(root / trained[3])
    data = load(root)
    assert len(data.y_train) == 47
    (note,) = (note for note in data.notes if "cannot be read" in note)
    assert note.startswith("1 of 60 pictures cannot be read and are left out: ")
    assert trained[3] in note
    expected = np.stack([read_picture(root / path, None) for path in trained if path != trained[3]])
    np.testing.assert_array_equal(data.x_train, expected)


def test_too_many_unreadable_pictures_are_refused(draw: Draw, data_dir: Path) -> None:
    root = draw(count=20)
    for picture in list_pictures(root).train[:3]:
        break_picture(root / picture.path)
    with pytest.raises(SlimnetError, match=r"3 of the 48 pictures of train cannot be read, .*: .*cat"):
        load(root)
    assert not list((data_dir / "pictures").glob("pets-*"))


def test_a_folder_that_is_no_data_set_says_why(draw: Draw, tmp_path: Path) -> None:
    with pytest.raises(SlimnetError, match="absent is not a folder"):
        load(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SlimnetError, match="empty holds no folder of pictures; it needs one per class"):
        load(tmp_path / "empty")
    root = draw(count=3)
    flat = tmp_path / "flat"
    flat.mkdir()
    for number, path in enumerate(root.rglob("*.png")):
        shutil.copy(path, flat / f"{number}.png")
    with pytest.raises(SlimnetError, match="The 9 pictures that lie in it are in no such folder"):
        load(flat)
    texts = tmp_path / "texts"
    for name in ("a", "b"):
        (texts / name).mkdir(parents=True)
        (texts / name / "one.txt").write_text("?")
    with pytest.raises(SlimnetError, match=r"The files in it \(\.txt\) are no pictures by their names"):
        load(texts)


@pytest.mark.parametrize("closed", [".", "cat", "cat/inner"])
def test_a_folder_that_may_not_be_read_is_named(
    draw: Draw, monkeypatch: pytest.MonkeyPatch, closed: str
) -> None:
    root = draw(count=3)
    (root / "cat" / "inner").mkdir()
    scandir = os.scandir

    def refuse(folder: Path | str) -> object:
        if Path(folder) == root / closed:
            raise PermissionError(errno.EACCES, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)  # as root may read everything
    with pytest.raises(SlimnetError, match=f"{root / closed} cannot be read: Permission denied; "):
        list_pictures(root)


def test_a_single_class_an_empty_one_and_one_picture(draw: Draw) -> None:
    root = draw(count=3)
    shutil.rmtree(root / "cat")
    for path in (root / "dog").iterdir():
        path.unlink()
    with pytest.raises(SlimnetError, match="dog holds no picture"):
        load(root)
    (root / "dog").rmdir()
    with pytest.raises(SlimnetError, match=r"holds a single class, eel; telling classes apart takes two\.$"):
        load(root)
    (outer := root.with_name("outer")).mkdir()
    with pytest.raises(SlimnetError, match=f"single class, pets; .* name {outer / 'pets'}.$"):
        load(root.rename(outer / "pets").parent)
    root = (outer / "pets").rename(root)
    shutil.copytree(root / "eel", root / "dog")
    for name in ("001.png", "002.png"):
        (root / "dog" / name).unlink()
    with pytest.raises(SlimnetError, match="dog holds one picture; training and testing need one each"):
        load(root)


def test_classes_that_parts_lack(draw: Draw) -> None:
    draw("pets/train", 3)
    root = draw("pets/test", 3).parent
    shutil.rmtree(root / "test" / "cat")
    with pytest.raises(SlimnetError, match=r"test holds no picture of cat, a class of .*train"):
        load(root)
    shutil.copytree(root / "test" / "dog", root / "test" / "cat")
    shutil.copytree(root / "test" / "dog", root / "test" / "fox")
    with pytest.raises(SlimnetError, match=r"fox is of a class that .*train does not have; rename it"):
        load(root)
    (root / "test" / "fox").rename(root / "test" / "Dogs")
    with pytest.raises(SlimnetError, match=r"does not have; did you mean dog\? Rename it"):
        load(root)
    shutil.rmtree(root / "train")
    with pytest.raises(SlimnetError, match="holds test, but no folder train"):
        load(root)


def test_parts_by_another_name_are_no_classes(draw: Draw) -> None:
    draw("pets/train_images", 3)
    root = draw("pets/Test Set", 3).parent
    with pytest.raises(SlimnetError, match="holds Test Set and train_images, which seem to be parts"):
        load(root)


def test_a_long_name_is_cut_off(draw: Draw) -> None:
    assert len(load(draw("ä" * 120, 3)).y_train) == 6


def test_a_full_or_closed_disk(draw: Draw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = draw()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SlimnetError, match=r"cannot be written .*; make room there, or name another folder"):
        load(root, data_dir=tmp_path / "file")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10_000))
    with pytest.raises(SlimnetError, match=r"take 10\.8 kB, but .* has 10\.0 kB left"):
        load(root)


def test_greys_are_noticed(draw: Draw) -> None:
    root = draw()
    for path in root.rglob("*.png"):
        Image.open(path).convert("L").save(path)
    assert "all pictures are grey; data.channels: 1 or --channels 1 would take a third of the memory" in (
        load(root).notes
    )
    assert load(root, channels=1).image_shape == (1, 10, 12)


def test_sixteen_bits_that_are_not_filled_are_noticed(draw: Draw) -> None:
    root = draw(count=4)
    for path in root.rglob("*.png"):
        Image.fromarray(np.asarray(Image.open(path).convert("L")).astype(np.uint16) * 16).save(path)
    assert any("all pictures are nearly black, at most 20 of 255" in note for note in load(root).notes)


def test_the_cache_says_what_it_holds(draw: Draw, data_dir: Path) -> None:
    load(draw(), image_size=8)
    (kept,) = (data_dir / "pictures").glob("pets-*")
    facts = json.loads((kept / "facts.json").read_text())
    assert (facts["shape"], facts["classes"]) == ([8, 8, 3], ["cat", "dog", "eel"])
    assert facts["parts"] == {"train": 24, "test": 6}
